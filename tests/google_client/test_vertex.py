"""Vertex: its paths, its endpoints, other makers' models through it, and its headers."""

from __future__ import annotations

from typing import Any

import pytest
from google.genai import types

from budgetguard.errors import UnknownEndpointError, UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.google.endpoints import TABLE, TABLE_VERTEX
from budgetguard.providers.google.paths import model_in
from tests.sdks.server import Answer

from .clients import client, google_books
from .server import COST, MODEL, Gemini, whole
from .ways import CONTENTS, close

HOST = "https://us-central1-aiplatform.googleapis.com"
BELOW = "/v1beta1/projects/p/locations/us-central1"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (f"{BELOW}/publishers/google/models/{MODEL}:generateContent", MODEL),
        (f"{BELOW}/publishers/google/models/{MODEL}:streamGenerateContent?alt=sse", MODEL),
        (f"/v1/publishers/google/models/{MODEL}:generateContent", MODEL),
        (f"{BELOW}/publishers/meta/models/llama-4:generateContent", "llama-4"),
        (f"{BELOW}/endpoints/123456:generateContent", "endpoints/123456"),
        (f"{BELOW}/../us-central1/publishers/google/models/{MODEL}:generateContent", MODEL),
    ],
)
def test_paths(path: str, model: str) -> None:
    row = TABLE_VERTEX.endpoint_of("post", HOST + path, base_url=HOST)
    assert row is not None
    assert row.name == "generate"
    assert model_in(TABLE_VERTEX.path_of(path, HOST)) == model


@pytest.mark.parametrize("table", [TABLE, TABLE_VERTEX])
@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/x:madeUpTomorrow",
        "/v1beta/models/x:generateContentTomorrow",
        "/v1beta/madeUp",
        "/v1beta/tuningJobs",
        "/v1beta/tuningJobs:validateReinforcementTuningReward",
        "/v1beta/agents",
        "/v1beta/environments",
        "/v1beta/fileSearchStores/s1:importFile",
        "/v1beta/auth_tokens",
        f"{BELOW}/batchPredictionJobs",
        f"{BELOW}/reasoningEngines/1:query",
    ],
)
def test_what_is_unknown_is_refused_by_name(table: Any, path: str) -> None:
    with pytest.raises(UnknownEndpointError, match="was not sent"):
        table.endpoint_of("POST", path, base_url=HOST)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1beta/models"),
        ("POST", "/v1beta/models/gemini-2.5-flash:countTokens"),
        ("POST", "/upload/v1beta/files"),
        ("PATCH", "/v1beta/models/m1"),
        ("POST", "/v1beta/batches/b1:cancel"),
        ("DELETE", "/v1beta/cachedContents/c1"),
        ("POST", f"{BELOW}/publishers/google/models/veo-3.1-generate-001:fetchPredictOperation"),
        ("POST", f"{BELOW}/publishers/google/models/gemini-2.5-flash:computeTokens"),
    ],
)
def test_what_is_free(method: str, path: str) -> None:
    assert TABLE_VERTEX.endpoint_of(method, path, base_url=HOST) is None


def test_the_path_that_is_sent() -> None:
    with google_books() as books:
        made = client(books.server.url, vertex=True)
        made.models.generate_content(model=MODEL, contents=CONTENTS)
        (arrived,) = books.server.requests
        assert arrived.path == f"{BELOW}/publishers/google/models/{MODEL}:generateContent"
        assert (books.spent, books.held) == (COST, 0)
        close(made)


def test_a_tuned_model_is_what_the_user_says_it_is() -> None:
    name = "projects/p/locations/us-central1/endpoints/123456"
    with google_books() as books:
        made = client(books.server.url, vertex=True)
        with pytest.raises(UnknownModelError, match="endpoints/123456"):
            made.models.generate_content(model=name, contents=CONTENTS)
        assert books.sent == 0
        close(made)
    with google_books(lambda _: Answer(whole()), model_map={"endpoints/123456": MODEL}) as books:
        made = client(books.server.url, vertex=True)
        made.models.generate_content(model=name, contents=CONTENTS)
        assert (books.sent, books.spent) == (1, COST)
        close(made)


def test_another_makers_model_costs_what_it_costs_there() -> None:
    model = "claude-haiku-4-5"
    usage = {"promptTokenCount": 1_000, "candidatesTokenCount": 10, "totalTokenCount": 1_010}
    with google_books(lambda _: Answer(whole(model, usageMetadata=usage))) as books:
        made = client(books.server.url, vertex=True)
        made.models.generate_content(model=f"publishers/anthropic/models/{model}", contents=CONTENTS)
        assert books.spent == 1_000 * 1_000 + 10 * 5_000
        close(made)


def test_the_tier_that_a_header_asks_for() -> None:
    headers = {"X-Vertex-AI-LLM-Shared-Request-Type": "priority"}
    with google_books() as books:
        made = client(books.server.url, vertex=True, headers=headers)
        config = types.GenerateContentConfig(max_output_tokens=10)
        made.models.generate_content(model=MODEL, contents=CONTENTS, config=config)
        standard = PriceBook().rates(MODEL, provider="google")
        dear = standard.with_tier("priority")
        (projected,) = books.of("Projected")
        most = max(standard.cost(projected.usage), dear.cost(projected.usage))
        assert projected.cost * 10**9 == most
        close(made)


def test_a_stable_versions_name() -> None:
    book = PriceBook()
    for name in ("gemini-2.0-flash-001", "gemini-2.5-flash-001", "gemini-2.5-flash-lite-001"):
        of_now = book.rates(name.removesuffix("-001"), provider="google")
        assert book.rates(name, provider="google")._tables == of_now._tables


def test_batches_in_cloud_storage_are_refused() -> None:
    with google_books(Gemini()) as books:
        made = client(books.server.url, vertex=True)
        with pytest.raises(UnknownEndpointError, match="Cloud Storage or BigQuery"):
            made.batches.create(model=MODEL, src="gs://bucket/requests.jsonl")
        assert books.sent == 0
        close(made)
