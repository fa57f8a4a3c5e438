"""What a model is charged at, with where each price comes from and of when it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from budgetguard.pricing.extra import extra_prices
from budgetguard.pricing.extra_row import ExtraPrice
from budgetguard.pricing.lists import ListFacts
from budgetguard.pricing.lookup import PriceLists
from budgetguard.pricing.other_names import OtherName
from budgetguard.pricing.rates import Rates
from budgetguard.pricing.regions import regional_uplift
from budgetguard.pricing.registered import REGISTERED
from budgetguard.pricing.said import Said
from budgetguard.pricing.sources import scaled
from budgetguard.pricing.tables import Price
from budgetguard.pricing.tiers import tier_factor
from budgetguard.pricing.units import priced_unit

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

FILE: Final = "file"
LIST: Final = "list"
EXTRA: Final = "extra"

# In this order; all others follow by name.
_FIRST: Final = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")
_TOKENS: Final = "_mtok"  # how price keys of tokens end


@dataclass(frozen=True, slots=True)
class PriceOrigin:
    """Where a price comes from.

    Attributes:
        kind: `registered`, `file` (a price file), `list` (genai-prices) or `extra`.
        source: the place in the file, or the page of the extra price.
        taken: the date of that page.
        read_in: the table in which the page's figure was read, or None.
    """

    kind: str
    source: str | None = None
    taken: date | None = None
    read_in: str | None = None

    def __str__(self) -> str:
        told = ", ".join(str(one) for one in (self.read_in, self.taken) if one is not None)
        return f"{self.source} ({told})" if told else str(self.source)


@dataclass(frozen=True, slots=True)
class QuotedPrice:
    """The price of a unit.

    Attributes:
        unit: its name in a usage.
        price_key: its name in `register_price` and in a price file.
        per: how many of it the price is for.
        tier: the service tier; None is the standard one.
        usd: the price, surcharges included.
        above: the prices of long prompts: (input tokens that the call must exceed, USD), in rising order.
        origin: where it comes from.
    """

    unit: str
    price_key: str
    per: int
    tier: str | None
    usd: Decimal
    above: tuple[tuple[int, Decimal], ...]
    origin: PriceOrigin


@dataclass(frozen=True, slots=True)
class Quote:
    """What a model is charged at.

    Attributes:
        model: as it was asked for.
        provider: genai-prices' id of the provider.
        listed_as: the model of the list, or None.
        meaning: why the name means that model, where the list does not say so.
        is_free: whether tokens cost nothing.
        factor: what the listed prices are multiplied by; included in the prices.
        factor_source: where that was said: the page, or the place in the price file.
        prices: those of every tier that has prices of its own, the standard one first.
        facts: what is known of the list.
    """

    model: str
    provider: str
    listed_as: str | None
    meaning: OtherName | None
    is_free: bool
    factor: Decimal
    factor_source: str | None
    prices: tuple[QuotedPrice, ...]
    facts: ListFacts

    def tiers(self) -> tuple[str | None, ...]:
        """Return the tiers that it has prices of, the standard one (None) first."""
        return tuple(dict.fromkeys(price.tier for price in self.prices))


def quote(lists: PriceLists, rates: Rates, names: tuple[str, ...], facts: ListFacts) -> Quote:
    """Return what a model is charged at.

    Args:
        lists: what it was looked up in.
        rates: its rates.
        names: its possible names.
        facts: what is known of the list.
    """
    provider = rates.provider
    said = lists.said(provider, names)
    listed = lists.listed(provider, names)
    meaning = next((one for name in names if (one := lists.meaning(provider, name)) is not None), None)
    factor, factor_source = Decimal(1), said.factor_origin
    if not said.whole and said.factor is not None:
        factor = said.factor
    elif not said.whole and listed is not None:
        uplift = regional_uplift(provider, lists.base_url, listed.id)
        if uplift is not None:
            factor, factor_source = uplift.factor, uplift.source
    origins = _Origins(lists, provider, names, said, listed, factor)
    prices: list[QuotedPrice] = []
    for tier in (None, *rates.tiers()):
        sets = rates.with_tier(tier).price_sets()
        if len(sets) == 1:  # where several may hold, there is no one price
            found = (_quoted(key, price, tier, origins) for key, price in sets[0].items())
            prices += sorted((one for one in found if one is not None), key=_order)
    return Quote(
        model=rates.model,
        provider=provider,
        listed_as=None if listed is None or said.whole else listed.id,
        meaning=None if said.whole else meaning,
        is_free=rates.is_free,
        factor=factor,
        factor_source=factor_source,
        prices=tuple(prices),
        facts=facts,
    )


class _Origins:
    """Where the prices of one model come from."""

    def __init__(
        self,
        lists: PriceLists,
        provider: str,
        names: tuple[str, ...],
        said: Said,
        listed: ModelInfo | None,
        factor: Decimal,
    ) -> None:
        self._factor = factor
        self._said = said
        self._provider = provider
        self._names = lists.with_others(provider, names)
        self._extra = extra_prices(provider, self._names)
        variants = [] if listed is None else listed.price_variants or []
        sets = [] if listed is None else [listed.get_prices(lists.at), *(one.prices for one in variants)]
        self._listed = {key for prices in sets for key, price in vars(prices).items() if price is not None}
        active = [one for one in variants if one.constraint is None or one.constraint.active(lists.at)]
        self._tiers = {value for one in active for value in one.when.values()}

    def of(self, key: str, price: Price, tier: str | None) -> PriceOrigin:
        """Return where a price comes from."""
        place = self._said.origins.get(key)
        if place is not None:
            return PriceOrigin(REGISTERED) if place == REGISTERED else PriceOrigin(FILE, place)
        row = self._row(key, price, tier)
        if row is not None:
            return PriceOrigin(EXTRA, row.source, row.taken, row.read_in)
        if tier is None or tier in self._tiers or not key.endswith(_TOKENS):
            return PriceOrigin(LIST)
        rule = tier_factor(self._provider, self._names, tier)
        return PriceOrigin(LIST) if rule is None else PriceOrigin(EXTRA, rule.source, rule.taken)

    def _row(self, key: str, price: Price, tier: str | None) -> ExtraPrice | None:
        for wanted in (tier, None):
            for row in self._extra.corrections:
                ours = row.prices.get(key)
                if (
                    row.tier == wanted
                    and ours is not None
                    and scaled({key: ours}, self._factor)[key] == price
                ):
                    return row
            own = self._extra.rows.get((wanted, key))
            if own is not None and (key not in self._listed or own.tier is not None):
                return own
        return None


def _quoted(key: str, price: Price, tier: str | None, origins: _Origins) -> QuotedPrice | None:
    unit = priced_unit(key)
    if unit is None:
        return None  # of a newer list: it has no effect
    above: tuple[tuple[int, Decimal], ...] = ()
    base = price
    if not isinstance(price, Decimal):
        base, above = price.base, tuple((step.start, step.price) for step in price.tiers)
    assert isinstance(base, Decimal)
    return QuotedPrice(unit.usage_key, key, unit.per, tier, base, above, origins.of(key, price, tier))


def _order(price: QuotedPrice) -> tuple[bool, int, str]:
    first = _FIRST.index(price.unit) if price.unit in _FIRST else len(_FIRST)
    return not price.unit.endswith("_tokens"), first, price.unit
