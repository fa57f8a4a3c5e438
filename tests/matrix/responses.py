"""The Responses API, at once and in the background, and compaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from openai import NOT_GIVEN
from openai.types.responses import Response, ResponseStreamEvent

from tests.adapters.response_books import ASK, billed_nanos
from tests.provider.server import OpenAIServer, Reply

from .case import Case
from .chat import OMIT, Room
from .ways import (
    HELPER,
    PARSE,
    POLLED,
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

CREATE = "responses.create"
BETA = "beta.responses.create"
COMPACT = "responses.compact"

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
    "not given": {"temperature": NOT_GIVEN, "max_output_tokens": OMIT, "tools": OMIT},
    "extra body": {"extra_body": {"max_output_tokens": 5}},
    "continued": {"previous_response_id": "resp_0"},
    "a conversation": {"conversation": "conv_0"},
    "a tier": {"service_tier": "flex"},
}
BODIES = {name: {**ASK, **more} for name, more in MORE.items()}


async def _parse(client: Any) -> Any:
    return await done(client.responses.parse(**ASK, text_format=Room))


async def _parse_raw(client: Any) -> Any:
    return (await done(client.responses.with_raw_response.parse(**ASK, text_format=Room))).parse()


async def _helper(client: Any) -> Any:
    async with within(client.responses.stream(**ASK)) as stream:
        seen = [event.type for event in await every(stream)]
        return seen, await done(stream.get_final_response())


async def _helper_until_done(client: Any) -> Any:
    async with within(client.responses.stream(**ASK, text_format=Room)) as stream:
        await done(stream.until_done())
        return (await done(stream.get_final_response())).output_parsed


async def _polled(client: Any) -> Any:
    seen = [await done(client.responses.create(**ASK, background=True))]
    while seen[-1].status in ("queued", "in_progress"):
        seen.append(await done(client.responses.retrieve(seen[0].id)))
    return seen


async def _begun_as_a_stream(client: Any) -> Any:
    return await every(await done(client.responses.create(**ASK, background=True, stream=True)))


def _ways() -> Iterator[Way]:
    yield from calls(CREATE, BODIES)
    yield from streams(CREATE, BODIES)
    yield from faces(CREATE, ASK)
    yield from stream_faces(CREATE, ASK)
    yield from calls(BETA, {"beta": ASK})
    yield from streams(BETA, {"beta": ASK})
    yield from (replace(way, name="beta") for way in faces(BETA, ASK) if way.name == "parsed")
    yield Way(PARSE, "responses.parse", "plain", _parse)
    yield Way(PARSE, "responses.parse", "raw", _parse_raw)
    yield Way(HELPER, "responses.stream", "plain", _helper)
    yield Way(HELPER, "responses.stream", "parsing, until done", _helper_until_done)
    yield from posts("/responses", {"body": {"body": ASK}}, (Response, object))
    yield post_stream("/responses", ASK, ResponseStreamEvent)
    yield Way(POLLED, CREATE, "in the background", _polled)
    yield Way(POLLED, CREATE, "in the background, as a stream", _begun_as_a_stream)


def _compact() -> Iterator[Way]:
    yield from calls(COMPACT, {"plain": ASK})
    yield from faces(COMPACT, ASK)
    yield from calls("beta.responses.compact", {"beta": ASK})
    beta = faces("beta.responses.compact", ASK)
    yield from (replace(way, name="beta") for way in beta if way.name == "parsed")
    yield from posts("/responses/compact", {"body": {"body": ASK}}, (object,))


def _serve() -> OpenAIServer:
    return OpenAIServer(Reply(polls=1))


CASES = (
    Case(("responses",), "Responses", _serve, billed_nanos, tuple(_ways())),
    Case(("compact",), "Responses, compact", _serve, billed_nanos, tuple(_compact())),
)
