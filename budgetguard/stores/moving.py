"""Move a project from one store to another while programs still write to the first.

    copy(from_store, to_store)

goes over all rows, then again and again over what changed meanwhile, until that is little. Then it retires
the first store, so that whoever writes to it is refused and told whereto the project has moved, copies the
rest, compares the two to the last Nano, and opens the second. What it is interrupted in can be repeated:
rows that come again change nothing. Until the end the second store takes no calls, and if the two are not
the same, the first goes on as if nothing had been.

Settlements that were under way are refused like all else, and wait in the spool: see `delivering`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from budgetguard.core.money import Nanos, format_usd
from budgetguard.core.rows import (
    AccountRow,
    Export,
    HoldRow,
    Stored,
    StoredAccount,
    StoredHold,
    StoredObservations,
    StoredSwept,
    gone_since,
)
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores.base import public_url
from budgetguard.stores.movable import BATCH, COPY, Movable
from budgetguard.stores.verifying import Latest

_OVERLAP: Final = 60_000
"""Milliseconds that a pass goes back behind the one before it: a verb is stored later than its time says."""
_PASSES: Final = 6
_SHORT: Final = 1.0
"""Seconds that a pass may take for the next to be the last."""
_LEEWAY: Final = 3_600_000
"""Milliseconds before the end of the retention at which either store may have removed a row, or not yet."""

_NEVER: Final = 2**53 - 1
"""A time after which no hold has ended: an export since then is of accounts, and what is under way."""

_MASK: Final = 2**128 - 1


@dataclass(frozen=True, slots=True)
class Progress:
    """Tell how far a copy has come.

    Attributes:
        step: `copying`, `comparing`.
        number: which pass over the rows, from 1.
        rows: how many rows in it so far.
        retired: whether the first store takes writes no more.
    """

    step: str
    number: int
    rows: int
    retired: bool


@dataclass(slots=True)
class Sums:
    """Hold what the rows of a project come to.

    Attributes:
        accounts: how many there are.
        limit: Nanos that all limits come to.
        spent: Nanos that all accounts have spent.
        held: Nanos that all accounts hold.
        records: how many calls are recorded, open ones too.
        cost: Nanos that they cost.
        open: how many of them are open.
    """

    accounts: int = 0
    limit: Nanos = 0
    spent: Nanos = 0
    held: Nanos = 0
    records: int = 0
    cost: Nanos = 0
    open: int = 0
    fingerprint: int = field(default=0, repr=False)


@dataclass(frozen=True, slots=True)
class Copied:
    """Hold what a copy did.

    Attributes:
        action: `moved`; `copied`, where the first store stays in use; `none`, where all had moved before.
        passes: how often it went over the rows.
        rows: how many it wrote.
        stood_still: seconds for which neither store took writes.
        sums: what the rows of the second store come to.
    """

    action: str
    passes: int
    rows: int
    stood_still: float
    sums: Sums


def copy(
    source: Movable,
    target: Movable,
    *,
    keep_open: bool = False,
    tell: Callable[[Progress], None] = lambda progress: None,
) -> Copied:
    """Copy a project to another store, and let it move there.

    Args:
        source: where it is. Programs may write to it meanwhile.
        target: where it shall be: empty of that project, or an unfinished copy of this one.
        keep_open: copy what there is now, and let the project stay. The copy can be read and takes no calls.
        tell: is told how far it has come.

    Raises:
        ConfigurationError: the target has another project of that name, or the source is no more where the
            project is.
        StoreError: a store cannot be read or written, or the two are not the same in the end: then the
            project stays, and copying can be repeated.
    """
    return _Copying(source, target, tell).run(keep_open=keep_open)


class _Copying:
    def __init__(self, source: Movable, target: Movable, tell: Callable[[Progress], None]) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._mark = f"{COPY}project {source.project!r} of {public_url(source.url)}"
        self._passes = 0
        self._rows = 0
        self._retired = False

    def run(self, *, keep_open: bool) -> Copied:
        whereto = public_url(self._target.url)
        before = self._source.retired()
        note = self._target.retired()
        if before == whereto and note is None:
            return Copied("none", 0, 0, 0.0, _sums_of(self._target.export(), 0))
        self._check(before, note)
        if note is None:
            self._target.retire(self._mark)
        if keep_open:
            self._pass(0)
            self._remove_stale()
            return Copied("copied", self._passes, self._rows, 0.0, _sums_of(self._target.export(), 0))
        since = self._catch_up()
        stopped = time.monotonic()
        self._retire(whereto)
        try:
            sums = self._finish(since)
        except BaseException:
            # The target is still closed, so the project can only go on where it was.
            with suppress(StoreError):
                self._source.retire(before if before != whereto else None)
            raise
        self._target.retire(None)
        return Copied("moved", self._passes, self._rows, time.monotonic() - stopped, sums)

    def _check(self, before: str | None, note: str | None) -> None:
        whereto, origin = public_url(self._target.url), public_url(self._source.url)
        project = self._target.project
        if (whereto, project) == (origin, self._source.project):
            raise ConfigurationError(f"project {project!r} is to be copied from {origin} to itself")
        if before is not None and before != whereto and not before.startswith(COPY):
            raise ConfigurationError(
                f"project {self._source.project!r} has moved from {origin} to {before}: copy it from there"
            )
        if note is not None and note != self._mark:
            what = f"a {note}" if note.startswith(COPY) else f"a project that has moved to {note}"
            raise ConfigurationError(
                f"{whereto} has {what} under the name {project!r}: copy to another store, or another project"
            )
        if note is None:
            for one in self._target.export().rows:
                if isinstance(one, StoredSwept):  # no row is left
                    continue
                raise ConfigurationError(
                    f"{whereto} has a project {project!r} already, with {_name_of(one)}: a copy would write "
                    "over it. Copy to another store or another project, or delete that one"
                )

    def _catch_up(self) -> Milliseconds:
        """Copy until little changes while it is copied; return since when the rest has changed."""
        since: Milliseconds = 0
        before = 0
        for number in range(_PASSES):
            began, rows = time.monotonic(), self._rows
            since = self._pass(since)
            rows = self._rows - rows
            # Where as much changes as is copied, another pass would not make the rest any less.
            if time.monotonic() - began < _SHORT or (number and rows > before // 2):
                break
            before = rows
        return since

    def _retire(self, whereto: str) -> None:
        try:
            self._source.retire(whereto)
        except BaseException:
            with suppress(StoreError):
                self._source.retire(None)  # its answer may have been lost, and nobody would know
            raise
        self._retired = True

    def _finish(self, since: Milliseconds) -> Sums:
        for again in (since, 0):
            self._pass(again)
            self._remove_stale()
            ours, theirs, differing = self._compare()
            if ours == theirs and not differing:
                return theirs
        names = ", ".join(differing[:10]) or "none"
        raise StoreError(
            f"the copy at {public_url(self._target.url)} is not the same: {_said(ours)} here, "
            f"{_said(theirs)} there; accounts that differ: {names}. Nothing has moved: it goes on at "
            f"{public_url(self._source.url)}, and copying can be repeated"
        )

    def _pass(self, since: Milliseconds) -> Milliseconds:
        self._passes += 1
        export = self._source.export(since)
        self._target.restore(self._counted("copying", export.rows))
        return max(0, export.at - _OVERLAP)

    def _counted(self, step: str, rows: Iterator[Stored]) -> Iterator[Stored]:
        count = 0
        for count, one in enumerate(rows, 1):
            yield one
            if count % BATCH == 0:
                self._tell(Progress(step, self._passes, count, self._retired))
        if step == "copying":
            self._rows += count
        self._tell(Progress(step, self._passes, count, self._retired))

    def _remove_stale(self) -> None:
        """Remove accounts from the copy that were deleted since an earlier pass."""
        self._target.restore(
            StoredAccount(name, None)
            for name, here, _ in _side_by_side(_accounts(self._source), _accounts(self._target))
            if here is None
        )

    def _compare(self) -> tuple[Sums, Sums, list[str]]:
        here, there = self._source.export(), self._target.export()
        kept = min(self._source.retention_ms, self._target.retention_ms)
        horizon = max(here.at, there.at) - kept + min(_LEEWAY, kept // 10)
        ours = _sums_of(Export(here.at, self._counted("comparing", here.rows)), horizon)
        theirs = _sums_of(Export(there.at, self._counted("comparing", there.rows)), horizon)
        differing: list[str] = []
        if ours != theirs:
            pairs = _side_by_side(_accounts(self._source), _accounts(self._target))
            differing = [name for name, mine, other in pairs if mine != other]
        return ours, theirs, differing


def _sums_of(export: Export, horizon: Milliseconds) -> Sums:
    """Add up what is exported, without what retention may have removed by the horizon."""
    sums = Sums()
    latest = Latest(export)
    for one in export.rows:
        if isinstance(one, StoredHold):
            before = latest.replaced(one.id, one.row)
            if before is not None:
                _add_hold(sums, one.id, before, -1, horizon)
            _add_hold(sums, one.id, one.row, 1, horizon)
        elif isinstance(one, StoredAccount):
            if one.row is not None and not _may_be_gone(one.row, horizon):
                sums.accounts += 1
                sums.limit += one.row["limit"] or 0
                sums.spent += one.row["spent"]
                sums.held += one.row["held"]
                sums.fingerprint = sums.fingerprint + _hash("account", one.name, one.row) & _MASK
        elif isinstance(one, StoredObservations):
            sums.fingerprint = sums.fingerprint + _hash("model", one.model, one.counts) & _MASK
    return sums


def _add_hold(sums: Sums, hold_id: str, row: HoldRow, sign: int, horizon: Milliseconds) -> None:
    gone = gone_since(row)
    if gone is not None and gone < horizon:
        return
    sums.records += sign
    sums.cost += sign * row["cost"]
    sums.open += sign * (row["state"] == "held")
    sums.fingerprint = sums.fingerprint + sign * _hash("hold", hold_id, row) & _MASK


def _may_be_gone(row: AccountRow, horizon: Milliseconds) -> bool:
    return row["ephemeral"] and not row["open"] and row["updated"] < horizon


def _hash(kind: str, name: str, row: object) -> int:
    text = json.dumps([kind, name, row], sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())


def _accounts(store: Movable) -> Iterator[tuple[str, AccountRow]]:
    for one in store.export(_NEVER).rows:
        if isinstance(one, StoredAccount) and one.row is not None:
            yield one.name, one.row


def _side_by_side(
    ours: Iterator[tuple[str, AccountRow]], theirs: Iterator[tuple[str, AccountRow]]
) -> Iterator[tuple[str, AccountRow | None, AccountRow | None]]:
    """Yield every account of two lists in order of their names, with its row in each."""
    one, other = next(ours, None), next(theirs, None)
    while one is not None or other is not None:
        name = min(found[0] for found in (one, other) if found is not None)
        mine = one[1] if one is not None and one[0] == name else None
        yours = other[1] if other is not None and other[0] == name else None
        yield name, mine, yours
        if mine is not None:
            one = next(ours, None)
        if yours is not None:
            other = next(theirs, None)


def _name_of(one: StoredAccount | StoredHold | StoredObservations) -> str:
    if isinstance(one, StoredHold):
        return f"records of calls ({one.id} is one)"
    return f"account {one.name}" if isinstance(one, StoredAccount) else f"what was learned of {one.model}"


def _said(sums: Sums) -> str:
    return (
        f"{sums.accounts} accounts with {format_usd(sums.spent)} spent and {format_usd(sums.held)} held, "
        f"{sums.records} calls of {format_usd(sums.cost)}"
    )
