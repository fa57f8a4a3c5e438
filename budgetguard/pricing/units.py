"""Units that have prices: genai-prices', and the extra ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from budgetguard.pricing.extra_units import ExtraUnit, extra_unit, extra_unit_of_price_key, less_graded

if TYPE_CHECKING:
    from genai_prices.units import UnitDef

_USE_FEES = ("container_sessions", "tool_uses")


@cache
def units_by_name() -> Mapping[str, UnitDef]:
    """Return genai-prices' units by usage name (`input_tokens`)."""
    from genai_prices.data_units import unit_data
    from genai_prices.units import UnitRegistry

    return UnitRegistry(unit_data).units


@cache
def units_by_price_key() -> Mapping[str, UnitDef]:
    """Return genai-prices' units by price key (`input_mtok`)."""
    return {unit.price_key: unit for unit in units_by_name().values()}


def priced_unit(price_key: str) -> UnitDef | ExtraUnit | None:
    """Return the unit that a price key is for, of genai-prices or an extra one; None if there is none."""
    return units_by_price_key().get(price_key) or extra_unit_of_price_key(price_key)


def is_use_fee(price_key: str) -> bool:
    """Whether a price is a fee for each use of a tool: that is the same in all regions."""
    return price_key.endswith(("_kcount", "_kpages")) or price_key.startswith(_USE_FEES)


@lru_cache(maxsize=1_024)
def wholes(name: str) -> tuple[str, ...]:
    """Return the units that a unit is a part of, the nearest first."""
    units = units_by_name()
    if name not in units:
        extra = extra_unit(name)
        return () if extra is None else less_graded(extra)
    dimensions = units[name].dimensions.items()
    found = [unit for unit in units.values() if unit.dimensions.items() < dimensions]
    return tuple(unit.usage_key for unit in sorted(found, key=lambda unit: -len(unit.dimensions)))


def price_key_of(unit: str) -> str:
    """Return the name under which a unit's price is registered."""
    known = units_by_name().get(unit) or extra_unit(unit)
    return {"input_mtok": "input", "output_mtok": "output", "cache_read_mtok": "cached_input"}.get(
        key := known.price_key if known else unit, key
    )
