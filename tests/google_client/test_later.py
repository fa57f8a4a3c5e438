"""Answers that come later: held until somebody asks for them, in whichever process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.genai import types

from budgetguard.config import Settings
from budgetguard.core.accounts import Budget
from budgetguard.core.usage import Usage
from budgetguard.engine.engine import Engine
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetExceededError, ConfigurationError, UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.sdks import patch, unpatch
from tests.sdks.books import USER
from tests.sdks.server import CountingServer

from .clients import client, google_books
from .server import MODEL, Gemini, whole
from .ways import CONTENTS, close

# Half of 8 tokens at 0.30 and of 35 at 2.50; what is read from a cache is not cheaper in a batch.
HALF = 8 * 150 + 4 * 30 + 35 * 1_250
SECOND = 400_000_000


def inlined(*answers: dict[str, Any]) -> dict[str, Any]:
    output = {"inlinedResponses": {"inlinedResponses": list(answers)}}
    return {"state": "BATCH_STATE_SUCCEEDED", "output": output}


def create(made: Any, number: int = 2) -> Any:
    config = types.GenerateContentConfig(max_output_tokens=100)
    source: Any = [types.InlinedRequest(contents=CONTENTS, config=config) for _ in range(number)]
    return made.batches.create(model=MODEL, src=source)


def test_a_batch_is_booked_when_its_answers_are_asked_for() -> None:
    server = Gemini()
    with google_books(server) as books:
        made = client(books.server.url)
        batch = create(made)
        projected = books.held
        assert projected > 0
        made.batches.get(name=batch.name)
        assert (books.spent, books.held) == (0, projected)
        server.batch = inlined({"response": whole()}, {"response": whole()})
        made.batches.get(name=batch.name)
        assert (books.spent, books.held) == (2 * HALF, 0)
        assert not books.of("Settled")[0].estimated
        made.batches.get(name=batch.name)
        assert books.spent == 2 * HALF
        close(made)


def test_requests_that_failed_are_not_billed() -> None:
    server = Gemini()
    with google_books(server) as books:
        made = client(books.server.url)
        batch = create(made)
        server.batch = inlined({"response": whole()}, {"error": {"code": 3, "message": "bad"}})
        made.batches.get(name=batch.name)
        assert (books.spent, books.held) == (HALF, 0)
        close(made)


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED"])
def test_a_batch_that_came_to_nothing_costs_nothing(state: str) -> None:
    server = Gemini(batch={"state": f"BATCH_STATE_{state}"})
    with google_books(server) as books:
        made = client(books.server.url)
        made.batches.get(name=create(made).name)
        assert (books.spent, books.held) == (0, 0)
        close(made)


def test_each_answer_is_priced_for_itself() -> None:
    """Over 200 000 tokens of input cost more: two answers of 150 000 are not one of 300 000."""
    model = "gemini-2.5-pro"
    usage = {"promptTokenCount": 150_000, "candidatesTokenCount": 10, "totalTokenCount": 150_010}
    answer = {"response": {**whole(model), "usageMetadata": usage}}
    server = Gemini(batch=inlined(answer, answer))
    with google_books(server) as books:
        made = client(books.server.url)
        source: Any = [types.InlinedRequest(contents=CONTENTS)] * 2
        made.batches.get(name=made.batches.create(model=model, src=source).name)
        assert books.spent == 2 * (150_000 * 625 + 10 * 5_000)
        close(made)


def lines(*requests: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps({"key": f"k{n}", "request": one}).encode() for n, one in enumerate(requests))


def test_a_batch_in_a_file_is_projected_from_it() -> None:
    request = {"contents": [{"parts": [{"text": CONTENTS}]}], "generationConfig": {"maxOutputTokens": 100}}
    server = Gemini(file=lines(request, request, request))
    with google_books(server) as books:
        made = client(books.server.url)
        batch = made.batches.create(model=MODEL, src="files/f1")
        projected = books.held
        assert books.server.requests[0].path.endswith("files/f1:download")
        stats = {"requestCount": "3", "successfulRequestCount": "2"}
        server.batch = {
            "state": "BATCH_STATE_SUCCEEDED",
            "output": {"responsesFile": "files/r"},
            "batchStats": stats,
        }
        made.batches.get(name=batch.name)
        # Its answers are in a file, so what succeeded is booked as projected.
        assert (books.spent, books.held) == (-(-projected * 2 // 3), 0)
        assert books.of("Settled")[0].estimated
        close(made)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"", "has no requests"),
        (b"nonsense", "line 1"),
        (lines({"contents": []}), "line 1"),
        (b"{}", "line 1"),
    ],
)
def test_a_bad_file_is_refused(file: bytes, says: str) -> None:
    with google_books(Gemini(file=file)) as books:
        made = client(books.server.url)
        with pytest.raises(ConfigurationError, match=says):
            made.batches.create(model=MODEL, src="files/f1")
        assert [one.method for one in books.server.requests] == ["GET"]
        assert (books.spent, books.held) == (0, 0)
        close(made)


def test_a_batch_is_settled_by_another_process(tmp_path: Path) -> None:
    """Another engine on the same store, which has never seen the call."""
    store, server = f"disk://{tmp_path}", Gemini()

    def with_engine(do: Any) -> Any:
        engine = Engine(Settings(store=store))
        engine.store.set_budget(f"user:{USER}", Budget(limit=10**10))
        patch(engine, "google")
        try:
            with budget_user(USER):
                made = client(counting.url)
                found = do(made)
                close(made)
                balance = engine.store.read(f"user:{USER}")
                assert balance is not None
                return found, balance.spent_nanos, balance.held_nanos
        finally:
            unpatch("google")
            engine.close()

    with CountingServer(server) as counting:
        batch, spent, held = with_engine(create)
        assert spent == 0
        assert held > 0
        server.batch = inlined({"response": whole()}, {"response": whole()})
        _, spent, held = with_engine(lambda made: made.batches.get(name=batch.name))
        assert (spent, held) == (2 * HALF, 0)


def make_video(made: Any, **config: Any) -> Any:
    return made.models.generate_videos(
        model="veo-3.1-generate-001", prompt="a cat", config=types.GenerateVideosConfig(**config)
    )


@pytest.mark.parametrize(("made_of", "part"), [((2, 0), 2), ((1, 1), 1), ((0, 2), 0)])
def test_a_video_is_booked_by_the_second_when_it_is_made(made_of: tuple[int, int], part: int) -> None:
    server = Gemini()
    with google_books(server) as books:
        made = client(books.server.url, vertex=True)
        operation = make_video(made, duration_seconds=6, number_of_videos=2)
        assert books.held == 2 * 6 * SECOND
        operation = made.operations.get(operation)
        assert (books.spent, books.held) == (0, 2 * 6 * SECOND)
        videos = [{"gcsUri": "gs://b/1.mp4", "mimeType": "video/mp4"}] * made_of[0]
        server.operation = {"done": True, "response": {"videos": videos, "raiMediaFilteredCount": made_of[1]}}
        made.operations.get(operation)
        assert (books.spent, books.held) == (part * 6 * SECOND, 0)
        close(made)


def test_a_video_that_failed_costs_nothing() -> None:
    server = Gemini(operation={"done": True, "error": {"code": 3, "message": "no"}})
    with google_books(server) as books:
        made = client(books.server.url, vertex=True)
        made.operations.get(make_video(made))
        assert (books.spent, books.held) == (0, 0)
        close(made)


def test_videos_cost_by_resolution() -> None:
    with google_books() as books:
        made = client(books.server.url, vertex=True)
        make_video(made, duration_seconds=4, resolution="4k")
        assert books.held == 4 * 600_000_000
        with pytest.raises(ConfigurationError, match="resolution must be one of"):
            make_video(made, resolution="8k")
        assert books.sent == 1
        close(made)


def keep(made: Any, model: str = MODEL, **config: Any) -> Any:
    asked = types.CreateCachedContentConfig(contents=["word " * 5_000], **config)
    return made.caches.create(model=model, config=asked)


def test_what_is_kept_is_read_at_the_cached_price() -> None:
    with google_books() as books:
        made = client(books.server.url)
        kept = keep(made, ttl="7200s")
        assert books.spent == 5_000 * 300 + 10_000 * 1_000
        config = types.GenerateContentConfig(cached_content=kept.name, max_output_tokens=10)
        made.models.generate_content(model=MODEL, contents="What?", config=config)
        usage = books.of("Projected")[-1].usage.units
        assert usage["cache_read_tokens"] == 5_000
        assert 5_000 < usage["input_tokens"] < 5_100
        assert len(books.server.requests) == 2
        close(made)


def test_what_others_have_kept_is_asked_for() -> None:
    server = Gemini(kept=123_456)
    with google_books(server) as books:
        made = client(books.server.url)
        config = types.GenerateContentConfig(cached_content="cachedContents/of-another", max_output_tokens=10)
        made.models.generate_content(model=MODEL, contents="What?", config=config)
        assert [one.method for one in books.server.requests] == ["GET", "POST"]
        assert books.of("Projected")[0].usage.units["cache_read_tokens"] == 123_456
        close(made)


def test_storage_is_never_free() -> None:
    """Of a model of which nobody knows what storage costs, nothing is kept."""
    with google_books() as books:
        made = client(books.server.url)
        with pytest.raises(UnknownModelError, match="cache_token_hours"):
            keep(made, "gemini-4-argon")
        assert books.sent == 0
        engine: Any = books.engine
        engine.prices.register("gemini-4-argon", cache_mtok_hours=2)
        keep(made, "gemini-4-argon")
        assert books.spent > 0
        close(made)


def test_a_longer_life_costs_what_it_adds() -> None:
    with google_books() as books:
        made = client(books.server.url)
        sooner = types.UpdateCachedContentConfig(expire_time="2030-01-01T01:00:00Z")
        made.caches.update(name="cachedContents/c1", config=sooner)
        assert (books.spent, books.held) == (0, 0)
        later = types.UpdateCachedContentConfig(expire_time="2030-01-01T12:00:00Z")
        made.caches.update(name="cachedContents/c1", config=later)
        assert (books.spent, books.held) == (10 * 5_000 * 1_000, 0)
        books.limit(books.spent + 1)
        longer = types.UpdateCachedContentConfig(expire_time="2030-02-01T12:00:00Z")
        with pytest.raises(BudgetExceededError):
            made.caches.update(name="cachedContents/c1", config=longer)
        close(made)


def test_uploaded_files_are_asked_for_once() -> None:
    with google_books() as books:
        made = client(books.server.url)
        part = types.Part.from_uri(
            file_uri="https://generativelanguage.googleapis.com/v1beta/files/f7", mime_type="audio/wav"
        )
        config = types.GenerateContentConfig(max_output_tokens=10)
        for _ in range(2):
            made.models.generate_content(model=MODEL, contents=[part, "What?"], config=config)
        assert [one.method for one in books.server.requests] == ["GET", "POST", "POST"]
        usage: Usage = books.of("Projected")[0].usage
        # 32 044 bytes are at most 43 seconds of speech, at 32 tokens each.
        assert usage.units["input_audio_tokens"] == 43 * 32
        close(made)


def test_the_batch_price_is_the_lists() -> None:
    rates = PriceBook().rates(MODEL, provider="google", tier="batch")
    assert rates.cost(Usage.of(input_tokens=8, output_tokens=35)) == 8 * 150 + 35 * 1_250
