"""Anthropic's own client in decorated functions: its streams, and the managers that it streams by."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from budgetguard import Guard
from budgetguard.engine.background import background

anthropic = pytest.importorskip("anthropic", minversion="2")

# What other packages warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

MODEL = "claude-sonnet-4-5"
MESSAGES = [{"role": "user", "content": "hi"}]
# 10 + 100 000 cached + 50: $0.00003 + $0.03 + $0.00075.
COST = 30_780_000
EVENTS = (
    {
        "type": "message_start",
        "message": {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "cache_read_input_tokens": 100_000, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 50}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 50},
    },
    {"type": "message_stop"},
)
BODY = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in EVENTS).encode()


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(BODY), 64):
            yield BODY[start : start + 64]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.__iter__():
            yield piece


@pytest.fixture(params=["as it comes", "read before"])
def transport(request: pytest.FixtureRequest) -> httpx2.MockTransport:
    def answer(_: httpx2.Request) -> httpx2.Response:
        body: Any = {"stream": Body()} if request.param == "as it comes" else {"content": BODY}
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, **body)

    return httpx2.MockTransport(answer)


@pytest.fixture
def messages(transport: httpx2.MockTransport) -> Any:
    return anthropic.Anthropic(api_key="k", http_client=httpx2.Client(transport=transport)).messages


@pytest.fixture
def guard() -> Guard:
    guard = Guard(store="memory://", project="p", user="u")
    guard.set_budget(10, user="u")
    return guard


ASKED: dict[str, Any] = {"model": MODEL, "max_tokens": 1_000, "messages": MESSAGES}


def test_a_stream(guard: Guard, messages: Any) -> None:
    ask = guard.budgeted(lambda messages, model, max_tokens: made(stream=True, **ASKED))
    made = messages.create
    stream = ask(**ASKED)
    assert isinstance(stream, anthropic.Stream)
    assert len(list(stream)) == len(EVENTS)
    assert guard.balance("u").spent_nanos == COST


@pytest.mark.parametrize("how", ["events", "text", "the end"])
def test_a_manager_of_a_stream(guard: Guard, messages: Any, how: str) -> None:
    made = messages.stream
    ask = guard.budgeted(lambda messages, model, max_tokens: made(**ASKED))
    with ask(**ASKED) as stream:
        if how == "events":
            assert list(stream)
        elif how == "text":
            assert "".join(stream.text_stream) == "word " * 50
        else:
            assert stream.get_final_message().usage.output_tokens == 50
    assert guard.balance("u").spent_nanos == COST
    assert guard.balance("u").held == 0


@pytest.mark.parametrize("transport", ["as it comes"], indirect=True)
def test_one_that_is_left_costs_the_input_that_it_told(guard: Guard, messages: Any) -> None:
    made = messages.stream
    ask = guard.budgeted(lambda messages, model, max_tokens: made(**ASKED))
    with ask(**ASKED) as stream:
        next(iter(stream))
    assert 30_030_000 <= guard.balance("u").spent_nanos < COST
    assert guard.balance("u").held == 0


def test_one_that_nobody_enters_costs_nothing(guard: Guard, messages: Any) -> None:
    made = messages.stream
    manager = guard.budgeted(lambda messages, model, max_tokens: made(**ASKED))(**ASKED)
    del manager
    gc.collect()
    background.finish()
    assert guard.balance("u").spent_nanos == guard.balance("u").held_nanos == 0


async def test_async(guard: Guard, transport: httpx2.MockTransport) -> None:
    client = anthropic.AsyncAnthropic(api_key="k", http_client=httpx2.AsyncClient(transport=transport))

    @guard.budgeted
    async def ask(messages: Any, model: str, max_tokens: int) -> Any:
        return await client.messages.create(stream=True, **ASKED)

    @guard.budgeted
    def manage(messages: Any, model: str, max_tokens: int) -> Any:
        return client.messages.stream(**ASKED)

    assert len([event async for event in await ask(**ASKED)]) == len(EVENTS)
    assert guard.balance("u").spent_nanos == COST
    async with manage(**ASKED) as stream:
        await stream.get_final_message()
    assert guard.balance("u").spent_nanos == 2 * COST
