"""`copy`, `migrate`, `import-litellm`, `verify`: the commands that are about a whole store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from budgetguard.cli import options
from budgetguard.cli.display import account_label
from budgetguard.cli.session import CommandSession, new_console, session
from budgetguard.cli.tables import Cell, Column, new_table, text_column
from budgetguard.core.accounts import USD, unit_of
from budgetguard.core.money import format_usd, to_usd
from budgetguard.core.wording import count, printable
from budgetguard.errors import ConfigurationError
from budgetguard.stores.base import Migrating, Store, Transfer, open_store, public_url
from budgetguard.stores.transfer import Moved, Progress, Sums, move, undo
from budgetguard.stores.verifying import COUNTS, Difference, Verification
from budgetguard.stores.verifying import verify as verify_store

From = Annotated[str, typer.Option("--from", metavar="URL", help="The store where the project is.")]
To = Annotated[str | None, typer.Option("--to", metavar="URL", help="The store where it shall be.")]


def copy(
    source: From,
    target: To = None,
    project: options.Project = None,
    take_back: Annotated[
        bool,
        typer.Option("--undo", help="Open the project again where it is, after a move was killed."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Move a project to another store.

    The first store takes no writes meanwhile: calls are refused, and settlements wait in the spool. At the
    end the sums of the two are compared. If they differ, or anything fails, the project stays where it is.
    Killed, it can be repeated, or undone. Start the programs again with the new store then, and run
    `budgetguard deliver`.

    \b
    Example:
      budgetguard copy --from disk:///var/lib/app/budgets --to postgresql://db.internal/budgets
    """
    with session(source, project, json=json) as here:
        if take_back:
            undo(movable(here.guard.store))
            if json:
                here.write({"action": "undone", "project": here.guard.project})
            else:
                here.say(f"Opened {printable(here.place)} again.")
            return
        if target is None:
            raise ConfigurationError("name the store to move the project to: --to URL")
        with opened(here, target) as there:
            console = new_console(stderr=True)
            with console.status("Looking at both stores ...") as status:

                def tell(progress: Progress) -> None:
                    status.update(f"{progress.step.capitalize()}: {count(progress.rows, 'row')}")

                done = move(movable(here.guard.store), movable(there), tell=tell)
            if json:
                here.write(_move_object(here, there, done))
            else:
                _show_move(here, there, done)


def movable(store: Store) -> Transfer:
    """Return a store as one whose rows can be read and written.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(store, Transfer):
        raise ConfigurationError(
            f"{public_url(store.url)} is a service, which keeps its rows to itself: "
            "run this where the service runs, with --store URL of the store behind it"
        )
    return store


@contextmanager
def opened(here: CommandSession, url: str) -> Iterator[Store]:
    """Open another store of the same project, for as long as a command takes.

    Raises:
        ConfigurationError: a bad URL, or one of a store that ends with the command.
    """
    if url.startswith("memory:"):
        raise ConfigurationError("a memory:// store is gone when the command ends: name one that lasts")
    settings = here.guard.settings
    store = open_store(url, project=here.guard.project, clock=settings.clock, retention=settings.retention)
    try:
        yield store
    finally:
        store.close()


def _show_move(here: CommandSession, there: Store, done: Moved) -> None:
    old, new = printable(public_url(here.guard.store.url)), printable(public_url(there.url))
    project = f"project {here.guard.project!r}"
    if done.action == "none":
        here.say(f"Nothing to do: {project} has moved to {new} before.")
    else:
        here.say(
            f"Moved {project} to {new}: {count(done.rows, 'row')}. The sums agree. "
            f"Writes were refused for {done.seconds:.1f} s."
        )
    here.console.print(new_table([text_column("There"), Column("")], _sums_rows(done.sums)))
    here.say(f"Start the programs with BUDGETGUARD_STORE={new} now. What they could not settle meanwhile:")
    here.say(f"  budgetguard deliver --from {old} --to {new} --project {here.guard.project}")


def _sums_rows(sums: Sums) -> list[list[str]]:
    return [
        ["accounts", f"{sums.accounts:,}"],
        ["limits", format_usd(sums.limit)],
        ["spent", format_usd(sums.spent)],
        ["held", format_usd(sums.held)],
        ["calls", f"{sums.records:,}"],
        ["calls under way", f"{sums.open:,}"],
        ["cost of calls", format_usd(sums.cost)],
    ]


def _move_object(here: CommandSession, there: Store, done: Moved) -> dict[str, Any]:
    sums = done.sums
    return {
        "action": done.action,
        "project": here.guard.project,
        "from": public_url(here.guard.store.url),
        "to": public_url(there.url),
        "rows": done.rows,
        "refused_seconds": round(done.seconds, 3),
        "accounts": sums.accounts,
        "limits": format(to_usd(sums.limit), "f"),
        "spent": format(to_usd(sums.spent), "f"),
        "held": format(to_usd(sums.held), "f"),
        "calls": sums.records,
        "open": sums.open,
        "cost": format(to_usd(sums.cost), "f"),
    }


def migrate(store: options.Store = None, project: options.Project = None, json: options.Json = False) -> None:
    """Make the tables and functions of a postgresql:// store, or update them.

    A store does this itself on first use, if its role may. Where programs connect as a role that may not, run
    this as the role that owns the schema: it prints what to grant to theirs. Other stores need nothing.

    \b
    Example:
      budgetguard migrate --store postgresql://owner@db.internal/budgets
    """
    with session(store, project, json=json, may_make=True) as here:
        found = here.guard.store
        place = printable(public_url(found.url))
        if not isinstance(found, Migrating):
            if json:
                here.write({"action": "none", "before": None, "after": None, "grants": None})
            else:
                here.say(f"Nothing to do: {place} has no schema to migrate.")
            return
        before, after = found.migrate()
        if json:
            action = "none" if before == after else "migrated"
            here.write({"action": action, "before": before, "after": after, "grants": found.grants()})
            return
        if before == after:
            here.say(f"Nothing to do: the schema of {place} has version {after}.")
        elif before == 0:
            here.say(f"Made the schema of {place}, version {after}.")
        else:
            here.say(f"Migrated the schema of {place} from version {before} to {after}.")
        here.say(f"To let another role use it: {found.grants()};")


def import_litellm(
    path: Annotated[str, options.argument("PATH", "LiteLLM's user_cost.json.")],
    calendar: Annotated[
        bool, options.flag("Take 28 days for a month, and 365 for a year.", "--calendar")
    ] = False,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Take over the users of LiteLLM's user_cost.json.

    What they have spent comes with them. The whole file is checked before anything is made. Users who have a
    budget here are left as they are, so running it again changes nothing.

    \b
    Example:
      budgetguard import-litellm user_cost.json --calendar
    """
    with session(store, project, json=json, may_make=True) as here:
        done = here.guard.manager().import_litellm(path, calendar=calendar)
        found = {
            "action": "imported",
            "project": here.guard.project,
            "created": list(done.created),
            "existing": list(done.existing),
            "deleted": list(done.deleted),
            "over": list(done.over),
            "spent": format(to_usd(done.spent), "f"),
        }
        here.answer(found, f"Into {printable(here.place)}: {done}.")


def verify(store: options.Store = None, project: options.Project = None, json: options.Json = False) -> None:
    """Add every balance up again from the records of calls.

    It shows where the store has other sums, and exits with 1 if there is a difference. It changes nothing,
    and programs may go on meanwhile. Records older than the setting retention are gone: for accounts whose
    window began before, only the rest can be added up.

    \b
    Example:
      budgetguard verify
    """
    with session(store, project, json=json) as here:
        found = verify_store(movable(here.guard.store))
        if json:
            here.write(_verification_object(here, found))
        else:
            _show_verification(here, found)
        if not found:
            raise typer.Exit(1)


def _show_verification(here: CommandSession, found: Verification) -> None:
    what = f"{count(found.accounts, 'account')} of {printable(here.place)}"
    calls = f"the records of {count(found.records, 'call')}"
    if found:
        here.say(f"{what}: every balance is what {calls} come to.")
    else:
        here.say(f"{what}: {count(len(found.differences), 'number')} not what {calls} come to.")
        columns = [
            text_column("Account"),
            Column("What", "left"),
            *map(Column, ("Store", "Records", "Difference")),
        ]
        here.console.print(new_table(columns, [_difference_row(one) for one in found.differences]))
    if found.partial:
        names = ", ".join(map(account_label, found.partial[:10]))
        more = f" and {len(found.partial) - 10:,} more" if len(found.partial) > 10 else ""
        here.say(
            f"Of {names}{more} records are gone, since they are older than "
            f"{here.guard.settings.retention}: they have spent at least what is left of them."
        )


def _difference_row(one: Difference) -> list[Cell]:
    what = one.what if one.model is None else f"{one.what} on {printable(one.model)}"
    numbers = (one.stored, one.records, one.stored - one.records)
    counts = _is_count(one)
    said = [f"{number:,}" if counts else format_usd(number) for number in numbers]
    return [account_label(one.account), what, *said]


def _verification_object(here: CommandSession, found: Verification) -> dict[str, Any]:
    return {
        "project": here.guard.project,
        "accounts": found.accounts,
        "calls": found.records,
        "differences": [
            {
                "account": one.account,
                "what": one.what,
                "model": one.model,
                "stored": _number(one, one.stored),
                "records": _number(one, one.records),
            }
            for one in found.differences
        ],
        "partial": list(found.partial),
    }


def _number(one: Difference, number: int) -> int | str:
    return number if _is_count(one) else format(to_usd(number), "f")


def _is_count(one: Difference) -> bool:
    return one.what in COUNTS or unit_of(one.account) != USD
