"""`keys`: the keys of the hosted service."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from budgetguard.cli import options
from budgetguard.cli.session import CommandSession, session
from budgetguard.core.windows import to_datetime
from budgetguard.core.wording import printable
from budgetguard.errors import ConfigurationError
from budgetguard.server.keys import KEYS_PROJECT, ROLES, Key, create_key, list_keys, revoke_key

keys = options.new_typer(
    name="keys", help="Make, list and revoke the keys of the hosted service.", no_args_is_help=True
)


@keys.callback()
def _pass_on(context: typer.Context) -> None:
    # Options before `keys` are meant for the command after it.
    if context.invoked_subcommand is not None:
        context.default_map = {context.invoked_subcommand: context.default_map or {}}


@keys.command()
def create(
    project: Annotated[str, options.argument("PROJECT", "The one project that the key is for.")],
    role: Annotated[
        str,
        typer.Option(
            metavar="|".join(ROLES),
            help="read sees; spend also reserves, settles and sets budgets; admin also resets and deletes.",
        ),
    ] = "spend",
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Make a key and show it once.

    The store keeps only its SHA-256. A running service accepts it within seconds.

    \b
    Examples:
      budgetguard keys create my-app
      budgetguard keys create my-app --role read --json
    """
    with _keys(store, json) as here:
        made, text = create_key(here.guard.store, project, role)
        if json:
            here.write({"key": text, **_object(made)})
            return
        sys.stdout.write(text + "\n")
        sys.stderr.write(
            f"Key {made.id} of project {printable(project)!r}, role {role}. It is not shown again: keep it.\n"
        )


@keys.command("list")
def list_all(store: options.Store = None, json: options.Json = False) -> None:
    """List the keys that are not revoked: id, role, when made, project."""
    with _keys(store, json) as here:
        found = list_keys(here.guard.store)
        if json:
            here.write({"keys": [_object(one) for one in found]})
            return
        for one in found:
            made = to_datetime(one.created_ms)
            here.say(f"{one.id}  {one.role:5}  {made:%Y-%m-%d %H:%M} UTC  {printable(one.project or '')}")
        if not found:
            here.say("There are no keys.")


@keys.command()
def revoke(
    key: Annotated[str, options.argument("ID", "As `list` shows it.")],
    store: options.Store = None,
    json: options.Json = False,
) -> None:
    """Revoke a key; a running service refuses it within seconds."""
    with _keys(store, json) as here:
        revoked = revoke_key(here.guard.store, key)
        here.answer(
            {"revoked": _object(revoked)},
            f"Revoked key {revoked.id} of project {printable(revoked.project or '')!r}.",
        )


@contextmanager
def _keys(store: str | None, json: bool) -> Iterator[CommandSession]:
    with session(store, KEYS_PROJECT, json=json, may_make=True) as here:
        if here.guard.store.url.startswith(("http://", "https://")):
            raise ConfigurationError("keys are kept in the service's own store: give that one with --store")
        yield here


def _object(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "project": key.project,
        "role": key.role,
        "created_at": to_datetime(key.created_ms).isoformat(),
    }
