"""Assistants' runs, of a thread that is there and together with a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from budgetguard.core.usage import Usage
from budgetguard.pricing.book import PriceBook
from tests.adapters.books import MESSAGES, MODEL
from tests.provider.server import OpenAIServer, Reply

from .case import Case
from .ways import CALL, HELPER, POLLED, RAW, STREAM, STREAMING, Way, done, every, of, within

RUNS: Final = "beta.threads.runs"
THREADS: Final = "beta.threads"


async def _asked(client: Any, method: str) -> dict[str, Any]:
    """Make an assistant, if wanted a thread, and return what a method takes."""
    assistant = await done(client.beta.assistants.create(model=MODEL, instructions="Be brief."))
    if not method.startswith(RUNS):
        return {"assistant_id": assistant.id, "thread": {"messages": MESSAGES}}
    thread = await done(client.beta.threads.create(messages=MESSAGES))
    return {"assistant_id": assistant.id, "thread_id": thread.id}


async def _ended(client: Any, run: Any) -> Any:
    while run.status in ("queued", "in_progress"):
        run = await done(client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id))
    assert run.status == "completed"
    return run


def _way(column: str, method: str, finish: Callable[[Any, Any], Any], face: str = "", **more: Any) -> Way:
    async def make(client: Any) -> Any:
        asked = await _asked(client, method)
        return await finish(client, of(client, method, face)(**asked, **more))

    return Way(column, method, method, make)


async def _created(client: Any, made: Any) -> Any:
    return await _ended(client, await done(made))


async def _raw(client: Any, made: Any) -> Any:
    return await _ended(client, (await done(made)).parse())


async def _streaming(client: Any, made: Any) -> Any:
    async with within(made) as response:
        run = await done(response.parse())
    return await _ended(client, run)


async def _streamed(_client: Any, made: Any) -> Any:
    return await every(await done(made))


async def _helped(_client: Any, made: Any) -> Any:
    async with within(made) as stream:
        return await every(stream)


def _ways() -> Iterator[Way]:
    for create in (f"{RUNS}.create", f"{THREADS}.create_and_run"):
        yield _way(CALL, create, _created)
        yield _way(STREAM, create, _streamed, stream=True)
        yield _way(RAW, create, _raw, "with_raw_response")
        yield _way(STREAMING, create, _streaming, "with_streaming_response")
    for helper in (f"{RUNS}.stream", f"{RUNS}.create_and_stream", f"{THREADS}.create_and_run_stream"):
        yield _way(HELPER, helper, _helped)
    for poll in (f"{RUNS}.create_and_poll", f"{THREADS}.create_and_run_poll"):
        yield _way(POLLED, poll, _created, poll_interval_ms=1)


def _billed(server: OpenAIServer) -> int:
    rates = PriceBook().rates(MODEL)
    return sum(
        rates.cost(Usage.of(input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"]))
        for used in server.billed
    )


CASE = Case(
    ("runs",),
    "Assistants' runs",
    lambda: OpenAIServer(Reply(polls=1)),
    _billed,
    tuple(_ways()),
    sent=lambda server: sum(
        record.method == "POST" and record.path.endswith("/runs") for record in server.requests
    ),
)
