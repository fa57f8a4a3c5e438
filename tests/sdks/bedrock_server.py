"""Bedrock's runtime as far as the tests ask it, in AWS's own stream of events."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from .server import Answer, Arrived

USAGE = {"inputTokens": 20, "outputTokens": 5, "totalTokens": 25}
CACHED = {
    "inputTokens": 20,
    "outputTokens": 5,
    "cacheReadInputTokens": 100,
    "cacheWriteInputTokens": 200,
    "totalTokens": 325,
}
CLAUDE_USAGE = {"input_tokens": 20, "output_tokens": 5, "cache_read_input_tokens": 100}
TEXT = ("Hello", " to", " everybody", ".")


def event(payload: Mapping[str, Any], kind: str) -> bytes:
    """Return a message of AWS's event stream: its lengths, headers and payload, each with a checksum."""
    head = b""
    for name, value in (
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ):
        head += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(head) + len(body), len(head))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    message = prelude + head + body
    return message + struct.pack(">I", zlib.crc32(message))


def converse_events(usage: Mapping[str, Any]) -> list[bytes]:
    texts = [event({"contentBlockIndex": 0, "delta": {"text": one}}, "contentBlockDelta") for one in TEXT]
    return [
        event({"role": "assistant"}, "messageStart"),
        *texts,
        event({"contentBlockIndex": 0}, "contentBlockStop"),
        event({"stopReason": "end_turn"}, "messageStop"),
        event({"usage": usage, "metrics": {"latencyMs": 5}}, "metadata"),
    ]


def chunk(payload: Mapping[str, Any]) -> bytes:
    return event({"bytes": base64.b64encode(json.dumps(payload).encode()).decode()}, "chunk")


def claude_events() -> list[bytes]:
    message = {"type": "message", "role": "assistant", "model": "claude", "id": "m", "content": []}
    return [
        chunk(
            {"type": "message_start", "message": {**message, "usage": {**CLAUDE_USAGE, "output_tokens": 1}}}
        ),
        chunk({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": one}})
            for one in TEXT
        ),
        chunk({"type": "content_block_stop", "index": 0}),
        chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}),
        chunk(
            {
                "type": "message_stop",
                "amazon-bedrock-invocationMetrics": {"inputTokenCount": 20, "outputTokenCount": 5},
            }
        ),
    ]


def llama_events() -> list[bytes]:
    metrics = {"inputTokenCount": 20, "outputTokenCount": 5}
    pieces = [chunk({"generation": one}) for one in TEXT[:-1]]
    return [*pieces, chunk({"generation": TEXT[-1], "amazon-bedrock-invocationMetrics": metrics})]


STREAM = {"content-type": "application/vnd.amazon.eventstream"}


def bedrock(arrived: Arrived) -> Answer:
    """Answer as Bedrock's runtime does, by path."""
    text = "".join(TEXT)
    model, _, verb = arrived.path.removeprefix("/model/").partition("/")
    counts = {"x-amzn-bedrock-input-token-count": "20", "x-amzn-bedrock-output-token-count": "5"}
    usage = CACHED if "anthropic" in model else USAGE
    if verb == "converse":
        message = {"role": "assistant", "content": [{"text": text}]}
        return Answer(
            {
                "output": {"message": message},
                "stopReason": "end_turn",
                "usage": usage,
                "metrics": {"latencyMs": 1},
            }
        )
    if verb == "converse-stream":
        return Answer(converse_events(usage), headers=STREAM)
    if verb == "invoke":
        if "anthropic" in model:
            content = [{"type": "text", "text": text}]
            body = {
                "type": "message",
                "role": "assistant",
                "content": content,
                "usage": CLAUDE_USAGE,
                "id": "m",
            }
        else:
            body = {"generation": text, "prompt_token_count": 20, "generation_token_count": 5}
        return Answer(body, headers=counts)
    if verb == "invoke-with-response-stream":
        return Answer(claude_events() if "anthropic" in model else llama_events(), headers=STREAM)
    return Answer({})
