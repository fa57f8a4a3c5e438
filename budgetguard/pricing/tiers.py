"""Service tiers, and what providers say of the price of a tier for all of their models."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

STANDARD_TIERS: Final = frozenset({None, "", "default", "standard", "auto"})
BATCH: Final = "batch"
FAST: Final = "fast"


@dataclass(frozen=True, slots=True)
class TierFactor:
    """What the prices of tokens in a tier are, as a multiple of the standard ones.

    Attributes:
        provider: genai-prices' id of the provider.
        tier: the tier.
        factor: the multiple.
        cached: whether it holds for what is read from a cache, too, where it is below 1.
        taken: the date of the page that was read, or the earliest that it can have.
        source: where it was read.
        models: a regular expression for models' names; None is every model.
    """

    provider: str
    tier: str
    factor: Decimal
    taken: date
    source: str
    models: str | None = None
    cached: bool = False


_ANTHROPIC: Final = "https://platform.claude.com/docs/en/build-with-claude/batch-processing"
_GEMINI: Final = "https://ai.google.dev/gemini-api/docs/pricing"
_BEDROCK: Final = "https://aws.amazon.com/bedrock/pricing/"
_OCTOBER: Final = date(2026, 10, 19)

# genai-prices lists the tiers of some models. These are for those that it does not.
TIER_FACTORS: Final = (
    # "50% cost discount compared to synchronous APIs"
    TierFactor(
        "openai",
        BATCH,
        Decimal("0.5"),
        date(2026, 2, 7),
        "https://platform.openai.com/docs/guides/batch",
        r"text-embedding-(?:3-small|3-large|ada-002)(?:-v2)?|gpt-4o-(?:mini-)?search-preview|gpt-image-.+"
        r"|chatgpt-image-.+|(?:babbage|davinci)-002",
    ),
    # "All usage is charged at 50% of the standard API prices"
    TierFactor("anthropic", BATCH, Decimal("0.5"), _OCTOBER, _ANTHROPIC, cached=True),
    TierFactor("google", BATCH, Decimal("0.5"), _OCTOBER, _GEMINI),
    TierFactor("google", "flex", Decimal("0.5"), _OCTOBER, _GEMINI),
    # The page has 1.8 times for every model; the guide says 75 to 100 % more.
    TierFactor("google", "priority", Decimal("1.8"), _OCTOBER, _GEMINI),
    TierFactor("aws", BATCH, Decimal("0.5"), _OCTOBER, _BEDROCK),
    TierFactor("aws", "flex", Decimal("0.5"), _OCTOBER, _BEDROCK),
    TierFactor("aws", "priority", Decimal("1.75"), _OCTOBER, _BEDROCK),
)


def tier_factor(provider: str, names: Iterable[str], tier: str) -> TierFactor | None:
    """Return what a model costs in a tier that its list does not have; None if nobody says.

    Args:
        provider: genai-prices' id of the provider.
        names: the model's possible names, in lower case.
        tier: the tier.
    """
    for row in TIER_FACTORS:
        is_its = row.models is None or any(re.fullmatch(row.models, name) for name in names)
        if is_its and (row.provider, row.tier) == (provider, tier):
            return row
    return None


def tiers_with_factor(provider: str) -> tuple[str, ...]:
    """Return the tiers of a provider that have a factor, for some of its models at least."""
    return tuple(dict.fromkeys(row.tier for row in TIER_FACTORS if row.provider == provider))
