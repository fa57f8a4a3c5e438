"""The SDK sends again by itself: what was sent and never answered is booked, refusals are not tried again."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from google.genai import _api_client, errors, types

from budgetguard.errors import BudgetExceededError
from tests.sdks.server import Answer, Arrived

from .clients import client, google_books
from .server import COST, MODEL, interaction, whole
from .ways import CONTENTS, HAS_INTERACTIONS, VERSION, close, close_async

RETRIES = types.HttpRetryOptions(attempts=3, initial_delay=0.01, max_delay=0.02, jitter=0.0)
# Milliseconds: long enough for an answer that comes.
PATIENCE = 2_000
# Older clients try again after errors that were answered only.
tries_after_silence = pytest.mark.skipif(VERSION < (2,), reason="an SDK that does not")
OVERLOADED = Answer({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}, status=503)


class Flaky:
    """A server that fails first.

    Args:
        failures: how its first answers go: an error, or `silence`, until the client has given up.
        answer: afterwards.
    """

    def __init__(self, *failures: Answer | str, answer: Any = None) -> None:
        self._failures = list(failures)
        self._answer = whole() if answer is None else answer
        self.over = threading.Event()

    def __call__(self, _arrived: Arrived) -> Answer:
        failure = self._failures.pop(0) if self._failures else Answer(self._answer)
        return failure if isinstance(failure, Answer) else Answer(self._answer, waits=self.over)


def ask(url: str) -> Any:
    made = client(url, retry_options=RETRIES, timeout=PATIENCE)
    try:
        return made.models.generate_content(model=MODEL, contents=CONTENTS)
    finally:
        close(made)


def test_an_answered_error_costs_nothing() -> None:
    with google_books(Flaky(OVERLOADED, OVERLOADED)) as books:
        ask(books.server.url)
        assert (books.spent, books.held, books.sent) == (COST, 0, 3)


@tries_after_silence
def test_a_try_that_was_never_answered_is_lost() -> None:
    server = Flaky("silence")
    with google_books(server) as books:
        ask(books.server.url)
        server.over.set()
        projected = int(books.of("Projected")[0].cost * 10**9)
        assert (books.spent, books.held, books.sent) == (COST + projected, 0, 2)
        assert books.of("Settled")[0].estimated


@pytest.mark.full
@tries_after_silence
async def test_async_tries_are_lost_too() -> None:
    server = Flaky("silence", OVERLOADED)
    with google_books(server) as books:
        # Who brings a transport of httpx does not get aiohttp.
        httpx_s = {"transport": httpx.AsyncHTTPTransport()}
        made = client(books.server.url, retry_options=RETRIES, timeout=PATIENCE, async_client_args=httpx_s)
        await made.aio.models.generate_content(model=MODEL, contents=CONTENTS)
        server.over.set()
        projected = int(books.of("Projected")[0].cost * 10**9)
        assert (books.spent, books.held, books.sent) == (COST + projected, 0, 3)
        await close_async(made)


async def test_aiohttp_sends_once_more_after_a_lost_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside of one attempt, unasked, after a pause that is nought here."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(_api_client.random, "randint", lambda *_: -1)
    with google_books(Flaky(Answer(cut=0))) as books:
        made = client(books.server.url)
        await made.aio.models.generate_content(model=MODEL, contents=CONTENTS)
        projected = int(books.of("Projected")[0].cost * 10**9)
        assert (books.spent, books.held, books.sent) == (COST + projected, 0, 2)
        await close_async(made)


@pytest.mark.full
@pytest.mark.skipif(VERSION < (2,), reason="an SDK that waits for as long as it takes")
async def test_silence_for_aiohttp_is_an_unknown_outcome() -> None:
    pytest.importorskip("aiohttp")
    server = Flaky("silence")
    with google_books(server) as books:
        made = client(books.server.url, timeout=PATIENCE)
        with pytest.raises(TimeoutError):
            await made.aio.models.generate_content(model=MODEL, contents=CONTENTS)
        server.over.set()
        projected = int(books.of("Projected")[0].cost * 10**9)
        assert (books.spent, books.held, books.sent) == (projected, 0, 1)
        await close_async(made)


@pytest.mark.full
@tries_after_silence
def test_all_tries_lost_is_an_unknown_outcome() -> None:
    server = Flaky("silence", "silence", "silence")
    with google_books(server) as books:
        with pytest.raises(Exception, match=r"timed out"):
            ask(books.server.url)
        server.over.set()
        projected = int(books.of("Projected")[0].cost * 10**9)
        assert (books.spent, books.held, books.sent) == (3 * projected, 0, 3)


def test_errors_that_last_cost_nothing() -> None:
    with google_books(Flaky(*[OVERLOADED] * 3)) as books:
        with pytest.raises(errors.ServerError):
            ask(books.server.url)
        assert (books.spent, books.held, books.sent) == (0, 0, 3)


def test_a_bad_request_costs_nothing() -> None:
    bad = Answer({"error": {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT"}}, status=400)
    with google_books(Flaky(bad)) as books:
        with pytest.raises(errors.ClientError):
            ask(books.server.url)
        assert (books.spent, books.held, books.sent) == (0, 0, 1)


def test_nobody_there_costs_nothing() -> None:
    with google_books() as books:
        with pytest.raises(Exception, match=r"refused|Connection|connect"):
            ask("http://127.0.0.1:1")
        assert (books.spent, books.held) == (0, 0)


def test_a_refusal_is_not_tried_again() -> None:
    with google_books() as books:
        books.limit(1)
        with pytest.raises(BudgetExceededError):
            ask(books.server.url)
        assert (books.sent, len(books.of("Refused"))) == (0, 1)


@pytest.mark.skipif(not HAS_INTERACTIONS, reason="an SDK without them")
def test_interactions_are_tried_again_where_they_were_answered() -> None:
    with google_books(Flaky(OVERLOADED, answer=interaction())) as books:
        made = client(books.server.url, retry_options=RETRIES)
        made.interactions.create(model=MODEL, input=CONTENTS)
        assert (books.spent, books.held, books.sent) == (COST, 0, 2)
        close(made)


@pytest.mark.full
@pytest.mark.skipif(not HAS_INTERACTIONS, reason="an SDK without them")
def test_an_interaction_that_was_never_answered_is_of_unknown_outcome() -> None:
    server = Flaky("silence", answer=interaction())
    with google_books(server) as books:
        made = client(books.server.url, retry_options=RETRIES, timeout=PATIENCE)
        with pytest.raises(Exception, match=r"timed out"):
            made.interactions.create(model=MODEL, input=CONTENTS)
        server.over.set()
        projected = int(books.of("Projected")[0].cost * 10**9)
        assert (books.spent, books.held) == (books.sent * projected, 0)
        close(made)
