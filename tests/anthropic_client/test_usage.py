"""What a message reports beside its tokens, what a request may ask for that is dearer, and who counts it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from budgetguard.config import changed
from budgetguard.errors import BudgetExceededError
from budgetguard.providers import answers

from .server import MessagesServer, Reply
from .test_client import BODY, INPUT, OUTPUT

# Nanos a token of input and output.
OPUS, FAST, HAIKU, FABLE = (5_000, 25_000), (10_000, 50_000), (1_000, 5_000), (10_000, 50_000)


def cost(price: tuple[int, int], read: int = 20, written: int = 9) -> int:
    return read * price[0] + written * price[1]


def call(client: Any, way: str, **more: Any) -> Any:
    body = {**BODY, **more}
    if way == "stream":
        with client.beta.messages.create(**body, stream=True) as stream:
            return list(stream)
    return client.beta.messages.create(**body)


both_ways = pytest.mark.parametrize("way", ["create", "stream"])
TOLD = {"input_tokens": 20, "output_tokens": 9}
ITERATION = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
COMPACTION = {"type": "compaction", **ITERATION, "input_tokens": 180_000, "output_tokens": 3_500}
MESSAGE = {"type": "message", **ITERATION, **TOLD}
REPORTED: dict[str, tuple[dict[str, Any], int]] = {
    "the standard tier": ({"service_tier": "standard", "speed": "standard"}, cost(OPUS)),
    "the priority tier": ({"service_tier": "priority"}, cost(OPUS)),
    "a batch's tier": ({"service_tier": "batch"}, cost(OPUS) // 2),
    "fast mode": ({"speed": "fast"}, cost(FAST)),
    "fast mode in America": ({"speed": "fast", "inference_geo": "us"}, cost(FAST) * 11 // 10),
    "America": ({"inference_geo": "us"}, cost(OPUS) * 11 // 10),
    "a region of tomorrow": ({"inference_geo": "eu"}, cost(OPUS) * 11 // 10),
    "anywhere": ({"inference_geo": "global"}, cost(OPUS)),
    "nothing of the region": ({"inference_geo": "not_available"}, cost(OPUS)),
    "a compaction, which the totals leave out": (
        {"iterations": [COMPACTION, MESSAGE]},
        cost(OPUS, 180_020, 3_509),
    ),
    "turns of a loop, which the totals have": (
        {"iterations": [{**MESSAGE, "input_tokens": 11, "output_tokens": 4}, {**MESSAGE, "input_tokens": 9}]},
        cost(OPUS, 20, 13),
    ),
    "a model that was asked for advice": (
        {
            "iterations": [
                MESSAGE,
                {**MESSAGE, "type": "advisor_message", "model": "claude-fable-5", "input_tokens": 400},
            ]
        },
        cost(OPUS) + cost(FABLE, 400),
    ),
    "pages that were fetched, which are free": (
        {"server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 3}},
        cost(OPUS),
    ),
    "searches in America, which cost what they do everywhere": (
        {"inference_geo": "us", "server_tool_use": {"web_search_requests": 2}},
        cost(OPUS) * 11 // 10 + 2 * 10_000_000,
    ),
}


@both_ways
@pytest.mark.parametrize("kind", REPORTED)
def test_what_the_usage_says_beside_its_tokens_is_booked(kind: str, way: str, open_books: Any) -> None:
    more, wanted = REPORTED[kind]
    at_end = {name: more[name] for name in ("iterations",) if name in more}
    books = open_books(MessagesServer(Reply(usage={**TOLD, **more}, at_end=at_end)))
    with books.client() as client:
        call(client, way, model="claude-opus-5")
    assert (books.spent, books.held) == (wanted, 0)


@both_ways
def test_a_model_that_serves_where_another_refused_is_priced_by_itself(way: str, open_books: Any) -> None:
    """What the refusing one wrote is billed at its own price; the answer names the one that served."""
    iterations = [
        {**MESSAGE, "model": "claude-fable-5", "output_tokens": 3},
        {**MESSAGE, "type": "fallback_message", "model": "claude-opus-5", "input_tokens": 25},
    ]
    usage = {"input_tokens": 25, "output_tokens": 9, "iterations": iterations}
    reply = Reply(usage=usage, at_end={"iterations": iterations}, more={"model": "claude-opus-5"})
    books = open_books(MessagesServer(reply))
    with books.client() as client:
        before = int(held(books, call(client, way, model="claude-fable-5")))
        assert books.spent == cost(FABLE, 20, 3) + cost(OPUS, 25)
        fallbacks = {"fallbacks": [{"model": "claude-opus-5", "max_tokens": 200}]}
        call(client, way, model="claude-fable-5", extra_body=fallbacks)
        # Both may have to be paid, at the dearer price and the longer answer.
        assert int(held(books)) == 2 * (before + 100 * FABLE[1])
        call(client, way, model="claude-fable-5", extra_body={"fallbacks": "default"})
        assert int(held(books)) == 2 * before
    assert books.held == 0


@both_ways
def test_each_turn_of_a_loop_is_priced_by_its_own_prompt(way: str, open_books: Any) -> None:
    """Claude Haiku 5.5 costs five times as much above 100 000 tokens; the totals are of all turns."""
    turns = [{**MESSAGE, "input_tokens": tokens, "output_tokens": 9} for tokens in (60_000, 70_000, 110_000)]
    usage = {"input_tokens": 240_000, "output_tokens": 27, "server_tool_use": {"web_search_requests": 2}}
    reply = Reply(usage={**usage, "iterations": turns}, at_end={"iterations": turns})
    books = open_books(MessagesServer(reply))
    with books.client() as client:
        call(client, way, model="claude-haiku-5-5")
    short, long = 130_000 * 100 + 18 * 500, 110_000 * 500 + 9 * 2_500
    assert (books.spent, books.held) == (short + long + 2 * 10_000_000, 0)


def held(books: Any, _answer: object = None) -> Any:
    return books.of("Held")[-1].amount * 10**9


@both_ways
def test_a_refusal_before_anything_was_written_is_not_charged(way: str, open_books: Any) -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    usage = {"input_tokens": 106, "output_tokens": 1}
    refusal = Reply(usage=usage, blocks=[], more={"stop_reason": "refusal"})
    books = open_books(MessagesServer([refusal, Reply(usage=usage, more={"stop_reason": "refusal"})]))
    with books.client() as client:
        call(client, way, tools=[search])
        assert (books.spent, books.held) == (0, 0)
        call(client, way)
    # One that comes after some text is.
    assert (books.spent, books.held) == (106 * INPUT + OUTPUT, 0)


def test_a_request_is_held_at_the_dearest_that_it_allows(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        call(client, "create", model="claude-opus-5")
        plain = int(held(books))
        for more, times in (
            ({"speed": "fast"}, 2),
            ({"speed": "fast", "inference_geo": "us"}, 2.2),
            ({"inference_geo": "us"}, 1.1),
            ({"inference_geo": "global"}, 1),
            ({"service_tier": "auto"}, 1),
            ({"speed": "standard", "service_tier": "standard_only"}, 1),
            ({"fallbacks": [{"model": "claude-opus-5-5", "speed": "fast"}]}, 4),
        ):
            call(client, "create", model="claude-opus-5", extra_body=more)
            assert int(held(books)) == round(plain * times), more


def test_a_long_prompt_is_held_and_booked_at_its_own_price(open_books: Any) -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 120_000, "output_tokens": 9}
    books = open_books(MessagesServer(Reply(usage=usage)))
    said = [{"role": "user", "content": "word " * 130_000}]
    with books.client() as client:
        call(client, "create", model="claude-haiku-5-5", messages=said)
    assert books.spent == 10 * 500 + 120_000 * 50 + 9 * 2_500
    assert int(held(books)) > 130_000 * 500


@both_ways
def test_an_answer_of_an_unknown_shape_books_the_projection_and_says_so(
    way: str, open_books: Any, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(answers, "_warned", set())
    books = open_books(MessagesServer(Reply(usage={"tokens": {"read": 20}}, at_end={"tokens": {}})))
    with books.client() as client:
        client.post("/v1/messages", body={**BODY, "stream": way == "stream"}, cast_to=str)
    assert (books.spent, books.held) == (int(held(books)), 0)
    assert [event.estimated for event in books.of("Settled")] == [True]
    assert "reports no usage that is known, so its projection is booked" in caplog.text


def counted(books: Any) -> int:
    return sum(one.path.endswith("/count_tokens") for one in books.server.requests)


@pytest.mark.parametrize("beta", [False, True])
def test_the_provider_counts_where_it_is_asked_to(beta: bool, open_books: Any) -> None:
    books = open_books(MessagesServer(), count="provider")
    books.server.counts = 7_000
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    tool = {"name": "add", "input_schema": {"type": "object"}}
    more = {"system": "Be brief.", "tools": [tool], "thinking": thinking, "max_tokens": 3_000}
    with books.client() as client:
        part = client.beta.messages if beta else client.messages
        headers = {"extra_headers": {"anthropic-beta": "some-beta"}} if beta else {}
        part.create(**{**BODY, **more}, **headers)
    first, second = books.server.requests
    assert (first.path, second.path) == ("/v1/messages/count_tokens", "/v1/messages")
    assert first.headers.get("anthropic-beta") == second.headers.get("anthropic-beta")
    asked = {"model", "messages", "system", "tools", "thinking"}
    assert first.body == {name: second.body[name] for name in asked}
    # One in a hundred more, and 8.
    assert int(held(books)) == 7_078 * INPUT + 3_000 * OUTPUT
    assert (books.spent, books.held) == (20 * INPUT + 9 * OUTPUT, 0)


async def test_the_provider_counts_for_an_async_client_too(open_books: Any) -> None:
    books = open_books(MessagesServer(), count="provider")
    books.server.counts = 7_000
    async with books.aclient() as client:
        await client.messages.create(**BODY)
        assert int(held(books)) == 7_078 * INPUT + 100 * OUTPUT
        books.limit(books.spent + 7_000 * INPUT)
        with pytest.raises(BudgetExceededError):
            await client.messages.create(**BODY)
    # It was counted, which is free, and then not sent.
    assert (counted(books), books.server.count()) == (2, 1)


def test_what_tools_will_find_is_held_beside_the_provider_s_count(open_books: Any) -> None:
    books = open_books(MessagesServer(), count="provider")
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    with books.client() as client:
        client.messages.create(**BODY, tools=[search])
    assert int(held(books)) == (28 + 28_000) * INPUT + 100 * OUTPUT + 2 * 10_000_000


@pytest.mark.parametrize("wrong", ["an error", "no count", "nobody there"])
def test_where_the_provider_does_not_count_it_is_counted_here(
    wrong: str, open_books: Any, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(answers, "_warned", set())
    books = open_books(MessagesServer())
    with books.client() as client:
        client.messages.create(**BODY)
        local = int(held(books))
        books.server.refuses_counts = wrong == "an error"
        books.server.counts = "many" if wrong == "no count" else 7_000
        books.engine.configure(changed(books.engine.settings, {"count": "provider"}))
        if wrong == "nobody there":
            bedrock = pytest.importorskip("anthropic").AnthropicBedrock(
                aws_access_key="k", aws_secret_key="s", aws_region="us-east-1", base_url=books.server.base_url
            )
            with bedrock:
                bedrock.messages.create(**{**BODY, "model": "global.anthropic.claude-sonnet-4-6-v1:0"})
        else:
            client.messages.create(**BODY)
    assert int(held(books)) == local
    assert "the provider did not count the input of a message (" in caplog.text
    assert caplog.records[-1].levelno == logging.WARNING
