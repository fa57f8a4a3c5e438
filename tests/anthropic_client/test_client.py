"""The client, call by call: held before a byte is sent, and booked to the Nano."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest

from budgetguard import check
from budgetguard.engine.background import background
from budgetguard.errors import (
    BudgetExceededError,
    ConfigurationError,
    UnknownEndpointError,
    UnknownModelError,
)

from .server import MODEL, MessagesServer, Reply

BODY: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Say hello to everybody in the room."}],
}
# Nanos a token of claude-sonnet-4-6, as Anthropic's price page has them.
INPUT, OUTPUT, READ, WRITE, WRITE_1H, SEARCH = 3_000, 15_000, 300, 3_750, 6_000, 10_000_000
COST = 20 * INPUT + 9 * OUTPUT


class Answer(pydantic.BaseModel):
    greeting: str


def _drained(stream: Any) -> list[Any]:
    with stream as events:
        return list(events)


def _helped(manager: Any) -> str:
    with manager as stream:
        text: str = stream.get_final_text()
        return text


def _streamed_raw(manager: Any) -> Any:
    with manager as response:
        return response.parse()


WAYS: dict[str, Callable[[Any], Any]] = {
    "create": lambda c: c.messages.create(**BODY),
    "stream=True": lambda c: _drained(c.messages.create(**BODY, stream=True)),
    "stream helper": lambda c: _helped(c.messages.stream(**BODY)),
    "raw": lambda c: c.messages.with_raw_response.create(**BODY).parse(),
    "raw, unparsed": lambda c: c.messages.with_raw_response.create(**BODY),
    "streaming raw": lambda c: _streamed_raw(c.messages.with_streaming_response.create(**BODY)),
    "beta": lambda c: c.beta.messages.create(**BODY),
    "beta stream": lambda c: _helped(c.beta.messages.stream(**BODY)),
    "copy": lambda c: c.with_options(timeout=20).messages.create(**BODY),
    "bare": lambda c: c.post("/v1/messages", body=BODY, cast_to=object),
    "bare, beta": lambda c: c.post("/v1/messages?beta=true", body=BODY, cast_to=object),
}


async def _adrained(stream: Any) -> list[Any]:
    async with await stream as events:
        return [event async for event in events]


async def _ahelped(manager: Any) -> str:
    async with manager as stream:
        text: str = await stream.get_final_text()
        return text


async def _astreamed_raw(manager: Any) -> Any:
    async with manager as response:
        return await response.parse()


async def _araw(made: Any) -> Any:
    parsed = (await made).parse()
    return await parsed if hasattr(parsed, "__await__") else parsed


AWAYS: dict[str, Callable[[Any], Any]] = {
    "create": lambda c: c.messages.create(**BODY),
    "stream=True": lambda c: _adrained(c.messages.create(**BODY, stream=True)),
    "stream helper": lambda c: _ahelped(c.messages.stream(**BODY)),
    "raw": lambda c: _araw(c.messages.with_raw_response.create(**BODY)),
    "streaming raw": lambda c: _astreamed_raw(c.messages.with_streaming_response.create(**BODY)),
    "beta": lambda c: c.beta.messages.create(**BODY),
    "beta stream": lambda c: _ahelped(c.beta.messages.stream(**BODY)),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_held_and_booked_once(way: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        WAYS[way](client)
    assert (books.spent, books.held, books.server.count()) == (COST, 0, 1)
    assert [event.model for event in books.of("Held")] == [MODEL]


@pytest.mark.parametrize("way", AWAYS)
async def test_each_async_way_is_held_and_booked_once(way: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    async with books.aclient() as client:
        await AWAYS[way](client)
    assert (books.spent, books.held, books.server.count()) == (COST, 0, 1)
    assert len(books.of("Held")) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_refused_call_sends_no_byte(way: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    books.limit(1_000)
    with books.client() as client, pytest.raises(BudgetExceededError) as caught:
        WAYS[way](client)
    assert caught.value.available == Decimal("0.000001")
    assert (books.server.requests, books.spent, books.held) == ([], 0, 0)


@pytest.mark.parametrize("way", AWAYS)
async def test_a_refused_async_call_sends_no_byte(way: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    books.limit(1_000)
    async with books.aclient() as client:
        with pytest.raises(BudgetExceededError):
            await AWAYS[way](client)
    assert (books.server.requests, books.spent, books.held) == ([], 0, 0)


@pytest.mark.skipif(not hasattr(anthropic, "beta_tool"), reason="this anthropic has no such helper")
def test_parse_is_booked_once(open_books: Any) -> None:
    books = open_books(MessagesServer(Reply(text='{"greeting": "Hello"}')))
    with books.client() as client:
        parsed = client.beta.messages.parse(**BODY, output_format=Answer)
    assert parsed.parsed_output == Answer(greeting="Hello")
    assert (books.spent, books.held) == (COST, 0)


USE = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1, "b": 2}}
USES = Reply(blocks=[USE], more={"stop_reason": "tool_use"})


def _add(spend: Callable[[], None], *, asynchronous: bool) -> Any:
    if asynchronous:

        @anthropic.beta_async_tool
        async def add(a: int, b: int) -> str:
            """Add two numbers."""
            spend()
            return str(a + b)

    else:

        @anthropic.beta_tool
        def add(a: int, b: int) -> str:
            """Add two numbers."""
            spend()
            return str(a + b)

    return add


@pytest.mark.skipif(not hasattr(anthropic, "beta_tool"), reason="this anthropic has no such helper")
@pytest.mark.parametrize("stream", [False, True])
def test_each_model_call_of_a_tool_runner_is_booked_or_refused(stream: bool, open_books: Any) -> None:
    books = open_books(MessagesServer([USES, Reply(), USES, Reply()]))
    # The money is there for all of the first run, and gone when the second has run its tool.
    limits = [3 * COST + 100, 10**10]

    def spend() -> None:
        books.limit(limits.pop())

    def run(client: Any) -> str:
        runner = client.beta.messages.tool_runner(
            **BODY,
            tools=[_add(spend, asynchronous=False)],
            **({"stream": True} if stream else {}),
        )
        last = ""
        for one in runner:
            answer = one.get_final_message() if stream else one
            last = getattr(answer.content[0], "text", "")
        return last

    with books.client() as client:
        assert run(client) == Reply().text
        assert (books.spent, books.held, books.server.count()) == (2 * COST, 0, 2)
        assert len(books.of("Held")) == 2
        with pytest.raises(BudgetExceededError):
            run(client)
    assert (books.spent, books.held, books.server.count()) == (3 * COST, 0, 3)


@pytest.mark.skipif(not hasattr(anthropic, "beta_async_tool"), reason="this anthropic has no such helper")
@pytest.mark.parametrize("stream", [False, True])
async def test_each_model_call_of_an_async_tool_runner_is_booked_or_refused(
    stream: bool, open_books: Any
) -> None:
    books = open_books(MessagesServer([USES, Reply(), USES, Reply()]))
    # The money is there for all of the first run, and gone when the second has run its tool.
    limits = [3 * COST + 100, 10**10]

    def spend() -> None:
        books.limit(limits.pop())

    async def run(client: Any) -> str:
        runner = client.beta.messages.tool_runner(
            **BODY,
            tools=[_add(spend, asynchronous=True)],
            **({"stream": True} if stream else {}),
        )
        last = ""
        async for one in runner:
            answer = await one.get_final_message() if stream else one
            last = getattr(answer.content[0], "text", "")
        return last

    async with books.aclient() as client:
        assert await run(client) == Reply().text
        assert (books.spent, books.held, books.server.count()) == (2 * COST, 0, 2)
        with pytest.raises(BudgetExceededError):
            await run(client)
    assert (books.spent, books.held, books.server.count()) == (3 * COST, 0, 3)


def test_of_ten_racing_calls_as_many_are_sent_as_the_budget_holds(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        client.messages.create(**BODY)
        (held,) = books.of("Held")
        projected = int(held.amount * 10**9)
        # Each holds what the first held; enough for ten, and one Nano short of eleven.
        books.limit(books.spent + 11 * projected - 1)
        together, done, refused = threading.Barrier(30), [], []

        def call() -> None:
            together.wait(20)
            try:
                done.append(client.messages.create(**BODY))
            except BudgetExceededError as error:
                refused.append(error)

        gate = threading.Event()
        books.server._reply = lambda _body: (gate.wait(20), Reply())[1]
        threads = [threading.Thread(target=contextvars.copy_context().run, args=(call,)) for _ in range(30)]
        for thread in threads:
            thread.start()
        while len(refused) < 20:
            gate.wait(0.01)
        gate.set()
        for thread in threads:
            thread.join(30)
    assert (len(done), len(refused), books.server.count()) == (10, 20, 11)
    assert (books.spent, books.held) == (11 * COST, 0)


USAGES = {
    "cache reads": (
        {"input_tokens": 10, "cache_read_input_tokens": 1_000, "output_tokens": 5},
        10 * INPUT + 1_000 * READ + 5 * OUTPUT,
    ),
    "cache writes for 5 minutes and an hour": (
        {
            "input_tokens": 10,
            "cache_creation_input_tokens": 700,
            "cache_read_input_tokens": 40,
            "cache_creation": {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 200},
            "output_tokens": 5,
        },
        10 * INPUT + 500 * WRITE + 200 * WRITE_1H + 40 * READ + 5 * OUTPUT,
    ),
    "thinking": (
        {"input_tokens": 10, "output_tokens": 900, "output_tokens_details": {"thinking_tokens": 850}},
        10 * INPUT + 900 * OUTPUT,
    ),
    "searches": (
        {"input_tokens": 9_000, "output_tokens": 50, "server_tool_use": {"web_search_requests": 3}},
        9_000 * INPUT + 50 * OUTPUT + 3 * SEARCH,
    ),
}


@pytest.mark.parametrize("kind", USAGES)
@pytest.mark.parametrize("way", ["create", "stream=True", "stream helper", "streaming raw", "beta"])
def test_what_the_usage_reports_is_booked(way: str, kind: str, open_books: Any) -> None:
    usage, cost = USAGES[kind]
    books = open_books(MessagesServer(Reply(usage=usage)))
    with books.client() as client:
        WAYS[way](client)
    assert (books.spent, books.held) == (cost, 0)


@pytest.mark.parametrize("way", ["create", "stream=True"])
def test_a_container_that_code_ran_in_is_booked(way: str, open_books: Any) -> None:
    container = {"id": "container_1", "expires_at": "2026-01-01T00:00:00Z"}
    books = open_books(MessagesServer(Reply(more={"container": container})))
    body = {**BODY, "tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}
    with books.client() as client:
        if way == "create":
            client.beta.messages.create(**body)
        else:
            _drained(client.beta.messages.create(**body, stream=True))
    assert (books.spent, books.held) == (COST + 4_200_000, 0)


def projected(books: Any, **more: Any) -> int:
    """Return the Nanos that a request holds."""
    before = len(books.of("Held"))
    with books.client() as client:
        client.messages.create(**BODY, extra_body=more)  # older clients know fewer parameters
    return int(books.of("Held")[before].amount * 10**9)


def test_a_projection_holds_what_the_request_asks_for(open_books: Any) -> None:
    books = open_books(MessagesServer())
    plain = projected(books)
    tokens = (plain - 100 * OUTPUT) // INPUT
    assert 20 < tokens < 100
    five = {"type": "ephemeral"}
    hour = {"type": "ephemeral", "ttl": "1h"}
    text = BODY["messages"][0]["content"]
    marked = [{"role": "user", "content": [{"type": "text", "text": text, "cache_control": five}]}]
    assert projected(books, messages=marked) == tokens * WRITE + 100 * OUTPUT
    assert projected(books, cache_control=hour) == tokens * WRITE_1H + 100 * OUTPUT
    assert projected(books, max_tokens=1_000) == plain + 900 * OUTPUT
    assert projected(books, system="Be brief. " * 100) > plain + 300 * INPUT
    hidden = [{"type": "text", "text": "Be brief. " * 100, "cache_control": hour}]
    assert projected(books, system=hidden) > plain + 300 * WRITE_1H
    tool = {"name": "add", "description": "Add. " * 200, "input_schema": {"type": "object"}}
    assert projected(books, tools=[tool]) > plain + 700 * INPUT
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    assert projected(books, tools=[search]) > plain + 5 * SEARCH + 14_000 * INPUT
    fetched = {"type": "image", "source": {"type": "url", "url": "https://images.example/1.png"}}
    assert projected(books, messages=[{"role": "user", "content": [fetched]}]) > 1_500 * INPUT
    paper = {"type": "document", "source": {"type": "url", "url": "https://papers.example/1.pdf"}}
    assert projected(books, messages=[{"role": "user", "content": [paper]}]) > 20_000 * INPUT
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    assert projected(books, max_tokens=3_000, thinking=thinking) > plain + 2_900 * OUTPUT


def test_a_model_in_america_is_held_at_its_price(open_books: Any) -> None:
    books = open_books(MessagesServer())
    plain = projected(books, model="claude-opus-4-6")
    assert projected(books, model="claude-opus-4-6", inference_geo="us") == plain * 11 // 10


def test_a_generator_of_messages_is_read_once_and_sent(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        client.messages.create(**{**BODY, "messages": iter(BODY["messages"])})
    assert books.server.requests[0].body["messages"] == BODY["messages"]
    assert books.spent == COST


def test_what_cannot_be_projected_is_refused_in_words(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client:
        for more, says in (
            ({"messages": []}, "messages must not be empty"),
            ({"max_tokens": -1}, "max_tokens must be a whole number"),
            ({"messages": [{"role": "user", "content": iter(["hi"])}]}, "read only once"),
        ):
            with pytest.raises(ConfigurationError, match=says):
                client.messages.create(**BODY, extra_body=more)
        with pytest.raises(ConfigurationError, match="max_tokens is missing"):
            client.post("/v1/messages", body={"model": MODEL, "messages": BODY["messages"]}, cast_to=object)
        with pytest.raises(UnknownModelError, match="no price for tool_uses_advisor"):
            client.messages.create(**BODY, extra_body={"tools": [{"type": "advisor_20260301"}]})
        with pytest.raises(UnknownModelError, match="fast mode of 'claude-opus-4-6'"):
            client.messages.create(**{**BODY, "model": "claude-opus-4-6"}, extra_body={"speed": "fast"})
        with pytest.raises(UnknownModelError, match="claude-unheard-of"):
            client.messages.create(**{**BODY, "model": "claude-unheard-of"})
    assert (books.server.requests, books.spent, books.held) == ([], 0, 0)


def test_what_is_free_passes_on_an_empty_budget(open_books: Any) -> None:
    books = open_books(MessagesServer())
    books.limit(0)
    with books.client() as client:
        counted = client.messages.count_tokens(model=MODEL, messages=BODY["messages"])
        assert counted.input_tokens == 20
        assert list(client.models.list()) == []
        assert list(client.messages.batches.list()) == []
    assert (len(books.server.requests), books.of("Held")) == (3, [])


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "completions": (lambda c: c.post("/v1/complete", body={}, cast_to=object), "POST /complete is .* legacy"),
    "agents": (lambda c: c.post("/v1/sessions", body={}, cast_to=object), "POST /sessions runs an agent"),
    "unheard of": (lambda c: c.post("/v1/made/up", body={}, cast_to=object), "POST /made/up may cost money"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_refused_by_name(kind: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    call, says = REFUSED[kind]
    with books.client() as client, pytest.raises(UnknownEndpointError, match=says) as caught:
        call(client)
    assert "allow_endpoints" in str(caught.value)
    assert books.server.requests == []


def test_an_unpatched_client_is_not_guarded_and_a_wrapped_one_is(open_books: Any, patch: Any) -> None:
    books = open_books(MessagesServer(), patched=False)
    with books.client() as other, books.client() as client:
        assert patch.wrap(client, books.engine) is client
        assert isinstance(client, anthropic.Anthropic)
        other.messages.create(**BODY)
        assert books.spent == 0
        for way in WAYS.values():
            way(client)
    assert (books.spent, books.held) == (len(WAYS) * COST, 0)


def test_a_client_that_is_patched_and_wrapped_is_charged_once(open_books: Any, patch: Any) -> None:
    books = open_books(MessagesServer())
    with patch.wrap(books.client(), books.engine) as client:
        client.messages.create(**BODY)
    assert (books.spent, len(books.of("Held"))) == (COST, 1)


def test_streams_that_are_left_early_are_booked_by_what_was_seen(open_books: Any) -> None:
    usage = {"input_tokens": 20, "output_tokens": 500}
    books = open_books(MessagesServer(Reply(text="word " * 500, usage=usage)))
    with books.client() as client:
        with client.messages.create(**{**BODY, "max_tokens": 900}, stream=True) as stream:
            for event in stream:
                if event.type == "content_block_delta":
                    break
        assert books.held == 0
        assert 20 * INPUT < books.spent < 20 * INPUT + 500 * OUTPUT


def test_a_stream_that_is_left_at_its_last_text_is_booked_whole(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client() as client, client.messages.create(**BODY, stream=True) as stream:
        for event in stream:
            if event.type == "content_block_stop":
                break
    assert (books.spent, books.held) == (COST, 0)


def test_a_stream_that_is_forgotten_is_booked(open_books: Any) -> None:
    books = open_books(MessagesServer(Reply(text="word " * 50)))
    client = books.client()
    stream = client.messages.create(**BODY, stream=True)
    next(iter(stream))
    assert books.held > 0
    del stream
    client.close()
    del client
    gc.collect()
    background.finish()
    assert books.held == 0
    assert books.spent >= 20 * INPUT


async def test_a_cancelled_stream_is_booked(open_books: Any) -> None:
    books = open_books(
        MessagesServer(Reply(text="word " * 400, usage={"input_tokens": 20, "output_tokens": 400}))
    )
    begun = asyncio.Event()

    async def listen() -> None:
        async with books.aclient() as client, client.messages.stream(**{**BODY, "max_tokens": 900}) as stream:
            async for _ in stream:
                begun.set()
                await asyncio.sleep(60)

    task = asyncio.create_task(listen())
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    background.finish()
    assert books.held == 0
    assert 20 * INPUT <= books.spent <= 20 * INPUT + 400 * OUTPUT


def test_a_stream_that_breaks_off_is_booked_by_what_was_seen(open_books: Any) -> None:
    books = open_books(MessagesServer(Reply(text="word " * 100, events=10)))
    with books.client() as client, pytest.raises(Exception, match=r"(?i)incomplete|peer closed"):
        _drained(client.messages.create(**BODY, stream=True))
    assert books.held == 0
    assert 20 * INPUT <= books.spent < 20 * INPUT + 100 * OUTPUT


def test_an_error_inside_a_stream_is_raised_and_what_was_seen_is_booked(open_books: Any) -> None:
    books = open_books(MessagesServer(Reply(error="overloaded_error")))
    with books.client() as client, pytest.raises(anthropic.APIStatusError):
        _drained(client.messages.create(**BODY, stream=True))
    assert books.held == 0
    assert 20 * INPUT <= books.spent <= COST


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, anthropic.RateLimitError), (529, anthropic.APIStatusError), (400, anthropic.BadRequestError)],
)
def test_an_error_status_is_not_charged(status: int, error: type[Exception], open_books: Any) -> None:
    books = open_books(MessagesServer(Reply(status=status)))
    with books.client(max_retries=2) as client, pytest.raises(error):
        client.messages.create(**BODY)
    assert books.server.count() == (1 if status == 400 else 3)
    assert (books.spent, books.held) == (0, 0)


def test_a_retry_that_succeeds_is_booked_once(open_books: Any) -> None:
    books = open_books(MessagesServer([Reply(status=529), Reply()]))
    with books.client(max_retries=2) as client:
        client.messages.create(**BODY)
    assert (books.spent, books.held, books.server.count()) == (COST, 0, 2)


def test_a_timeout_is_an_unknown_outcome_and_a_lost_try_is_booked(open_books: Any) -> None:
    books = open_books(MessagesServer([Reply(hang=True), Reply()]))
    with books.client(max_retries=0, timeout=0.3) as client, pytest.raises(anthropic.APITimeoutError):
        client.messages.create(**BODY)
    (held,) = books.of("Held")
    lost = int(held.amount * 10**9)
    assert books.spent + books.held == lost


def test_a_lost_try_before_one_that_succeeds_is_booked(open_books: Any) -> None:
    books = open_books(MessagesServer([Reply(hang=True), Reply()]))
    with books.client(max_retries=1, timeout=0.3) as client:
        client.messages.create(**BODY)
    lost = int(books.of("Held")[0].amount * 10**9)
    assert (books.spent, books.held) == (COST + lost, 0)


def test_nobody_there_is_not_charged(open_books: Any) -> None:
    books = open_books(MessagesServer())
    client = anthropic.Anthropic(base_url="http://127.0.0.1:9", api_key="k", max_retries=0)
    with client, pytest.raises(anthropic.APIConnectionError):
        client.messages.create(**BODY)
    assert (books.spent, books.held) == (0, 0)


def test_check_says_whether_it_is_guarded(open_books: Any, patch: Any) -> None:
    def said() -> dict[str, tuple[bool, str | None]]:
        return {one.sdk: (one.guarded, one.why) for one in check()}

    books = open_books(MessagesServer(), patched=False)
    assert said()["anthropic"] == (
        False,
        'call patch() or patch("anthropic"); clients that were given to wrap() are guarded',
    )
    patch.patch(books.engine)
    assert said()["anthropic"] == (True, None)
    anthropic.Anthropic.request = lambda *_, **__: None  # type: ignore[method-assign]  # as some instrumentation
    try:
        guarded, why = said()["anthropic"]
    finally:
        del anthropic.Anthropic.request
    assert not guarded
    assert why == 'somebody has replaced Anthropic.request since; call patch("anthropic") once more'


PROGRAM = """
import os, sys
{first}
import anthropic
from budgetguard import BudgetExceededError
client = anthropic.Anthropic(base_url={base_url!r}, api_key="test")
call = dict(model="claude-sonnet-4-6", max_tokens=100, messages=[{{"role": "user", "content": "hi"}}])
client.messages.create(**call)
try:
    client.messages.create(**{{**call, "max_tokens": 1_000}})
except BudgetExceededError:
    print("refused")
"""


@pytest.mark.full
@pytest.mark.parametrize(
    "way", ["budgetguard run", pytest.param("import budgetguard.auto", marks=pytest.mark.full)]
)
def test_a_whole_program_s_calls_are_guarded(way: str, tmp_path: Path) -> None:
    with MessagesServer() as server:
        first = way if way.startswith("import") else ""
        program = tmp_path / "program.py"
        program.write_text(PROGRAM.format(first=first, base_url=server.base_url))
        python = [sys.executable, str(program)]
        run = [
            str(Path(sys.executable).with_name("budgetguard")),
            "run",
            "--max-budget",
            "0.01",
            "--",
            *python,
        ]
        done = subprocess.run(
            python if first else run,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("BUDGETGUARD_")},
                "BUDGETGUARD_STORE": f"disk://{tmp_path / 'budgets'}",
                **({"BUDGETGUARD_MAX_BUDGET": "0.01"} if first else {}),
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout == "refused\n", done.stderr
        assert "1 call" in done.stderr
        assert server.count() == 1
