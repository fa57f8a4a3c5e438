"""What a model costs at one instant: the user's prices, genai-prices' list and the extra prices, in order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from budgetguard.pricing.entries import FileEntry, said_in
from budgetguard.pricing.extra import Extra, extra_prices
from budgetguard.pricing.matching import (
    DEFAULT_PROVIDER,
    OPENROUTER,
    ROUTERS,
    has_prices,
    listed_model,
    meant,
    provider_by_address,
)
from budgetguard.pricing.other_names import OtherName, other_name
from budgetguard.pricing.rates import Rates
from budgetguard.pricing.regions import regional_factor
from budgetguard.pricing.registered import Registrations, registered
from budgetguard.pricing.said import Said
from budgetguard.pricing.sources import FixedSource, ListedSource, Source, scaled
from budgetguard.pricing.units import priced_unit, wholes

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo

_SERVED_REMEMBERED = 64
_NOTHING = Said()
_ZERO = Decimal(0)

# The date after a model's name in an answer, which a registered name may lack.
_DATED = re.compile(r"-(?:\d{4}-?\d{2}-?\d{2}|\d{4})$")


@dataclass(frozen=True, slots=True)
class PriceLists:
    """The price lists at one instant.

    Attributes:
        snapshot: genai-prices' list.
        registered: the prices that the program has registered.
        entries: those of the price file, the most specific first.
        base_url: where the call goes, or None.
        at: the instant.
    """

    snapshot: DataSnapshot
    registered: Registrations
    entries: Sequence[FileEntry]
    base_url: str | None
    at: datetime

    def said(self, provider_id: str, names: Sequence[str]) -> Said:
        """Return what the user says of a model: registered prices come before those of the price file."""
        first = registered(self.registered, provider_id, names, self.at)
        if first is not None and first.whole:
            return first
        filed = said_in(self.entries, provider_id, names, self.base_url, self.at)
        if filed is None or first is None:
            return filed or first or _NOTHING
        prices, origins = {**filed.prices, **first.prices}, {**filed.origins, **first.origins}
        return replace(filed, prices=prices, origins=origins)

    def source(self, provider_id: str, names: tuple[str, ...], said: Said) -> Source | None:
        """Return the source of a model's prices, or None if there is none."""
        if said.whole:
            return FixedSource(said.prices, free=said.is_free)
        names = self.with_others(provider_id, names)
        extra = _unsaid(extra_prices(provider_id, names), said.prices)
        listed = self.listed(provider_id, names)
        if listed is None:
            if not extra.known and not said.prices:
                return None
            by = Decimal(1) if said.factor is None else said.factor
            tiers = {tier: scaled(prices, by) for tier, prices in extra.tiers.items()}
            return FixedSource({**scaled(extra.prices, by), **said.prices}, free=False, tiers=tiers)
        if not has_prices(listed, self.at):
            # A router bills the tools that it runs, also those beside a free model.
            beside = extra.prices if names[-1].endswith(":free") else {}
            return ListedSource(listed, self.at, free=True, added=said.prices, beside=beside)
        factor = said.factor
        if factor is None:
            factor = regional_factor(provider_id, self.base_url, listed.id)
        return ListedSource(
            listed,
            self.at,
            free=False,
            added=said.prices,
            extra=extra,
            provider=provider_id,
            names=names,
            factor=factor,
        )

    def routed(self, provider_id: str, names: tuple[str, ...]) -> Source | None:
        """Return the source of a model that a router offers and its list lacks, or None.

        It costs what it does at its maker, whose name it begins with; what a router offers as free is free.
        """
        if provider_id not in ROUTERS:
            return None
        if provider_id == OPENROUTER and any(name.endswith(":free") for name in names):
            return FixedSource({"input_mtok": _ZERO, "output_mtok": _ZERO}, free=True)
        for name in names:
            maker, theirs = meant(self.snapshot, name, None, None)
            if "/" in name and name not in theirs[:1]:
                return self.source(maker, theirs, _NOTHING)
        return None

    def listed(self, provider_id: str, names: Iterable[str]) -> ModelInfo | None:
        """Return the listed model that the first name of several means."""
        found = (self._listed(provider_id, name) for name in names)
        return next((one for one in found if one is not None), None)

    def _listed(self, provider_id: str, name: str) -> ModelInfo | None:
        other = self.meaning(provider_id, name)
        return listed_model(self.snapshot, provider_id, name if other is None else other.model)

    def meaning(self, provider_id: str, name: str) -> OtherName | None:
        """Return what a name means that the list lacks, or has at the price of another model; else None."""
        other = other_name(provider_id, name)
        if other is None:
            return None
        found = listed_model(self.snapshot, provider_id, name)
        if found is not None and found.id not in other.instead_of:
            return None
        return other if listed_model(self.snapshot, provider_id, other.model) is not None else None

    def with_others(self, provider_id: str, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return a model's possible names with those of the listed models that they mean."""
        others = (other_name(provider_id, name) for name in names)
        return (*names, *(one.model for one in others if one is not None))


class ServedRates:
    """The rates of models that answers name instead of the requested one.

    Args:
        lists: what the requested model was priced from.
        provider_id: its provider.
        asked: its possible names.
        fixed: whether the provider is certain, by the call's address or by the caller.
    """

    def __init__(self, lists: PriceLists, provider_id: str, asked: tuple[str, ...], *, fixed: bool) -> None:
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
            said = self._lists.said(provider_id, (*names, *(_DATED.sub("", one) for one in names)))
            if said.whole:
                return self._rates(served, provider_id, names, said)
        asked = self._lists.listed(self._provider_id, (_base(one) for one in self._asked))
        for provider_id, names in places:
            found = self._lists.listed(provider_id, names)
            if found is None:
                continue
            if found is asked:
                return None
            return self._rates(served, provider_id, names, self._lists.said(provider_id, names))
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

    def _rates(self, served: str, provider_id: str, names: tuple[str, ...], said: Said) -> Rates | None:
        source = self._lists.source(provider_id, names, said)
        return None if source is None else Rates(served, provider_id, None, source.tables(None), source)


def served_rates(
    lists: PriceLists, provider_id: str, names: tuple[str, ...], said: Said, *, provider: str | None
) -> ServedRates | None:
    """Return what prices the models that answers name; None if the requested one's price always applies.

    A price of the user's for the requested model holds for whichever model answers.
    """
    if said.whole:
        return None
    fixed = provider is not None or provider_by_address(lists.snapshot, lists.base_url) is not None
    return ServedRates(lists, provider_id, names, fixed=fixed)


def _base(name: str) -> str:
    """Return the base of a fine-tuned model, which answers may name although the fine-tuned one is billed."""
    return name.removeprefix("ft:").partition(":")[0] if name.startswith("ft:") else name


def _unsaid(extra: Extra, said: Mapping[str, Decimal]) -> Extra:
    """Return extra prices without those that the user's prices cover."""
    if not said:
        return extra
    prices = {key: price for key, price in extra.prices.items() if not _is_said(key, said)}
    return replace(extra, prices=prices)


def _is_said(key: str, said: Mapping[str, Decimal]) -> bool:
    """Whether the user's prices cover a price, as such or as a part of what they price."""
    unit = priced_unit(key)
    assert unit is not None
    covered = {covering.usage_key for one in said if (covering := priced_unit(one)) is not None}
    return unit.usage_key in covered or not covered.isdisjoint(wholes(unit.usage_key))
