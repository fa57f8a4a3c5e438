"""Tries that the client hides: those that were sent and never answered may have been billed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from openai import _base_client

from budgetguard.core.usage import Usage
from budgetguard.testing.openai_server import OpenAIServer, Reply
from tests.adapters.books import MESSAGES, MODEL, Books, open_books
from tests.adapters.clients import wrap

CHAT: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 10}
HANG = Reply(hang=True)
DROP = Reply(drop_after=0)
BUSY = Reply(status=429)
ANSWER = Reply("Hello!")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.01)


def held(books: Books) -> int:
    (held,) = books.of("Held")
    return int(held.amount * 10**9)


def cost_of_last(books: Books) -> int:
    """Return what the last try was billed: the server says that the lost ones were billed too."""
    billed = books.server.requests[-1].billed
    assert billed is not None
    used = Usage.of(input_tokens=billed["prompt_tokens"], output_tokens=billed["completion_tokens"])
    return books.engine.prices.rates(MODEL).cost(used)


@pytest.mark.parametrize(
    ("replies", "lost", "outcome"),
    [
        ([HANG, BUSY], 1, "unknown"),
        ([DROP, BUSY], 1, "unknown"),
        ([HANG, DROP, BUSY], 2, "unknown"),
        ([BUSY, HANG, BUSY], 1, "unknown"),
        ([HANG, HANG], 2, "unknown"),
        ([HANG, ANSWER], 1, "answered"),
        ([BUSY, HANG, ANSWER], 1, "answered"),
        ([BUSY, BUSY, ANSWER], 0, "answered"),
        ([BUSY, HANG], 1, "unknown"),
    ],
    ids=lambda value: (
        "-".join("hang" if one.hang else "drop" if one.drop_after == 0 else str(one.status) for one in value)
        if isinstance(value, list)
        else None
    ),
)
def test_each_try_that_was_lost_costs_what_one_of_unknown_outcome_does(
    replies: list[Reply], lost: int, outcome: str, tmp_path: Path
) -> None:
    with (
        OpenAIServer(replies) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client(max_retries=len(replies) - 1, timeout=0.3) as client,
    ):
        answered = 0
        try:
            answer = client.chat.completions.create(**CHAT)
        except openai.APIError:
            assert outcome == "unknown"
        else:
            assert answer.choices[0].message.content == "Hello!"
            answered = cost_of_last(books)
        (call,) = books.engine.store.calls(0, None)
        assert (books.spent, books.held) == (lost * held(books) + answered, 0)
        assert (call.cost_nanos, call.outcome) == (books.spent, outcome)
        (settled,) = books.of("Settled")
        assert settled.estimated is bool(lost)
        assert server.count() == len(replies)


@pytest.mark.parametrize(("policy", "event"), [("release", "Voided"), ("input", "Settled")])
def test_the_settings_say_what_a_lost_try_costs(policy: str, event: str, tmp_path: Path) -> None:
    with (
        OpenAIServer([HANG, BUSY]) as server,
        open_books(server, "memory", tmp_path, unknown_outcome=policy) as books,
        books.client(max_retries=1, timeout=0.3) as client,
    ):
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**CHAT)
        (projected,) = books.of("Projected")
        tokens = type(projected.usage).of(input_tokens=projected.usage.input_tokens)
        wanted = 0 if policy == "release" else books.engine.prices.rates(MODEL).cost(tokens)
        assert (books.spent, books.held) == (wanted, 0)
        assert books.names()[-1] == event


def test_a_try_for_which_there_was_no_connection_is_not_lost(books: Books) -> None:
    with (
        openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="test", max_retries=2) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.chat.completions.create(**CHAT)
    assert (books.spent, books.held) == (0, 0)


async def test_a_lost_try_of_an_async_client_is_booked(tmp_path: Path) -> None:
    with OpenAIServer([HANG, BUSY]) as server, open_books(server, "memory", tmp_path) as books:
        async with books.aclient(max_retries=1, timeout=0.3) as client:
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(**CHAT)
        assert (books.spent, books.held) == (held(books), 0)


@pytest.mark.parametrize("patched_too", [False, True])
def test_a_lost_try_of_a_wrapped_client_is_booked_once(patched_too: bool, tmp_path: Path) -> None:
    from tests.adapters.clients import unpatch

    with OpenAIServer([HANG, BUSY]) as server, open_books(server, "memory", tmp_path) as books:
        if not patched_too:
            unpatch()
        client = wrap(books.client(max_retries=1, timeout=0.3), books.engine)
        with client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**CHAT)
        assert (books.spent, books.held) == (held(books), 0)


def test_a_stream_that_began_after_a_lost_try_costs_both(tmp_path: Path) -> None:
    with (
        OpenAIServer([HANG, ANSWER]) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client(max_retries=1, timeout=0.3) as client,
    ):
        assert list(client.chat.completions.create(**CHAT, stream=True))
        assert (books.spent, books.held) == (held(books) + cost_of_last(books), 0)
