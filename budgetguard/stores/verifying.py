"""Add every balance up again from the records of calls, and find where a store says otherwise.

Each record names the accounts that booked it, and the epoch of each in which they did. What an account
has spent is the sum of the costs that were booked in its present epoch, or in those of its parts if it is
rolling; what it holds, the sum of the amounts of its open holds that its present window granted. Records
older than the store's retention are gone: an account whose window began before that can only be checked to
have spent at least their sum.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from budgetguard.core.accounts import unit_of
from budgetguard.core.booking import cost_of, held_of, live_epochs
from budgetguard.core.money import Nanos
from budgetguard.core.rows import AccountRow, Export, HoldRow, StoredAccount, StoredHold
from budgetguard.stores.base import Transfer

What: TypeAlias = Literal["spent", "held", "expired", "expiries", "open holds", "open holds listed"]

COUNTS: Final = ("expiries", "open holds", "open holds listed")
"""Numbers that are counts; the others are Nanos."""

_AGAIN_WITHIN: Final = 60_000
"""Milliseconds before an export began whose records may come twice in it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of a balance that its records do not come to.

    Attributes:
        account: whose.
        what: which number; `spent` with a model is what was spent on that model.
        model: the model, else None.
        stored: what the store says (Nanos, or a count).
        records: what the records come to.
    """

    account: str
    what: What
    stored: int
    records: int
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Attributes:
        accounts: how many were added up.
        records: how many records they were added up from.
        differences: what is not as it should be.
        partial: accounts that have spent more than their records say because older ones are gone.
    """

    accounts: int
    records: int
    differences: tuple[Difference, ...]
    partial: tuple[str, ...]

    def __bool__(self) -> bool:
        """Return whether every balance is what its records come to."""
        return not self.differences


def verify(store: Transfer) -> Verification:
    """Add up every balance of a store's project again, and compare.

    The store may be in use meanwhile. Nothing is changed in it, nor brought up to date.

    Raises:
        StoreError: it cannot be read.
    """
    export = store.export()
    horizon = export.at - store.retention_ms
    sums = _RecordSums(export)
    differences: list[Difference] = []
    partial: list[str] = []
    accounts = 0
    for one in export.rows:
        if isinstance(one, StoredHold):
            sums.add(one.id, one.row)
        elif isinstance(one, StoredAccount) and one.row is not None:
            accounts += 1
            may_lack = max(one.row["start"], one.row["created"]) < horizon
            found = list(_differences(one, one.row, sums))
            less = [one for one in found if may_lack and one.what in _BOOKED and one.records < one.stored]
            differences += [one for one in found if one not in less]
            if less:
                partial.append(one.name)
    return Verification(accounts, sums.records, tuple(differences), tuple(partial))


_BOOKED: Final = ("spent", "expired", "expiries")


@dataclass(slots=True)
class _Booked:
    spent: Nanos = 0
    expired: Nanos = 0
    expiries: int = 0
    models: Counter[str] = field(default_factory=Counter)

    def add(self, other: _Booked) -> None:
        self.spent += other.spent
        self.expired += other.expired
        self.expiries += other.expiries
        self.models.update(other.models)


class Latest:
    """Records of which one that comes again replaces what came before.

    Only those are remembered that may come again: the others are as they will always be.

    Args:
        export: where they come from.
    """

    def __init__(self, export: Export) -> None:
        self._final_before = export.at - _AGAIN_WITHIN
        self._last: dict[str, HoldRow] = {}

    def replaced(self, hold_id: str, row: HoldRow) -> HoldRow | None:
        """Return what came of a hold before, None if nothing did; remember what comes now."""
        before = self._last.pop(hold_id, None)
        if row["state"] in ("held", "expired") or (row["ended"] or 0) >= self._final_before:
            self._last[hold_id] = row
        return before


class _RecordSums:
    """What the records come to so far, by account and epoch, and by account and window."""

    def __init__(self, export: Export) -> None:
        self.records = 0
        self.booked: defaultdict[tuple[str, int], _Booked] = defaultdict(_Booked)
        self.held: Counter[tuple[str, int]] = Counter()
        self.open: Counter[str] = Counter()
        self._latest = Latest(export)

    def add(self, hold_id: str, row: HoldRow) -> None:
        before = self._latest.replaced(hold_id, row)
        if before is not None:
            self._count(before, -1)
        self._count(row, 1)

    def _count(self, row: HoldRow, sign: int) -> None:
        self.records += sign
        if row["state"] == "held":
            for name, window in row["accounts"].items():
                self.held[name, window] += sign * held_of(row, unit_of(name))
                self.open[name] += sign
            return
        for name, epoch in row["epochs"].items():
            booked, cost = self.booked[name, epoch], cost_of(row, unit_of(name))
            booked.spent += sign * cost
            booked.models[row["model"]] += sign * cost
            if row["state"] == "expired":
                booked.expired += sign * cost
                booked.expiries += sign


def _differences(stored: StoredAccount, row: AccountRow, sums: _RecordSums) -> Iterator[Difference]:
    name = stored.name
    booked = _Booked()
    for epoch in live_epochs(row):
        if (name, epoch) in sums.booked:
            booked.add(sums.booked[name, epoch])
    numbers: tuple[tuple[What, int, int], ...] = (
        ("spent", row["spent"], booked.spent),
        ("held", row["held"], sums.held[name, row["window"]]),
        ("expired", row["expired"], booked.expired),
        ("expiries", row["expiries"], booked.expiries),
        ("open holds", row["opened"], sums.open[name]),
        ("open holds listed", len(stored.open), sums.open[name]),
    )
    for what, kept, added_up in numbers:
        if kept != added_up:
            yield Difference(name, what, kept, added_up)
    for model in sorted(row["models"].keys() | booked.models.keys()):
        kept, added_up = row["models"].get(model, 0), booked.models[model]
        if kept != added_up:
            yield Difference(name, "spent", kept, added_up, model)
