"""Find what a model costs: the user's prices, then genai-prices' list, then our small table, offline."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from budgetguard.core.inside import of_books
from budgetguard.core.money import MAX_USD
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.addresses import Address
from budgetguard.pricing.extra import OWN_PRICE_KEYS, is_half_in_batch, own_prices
from budgetguard.pricing.rates import (
    STANDARD_TIERS,
    FixedSource,
    ListedSource,
    Rates,
    Source,
    UnknownSource,
    at_or_now,
    priced_unit,
    units_by_price_key,
    wholes,
)
from budgetguard.pricing.regions import regional_factor

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import MatchLogic, ModelInfo, Provider

__all__ = ["PriceBook", "Rates"]

DEFAULT_PROVIDER = "openai"
AZURE = "azure"
# Of models at addresses that are declared to cost nothing.
FREE_PROVIDER = "free"
_CACHE_SIZE = 1_024
_SERVED_REMEMBERED = 64

# The names that `register` gives the prices in common use.
_PRICE_KEYS = {"input": "input_mtok", "output": "output_mtok", "cached_input": "cache_read_mtok"}

# LiteLLM's prefixes where they differ from genai-prices' provider ids.
_PROVIDER_ALIASES = {
    "azure_ai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "codestral": "mistral",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "text-completion-codestral": "mistral",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "vertex_ai": "google",
    "vertex_ai_beta": "google",
    "xai": "x-ai",
}

# Addresses of providers that genai-prices does not know as theirs.
_MORE_ADDRESSES = (
    ("openrouter", r"https://[a-z]{2}\.openrouter\.ai"),
    ("together", r"https://api\.together\.ai"),
    (AZURE, r"https://[^./]+\.openai\.azure\.us"),
)

# What may follow a model's name without making it another model: a date, a version, `latest`.
_SAME_MODEL = re.compile(
    r"(?:[-@:.](?:\d{4}-?\d{2}-?\d{2}|\d{2}-\d{2}|\d{4}|\d{6}|latest|preview|default|v\d+(?::\d+)?|\d+k))*"
)
_DATE_REST = re.compile(r"\d{0,4}-?\d{2}-?\d{2}")
# What follows a model's name in an answer; it may be a price of the user's that has none of it.
_DATED = re.compile(r"-(?:\d{4}-?\d{2}-?\d{2}|\d{4})$")
_VENDOR_PREFIX = re.compile(r"(?:[a-z0-9-]+[./])*")
_MODERATION = re.compile(r"(?:omni|text)-moderation(?:-[a-z0-9-]+)?")


@dataclass(frozen=True, slots=True)
class _Override:
    prices: Mapping[str, Decimal]
    valid_from: datetime | None

    @property
    def is_whole(self) -> bool:
        """Whether it stands for the listed price, rather than adding units to it."""
        return "input_mtok" in self.prices or "output_mtok" in self.prices


class PriceBook:
    """Answer what a model costs.

    Prices that were registered come first; then genai-prices' list as it is installed (or as the program
    set it with genai-prices' own means); then, for units and models that it lacks, `own_prices`. Nothing is
    ever fetched. Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._overrides: dict[tuple[str | None, str], list[_Override]] = {}
        self._lock = threading.RLock()
        self._cache: dict[tuple[Any, ...], tuple[DataSnapshot, Rates]] = {}
        self._providers_at: dict[str, tuple[DataSnapshot, str | None]] = {}

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
        """Set a model's price by your own word, before every price list.

        With `input` or `output` it replaces the listed price altogether; without, it adds its units to the
        listed price. A model registered with `input=0, output=0` and nothing else is free, whatever it uses.

        Args:
            model: the name as calls give it; case does not matter.
            provider: genai-prices' provider id, to set it for that provider alone.
            input: USD per million input tokens.
            output: USD per million output tokens.
            cached_input: USD per million cached input tokens; the price of input if absent.
            valid_from: when the price begins (naive: UTC); from ever if absent. The latest begun one counts.
            units: prices by genai-prices' price keys, such as `input_audio_mtok=40`, or by ours (see
                `own_prices`), such as `images=0.04` or `video_seconds=0.1`.

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
        key = (provider and _provider_id(provider), model.strip().lower())
        with self._lock:
            dated = [old for old in self._overrides.get(key, ()) if old.valid_from != override.valid_from]
            # A new one: rates that were looked up before keep the prices of then.
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
            model: its name, with a provider before a slash if need be (`azure/gpt-4o`).
            provider: genai-prices' provider id; by default what `base_url` or the name's prefix
                says, else openai.
            base_url: the API's address; one that belongs to no known provider decides nothing.
            tier: the service tier; see `Rates.with_tier`.
            at: the instant (naive: UTC), now by default; prices are looked up to the minute.
            bare: where nothing says the provider and openai has no such model, take the only provider that
                the name can be of (`claude-sonnet-4-5`).

        Raises:
            UnknownModelError: nobody knows the price, or it is not sure that this is the model meant.
        """
        from genai_prices.data_snapshot import get_snapshot

        if not isinstance(model, str) or not model.strip():
            raise UnknownModelError(
                f"the call names no model ({model!r}), so it cannot be priced; give it a model", model=model
            )
        instant = at_or_now(at)
        snapshot = get_snapshot()
        # Taken before the search: a registration meanwhile replaces the cache, and must not find this in it.
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
        """Return genai-prices' id of the provider that an address belongs to, or None."""
        from genai_prices.data_snapshot import get_snapshot

        snapshot = get_snapshot()
        known = self._providers_at.get(base_url)
        if known is None or known[0] is not snapshot:
            if len(self._providers_at) >= _CACHE_SIZE:
                self._providers_at.clear()
            known = self._providers_at[base_url] = snapshot, _by_address(snapshot, base_url)
        return known[1]

    def rates_if_known(
        self, model: str, *, provider: str | None = None, base_url: str | None = None
    ) -> Rates:
        """Return what a model costs that may be called without a price, as `rates` does.

        Where nobody knows, an answer costs what its provider says it billed for it, or nothing.
        """
        try:
            return self.rates(model, provider=provider, base_url=base_url)
        except UnknownModelError:
            from genai_prices.data_snapshot import get_snapshot

            name = str(model)
            provider_id, _ = _meant(get_snapshot(), name.strip().lower(), provider, base_url)
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
        provider_id, names = _meant(snapshot, model.strip().lower(), provider, base_url)
        lists = _Lists(snapshot, self._overrides, base_url, at)
        override = lists.registered(provider_id, names)
        source = lists.source(provider_id, names, override)
        unnamed = not provider and not base_url and "/" not in model
        if source is None and bare and unnamed and provider_id == DEFAULT_PROVIDER:
            claimed = _claimed(snapshot, names[0])
            if claimed is not None:
                provider_id, override = claimed, lists.registered(claimed, names)
                source = lists.source(claimed, names, override)
        if source is not None:
            others = None
            # Where the user says what the asked one costs, that is what it costs.
            if override is None or not override.is_whole:
                fixed = provider is not None or _by_address(snapshot, base_url) is not None
                others = _Served(lists, provider_id, names, fixed=fixed)
            return Rates(model, provider_id, None, source.tables(None), source, others)
        raise UnknownModelError(
            f"no price is known for the model {model!r} ({provider_id}), so the call was not made. "
            f"Set one in USD per million tokens: register_price({model!r}, input=..., output=...)."
            + _remedy(snapshot, provider_id, model, base_url)
            + _suggestion(snapshot, provider_id, names[-1]),
            model=model,
        )


@dataclass(frozen=True, slots=True)
class _Lists:
    """Hold what prices are looked up in, as it was at one instant: the user's, then the list, then ours."""

    snapshot: DataSnapshot
    overrides: Mapping[tuple[str | None, str], list[_Override]]
    base_url: str | None
    at: datetime

    def source(self, provider_id: str, names: tuple[str, ...], override: _Override | None) -> Source | None:
        """Return where the prices of a model are from; None if nobody knows them."""
        said = {} if override is None else override.prices
        if override is not None and override.is_whole:
            free = said.keys() >= {"input_mtok", "output_mtok"}
            return FixedSource(said, free=free and not any(said.values()))
        return self._add_up(provider_id, names, said)

    def _add_up(self, provider_id: str, names: tuple[str, ...], said: Mapping[str, Decimal]) -> Source | None:
        """Return the listed price with what the user says and our table adds to it; None if nobody knows."""
        ours, known = own_prices(provider_id, names)
        ours = {key: price for key, price in ours.items() if not _is_said(key, said)}
        listed = self.listed(provider_id, names)
        if listed is None:
            return FixedSource({**ours, **said}, free=False) if known or said else None
        at = self.at
        if not _has_prices(listed, at):
            # A router gives such a model away, and bills what its own tools do for it.
            beside = ours if names[-1].endswith(":free") else {}
            return ListedSource(listed, at, free=True, added=said, beside=beside)
        half = is_half_in_batch(provider_id, names)
        factor = regional_factor(provider_id, self.base_url, listed.id)
        lacking = _lacking(ours, listed, at).items()
        more = {key: price * factor if key.endswith("_mtok") else price for key, price in lacking}
        more.update(said)
        return ListedSource(listed, at, free=False, added=more, half_in_batch=half, factor=factor)

    def listed(self, provider_id: str, names: Iterable[str]) -> ModelInfo | None:
        found = (_listed(self.snapshot, provider_id, name) for name in names)
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
    """Find what the model costs that an answer names, where another was asked for.

    Args:
        lists: what the asked one was priced from.
        provider_id: whose price it has.
        asked: its possible names.
        fixed: that provider is certain: the call's address or the caller says so.
    """

    def __init__(self, lists: _Lists, provider_id: str, asked: tuple[str, ...], *, fixed: bool) -> None:
        self._lists = lists
        self._provider_id = provider_id
        self._asked = asked
        self._fixed = fixed
        self._found: dict[str, Rates | None] = {}

    def __call__(self, served: str) -> Rates | None:
        """Return its rates; None where those of the asked one hold."""
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
        """Return the providers that may have served it, each with the names that it may have there."""
        snapshot = self._lists.snapshot
        places = [_meant(snapshot, name, self._provider_id, None)]
        meant = _meant(snapshot, name, None, None)
        if self._fixed:
            # A router may serve a model that its list has lost: its maker's price is nearer than another's.
            return (
                [*places, meant]
                if "/" in name and meant[0] not in (self._provider_id, DEFAULT_PROVIDER)
                else places
            )
        makers = (one.id for one in snapshot.providers if one.model_match and one.model_match.is_match(name))
        return [*dict.fromkeys((*places, meant, *((maker, (name,)) for maker in makers)))]

    def _rates(
        self, served: str, provider_id: str, names: tuple[str, ...], override: _Override | None
    ) -> Rates | None:
        source = self._lists.source(provider_id, names, override)
        return None if source is None else Rates(served, provider_id, None, source.tables(None), source)


def _base(name: str) -> str:
    """Return what a fine-tuned model was made of: answers may name that, but it is not what is billed."""
    return name.removeprefix("ft:").partition(":")[0] if name.startswith("ft:") else name


def _price(key: str, value: object, name: str) -> Decimal:
    """Check a price; `name` is what the caller calls it."""
    if priced_unit(key) is None:
        near = difflib.get_close_matches(key, (*units_by_price_key(), *OWN_PRICE_KEYS), n=1)
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
    """Whether the user's prices cover a price, by itself or as a part of what they price."""
    unit = priced_unit(key)
    assert unit is not None
    covered = {covering.usage_key for one in said if (covering := priced_unit(one)) is not None}
    return unit.usage_key in covered or not covered.isdisjoint(wholes(unit.usage_key))


def _lacking(ours: Mapping[str, Decimal], listed: ModelInfo, at: datetime) -> dict[str, Decimal]:
    """Return those of our prices for which the list has none, for any tier."""
    sets = [listed.get_prices(at), *(variant.prices for variant in listed.price_variants or ())]
    has = {key for prices in sets for key, price in vars(prices).items() if price is not None}
    return {key: price for key, price in ours.items() if key not in has}


def _provider_id(provider: str) -> str:
    name = provider.strip().lower()
    return _PROVIDER_ALIASES.get(name, name)


def _meant(
    snapshot: DataSnapshot, name: str, provider: str | None, base_url: str | None
) -> tuple[str, tuple[str, ...]]:
    """Return the provider's id, and the model's possible names in the order in which to try them."""
    known = {listed.id for listed in snapshot.providers}
    prefix, slash, rest = name.partition("/")
    named = _provider_id(prefix) if slash and _provider_id(prefix) in known else None
    chosen = _provider_id(provider) if provider else _by_address(snapshot, base_url)
    if "openrouter" in (chosen, named):
        # A search beside the same model, at the same price.
        name, rest = name.removesuffix(":online"), rest.removesuffix(":online")
    if chosen is not None:
        # A router's own names have slashes, so the whole name comes first.
        return chosen, (name, rest) if named == chosen else (name,)
    if named is not None:
        return named, (rest, name)
    return DEFAULT_PROVIDER, (name,)


def _claimed(snapshot: DataSnapshot, name: str) -> str | None:
    """Return the only provider that a bare name can be of: by its family, else the only one that lists it."""
    listing = [one for one in snapshot.providers if _listed(snapshot, one.id, name) is not None]
    family = [one for one in listing if one.model_match is not None and one.model_match.is_match(name)]
    found = family or listing
    return found[0].id if len(found) == 1 else None


def _by_address(snapshot: DataSnapshot, base_url: str | None) -> str | None:
    if not base_url:
        return None
    return next(
        (
            provider_id
            for provider_id, pattern in (
                *((one.id, one.api_pattern) for one in snapshot.providers),
                *_MORE_ADDRESSES,
            )
            if _is_at(pattern, str(base_url))
        ),
        None,
    )


def _is_at(pattern: str, base_url: str) -> bool:
    """Whether an address begins like a provider's, and its host does not go on after that."""
    found = re.match(pattern, base_url, re.IGNORECASE)
    if found is None:
        return False
    rest = base_url[found.end() :]
    # Some patterns end where any country's ending may follow.
    return found[0].endswith(("/", ".")) or not rest or rest[0] in ":/?#"


def _remedy(snapshot: DataSnapshot, provider_id: str, model: str, base_url: str | None) -> str:
    """Say what else may be meant by a name that nobody prices: a deployment's, a model of one's own."""
    if provider_id == AZURE:
        return (
            f" If it is a deployment, say which model it serves: configure(model_map={{{model!r}: "
            "'gpt-4o-mini'})."
        )
    address = Address.of(base_url) if base_url else None
    if address is None or _by_address(snapshot, base_url) is not None:
        return ""
    where = urlsplit(str(base_url))
    return (
        " If the server costs nothing, say so: "
        f"configure(free_base_urls=['{where.scheme}://{where.netloc}{where.path.rstrip('/')}'])."
    )


def _listed(snapshot: DataSnapshot, provider_id: str, name: str) -> ModelInfo | None:
    provider = next((listed for listed in snapshot.providers if listed.id == provider_id), None)
    if provider is None:
        return None
    model = provider.find_model(name, all_providers=snapshot.providers)
    if model is None or not _is_certain(provider, snapshot, model, name):
        return None
    return model


def _is_certain(provider: Provider, snapshot: DataSnapshot, model: ModelInfo, name: str) -> bool:
    """Whether the list means this very model, and not one whose name merely begins like it."""
    if name.startswith("ft:"):
        base = name.removeprefix("ft:").partition(":")[0]
        return _listed(snapshot, provider.id, base) is not None
    if not _has_prices(model, None):
        # A model that is listed without any price is free only where the provider says so.
        return name.endswith(":free") or _MODERATION.fullmatch(name) is not None
    return _names(model.match, name) or _names(model.match, _dashed_date(name))


def _dashed_date(name: str) -> str:
    return re.sub(r"-(20\d{2})(\d{2})(\d{2})(?=[-:]|$)", r"-\1-\2-\3", name)


def _names(clause: MatchLogic, name: str) -> bool:
    from genai_prices import types

    match clause:
        case types.ClauseEquals(equals=text):
            return name == text.lower()
        case types.ClauseOr(or_=clauses):
            return any(_names(one, name) for one in clauses)
        case types.ClauseAnd(and_=clauses):
            return all(one.is_match(name) for one in clauses) and any(_names(one, name) for one in clauses)
        case types.ClauseRegex(regex=pattern):
            return pattern.startswith("^") and pattern.endswith("$") and re.search(pattern, name) is not None
        case types.ClauseStartsWith(starts_with=text) | types.ClauseContains(contains=text):
            before, found, after = name.partition(text.lower())
            return bool(found) and _VENDOR_PREFIX.fullmatch(before) is not None and _is_version(text, after)
        case types.ClauseEndsWith(ends_with=text):
            return name.endswith(text.lower()) and _VENDOR_PREFIX.fullmatch(name[: -len(text)]) is not None
    return False


def _is_version(text: str, after: str) -> bool:
    if text.endswith(("-", "@", ":")):
        # The clause ends where the version begins: `gpt-5-nano-`, `ft:gpt-4o-2024-`.
        return _SAME_MODEL.fullmatch("-" + after) is not None or _DATE_REST.fullmatch(after) is not None
    return _SAME_MODEL.fullmatch(after) is not None


def _has_prices(model: ModelInfo, at: datetime | None) -> bool:
    return any(value is not None for value in vars(model.get_prices(at_or_now(at))).values())


def _suggestion(snapshot: DataSnapshot, provider_id: str, name: str) -> str:
    ids = [model.id for listed in snapshot.providers if listed.id == provider_id for model in listed.models]
    near = difflib.get_close_matches(name, ids, n=1, cutoff=0.75)
    if near:
        return f" The nearest known name is {near[0]!r}."
    for listed in snapshot.providers:
        if listed.model_match is not None and listed.model_match.is_match(name) and listed.id != provider_id:
            return f" If {listed.name} serves it, name the provider: '{listed.id}/{name}'."
    return ""
