"""Message batches: projected request by request, held until their results are read, booked once by them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anthropic
import pytest

from budgetguard.errors import BudgetExceededError, ConfigurationError, UnknownModelError

from .server import MessagesServer, Reply, message

HELLO = [{"role": "user", "content": "Say hello to everybody in the room."}]
# At half of Anthropic's prices, Nanos a token: model -> input, output, read from the cache, written there.
PRICES = {
    "claude-sonnet-4-6": (1_500, 7_500, 150, 1_875),
    "claude-opus-5": (2_500, 12_500, 250, 3_125),
}


def request(name: str, model: str = "claude-sonnet-4-6", **more: Any) -> dict[str, Any]:
    return {"custom_id": name, "params": {"model": model, "max_tokens": 100, "messages": HELLO, **more}}


def done(model: str = "claude-sonnet-4-6", **usage: Any) -> dict[str, Any]:
    told = {"input_tokens": 20, "output_tokens": 9, "service_tier": "batch", **usage}
    return message(model, Reply(usage=told))


def end(server: MessagesServer, *results: Mapping[str, Any] | str) -> None:
    (batch,) = list(server.batches.by_id.values())[-1:]
    batch.results = list(results)


def part(client: Any, *, beta: bool) -> Any:
    return client.beta.messages.batches if beta else client.messages.batches


@pytest.mark.parametrize("beta", [False, True])
def test_a_batch_is_held_until_its_results_are_read_and_booked_by_them(beta: bool, open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        batches = part(client, beta=beta)
        batch = batches.create(requests=[request("a"), request("b", "claude-opus-5"), request("c")])
        held = books.held
        # 100 tokens out of each, and no more than 60 in.
        assert 100 * (2 * 7_500 + 12_500) < held < 100 * (2 * 7_500 + 12_500) + 60 * (2 * 1_500 + 2_500)
        batches.retrieve(batch.id)
        assert books.held == held
        end(books.server, done(), done("claude-opus-5", cache_read_input_tokens=1_000), "errored")
        batches.retrieve(batch.id)
        assert (books.held, books.spent) == (held, 0)
        found = {one.custom_id: one.result.type for one in batches.results(batch.id)}
        assert found == {"a": "succeeded", "b": "succeeded", "c": "errored"}
        cost = 20 * 1_500 + 9 * 7_500 + 20 * 2_500 + 9 * 12_500 + 1_000 * 250
        assert (books.held, books.spent) == (0, cost)
        list(batches.results(batch.id))
        batches.retrieve(batch.id)
    assert (books.held, books.spent) == (0, cost)
    (settled,) = books.of("Settled")
    assert not settled.estimated
    assert settled.usage.units == {"input_tokens": 1_040, "output_tokens": 18, "cache_read_tokens": 1_000}
    assert [event.endpoint for event in books.of("Held")] == ["batches"]


async def test_an_async_batch_is_booked_once(open_books: Any) -> None:
    books = open_books(MessagesServer())
    async with books.aclient() as client:
        batch = await client.messages.batches.create(requests=[request("a")] * 40)
        assert books.held > 40 * 100 * 7_500
        end(books.server, *[done()] * 40)
        found = [one async for one in await client.messages.batches.results(batch.id)]
    assert len(found) == 40
    assert (books.held, books.spent) == (0, 40 * (20 * 1_500 + 9 * 7_500))


def test_a_refused_batch_is_not_created(open_books: Any) -> None:
    books = open_books(MessagesServer())
    books.limit(100 * 7_500)
    with books.client() as client, pytest.raises(BudgetExceededError):
        client.messages.batches.create(requests=[request("a")])
    assert (books.server.requests, books.spent, books.held) == ([], 0, 0)


async def test_a_refused_async_batch_is_not_created(open_books: Any) -> None:
    books = open_books(MessagesServer())
    books.limit(100 * 7_500)
    async with books.aclient() as client:
        with pytest.raises(BudgetExceededError):
            await client.beta.messages.batches.create(requests=[request("a")])
    assert (books.server.requests, books.spent, books.held) == ([], 0, 0)


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "empty": ([], ConfigurationError, "requests must be a list of requests, not an empty one"),
    "no list": ("a", ConfigurationError, "requests must be a list of requests, not str"),
    "no params": ([{"custom_id": "a"}], ConfigurationError, r"request 1 \('a'\) of the batch: its params"),
    "no cap": (
        [request("a"), {"custom_id": "b", "params": {"model": "claude-opus-5", "messages": HELLO}}],
        ConfigurationError,
        r"request 2 \('b'\) of the batch: max_tokens is missing",
    ),
    "unknown model": (
        [request("a"), request("b", "claude-unheard-of")],
        UnknownModelError,
        r"request 2 \('b'\) of the batch: no price is known for the model 'claude-unheard-of'",
    ),
    "no model": (
        [{"custom_id": "a", "params": {"max_tokens": 5, "messages": HELLO}}],
        UnknownModelError,
        "names no model",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_projected_is_refused_in_words(kind: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    requests, error, says = WRONG[kind]
    with books.client() as client, pytest.raises(error, match=says):
        client.post("/v1/messages/batches", body={"requests": requests}, cast_to=object)
    assert (books.server.requests, books.held) == ([], 0)


@pytest.mark.parametrize("verb", ["retrieve", "list", "cancel"])
def test_a_batch_of_which_nothing_succeeded_costs_nothing(verb: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        batches = client.messages.batches
        batch = batches.create(requests=[request("a"), request("b"), request("c")])
        end(books.server, "errored", "canceled", "expired")
        assert books.held > 0
        list(batches.list()) if verb == "list" else getattr(batches, verb)(batch.id)
    assert (books.held, books.spent) == (0, 0)


def test_a_batch_that_is_cancelled_is_booked_for_what_was_done(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request("a"), request("b")])
        assert client.messages.batches.cancel(batch.id).processing_status == "canceling"
        held = books.held
        end(books.server, done(), "canceled")
        client.messages.batches.retrieve(batch.id)
        assert books.held == held
        list(client.messages.batches.results(batch.id))
    assert (books.held, books.spent) == (0, 20 * 1_500 + 9 * 7_500)


def test_a_batch_whose_results_are_gone_books_the_part_that_succeeded(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request("a"), request("b")])
        held = books.held
        end(books.server, done(), "expired")
        books.server.batches.by_id[batch.id].archived = True
        client.messages.batches.retrieve(batch.id)
    assert (books.held, books.spent) == (0, -(-held // 2))
    assert [event.estimated for event in books.of("Settled")] == [True]


def test_results_that_are_left_in_the_middle_settle_when_they_are_read_to_the_end(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request(f"{one}") for one in range(500)])
        end(books.server, *[done()] * 500)
        results = client.messages.batches.results(batch.id)
        next(iter(results))
        held = books.held
        results.http_response.close()
        assert (books.held, books.spent) == (held, 0)
        list(client.messages.batches.results(batch.id))
    assert (books.held, books.spent) == (0, 500 * (20 * 1_500 + 9 * 7_500))


RAW = anthropic.resources.messages.batches.BatchesWithRawResponse
NO_FACE = pytest.mark.skipif(
    "results" not in RAW.__init__.__code__.co_names, reason="this anthropic has no such method"
)


@pytest.mark.parametrize(
    "way", [pytest.param("raw", marks=NO_FACE), pytest.param("streaming", marks=NO_FACE), "bare"]
)
def test_results_that_are_read_in_other_ways_settle_too(way: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request("a")])
        end(books.server, done())
        if way == "raw":
            list(client.messages.batches.with_raw_response.results(batch.id).parse())
        elif way == "streaming":
            with client.messages.batches.with_streaming_response.results(batch.id) as response:
                assert b"custom_id" in response.read()
        else:
            client.get(f"/v1/messages/batches/{batch.id}/results", cast_to=str)
    assert (books.held, books.spent) == (0, 20 * 1_500 + 9 * 7_500)


def test_a_long_prompt_in_a_batch_has_its_own_price_and_short_ones_theirs(open_books: Any) -> None:
    """Claude Haiku 5.5 costs five times as much from 100 000 tokens on: of a request, not of a batch."""
    books = open_books(MessagesServer())
    model = "claude-haiku-5-5"
    usages = [{"input_tokens": 90_000, "output_tokens": 10}] * 3 + [
        {"input_tokens": 110_000, "output_tokens": 10},
        {"input_tokens": 10, "cache_read_input_tokens": 99_991, "output_tokens": 10},
    ]
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request(f"{one}", model) for one in range(5)])
        end(books.server, *(done(model, **usage) for usage in usages))
        list(client.messages.batches.results(batch.id))
    short = 3 * (90_000 * 50 + 10 * 250)
    long = 110_000 * 250 + 10 * 1_250 + 10 * 250 + 99_991 * 25 + 10 * 1_250
    assert (books.held, books.spent) == (0, short + long)


def test_what_the_results_say_of_region_cache_and_searches_is_booked(open_books: Any) -> None:
    books = open_books(MessagesServer())
    model = "claude-opus-5"
    searched = done(model, inference_geo="us", server_tool_use={"web_search_requests": 2})
    written = done(
        model,
        cache_creation_input_tokens=100,
        cache_creation={"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
    )
    refused = {**done(model), "content": [], "stop_reason": "refusal"}
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request(name, model) for name in "abc"])
        end(books.server, searched, written, refused)
        list(client.messages.batches.results(batch.id))
    one = 20 * 2_500 + 9 * 12_500
    assert books.spent == one * 11 // 10 + 2 * 10_000_000 + one + 60 * 3_125 + 40 * 5_000
    assert books.held == 0


def test_results_of_an_unknown_shape_book_the_projection_and_say_so(open_books: Any, caplog: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request("a"), request("b")])
        held = books.held
        end(books.server, {"id": "msg_1", "type": "essay"}, "errored")
        client.get(f"/v1/messages/batches/{batch.id}/results", cast_to=str)
    assert (books.held, books.spent) == (0, -(-held // 2))
    assert [event.estimated for event in books.of("Settled")] == [True]
    assert f"1 results of batch {batch.id} report no usage that is known" in caplog.text


def test_a_batch_lives_as_long_as_its_results(open_books: Any) -> None:
    books = open_books(MessagesServer())
    day = 24 * 60 * 60 * 1000
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request("a")])
    record = books.engine.store.attached(batch.id)
    assert record is not None
    assert 0 <= record.expires_ms - record.created_ms - 30 * day < 60_000


PROGRAM = """
import sys, anthropic, budgetguard
budgetguard.patch_anthropic()
client = anthropic.Anthropic(base_url=sys.argv[1], api_key="test")
for one in client.messages.batches.results(sys.argv[2]):
    print(one.result.type)
"""


@pytest.mark.full
def test_another_process_settles_a_batch(open_books: Any, tmp_path: Path) -> None:
    books = open_books(MessagesServer(), store=f"disk://{tmp_path / 'budgets'}")
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request("a"), request("b", "claude-opus-5")])
    end(books.server, done(), done("claude-opus-5"))
    assert books.held > 0
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BUDGETGUARD_")}
    read = subprocess.run(
        [sys.executable, "-c", PROGRAM, books.server.base_url, batch.id],
        env={**clean, "BUDGETGUARD_STORE": f"disk://{tmp_path / 'budgets'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert read.stdout == "succeeded\nsucceeded\n", read.stderr
    assert (books.held, books.spent) == (0, 20 * 4_000 + 9 * 20_000)
    with books.client() as client:
        list(client.messages.batches.results(batch.id))
    assert (books.held, books.spent) == (0, 20 * 4_000 + 9 * 20_000)


def test_a_batch_of_unsent_requests_is_given_back(open_books: Any) -> None:
    books = open_books(MessagesServer(Reply(status=400)))
    with books.client() as client, pytest.raises(anthropic.BadRequestError):
        client.messages.batches.create(requests=[request("a")])
    assert (books.held, books.spent) == (0, 0)


def test_a_model_without_a_listed_batch_price_is_half_price_too(open_books: Any) -> None:
    """Anthropic's page has one rule for all; what tools cost is not halved."""
    books = open_books(MessagesServer())
    model = "claude-opus-4-1"
    searched = done(model, server_tool_use={"web_search_requests": 1})
    with books.client() as client:
        batch = client.messages.batches.create(requests=[request("a", model)])
        end(books.server, searched)
        list(client.messages.batches.results(batch.id))
    assert (books.held, books.spent) == (0, 20 * 7_500 + 9 * 37_500 + 10_000_000)
