"""Answers as Mistral's API gives them, and the ways of asking for them with its SDK."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from mistralai.client import Mistral

from .server import Answer, Arrived, sse
from .sound import SECONDS, recording
from .ways import ASYNC, ASYNC_STREAM, CALL, STREAM, Way, asking

USAGE = {"prompt_tokens": 44, "completion_tokens": 5, "total_tokens": 49}
MESSAGES: Any = [{"role": "user", "content": "Say hello to everybody."}]
TEXT = ("Hel", "lo")


def mistral(arrived: Arrived) -> Answer:
    """Answer a request."""
    body, path = arrived.body or {}, arrived.path
    head = {"id": "cmpl-1", "object": "chat.completion", "created": 1, "model": body.get("model")}
    if path.endswith("/completions"):
        return _chat(head, stream=bool(body.get("stream")))
    if path == "/v1/embeddings":
        vector = {"object": "embedding", "index": 0, "embedding": [0.1]}
        return Answer(
            {**head, "object": "list", "data": [vector], "usage": {"prompt_tokens": 44, "total_tokens": 44}}
        )
    if path == "/v1/ocr":
        size = {"dpi": 200, "height": 10, "width": 10}
        page = {"index": 0, "markdown": "Hello", "images": [], "dimensions": size}
        return Answer({"pages": [page], "model": body["model"], "usage_info": {"pages_processed": 2}})
    if path == "/v1/audio/transcriptions":
        usage = {**USAGE, "prompt_audio_seconds": SECONDS}
        said = {"model": "voxtral-mini-latest", "text": "Hello", "language": "en", "segments": []}
        if b'name="stream"\r\n\r\ntrue' in arrived.raw:
            events = [
                {"type": "transcription.text.delta", "text": "Hello"},
                {"type": "transcription.done", **said, "usage": usage},
            ]
            pieces = [
                b"event: %s\n%s" % (event["type"].encode(), piece)
                for event, piece in zip(events, sse(events), strict=True)
            ]
            return Answer(pieces)
        return Answer({**said, "usage": usage})
    return Answer({"object": "list", "data": []})


def _chat(head: dict[str, Any], *, stream: bool) -> Answer:
    if not stream:
        message = {"role": "assistant", "content": "".join(TEXT)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Answer({**head, "choices": [choice], "usage": USAGE})
    head = {**head, "object": "chat.completion.chunk"}
    chunks = [
        {
            **head,
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": one}, "finish_reason": None}],
        }
        for one in TEXT
    ]
    last = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}
    return Answer(sse([*chunks, {**head, "choices": [last], "usage": USAGE}], done=True))


def client(url: str) -> Mistral:
    """Return a client of a server."""
    return Mistral(api_key="test", server_url=url)


# USD per million tokens: mistral-small-latest 0.15 and 0.60, codestral-latest 0.30 and 0.90, mistral-embed
# 0.10; mistral-ocr-2512 $2 for 1 000 pages, voxtral-mini-latest $0.18 an hour.
_CHAT = 44 * 150 + 5 * 600
_FIM = 44 * 300 + 5 * 900
_HEARD = SECONDS * 50_000


def ways() -> Iterator[Way]:
    """Yield every way."""
    chat: dict[str, Any] = {"model": "mistral-small-latest", "messages": MESSAGES, "max_tokens": 20}
    fim: dict[str, Any] = {
        "model": "codestral-latest",
        "prompt": "def f",
        "suffix": "return",
        "max_tokens": 9,
    }
    embed: dict[str, Any] = {"model": "mistral-embed", "inputs": ["Hello"] * 20}
    page = {"type": "document_url", "document_url": "https://example.com/a.pdf"}
    ocr: dict[str, Any] = {"model": "mistral-ocr-2512", "document": page, "pages": [0, 1]}
    heard: dict[str, Any] = {
        "model": "voxtral-mini-latest",
        "file": {"file_name": "a.wav", "content": recording()},
    }
    for column, verb, made, processed in (
        (CALL, "complete", "create", "process"),
        (ASYNC, "complete_async", "create_async", "process_async"),
        (STREAM, "stream", "", ""),
        (ASYNC_STREAM, "stream_async", "", ""),
    ):
        yield _way("Chat", column, f"chat.{verb}", chat, _CHAT)
        yield _way("Fill in the middle", column, f"fim.{verb}", fim, _FIM)
        yield _way("Transcriptions", column, f"audio.transcriptions.{verb}", heard, _HEARD)
        if made:
            yield _way("Embeddings", column, f"embeddings.{made}", embed, 44 * 100)
            yield _way("OCR", column, f"ocr.{processed}", ocr, 2 * 2_000_000)


def _way(row: str, column: str, method: str, asked: dict[str, Any], billed: int) -> Way:
    def ask(sdk: Any) -> Any:
        return attrgetter(method)(sdk)(**asked)

    return Way(row, column, method, asking(column, client, ask), billed)
