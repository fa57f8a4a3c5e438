"""Prices that depend on how long a prompt is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Step:
    """A price above a length of the prompt, with the attributes that genai-prices' tiers have.

    Attributes:
        start: the input tokens that the call must exceed.
        price: USD; it holds for all tokens of such a call.
    """

    start: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Stepped:
    """A price with steps, with the attributes that genai-prices' tiered prices have.

    Attributes:
        base: USD below the first step.
        tiers: the steps in rising order.
    """

    base: Decimal
    tiers: tuple[Step, ...]


def stepped(base: str, start: int, price: str) -> Stepped:
    """Return a price with one step: `base` USD, and `price` USD above `start` input tokens."""
    return Stepped(Decimal(base), (Step(start, Decimal(price)),))
