"""Assistants' runs: projected from what the provider keeps, held while they wait, settled when they ended."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard.core.usage import Usage
from budgetguard.engine.projection import chat_input_tokens, with_margin
from budgetguard.errors import BudgetExceededError, ConfigurationError, UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.openai.assistants import read_run
from tests.adapters.books import MODEL, USER, Books, open_books
from tests.provider.server import OpenAIServer, Reply

# OpenAI has announced the end of this API; its client says so at each call.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

INSTRUCTIONS = "You are a patient bookkeeper."
QUESTIONS = ["How much is left?", "And how much was there?", "Where did it go?"]
TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CALL = ("look_up", {"account": "1"})


@pytest.fixture
def reply() -> Reply:
    return Reply(polls=1)


@pytest.fixture
def books(store: str, tmp_path: Path, reply: Reply) -> Iterator[Books]:
    with OpenAIServer(reply) as server, open_books(server, store, tmp_path) as opened:
        yield opened


def assistant(client: openai.OpenAI, **more: Any) -> str:
    made = {"model": MODEL, "instructions": INSTRUCTIONS, **more}
    name: str = client.beta.assistants.create(**made).id
    return name


def thread(client: openai.OpenAI, *said: str) -> str:
    messages: Any = [{"role": "user", "content": one} for one in said or QUESTIONS]
    return client.beta.threads.create(messages=messages).id


def run_nanos(usage: Any, model: str = MODEL) -> int:
    units = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
    return PriceBook().rates(model).cost(Usage(units))


def held_for(*said: str, cap: int, model: str = MODEL, instructions: str = INSTRUCTIONS) -> int:
    messages = [{"role": "system", "content": instructions}]
    messages += [{"role": "user", "content": one} for one in said]
    tokens = with_margin(chat_input_tokens({"messages": messages}, model))
    return PriceBook().rates(model).cost(Usage.of(input_tokens=tokens, output_tokens=cap))


def check(books: Books) -> None:
    (billed,) = books.server.billed
    assert (books.spent, books.held) == (run_nanos(billed), 0)
    assert books.names().count("Settled") == 1


def test_a_run_is_held_by_what_its_assistant_and_its_thread_say(books: Books) -> None:
    with books.client() as client:
        name, on = assistant(client), thread(client)
        run = client.beta.threads.runs.create(on, assistant_id=name, max_completion_tokens=300)
        assert (books.spent, books.held) == (0, held_for(*QUESTIONS, cap=300))
        statuses = [client.beta.threads.runs.retrieve(run.id, thread_id=on).status for _ in range(3)]
    assert statuses == ["in_progress", "completed", "completed"]
    check(books)
    (settled,) = books.of("Settled")
    assert (settled.user, settled.model, settled.request_id) == (USER, MODEL, run.id)
    assert (settled.endpoint, settled.estimated) == ("runs", False)


def test_what_the_request_says_itself_goes_before_what_the_assistant_says(books: Books) -> None:
    with books.client() as client:
        name, on = assistant(client, model="gpt-5"), thread(client)
        client.beta.threads.runs.create(
            on,
            assistant_id=name,
            model=MODEL,
            instructions="Short.",
            additional_instructions="Please.",
            additional_messages=[{"role": "user", "content": "Now."}],
            max_completion_tokens=300,
        )
        expected = held_for(*QUESTIONS, "Now.", cap=300, instructions="Short.\nPlease.")
        assert books.held == expected


def test_a_long_thread_is_read_page_by_page(books: Books) -> None:
    said = [f"Message number {n}." for n in range(230)]
    with books.client() as client:
        name, on = assistant(client), thread(client, *said)
        client.beta.threads.runs.create(on, assistant_id=name, max_completion_tokens=300)
        assert books.held == held_for(*said, cap=300)
        before = books.held
        client.beta.threads.runs.create(
            on,
            assistant_id=name,
            max_completion_tokens=300,
            truncation_strategy={"type": "last_messages", "last_messages": 7},
        )
        assert books.held - before == held_for(*said[-7:], cap=300)


def test_a_cap_on_the_prompt_is_what_is_held_for_it(books: Books) -> None:
    with books.client() as client:
        name, on = assistant(client), thread(client)
        client.beta.threads.runs.create(
            on, assistant_id=name, max_prompt_tokens=5_000, max_completion_tokens=300
        )
    rates = PriceBook().rates(MODEL)
    assert books.held == rates.cost(Usage.of(input_tokens=5_000, output_tokens=300))


def test_hosted_tools_are_allowed_for_and_their_fees_booked(books: Books) -> None:
    tools: Any = [{"type": "file_search"}, {"type": "code_interpreter"}]
    with books.client() as client:
        name, on = assistant(client, tools=tools), thread(client)
        run = client.beta.threads.runs.create_and_poll(thread_id=on, assistant_id=name, poll_interval_ms=1)
    (billed,) = books.server.billed
    fees = Usage.of(storage_searches=1, container_sessions_1g=1)
    assert run.status == "completed"
    assert books.spent == run_nanos(billed) + PriceBook().rates(MODEL).cost(fees)
    (projected,) = books.of("Projected")
    assert projected.usage.input_tokens > 9_000


def _create_and_poll(client: openai.OpenAI, name: str, on: str) -> Any:
    client.beta.threads.runs.create_and_poll(thread_id=on, assistant_id=name, poll_interval_ms=1)


def _stream(client: openai.OpenAI, name: str, on: str) -> Any:
    events = list(client.beta.threads.runs.create(on, assistant_id=name, stream=True))
    assert events[-1].event == "thread.run.completed"


def _stream_helper(client: openai.OpenAI, name: str, on: str) -> Any:
    with client.beta.threads.runs.stream(thread_id=on, assistant_id=name) as stream:
        stream.until_done()


def _raw(client: openai.OpenAI, name: str, on: str) -> Any:
    runs = client.beta.threads.runs.with_raw_response
    run = runs.create(on, assistant_id=name).parse()
    for _ in range(3):
        runs.retrieve(run.id, thread_id=on).parse()


def _streaming(client: openai.OpenAI, name: str, on: str) -> Any:
    runs = client.beta.threads.runs.with_streaming_response
    with runs.create(on, assistant_id=name) as response:
        run = response.json()
    for _ in range(3):
        with runs.retrieve(run["id"], thread_id=on) as response:
            response.json()


def _list(client: openai.OpenAI, name: str, on: str) -> Any:
    run = client.beta.threads.runs.create(on, assistant_id=name)
    assert [one.id for one in client.beta.threads.runs.list(on)] == [run.id]
    client.beta.threads.runs.poll(run.id, thread_id=on, poll_interval_ms=1)
    client.beta.threads.runs.list(on)


def _create_thread_and_poll(client: openai.OpenAI, name: str, on: str) -> Any:
    client.beta.threads.create_and_run_poll(
        assistant_id=name,
        thread={"messages": [{"role": "user", "content": "Hello."}]},
        poll_interval_ms=1,
    )


def _create_thread_stream(client: openai.OpenAI, name: str, on: str) -> Any:
    asked: Any = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}]}
    list(client.beta.threads.create_and_run(assistant_id=name, thread=asked, stream=True))


WAYS = [
    _create_and_poll,
    _stream,
    _stream_helper,
    _raw,
    _streaming,
    _list,
    _create_thread_and_poll,
    _create_thread_stream,
]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_running_is_charged_once(way: Any, books: Books) -> None:
    with books.client() as client:
        way(client, assistant(client), thread(client))
    check(books)


async def test_async_runs_are_charged_the_same(books: Books) -> None:
    with books.client() as client:
        name, on = assistant(client), thread(client)
    async with books.aclient() as aclient:
        await aclient.beta.threads.runs.create_and_poll(thread_id=on, assistant_id=name, poll_interval_ms=1)
        check(books)
        stream: Any = await aclient.beta.threads.runs.create(on, assistant_id=name, stream=True)
        assert [event.event async for event in stream][-1] == "thread.run.completed"
    assert (books.spent, books.held) == (sum(map(run_nanos, books.server.billed)), 0)
    assert len(books.server.billed) == 2


@pytest.mark.parametrize("ends", ["incomplete", "cancelled", "expired"])
@pytest.mark.parametrize("told", [True, False])
def test_a_run_that_ended_early_costs_what_it_says_or_the_projection(
    ends: str, told: bool, store: str, tmp_path: Path
) -> None:
    reply = Reply(polls=0, ends=ends, omit_usage=not told)
    with (
        OpenAIServer(reply) as server,
        open_books(server, store, tmp_path) as books,
        books.client() as client,
    ):
        name, on = assistant(client), thread(client)
        run = client.beta.threads.runs.create(on, assistant_id=name, max_completion_tokens=300)
        assert client.beta.threads.runs.retrieve(run.id, thread_id=on).status == ends
        if told:
            check(books)
        else:
            assert (books.spent, books.held) == (held_for(*QUESTIONS, cap=300), 0)


def test_a_run_that_failed_costs_nothing_and_a_cancelled_one_what_it_says(tmp_path: Path) -> None:
    with (
        OpenAIServer([Reply(polls=0, ends="failed"), Reply()]) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        name, on = assistant(client), thread(client)
        run = client.beta.threads.runs.create(on, assistant_id=name)
        client.beta.threads.runs.retrieve(run.id, thread_id=on)
        assert (books.spent, books.held) == (0, 0)
        other = client.beta.threads.runs.create(on, assistant_id=name)
        assert books.held > 0
        client.beta.threads.runs.cancel(other.id, thread_id=on)
        (billed,) = books.server.billed
        assert (books.spent, books.held) == (run_nanos(billed), 0)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("reply", [Reply(polls=0, tool_calls=[CALL])])
def test_a_run_that_waits_for_tools_keeps_its_hold_until_they_have_answered(
    streamed: bool, books: Books
) -> None:
    runs: Any
    with books.client() as client:
        runs = client.beta.threads.runs
        name, on = assistant(client, tools=[TOOL]), thread(client)
        if streamed:
            events = list(runs.create(on, assistant_id=name, stream=True))
            assert events[-1].event == "thread.run.requires_action"
            run = events[-1].data
        else:
            run = runs.create_and_poll(thread_id=on, assistant_id=name, poll_interval_ms=1)
        held = books.held
        assert (run.status, books.spent, held > 0) == ("requires_action", 0, True)
        assert runs.retrieve(run.id, thread_id=on).status == "requires_action"
        outputs = {"thread_id": on, "tool_outputs": [{"tool_call_id": "call_0", "output": "12"}]}
        if streamed:
            events = list(runs.submit_tool_outputs(run.id, **outputs, stream=True))
            assert events[-1].event == "thread.run.completed"
        else:
            assert runs.submit_tool_outputs(run.id, **outputs).status == "queued"
            assert (books.spent, books.held) == (0, held)
            assert runs.poll(run.id, thread_id=on, poll_interval_ms=1).status == "completed"
    check(books)


def test_a_stream_that_is_left_goes_on_and_is_charged_when_asked_for(books: Books) -> None:
    with books.client() as client:
        name, on = assistant(client), thread(client)
        with client.beta.threads.runs.create(on, assistant_id=name, stream=True) as stream:
            first: Any = next(stream)
        assert first.event == "thread.run.created"
        client.beta.threads.runs.retrieve(first.data.id, thread_id=on)
    check(books)


def test_a_run_that_does_not_fit_is_refused_and_not_created(books: Books) -> None:
    books.limit(held_for(*QUESTIONS, cap=300) - 1)
    with books.client() as client:
        name, on = assistant(client), thread(client)
        for streamed in (False, True):
            with pytest.raises(BudgetExceededError):
                client.beta.threads.runs.create(
                    on, assistant_id=name, max_completion_tokens=300, stream=streamed
                )
        with pytest.raises(BudgetExceededError):
            client.beta.threads.create_and_run(assistant_id=name, max_completion_tokens=3_000)
        assert list(client.beta.threads.runs.list(on)) == []
    assert books.server.count("/v1/threads/runs") == 0


def test_what_the_provider_does_not_have_raises_its_own_error(books: Books) -> None:
    with books.client() as client:
        with pytest.raises(openai.NotFoundError):
            client.beta.threads.runs.create(thread(client), assistant_id="asst_0")
        with pytest.raises(openai.NotFoundError):
            client.beta.threads.runs.create("thread_0", assistant_id=assistant(client))
        with pytest.raises(UnknownModelError):
            client.beta.threads.create_and_run(assistant_id=assistant(client, model="a-model-of-nobody"))
        with pytest.raises(ConfigurationError, match="assistant_id"):
            client.post("/threads/runs", body={}, cast_to=object)
        asked: Any = {"assistant_id": assistant(client), "max_prompt_tokens": "many"}
        with pytest.raises(ConfigurationError, match="max_prompt_tokens"):
            client.beta.threads.create_and_run(**asked)
    assert (books.spent, books.held) == (0, 0)


def test_another_process_settles_a_run(tmp_path: Path) -> None:
    program = """
        import sys, warnings
        import openai
        from tests.adapters.books import *
        warnings.simplefilter("ignore")
        patch(keeper_on("disk", Path(sys.argv[1])))
        client = openai.OpenAI(base_url=sys.argv[2], api_key="test")
        for _ in range(2):
            assert client.beta.threads.runs.retrieve(sys.argv[4], thread_id=sys.argv[3]).status == "completed"
    """
    with OpenAIServer(Reply(polls=0)) as server, open_books(server, "disk", tmp_path) as books:
        with books.client() as client:
            on = thread(client)
            run = client.beta.threads.runs.create(on, assistant_id=assistant(client))
            arguments = [str(tmp_path), server.base_url, on, run.id]
            subprocess.run(
                [sys.executable, "-c", textwrap.dedent(program), *arguments], check=True, timeout=60
            )
            (billed,) = server.billed
            assert (books.spent, books.held) == (run_nanos(billed), 0)
            client.beta.threads.runs.retrieve(run.id, thread_id=on)
        assert books.spent == run_nanos(billed)


def test_a_run_reads_as_without_a_guard(tmp_path: Path) -> None:
    def run(base_url: str) -> Any:
        with openai.OpenAI(base_url=base_url, api_key="test") as client:
            name, on = assistant(client), thread(client)
            done = client.beta.threads.runs.create_and_poll(
                thread_id=on, assistant_id=name, poll_interval_ms=1
            )
            return type(done), done.to_dict()

    with OpenAIServer() as server:
        expected = run(server.base_url)
    with OpenAIServer() as server, open_books(server, "memory", tmp_path):
        assert run(server.base_url) == expected


def test_cached_input_of_a_run_is_read() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "total_tokens": 11,
        "prompt_token_details": {"cached_tokens": 4},
    }
    said = read_run({"id": "run_1", "status": "completed", "model": MODEL, "tools": None, "usage": usage})
    assert said.usage == Usage.of(input_tokens=9, output_tokens=2, cache_read_tokens=4)
