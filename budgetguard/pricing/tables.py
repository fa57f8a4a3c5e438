"""What one model's units cost in one tier, computed in exact integers from a compiled price table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, TypeAlias

from budgetguard.core.money import NANOS_PER_USD, Nanos
from budgetguard.errors import UnknownModelError
from budgetguard.pricing.extra_units import extra_unit
from budgetguard.pricing.steps import Stepped
from budgetguard.pricing.units import priced_unit, wholes

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

# Units that are counted separately and, without a price of their own, billed at the price of the unit that
# they are part of. Cached input is never dearer than fresh input; text, reasoning, tool and citation tokens
# are ordinary tokens; an image shown to a chat model is billed as input. Audio, video and generated images
# are not here, because they cost many times what text costs.
_PRICED_AS_WHOLE = frozenset(
    {
        "input_text_tokens",
        "output_text_tokens",
        "input_image_tokens",
        "input_audio_seconds",
        "cache_read_tokens",
        "cache_text_read_tokens",
        "cache_image_read_tokens",
        "input_tool_tokens",
        "input_text_tool_tokens",
        "input_image_tool_tokens",
        "output_reasoning_tokens",
        "output_text_reasoning_tokens",
        "output_citation_tokens",
        "output_text_citation_tokens",
    }
)
# `cache_write` is the price of a 5-minute write; a write for an hour costs more and needs its own price.
_PRICED_AS_CACHE_WRITE = frozenset(
    {"cache_write_5m_tokens", "cache_text_write_tokens", "cache_text_write_5m_tokens"}
)

_OTHER_MEASURES = ("input_characters", "images")

TierSteps: TypeAlias = tuple[tuple[int, int], ...]
Price: TypeAlias = "Decimal | Stepped | TieredPrices"
"""USD for a unit, or with steps by the tokens of the input."""


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The prices of one model in one tier, as integers over one denominator.

    Attributes:
        rates: unit -> steps in rising order: (input tokens that the call must exceed, numerator).
        denominator: Nanos = numerator x count / denominator.
        parts: unit -> the priced units that are parts of it; the most specific units come first.
        is_free: whether there are prices, and every one is zero.
    """

    rates: Mapping[str, TierSteps]
    denominator: int
    parts: Mapping[str, tuple[str, ...]]
    is_free: bool

    @classmethod
    def compile(cls, prices: Mapping[str, Price]) -> PriceTable:
        """Compile prices by genai-prices' price key (USD per million tokens and the like).

        Keys of unknown units are left out; such a unit then has no price.
        """
        exact: dict[str, list[tuple[int, Fraction]]] = {}
        depths: dict[str, int] = {}
        for key, price in prices.items():
            unit = priced_unit(key)
            if unit is None:
                continue
            depths[unit.usage_key] = len(unit.dimensions)
            if isinstance(price, Decimal):
                steps = [(-1, price)]
            else:
                steps = [(-1, price.base), *((tier.start, tier.price) for tier in price.tiers)]
            exact[unit.usage_key] = [
                (start, Fraction(usd) * NANOS_PER_USD / unit.per) for start, usd in steps
            ]
        denominator = lcm(*(nanos.denominator for steps in exact.values() for _, nanos in steps))
        rates = {
            name: tuple((start, int(nanos * denominator)) for start, nanos in exact[name])
            for name in sorted(exact, key=lambda name: -depths[name])
        }
        parts = {whole: tuple(part for part in rates if whole in wholes(part)) for whole in rates}
        costs = any(rate for steps in rates.values() for _, rate in steps)
        return cls(rates, denominator, parts, is_free=bool(rates) and not costs)

    def nanos(self, units: Mapping[str, int], unpriced: Callable[[str], UnknownModelError]) -> Nanos:
        """Return the cost of the units in Nanos, rounded up.

        `unpriced` makes the error to raise for a unit that has no price.
        """
        rates = self.rates
        for name in units:
            if name.startswith(_OTHER_MEASURES):
                units = self._measured_once(units)
                break
        counts: dict[str, int] = {"requests": 1}
        for name, count in units.items():
            if count > 0:
                priced = name if name in rates else self.priced_as(name)
                if priced is None:
                    raise unpriced(name)
                # A part without a price is already in its whole, unless the answer lacks the whole.
                counts[priced] = max(counts.get(priced, 0), count)
        total_input = counts.get("input_tokens", 0)
        total = 0
        leaves: dict[str, int] = {}
        for name, steps in rates.items():
            if name not in counts:
                continue
            leaf = counts[name]
            for part in self.parts[name]:
                leaf -= leaves.get(part, 0)
            # Parts that add up to more than their whole are billed as reported.
            leaves[name] = leaf = max(0, leaf)
            # Above a step, its price holds for every token; the first step has no condition.
            rate = steps[0][1]
            for start, numerator in steps[1:]:
                if total_input > start:
                    rate = numerator
            total += leaf * rate
        return -(-total // self.denominator)

    def _measured_once(self, units: Mapping[str, int]) -> Mapping[str, int]:
        """Return the units without those that have no price and measure the same as others that have one.

        Text to be read aloud is projected in characters and in tokens, a drawn image as an image and in
        tokens, because a request does not show by which its model is billed.
        """
        others = {name for name in units if name.startswith(_OTHER_MEASURES)}
        if any(self.priced_as(name) is not None for name in others):
            return {
                name: count
                for name, count in units.items()
                if name in self.rates or not name.endswith("_tokens")
            }
        if any(name in self.rates for name in ("input_tokens", "output_tokens") if units.get(name)):
            return {name: n for name, n in units.items() if name not in others}
        return units

    def priced_of(self, units: Mapping[str, int]) -> Mapping[str, int]:
        """Return the units that have a price of their own."""
        return {name: count for name, count in units.items() if name in self.rates}

    def priced_as(self, name: str) -> str | None:
        """Return the unit whose price applies: itself or one that it is part of; None without a price."""
        if name in self.rates:
            return name
        if name in _PRICED_AS_CACHE_WRITE:
            return "cache_write_tokens" if "cache_write_tokens" in self.rates else None
        if name not in _PRICED_AS_WHOLE and extra_unit(name) is None:
            return None
        return next((whole for whole in wholes(name) if whole in self.rates), None)
