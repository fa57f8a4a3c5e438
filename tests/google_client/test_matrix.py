"""Every way: booked as billed, refused unsent, and unnoticed; docs/google.md has the table of these."""

from __future__ import annotations

import warnings

import pytest

from budgetguard.errors import BudgetExceededError
from tests.sdks.server import CountingServer

from .clients import google_books, seen
from .ways import WAYS, Way, run

every_way = pytest.mark.parametrize("way", WAYS, ids=[way.id for way in WAYS])


def paid(paths: list[tuple[str, str]]) -> int:
    """Count the requests that cost money."""
    return sum(method in ("POST", "PATCH") and ":countTokens" not in path for method, path in paths)


@every_way
def test_booked_as_billed(way: Way) -> None:
    """And no more was billed than had been projected."""
    with google_books(way.server()) as books:
        run(way, books.server.url)
        assert paid([(one.method, one.path) for one in books.server.requests]) == way.paid
        assert books.spent == way.billed
        assert (books.held > 0) == way.later
        projected = books.of("Projected")
        assert len(projected) == way.paid
        assert sum(event.cost for event in projected) * 10**9 >= way.billed
        assert [event.estimated for event in books.of("Settled")] == [way.estimated] * (
            0 if way.later else way.paid
        )


@every_way
def test_refused_unsent(way: Way) -> None:
    with google_books(way.server()) as books:
        books.limit(1)
        with pytest.raises(BudgetExceededError):
            run(way, books.server.url)
        assert paid([(one.method, one.path) for one in books.server.requests]) == 0
        assert (books.spent, books.held) == (0, 0)


@every_way
def test_unnoticed(way: Way) -> None:
    with google_books(way.server()) as books:
        guarded = seen(run(way, books.server.url))
    with warnings.catch_warnings(), CountingServer(way.server()) as server:
        warnings.simplefilter("ignore")
        assert guarded == seen(run(way, server.url))


def test_no_two_ways_are_one() -> None:
    assert len({way.id for way in WAYS}) == len(WAYS)
