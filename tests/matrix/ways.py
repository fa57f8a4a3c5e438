"""Ways of making a call with the real client: each is written once, for its sync and its async client."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Final

import openai
from openai import AsyncStream, Stream

# The columns of the table.
CALL: Final = "call"
STREAM: Final = "stream=True"
HELPER: Final = ".stream()"
PARSE: Final = "parse"
RAW: Final = "raw"
STREAMING: Final = "streaming"
POST: Final = "client.post"
POLLED: Final = "polled"
CONNECT: Final = "connect"
COLUMNS: Final = (CALL, STREAM, HELPER, PARSE, RAW, STREAMING, POST, POLLED, CONNECT)

Make = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Way:
    """Hold one way of making one paid call, to its end.

    Attributes:
        column: of the table.
        method: of the client, such as `chat.completions.create`; for `client.post`, `post`.
        name: what sets it apart from other ways of the column.
        make: takes a client, `OpenAI` or `AsyncOpenAI`, and returns what came of the call.
        estimated: the answer does not report what it cost, and the books go by the request.
    """

    column: str
    method: str
    name: str
    make: Make
    estimated: bool = False

    @property
    def there(self) -> bool:
        """Whether this SDK has it."""
        try:
            attrgetter(self.method)(_a_client())
        except AttributeError:
            return False
        return True


@cache
def _a_client() -> openai.OpenAI:
    """Return a client to ask what clients have; it never calls."""
    return openai.OpenAI(api_key="test")


async def done(value: Any) -> Any:
    """Return what a method of either client returns."""
    return await value if inspect.isawaitable(value) else value


async def every(stream: Any) -> list[Any]:
    """Return what a stream of either client yields."""
    return [item async for item in stream] if hasattr(stream, "__aiter__") else list(stream)


@asynccontextmanager
async def within(manager: Any) -> AsyncIterator[Any]:
    """Enter what either client gives for a `with`."""
    if hasattr(manager, "__aenter__"):
        async with manager as inside:
            yield inside
    else:
        with manager as inside:
            yield inside


def finish(steps: Any) -> Any:
    """Run a way with a sync client, which never waits: so no event loop runs, as in a program without one."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a sync client was waited for")


def of(client: Any, method: str, face: str = "") -> Any:
    """Return a method of a client, if wanted of one of its resource's faces such as `with_raw_response`."""
    owner, _, name = method.rpartition(".")
    found = attrgetter(owner)(client)
    return getattr(getattr(found, face) if face else found, name)


def calls(method: str, bodies: Mapping[str, Mapping[str, Any]], **more: Any) -> Iterator[Way]:
    """Yield the plain call, with each of some bodies."""

    def made(body: Mapping[str, Any]) -> Make:
        return lambda client: done(of(client, method)(**body))

    for name, body in bodies.items():
        yield Way(CALL, method, name, made(body), **more)


def streams(method: str, bodies: Mapping[str, Mapping[str, Any]]) -> Iterator[Way]:
    """Yield the call with `stream=True`, read to its end, with each of some bodies."""

    def made(body: Mapping[str, Any]) -> Make:
        async def make(client: Any) -> Any:
            stream = await done(of(client, method)(**body, stream=True))
            return type(stream), await every(stream)

        return make

    for name, body in bodies.items():
        yield Way(STREAM, method, name, made(body))


def faces(method: str, body: Mapping[str, Any], **more: Any) -> Iterator[Way]:
    """Yield what every method has: other options, the raw response and the streaming response."""

    async def options(client: Any) -> Any:
        return await done(of(client.with_options(timeout=20, max_retries=1), method)(**body))

    async def raw(client: Any) -> Any:
        response = await done(of(client, method, "with_raw_response")(**body))
        parsed = await done(response.parse())
        return type(response), response.status_code, parsed, await done(response.parse()) is parsed

    async def unparsed(client: Any) -> Any:
        response = await done(of(client, method, "with_raw_response")(**body))
        return response.http_response.read()

    def streaming(read: Callable[[Any], Any]) -> Make:
        async def make(client: Any) -> Any:
            async with within(of(client, method, "with_streaming_response")(**body)) as response:
                return type(response), response.status_code, await done(read(response))

        return make

    yield Way(CALL, method, "with_options", options, **more)
    yield Way(RAW, method, "parsed", raw, **more)
    yield Way(RAW, method, "unparsed", unparsed, **more)
    yield Way(STREAMING, method, "parsed", streaming(lambda response: response.parse()), **more)
    yield Way(STREAMING, method, "read", streaming(lambda response: response.read()), **more)
    yield Way(
        STREAMING, method, "in bytes", streaming(lambda response: every(response.iter_bytes(7))), **more
    )


def stream_faces(method: str, body: Mapping[str, Any]) -> Iterator[Way]:
    """Yield what every method with streams has: a `with`, the raw response and the streaming response."""

    async def in_with(client: Any) -> Any:
        async with within(await done(of(client, method)(**body, stream=True))) as stream:
            return type(stream), stream.response.status_code, await every(stream)

    async def nexts(client: Any) -> Any:
        stream, end = await done(of(client, method)(**body, stream=True)), object()
        found: list[Any] = []
        while True:
            item = await (anext(stream, end) if hasattr(stream, "__anext__") else done(next(stream, end)))
            if item is end:
                return found
            found.append(item)

    async def raw(client: Any) -> Any:
        response = await done(of(client, method, "with_raw_response")(**body, stream=True))
        stream = await done(response.parse())
        return type(response), type(stream), await every(stream), await done(response.parse()) is stream

    def streaming(read: Callable[[Any], Awaitable[Any]]) -> Make:
        async def make(client: Any) -> Any:
            face = of(client, method, "with_streaming_response")
            async with within(face(**body, stream=True)) as response:
                return type(response), await read(response)

        return make

    async def parsed(response: Any) -> Any:
        return await every(await done(response.parse()))

    yield Way(STREAM, method, "in a with", in_with)
    yield Way(STREAM, method, "next by next", nexts)
    yield Way(RAW, method, "a stream", raw)
    yield Way(STREAMING, method, "a stream", streaming(parsed))
    yield Way(STREAMING, method, "lines of a stream", streaming(lambda read: every(read.iter_lines())))
    yield Way(STREAMING, method, "bytes of a stream", streaming(lambda read: every(read.iter_bytes(11))))


def posts(path: str, bodies: Mapping[str, Any], casts: Sequence[Any], **more: Any) -> Iterator[Way]:
    """Yield `client.post` of the first body for each type to cast to, and of the others for the first."""

    def made(body: Mapping[str, Any], cast_to: Any) -> Make:
        return lambda client: done(client.post(path, cast_to=cast_to, **body))

    (first, body), *others = bodies.items()
    for cast_to in casts:
        yield Way(
            POST, "post", f"{first}, {getattr(cast_to, '__name__', cast_to)}", made(body, cast_to), **more
        )
    for name, body in others:
        yield Way(POST, "post", name, made(body, casts[0]), **more)


def post_stream(path: str, body: Mapping[str, Any], item: Any, **form: Any) -> Way:
    """Return `client.post` of a stream."""

    async def make(client: Any) -> Any:
        kind: Any = AsyncStream if isinstance(client, openai.AsyncOpenAI) else Stream
        stream = await done(
            client.post(
                path, body={**body, "stream": True}, cast_to=item, stream=True, stream_cls=kind[item], **form
            )
        )
        return type(stream), await every(stream)

    return Way(POST, "post", "a stream", make)
