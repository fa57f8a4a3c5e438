"""`copy`: move a project to another store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from budgetguard.cli import options
from budgetguard.cli.session import CommandSession, new_console, session
from budgetguard.cli.tables import Column, new_table, text_column
from budgetguard.core.money import format_usd, to_usd
from budgetguard.core.wording import count, printable
from budgetguard.errors import ConfigurationError
from budgetguard.stores.base import Store, Transfer, open_store, public_url
from budgetguard.stores.transfer import Moved, Progress, Sums, move, undo

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
                here.write(_object(here, there, done))
            else:
                _show(here, there, done)


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


def _show(here: CommandSession, there: Store, done: Moved) -> None:
    old, new = printable(public_url(here.guard.store.url)), printable(public_url(there.url))
    project = f"project {here.guard.project!r}"
    if done.action == "none":
        here.say(f"Nothing to do: {project} has moved to {new} before.")
    else:
        here.say(
            f"Moved {project} to {new}: {count(done.rows, 'row')}. The sums agree. "
            f"Writes were refused for {done.seconds:.1f} s."
        )
    here.console.print(new_table([text_column("There"), Column("")], _rows(done.sums)))
    here.say(f"Start the programs with BUDGETGUARD_STORE={new} now. What they could not settle meanwhile:")
    here.say(f"  budgetguard deliver --from {old} --to {new} --project {here.guard.project}")


def _rows(sums: Sums) -> list[list[str]]:
    return [
        ["accounts", f"{sums.accounts:,}"],
        ["limits", format_usd(sums.limit)],
        ["spent", format_usd(sums.spent)],
        ["held", format_usd(sums.held)],
        ["calls", f"{sums.records:,}"],
        ["calls under way", f"{sums.open:,}"],
        ["cost of calls", format_usd(sums.cost)],
    ]


def _object(here: CommandSession, there: Store, done: Moved) -> dict[str, Any]:
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
