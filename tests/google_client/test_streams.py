"""Streams: read to the end, left early, cut off, broken by an error, and longer than what is held."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from google.genai import errors, types

from budgetguard.engine.background import background
from budgetguard.errors import BudgetExceededError
from tests.sdks.server import Answer, Arrived, sse

from .clients import client, google_books
from .server import COST, MODEL, TEXT, chunks, content
from .ways import CONTENTS, VERSION, close, close_async

# gemini-2.5-flash: a token of output costs 2 500 Nanos.
WRITTEN = 2_500
# Older clients do not close the session of a stream that is left.
_LEFT_OPEN = (
    ("ignore:.*nclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    if VERSION < (2,)
    else ("error",)
)
CAP = types.GenerateContentConfig(
    max_output_tokens=100, thinking_config=types.ThinkingConfig(thinking_budget=0)
)


class Streaming:
    """A server whose streams go as the test says.

    Args:
        pieces: what it sends.
        cut: after how many of them the connection is cut.
    """

    def __init__(self, pieces: list[bytes], cut: int | None = None) -> None:
        self.pieces = pieces
        self.cut = cut

    def __call__(self, _arrived: Arrived) -> Answer:
        return Answer(self.pieces, cut=self.cut)


def sync_stream(url: str, read: Callable[[Any], None], model: str = MODEL) -> None:
    made = client(url)
    try:
        read(made.models.generate_content_stream(model=model, contents=CONTENTS, config=CAP))
    finally:
        close(made)


def of_texts(*texts: str, **more: Any) -> list[bytes]:
    pieces = [{"candidates": [content(text)], "modelVersion": MODEL} for text in texts]
    return sse([*pieces, *([more] if more else [])])


def projected_input(books: Any) -> int:
    return books.of("Projected")[0].usage.units["input_tokens"] * 300


def test_left_early_books_what_was_seen() -> None:
    """Input as the stream tells it, and of output what was read until then: the model does not think."""
    model = "gemini-2.0-flash"
    with google_books(Streaming(sse(chunks(model)))) as books:

        def read(stream: Any) -> None:
            next(stream)
            next(stream)
            stream.close()

        sync_stream(books.server.url, read, model)
        gc.collect()
        background.finish()
        # 2.0 does not think: 8 tokens at 0.10 and 4 from the cache at 0.025, and "Hello to" at 0.40.
        assert (books.spent, books.held) == (8 * 100 + 4 * 25 + 2 * 400, 0)
        assert books.of("Settled")[0].estimated


def test_one_that_was_never_read_costs_nothing() -> None:
    """The SDK sends when it is read first."""
    with google_books(Streaming(sse(chunks()))) as books:
        sync_stream(books.server.url, lambda _stream: None)
        gc.collect()
        assert (books.sent, books.spent, books.held) == (0, 0, 0)


@pytest.mark.parametrize("cut", [1, 3])
def test_cut_by_the_server(cut: int) -> None:
    with google_books(Streaming(sse(chunks()), cut)) as books:
        with pytest.raises(Exception, match=r"peer closed|incomplete|closed"):
            sync_stream(books.server.url, list)
        assert books.held == 0
        # A model that thinks may have thought up to its cap, which does not show.
        assert books.spent == 8 * 300 + 4 * 30 + 100 * WRITTEN


def test_an_error_in_the_middle() -> None:
    broken = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    pieces = sse([*chunks()[:2], broken])
    # Older clients show it as a piece without contents.
    raised = pytest.raises(errors.APIError) if VERSION >= (2,) else nullcontext()
    with google_books(Streaming(pieces)) as books:
        with raised:
            sync_stream(books.server.url, list)
        assert books.held == 0
        assert books.spent == 8 * 300 + 4 * 30 + 100 * WRITTEN


def test_an_error_instead_of_a_stream() -> None:
    broken = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
    with google_books(lambda _arrived: Answer(broken, status=503)) as books:
        with pytest.raises(errors.APIError):
            sync_stream(books.server.url, list)
        assert (books.spent, books.held) == (0, 0)


def test_no_usage_books_the_projection() -> None:
    with google_books(Streaming(of_texts(*TEXT))) as books:
        sync_stream(books.server.url, list)
        assert books.spent == books.of("Projected")[0].cost * 10**9
        assert books.of("Settled")[0].estimated


def test_growth_beyond_the_hold_is_stopped() -> None:
    words = [f"word{number} " * 40 for number in range(40)]
    with google_books(Streaming(of_texts(*words)), on_stream_exceeded="stop") as books:
        books.limit(400_000)
        seen: list[Any] = []

        def read(stream: Any) -> None:
            for piece in stream:
                seen.append(piece)

        with pytest.raises(BudgetExceededError):
            sync_stream(books.server.url, read)
        assert 0 < len(seen) < len(words)
        assert books.held == 0
        assert books.spent > 300_000


@pytest.mark.filterwarnings(*_LEFT_OPEN)
async def test_async_streams_left_early() -> None:
    with google_books(Streaming(sse(chunks()))) as books:
        made = client(books.server.url)
        stream = await made.aio.models.generate_content_stream(model=MODEL, contents=CONTENTS, config=CAP)
        async for _ in stream:
            break
        await stream.aclose()
        del stream
        for _ in range(500):
            # The SDK's own generators are closed by the loop, one after the other.
            gc.collect()
            await asyncio.to_thread(background.finish)
            if not books.held:
                break
        assert books.held == 0
        assert books.spent == 8 * 300 + 4 * 30 + 100 * WRITTEN
        await close_async(made)


async def test_a_cancelled_call_is_of_unknown_outcome() -> None:
    left = threading.Event()

    with google_books(lambda _arrived: Answer({}, waits=left)) as books:
        made = client(books.server.url)
        task = asyncio.create_task(
            made.aio.models.generate_content(model=MODEL, contents=CONTENTS, config=CAP)
        )
        while not books.sent:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left.set()
        assert books.held == 0
        assert books.spent == books.of("Projected")[0].cost * 10**9
        await close_async(made)


def test_whole_streams_are_exact() -> None:
    with google_books(Streaming(sse(chunks()))) as books:
        sync_stream(books.server.url, list)
        assert (books.spent, books.held) == (COST, 0)
