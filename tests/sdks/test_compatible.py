"""Clients of openai's generator whose APIs have OpenAI's shape: Groq, Cerebras, Together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import cerebras.cloud.sdk as cerebras
import groq
import pytest
import together

from budgetguard.errors import UnknownEndpointError
from budgetguard.pricing.book import PriceBook

from .books import sdk_books
from .server import Answer, Arrived, sse
from .ways import (
    ASYNC,
    ASYNC_STREAM,
    CALL,
    COLUMNS,
    STREAM,
    Way,
    asking,
    check_booked,
    check_refused,
    check_unnoticed,
    made,
    of_ways,
)

MESSAGES: Any = [{"role": "user", "content": "Say hello to everybody in the room."}]
USAGE = {"prompt_tokens": 44, "completion_tokens": 5, "total_tokens": 49}
TEXT = ("Hello", " to", " everybody", ".")


@dataclass(frozen=True)
class Client:
    """One SDK, and a model that it serves.

    Attributes:
        make: address, whether it is async -> a client.
        model: the model.
        provider: genai-prices' id.
        path: where chats go.
    """

    make: Callable[[str, bool], Any]
    model: str
    provider: str
    path: str


CLIENTS = {
    "groq": Client(
        lambda url, is_async: (groq.AsyncGroq if is_async else groq.Groq)(base_url=url, api_key="test"),
        "llama-3.3-70b-versatile",
        "groq",
        "/openai/v1/chat/completions",
    ),
    "cerebras": Client(
        lambda url, is_async: (cerebras.AsyncCerebras if is_async else cerebras.Cerebras)(
            base_url=url, api_key="test", warm_tcp_connection=False
        ),
        "gpt-oss-120b",
        "cerebras",
        "/v1/chat/completions",
    ),
    "together": Client(
        lambda url, is_async: (together.AsyncTogether if is_async else together.Together)(
            base_url=url, api_key="test"
        ),
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "together",
        "/v1/chat/completions",
    ),
}
ALL = pytest.mark.parametrize("name", CLIENTS)


def answer_chat(arrived: Arrived) -> Answer:
    if arrived.method == "GET":
        return Answer({"object": "list", "data": []})
    body = arrived.body
    head = {"id": "chat-1", "object": "chat.completion", "created": 1, "model": body["model"]}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(TEXT)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Answer({**head, "choices": [choice], "usage": USAGE})
    head = {**head, "object": "chat.completion.chunk", "system_fingerprint": "fp"}
    chunks = [{**head, "choices": [{"index": 0, "delta": {"content": one}}]} for one in TEXT]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": USAGE})
    return Answer(sse(chunks, done=True))


def cost(client: Client) -> int:
    from budgetguard.core.usage import Usage

    rates = PriceBook().rates(client.model, provider=client.provider)
    return rates.cost(Usage.of(input_tokens=44, output_tokens=5))


def ways() -> Iterator[Way]:
    """Yield every way."""
    for name, client in CLIENTS.items():
        for column in COLUMNS:
            for method in ("create", "with_raw_response.create") if column in (CALL, ASYNC) else ("create",):
                yield _way(name, client, column, method)


def _way(name: str, client: Client, column: str, method: str) -> Way:
    more = {"stream": True} if column in (STREAM, ASYNC_STREAM) else {}

    def open_client(url: str) -> Any:
        return client.make(url, column in (ASYNC, ASYNC_STREAM))

    def ask(sdk: Any) -> Any:
        create = attrgetter(f"chat.completions.{method}")(sdk)
        return create(model=client.model, messages=MESSAGES, max_tokens=20, **more)

    return Way(f"`{name}`: chat", column, method, asking(column, open_client, ask), cost(client))


WAYS = tuple(ways())


@of_ways(WAYS)
def test_booked_as_billed(way: Way) -> None:
    check_booked(way, answer_chat, _sdk(way))


@of_ways(WAYS)
def test_refused_unsent(way: Way) -> None:
    check_refused(way, answer_chat, _sdk(way))


@of_ways(way for way in WAYS if way.method == "create")
def test_unnoticed(way: Way) -> None:
    check_unnoticed(way, answer_chat, _sdk(way))


def _sdk(way: Way) -> str:
    return way.row.split("`")[1]


@ALL
def test_a_stream_is_what_the_caller_asked_for(name: str) -> None:
    with sdk_books(answer_chat, name) as books:
        (way,) = (way for way in WAYS if _sdk(way) == name and way.column == STREAM)
        chunks = made(way, books.server.url)
        said = [getattr(one.choices[0].delta, "content", None) or "" for one in chunks]
        assert "".join(said) == "".join(TEXT)
        assert all(one.usage is None for one in chunks)


@ALL
def test_one_client_is_wrapped(name: str) -> None:
    from budgetguard.providers.sdks import wrap

    with sdk_books(answer_chat, name, patched=False) as books:
        client = CLIENTS[name]
        with wrap(client.make(books.server.url, False), books.engine) as ours:
            ours.chat.completions.create(model=client.model, messages=MESSAGES, max_tokens=20)
        with client.make(books.server.url, False) as other:
            other.chat.completions.create(model=client.model, messages=MESSAGES, max_tokens=20)
        assert (books.spent, books.sent) == (cost(client), 2)


@ALL
@pytest.mark.parametrize("path", ["/v1/batches", "/v1/fine_tuning/jobs", "/v1/made_up_tomorrow"])
def test_what_cannot_be_priced_is_refused_by_name(name: str, path: str) -> None:
    with sdk_books(answer_chat, name) as books, CLIENTS[name].make(books.server.url, False) as sdk:
        with pytest.raises(UnknownEndpointError, match=r"was not sent"):
            sdk.post(path, cast_to=object, body={"model": CLIENTS[name].model})
        sdk.get("/v1/models", cast_to=object)
        assert books.sent == 1
