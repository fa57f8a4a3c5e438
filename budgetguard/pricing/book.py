"""The price book: what a model costs, from registered prices, genai-prices and the extra prices, offline."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from budgetguard.core.money import MAX_USD
from budgetguard.core.process import of_books
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.extra import EXTRA_PRICE_KEYS, extra_prices, is_half_in_batch
from budgetguard.pricing.matching import (
    DEFAULT_PROVIDER,
    has_prices,
    listed_model,
    meant,
    only_provider,
    provider_by_address,
    provider_named,
    remedy,
    suggestion,
)
from budgetguard.pricing.rates import (
    STANDARD_TIERS,
    FixedSource,
    ListedSource,
    Rates,
    Source,
    UnknownSource,
    at_or_now,
    halved,
    priced_unit,
    units_by_price_key,
    wholes,
)
from budgetguard.pricing.regions import regional_factor

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo

__all__ = ["PriceBook", "Rates"]

# The provider of models at addresses that are declared to cost nothing.
FREE_PROVIDER = "free"
_CACHE_SIZE = 1_024
_SERVED_REMEMBERED = 64

# The names that `register` has for the most common price keys.
_PRICE_KEYS = {"input": "input_mtok", "output": "output_mtok", "cached_input": "cache_read_mtok"}

# The date after a model's name in an answer, which a registered name may lack.
_DATED = re.compile(r"-(?:\d{4}-?\d{2}-?\d{2}|\d{4})$")


@dataclass(frozen=True, slots=True)
class _Override:
    prices: Mapping[str, Decimal]
    valid_from: datetime | None

    @property
    def is_whole(self) -> bool:
        """Whether it replaces the listed price, rather than adding units to it."""
        return "input_mtok" in self.prices or "output_mtok" in self.prices


class PriceBook:
    """The prices of models. Nothing is ever fetched. Safe to use from many threads.

    Registered prices come first; then genai-prices' list as it is installed (or as the program has set it
    through genai-prices); then, for units and models that it lacks, `extra_prices`.
    """

    def __init__(self) -> None:
        self._overrides: dict[tuple[str | None, str], list[_Override]] = {}
        self._lock = threading.RLock()
        self._cache: dict[tuple[Any, ...], tuple[DataSnapshot, Rates]] = {}

    @of_books
    def register(
        self,
        model: str,
        *,
        provider: str | None = None,
        input: int | float | Decimal | None = None,
        output: int | float | Decimal | None = None,
        cached_input: int | float | Decimal | None = None,
        valid_from: datetime | None = None,
        **units: int | float | Decimal,
    ) -> None:
        """Set a model's price. It comes before every price list.

        With `input` or `output` it replaces the listed price completely; without them, it adds its units to
        the listed price. A model registered with `input=0, output=0` and nothing else is free.

        Args:
            model: the name as calls give it; case does not matter.
            provider: genai-prices' provider id, to set the price for that provider only.
            input: USD per million input tokens.
            output: USD per million output tokens.
            cached_input: USD per million cached input tokens; by default the price of input.
            valid_from: when the price begins (naive: UTC); by default it has always been valid. Of several
                prices the latest that has begun counts.
            units: USD by price key, of genai-prices, such as `input_audio_mtok=40`, or an extra one, such as
                `images=0.04` or `video_seconds=0.1`.

        Raises:
            ConfigurationError: no price, a bad price, an unknown unit, an empty name.
        """
        if not isinstance(model, str) or not model.strip():
            raise ConfigurationError(f"model must be a name such as 'gpt-4o-mini', not {model!r}")
        if valid_from is not None and not isinstance(valid_from, datetime):
            raise ConfigurationError(f"valid_from must be a datetime, not {valid_from!r}")
        named = {"input": input, "output": output, "cached_input": cached_input}
        given = {_PRICE_KEYS[name]: (name, value) for name, value in named.items() if value is not None}
        given |= {key: (key, value) for key, value in units.items() if value is not None}
        prices = {key: _price(key, value, name) for key, (name, value) in given.items()}
        if not prices:
            raise ConfigurationError(
                f"register a price for {model!r}: input= and output=, USD per million tokens"
            )
        override = _Override(prices, None if valid_from is None else at_or_now(valid_from))
        key = (provider and provider_named(provider), model.strip().lower())
        with self._lock:
            dated = [old for old in self._overrides.get(key, ()) if old.valid_from != override.valid_from]
            # New objects, because rates that were looked up before refer to the old ones.
            self._overrides = {**self._overrides, key: [*dated, override]}
            self._cache = {}

    def rates(
        self,
        model: str,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        tier: str | None = None,
        at: datetime | None = None,
        bare: bool = False,
    ) -> Rates:
        """Return what the model costs.

        Args:
            model: its name, which may begin with a provider (`azure/gpt-4o`).
            provider: genai-prices' provider id; by default that of `base_url` or of the name's prefix, else
                openai.
            base_url: the API's address; ignored if it is no known provider's.
            tier: the service tier; see `Rates.with_tier`.
            at: the instant (naive: UTC), now by default; prices are looked up to the minute.
            bare: if no provider is given and openai has no such model, take the only provider that has one
                (`claude-sonnet-4-5`).

        Raises:
            UnknownModelError: no price is known, or it is uncertain which listed model is meant.
        """
        from genai_prices.data_snapshot import get_snapshot

        if not isinstance(model, str) or not model.strip():
            raise UnknownModelError(
                f"the call names no model ({model!r}), so it cannot be priced; give it a model", model=model
            )
        instant = at_or_now(at)
        snapshot = get_snapshot()
        # Taken before the search, because a registration during it replaces the cache, and the new one must
        # not get what is found by the old prices.
        cache = self._cache
        key = (model, provider, base_url, bare, int(instant.timestamp()) // 60)
        cached = cache.get(key)
        if cached is not None and cached[0] is snapshot:
            found = cached[1]
        else:
            minute = instant.replace(second=0, microsecond=0)
            found = self._find(snapshot, model, provider, base_url, minute, bare=bare)
            if len(cache) >= _CACHE_SIZE:
                cache.clear()
            cache[key] = (snapshot, found)
        return found if tier in STANDARD_TIERS else found.with_tier(tier)

    def provider_at(self, base_url: str) -> str | None:
        """Return genai-prices' id of the provider at an address, or None."""
        from genai_prices.data_snapshot import get_snapshot

        return provider_by_address(get_snapshot(), base_url)

    def rates_if_known(
        self, model: str, *, provider: str | None = None, base_url: str | None = None
    ) -> Rates:
        """Return what a model costs, for one that may be called without a price.

        Without one, an answer costs what its provider says it billed, or nothing.
        """
        try:
            return self.rates(model, provider=provider, base_url=base_url)
        except UnknownModelError:
            from genai_prices.data_snapshot import get_snapshot

            name = str(model)
            provider_id, _ = meant(get_snapshot(), name.strip().lower(), provider, base_url)
            source = UnknownSource()
            return Rates(name, provider_id, None, source.tables(None), source)

    @of_books
    def _find(
        self,
        snapshot: DataSnapshot,
        model: str,
        provider: str | None,
        base_url: str | None,
        at: datetime,
        *,
        bare: bool,
    ) -> Rates:
        provider_id, names = meant(snapshot, model.strip().lower(), provider, base_url)
        lists = _Lists(snapshot, self._overrides, base_url, at)
        override = lists.registered(provider_id, names)
        source = lists.source(provider_id, names, override)
        unnamed = not provider and not base_url and "/" not in model
        if source is None and bare and unnamed and provider_id == DEFAULT_PROVIDER:
            claimed = only_provider(snapshot, names[0])
            if claimed is not None:
                provider_id, override = claimed, lists.registered(claimed, names)
                source = lists.source(claimed, names, override)
        if source is not None:
            others = None
            # A registered price of the requested model holds for whichever model answers.
            if override is None or not override.is_whole:
                fixed = provider is not None or provider_by_address(snapshot, base_url) is not None
                others = _Served(lists, provider_id, names, fixed=fixed)
            return Rates(model, provider_id, None, source.tables(None), source, others)
        raise UnknownModelError(
            f"no price is known for the model {model!r} ({provider_id}), so the call was not made. "
            f"Set one in USD per million tokens: register_price({model!r}, input=..., output=...)."
            + remedy(snapshot, provider_id, model, base_url)
            + suggestion(snapshot, provider_id, names[-1]),
            model=model,
        )


@dataclass(frozen=True, slots=True)
class _Lists:
    """The price lists at one instant: registered prices, genai-prices, extra prices."""

    snapshot: DataSnapshot
    overrides: Mapping[tuple[str | None, str], list[_Override]]
    base_url: str | None
    at: datetime

    def source(self, provider_id: str, names: tuple[str, ...], override: _Override | None) -> Source | None:
        """Return the source of a model's prices, or None if there is none."""
        said = {} if override is None else override.prices
        if override is not None and override.is_whole:
            free = said.keys() >= {"input_mtok", "output_mtok"}
            return FixedSource(said, free=free and not any(said.values()))
        return self._add_up(provider_id, names, said)

    def _add_up(self, provider_id: str, names: tuple[str, ...], said: Mapping[str, Decimal]) -> Source | None:
        """Return the listed price with registered and extra units added; None if there is neither."""
        ours, known = extra_prices(provider_id, names)
        ours = {key: price for key, price in ours.items() if not _is_said(key, said)}
        listed = self.listed(provider_id, names)
        half = is_half_in_batch(provider_id, names)
        if listed is None:
            if not known and not said:
                return None
            in_batch = {**halved(ours), **said} if half else None
            return FixedSource({**ours, **said}, free=False, in_batch=in_batch)
        at = self.at
        if not has_prices(listed, at):
            # A router bills the tools that it runs, also those beside a free model.
            beside = ours if names[-1].endswith(":free") else {}
            return ListedSource(listed, at, free=True, added=said, beside=beside)
        factor = regional_factor(provider_id, self.base_url, listed.id)
        lacking = _lacking(ours, listed, at).items()
        more = {key: price * factor if key.endswith("_mtok") else price for key, price in lacking}
        more.update(said)
        return ListedSource(listed, at, free=False, added=more, half_in_batch=half, factor=factor)

    def listed(self, provider_id: str, names: Iterable[str]) -> ModelInfo | None:
        found = (listed_model(self.snapshot, provider_id, name) for name in names)
        return next((one for one in found if one is not None), None)

    def registered(self, provider_id: str, names: Iterable[str]) -> _Override | None:
        found = (self._registered(provider_id, name) for name in names)
        return next((one for one in found if one is not None), None)

    def _registered(self, provider_id: str, name: str) -> _Override | None:
        for key in ((provider_id, name), (None, name)):
            begun = [
                override
                for override in self.overrides.get(key, ())
                if override.valid_from is None or override.valid_from <= self.at + timedelta(seconds=59)
            ]
            if begun:
                floor = datetime.min.replace(tzinfo=self.at.tzinfo)
                return max(begun, key=lambda override: override.valid_from or floor)
        return None


class _Served:
    """The rates of models that answers name instead of the requested one.

    Args:
        lists: what the requested model was priced from.
        provider_id: its provider.
        asked: its possible names.
        fixed: whether the provider is certain, by the call's address or by the caller.
    """

    def __init__(self, lists: _Lists, provider_id: str, asked: tuple[str, ...], *, fixed: bool) -> None:
        self._lists = lists
        self._provider_id = provider_id
        self._asked = asked
        self._fixed = fixed
        self._found: dict[str, Rates | None] = {}

    def __call__(self, served: str) -> Rates | None:
        """Return the rates of `served`; None if those of the requested model apply."""
        try:
            return self._found[served]
        except KeyError:
            pass
        found = self._find(served)
        if len(self._found) < _SERVED_REMEMBERED:
            self._found[served] = found
        return found

    def _find(self, served: str) -> Rates | None:
        name = served.strip().lower().removeprefix("models/")
        if name in self._asked or not name:
            return None
        places = self._places(name)
        for provider_id, names in places:
            override = self._lists.registered(provider_id, (*names, *(_DATED.sub("", one) for one in names)))
            if override is not None and override.is_whole:
                return self._rates(served, provider_id, names, override)
        asked = self._lists.listed(self._provider_id, (_base(one) for one in self._asked))
        for provider_id, names in places:
            found = self._lists.listed(provider_id, names)
            if found is None:
                continue
            if found is asked:
                return None
            return self._rates(served, provider_id, names, self._lists.registered(provider_id, names))
        return None

    def _places(self, name: str) -> list[tuple[str, tuple[str, ...]]]:
        """Return the providers that may have served a model, each with its possible names there."""
        snapshot = self._lists.snapshot
        places = [meant(snapshot, name, self._provider_id, None)]
        unfixed = meant(snapshot, name, None, None)
        if self._fixed:
            # If a router's list lacks the model, the price of the model's maker is the nearest.
            return (
                [*places, unfixed]
                if "/" in name and unfixed[0] not in (self._provider_id, DEFAULT_PROVIDER)
                else places
            )
        makers = (one.id for one in snapshot.providers if one.model_match and one.model_match.is_match(name))
        return [*dict.fromkeys((*places, unfixed, *((maker, (name,)) for maker in makers)))]

    def _rates(
        self, served: str, provider_id: str, names: tuple[str, ...], override: _Override | None
    ) -> Rates | None:
        source = self._lists.source(provider_id, names, override)
        return None if source is None else Rates(served, provider_id, None, source.tables(None), source)


def _base(name: str) -> str:
    """Return the base of a fine-tuned model, which answers may name although the fine-tuned one is billed."""
    return name.removeprefix("ft:").partition(":")[0] if name.startswith("ft:") else name


def _price(key: str, value: object, name: str) -> Decimal:
    """Return a price in USD after checking it.

    Args:
        key: its price key.
        value: what the caller passed.
        name: the name of the argument, for errors.

    Raises:
        ConfigurationError: an unknown unit or a bad price.
    """
    if priced_unit(key) is None:
        known = (*_PRICE_KEYS, *units_by_price_key(), *EXTRA_PRICE_KEYS)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigurationError(f"{key} is not a priced unit{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ConfigurationError(
            f"{name} must be a price in USD such as 2.5, not {value!r} ({type(value).__name__})"
        )
    price = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not price.is_finite() or not 0 <= price <= MAX_USD:
        raise ConfigurationError(f"{name} must be a price in USD from 0 to {MAX_USD}, not {value!r}")
    return price


def _is_said(key: str, said: Mapping[str, Decimal]) -> bool:
    """Whether registered prices cover a price, as such or as a part of what they price."""
    unit = priced_unit(key)
    assert unit is not None
    covered = {covering.usage_key for one in said if (covering := priced_unit(one)) is not None}
    return unit.usage_key in covered or not covered.isdisjoint(wholes(unit.usage_key))


def _lacking(ours: Mapping[str, Decimal], listed: ModelInfo, at: datetime) -> dict[str, Decimal]:
    """Return those of the extra prices for which the list has none, in any tier."""
    sets = [listed.get_prices(at), *(variant.prices for variant in listed.price_variants or ())]
    has = {key for prices in sets for key, price in vars(prices).items() if price is not None}
    return {key: price for key, price in ours.items() if key not in has}
