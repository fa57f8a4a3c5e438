"""A row of the extra prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Final

from budgetguard.pricing.steps import Stepped

PRICE_PAGE: Final = "https://developers.openai.com/api/docs/pricing"
OCTOBER: Final = date(2026, 10, 19)
LITELLM: Final = "LiteLLM 1.110.2's table"


@dataclass(frozen=True, slots=True)
class ExtraPrice:
    """A row of the table: the prices of units of some models.

    Attributes:
        models: a regular expression for models' names in lower case without a date; None for every model that
            has a price. A fine-tuned model has its own (`ft:gpt-4.1`) and that of its base.
        prices: USD by price key.
        taken: the date of the copy of the page, or the earliest that it can have.
        source: where it was read.
        provider: genai-prices' provider id.
        tool: whether these are fees of a hosted tool, which do not make a model priced.
        tier: the service tier that they are for; None is the standard one, and every other that has none of
            its own.
        instead_of: the list's prices that these replace, by price key (None: it has none). Where the list has
            other ones, it is newer, and counts. Empty: they are for what the list lacks.
        read_in: the table in which the page's figures were read, or None.
    """

    models: str | None
    prices: Mapping[str, Decimal | Stepped]
    taken: date
    source: str = PRICE_PAGE
    provider: str = "openai"
    tool: bool = False
    tier: str | None = None
    instead_of: Mapping[str, Decimal | None] = field(default_factory=dict)
    read_in: str | None = None


def usd(**prices: str) -> Mapping[str, Decimal]:
    """Return prices by price key, from USD as text."""
    return {key: Decimal(price) for key, price in prices.items()}
