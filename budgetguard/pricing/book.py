"""The price book: what a model costs, by the user's prices, genai-prices and the extra prices, offline."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from budgetguard.core.labels import matches
from budgetguard.core.process import of_books
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.entries import FileEntry
from budgetguard.pricing.lists import PriceList
from budgetguard.pricing.lookup import PriceLists, served_rates
from budgetguard.pricing.matching import (
    DEFAULT_PROVIDER,
    meant,
    only_provider,
    provider_by_address,
    provider_named,
    remedy,
    suggestion,
)
from budgetguard.pricing.pricefile import PriceFile
from budgetguard.pricing.rates import STANDARD_TIERS, Rates, at_or_now
from budgetguard.pricing.registered import Registered, RegisteredPrice, Registrations
from budgetguard.pricing.said import checked_prices
from budgetguard.pricing.sources import UnknownSource

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

    from budgetguard.pricing.quotes import Quote

__all__ = ["PriceBook", "Rates"]

# The provider of models at addresses that are declared to cost nothing.
FREE_PROVIDER: Final = "free"
_CACHE_SIZE: Final = 1_024

_Found: TypeAlias = "tuple[DataSnapshot, Registrations, tuple[FileEntry, ...], Rates]"


class PriceBook:
    """The prices of models. Nothing is ever fetched. Safe to use from many threads.

    Registered prices come first; then those of the price file; then genai-prices' list (as the program has
    set it through genai-prices, else the newer one of those that are installed and kept); then, for units and
    models that it lacks, `extra_prices`.

    Args:
        file: the path of a price file, or None.
        price_list: the path of a list that `budgetguard prices update` has fetched; None for the installed
            one alone.

    Raises:
        ConfigurationError: the price file is not there, or bad.
    """

    def __init__(self, file: str | None = None, price_list: str | None = None) -> None:
        self._registered = Registered()
        self._given: tuple[str | None, str | None] = (None, None)
        self._file: PriceFile | None = None
        self.list = PriceList()
        self._cache: dict[tuple[Any, ...], _Found] = {}
        self.use(file, price_list)

    def use(self, file: str | None, price_list: str | None) -> None:
        """Take another price file and another kept list. A file that is in use already is not read again.

        Raises:
            ConfigurationError: the file is not there, or bad; nothing was changed.
        """
        if (file, price_list) == self._given:
            return
        if file != self._given[0]:
            self._file = None if file is None else PriceFile(file)
        if price_list != self._given[1]:
            self.list = PriceList(price_list)
        self._given = file, price_list

    def beside(self, file: str | None, price_list: str | None) -> PriceBook:
        """Return a book with the same registered prices, now and later, and another file and list.

        Raises:
            ConfigurationError: the file is not there, or bad.
        """
        if (file, price_list) == self._given:
            return self
        other = PriceBook(file, price_list)
        other._registered = self._registered
        return other

    @property
    def file(self) -> PriceFile | None:
        """The price file, or None."""
        return self._file

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
        """Set a model's price. It comes before the price file and every price list.

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
        given = {"input": input, "output": output, "cached_input": cached_input, **units}
        prices = checked_prices((name, value) for name, value in given.items() if value is not None)
        if not prices:
            raise ConfigurationError(
                f"register a price for {model!r}: input= and output=, USD per million tokens"
            )
        price = RegisteredPrice(prices, None if valid_from is None else at_or_now(valid_from))
        self._registered.add(model.strip().lower(), provider and provider_named(provider), price)

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
            base_url: the API's address; ignored if it is no known provider's, but for the price file.
            tier: the service tier; see `Rates.with_tier`.
            at: the instant (naive: UTC), now by default; prices are looked up to the minute.
            bare: if no provider is given and openai has no such model, take the only provider that has one
                (`claude-sonnet-4-5`).

        Raises:
            UnknownModelError: no price is known, or it is uncertain which listed model is meant.
        """
        if not isinstance(model, str) or not model.strip():
            raise UnknownModelError(
                f"the call names no model ({model!r}), so it cannot be priced; give it a model", model=model
            )
        instant = datetime.now(UTC) if at is None else at_or_now(at)
        snapshot, prices = self.list.snapshot(), self._registered.prices
        entries = () if self._file is None else self._file.entries()
        cache = self._cache
        key = (model, provider, base_url, bare, int(instant.timestamp()) // 60)
        cached = cache.get(key)
        if cached is not None and cached[0] is snapshot and cached[1] is prices and cached[2] is entries:
            found = cached[3]
        else:
            minute = instant.replace(second=0, microsecond=0)
            lists = PriceLists(snapshot, prices, entries, base_url, minute)
            found = self._find(lists, model, provider, bare=bare)
            if len(cache) >= _CACHE_SIZE:
                cache.clear()
            cache[key] = (snapshot, prices, entries, found)
        return found if tier in STANDARD_TIERS else found.with_tier(tier)

    def quote(
        self,
        model: str,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        at: datetime | None = None,
    ) -> Quote:
        """Return what a model is charged at, with where each price comes from; for people to read.

        Args:
            model: as in `rates`, which looks it up.
            provider: likewise.
            base_url: likewise.
            at: likewise.

        Raises:
            UnknownModelError: no price is known.
        """
        from budgetguard.pricing.quotes import quote

        minute = at_or_now(at).replace(second=0, microsecond=0)
        rates = self.rates(model, provider=provider, base_url=base_url, at=minute, bare=True)
        snapshot = self.list.snapshot()
        entries = () if self._file is None else self._file.entries()
        lists = PriceLists(snapshot, self._registered.prices, entries, base_url, minute)
        named = provider or (None if base_url else rates.provider)
        _, names = meant(snapshot, model.strip().lower(), named, base_url)
        return quote(lists, rates, names, self.list.facts())

    def lists(self, pattern: str) -> bool:
        """Return whether any model has a price, of this book or of the list, whose name matches a pattern.

        Args:
            pattern: in which `*` stands for any text; with or without a provider's prefix.
        """
        listed = {
            name
            for provider in self.list.snapshot().providers
            for model in provider.models
            for name in (model.id, f"{provider.id}/{model.id}")
        }
        own = {model for _, model in self._registered.prices}
        if self._file is not None:
            own |= {entry.model for entry in self._file.entries() if entry.model is not None}
        return any(matches(pattern.lower(), name.lower()) for name in own | listed)

    def provider_at(self, base_url: str) -> str | None:
        """Return genai-prices' id of the provider at an address, or None."""
        return provider_by_address(self.list.snapshot(), base_url)

    def rates_if_known(
        self, model: str, *, provider: str | None = None, base_url: str | None = None
    ) -> Rates:
        """Return what a model costs, for one that may be called without a price.

        Without one, an answer costs what its provider says it billed, or nothing.
        """
        try:
            return self.rates(model, provider=provider, base_url=base_url)
        except UnknownModelError:
            name = str(model)
            provider_id, _ = meant(self.list.snapshot(), name.strip().lower(), provider, base_url)
            source = UnknownSource()
            return Rates(name, provider_id, None, source.tables(None), source)

    @of_books
    def _find(self, lists: PriceLists, model: str, provider: str | None, *, bare: bool) -> Rates:
        snapshot, base_url = lists.snapshot, lists.base_url
        provider_id, names = meant(snapshot, model.strip().lower(), provider, base_url)
        said = lists.said(provider_id, names)
        source = lists.source(provider_id, names, said) or lists.routed(provider_id, names)
        unnamed = not provider and not base_url and "/" not in model
        if source is None and bare and unnamed and provider_id == DEFAULT_PROVIDER:
            claimed = only_provider(snapshot, names[0])
            if claimed is not None:
                provider_id, said = claimed, lists.said(claimed, names)
                source = lists.source(claimed, names, said)
        if source is not None:
            others = served_rates(lists, provider_id, names, said, provider=provider)
            return Rates(model, provider_id, None, source.tables(None), source, others)
        raise UnknownModelError(
            f"no price is known for the model {model!r} ({provider_id}), so the call was not made. "
            + self.how_to_price(model)
            + remedy(snapshot, provider_id, model, base_url)
            + suggestion(snapshot, provider_id, names[-1])
            + self.how_to_update(),
            model=model,
        )

    def how_to_price(self, model: str) -> str:
        """Return the sentence that says how to set the price of a model."""
        place = "a price file (BUDGETGUARD_PRICES)" if self._file is None else str(self._file.path)
        return (
            f"Set one in USD per million tokens: register_price({model!r}, input=..., output=...), or in "
            f"{place}: [[price]] with model, input and output."
        )

    def how_to_update(self) -> str:
        """Return the sentence that says how old the list is, and how to get the newest."""
        which = self.list.facts().describe(datetime.now(UTC).date())
        return f" Looked up in {which}; `budgetguard prices update` fetches the newest."
