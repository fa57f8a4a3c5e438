"""Every endpoint, in every way and with both clients: booked as billed, refused unsent, and unnoticed.

README's table is made from the same cases: a mark there is a test here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from budgetguard.core.money import to_nanos
from budgetguard.errors import BudgetExceededError
from tests.stores import SHARED, Row, on

from . import chat
from .case import POOR, Case, guarded, once_guarded, seen, unguarded
from .cases import CASES, all_ways, cells
from .ways import Way

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Sora.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:use `stream` instead:DeprecationWarning"),
]


def of_ways(found: Iterable[tuple[Case, str, Way, Sequence[pytest.MarkDecorator]]]) -> pytest.MarkDecorator:
    params = [
        pytest.param(
            case, client, way, id=f"{case.title} | {way.column} | {client} | {way.name}", marks=marks
        )
        for case, client, way, marks in found
    ]
    return pytest.mark.parametrize(("case", "client", "way"), params)


every_way = of_ways((case, client, way, ()) for case, client, way in all_ways())
first_of_each_cell = of_ways(
    (case, client, way, () if case is chat.CASE else (pytest.mark.full,))
    for case, client, way in all_ways()
    if way is cells(case)[way.column][0]
)
TRIES = 5


@every_way
def test_booked_as_billed(case: Case, client: str, way: Way) -> None:
    """And no more was billed than had been projected."""
    made = once_guarded(case, client, way)
    billed, requests = made.billed
    assert requests == 1
    assert billed > 0
    assert (made.spent, made.held) == (billed, 0)
    assert made.estimated == [way.estimated]
    assert [to_nanos(cost) >= billed for cost in made.projected] == [True]


@every_way
def test_unnoticed(case: Case, client: str, way: Way) -> None:
    """The answer has the types and contents that it has with nobody between."""
    assert seen(once_guarded(case, client, way).answers) == seen(unguarded(case, client, way))


@every_way
def test_refused_unsent(case: Case, client: str, way: Way) -> None:
    made = guarded(case, client, way, usd=POOR, times=TRIES)
    assert [type(answer) for answer in made.answers] == [BudgetExceededError] * TRIES
    assert (made.sent, made.spent, made.held) == (0, 0, 0)


@first_of_each_cell
@on(SHARED)
def test_booked_on_every_store(case: Case, client: str, way: Way, row: Row, tmp_path: Path) -> None:
    """Chats each time, all else before a release."""
    with row.serve(tmp_path) as place:
        made = guarded(case, client, way, store=place.url)
    assert (made.spent, made.held) == (made.billed[0], 0)


def test_no_two_ways_have_one_name() -> None:
    for case in CASES:
        names = [(way.column, way.name) for way in case.ways]
        assert len(set(names)) == len(names)
