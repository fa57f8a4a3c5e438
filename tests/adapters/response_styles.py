"""Every way of asking the Responses API, and the legacy completions, with the openai client."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import openai
from openai import NOT_GIVEN, AsyncStream, Stream, omit
from openai.resources.responses import Responses
from openai.types import Completion
from openai.types.responses import Response, ResponseStreamEvent

from tests.adapters.books import MODEL
from tests.adapters.styles import Room

ASK: Any = {"model": MODEL, "input": "Say hello to the people in the room."}
STREAMED: Any = {**ASK, "stream": True}
PATH = "/responses"
OLD = "gpt-3.5-turbo-instruct"
COMPLETE: Any = {"model": OLD, "prompt": "Say hello to the people"}

TOOLS: Any = [
    {
        "type": "function",
        "name": "greet",
        "description": "Greet somebody.",
        "strict": True,
        "parameters": {
            "type": "object",
            "title": "greet_args",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
            "additionalProperties": False,
        },
    }
]
ITEMS: Any = [
    {"role": "user", "content": [{"type": "input_text", "text": "What is the weather?"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA" * 300},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Sunny."}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": "https://a.example/b.png"}]},
]
MORE: dict[str, Any] = {
    "plain": {},
    "capped": {"max_output_tokens": 3},
    "instructions": {"instructions": "Be brief."},
    "items": {"input": ITEMS},
    "tools": {"tools": TOOLS, "tool_choice": "required"},
    "not given": {"temperature": NOT_GIVEN, "max_output_tokens": omit, "tools": omit},
    "extra body": {"extra_body": {"max_output_tokens": 5}},
    "continued": {"previous_response_id": "resp_0"},
    "a conversation": {"conversation": "conv_0"},
    "a tier": {"service_tier": "flex"},
}
COMPLETE_MORE: dict[str, Any] = {
    "plain": {},
    "two choices": {"n": 2},
    "the best of three": {"best_of": 3},
    "echo and suffix": {"echo": True, "suffix": "and go."},
    "several prompts": {"prompt": ["one", "and two"]},
    "token ids": {"prompt": [1, 2, 3]},
    "lists of token ids": {"prompt": [[1, 2, 3], [4, 5]]},
    "capped": {"max_tokens": 2},
}


def _helper(client: openai.OpenAI) -> Any:
    with client.responses.stream(**ASK) as stream:
        return [event.type for event in stream], stream.get_final_response()


def _helper_parsing(client: openai.OpenAI) -> Any:
    with client.responses.stream(**ASK, text_format=Room) as stream:
        return stream.until_done().get_final_response().output_parsed


def _in_with(client: openai.OpenAI) -> Any:
    with client.responses.create(**STREAMED) as stream:
        return type(stream), stream.response.status_code, list(stream)


def _streaming(read: Callable[[Any], Any], **body: Any) -> Callable[[openai.OpenAI], Any]:
    def run(client: openai.OpenAI) -> Any:
        with client.responses.with_streaming_response.create(**ASK, **body) as response:
            return type(response), read(response)

    return run


def _post_stream(client: openai.OpenAI) -> Any:
    stream = client.post(
        PATH,
        body=STREAMED,
        cast_to=ResponseStreamEvent,  # type: ignore[type-var]  # a union, as the SDK itself passes it
        stream=True,
        stream_cls=Stream[ResponseStreamEvent],
    )
    return type(stream), list(stream)


SYNC: dict[str, Callable[[openai.OpenAI], Any]] = {
    **{
        f"create, {name}": (lambda client, more=more: client.responses.create(**{**ASK, **more}))
        for name, more in MORE.items()
    },
    **{
        f"create(stream=True), {name}": (
            lambda client, more=more: list(client.responses.create(**{**STREAMED, **more}))
        )
        for name, more in MORE.items()
    },
    "parse": lambda client: client.responses.parse(**ASK, text_format=Room),
    "the stream helper": _helper,
    "the stream helper, parsing": _helper_parsing,
    "a stream in a with": _in_with,
    "raw": lambda client: client.responses.with_raw_response.create(**ASK).parse(),
    "raw, unparsed": lambda client: json.loads(
        client.responses.with_raw_response.create(**ASK).http_response.read()
    ),
    "raw, a stream": lambda client: list(client.responses.with_raw_response.create(**STREAMED).parse()),
    "streaming response, json": _streaming(lambda response: response.json()),
    "streaming response, parse": _streaming(lambda response: response.parse()),
    "streaming response, lines of a stream": _streaming(
        lambda response: list(response.iter_lines()), stream=True
    ),
    "post": lambda client: client.post(PATH, body=ASK, cast_to=Response),
    "post, object": lambda client: client.post(PATH, body=ASK, cast_to=object),
    "post, a stream": _post_stream,
    **{
        f"completions, {name}": (lambda client, more=more: client.completions.create(**{**COMPLETE, **more}))
        for name, more in COMPLETE_MORE.items()
    },
    **{
        f"completions(stream=True), {name}": (
            lambda client, more=more: list(client.completions.create(**{**COMPLETE, **more}, stream=True))
        )
        for name, more in COMPLETE_MORE.items()
        if name != "the best of three"  # the API streams no choice of the best
    },
    "completions, raw": lambda client: client.completions.with_raw_response.create(**COMPLETE).parse(),
    "completions, post": lambda client: client.post("/completions", body=COMPLETE, cast_to=Completion),
}


async def _ahelper(client: openai.AsyncOpenAI) -> Any:
    async with client.responses.stream(**ASK) as stream:
        return [event.type async for event in stream], await stream.get_final_response()


def _alist(**more: Any) -> Callable[[openai.AsyncOpenAI], Awaitable[Any]]:
    async def run(client: openai.AsyncOpenAI) -> Any:
        return [event async for event in await client.responses.create(**{**STREAMED, **more})]

    return run


async def _ain_with(client: openai.AsyncOpenAI) -> Any:
    async with await client.responses.create(**STREAMED) as stream:
        return type(stream), stream.response.status_code, [event async for event in stream]


async def _araw(client: openai.AsyncOpenAI) -> Any:
    return (await client.responses.with_raw_response.create(**ASK)).parse()


async def _astreaming(client: openai.AsyncOpenAI) -> Any:
    async with client.responses.with_streaming_response.create(**ASK) as response:
        return await response.json()


async def _apost_stream(client: openai.AsyncOpenAI) -> Any:
    stream = await client.post(
        PATH,
        body=STREAMED,
        cast_to=ResponseStreamEvent,  # type: ignore[type-var]
        stream=True,
        stream_cls=AsyncStream[ResponseStreamEvent],
    )
    return [event async for event in stream]


async def _acompletions(client: openai.AsyncOpenAI) -> Any:
    return [chunk async for chunk in await client.completions.create(**COMPLETE, stream=True)]


ASYNC: dict[str, Callable[[openai.AsyncOpenAI], Awaitable[Any]]] = {
    **{
        f"create, {name}": (lambda client, more=more: client.responses.create(**{**ASK, **more}))
        for name, more in MORE.items()
    },
    **{f"create(stream=True), {name}": _alist(**more) for name, more in MORE.items()},
    "parse": lambda client: client.responses.parse(**ASK, text_format=Room),
    "the stream helper": _ahelper,
    "a stream in a with": _ain_with,
    "raw": _araw,
    "streaming response": _astreaming,
    "post, a stream": _apost_stream,
    "completions": lambda client: client.completions.create(**COMPLETE),
    "completions, a stream": _acompletions,
}
if hasattr(Responses, "compact"):
    SYNC["compact"] = lambda client: client.responses.compact(**ASK)
    SYNC["compact, raw"] = lambda client: client.responses.with_raw_response.compact(**ASK).parse()
    ASYNC["compact"] = lambda client: client.responses.compact(**ASK)
