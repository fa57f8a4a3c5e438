"""Chat: the endpoint with the most ways."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import openai
from openai import NOT_GIVEN, AsyncStream, Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.adapters.books import HTTP, MESSAGES, MODEL, billed_nanos
from tests.provider.server import OpenAIServer

from .case import Case
from .ways import (
    CALL,
    HELPER,
    PARSE,
    POST,
    STREAMING,
    Way,
    calls,
    done,
    every,
    faces,
    post_stream,
    posts,
    stream_faces,
    streams,
    within,
)

# The SDK's word for a parameter that is left out; an older one has the same as for one not given.
OMIT: Any = getattr(openai, "omit", NOT_GIVEN)
TAKES_CONTENT = "content" in inspect.signature(openai.OpenAI.post).parameters
CHAT: Any = {"model": MODEL, "messages": MESSAGES}
PATH = "/chat/completions"
CREATE = "chat.completions.create"
# An older SDK has the helpers in beta alone.
HELPERS = (
    "chat.completions" if hasattr(openai.resources.chat.Completions, "parse") else "beta.chat.completions"
)


class Room(BaseModel):
    name: str
    people: int


def helpers(client: Any) -> Any:
    """Return the resource with `parse` and `stream`."""
    return attrgetter(HELPERS)(client)


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "greet",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    }
]
BODIES: dict[str, Any] = {
    "plain": {},
    "capped": {"max_completion_tokens": 3},
    "three choices": {"n": 3, "max_tokens": 20},
    "not given": {"temperature": NOT_GIVEN, "n": NOT_GIVEN, "max_tokens": OMIT, "tools": OMIT},
    "extra body": {"extra_body": {"n": 2, "seed": 7}},
    "extra headers and query": {"extra_headers": {"X-One": "1"}, "extra_query": {"a": "b"}},
    "tools": {"tools": TOOLS, "tool_choice": "required"},
    "a timeout": {"timeout": 30.0},
}
STREAM_BODIES: dict[str, Any] = {
    "plain": {},
    "two choices": {"n": 2},
    "usage asked for": {"stream_options": {"include_usage": True}},
    "usage declined": {"stream_options": {"include_usage": False}},
    "other stream options": {"stream_options": {"include_obfuscation": False}},
    "usage asked for in extra body": {"extra_body": {"stream_options": {"include_usage": True}}},
    "usage declined in extra body": {"extra_body": {"stream_options": {"include_usage": False}}},
    "tools": {"tools": TOOLS, "tool_choice": "required"},
}
POSTED: dict[str, Any] = {
    "body": {"body": CHAT},
    "body in extra_json": {"options": {"extra_json": CHAT}},
}
if TAKES_CONTENT:
    headers = {"Content-Type": "application/json"}
    POSTED["bytes"] = {"content": json.dumps(CHAT).encode(), "options": {"headers": headers}}


def _helper(**more: Any) -> Any:
    async def make(client: Any) -> Any:
        async with within(helpers(client).stream(**CHAT, **more)) as stream:
            seen = [event.type for event in await every(stream)]
            return seen, await done(stream.get_final_completion())

    return make


async def _helper_until_done(client: Any) -> Any:
    async with within(helpers(client).stream(**CHAT, response_format=Room)) as stream:
        await done(stream.until_done())
        return await done(stream.get_final_completion())


async def _parse_raw(client: Any) -> Any:
    response = await done(helpers(client).with_raw_response.parse(**CHAT, response_format=Room))
    return response.parse()


def _read(read: Any, **body: Any) -> Any:
    async def make(client: Any) -> Any:
        face = client.chat.completions.with_streaming_response
        async with within(face.create(**CHAT, **body)) as response:
            return await read(response)

    return make


async def _raw_bytes(response: Any) -> Any:
    http = response.http_response
    raw = http.aiter_raw() if isinstance(http.stream, HTTP.AsyncByteStream) else http.iter_raw()
    return b"".join(await every(raw))


async def _post_response_stream(client: Any) -> Any:
    kind: Any = AsyncStream if isinstance(client, openai.AsyncOpenAI) else Stream
    response = await done(
        client.post(
            PATH,
            body={**CHAT, "stream": True},
            cast_to=HTTP.Response,
            stream=True,
            stream_cls=kind[ChatCompletionChunk],
        )
    )
    if not isinstance(response, HTTP.Response):  # an older SDK returns a stream of chunks here
        return type(response), await every(response)
    return type(response), await done(response.aread() if kind is AsyncStream else response.read())


def _ways() -> Iterator[Way]:
    yield from calls(CREATE, {name: {**CHAT, **more} for name, more in BODIES.items()})
    yield Way(
        CALL,
        CREATE,
        "messages from a generator",
        lambda client: done(
            client.chat.completions.create(model=MODEL, messages=(message for message in MESSAGES))
        ),
    )
    yield from streams(CREATE, {name: {**CHAT, **more} for name, more in STREAM_BODIES.items()})
    yield from faces(CREATE, CHAT)
    yield from stream_faces(CREATE, CHAT)
    yield Way(STREAMING, CREATE, "json", _read(lambda response: done(response.json())))
    yield Way(STREAMING, CREATE, "in text", _read(lambda response: every(response.iter_text(5))))
    yield Way(STREAMING, CREATE, "raw bytes of a stream", _read(_raw_bytes, stream=True))
    yield Way(
        PARSE,
        f"{HELPERS}.parse",
        "plain",
        lambda client: done(helpers(client).parse(**CHAT, response_format=Room)),
    )
    yield Way(PARSE, f"{HELPERS}.parse", "raw", _parse_raw)
    yield Way(HELPER, f"{HELPERS}.stream", "plain", _helper())
    yield Way(HELPER, f"{HELPERS}.stream", "parsing", _helper(response_format=Room))
    yield Way(HELPER, f"{HELPERS}.stream", "until done", _helper_until_done)
    yield from posts(PATH, POSTED, (ChatCompletion, object, dict[str, object], str, HTTP.Response))
    yield from posts("chat/completions?beta=true", {"a path without a slash": {"body": CHAT}}, (object,))
    yield Way(
        POST,
        "post",
        "an absolute URL",
        lambda client: done(client.post(f"{client.base_url}chat/completions", body=CHAT, cast_to=object)),
    )
    yield post_stream(PATH, CHAT, ChatCompletionChunk)
    yield Way(POST, "post", "a Response that streams", _post_response_stream)


CASE = Case(("chat",), "Chat", OpenAIServer, billed_nanos, tuple(_ways()))
