"""The JSON that OpenAI's API sends: answers, server-sent events, errors."""

from __future__ import annotations

import array
import base64
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from budgetguard.testing.openai_server import CREATED
from tests.provider import responses
from tests.provider.reply import CHAT, COMPACT, COMPLETIONS, RESPONSES, Draft, Reply
from tests.provider.sse import Event, call_id, sse

_CODES: Mapping[int, tuple[str | None, str, str]] = {
    400: ("invalid_request", "invalid_request_error", "The request is not valid."),
    401: ("invalid_api_key", "invalid_request_error", "Incorrect API key provided."),
    403: ("unsupported_country_region_territory", "request_forbidden", "Not supported here."),
    404: (
        "model_not_found",
        "invalid_request_error",
        "The model does not exist or you have no access to it.",
    ),
    429: ("rate_limit_exceeded", "requests", "Rate limit reached. Please try again later."),
    500: (None, "server_error", "The server had an error while processing your request. Sorry about that!"),
    503: (None, "service_unavailable", "The engine is currently overloaded, please try again later."),
}
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_DIMENSIONS = {"text-embedding-3-large": 3072}


def error_body(
    status: int, message: str | None = None, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    usual_code, kind, usual_message = _CODES.get(
        status, _CODES[500] if status >= 500 else (None, "invalid_request_error", "The request failed.")
    )
    if code == "insufficient_quota":
        kind, usual_message = (
            code,
            "You exceeded your current quota, please check your plan and billing details.",
        )
    return {
        "error": {
            "message": message or usual_message,
            "type": kind,
            "param": param,
            "code": code or usual_code,
        }
    }


def answer(draft: Draft) -> dict[str, Any]:
    """Return the body of an answer that is not streamed."""
    if draft.path == COMPACT:
        return responses.compaction(draft)
    if draft.path == RESPONSES:
        return responses.response(draft, done=not draft.background)
    chat = draft.path == CHAT
    head = {**_head(draft), "object": "chat.completion"} if chat else _head(draft)
    usage = {} if draft.omit_usage else {"usage": draft.usage()}
    return {**head, "choices": [_choice(draft, index) for index in range(draft.choices)], **usage}


def _choice(draft: Draft, index: int) -> dict[str, Any]:
    outcome = {"index": index, "logprobs": None, "finish_reason": draft.finish}
    if draft.path == COMPLETIONS:
        return {**outcome, "text": draft.text}
    message: dict[str, Any] = {"role": "assistant", "content": draft.text, "refusal": None, "annotations": []}
    if draft.tool_calls:
        message["tool_calls"] = [
            {
                "id": call_id(draft, index, slot),
                "type": "function",
                "function": {"name": name, "arguments": text},
            }
            for slot, (name, text) in enumerate(draft.tool_calls)
        ]
    return {**outcome, "message": message}


def events(draft: Draft, body: Mapping[str, Any]) -> Iterator[Event]:
    """Yield the events of a streamed answer, in the order of the wire."""
    if draft.path == RESPONSES:
        return responses.events(draft)
    return _chunk_events(draft, asked=bool((body.get("stream_options") or {}).get("include_usage")))


def _chunk_events(draft: Draft, *, asked: bool) -> Iterator[Event]:
    chat = draft.path == CHAT
    head = _head(draft)
    if chat:
        head["object"] = "chat.completion.chunk"
    # The API writes the key into every chunk as soon as the usage was asked for.
    if asked and not draft.omit_usage:
        head["usage"] = None

    def chunk(
        index: int, value: dict[str, Any], *, finish: str | None = None, content: bool = False
    ) -> Event:
        outcome = {"index": index, "logprobs": None, "finish_reason": finish}
        choice = {**outcome, "delta": value} if chat else {**outcome, "text": value.get("content", "")}
        return sse({**head, "choices": [choice]}, choice=index if content else None)

    if chat:
        for index in range(draft.choices):
            first = {"content": None} if draft.tool_calls else {"content": "", "refusal": None}
            yield chunk(index, {"role": "assistant", **first})
    opened: set[int] = set()
    for slot, piece in draft.pieces:
        for index in range(draft.choices):
            value = {"content": piece}
            if slot is not None:
                value = _tool_delta(draft, index, slot, piece, first=slot not in opened)
            yield chunk(index, value, content=True)
        if slot is not None:
            opened.add(slot)
    for index in range(draft.choices):
        yield chunk(index, {}, finish=draft.finish)
    if asked and not draft.omit_usage:
        yield sse({**head, "choices": [], "usage": draft.usage()})
    yield Event(b"data: [DONE]\n\n")


def _tool_delta(draft: Draft, index: int, slot: int, piece: str, *, first: bool) -> dict[str, Any]:
    call: dict[str, Any] = {"index": slot, "function": {"arguments": piece}}
    if first:
        call = {"index": slot, "id": call_id(draft, index, slot), "type": "function"}
        call["function"] = {"name": draft.tool_calls[slot][0], "arguments": piece}
    return {"tool_calls": [call]}


def embeddings(draft: Draft, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return one unit vector per input: the same input has the same vector, others differ."""
    given = body["input"]
    inputs = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    size = int(body.get("dimensions") or _DIMENSIONS.get(str(body["model"]), 1536))
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _pack(vector) if packed else vector.tolist()}
        for index, vector in enumerate(_vector(one, size) for one in inputs)
    ]
    usage = {} if draft.omit_usage else {"usage": draft.usage()}
    return {"object": "list", "data": data, "model": draft.model, **usage}


def _vector(given: Any, size: int) -> array.array[float]:
    numbers = array.array("h", hashlib.shake_256(json.dumps(given).encode()).digest(2 * size))
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return array.array("f", (number / length for number in numbers))


def _pack(vector: array.array[float]) -> str:
    if sys.byteorder == "big":
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode("ascii")


def moderations(draft: Draft, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict per input that flags nothing."""
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    verdict = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.000001),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    return {"id": f"modr-{draft.number:06d}", "model": draft.model, "results": [verdict for _ in inputs]}


def model_card(name: str) -> dict[str, Any]:
    """Return a model as `/v1/models` lists it."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "openai"}


def error_headers(reply: Reply) -> dict[str, str]:
    """Return when a client may try again, in both of the headers that clients read."""
    if reply.retry_after is None:
        return {}
    return {
        "retry-after-ms": str(round(reply.retry_after * 1000)),
        "retry-after": str(-int(-reply.retry_after // 1)),
    }


def _head(draft: Draft) -> dict[str, Any]:
    if draft.path == COMPLETIONS:
        name, kind = f"cmpl-{draft.number:06d}", "text_completion"
        return {"id": name, "object": kind, "created": CREATED, "model": draft.model}
    return {
        "id": f"chatcmpl-{draft.number:06d}",
        "created": CREATED,
        "model": draft.model,
        "service_tier": draft.tier,
        "system_fingerprint": "fp_budgetguard",
    }


def page(data: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a list as the API pages it; it is never longer than a page."""
    ids = [str(one["id"]) for one in data]
    ends = {"first_id": ids[0], "last_id": ids[-1]} if ids else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": False}
