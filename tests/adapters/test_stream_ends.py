"""Streams that are left before their usage, and usage that is early, partial, zero, impossible or missing."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetguard import Guard
from budgetguard.core.usage import Reported, Usage
from budgetguard.providers import reading_on
from budgetguard.providers.openai.chat import ChatAccumulator
from tests.adapters.books import HTTP, open_books
from tests.adapters.test_openai_streams import settle_background
from tests.provider.server import OpenAIServer, Reply

HELLO: Any = [{"role": "user", "content": "hello"}]
THINKER, WRITER = "gpt-5", "gpt-4o-mini"
INPUT, OUTPUT = 150, 600  # Nanos a token of gpt-4o-mini
PROJECTED_INPUT = 41  # tokens of HELLO, with the margin
THOUGHT = 4_096
THINKERS_OUTPUT = 10_000  # Nanos a token of gpt-5


def usage(read: Any, written: Any, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": read, "completion_tokens": written, **more}


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content} if content else {}, "finish_reason": finish}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }


def last(used: object) -> dict[str, Any]:
    return {**chunk(), "choices": [], "usage": used}


def data_of(*chunks: object, done: bool = True) -> bytes:
    return (
        b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks)
        + b"data: [DONE]\n\n" * done
    )


def answer(used: object, text: str = "hi", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}
    return body if used is None else {**body, "usage": used}


def events_of(body: bytes) -> Iterator[bytes]:
    return (event + b"\n\n" for event in body.split(b"\n\n")[:-1])


@contextmanager
def client_of(
    body: bytes | object, *, base_url: str = "https://api.openai.com/v1"
) -> Iterator[tuple[Guard, Any]]:
    """A guarded client that every request answers with this body: a stream, or JSON in one piece."""

    def serve(_request: Any) -> Any:
        if not isinstance(body, bytes):
            return HTTP.Response(200, json=body)
        return HTTP.Response(200, headers={"content-type": "text/event-stream"}, content=events_of(body))

    guard = Guard(store="memory://")
    guard.set_budget(100, user="u")
    with HTTP.Client(transport=HTTP.MockTransport(serve)) as http, guard.budget_user("u"):
        yield guard, guard.wrap(openai.OpenAI(base_url=base_url, api_key="k", http_client=http))


def booked(body: bytes | object, *, model: str = WRITER, take: int | None = None, **more: Any) -> Any:
    """Make a call that is answered so, leave it after `take` chunks, and return its record."""
    with client_of(body) as (guard, client):
        more = {"stream": isinstance(body, bytes), **more}
        got = client.chat.completions.create(model=model, messages=HELLO, **more)
        if more["stream"]:
            for number, _ in enumerate(got, 1):
                if number == take:
                    got.close()
                    break
        (call,) = guard.calls()
        assert call.state == "settled"
        assert guard.balance("u").held == 0
        return call


# --- left early -----------------------------------------------------------------------------------------


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, what comes at once has come."""
    monkeypatch.setattr(reading_on, "_PATIENCE", 60.0)


def leave(stream: Any, at: Callable[[Any], bool]) -> None:
    for item in stream:
        if at(item):
            return
    pytest.fail("the end was not announced")


async def aleave(stream: Any, at: Callable[[Any], bool]) -> None:
    async for item in stream:
        if at(item):
            return
    pytest.fail("the end was not announced")


def is_finished(item: Any) -> bool:
    return bool(item.choices) and item.choices[0].finish_reason is not None


def is_written(event: Any) -> bool:
    return bool(event.type == "response.output_text.done")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("close", [True, False])
def test_a_thinking_stream_that_is_left_at_its_end_costs_what_is_billed(tmp_path: Path, close: bool) -> None:
    with (
        OpenAIServer(Reply(text="word " * 50, reasoning_tokens=3_000)) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        stream = client.chat.completions.create(model=THINKER, messages=HELLO, stream=True)
        leave(stream, is_finished)
        if close:
            stream.close()
        del stream
        gc.collect()
        settle_background(books)
        books.check()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("close", [True, False])
async def test_a_thinking_async_stream_that_is_left_at_its_end_costs_what_is_billed(
    tmp_path: Path, close: bool
) -> None:
    with (
        OpenAIServer(Reply(text="word " * 50, reasoning_tokens=3_000)) as server,
        open_books(server, "memory", tmp_path) as books,
    ):
        async with books.aclient() as client:
            stream = await client.chat.completions.create(model=THINKER, messages=HELLO, stream=True)
            await aleave(stream, is_finished)
            if close:
                await stream.close()
            del stream
            while books.held:
                gc.collect()
                await asyncio.sleep(0.005)
            books.check()


@pytest.mark.usefixtures("patient")
async def test_a_response_that_is_closed_at_the_end_of_its_text_costs_what_is_billed(tmp_path: Path) -> None:
    ask: Any = {"model": THINKER, "input": "hello", "stream": True}
    with (
        OpenAIServer(Reply(text="word " * 50, reasoning_tokens=3_000)) as server,
        open_books(server, "memory", tmp_path) as books,
    ):
        with books.client() as client, client.responses.create(**ask) as stream:
            leave(stream, is_written)
        async with books.aclient() as aclient, await aclient.responses.create(**ask) as astream:
            await aleave(astream, is_written)
        server.wait_idle()
        wanted = sum(
            one["input_tokens"] * 1_250 + one["output_tokens"] * THINKERS_OUTPUT for one in server.billed
        )
        assert (books.spent, books.held) == (wanted, 0)


@contextmanager
def stalling(release: threading.Event) -> Iterator[str]:
    """Serve one stream that stops between its end and its usage, until it is released; yields its address."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    def framed(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(head + framed(data_of(chunk("word"), chunk(finish="stop"), done=False)))
                release.wait()
                try:
                    connection.sendall(framed(data_of(last(usage(9, 4_000)))) + b"0\r\n\r\n")
                except OSError:
                    return  # nobody reads any more

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            release.set()
            server.join()


@pytest.mark.parametrize("model", [THINKER, WRITER])
async def test_no_usage_is_waited_for_in_vain(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setattr(reading_on, "_PATIENCE", 0.01)
    ask: Any = {"model": model, "messages": HELLO, "stream": True}
    for asynchronous in (False, True):
        guard = Guard(store="memory://")
        guard.set_budget(100, user="u")
        with stalling(threading.Event()) as url, guard.budget_user("u"):
            if asynchronous:
                async with (
                    guard.wrap(openai.AsyncOpenAI(base_url=url, api_key="k")) as aclient,
                    await aclient.chat.completions.create(**ask) as astream,
                ):
                    await aleave(astream, is_finished)
            else:
                with (
                    guard.wrap(openai.OpenAI(base_url=url, api_key="k")) as client,
                    client.chat.completions.create(**ask) as stream,
                ):
                    leave(stream, is_finished)
            (call,) = guard.calls()
            assert call.outcome == "abandoned"
            assert call.usage.output_tokens == (THOUGHT if model == THINKER else 1)


async def test_whoever_reads_on_gets_all_that_comes_however_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_on, "_PATIENCE", 0.01)
    for asynchronous in (False, True):
        guard, release = Guard(store="memory://"), threading.Event()
        guard.set_budget(100, user="u")
        ask: Any = {"model": WRITER, "messages": HELLO, "stream": True}
        with stalling(release) as url, guard.budget_user("u"):
            seen = []
            if asynchronous:
                async with guard.wrap(openai.AsyncOpenAI(base_url=url, api_key="k")) as aclient:
                    async for item in await aclient.chat.completions.create(**ask):
                        seen.append(item)
                        if is_finished(item):
                            release.set()
            else:
                with guard.wrap(openai.OpenAI(base_url=url, api_key="k")) as client:
                    for item in client.chat.completions.create(**ask):
                        seen.append(item)
                        if is_finished(item):
                            release.set()
            assert len(seen) == 2
            assert guard.balance("u").spent_nanos == 9 * INPUT + 4_000 * OUTPUT


def test_a_thinking_stream_that_is_left_in_the_middle_costs_the_output_that_was_projected() -> None:
    words = [chunk("word ") for _ in range(9)]
    for chunks in (words, [{**one, "usage": usage(50, 1)} for one in words]):
        call = booked(data_of(*chunks, last(usage(50, 9_000))), model=THINKER, take=3)
        assert (call.outcome, call.usage.output_tokens) == ("abandoned", THOUGHT)


# --- usage ----------------------------------------------------------------------------------------------

WORDS = [chunk("word " * 20) for _ in range(30)]  # 600 tokens, and one for the last space
END = chunk(finish="stop")
TOLD = last(usage(1_000, 600, total_tokens=1_600))
WHOLE = 1_000 * INPUT + 600 * OUTPUT
SEEN = 601 * OUTPUT
GUESSED = PROJECTED_INPUT * INPUT

STREAMS: dict[str, tuple[Iterable[Any], int]] = {
    "as it should be": ([*WORDS, END, TOLD], WHOLE),
    "a running total in each chunk": (
        [*({**one, "usage": usage(1_000, 20 * number)} for number, one in enumerate(WORDS, 1)), END],
        WHOLE,
    ),
    "zeros in each chunk, then the truth": (
        [*({**one, "usage": usage(0, 0)} for one in WORDS), END, TOLD],
        WHOLE,
    ),
    "zeros in each chunk": ([{**one, "usage": usage(0, 0)} for one in WORDS], GUESSED + SEEN),
    "the truth, then zeros": ([*WORDS, END, TOLD, last(usage(0, 0))], WHOLE),
    "the truth, then nulls": ([*WORDS, END, TOLD, last(usage(None, None))], WHOLE),
    "the truth first": ([TOLD, *WORDS, END], 1_000 * INPUT + SEEN),
    "the prompt first, the completion last": (
        [
            chunk("a", usage={"prompt_tokens": 1_000}),
            *WORDS,
            chunk(finish="stop", usage={"completion_tokens": 600}),
        ],
        WHOLE,
    ),
    "the prompt first, and no more": (
        [chunk("", usage={"prompt_tokens": 1_000}), *WORDS],
        1_000 * INPUT + SEEN,
    ),
    "the completion alone": ([*WORDS, END, last({"completion_tokens": 600})], GUESSED + 600 * OUTPUT),
    "a negative prompt": ([*WORDS, END, last(usage(-1, 600, total_tokens=599))], GUESSED + 600 * OUTPUT),
    "a negative completion": ([*WORDS, END, last(usage(1_000, -600))], 1_000 * INPUT + SEEN),
    "floats": ([*WORDS, END, last(usage(1_000.0, 599.5))], WHOLE),
    "spelled numbers": ([*WORDS, END, last(usage("1000", "600"))], WHOLE),
    "a tenth of it": ([*WORDS, END, last(usage(1_000, 60))], 1_000 * INPUT + SEEN),
    "no numbers": ([*WORDS, END, last(usage("many", {}))], GUESSED + 1_024 * OUTPUT),
    "an error after the text": ([*WORDS, {"error": {"message": "overloaded"}}], GUESSED + SEEN),
    "an error and nothing else": ([{"error": {"code": 429, "message": "too fast"}}], 0),
}


@pytest.mark.parametrize("name", STREAMS)
def test_whatever_usage_a_stream_reports_no_less_is_booked_than_was_seen(name: str) -> None:
    chunks, right = STREAMS[name]
    with client_of(data_of(*chunks)) as (guard, client):
        try:
            list(client.chat.completions.create(model=WRITER, messages=HELLO, stream=True))
        except openai.APIError:
            assert "error" in name
        assert (guard.balance("u").spent_nanos, guard.balance("u").held_nanos) == (right, 0)


@pytest.mark.parametrize(
    ("used", "right"),
    [
        (usage(0, 0), GUESSED + 400 * OUTPUT),
        (usage(1_000, 1), 1_000 * INPUT + 400 * OUTPUT),
        ({"prompt_tokens": 1_000}, 1_000 * INPUT + 400 * OUTPUT),
    ],
)
def test_a_stream_with_early_usage_that_is_left_costs_what_was_seen(used: Any, right: int) -> None:
    chunks = [{**WORDS[0], "usage": used}, *WORDS[1:], TOLD]
    cost = booked(data_of(*chunks), take=20).cost_nanos
    assert 0 <= cost - right <= OUTPUT  # for the space at the end


@pytest.mark.parametrize(
    ("used", "right"),
    [
        (usage(1_000, 500), 1_000 * INPUT + 500 * OUTPUT),
        (usage(0, 0), GUESSED + 501 * OUTPUT),
        (usage(0, 0, total_tokens=0), GUESSED + 501 * OUTPUT),
        ({"completion_tokens": 600}, GUESSED + 600 * OUTPUT),
        ({"prompt_tokens": 1_000}, 1_000 * INPUT + 501 * OUTPUT),
        (usage(-1, 600, total_tokens=599), GUESSED + 600 * OUTPUT),
        (usage(1_000, 1), 1_000 * INPUT + 501 * OUTPUT),
        ({}, GUESSED + 1_024 * OUTPUT),
        (None, GUESSED + 1_024 * OUTPUT),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_no_less_is_booked_for_an_answer_than_its_text_has(used: Any, right: int, raw: bool) -> None:
    with client_of(answer(used, "word " * 500)) as (guard, client):
        completions = client.chat.completions
        (completions.with_raw_response if raw else completions).create(model=WRITER, messages=HELLO)
        (call,) = guard.calls()
        assert call.cost_nanos == right


def test_no_less_is_booked_for_a_response_than_its_text_has() -> None:
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
    content = [{"type": "output_text", "text": "word " * 500, "annotations": []}]
    response = {
        "id": "r",
        "object": "response",
        "status": "completed",
        "model": WRITER,
        "output": [{**item, "content": content}],
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
    }
    done = {"type": "response.completed", "response": {**response, "output": []}}
    delta = {"type": "response.output_text.delta", "item_id": "m", "content_index": 0, "delta": "word " * 500}
    for body in (response, data_of(delta, done)):
        with client_of(body) as (guard, client):
            got = client.responses.create(model=WRITER, input="hello", stream=isinstance(body, bytes))
            if isinstance(body, bytes):
                list(got)
            (call,) = guard.calls()
            assert call.usage.output_tokens == 501
            assert call.usage.input_tokens > 30


def test_embeddings_have_no_output_to_miss() -> None:
    embedding = {"object": "embedding", "index": 0, "embedding": [0.1]}
    body = {"object": "list", "model": "m", "data": [embedding], "usage": {"prompt_tokens": 7}}
    with client_of(body) as (guard, client):
        client.embeddings.create(model="text-embedding-3-small", input="hello", encoding_format="float")
        assert guard.balance("u").spent_nanos == 7 * 20


def test_a_long_answer_without_usage_costs_all_that_it_shows() -> None:
    assert booked(answer(None, "word " * 3_000)).cost_nanos == GUESSED + 3_001 * OUTPUT


ERROR = {"error": {"code": 429, "message": "Rate limit exceeded"}}


@pytest.mark.parametrize("way", ["plain", "raw", "streaming"])
def test_an_answer_that_is_only_an_error_costs_nothing(way: str) -> None:
    with client_of(ERROR) as (guard, client):
        completions = client.chat.completions
        ask: Any = {"model": WRITER, "messages": HELLO, "web_search_options": {}}
        if way == "streaming":
            with completions.with_streaming_response.create(**ask) as got:
                got.read()
        else:
            (completions.with_raw_response if way == "raw" else completions).create(**ask)
        assert (guard.balance("u").spent_nanos, guard.balance("u").held_nanos) == (0, 0)


def test_an_answer_with_an_error_beside_its_text_is_paid_for() -> None:
    assert booked({**answer(usage(1_000, 500)), **ERROR}).cost_nanos == 1_000 * INPUT + 500 * OUTPUT


@pytest.mark.parametrize("shape", [{}, {"choices": None}, {"choices": []}])
def test_a_usage_chunk_that_nobody_asked_for_stays_hidden(shape: dict[str, Any]) -> None:
    end = {name: value for name, value in TOLD.items() if name != "choices"} | shape
    body = data_of(chunk("hi"), END, end)
    for asked, count in ((False, 2), (True, 3)):
        with client_of(body) as (guard, client):
            more: Any = {"stream_options": {"include_usage": True}} if asked else {}
            got = list(client.chat.completions.create(model=WRITER, messages=HELLO, stream=True, **more))
            assert len(got) == count
            assert guard.balance("u").spent_nanos == WHOLE


counts = st.dictionaries(
    st.sampled_from(["input_tokens", "output_tokens", "cache_read_tokens"]), st.integers(0, 9)
)


@given(counts, counts, counts)
def test_usage_is_merged_by_the_larger_of_each_field(one: Any, two: Any, three: Any) -> None:
    first, second, third = Usage(one), Usage(two), Usage(three)
    merged = first.merged(second)
    assert merged == second.merged(first)
    assert merged.merged(merged) == merged
    assert merged.merged(third) == first.merged(second.merged(third))
    for name in merged.units:
        assert merged.units[name] == max(one.get(name, 0), two.get(name, 0))


@given(st.lists(st.builds(usage, st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_no_usage_of_a_stream_takes_away_what_another_said(told: list[Any]) -> None:
    tally = ChatAccumulator("gpt-4o")
    for one in told:
        tally.feed(last(one))
    assert tally.reported is not None
    used = tally.reported.usage
    assert used == Usage.of(
        input_tokens=max(one["prompt_tokens"] for one in told),
        output_tokens=max(one["completion_tokens"] for one in told),
    )
    assert tally.reported.merged(Reported(usage=None)) == tally.reported


def test_a_stream_may_end_in_two_threads_at_once() -> None:
    for _ in range(20):
        tally = ChatAccumulator(WRITER)
        for index in range(50):
            choice = {"index": index, "delta": {"content": "a few words more"}, "finish_reason": None}
            tally.feed({"choices": [choice]})
        start, seen = threading.Barrier(4), []

        def end(tally: ChatAccumulator = tally, start: Any = start, seen: list[int] = seen) -> None:
            start.wait()
            seen.append(tally.seen_tokens())

        threads = [threading.Thread(target=end) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [200] * 4
