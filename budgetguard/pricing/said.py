"""Prices by the user's word, checked: what `register_price` and a price file say of a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from budgetguard.core.money import MAX_USD
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.extra_units import EXTRA_PRICE_KEYS
from budgetguard.pricing.units import priced_unit, units_by_price_key

# The names that the most common price keys have in `register_price` and in a price file.
PRICE_KEYS: Final[Mapping[str, str]] = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
}
# Prices are looked up to the minute: one that begins within it has begun.
_WITHIN_THE_MINUTE: Final = timedelta(seconds=59)


@dataclass(frozen=True, slots=True)
class Said:
    """What the user says of the price of a model at one instant.

    Attributes:
        prices: USD by genai-prices' price key, or by that of an extra unit.
        origins: price key -> where it was said.
        whole: whether the prices replace the listed ones, rather than adding units to them.
        factor: what the listed prices of tokens are multiplied by; None where nothing is said.
        factor_origin: where the factor was said.
    """

    prices: Mapping[str, Decimal] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    factor: Decimal | None = None
    factor_origin: str | None = None

    @property
    def is_free(self) -> bool:
        """Whether it says of a model that it costs nothing, whatever it uses."""
        return self.prices.keys() >= {"input_mtok", "output_mtok"} and not any(self.prices.values())


def is_whole(prices: Mapping[str, Decimal]) -> bool:
    """Whether prices replace a listed price: those of input or output do."""
    return "input_mtok" in prices or "output_mtok" in prices


def has_begun(valid_from: datetime | None, at: datetime) -> bool:
    """Whether a price is valid in the minute that begins at an instant."""
    return valid_from is None or valid_from <= at + _WITHIN_THE_MINUTE


def checked_prices(given: Iterable[tuple[str, object]]) -> dict[str, Decimal]:
    """Return USD by price key, from names and values as a user gives them.

    Raises:
        ConfigurationError: an unknown unit or a bad price, by the name that the user gave.
    """
    return {PRICE_KEYS.get(name, name): _price(name, value) for name, value in given}


def _price(name: str, value: object) -> Decimal:
    if priced_unit(PRICE_KEYS.get(name, name)) is None:
        known = (*PRICE_KEYS, *units_by_price_key(), *EXTRA_PRICE_KEYS)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigurationError(f"{name} is not a priced unit{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ConfigurationError(
            f"{name} must be a price in USD such as 2.5, not {value!r} ({type(value).__name__})"
        )
    price = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not price.is_finite() or not 0 <= price <= MAX_USD:
        raise ConfigurationError(f"{name} must be a price in USD from 0 to {MAX_USD}, not {shown(value)}")
    return price


def shown(value: object) -> str:
    """Return a value as an error shows it: a number as it was written."""
    return str(value) if isinstance(value, Decimal) else repr(value)
