"""Every row of the table of docs/threads.md is so."""

from __future__ import annotations

import inspect

import pytest

from budgetguard import budget_user
from tests.following import NONE, ROWS, Row, look

CELLS = [
    pytest.param(row, number, id=f"{row.what} {number}") for row in ROWS for number in range(len(row.probes))
]


@pytest.mark.parametrize(("row", "number"), CELLS)
async def test_the_user_follows_where_the_table_says_so(row: Row, number: int) -> None:
    with budget_user("alice"):
        inside, again = await row.probes[number](look)
    after = NONE if again is None else again()
    if inspect.isawaitable(after):
        after = await after
    assert (inside, after) == (row.inside, row.after)
