"""Every way of making a call with the openai client, to its end: sync and async."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
from openai import NOT_GIVEN, AsyncStream, Stream
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.adapters.books import HTTP, MESSAGES, MODEL

# The SDK's word for a parameter that is left out; an older one has the same as for one not given.
OMIT: Any = getattr(openai, "omit", NOT_GIVEN)
TAKES_CONTENT = "content" in inspect.signature(openai.OpenAI.post).parameters
CHAT: Any = {"model": MODEL, "messages": MESSAGES}
STREAMED: Any = {**CHAT, "stream": True}
PATH = "/chat/completions"
EMBED: Any = {"model": "text-embedding-3-small", "input": ["some text", "some more text"]}


class Room(BaseModel):
    name: str
    people: int


def helpers(client: Any) -> Any:
    """Return the resource with `parse` and `stream`: an older SDK has them in beta."""
    chat = client.chat.completions
    return chat if hasattr(chat, "parse") else client.beta.chat.completions


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "greet",
            "parameters": {"type": "object", "properties": {"name": {"type": "string"}}},
        },
    }
]
MORE: dict[str, Any] = {
    "plain": {},
    "capped": {"max_completion_tokens": 3},
    "three choices": {"n": 3, "max_tokens": 20},
    "not given": {"temperature": NOT_GIVEN, "n": NOT_GIVEN, "max_tokens": OMIT, "tools": OMIT},
    "extra body": {"extra_body": {"n": 2, "seed": 7}},
    "extra headers and query": {"extra_headers": {"X-One": "1"}, "extra_query": {"a": "b"}},
    "tools": {"tools": TOOLS, "tool_choice": "required"},
    "a timeout": {"timeout": 30.0},
}
STREAM_MORE: dict[str, Any] = {
    "plain": {},
    "two choices": {"n": 2},
    "usage asked for": {"stream_options": {"include_usage": True}},
    "usage declined": {"stream_options": {"include_usage": False}},
    "other stream options": {"stream_options": {"include_obfuscation": False}},
    "usage asked for in extra body": {"extra_body": {"stream_options": {"include_usage": True}}},
    "usage declined in extra body": {"extra_body": {"stream_options": {"include_usage": False}}},
    "tools": {"tools": TOOLS, "tool_choice": "required"},
}


def _stream_helper(client: openai.OpenAI) -> Any:
    with helpers(client).stream(**CHAT) as stream:
        events = [event.type for event in stream]
        return events, stream.get_final_completion()


def _stream_helper_parsing(client: openai.OpenAI) -> Any:
    with helpers(client).stream(**CHAT, response_format=Room) as stream:
        return stream.until_done().get_final_completion()


def _nexts(client: openai.OpenAI) -> Any:
    stream = client.chat.completions.create(**STREAMED)
    return list(iter(lambda: next(stream, None), None))


def _in_with(client: openai.OpenAI) -> Any:
    with client.chat.completions.create(**STREAMED) as stream:
        return type(stream), stream.response.status_code, list(stream)


def _streaming(read: Callable[[Any], Any], **body: Any) -> Callable[[openai.OpenAI], Any]:
    def run(client: openai.OpenAI) -> Any:
        with client.chat.completions.with_streaming_response.create(**CHAT, **body) as response:
            return type(response), response.status_code, read(response)

    return run


def _raw_stream(client: openai.OpenAI) -> Any:
    response: Any = client.chat.completions.with_raw_response.create(**STREAMED)
    stream = response.parse()
    return type(response), type(stream), list(stream), response.parse() is stream


def _post(cast_to: Any, **more: Any) -> Callable[[openai.OpenAI], Any]:
    return lambda client: client.post(PATH, cast_to=cast_to, **(more or {"body": CHAT}))


def _post_stream(client: openai.OpenAI) -> Any:
    stream = client.post(
        PATH, body=STREAMED, cast_to=ChatCompletionChunk, stream=True, stream_cls=Stream[ChatCompletionChunk]
    )
    return type(stream), list(stream)


def _post_response_stream(client: openai.OpenAI) -> Any:
    response: Any = client.post(
        PATH, body=STREAMED, cast_to=HTTP.Response, stream=True, stream_cls=Stream[ChatCompletionChunk]
    )
    # An older SDK returns a stream of chunks here.
    return type(response), response.read() if isinstance(response, HTTP.Response) else list(response)


SYNC: dict[str, Callable[[openai.OpenAI], Any]] = {
    **{
        f"create, {name}": (lambda client, more=more: client.chat.completions.create(**CHAT, **more))
        for name, more in MORE.items()
    },
    **{
        f"create(stream=True), {name}": (
            lambda client, more=more: list(client.chat.completions.create(**STREAMED, **more))
        )
        for name, more in STREAM_MORE.items()
    },
    "create, messages from a generator": lambda client: client.chat.completions.create(
        model=MODEL, messages=(message for message in MESSAGES)
    ),
    "parse": lambda client: helpers(client).parse(**CHAT, response_format=Room),
    "parse, raw": lambda client: (
        helpers(client).with_raw_response.parse(**CHAT, response_format=Room).parse()
    ),
    "the stream helper": _stream_helper,
    "the stream helper, parsing": _stream_helper_parsing,
    "a stream in a with": _in_with,
    "next on a stream": _nexts,
    "raw": lambda client: client.chat.completions.with_raw_response.create(**CHAT).parse(),
    "raw, unparsed": lambda client: json.loads(
        client.chat.completions.with_raw_response.create(**CHAT).http_response.read()
    ),
    "raw, a stream": _raw_stream,
    "streaming response, read": _streaming(lambda response: response.read()),
    "streaming response, json": _streaming(lambda response: response.json()),
    "streaming response, text": _streaming(lambda response: response.text()),
    "streaming response, parse": _streaming(lambda response: response.parse()),
    "streaming response, iter_bytes": _streaming(lambda response: b"".join(response.iter_bytes(7))),
    "streaming response, iter_text": _streaming(lambda response: "".join(response.iter_text(5))),
    "streaming response, lines of a stream": _streaming(
        lambda response: list(response.iter_lines()), stream=True
    ),
    "streaming response, bytes of a stream": _streaming(
        lambda response: b"".join(response.iter_bytes(11)), stream=True
    ),
    "streaming response, raw bytes of a stream": _streaming(
        lambda response: b"".join(response.http_response.iter_raw()), stream=True
    ),
    "streaming response, a parsed stream": _streaming(lambda response: list(response.parse()), stream=True),
    "with_options": lambda client: client.with_options(timeout=20, max_retries=1).chat.completions.create(
        **CHAT
    ),
    "post, ChatCompletion": _post(ChatCompletion),
    "post, object": _post(object),
    "post, dict": _post(dict[str, object]),
    "post, str": _post(str),
    "post, Response": lambda client: client.post(PATH, body=CHAT, cast_to=HTTP.Response).json(),
    "post, body in extra_json": _post(object, options={"extra_json": CHAT}),
    "post, no leading slash and a query": lambda client: client.post(
        "chat/completions?beta=true", body=CHAT, cast_to=object
    ),
    "post, an absolute URL": lambda client: client.post(
        f"{client.base_url}chat/completions", body=CHAT, cast_to=object
    ),
    "post, a stream": _post_stream,
    "post, a Response that streams": _post_response_stream,
    "embeddings": lambda client: client.embeddings.create(**EMBED),
    "embeddings, floats": lambda client: client.embeddings.create(**EMBED, encoding_format="float"),
    "embeddings, raw": lambda client: client.embeddings.with_raw_response.create(**EMBED).parse(),
    "embeddings, post": lambda client: client.post(
        "/embeddings", body=EMBED, cast_to=CreateEmbeddingResponse
    ),
}
if TAKES_CONTENT:
    SYNC["post, bytes content"] = _post(
        object, content=json.dumps(CHAT).encode(), options={"headers": {"Content-Type": "application/json"}}
    )


async def _astream_helper(client: openai.AsyncOpenAI) -> Any:
    async with helpers(client).stream(**CHAT) as stream:
        events = [event.type async for event in stream]
        return events, await stream.get_final_completion()


async def _ain_with(client: openai.AsyncOpenAI) -> Any:
    async with await client.chat.completions.create(**STREAMED) as stream:
        return type(stream), stream.response.status_code, [chunk async for chunk in stream]


def _alist(**more: Any) -> Callable[[openai.AsyncOpenAI], Awaitable[Any]]:
    async def run(client: openai.AsyncOpenAI) -> Any:
        return [chunk async for chunk in await client.chat.completions.create(**STREAMED, **more)]

    return run


def _astreaming(read: Callable[[Any], Any], **body: Any) -> Callable[[openai.AsyncOpenAI], Awaitable[Any]]:
    async def run(client: openai.AsyncOpenAI) -> Any:
        async with client.chat.completions.with_streaming_response.create(**CHAT, **body) as response:
            return type(response), response.status_code, await read(response)

    return run


async def _joined(parts: Any) -> Any:
    return [part async for part in parts]


async def _parsed_list(response: Any) -> Any:
    return [chunk async for chunk in await response.parse()]


async def _araw_stream(client: openai.AsyncOpenAI) -> Any:
    response: Any = await client.chat.completions.with_raw_response.create(**STREAMED)
    stream = response.parse()
    return type(response), type(stream), [chunk async for chunk in stream]


async def _araw(client: openai.AsyncOpenAI) -> Any:
    return (await client.chat.completions.with_raw_response.create(**CHAT)).parse()


async def _apost_stream(client: openai.AsyncOpenAI) -> Any:
    stream = await client.post(
        PATH,
        body=STREAMED,
        cast_to=ChatCompletionChunk,
        stream=True,
        stream_cls=AsyncStream[ChatCompletionChunk],
    )
    return type(stream), [chunk async for chunk in stream]


ASYNC: dict[str, Callable[[openai.AsyncOpenAI], Awaitable[Any]]] = {
    **{
        f"create, {name}": (lambda client, more=more: client.chat.completions.create(**CHAT, **more))
        for name, more in MORE.items()
    },
    **{f"create(stream=True), {name}": _alist(**more) for name, more in STREAM_MORE.items()},
    "parse": lambda client: helpers(client).parse(**CHAT, response_format=Room),
    "the stream helper": _astream_helper,
    "a stream in a with": _ain_with,
    "raw": _araw,
    "raw, a stream": _araw_stream,
    "streaming response, read": _astreaming(lambda response: response.read()),
    "streaming response, json": _astreaming(lambda response: response.json()),
    "streaming response, parse": _astreaming(lambda response: response.parse()),
    "streaming response, bytes": _astreaming(lambda response: _joined(response.iter_bytes())),
    "streaming response, lines of a stream": _astreaming(
        lambda response: _joined(response.iter_lines()), stream=True
    ),
    "streaming response, a parsed stream": _astreaming(_parsed_list, stream=True),
    "with_options": lambda client: client.with_options(max_retries=1).chat.completions.create(**CHAT),
    "post, object": lambda client: client.post(PATH, body=CHAT, cast_to=object),
    "post, a stream": _apost_stream,
    "embeddings": lambda client: client.embeddings.create(**EMBED),
}


def plain(value: Any) -> Any:
    """Write a value so that two of equal types and contents are equal: fields that are set, too."""
    if isinstance(value, openai.BaseModel):
        return (
            type(value),
            value.to_dict(exclude_unset=True, warnings=False),
            getattr(value, "_request_id", None),
        )
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
