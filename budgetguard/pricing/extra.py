"""Extra prices: what a small dated table has for a model beside genai-prices' list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from budgetguard.pricing.extra_elsewhere import PRICES_ELSEWHERE
from budgetguard.pricing.extra_google import GOOGLE_PRICES
from budgetguard.pricing.extra_prices import OPENAI_PRICES
from budgetguard.pricing.extra_row import ExtraPrice
from budgetguard.pricing.extra_units import drawn_unit, extra_unit, extra_unit_of_price_key
from budgetguard.pricing.tables import Price

__all__ = [
    "EXTRA_PRICES",
    "NO_EXTRA",
    "Extra",
    "ExtraPrice",
    "drawn_unit",
    "extra_prices",
    "extra_unit",
    "extra_unit_of_price_key",
]

EXTRA_PRICES: Final = (*OPENAI_PRICES, *PRICES_ELSEWHERE, *GOOGLE_PRICES)

_DATE: Final = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")


@dataclass(frozen=True, slots=True)
class Extra:
    """The extra prices of a model.

    Attributes:
        prices: USD by price key, for units that the list lacks.
        tiers: tier -> the same, for that tier alone.
        corrections: rows that hold in place of prices of the list.
        known: whether they make the model priced: fees of hosted tools do not.
        rows: (tier, price key) -> the row that it is from.
    """

    prices: Mapping[str, Price] = field(default_factory=dict)
    tiers: Mapping[str, Mapping[str, Price]] = field(default_factory=dict)
    corrections: tuple[ExtraPrice, ...] = ()
    known: bool = False
    rows: Mapping[tuple[str | None, str], ExtraPrice] = field(default_factory=dict)

    def corrected(self, prices: dict[str, Price], tier: str | None) -> dict[str, Price]:
        """Return a tier's prices with those replaced that the list has wrong."""
        for row in self.corrections_of(prices, tier):
            prices = {**prices, **row.prices}
        return prices

    def corrections_of(self, prices: Mapping[str, Price], tier: str | None) -> tuple[ExtraPrice, ...]:
        """Return the rows that hold for a tier's prices: the list still has what they replace."""
        return tuple(
            row
            for row in self.corrections
            if row.tier == tier and all(prices.get(key) == price for key, price in row.instead_of.items())
        )


NO_EXTRA: Final = Extra()


def extra_prices(provider: str, names: Iterable[str]) -> Extra:
    """Return the extra prices of a model.

    Args:
        provider: genai-prices' provider id.
        names: the model's possible names, in lower case.
    """
    bare = {bare for name in names for bare in _bare(name)}
    found: dict[str, Price] = {}
    rows: dict[tuple[str | None, str], ExtraPrice] = {}
    tiers: dict[str, dict[str, Price]] = {}
    corrections: list[ExtraPrice] = []
    known = False
    for row in EXTRA_PRICES:
        if row.provider != provider:
            continue
        if row.models is None:
            # What stands for every model comes after what stands for some.
            new = {key: price for key, price in row.prices.items() if key not in found}
            found.update(new)
            rows.update({(None, key): row for key in new})
        elif any(re.fullmatch(row.models, name) for name in bare):
            if row.instead_of:
                corrections.append(row)
                continue
            rows.update({(row.tier, key): row for key in row.prices})
            if row.tier is None:
                found.update(row.prices)
                known = known or not row.tool
            else:
                tiers.setdefault(row.tier, {}).update(row.prices)
    return Extra(found, tiers, tuple(corrections), known, rows)


def _bare(name: str) -> tuple[str, ...]:
    """Return a model's name without its date; of a fine-tuned one, that of its base too."""
    if not name.startswith("ft:"):
        return (_DATE.sub("", name),)
    base = _DATE.sub("", name.removeprefix("ft:").partition(":")[0])
    return f"ft:{base}", base
