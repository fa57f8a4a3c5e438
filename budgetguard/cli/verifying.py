"""`verify`: add every balance up again from the records of calls."""

from __future__ import annotations

from typing import Any

import typer

from budgetguard.cli import options
from budgetguard.cli.display import account_label
from budgetguard.cli.moving import movable
from budgetguard.cli.session import CommandSession, session
from budgetguard.cli.tables import Cell, Column, new_table, text_column
from budgetguard.core.money import format_usd, to_usd
from budgetguard.core.wording import count, printable
from budgetguard.stores.verifying import COUNTS, Difference, Verification
from budgetguard.stores.verifying import verify as verify_store


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
            here.write(_object(here, found))
        else:
            _show(here, found)
        if not found:
            raise typer.Exit(1)


def _show(here: CommandSession, found: Verification) -> None:
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
        here.console.print(new_table(columns, [_row(one) for one in found.differences]))
    if found.partial:
        names = ", ".join(map(account_label, found.partial[:10]))
        more = f" and {len(found.partial) - 10:,} more" if len(found.partial) > 10 else ""
        here.say(
            f"Of {names}{more} records are gone, since they are older than "
            f"{here.guard.settings.retention}: they have spent at least what is left of them."
        )


def _row(one: Difference) -> list[Cell]:
    what = one.what if one.model is None else f"{one.what} on {printable(one.model)}"
    numbers = (one.stored, one.records, one.stored - one.records)
    said = [f"{number:,}" if one.what in COUNTS else format_usd(number) for number in numbers]
    return [account_label(one.account), what, *said]


def _object(here: CommandSession, found: Verification) -> dict[str, Any]:
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
    return number if one.what in COUNTS else format(to_usd(number), "f")
