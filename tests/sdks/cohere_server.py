"""Answers as Cohere's API gives them, and the ways of asking for them with its SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import cohere

from .server import Answer, Arrived, sse
from .ways import ASYNC, ASYNC_STREAM, CALL, STREAM, Way, asking

BILLED = {"input_tokens": 44, "output_tokens": 5}
TOKENS = {"input_tokens": 99, "output_tokens": 9}
MESSAGES: Any = [{"role": "user", "content": "Say hello to everybody."}]
_V1 = {"api_version": {"version": "1"}, "billed_units": BILLED}


def cohere_api(arrived: Arrived) -> Answer:
    """Answer a request."""
    body, path = arrived.body or {}, arrived.path
    stream = bool(body.get("stream"))
    if path == "/v2/chat":
        return _chat(stream=stream)
    if path in ("/v1/chat", "/v1/generate"):
        return _older(path, stream=stream)
    if path.endswith("/embed"):
        meta = {"billed_units": {"input_tokens": 4, "image_tokens": 0}}
        found = [[0.1]] if path.startswith("/v1") else {"float": [[0.1]]}
        kind = "embeddings_floats" if path.startswith("/v1") else "embeddings_by_type"
        return Answer({"id": "e", "embeddings": found, "texts": ["x"], "response_type": kind, "meta": meta})
    if path.endswith("/rerank"):
        result = {"index": 0, "relevance_score": 0.5}
        return Answer({"id": "r", "results": [result], "meta": {"billed_units": {"search_units": 1}}})
    if path == "/v2/parse":
        return Answer({"id": "p", "pages": [], "meta": {"billed_units": {"pages": 1}}})
    return Answer({"tokens": [1], "token_strings": ["x"], "text": "x", "models": []})


def _chat(*, stream: bool) -> Answer:
    usage = {"billed_units": BILLED, "tokens": TOKENS}
    if not stream:
        message = {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
        return Answer({"id": "m", "finish_reason": "COMPLETE", "message": message, "usage": usage})
    start = {"message": {"content": {"type": "text", "text": ""}}}
    events: list[dict[str, Any]] = [
        {"type": "message-start", "id": "m", "delta": {"message": {"role": "assistant", "content": []}}},
        {"type": "content-start", "index": 0, "delta": start},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello"}}}},
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
    ]
    return Answer(sse(events, done=True))


def _older(path: str, *, stream: bool) -> Answer:
    if path == "/v1/generate" and not stream:
        return Answer({"id": "g", "generations": [{"id": "x", "text": "Hello"}], "meta": _V1})
    whole = {"text": "Hello", "generation_id": "g", "finish_reason": "COMPLETE", "meta": _V1}
    if not stream:
        return Answer(whole)
    events: list[dict[str, Any]] = [
        {"is_finished": False, "event_type": "stream-start", "generation_id": "g"},
        {"is_finished": False, "event_type": "text-generation", "text": "Hello"},
        {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": whole},
    ]
    lines = [json.dumps(event).encode() + b"\n" for event in events]
    return Answer(lines, headers={"content-type": "application/stream+json"})


def v2(url: str, *, is_async: bool = False) -> Any:
    """Return a client of a server, of version 2 of the API."""
    return (cohere.AsyncClientV2 if is_async else cohere.ClientV2)(api_key="test", base_url=url)


def v1(url: str, *, is_async: bool = False) -> Any:
    """Return a client of a server, of version 1 of the API."""
    return (cohere.AsyncClient if is_async else cohere.Client)(api_key="test", base_url=url)


# USD per million tokens: command-a-03-2025 2.50 and 10, command-r-08-2024 0.15 and 0.60, embed-v4.0 0.12;
# rerank-v3.5 $2 for 1 000 searches, parse-v5.0 $1.50 for 1 000 pages.
CHAT = 44 * 2_500 + 5 * 10_000
_GENERATED = 44 * 150 + 5 * 600


def ways() -> Iterator[Way]:
    """Yield every way."""
    chat: dict[str, Any] = {"model": "command-a-03-2025", "messages": MESSAGES, "max_tokens": 20}
    older: dict[str, Any] = {"model": "command-a-03-2025", "message": "Say hello.", "max_tokens": 20}
    prompt: dict[str, Any] = {"model": "command-r-08-2024", "prompt": "Say hello to all.", "max_tokens": 20}
    text: dict[str, Any] = {"model": "embed-v4.0", "texts": ["Hello"], "input_type": "search_query"}
    ranked: dict[str, Any] = {"model": "rerank-v3.5", "query": "x", "documents": ["a", "b"]}
    kinds: dict[str, Any] = {**text, "embedding_types": ["float"]}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    page: dict[str, Any] = {"model": "parse-v5.0", "document": image}
    for column in (CALL, ASYNC):
        yield _way("Chat (v2)", column, v2, "chat", chat, CHAT)
        yield _way("Chat (v1)", column, v1, "chat", older, CHAT)
        yield _way("Generate", column, v1, "generate", prompt, _GENERATED)
        yield _way("Embed (v2)", column, v2, "embed", kinds, 4 * 120)
        yield _way("Embed (v1)", column, v1, "embed", text, 4 * 120)
        yield _way("Rerank (v2)", column, v2, "rerank", ranked, 2_000_000)
        yield _way("Rerank (v1)", column, v1, "rerank", ranked, 2_000_000)
        if hasattr(cohere.ClientV2, "parse"):
            yield _way("Parse", column, v2, "parse", page, 1_500_000)
    for column in (STREAM, ASYNC_STREAM):
        yield _way("Chat (v2)", column, v2, "chat_stream", chat, CHAT)
        yield _way("Chat (v1)", column, v1, "chat_stream", older, CHAT)
        yield _way("Generate", column, v1, "generate_stream", prompt, _GENERATED)


def _way(row: str, column: str, client: Any, method: str, asked: dict[str, Any], billed: int) -> Way:
    def open_client(url: str) -> Any:
        return client(url, is_async=column in (ASYNC, ASYNC_STREAM))

    def ask(sdk: Any) -> Any:
        return attrgetter(method)(sdk)(**asked)

    return Way(row, column, method, asking(column, open_client, ask), billed)
