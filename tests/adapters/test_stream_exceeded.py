"""Streams that write more than was held for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgetguard.engine.projection import assumed_output_cap
from budgetguard.errors import BudgetExceededError
from tests.adapters.books import HTTP, MESSAGES, MODEL, STORES, Books, open_books
from tests.adapters.test_strict import cost_with_cap
from tests.provider.server import OpenAIServer, Reply

WORDS = 4_000
LONG = Reply(text="word " * WORDS, chunks=80)
STREAMED: Any = {"model": MODEL, "messages": MESSAGES, "stream": True}
ASSUMED = cost_with_cap(assumed_output_cap(MODEL))


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def stopping(store: str, tmp_path: Path) -> Iterator[Books]:
    with (
        OpenAIServer(LONG) as server,
        open_books(server, store, tmp_path, on_stream_exceeded="stop") as books,
    ):
        yield books


def test_a_stream_that_writes_more_has_more_held_for_it_and_settles_exactly(stopping: Books) -> None:
    most = 0
    with stopping.client() as client:
        for _ in client.chat.completions.create(**STREAMED):
            most = max(most, stopping.held)
    assert most > 2 * ASSUMED
    assert stopping.spent > 2 * ASSUMED
    stopping.check()


def test_a_stream_is_stopped_when_there_is_no_more_and_books_what_was_seen(stopping: Books) -> None:
    limit = ASSUMED * 3 // 2
    stopping.limit(limit)
    pieces: list[str] = []
    one_connection = HTTP.Client(limits=HTTP.Limits(max_connections=1), timeout=HTTP.Timeout(60, pool=5))
    with stopping.client(http_client=one_connection, max_retries=0) as client:
        stream = client.chat.completions.create(**STREAMED)
        with pytest.raises(BudgetExceededError, match="It was stopped") as stopped:
            pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
        assert client.models.list().data, "the stopped stream kept its connection"
    assert (stopped.value.account, stopped.value.user) == ("user:1234", "1234")
    assert WORDS // 4 < len("".join(pieces).split()) < WORDS // 2
    assert stopping.held == 0
    assert ASSUMED < stopping.spent < limit * 1.1
    assert stopping.of("Settled")[0].outcome == "abandoned"


async def test_an_async_stream_is_stopped_too(stopping: Books) -> None:
    stopping.limit(ASSUMED * 3 // 2)
    async with stopping.aclient() as client:
        with pytest.raises(BudgetExceededError, match="It was stopped"):
            async for _ in await client.chat.completions.create(**STREAMED):
                pass
    assert stopping.held == 0
    assert ASSUMED < stopping.spent < ASSUMED * 2


def test_a_response_s_stream_is_stopped_too(stopping: Books) -> None:
    stopping.limit(ASSUMED * 3 // 2)
    with stopping.client() as client, pytest.raises(BudgetExceededError, match="It was stopped"):
        for _ in client.responses.create(model=MODEL, input="Say hello.", stream=True):
            pass
    assert stopping.held == 0
    assert 0 < stopping.spent < ASSUMED * 2


def test_by_default_a_stream_ends_is_booked_in_full_and_the_next_call_is_refused(
    store: str, tmp_path: Path
) -> None:
    with OpenAIServer(LONG) as server, open_books(server, store, tmp_path) as books, books.client() as client:
        books.limit(ASSUMED * 3 // 2)
        text = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**STREAMED))
        assert len(text.split()) == WORDS
        books.check()
        assert books.spent > ASSUMED * 3 // 2
        with pytest.raises(BudgetExceededError):
            client.chat.completions.create(**STREAMED)


def test_a_stream_left_early_gives_back_all_that_was_held_for_it(stopping: Books) -> None:
    with stopping.client() as client, client.chat.completions.create(**STREAMED) as stream:
        for _ in stream:
            if stopping.held > ASSUMED:
                break
    assert stopping.held == 0
    assert stopping.spent > 0
