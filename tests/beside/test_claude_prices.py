"""Claude's prices on each cloud are those of LiteLLM's table, which others keep, but for a reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from budgetguard.core.usage import Usage
from budgetguard.errors import UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import BATCH, FAST

# The provider of LiteLLM's -> how its keys begin, our provider, and the address that decides the price.
PLACES: Mapping[str, tuple[str, str, str]] = {
    "anthropic": ("", "anthropic", "https://api.anthropic.com"),
    "vertex_ai-anthropic_models": ("vertex_ai/", "google", "https://aiplatform.googleapis.com"),
    "azure_ai": ("azure_ai/", "azure", "https://r.services.ai.azure.com"),
    "bedrock_converse": ("", "aws", "https://bedrock-runtime.us-east-1.amazonaws.com"),
}
GOVERNMENT = "https://bedrock-runtime.us-gov-west-1.amazonaws.com"
IN_A_REGION = "https://us-east5-aiplatform.googleapis.com"
# Models without a price here, so that they are refused, by LiteLLM's keys; and why.
UNKNOWN = {
    r".*claude-mythos-preview": "a preview that is over",
    r"(?:.*\.)?anthropic\.claude-mythos-5.*|azure_ai/claude-mythos-5.*": "no cloud's own page has a price",
    r".*-fast": "LiteLLM's own name for fast mode",
    r"anthropic\.claude-haiku-4-5@.*": "an id of Vertex' with a vendor of Bedrock's",
}
# Prices that differ, by LiteLLM's keys and fields; and why.
DIFFERENT = {
    r"(?!.*claude-(?:haiku|fable|opus|sonnet)-5).*anthropic\..*above_200k_tokens": "genai-prices has no such "
    "step on Bedrock, where Claude Sonnet 4 and 4.5 had it in beta",
    r"vertex_ai/claude-3-5-haiku.*": "the price before Anthropic lowered it",
}
# Models of Bedrock's without a region in their id run in one: genai-prices takes them for as dear as those
# with one, after Anthropic's page, and LiteLLM for as cheap as global ones.
BARE = re.compile(r"anthropic\.claude-(?!3|sonnet-4-2|opus-4-[12]|v2|instant).*")

_LONG = re.compile(r"_above_(\d+)k_tokens")
_PARTS: Mapping[str, Mapping[str, int]] = {
    "input_cost_per_token": {},
    "output_cost_per_token": {"output_tokens": 1},
    "cache_read_input_token_cost": {"cache_read_tokens": 1},
    "cache_creation_input_token_cost": {"cache_write_tokens": 1},
    "cache_creation_input_token_cost_above_1hr": {"cache_write_tokens": 1, "cache_write_1h_tokens": 1},
}


def table() -> dict[str, Any]:
    """Return LiteLLM's table, without importing it."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    path = Path(spec.origin).with_name("model_prices_and_context_window_backup.json")
    found: dict[str, Any] = json.loads(path.read_text(), parse_float=Decimal)
    return found


def rows() -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    """Yield LiteLLM's key, the model, our provider, the address and the prices of each Claude."""
    for key, row in table().items():
        place = PLACES.get(str(row.get("litellm_provider")))
        if place is None or "claude" not in key or "input_cost_per_token" not in row:
            continue
        prefix, provider, address = place
        name = key.removeprefix(prefix)
        if "/" in name or (provider == "aws" and "anthropic." not in name):
            continue
        yield key, name, provider, GOVERNMENT if name.startswith("us-gov.") else address, row


ROWS = list(rows())


def prices(row: Mapping[str, Any]) -> Iterator[tuple[str, str | None, Usage, Decimal]]:
    """Yield each price of a row: its field, the tier, a usage that has it, and the Nanos which that costs."""
    for field, price in row.items():
        tier = BATCH if field.endswith("_batches") else None
        plain = field.removesuffix("_batches")
        long = _LONG.search(plain)
        parts = _PARTS.get(_LONG.sub("", plain))
        if parts is None:
            continue
        tokens = int(long[1]) * 1_000 + 50_000 if long else 10_000
        usage = Usage.of(input_tokens=tokens, **dict.fromkeys(parts, tokens))
        cost = tokens * price * 10**9
        if "output_tokens" in parts:
            cost += tokens * row[field.replace("output_cost", "input_cost")] * 10**9
        yield field, tier, usage, cost


@cache
def book() -> PriceBook:
    return PriceBook()


def reason(reasons: Mapping[str, str], what: str) -> str | None:
    return next((why for pattern, why in reasons.items() if re.fullmatch(pattern, what)), None)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_price_is_the_same_or_differs_for_a_reason(row: tuple[Any, ...]) -> None:
    key, name, provider, address, listed = row
    if reason(UNKNOWN, key) is not None:
        with pytest.raises(UnknownModelError):
            book().rates(name, provider=provider, base_url=address)
        return
    rates = book().rates(name, provider=provider, base_url=address)
    uplift = Decimal("1.1") if BARE.fullmatch(name) else Decimal(1)
    for field, tier, usage, cost in prices(listed):
        if reason(DIFFERENT, f"{key} {field}") or (tier == BATCH and provider != "anthropic"):
            continue  # no client that we guard has batches on other clouds
        assert rates.with_tier(tier).cost(usage) == cost * uplift, field
    more = listed.get("provider_specific_entry") or {}
    usage = Usage.of(input_tokens=10_000, output_tokens=500)
    if "us" in more:
        assert rates.cost_in("us", usage) == rates.cost(usage) * more["us"]
    if "fast" in more:
        assert rates.with_tier(FAST).cost(usage) == rates.cost(usage) * more["fast"]
    if provider == "google":
        regional = book().rates(name, provider=provider, base_url=IN_A_REGION)
        assert regional.cost(usage) == rates.cost(usage) * listed.get(
            "regional_endpoint_uplift_multiplier", 1
        )


@pytest.mark.skipif(not find_spec("litellm"), reason="compares with litellm's table: tox -e beside has it")
def test_the_table_is_there() -> None:
    """Else all of the above would hold of nothing."""
    assert len(ROWS) > 100
    assert {row[2] for row in ROWS} == {"anthropic", "aws", "azure", "google"}
