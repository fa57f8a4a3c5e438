"""What a guarded client sends is never taken for what goes around: not under the strictest setting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import anthropic
import openai
import pytest

from budgetguard import UnguardedCallError
from tests.adapters.batch_books import ASK as LINE
from tests.adapters.batch_books import arguments, lines
from tests.anthropic_client.server import MODEL as CLAUDE
from tests.anthropic_client.server import MessagesServer
from tests.provider.realtime import RealtimeServer
from tests.provider.server import OpenAIServer, Reply

from .conftest import Watch, Watching

CHAT: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello?"}]}
ASK: Any = {"model": "gpt-4o-mini", "input": "Hello?"}
MESSAGE: Any = {"model": CLAUDE, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello?"}]}


def port_of(url: str) -> int:
    return int(url.split(":")[2].partition("/")[0])


def named(url: str) -> str:
    """An address by name, so that it is looked up."""
    return url.replace("127.0.0.1", "localhost")


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer(Reply(polls=2)) as server:
        yield server


@pytest.fixture
def strict(provider: OpenAIServer, watch: Watch) -> Iterator[Watching]:
    """A guard that has patched openai, and blocks all else that goes to its server."""
    port = port_of(provider.base_url)
    watching = watch(f"localhost:{port}", f"127.0.0.1:{port}", unguarded="block")
    watching.guard.patch_openai()
    yield watching
    assert not watching.told
    assert not watching.logged
    watching.relax()


def client(provider: OpenAIServer, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=named(provider.base_url), api_key="x", max_retries=0, **options)


def aclient(provider: OpenAIServer, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=named(provider.base_url), api_key="x", max_retries=0, **options)


def _create(one: openai.OpenAI) -> None:
    one.chat.completions.create(**CHAT)


def _stream(one: openai.OpenAI) -> None:
    assert list(one.chat.completions.create(**CHAT, stream=True))


def _left_stream(one: openai.OpenAI) -> None:
    with one.chat.completions.create(**CHAT, stream=True) as stream:
        next(iter(stream))


def _raw(one: openai.OpenAI) -> None:
    one.chat.completions.with_raw_response.create(**CHAT).parse()


def _streaming_raw(one: openai.OpenAI) -> None:
    with one.chat.completions.with_streaming_response.create(**CHAT) as response:
        response.json()


def _free(one: openai.OpenAI) -> None:
    assert list(one.models.list())


def _background(one: openai.OpenAI) -> None:
    begun = one.responses.create(**ASK, background=True)
    # Each on a connection of its own.
    status: Any = None
    while status != "completed":
        with _another(one) as other:
            status = other.responses.retrieve(begun.id).status


def _batch(one: openai.OpenAI) -> None:
    uploaded = one.files.create(file=lines(LINE, LINE), purpose="batch")
    with _another(one) as other:
        other.batches.create(**arguments(uploaded.id))


def _another(one: openai.OpenAI) -> openai.OpenAI:
    return openai.OpenAI(base_url=one.base_url, api_key="x", max_retries=0)


def _threads(one: openai.OpenAI) -> None:
    def ask() -> None:
        with _another(one) as other:
            _create(other)

    thread = threading.Thread(target=ask)
    thread.start()
    with ThreadPoolExecutor() as pool, ThreadPool(2) as other:
        for done in [pool.submit(ask) for _ in range(3)]:
            done.result()
        other.map(lambda _: ask(), range(2))
    thread.join()


WAYS: dict[str, Callable[[openai.OpenAI], None]] = {
    "create": _create,
    "stream": _stream,
    "left stream": _left_stream,
    "raw": _raw,
    "streaming raw": _streaming_raw,
    "embeddings": lambda one: one.embeddings.create(model="text-embedding-3-small", input="x") and None,
    "a free list": _free,
    "bare get": lambda one: one.get("/models", cast_to=object) and None,
    "background response": _background,
    "batch": _batch,
    "threads": _threads,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_patched_client_s_own_connections(way: str, strict: Watching, provider: OpenAIServer) -> None:
    with client(provider) as one:
        WAYS[way](one)
    assert provider.requests


async def test_an_async_client_s_own_connections(strict: Watching, provider: OpenAIServer) -> None:
    async with aclient(provider) as one:
        await one.chat.completions.create(**CHAT)
        assert [model async for model in one.models.list()]
    async with aclient(provider) as one:
        assert [chunk async for chunk in await one.chat.completions.create(**CHAT, stream=True)]
    async with aclient(provider) as one:
        assert [model async for model in one.models.list()]
    async with aclient(provider) as one, asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(one.chat.completions.create(**CHAT))
    async with aclient(provider) as one:
        begun = await one.responses.create(**ASK, background=True)
    status: Any = None
    while status != "completed":
        async with aclient(provider) as one:
            status = (await one.responses.retrieve(begun.id)).status


def test_an_async_client_on_trio(strict: Watching, provider: OpenAIServer) -> None:
    trio = pytest.importorskip("trio")

    async def main() -> None:
        async with aclient(provider) as one:
            await one.chat.completions.create(**CHAT)
        async with aclient(provider) as one:
            assert [model async for model in one.models.list()]

    trio.run(main)


def test_a_loop_in_another_thread(strict: Watching, provider: OpenAIServer) -> None:
    """As bridges from sync to async have it: the loop was there before the call."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def ask() -> None:
        async with aclient(provider) as one:
            await one.chat.completions.create(**CHAT)

    @strict.guard.budgeted(model="gpt-4o-mini", usage=lambda _: (1, 1))
    def bridge(prompt: str) -> None:
        asyncio.run_coroutine_threadsafe(ask(), loop).result(30)

    asyncio.run_coroutine_threadsafe(ask(), loop).result(30)
    bridge("hello")
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert provider.count() == 2


def test_what_is_tried_again(strict: Watching, provider: OpenAIServer) -> None:
    replies = [Reply(status=500, retry_after=0.001), Reply(drop_after=0), Reply()]
    with OpenAIServer(replies) as flaky:
        port = port_of(flaky.base_url)
        strict.guard.configure(provider_hosts=[f"localhost:{port}", f"127.0.0.1:{port}"])
        with client(flaky) as one:
            one.with_options(max_retries=3).chat.completions.create(**CHAT)
        assert flaky.count() == 3
        strict.relax()


def test_an_input_that_the_provider_counts(provider: OpenAIServer, watch: Watch) -> None:
    watching = watch(f"localhost:{port_of(provider.base_url)}", unguarded="block", count="provider")
    watching.guard.patch_openai()
    with client(provider) as one:
        one.responses.create(**ASK)
    assert [one.path for one in provider.requests] == ["/v1/responses/input_tokens", "/v1/responses"]
    assert not watching.told


def test_an_input_that_anthropic_counts(watch: Watch) -> None:
    with MessagesServer() as server:
        server.counts = 7_000
        named_too = f"localhost:{port_of(server.base_url)}"
        watching = watch(named_too, unguarded="block", count="provider")
        watching.guard.patch_anthropic()
        with anthropic.Anthropic(base_url=named(server.base_url), api_key="x", max_retries=0) as one:
            one.messages.create(**MESSAGE)
        assert [one.path for one in server.requests] == ["/v1/messages/count_tokens", "/v1/messages"]
        assert not watching.told


def test_a_realtime_session(strict: Watching) -> None:
    with RealtimeServer() as realtime:
        port = port_of(realtime.base_url)
        strict.guard.configure(provider_hosts=[f"localhost:{port}", f"127.0.0.1:{port}"])
        url = named(realtime.base_url)
        with (
            openai.OpenAI(api_key="x", websocket_base_url=url) as one,
            one.realtime.connect(model="gpt-realtime") as connection,
        ):
            connection.response.create()
            for event in connection:
                if event.type == "response.done":
                    break

        async def main() -> None:
            async with (
                openai.AsyncOpenAI(api_key="x", websocket_base_url=url) as one,
                one.realtime.connect(model="gpt-realtime") as connection,
            ):
                await connection.response.create()
                async for event in connection:
                    if event.type == "response.done":
                        break

        asyncio.run(main())
        assert realtime.begun == 2


def test_an_anthropic_client_s_own_connections(watch: Watch) -> None:
    with MessagesServer() as server:
        port = port_of(server.base_url)
        watching = watch(f"localhost:{port}", f"127.0.0.1:{port}", unguarded="block")
        watching.guard.patch_anthropic()
        options: Any = {"base_url": named(server.base_url), "api_key": "x", "max_retries": 0}
        with anthropic.Anthropic(**options) as one:
            one.messages.create(**MESSAGE)
        with anthropic.Anthropic(**options) as one, one.messages.stream(**MESSAGE) as stream:
            assert stream.get_final_text()
        with anthropic.Anthropic(**options) as one:
            one.models.list()

        async def main() -> None:
            async with anthropic.AsyncAnthropic(**options) as one:
                await one.messages.create(**MESSAGE)
            async with anthropic.AsyncAnthropic(**options) as one, one.messages.stream(**MESSAGE) as stream:
                assert await stream.get_final_text()

        asyncio.run(main())
        assert not watching.told
        watching.relax()


def test_a_path_that_the_user_allows(provider: OpenAIServer, watch: Watch) -> None:
    watching = watch(f"localhost:{port_of(provider.base_url)}", unguarded="block", allow_endpoints=["/evals"])
    watching.guard.patch_openai()
    with client(provider) as one, pytest.raises(openai.APIStatusError):
        one.post("/evals", body={}, cast_to=object)  # which the server does not know
    assert not watching.told


def test_an_unwrapped_client_beside_one_that_is_wrapped(provider: OpenAIServer, watch: Watch) -> None:
    """Some versions take the refusal for a broken connection, and try again; nothing is sent."""
    watching = watch(f"localhost:{port_of(provider.base_url)}", unguarded="block")
    with watching.guard.wrap(client(provider)) as one:
        one.chat.completions.create(**CHAT)
    assert not watching.told
    with client(provider) as other:
        with pytest.raises((openai.APIConnectionError, UnguardedCallError)) as raised:
            other.chat.completions.create(**CHAT)
        assert isinstance(raised.value, UnguardedCallError) or isinstance(
            raised.value.__cause__, UnguardedCallError
        )
    assert provider.count() == 1
    (event,) = watching.told
    assert event.caller is not None
    assert event.caller.startswith("openai.")
