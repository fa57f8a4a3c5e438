"""A stream that nobody reads any more keeps no money: not from the next call, and not for ever."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from budgetguard import BudgetExceededError, Guard
from budgetguard.engine import background as background_module
from tests.provider.server import OpenAIServer, Reply

ASKED: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _no_automatic_collections() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(Reply(text="Hello there, my friend.")) as running:
        yield running


def guard_at(url: str) -> Guard:
    made = Guard(store=url, spool=None, user="u")
    made.set_budget(0.001, user="u")  # for one call at a time
    return made


@pytest.fixture
def guard() -> Iterator[Guard]:
    made = guard_at("memory://")
    yield made
    made.close()


@pytest.mark.full
def test_streams_that_were_left_are_settled_before_a_call_is_refused(
    guard: Guard, server: OpenAIServer
) -> None:
    client = guard.wrap(openai.OpenAI(base_url=server.base_url, api_key="x"))
    for _ in range(4):
        for _chunk in client.chat.completions.create(**ASKED):
            break
    guard.flush()
    assert 0 < guard.balance("u").spent < 0.001


def test_a_stream_that_is_still_read_keeps_its_money(
    guard: Guard, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = guard.wrap(openai.OpenAI(base_url=server.base_url, api_key="x"))
    collected: list[int] = []
    real = gc.collect
    monkeypatch.setattr(gc, "collect", lambda *a: collected.append(1) or real(*a))
    monkeypatch.setattr(background_module, "_SHARE", 1e-9)  # once is enough for as long as this takes
    stream = client.chat.completions.create(**ASKED)
    next(iter(stream))
    for _ in range(20):
        with pytest.raises(BudgetExceededError):
            client.chat.completions.create(**ASKED)
    assert len(collected) == 1, "a caller who is refused in a loop must not collect garbage all the time"
    assert list(stream)


@pytest.mark.full
def test_an_idle_event_loop_settles_a_stream_that_it_has_left(
    guard: Guard, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_module, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(background_module, "_IDLE_SHARE", 1.0)
    monkeypatch.setattr(gc, "isenabled", lambda: True)

    async def serve() -> None:
        client = guard.wrap(openai.AsyncOpenAI(base_url=server.base_url, api_key="x"))
        async for _chunk in await client.chat.completions.create(**ASKED):
            break
        give_up = time.monotonic() + PATIENCE
        while guard.balance("u").held:
            assert time.monotonic() < give_up, "still held"
            await asyncio.sleep(0.05)
        assert guard.balance("u").spent > 0
        await client.close()

    asyncio.run(serve())
