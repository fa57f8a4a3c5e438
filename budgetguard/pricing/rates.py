"""What one model's units cost at one instant, computed in exact integers from a compiled price table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from math import lcm
from typing import TYPE_CHECKING, Any, TypeAlias

from budgetguard.core.money import NANOS_PER_USD, Nanos, ceil_nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.errors import UnknownModelError
from budgetguard.pricing.extra import ExtraUnit, extra_unit, extra_unit_of_price_key, less_graded
from budgetguard.pricing.regions import answered_factor

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, TieredPrices
    from genai_prices.units import UnitDef

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

STANDARD_TIERS = frozenset({None, "", "default", "standard", "auto"})
# genai-prices chooses price variants by more than the tier; these tiers stand for such a choice.
BATCH = "batch"
FAST = "fast"
_TIER_CONTEXTS = {BATCH: {"processing": "batch"}, FAST: {"speed": "fast"}}

_OTHER_MEASURES = ("input_characters", "images")

_TIERS_REMEMBERED = 16

# Providers that report in USD what they billed. Fields of the same names are not believed from others.
_TELL_WHAT_THEY_BILLED = frozenset({"openrouter", "perplexity", "x-ai"})
# Providers that write every new prompt into their cache. Others do so only if a request asks for it.
_CACHE_UNASKED = frozenset({"openai", "azure"})

TierSteps: TypeAlias = tuple[tuple[int, int], ...]


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
    def compile(cls, prices: Mapping[str, Decimal | TieredPrices]) -> PriceTable:
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


@dataclass(frozen=True, slots=True)
class Rates:
    """The prices of a model at one instant, for one service tier.

    A call is settled at the prices with which it was held, so Rates never change.

    Attributes:
        model: the model's name in the call.
        provider: genai-prices' id of the provider, such as `openai`.
        tier: the service tier, None for the standard one.
        is_free: whether tokens cost nothing. Tools that run at the provider still may.
    """

    model: str
    provider: str
    tier: str | None
    _tables: tuple[PriceTable, ...] = field(repr=False, hash=False)
    _source: Source = field(repr=False, compare=False)
    _others: Callable[[str], Rates | None] | None = field(default=None, repr=False, compare=False)
    is_free: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        free = self._source.free or all(table.is_free for table in self._tables)
        object.__setattr__(self, "is_free", free)

    @classmethod
    def free(cls, model: str, provider: str) -> Rates:
        """Return the rates of a model that costs nothing, whatever it uses."""
        source = FixedSource({}, free=True)
        return cls(model, provider, None, source.tables(None), source)

    @property
    def is_unknown(self) -> bool:
        """Whether no price is known, so that only a bill in an answer is booked."""
        return isinstance(self._source, UnknownSource)

    def cost(self, usage: Usage) -> Nanos:
        """Return what the usage costs in Nanos, rounded up to a whole Nano.

        Raises:
            UnknownModelError: a used unit has no price, nor has a unit whose price would be a bound.
        """
        units = usage.units
        if self._source.free:
            # Fees beside the tokens are not free with them.
            tables = [table for table in self._tables if not table.rates.keys().isdisjoint(units)]
            return max((table.nanos(table.priced_of(units), self._unpriced) for table in tables), default=0)
        most = 0
        for table in self._tables:
            most = max(most, table.nanos(units, self._unpriced))
        return most

    def cost_of(self, reported: Reported) -> Nanos:
        """Return what an answer cost in Nanos, rounded up to a whole Nano.

        That is what the provider says it billed, if it is known to say so; otherwise the usage at the price
        of the model and tier that the answer names, each of its parts at its own. An answer without usage
        costs nothing.

        Raises:
            UnknownModelError: as `cost`.
        """
        served = self.served_as(reported.model).with_tier(reported.tier)
        billed, usage = reported.billed, reported.usage
        # A bill of 0 for what has a price is not final.
        told = bool(billed) or served.is_free or usage is None
        if billed is not None and told and self._tells_what_it_billed(served):
            return billed
        if usage is None:
            return 0
        if not reported.parts:
            return served.cost_in(reported.region, usage)
        cost = served.cost_in(reported.region, reported.rest)
        for part in reported.parts:
            by = self.served_as(part.model or reported.model).with_tier(part.tier or reported.tier)
            cost += by.cost_in(part.region or reported.region, part.usage or Usage())
        return cost

    def cost_in(self, region: str | None, usage: Usage) -> Nanos:
        """Return what the usage costs in Nanos in the region that a request or an answer names.

        Raises:
            UnknownModelError: as `cost`.
        """
        if region is None:
            return self.cost(usage)
        factor = answered_factor(self.provider, region, self.model)
        if factor == 1:
            return self.cost(usage)
        # Tools are billed per use, in all regions the same.
        tokens = {unit: n for unit, n in usage.units.items() if unit.endswith("_tokens")}
        fees = {unit: n for unit, n in usage.units.items() if unit not in tokens}
        return ceil_nanos(self.cost(Usage(tokens)) * factor / NANOS_PER_USD) + self.cost(Usage(fees))

    def served_as(self, model: str | None) -> Rates:
        """Return the rates of the model that an answer names, from the same lists at the same instant.

        They are these rates if the name means the same model, if its model has no price, and if the price of
        the requested model is registered.
        """
        if model is None or model == self.model or self._others is None:
            return self
        return self._others(model) or self

    def _tells_what_it_billed(self, served: Rates) -> bool:
        # A model that is registered as free is free; one without a known price is not.
        said_free = self._source.free and isinstance(self._source, FixedSource) and not self.is_unknown
        return not said_free and served.provider in _TELL_WHAT_THEY_BILLED

    def cache_write(self, marked: str | None) -> str | None:
        """Return the unit by which writing a prompt into the cache is billed, or None if it is not.

        Args:
            marked: the unit of the cache that the request asks for, or None.
        """
        unasked = self.provider in _CACHE_UNASKED or self.model.lower().startswith("openai/")
        if marked is None and not unasked:
            return None
        for unit in ("cache_write_tokens",) if marked is None else (marked, "cache_write_tokens"):
            for table in self._tables:
                if unit not in table.rates:
                    break
            else:
                return unit
        return None

    def prices(self, unit: str) -> bool:
        """Whether a unit has a price, as such or as part of a unit that has one."""
        return self._source.free or all(table.priced_as(unit) is not None for table in self._tables)

    def with_tier(self, tier: str | None) -> Rates:
        """Return the rates of another service tier, at the same instant and from the same prices.

        None, `default`, `standard` and `auto` are the standard tier. A tier that is not listed costs the
        highest of the standard price and all listed variants.
        """
        wanted = None if tier in STANDARD_TIERS else tier
        if wanted == self.tier:
            return self
        return replace(self, tier=wanted, _tables=self._source.tables(wanted))

    def _unpriced(self, unit: str) -> UnknownModelError:
        return UnknownModelError(
            f"{self.model} ({self.provider}) has no price for {unit}, so the call's cost would be too low. "
            f"Set one: register_price({self.model!r}, {_price_key(unit)}=<USD>).",
            model=self.model,
            unit=unit,
        )


class Source:
    """A source of price tables for one model at one instant, by tier."""

    free = False

    def tables(self, tier: str | None) -> tuple[PriceTable, ...]:
        """Return the tables of a tier. The one with the highest cost of a usage counts."""
        raise NotImplementedError


class FixedSource(Source):
    """Registered prices: the same in every tier, but for those of a batch, where they are given."""

    def __init__(
        self, prices: Mapping[str, Decimal], *, free: bool, in_batch: Mapping[str, Decimal] | None = None
    ) -> None:
        self.free = free
        self._tables = (PriceTable.compile(prices),)
        self._in_batch = self._tables if in_batch is None else (PriceTable.compile(in_batch),)

    def tables(self, tier: str | None) -> tuple[PriceTable, ...]:
        return self._in_batch if tier == BATCH else self._tables


class UnknownSource(FixedSource):
    """No prices, for a model that may be called without."""

    def __init__(self) -> None:
        super().__init__({}, free=True)


class ListedSource(Source):
    """Prices of a model in genai-prices' list, with registered and extra prices added.

    Args:
        model: the listed model.
        at: the instant.
        free: whether the model is listed without a price because it is free.
        added: USD by price key.
        beside: the same for fees beside the tokens; with these alone, a free model's tokens stay free.
        half_in_batch: whether batches cost half if the list has no price for them.
        factor: the factor on listed prices for the region in which the model runs.
    """

    def __init__(
        self,
        model: ModelInfo,
        at: datetime,
        *,
        free: bool,
        added: Mapping[str, Decimal] | None = None,
        beside: Mapping[str, Decimal] | None = None,
        half_in_batch: bool = False,
        factor: Decimal = Decimal(1),
    ) -> None:
        self._half_in_batch = half_in_batch
        self._factor = factor
        self.free = free and not added
        self._variants = tuple(model.price_variants or ())
        self._at = at
        self._added = {**(beside or {}), **(added or {})}
        self._standard = _present(model.get_prices(at))
        self._made: dict[str | None, tuple[PriceTable, ...]] = {}

    def tables(self, tier: str | None) -> tuple[PriceTable, ...]:
        made = self._made.get(tier)
        if made is None:
            sets = (self._scaled(prices) for prices in self._price_sets(tier))
            made = tuple(PriceTable.compile({**prices, **self._added}) for prices in sets)
            # Requests may name any tier, so the number of remembered ones is bounded.
            if len(self._made) < _TIERS_REMEMBERED:
                self._made[tier] = made
        return made

    def _price_sets(self, tier: str | None) -> Iterable[Mapping[str, Decimal | TieredPrices]]:
        if tier is None:
            return [self._standard]
        wanted = {"service_tier": tier}, _TIER_CONTEXTS.get(tier)
        matching = [one for one in self._variants if one.when in wanted and self._is_active(one)]
        if matching:
            prices = dict(self._standard)
            # The first variant that names a price wins, as in genai-prices.
            for variant in reversed(matching):
                prices.update(_present(variant.prices))
            return [prices]
        if tier == BATCH and self._half_in_batch:
            return [halved(self._standard)]
        return [self._standard, *({**self._standard, **_present(v.prices)} for v in self._variants)]

    def _scaled(self, prices: Mapping[str, Decimal | TieredPrices]) -> Mapping[str, Decimal | TieredPrices]:
        if self._factor == 1:
            return prices
        # Tools are billed per use, in all regions the same.
        return {
            key: price if key.endswith("_kcount") else _times(price, self._factor)
            for key, price in prices.items()
        }

    def _is_active(self, variant: PriceVariant) -> bool:
        return variant.constraint is None or variant.constraint.active(self._at)


_HALF = Decimal("0.5")


# A factor may be a quotient; prices have no more digits than these.
_DIGITS = 9


def _times(price: Decimal | TieredPrices, factor: Decimal) -> Decimal | TieredPrices:
    if isinstance(price, Decimal):
        return round(price * factor, _DIGITS)
    tiers = [replace(tier, price=round(tier.price * factor, _DIGITS)) for tier in price.tiers]
    return replace(price, base=round(price.base * factor, _DIGITS), tiers=tiers)


def halved(prices: Mapping[str, Any]) -> dict[str, Any]:
    """Return prices by price key at half; tools are billed per use, everywhere the same."""
    return {key: price if key.endswith("_kcount") else _times(price, _HALF) for key, price in prices.items()}


def _present(prices: ModelPrice) -> dict[str, Decimal | TieredPrices]:
    return {key: price for key, price in vars(prices).items() if price is not None}


def _price_key(unit: str) -> str:
    known = units_by_name().get(unit) or extra_unit(unit)
    return {"input_mtok": "input", "output_mtok": "output", "cache_read_mtok": "cached_input"}.get(
        key := known.price_key if known else unit, key
    )


def at_or_now(at: datetime | None) -> datetime:
    """Return the instant; now for None, and in UTC if it is naive."""
    if at is None:
        return datetime.now(UTC)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
