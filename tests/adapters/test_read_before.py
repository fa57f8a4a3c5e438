"""Bodies that somebody read before the client could: an event hook, a cache, a recording, a mock; and streams
whose content type is written another way."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest

from budgetguard import Guard
from tests.adapters.books import HTTP
from tests.adapters.test_stream_ends import (
    END,
    HELLO,
    INPUT,
    OUTPUT,
    WRITER,
    answer,
    chunk,
    data_of,
    last,
    usage,
)

LONG = 2_000  # output tokens: more than are projected
COST = 10 * INPUT + LONG * OUTPUT
STREAM = data_of(chunk("hi"), chunk(" there"), END, last(usage(10, LONG)))
PLAIN = json.dumps(answer(usage(10, LONG))).encode()
KIND = "text/event-stream"
ASK: Any = {"model": WRITER, "messages": HELLO}

WAYS = ["hook", "memory", "recorder", "unread", "fresh"]

Body = tuple[bytes, dict[str, str]]


def body_of(*, stream: bool, coded: bool, kind: str | None = KIND) -> Body:
    data = STREAM if stream else PLAIN
    headers = {} if kind is None else {"content-type": kind if stream else "application/json"}
    return (gzip.compress(data), {**headers, "content-encoding": "gzip"}) if coded else (data, headers)


def pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + 40] for at in range(0, len(data), 40))


async def apieces(data: bytes) -> AsyncIterator[bytes]:
    for piece in pieces(data):
        yield piece


def fresh(body: Body, *, asynchronous: bool) -> Any:
    read_on = apieces if asynchronous else pieces
    return HTTP.MockTransport(lambda _: HTTP.Response(200, headers=body[1], content=read_on(body[0])))


class Recorder(HTTP.BaseTransport, HTTP.AsyncBaseTransport):  # type: ignore[misc]  # HTTP is Any
    """Answer as a cassette or a cache does: read the answer, keep it, and give out copies of it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.kept: Body | None = None

    def handle_request(self, request: Any) -> Any:
        if self.kept is None:
            response = self.inner.handle_request(request)
            response.read()
            self._keep(response)
        return self._play()

    async def handle_async_request(self, request: Any) -> Any:
        if self.kept is None:
            response = await self.inner.handle_async_request(request)
            await response.aread()
            self._keep(response)
        return self._play()

    def _keep(self, response: Any) -> None:
        headers = {name: value for name, value in response.headers.items() if name == "content-type"}
        self.kept = response.content, headers

    def _play(self) -> Any:
        assert self.kept is not None
        return HTTP.Response(200, headers=self.kept[1], content=self.kept[0])


def read(response: Any) -> None:
    response.read()


async def aread(response: Any) -> None:
    await response.aread()


def options_of(way: str, body: Body, *, asynchronous: bool) -> dict[str, Any]:
    inner = fresh(body, asynchronous=asynchronous)
    if way == "hook":
        return {"transport": inner, "event_hooks": {"response": [aread if asynchronous else read]}}
    if way == "memory":
        mock = HTTP.MockTransport(lambda _: HTTP.Response(200, headers=body[1], content=body[0]))
        return {"transport": mock}
    if way == "unread":  # such a stream is one for both kinds of clients
        play = lambda _: HTTP.Response(200, headers=body[1], stream=HTTP.ByteStream(body[0]))  # noqa: E731
        return {"transport": HTTP.MockTransport(play)}
    return {"transport": Recorder(inner) if way == "recorder" else inner}


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard(store="memory://")
    guard.set_budget(100, user="u")
    with guard.budget_user("u"):
        yield guard


def check(guard: Guard, calls: int = 1) -> None:
    balance = guard.balance("u")
    assert (balance.spent_nanos, balance.held_nanos) == (calls * COST, 0)
    assert [call.outcome for call in guard.calls()] == ["answered"] * calls


def sync_client(guard: Guard, way: str, body: Body) -> Any:
    http = HTTP.Client(**options_of(way, body, asynchronous=False))
    return guard.wrap(openai.OpenAI(api_key="k", http_client=http))


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_stream_that_was_read_before_costs_what_it_says_and_hides_its_usage(
    guard: Guard, way: str, coded: bool
) -> None:
    with sync_client(guard, way, body_of(stream=True, coded=coded)) as client:
        for _ in range(2):
            stream = client.chat.completions.create(**ASK, stream=True)
            assert [one.choices[0].delta.content for one in stream] == ["hi", " there", None]
        with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as got:
            assert all(one.choices for one in got.parse())
        assert all(
            one.choices
            for one in client.chat.completions.with_raw_response.create(**ASK, stream=True).parse()
        )
        asked = client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
        assert [len(one.choices) for one in asked] == [1, 1, 1, 0]
    check(guard, 5)


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_an_async_stream_that_was_read_before_costs_what_it_says_and_hides_its_usage(
    guard: Guard, way: str, coded: bool
) -> None:
    http = HTTP.AsyncClient(**options_of(way, body_of(stream=True, coded=coded), asynchronous=True))
    async with guard.wrap(openai.AsyncOpenAI(api_key="k", http_client=http)) as client:
        for _ in range(2):
            stream = await client.chat.completions.create(**ASK, stream=True)
            assert [one.choices[0].delta.content async for one in stream] == ["hi", " there", None]
        async with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as got:
            assert [one.choices[0].delta.content async for one in await got.parse()] == ["hi", " there", None]
    check(guard, 3)


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_was_read_before_costs_what_it_says(guard: Guard, way: str, coded: bool) -> None:
    with sync_client(guard, way, body_of(stream=False, coded=coded)) as client:
        client.chat.completions.create(**ASK)
        client.chat.completions.with_raw_response.create(**ASK)
        with client.chat.completions.with_streaming_response.create(**ASK) as got:
            got.read()
    check(guard, 3)


def test_a_stream_that_was_read_before_is_left_like_any_other(guard: Guard) -> None:
    with (
        sync_client(guard, "hook", body_of(stream=True, coded=False)) as client,
        client.chat.completions.create(**ASK, stream=True) as stream,
    ):
        next(stream)
    check(guard)


@pytest.mark.parametrize("way", ["hook", "fresh"])
@pytest.mark.parametrize(
    "kind",
    ["Text/Event-Stream; charset=UTF-8", "text/plain", "application/octet-stream", "application/json", None],
)
def test_the_body_itself_says_that_it_is_a_stream(guard: Guard, way: str, kind: str | None) -> None:
    with sync_client(guard, way, body_of(stream=True, coded=False, kind=kind)) as client:
        assert all(one.choices for one in client.chat.completions.create(**ASK, stream=True))
    check(guard)


@pytest.mark.parametrize("way", ["hook", "fresh"])
def test_an_answer_in_one_piece_for_a_stream_that_was_asked_for_costs_what_it_says(
    guard: Guard, way: str
) -> None:
    with sync_client(guard, way, body_of(stream=False, coded=False)) as client:
        list(client.chat.completions.create(**ASK, stream=True))
    check(guard)


@pytest.mark.parametrize("way", WAYS)
def test_a_decorated_function_s_stream_that_was_read_before_costs_as_it_says(guard: Guard, way: str) -> None:
    http = HTTP.Client(**options_of(way, body_of(stream=True, coded=False), asynchronous=False))
    with openai.OpenAI(api_key="k", http_client=http) as client:

        @guard.budgeted
        def ask(messages: Any, model: str = WRITER) -> Any:
            return client.chat.completions.create(model=model, messages=messages, stream=True)

        assert len(list(ask(HELLO))) == 4
    check(guard)
