"""Answers as providers give them, and what they cost, computed by hand from the providers' price pages.

Each row says its sum in millionths of a USD: tokens times USD per million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from budgetguard.core.money import to_nanos
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.answer_shapes import read_whole

AT = datetime(2026, 10, 19, 2, 30, tzinfo=UTC)
"""Within the hours at which DeepSeek charges its full price."""


@dataclass(frozen=True, slots=True)
class Row:
    """One answer and its cost.

    Attributes:
        model: as the request names it.
        answer: what counts of it.
        millionths: USD per million, as a sum.
        provider: where the address does not tell.
        base_url: the address.
    """

    model: str
    answer: Mapping[str, Any]
    millionths: Decimal
    provider: str | None = None
    base_url: str | None = None


def _sum(*parts: str) -> Decimal:
    """Return the sum of products such as `176 x 0.15`."""
    total = Decimal(0)
    for part in parts:
        number, _, price = part.partition(" x ")
        total += Decimal(number) * Decimal(price or 1)
    return total


def chat(model: str, usage: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"object": "chat.completion", "model": model, "choices": [], "usage": usage, **more}


def message(model: str, usage: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [], "model": model, "usage": usage}


def response(model: str, usage: Mapping[str, Any], *calls: str, **more: Any) -> dict[str, Any]:
    output = [{"type": kind} for kind in calls]
    return {"object": "response", "model": model, "output": output, "usage": usage, **more}


def gemini(model: str, usage: Mapping[str, Any]) -> dict[str, Any]:
    return {"modelVersion": model, "candidates": [], "usageMetadata": usage}


_MESSAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 2_000,
    "cache_creation": {"ephemeral_5m_input_tokens": 1_500, "ephemeral_1h_input_tokens": 500},
    "cache_read_input_tokens": 10_000,
    "output_tokens": 400,
}
_LONG = {"input_tokens": 300_000, "output_tokens": 1_000}
_GPT5 = {
    "input_tokens": 10_000,
    "input_tokens_details": {"cached_tokens": 8_000},
    "output_tokens": 500,
    "output_tokens_details": {"reasoning_tokens": 300},
}

ROWS = {
    # OpenAI
    "cached": Row(
        "gpt-4o-mini",
        chat(
            "gpt-4o-mini-2024-07-18",
            {
                "prompt_tokens": 1_200,
                "prompt_tokens_details": {"cached_tokens": 1_024},
                "completion_tokens": 300,
            },
        ),
        _sum("176 x 0.15", "1024 x 0.075", "300 x 0.60"),
    ),
    "reasoning and searches": Row(
        "gpt-5",
        response(
            "gpt-5-2025-08-07", _GPT5, "web_search_call", "web_search_call", tools=[{"type": "web_search"}]
        ),
        _sum("2000 x 1.25", "8000 x 0.125", "500 x 10", "2 x 10000"),
    ),
    "a preview's search": Row(
        "gpt-4.1",
        response(
            "gpt-4.1-2025-04-14",
            {"input_tokens": 310, "output_tokens": 290},
            "web_search_call",
            tools=[{"type": "web_search_preview"}],
        ),
        _sum("310 x 2", "290 x 8", "1 x 25000"),
    ),
    "a search of files": Row(
        "gpt-4o",
        response("gpt-4o-2024-08-06", {"input_tokens": 1_144, "output_tokens": 38}, "file_search_call"),
        _sum("1144 x 2.50", "38 x 10", "1 x 2500"),
    ),
    "flex": Row(
        "gpt-5",
        response("gpt-5-2025-08-07", _GPT5, service_tier="flex"),
        _sum("2000 x 0.625", "8000 x 0.0625", "500 x 5"),
    ),
    "priority": Row(
        "gpt-5",
        response("gpt-5-2025-08-07", _GPT5, service_tier="priority"),
        _sum("2000 x 2.50", "8000 x 0.25", "500 x 20"),
    ),
    "above 272 000 tokens": Row("gpt-5.5", response("gpt-5.5", _LONG), _sum("300000 x 10", "1000 x 45")),
    "flex above 272 000 tokens": Row(
        "gpt-5.5", response("gpt-5.5", _LONG, service_tier="flex"), _sum("300000 x 5", "1000 x 22.50")
    ),
    "in a region": Row(
        "gpt-5.5",
        response("gpt-5.5", {"input_tokens": 1_000, "output_tokens": 100}),
        _sum("1000 x 5.50", "100 x 33"),
        base_url="https://us.api.openai.com/v1",
    ),
    "an older model in a region": Row(
        "gpt-4o-mini",
        chat("gpt-4o-mini", {"prompt_tokens": 1_000, "completion_tokens": 100}),
        _sum("1000 x 0.15", "100 x 0.60"),
        base_url="https://us.api.openai.com/v1",
    ),
    "audio in and out": Row(
        "gpt-4o-audio-preview",
        chat(
            "gpt-4o-audio-preview",
            {
                "prompt_tokens": 150,
                "prompt_tokens_details": {"audio_tokens": 50},
                "completion_tokens": 80,
                "completion_tokens_details": {"audio_tokens": 60},
            },
        ),
        _sum("100 x 2.50", "50 x 40", "20 x 10", "60 x 80"),
    ),
    "fine-tuned": Row(
        "ft:gpt-4.1-mini:acme::abc123",
        chat("ft:gpt-4.1-mini:acme::abc123", {"prompt_tokens": 1_000, "completion_tokens": 100}),
        _sum("1000 x 0.80", "100 x 3.20"),
    ),
    "embedding": Row(
        "text-embedding-3-small",
        {
            "object": "list",
            "data": [],
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 1_000, "total_tokens": 1_000},
        },
        _sum("1000 x 0.02"),
    ),
    "azure": Row(
        "gpt-4o-mini",
        chat("gpt-4o-mini-2024-07-18", {"prompt_tokens": 1_000, "completion_tokens": 100}),
        _sum("1000 x 0.15", "100 x 0.60"),
        base_url="https://acme.openai.azure.com/openai/v1",
    ),
    # Anthropic
    "caches of both lengths and searches": Row(
        "claude-sonnet-4-6",
        message("claude-sonnet-4-6", {**_MESSAGE, "server_tool_use": {"web_search_requests": 2}}),
        _sum("100 x 3", "1500 x 3.75", "500 x 6", "10000 x 0.30", "400 x 15", "2 x 10000"),
        provider="anthropic",
    ),
    "an alias": Row(
        "claude-sonnet-4-0",
        message("claude-sonnet-4-20250514", {"input_tokens": 100, "output_tokens": 400}),
        _sum("100 x 3", "400 x 15"),
        provider="anthropic",
    ),
    "vertex in a region": Row(
        "claude-sonnet-4-6",
        message("claude-sonnet-4-6", _MESSAGE),
        _sum("100 x 3.30", "1500 x 4.125", "500 x 6.60", "10000 x 0.33", "400 x 16.50"),
        base_url="https://us-east5-aiplatform.googleapis.com",
    ),
    # Google
    "thoughts": Row(
        "gemini-2.5-pro",
        gemini(
            "gemini-2.5-pro",
            {
                "promptTokenCount": 1_000,
                "cachedContentTokenCount": 600,
                "candidatesTokenCount": 200,
                "thoughtsTokenCount": 300,
            },
        ),
        _sum("400 x 1.25", "600 x 0.125", "500 x 10"),
        provider="google",
    ),
    "above 200 000 tokens": Row(
        "gemini-2.5-pro",
        gemini("gemini-2.5-pro", {"promptTokenCount": 250_000, "candidatesTokenCount": 1_000}),
        _sum("250000 x 2.50", "1000 x 15"),
        provider="google",
    ),
    "heard": Row(
        "gemini-2.5-flash",
        gemini(
            "gemini-2.5-flash",
            {
                "promptTokenCount": 1_000,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 600},
                    {"modality": "AUDIO", "tokenCount": 400},
                ],
                "candidatesTokenCount": 100,
            },
        ),
        _sum("600 x 0.30", "400 x 1", "100 x 2.50"),
        provider="google",
    ),
    # Bedrock
    "a profile of one geography": Row(
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        {"output": {}, "usage": {"inputTokens": 1_000, "outputTokens": 100, "cacheReadInputTokens": 500}},
        _sum("1000 x 3.30", "100 x 16.50", "500 x 0.33"),
        provider="aws",
    ),
    "nova": Row(
        "amazon.nova-micro-v1:0",
        {"output": {}, "usage": {"inputTokens": 1_000, "outputTokens": 100}},
        _sum("1000 x 0.035", "100 x 0.14"),
        provider="aws",
    ),
    # What the provider says that it billed
    "ticks": Row(
        "grok-4.3",
        chat("grok-4.3", {"prompt_tokens": 1_000, "completion_tokens": 100, "cost_in_usd_ticks": 12_345_000}),
        Decimal("1234.5"),
        base_url="https://api.x.ai/v1",
    ),
    "ticks of a model that another serves": Row(
        "grok-3-mini",
        chat("grok-4.3", {"prompt_tokens": 1_000, "completion_tokens": 100, "cost_in_usd_ticks": 12_345_000}),
        Decimal("1234.5"),
        base_url="https://api.x.ai/v1",
    ),
    "another serves it": Row(
        "grok-3-mini",
        chat("grok-4.3", {"prompt_tokens": 1_000, "completion_tokens": 100}),
        _sum("1000 x 1.25", "100 x 2.50"),
        base_url="https://api.x.ai/v1",
    ),
    "openrouter's bill": Row(
        "openai/gpt-4o-mini",
        chat("openai/gpt-4o-mini", {"prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0.000187}),
        Decimal(187),
        base_url="https://openrouter.ai/api/v1",
    ),
    "openrouter with the user's own key": Row(
        "openai/gpt-4o-mini",
        chat(
            "openai/gpt-4o-mini",
            {
                "prompt_tokens": 1_000,
                "completion_tokens": 100,
                "cost": 0.00001,
                "is_byok": True,
                "cost_details": {"upstream_inference_cost": 0.0002},
            },
        ),
        _sum("10", "200"),
        base_url="https://openrouter.ai/api/v1",
    ),
    "perplexity's bill": Row(
        "sonar",
        chat(
            "sonar",
            {
                "prompt_tokens": 10,
                "completion_tokens": 100,
                "cost": {
                    "input_tokens_cost": 0.00001,
                    "output_tokens_cost": 0.0001,
                    "request_cost": 0.005,
                    "total_cost": 0.00511,
                },
            },
        ),
        Decimal(5_110),
        base_url="https://api.perplexity.ai",
    ),
    "a bill in another currency": Row(
        "openai/gpt-4o-mini",
        chat(
            "openai/gpt-4o-mini",
            {"prompt_tokens": 1_000, "completion_tokens": 100, "cost": 0.5, "currency": "EUR"},
        ),
        _sum("1000 x 0.15", "100 x 0.60"),
        base_url="https://openrouter.ai/api/v1",
    ),
    # Others
    "deepseek": Row(
        "deepseek-flash",
        chat(
            "deepseek-flash",
            {"prompt_tokens": 1_000, "prompt_cache_hit_tokens": 768, "completion_tokens": 100},
        ),
        _sum("232 x 0.30", "768 x 0.006", "100 x 1.20"),
        base_url="https://api.deepseek.com",
    ),
    "mistral's latest": Row(
        "mistral-large-latest",
        chat("mistral-large-latest", {"prompt_tokens": 1_000, "completion_tokens": 100}),
        _sum("1000 x 0.50", "100 x 1.50"),
        base_url="https://api.mistral.ai/v1",
    ),
    "groq": Row(
        "llama-3.3-70b-versatile",
        chat("llama-3.3-70b-versatile", {"prompt_tokens": 1_000, "completion_tokens": 100}),
        _sum("1000 x 0.59", "100 x 0.79"),
        base_url="https://api.groq.com/openai/v1",
    ),
    "together": Row(
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        chat("meta-llama/Llama-3.3-70B-Instruct-Turbo", {"prompt_tokens": 1_000, "completion_tokens": 100}),
        _sum("1100 x 1.04"),
        base_url="https://api.together.xyz/v1",
    ),
    "cohere": Row(
        "command-r-08-2024",
        {
            "message": {},
            "usage": {
                "billed_units": {"input_tokens": 1_000, "output_tokens": 100},
                "tokens": {"input_tokens": 1_500, "output_tokens": 102},
            },
        },
        _sum("1000 x 0.15", "100 x 0.60"),
        provider="cohere",
    ),
    "voyage": Row(
        "voyage-3.5",
        {"object": "list", "data": [], "model": "voyage-3.5", "usage": {"total_tokens": 1_000}},
        _sum("1000 x 0.06"),
        provider="voyageai",
    ),
}


@pytest.fixture(scope="module")
def book() -> PriceBook:
    return PriceBook(None, None)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_an_answer_costs_what_its_provider_s_price_page_says(book: PriceBook, row: Row) -> None:
    rates = book.rates(row.model, provider=row.provider, base_url=row.base_url, at=AT)
    booked = rates.cost_of(read_whole(row.answer, row.model))
    assert booked == to_nanos(row.millionths / 1_000_000, name="cost")
