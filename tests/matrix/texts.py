"""Embeddings and the legacy completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openai.types import Completion, CreateEmbeddingResponse

from tests.adapters import response_books
from tests.adapters.books import billed_nanos
from tests.provider.server import OpenAIServer

from .case import Case
from .ways import Way, calls, faces, post_stream, posts, stream_faces, streams

EMBED: Any = {"model": "text-embedding-3-small", "input": ["some text", "some more text"]}
COMPLETE: Any = {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello to the people"}
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


def _embeddings() -> Iterator[Way]:
    yield from calls("embeddings.create", {"plain": EMBED, "floats": {**EMBED, "encoding_format": "float"}})
    yield from faces("embeddings.create", EMBED)
    yield from posts("/embeddings", {"body": {"body": EMBED}}, (CreateEmbeddingResponse, object))


def _completions() -> Iterator[Way]:
    bodies = {name: {**COMPLETE, **more} for name, more in COMPLETE_MORE.items()}
    yield from calls("completions.create", bodies)
    bodies.pop("the best of three")  # the API streams no choice of the best
    yield from streams("completions.create", bodies)
    yield from faces("completions.create", COMPLETE)
    yield from stream_faces("completions.create", COMPLETE)
    yield from posts("/completions", {"body": {"body": COMPLETE}}, (Completion, object))
    yield post_stream("/completions", COMPLETE, Completion)


CASES = (
    Case(("embeddings",), "Embeddings", OpenAIServer, billed_nanos, tuple(_embeddings())),
    Case(
        ("completions",),
        "Completions (legacy)",
        OpenAIServer,
        response_books.billed_nanos,
        tuple(_completions()),
    ),
)
