"""Sources of price tables: the user's prices, genai-prices' list with what is added to it, and none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from budgetguard.pricing.extra import NO_EXTRA, Extra
from budgetguard.pricing.steps import Step, SteppedPrice
from budgetguard.pricing.tables import Price, PriceTable
from budgetguard.pricing.tiers import (
    BATCH,
    FAST,
    STANDARD_TIERS,
    TierFactor,
    tier_factor,
    tiers_with_factor,
)
from budgetguard.pricing.units import is_use_fee

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, PriceVariant

# genai-prices chooses price variants by more than the tier; these tiers stand for such a choice.
_TIER_CONTEXTS: Final = {BATCH: {"processing": "batch"}, FAST: {"speed": "fast"}}
_TIERS_REMEMBERED: Final = 16
_DIGITS: Final = 12
_CACHED: Final = (
    "cache_read_mtok",
    "cache_audio_read_mtok",
    "cache_image_read_mtok",
    "cache_video_read_mtok",
)


class Source:
    """A source of price tables for one model at one instant, by tier."""

    free = False

    def tables(self, tier: str | None) -> tuple[PriceTable, ...]:
        """Return the tables of a tier. The one with the highest cost of a usage counts."""
        return tuple(map(PriceTable.compile, self.price_sets(tier)))

    def price_sets(self, tier: str | None) -> tuple[Mapping[str, Price], ...]:
        """Return the prices of a tier, by price key. Where there are several, the dearest counts."""
        raise NotImplementedError

    def tiers(self) -> tuple[str, ...]:
        """Return the names of the tiers that have prices of their own."""
        return ()


class FixedSource(Source):
    """Prices without a list: registered ones, those of a price file, and extra ones.

    Args:
        prices: USD by price key, the same in every tier but those of `tiers`.
        free: whether the model costs nothing, whatever it uses.
        tiers: tier -> prices of its own.
    """

    def __init__(
        self,
        prices: Mapping[str, Price],
        *,
        free: bool,
        tiers: Mapping[str, Mapping[str, Price]] | None = None,
    ) -> None:
        self.free = free
        self._prices = prices
        self._tiers = tiers or {}
        self._tables = (PriceTable.compile(prices),)

    def tables(self, tier: str | None) -> tuple[PriceTable, ...]:
        return super().tables(tier) if tier in self._tiers else self._tables

    def price_sets(self, tier: str | None) -> tuple[Mapping[str, Price], ...]:
        more = {} if tier is None else self._tiers.get(tier, {})
        return ({**self._prices, **more},)

    def tiers(self) -> tuple[str, ...]:
        return tuple(self._tiers)


class UnknownSource(FixedSource):
    """No prices, for a model that may be called without."""

    def __init__(self) -> None:
        super().__init__({}, free=True)


class ListedSource(Source):
    """Prices of a model in genai-prices' list, with the user's and extra prices added.

    Args:
        model: the listed model.
        at: the instant.
        free: whether the model is listed without a price because it is free.
        added: USD by price key, in every tier.
        beside: the same for fees beside the tokens; with these alone, a free model's tokens stay free.
        extra: what the extra prices correct, and what they have for single tiers.
        provider: genai-prices' id, by which tiers that are not listed have a factor.
        names: the model's possible names, likewise.
        factor: the factor on listed prices for the region in which the model runs.
    """

    def __init__(
        self,
        model: ModelInfo,
        at: datetime,
        *,
        free: bool,
        added: Mapping[str, Price] | None = None,
        beside: Mapping[str, Price] | None = None,
        extra: Extra = NO_EXTRA,
        provider: str = "",
        names: tuple[str, ...] = (),
        factor: Decimal = Decimal(1),
    ) -> None:
        self.free = free and not added
        self._extra = extra
        self._provider = provider
        self._names = names
        self._factor = factor
        self._variants = tuple(model.price_variants or ())
        self._at = at
        self._added = {**(beside or {}), **(added or {})}
        listed = _present(model.get_prices(at))
        sets = (listed, *(_present(variant.prices) for variant in self._variants))
        has = {key for prices in sets for key in prices}
        lacking = {key: price for key, price in extra.prices.items() if key not in has}
        self._standard = {**lacking, **extra.corrected(listed, None)}
        self._made: dict[str | None, tuple[PriceTable, ...]] = {}

    def tables(self, tier: str | None) -> tuple[PriceTable, ...]:
        made = self._made.get(tier)
        if made is None:
            made = super().tables(tier)
            # Requests may name any tier, so the number of remembered ones is bounded.
            if len(self._made) < _TIERS_REMEMBERED:
                self._made[tier] = made
        return made

    def price_sets(self, tier: str | None) -> tuple[Mapping[str, Price], ...]:
        return tuple({**self._scaled(prices), **self._added} for prices in self._sets(tier))

    def tiers(self) -> tuple[str, ...]:
        listed = (variant.when for variant in self._variants if self._is_active(variant))
        named = (next(iter(when.values())) for when in listed if len(when) == 1)
        ruled = (tier for tier in tiers_with_factor(self._provider) if self._factor_of(tier) is not None)
        found = dict.fromkeys((*named, *self._extra.tiers, *ruled))
        return tuple(tier for tier in found if tier not in STANDARD_TIERS)

    def _sets(self, tier: str | None) -> Iterable[Mapping[str, Price]]:
        if tier is None:
            return [self._standard]
        own = self._extra.tiers.get(tier, {})
        wanted = {"service_tier": tier}, _TIER_CONTEXTS.get(tier)
        matching = [one for one in self._variants if one.when in wanted and self._is_active(one)]
        if matching:
            prices = {**self._standard, **own}
            # The first variant that names a price wins, as in genai-prices.
            for variant in reversed(matching):
                prices.update(_present(variant.prices))
            return [self._extra.corrected(prices, tier)]
        if own:
            return [{**self._standard, **own}]
        factor = self._factor_of(tier)
        if factor is not None:
            return [_of_tier(self._standard, factor)]
        return [self._standard, *({**self._standard, **_present(v.prices)} for v in self._variants)]

    def _factor_of(self, tier: str) -> TierFactor | None:
        return tier_factor(self._provider, self._names, tier)

    def _scaled(self, prices: Mapping[str, Price]) -> Mapping[str, Price]:
        return prices if self._factor == 1 else scaled(prices, self._factor)

    def _is_active(self, variant: PriceVariant) -> bool:
        return variant.constraint is None or variant.constraint.active(self._at)


def scaled(prices: Mapping[str, Price], factor: Decimal) -> dict[str, Price]:
    """Return prices with all but the fees for uses of tools multiplied."""
    return {key: price if is_use_fee(key) else _times(price, factor) for key, price in prices.items()}


def _of_tier(prices: Mapping[str, Price], row: TierFactor) -> Mapping[str, Price]:
    found = scaled(prices, row.factor)
    if row.factor < 1 and not row.cached:
        # What is read from a cache is not cheaper everywhere in a cheaper tier.
        found.update({key: prices[key] for key in _CACHED if key in prices})
    return found


def _times(price: Price, factor: Decimal) -> Price:
    if isinstance(price, Decimal):
        return _rounded(price * factor)
    steps = tuple(Step(tier.start, _rounded(tier.price * factor)) for tier in price.tiers)
    return SteppedPrice(_rounded(price.base * factor), steps)


def _rounded(price: Decimal) -> Decimal:
    # A factor may be a quotient. What is none keeps its digits as they are written.
    rounded = round(price, _DIGITS)
    return price if price == rounded else rounded


def _present(prices: ModelPrice) -> dict[str, Price]:
    return {key: price for key, price in vars(prices).items() if price is not None}
