"""All rows of one project, read from the disk store's tables in one transaction, a page at a time."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator

from budgetguard.core.rows import Stored, StoredAccount, StoredHold, StoredObservations, StoredSwept
from budgetguard.core.windows import Milliseconds
from budgetguard.stores import disk_tables as tables
from budgetguard.stores.disk_rows import TableRows, account_of, hold_of
from budgetguard.stores.disk_tables import parse, text_in


def exported(con: sqlite3.Connection, project: int, since: Milliseconds) -> Iterator[Stored]:
    """Yield what is stored of a project: see `movable.Movable.export`.

    Raises:
        sqlite3.Error: it cannot be read, or is not what this wrote.
    """
    yield from _holds(con, project, since)
    yield from _accounts(con, project)
    yield from _observations(con, project)
    if swept_to := TableRows(con, project, 0).swept_to:
        yield StoredSwept(swept_to)


def _holds(con: sqlite3.Connection, project: int, since: Milliseconds) -> Iterator[Stored]:
    after = ""
    while True:
        page = con.execute(
            tables.PAGE_OF_CHANGED, (project, after, project, after, since, tables.PAGE)
        ).fetchall()
        if not page:
            return
        answers: dict[str, list[str]] = defaultdict(list)
        for hold_id, request_id in con.execute(tables.ANSWERS_OF_PAGE, (project, page[0][0], page[-1][0])):
            answers[hold_id].append(text_in(request_id, f"answer of hold {hold_id!r}"))
        for hold_id, *values in page:
            yield StoredHold(hold_id, hold_of(hold_id, tuple(values)), tuple(answers.get(hold_id, ())))
        after = page[-1][0]


def _accounts(con: sqlite3.Connection, project: int) -> Iterator[Stored]:
    # All at once, since to look for those of each account would be to read all of them for each. They are
    # the calls that are under way.
    open_holds: dict[str, dict[str, Milliseconds]] = defaultdict(dict)
    for hold_id, expires, accounts in con.execute(tables.ALL_OPEN, (project,)):
        for name in parse(accounts, dict, f"of hold {hold_id!r}"):
            open_holds[name][hold_id] = expires
    after = None
    while True:
        statement = tables.FIRST_PAGE_OF_ACCOUNTS if after is None else tables.NEXT_PAGE_OF_ACCOUNTS
        page = con.execute(statement, (project, after or "", b"", tables.PAGE)).fetchall()
        if not page:
            return
        spend = defaultdict(list)
        for number, model, cost in con.execute(tables.SPEND_OF_PAGE, (project, page[0][0], page[-1][0])):
            spend[number].append((model, cost))
        for name, number, *values in page:
            row, _, opened, _ = account_of(name, tuple(values), spend[number])
            row["open"] = open_holds.get(name, {})
            yield StoredAccount(name, row, opened)
        after = page[-1][0]


def _observations(con: sqlite3.Connection, project: int) -> Iterator[Stored]:
    rows = TableRows(con, project, 0)
    after: str | bytes | None = None
    while True:
        page = con.execute(tables.PAGE_OF_MODELS, (project, after, after)).fetchall()
        for (stored,) in page:
            model = text_in(stored, "observation")
            yield StoredObservations(model, rows.load_observations(model))
        if not page:
            return
        after = page[-1][0]
