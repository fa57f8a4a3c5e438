"""A command's session: a guard on the chosen store, the budget that it is about, and its output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from decimal import Decimal
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from budgetguard.cli.words import budget_in_words, span
from budgetguard.core.accounts import PROJECT, USER, Balance, account_name, check_id
from budgetguard.core.labels import named_by
from budgetguard.core.money import to_usd
from budgetguard.core.rules import read_labels, read_rules
from budgetguard.core.windows import zone
from budgetguard.errors import BudgetGuardError, ConfigurationError, UnknownUserError
from budgetguard.guard import Guard
from budgetguard.stores.base import Store
from budgetguard.stores.targets import disk_target

_PIPE_WIDTH = 120


@dataclass(frozen=True, slots=True)
class CommandSession:
    """What one command works with.

    Attributes:
        guard: on the chosen store and project.
        json: write JSON, and nothing else, to standard output.
        console: standard output, for people.
        timezone: the zone in which times are shown; None is local time.
    """

    guard: Guard
    json: bool
    console: Console
    timezone: tzinfo | None

    @property
    def place(self) -> str:
        """The project and store, for messages."""
        return f"project {self.guard.project!r} of {self.guard.engine.place}"

    def write(self, value: dict[str, Any]) -> None:
        """Write one JSON object as one line."""
        write_json(value)

    def answer(self, value: dict[str, Any], text: str) -> None:
        """Write a command's result: as JSON if that was asked for, else as a sentence for people."""
        if self.json:
            self.write(value)
        else:
            self.say(text)

    def say(self, text: str) -> None:
        """Write a sentence for people, wrapped at words only in a terminal."""
        self.console.print(text, soft_wrap=not self.console.is_terminal)


def confirm(question: str) -> None:
    """Ask before something that cannot be undone.

    Raises:
        ConfigurationError: standard input is not a terminal.
        typer.Exit: the answer was no.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "this command asks first, and standard input is not a terminal: nothing was done; add --yes"
        )
    if not typer.confirm(question, err=True):
        sys.stderr.write("Nothing was done.\n")
        raise typer.Exit(1)


@contextmanager
def session(
    store: str | None = None,
    project: str | None = None,
    *,
    json: bool = False,
    timezone: str | None = None,
    may_make: bool = False,
) -> Iterator[CommandSession]:
    """Open a command's session, and close its store afterwards.

    Args:
        store: a store's URL; else the environment's.
        project: whose budgets; else the environment's.
        json: write JSON.
        timezone: IANA name of the zone in which times are shown.
        may_make: make a store that does not exist. Else it is an error: a mistyped folder would be an empty
            store, in which nobody has a budget.

    Raises:
        ConfigurationError: a bad option or variable, or a store that ends with this command.
    """
    given = {name: value for name, value in (("store", store), ("project", project)) if value is not None}
    display = None if timezone is None else zone(timezone)
    guard = Guard(**{**given, "alerts": ()})  # commands make no calls of which to tell
    if _is_memory(guard.settings.store):
        raise ConfigurationError(
            "a memory:// store is empty when a command begins and gone when it ends: "
            "name one that lasts, such as --store disk:///var/lib/app/budgets"
        )
    if not may_make:
        _check_folder(guard.settings.store)
    try:
        yield CommandSession(guard, json, new_console(), display)
    except UnknownUserError as error:
        elsewhere = guard.engine.elsewhere(account_name(USER, error.user))
        remedy = (
            f"there is one in {', '.join(map(repr, elsewhere))}: add --project {elsewhere[0]}"
            if elsewhere
            else "see `budgetguard users`, or make one with `budgetguard create USER 10`"
        )
        raise UnknownUserError(
            f"user {error.user!r} has no budget in project {guard.project!r} of {guard.engine.place}: "
            + remedy,
            user=error.user,
            project=guard.project,
        ) from error
    finally:
        guard.close()


def whose(user: str | None, project_budget: bool, command: str) -> str | None:
    """Return the user that a command names, or None for the project.

    Raises:
        ConfigurationError: neither or both, or a bad id.
    """
    if (user is None) != project_budget:
        raise ConfigurationError(
            f"whose? Write `budgetguard {command} USER`, or `budgetguard {command} --project-budget`"
        )
    return None if user is None else check_id(user, name="USER")


def find(guard: Guard, user: str | None) -> Balance | None:
    """Return the balance of a user (None: of the project), or None if there is none."""
    account = account_name(PROJECT, guard.project) if user is None else account_name(USER, user)
    return guard.store.read(account)


def known(here: CommandSession, user: str | None) -> Balance:
    """Return the balance of a user (None: of the project).

    Raises:
        UnknownUserError: the user has none.
        ConfigurationError: the project has none.
    """
    if user is None and find(here.guard, None) is None:
        raise ConfigurationError(
            f"{here.place} has no budget of its own: make one with `budgetguard create --project-budget 500`"
        )
    return here.guard.balance(user)


def who(balance: Balance) -> str:
    """Return whose balance this is, for the middle of a sentence."""
    return budget_in_words(balance.account)


def balance_object(guard: Guard, balance: Balance) -> dict[str, Any]:
    """Return a balance as `--json` shows it: `Balance.to_dict()` with what its names and rules say."""
    kind, _, ident = balance.account.partition(":")
    named, rules = named_by(balance.account), read_rules(balance.document.rules)
    return {
        "project": guard.project,
        "user": ident if kind == USER else None,
        **balance.to_dict(),
        "labels": {} if named is None else dict(named.scope.parts),
        "each": named is not None and named.scope.is_for_each,
        "name": "" if named is None else named.name,
        "on_limit": rules.on_limit,
        "wait": span(rules.wait_ms) if rules.on_limit == "wait" else None,
        "fallbacks": {model: list(others) for model, others in rules.fallbacks.items()},
        "allow": list(rules.allow),
        "forbid": list(rules.forbid),
        "max_call_cost": None if rules.max_call is None else format(to_usd(rules.max_call), "f"),
        "member": dict(read_labels(balance.document.labels)),
    }


def new_console(*, stderr: bool = False) -> Console:
    """Return a console that prints ids and names as they are, never as markup."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH  # no window: programs and files have room for whole lines
    return console


def write_json(value: dict[str, Any], *, stderr: bool = False) -> None:
    """Write one JSON object as one line, in ASCII so that any terminal and pipe takes it."""
    stream = sys.stderr if stderr else sys.stdout
    stream.write(json.dumps(value) + "\n")


def tell(message: str) -> None:
    """Write an error to standard error, as one line."""
    line = " ".join(message.split())
    new_console(stderr=True).print(Text(f"Error: {line}", "red"), soft_wrap=True)


def error_object(error: BudgetGuardError) -> dict[str, Any]:
    """Return an error as JSON-ready values: `error`, `message` and its fields, money as exact text."""
    exact = {
        name: format(value, "f")
        for name in error.fields
        if isinstance(value := getattr(error, name), Decimal)
    }
    return {**error.to_dict(), **exact}


def _check_folder(store: str | Store) -> None:
    if not isinstance(store, str) or not store.startswith("disk://"):
        return
    folder, _ = disk_target(store)
    if not folder.exists():
        raise ConfigurationError(
            f"there is no store in {folder}: make one with a budget, `budgetguard create USER 10`, "
            "or name another with --store disk://FOLDER or BUDGETGUARD_STORE"
        )


def _is_memory(store: str | Store) -> bool:
    return (store if isinstance(store, str) else store.url).startswith("memory:")
