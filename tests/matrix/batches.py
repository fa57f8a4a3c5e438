"""Batches: created from a file that is there, and asked for until they have ended, and so are billed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from openai.types import Batch

from tests.adapters.batch_books import ASK, arguments, batch_nanos, lines
from tests.provider.server import OpenAIServer

from .case import Case
from .ways import CALL, POLLED, POST, RAW, STREAMING, Way, done, of, within

PATH: Final = "/batches"
CREATE: Final = "batches.create"
# The first file that a server is given; see `_serve`.
BODY: Final = arguments("file-000001")

Begin = Callable[[Any], Awaitable[tuple[Any, str]]]
Ask = Callable[[Any, str], Awaitable[tuple[Any, str]]]


async def _create(client: Any) -> tuple[Any, str]:
    made = await done(client.batches.create(**BODY))
    return made, made.id


async def _create_with_options(client: Any) -> tuple[Any, str]:
    return await _create(client.with_options(timeout=20, max_retries=1))


async def _create_raw(client: Any) -> tuple[Any, str]:
    response = await done(of(client, CREATE, "with_raw_response")(**BODY))
    return (type(response), response.parse()), response.parse().id


async def _create_streaming(client: Any) -> tuple[Any, str]:
    async with within(of(client, CREATE, "with_streaming_response")(**BODY)) as response:
        made = await done(response.parse())
        return (type(response), made), made.id


async def _post(client: Any) -> tuple[Any, str]:
    made = await done(client.post(PATH, body=BODY, cast_to=Batch))
    return made, made.id


async def _retrieve(client: Any, name: str) -> tuple[Any, str]:
    found = await done(client.batches.retrieve(name))
    return found, found.status


async def _retrieve_raw(client: Any, name: str) -> tuple[Any, str]:
    response = await done(client.batches.with_raw_response.retrieve(name))
    return (type(response), response.parse()), response.parse().status


async def _retrieve_streaming(client: Any, name: str) -> tuple[Any, str]:
    async with within(client.batches.with_streaming_response.retrieve(name)) as response:
        found = await done(response.json())
        return (type(response), found), found["status"]


async def _get(client: Any, name: str) -> tuple[Any, str]:
    found = await done(client.get(f"{PATH}/{name}", cast_to=object))
    return found, found["status"]


def _way(column: str, name: str, begin: Begin, ask: Ask = _retrieve, method: str = CREATE) -> Way:
    """Return a batch begun in one way and asked for in another, also when it has ended."""

    async def make(client: Any) -> Any:
        made, batch = await begin(client)
        seen: list[Any] = []
        while len(seen) < 4:
            found, status = await ask(client, batch)
            seen.append((found, status))
        assert status == "completed"
        return made, seen

    return Way(column, method, name, make)


def _ways() -> Iterator[Way]:
    yield _way(CALL, "plain", _create)
    yield _way(CALL, "with_options", _create_with_options)
    yield _way(RAW, "parsed", _create_raw)
    yield _way(STREAMING, "parsed", _create_streaming)
    yield _way(POST, "body", _post, method="post")
    yield _way(POLLED, "retrieved", _create)
    yield _way(POLLED, "retrieved raw", _create, _retrieve_raw)
    yield _way(POLLED, "retrieved as a streaming response", _create, _retrieve_streaming)
    yield _way(POLLED, "client.get", _create, _get)


def _serve() -> OpenAIServer:
    server = OpenAIServer()
    server.files.add(lines(ASK, {**ASK, "max_completion_tokens": 900}))
    server.batches.ends_after = 2
    return server


def _billed(server: OpenAIServer) -> int:
    return sum(batch_nanos(usage) for usage in server.billed)


CASE = Case(
    ("batches",),
    "Batches",
    _serve,
    _billed,
    tuple(_ways()),
    sent=lambda server: server.count("/v1/batches"),
)
