"""The prices that a program registers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, TypeAlias

from budgetguard.pricing.said import Said, has_begun, is_whole

REGISTERED: Final = "registered"


@dataclass(frozen=True, slots=True)
class RegisteredPrice:
    """One registered price of a model.

    Attributes:
        prices: USD by price key.
        valid_from: when it begins; None is always.
    """

    prices: Mapping[str, Decimal]
    valid_from: datetime | None


Registrations: TypeAlias = Mapping[tuple[str | None, str], tuple[RegisteredPrice, ...]]
"""(provider or None, model in lower case) -> its prices, of different begins."""


class Registered:
    """Registered prices, which several price books may share. Safe to use from many threads.

    Attributes:
        prices: those in force, a new mapping after each change.
    """

    def __init__(self) -> None:
        self.prices: Registrations = {}
        self._lock = threading.RLock()

    def add(self, model: str, provider: str | None, price: RegisteredPrice) -> None:
        """Add a model's price. It replaces an earlier one of the same begin."""
        key = provider, model
        with self._lock:
            others = [one for one in self.prices.get(key, ()) if one.valid_from != price.valid_from]
            # A new mapping, because rates that were looked up before refer to the old one.
            self.prices = {**self.prices, key: (*others, price)}


def registered(prices: Registrations, provider_id: str, names: Iterable[str], at: datetime) -> Said | None:
    """Return what is registered for a model, or None.

    Args:
        prices: registered ones.
        provider_id: genai-prices' id of the provider.
        names: the model's possible names, in the order in which to try them.
        at: the instant. Of several prices the latest that has begun counts.
    """
    if not prices:
        return None
    for name in names:
        for key in ((provider_id, name), (None, name)):
            begun = [one for one in prices.get(key, ()) if has_begun(one.valid_from, at)]
            if begun:
                floor = datetime.min.replace(tzinfo=at.tzinfo)
                found = max(begun, key=lambda one: one.valid_from or floor).prices
                return Said(found, dict.fromkeys(found, REGISTERED), whole=is_whole(found))
    return None
