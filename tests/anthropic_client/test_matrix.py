"""Every endpoint and client in every way, sync and async: booked as billed, refused unsent, and unnoticed."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import anthropic
import pytest

from budgetguard.core.money import to_nanos
from budgetguard.errors import BudgetExceededError, UnknownEndpointError
from budgetguard.providers.anthropic.endpoints import PRICED, TABLE
from tests.matrix.ways import CALL, RAW, STREAM, STREAMING, Way

from .matrix import CASES, COLUMNS, POOR, Case, Made, cells, guarded, plain, unguarded
from .methods import BASE, methods

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")

TRIES = 3


def _params() -> Any:
    for case in CASES:
        for way in case.ways:
            if not case.has(way):
                continue
            first = way is cells(case)[way.column][0]
            for asynchronous in (False, True):
                # Each time the first way of a cell; of other clouds, calls and streams. All before a release.
                if case.kind == "Anthropic":
                    often = first or (case.title == "Messages" and not asynchronous)
                else:
                    often = first and not asynchronous and way.column in (CALL, STREAM)
                yield pytest.param(
                    case,
                    way,
                    asynchronous,
                    id=f"{case.title} | {way.column} | {'async ' if asynchronous else ''}{way.name}",
                    marks=() if often else (pytest.mark.full,),
                )


every_way = pytest.mark.parametrize(("case", "way", "asynchronous"), list(_params()))


@cache
def once(case: Case, way: Way, asynchronous: bool) -> Made:
    """Make a call once, for all who look at what came of it."""
    return guarded(case, way, asynchronous=asynchronous)


@every_way
def test_booked_as_billed(case: Case, way: Way, asynchronous: bool) -> None:
    """And no more was billed than had been projected."""
    made = once(case, way, asynchronous)
    assert made.sent == 1
    assert made.billed > 0
    assert (made.spent, made.held) == (made.billed, 0)
    assert [to_nanos(cost) >= made.billed for cost in made.projected] == [True]


@every_way
def test_unnoticed(case: Case, way: Way, asynchronous: bool) -> None:
    """The answer has the types and contents that it has with nobody between."""
    answers, without = once(case, way, asynchronous).answers, unguarded(case, way, asynchronous=asynchronous)
    assert _seen(answers) == _seen(without)


@every_way
def test_refused_unsent(case: Case, way: Way, asynchronous: bool) -> None:
    made = guarded(case, way, asynchronous=asynchronous, nanos=POOR, times=TRIES)
    assert [type(answer) for answer in made.answers] == [BudgetExceededError] * TRIES
    assert (made.sent, made.spent, made.held) == (0, 0, 0)


def _seen(answers: list[Any]) -> str:
    # Addresses of objects and of servers differ from run to run.
    return re.sub(r"0x[0-9a-f]+|127\.0\.0\.1:\d+", "", repr(plain(answers)))


def test_every_priced_endpoint_has_a_row() -> None:
    proved = {"messages", "batches"}
    assert {row.name for row in PRICED} == proved
    assert {"batches" if "batches" in case.resource else "messages" for case in CASES} == proved


PAID = [
    (name, row.name)
    for name, sent in methods(anthropic.Anthropic)
    if not name.startswith(("completions", "beta.sessions", "beta.deployments", "beta.dreams"))
    and (row := TABLE.endpoint_of(sent.method, sent.url, base_url=BASE)) is not None
]


@pytest.mark.parametrize(("method", "row"), PAID, ids=[name for name, _ in PAID])
def test_every_method_that_costs_money_is_in_the_matrix(method: str, row: str) -> None:
    ways = [way for case in CASES if case.kind == "Anthropic" for way in case.ways if way.method == method]
    columns = {way.column for way in ways}
    assert columns, f"{method} sends a paid request to {row!r}, and no way calls it"
    if CALL in columns and row == "messages":
        assert {RAW, STREAMING, STREAM} <= columns


def test_every_client_of_the_package_is_in_the_matrix() -> None:
    named = {name for name in dir(anthropic) if re.fullmatch(r"Anthropic(?!Error)\w*", name)}
    assert named <= {case.kind for case in CASES}


def test_what_the_completeness_tests_find() -> None:
    """Else they would hold of nothing."""
    found = dict(PAID)
    assert found["messages.create"] == found["messages.stream"] == found["beta.messages.create"] == "messages"
    assert found["messages.batches.create"] == found["beta.messages.batches.create"] == "batches"
    with pytest.raises(UnknownEndpointError):
        TABLE.endpoint_of("POST", "/v1/complete", base_url=BASE)


def test_every_column_is_used_and_no_two_ways_have_one_name() -> None:
    assert {way.column for case in CASES for way in case.ways} == set(COLUMNS)
    for case in CASES:
        names = [(way.column, way.name) for way in case.ways]
        assert len(set(names)) == len(names)
