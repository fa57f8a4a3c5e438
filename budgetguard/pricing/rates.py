"""What one model's units cost at one instant, in one service tier, and what its answers cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from budgetguard.core.money import NANOS_PER_USD, Nanos, ceil_nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.errors import UnknownModelError
from budgetguard.pricing.regions import answered_factor
from budgetguard.pricing.sources import FixedSource, ListedSource, Source, UnknownSource
from budgetguard.pricing.tables import Price, PriceTable
from budgetguard.pricing.tiers import BATCH, FAST, STANDARD_TIERS
from budgetguard.pricing.units import price_key_of, priced_unit, units_by_name, units_by_price_key

__all__ = [
    "BATCH",
    "FAST",
    "STANDARD_TIERS",
    "ListedSource",
    "Rates",
    "at_or_now",
    "priced_unit",
    "units_by_name",
    "units_by_price_key",
]

# What a provider bills as text, where it has no price of its own: "$2.00 (text, image, video, audio)".
_AS_TEXT: Mapping[str, frozenset[str]] = {
    "google": frozenset(
        {
            "input_audio_tokens",
            "input_video_tokens",
            "cache_audio_read_tokens",
            "output_audio_tokens",
        }
    )
}
_NOTHING: frozenset[str] = frozenset()

# Providers that report in USD what they billed. Fields of the same names are not believed from others.
_TELL_WHAT_THEY_BILLED = frozenset({"openrouter", "perplexity", "x-ai"})
# Providers that write every new prompt into their cache. Others do so only if a request asks for it.
_CACHE_UNASKED = frozenset({"openai", "azure"})


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
        as_text = _AS_TEXT.get(self.provider, _NOTHING).intersection(units)
        for table in self._tables:
            more = {unit for unit in as_text if unit not in table.rates}
            shown = {unit: n for unit, n in units.items() if unit not in more} if more else units
            most = max(most, table.nanos(shown, self._unpriced))
        return most

    def cost_of(self, reported: Reported) -> Nanos:
        """Return what an answer cost in Nanos, rounded up to a whole Nano.

        That is what the provider says it billed, if it is known to say so; otherwise the usage at the price
        of the model and tier that the answer names, each of its parts at its own. An answer without usage
        costs nothing.

        Raises:
            UnknownModelError: as `cost`.
        """
        served = self.served_as(reported.model)
        if served.tier is not None or reported.tier not in STANDARD_TIERS:
            served = served.with_tier(reported.tier)
        billed, usage = reported.billed, reported.usage
        # A bill of 0 for what has a price is not final.
        told = bool(billed) or served.is_free or usage is None
        if billed is not None and told and self._tells_what_it_billed(served):
            return billed
        if usage is None:
            return 0
        if not reported.parts:
            return served.cost(usage) if reported.region is None else served.cost_in(reported.region, usage)
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
        # Who was called tells, also where the price is that of the maker of the model that answered.
        return not said_free and not _TELL_WHAT_THEY_BILLED.isdisjoint((self.provider, served.provider))

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
        if unit in _AS_TEXT.get(self.provider, _NOTHING):
            return True
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

    def asks_more_in(self, tier: str) -> bool:
        """Return whether another tier is known to cost more, or nothing costs anything."""
        probe = Usage.of(input_tokens=1_000, output_tokens=1_000)
        return self.is_free or self.with_tier(tier).cost(probe) > self.cost(probe)

    def price_sets(self) -> tuple[Mapping[str, Price], ...]:
        """Return the prices by price key, in USD. Where there are several sets, the dearest counts."""
        return self._source.price_sets(self.tier)

    def tiers(self) -> tuple[str, ...]:
        """Return the names of the other service tiers that have prices of their own."""
        return self._source.tiers()

    def _unpriced(self, unit: str) -> UnknownModelError:
        return UnknownModelError(
            f"{self.model} ({self.provider}) has no price for {unit}, so the call's cost would be too low. "
            f"Set one: register_price({self.model!r}, {price_key_of(unit)}=<USD>), or in a price file "
            f"(BUDGETGUARD_PRICES): [[price]] with model = {self.model!r} and {price_key_of(unit)} = <USD>.",
            model=self.model,
            unit=unit,
        )


def at_or_now(at: datetime | None) -> datetime:
    """Return the instant; now for None, and in UTC if it is naive."""
    if at is None:
        return datetime.now(UTC)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
