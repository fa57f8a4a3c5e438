"""Every integration, in every way: booked as billed, refused unsent, once over a patched client, given back.

The table of docs/frameworks.md is made from the same cases: a mark there is these tests. Each is the real
framework over a real socket.
"""

from __future__ import annotations

import pytest

from budgetguard.core.money import to_nanos
from budgetguard.tokens.text import count_text, encoding_for
from tests.provider.server import OpenAIServer, Reply

from .case import COLUMNS, MODEL, POOR, WORDS, Case, Way, open_books, run
from .cases import CASES, all_ways

# What frameworks warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

ANSWER = Reply(WORDS)
# Says a third of it, and then nothing for as long as anybody listens.
UNFINISHED = Reply(WORDS, pause_after=20, hang=True)
TRIES = 3


def _param(case: Case, way: Way) -> object:
    # A proxy takes long to start: once is enough.
    group = case.framework if case.alone else f"{case.framework} {way.column}"
    mark = pytest.mark.xdist_group(group)
    return pytest.param(case, way, id=f"{case.framework} | {case.by} | {way.column} | {way.name}", marks=mark)


every_way = pytest.mark.parametrize(("case", "way"), [_param(*one) for one in all_ways()])
hooked_way = pytest.mark.parametrize(
    ("case", "way"), [_param(*one) for one in all_ways() if not (one[0].over or one[0].alone)]
)
cut_way = pytest.mark.parametrize(("case", "way"), [_param(*one) for one in all_ways() if one[1].cut])


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    case = request.getfixturevalue("case") if "case" in request.fixturenames else None
    if isinstance(case, Case):
        pytest.importorskip(case.package)


@every_way
def test_booked_as_billed(case: Case, way: Way) -> None:
    """And no more was billed than had been projected."""
    with OpenAIServer(ANSWER) as server, open_books(server, patched=case.over) as books:
        assert run(way.make, books.place)
        assert server.count() == 1
        assert books.spent == books.billed > 0
        assert books.held == 0
        assert len(books.booked()) == 1
        assert [event.estimated for event in books.of("Settled")] == [False]
        assert max(to_nanos(event.cost) for event in books.of("Projected")) >= books.billed


@every_way
def test_refused_unsent(case: Case, way: Way) -> None:
    """And the framework tries it no more often than the table says."""
    with OpenAIServer(ANSWER) as server, open_books(server, usd=POOR, patched=case.over) as books:
        for _ in range(TRIES):
            with pytest.raises(Exception) as raised:  # noqa: PT011 - looked at below
                run(way.make, books.place)
            assert case.refusal.fits(raised.value), repr(raised.value)
        assert (server.count(), books.spent, books.held) == (0, 0, 0)
        assert len(books.of("Refused")) <= TRIES * case.attempts


@hooked_way
def test_booked_once_over_a_patched_client(case: Case, way: Way) -> None:
    """The client pays; what the integration holds is given back before the client holds."""
    with OpenAIServer(ANSWER) as server, open_books(server, patched="openai") as books:
        assert run(way.make, books.place)
        assert server.count() == 1
        assert books.spent == books.billed > 0
        assert books.held == 0
        assert len(books.booked()) == 1
        projected = max(to_nanos(event.cost) for event in books.of("Projected"))
    # One hold at a time: money for a call and a half is enough.
    with (
        OpenAIServer(ANSWER) as server,
        open_books(server, usd=projected * 1.5 / 1_000_000_000, patched="openai") as books,
    ):
        assert run(way.make, books.place)


@cut_way
def test_a_stream_that_is_cut_books_what_was_seen(case: Case, way: Way) -> None:
    """By the input, and more than the input, and less than all of it."""
    assert way.cut is not None
    with OpenAIServer(UNFINISHED) as server, open_books(server, patched=case.over) as books:
        run(way.cut, books.place)
        books.settle()
        rates = books.guard.engine.prices.rates(MODEL)
        whole = count_text(WORDS, encoding_for(MODEL))
        spent, held = books.spent, books.held
        [settled] = books.of("Settled")
        assert settled.outcome == "abandoned"
        assert 0 < settled.usage.output_tokens < whole
        assert settled.usage.input_tokens > 0
        assert (spent, held) == (rates.cost(settled.usage), 0)


@every_way
def test_an_answer_without_usage_is_never_free(case: Case, way: Way) -> None:
    """Its text is counted, or the projection is booked."""
    with (
        OpenAIServer(Reply(WORDS, omit_usage=True)) as server,
        open_books(server, patched=case.over) as books,
    ):
        run(way.make, books.place)
        assert books.held == 0
        [settled] = books.of("Settled")
        assert settled.cost > 0
        seen = count_text(WORDS, encoding_for(MODEL))
        assert settled.usage is None or settled.usage.output_tokens >= seen


@every_way
def test_an_error_of_the_provider_gives_the_hold_back(case: Case, way: Way) -> None:
    with OpenAIServer(Reply(status=400)) as server, open_books(server, patched=case.over) as books:
        with pytest.raises(Exception, match=""):  # noqa: PT011 - the framework's own
            run(way.make, books.place)
        assert server.count() >= 1
        assert (books.spent, books.held) == (0, 0)


def test_each_case_has_its_columns() -> None:
    for case in CASES:
        assert {way.column for way in case.ways} <= set(COLUMNS)
        names = [(way.column, way.name) for way in case.ways]
        assert len(set(names)) == len(names)
