"""What a price file says of a model: its entries, and which of them count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase

from budgetguard.pricing.addresses import Address
from budgetguard.pricing.said import Said, has_begun, is_whole
from budgetguard.pricing.units import is_use_fee


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One `[[price]]` of a file: prices or a factor, and whose.

    Attributes:
        place: where it stands, for errors and `budgetguard prices`.
        model: a name or glob in lower case; None is every model.
        provider: genai-prices' provider id; None is every one.
        address: where calls go that it is for, or below; None is anywhere.
        prices: USD by price key; empty for a factor.
        factor: what more general prices of tokens are multiplied by.
        valid_from: when it begins; None is always.
    """

    place: str
    model: str | None
    provider: str | None
    address: Address | None
    prices: Mapping[str, Decimal]
    factor: Decimal | None
    valid_from: datetime | None

    @property
    def whose(self) -> tuple[Address | None, str | None, str | None, bool]:
        """What it is for. Two entries for the same differ in their begin."""
        return self.address, self.provider, self.model, self.factor is not None

    @property
    def rank(self) -> tuple[int, bool, bool, int, bool]:
        """How specific it is: the higher comes first. A price comes before a factor for the same."""
        name = self.model or ""
        literal = sum(letter not in "*?[]" for letter in name)
        length = 0 if self.address is None else 1 + len(self.address.path)
        is_name = self.model is not None and not is_glob(name)
        return length, self.provider is not None, is_name, literal, self.factor is None

    def matches(self, provider_id: str, names: Iterable[str], address: Address | None) -> bool:
        """Whether it is for a model at a provider and an address."""
        if self.provider is not None and self.provider != provider_id:
            return False
        if self.address is not None and (address is None or not self.address.covers(address)):
            return False
        if self.model is None:
            return True
        if is_glob(self.model):
            return any(fnmatchcase(name, self.model) for name in names)
        return self.model in names


def is_glob(name: str) -> bool:
    """Whether a model's name stands for several: one with `*`, `?` or `[`."""
    return any(letter in name for letter in "*?[")


def said_in(
    entries: Sequence[FileEntry],
    provider_id: str,
    names: Sequence[str],
    base_url: str | None,
    at: datetime,
) -> Said | None:
    """Return what a file's entries say together of a model, or None.

    The most specific entry counts: that for an address before that for a provider, then a name before a glob.
    More general ones add what it does not say, up to the first that has a price of input or output. A factor
    multiplies the prices of entries that are more general than itself.

    Args:
        entries: the file's, the most specific first.
        provider_id: genai-prices' id of the provider.
        names: the model's possible names, in lower case.
        base_url: the API's address.
        at: the instant.
    """
    if not entries:
        return None
    address = Address.of(str(base_url)) if base_url else None
    latest: dict[object, FileEntry] = {}
    for entry in entries:
        if has_begun(entry.valid_from, at) and entry.matches(provider_id, names, address):
            other = latest.get(entry.whose)
            if other is None or _is_later(entry, other):
                latest[entry.whose] = entry
    if not latest:
        return None
    prices: dict[str, Decimal] = {}
    origins: dict[str, str] = {}
    factor: FileEntry | None = None
    for entry in latest.values():
        if entry.factor is not None:
            factor = factor or entry
            continue
        by = Decimal(1) if factor is None or factor.factor is None else factor.factor
        for key, price in entry.prices.items():
            if key not in prices:
                prices[key] = price if is_use_fee(key) else price * by
                origins[key] = entry.place
        if is_whole(entry.prices):
            break
    return Said(
        prices,
        origins,
        whole=is_whole(prices),
        factor=None if factor is None else factor.factor,
        factor_origin=None if factor is None else factor.place,
    )


def _is_later(one: FileEntry, other: FileEntry) -> bool:
    return one.valid_from is not None and (other.valid_from is None or one.valid_from > other.valid_from)
