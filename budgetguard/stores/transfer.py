"""Move a project from one store to another.

    move(from_store, to_store)

freezes the project in the first store, so that every verb that writes there raises StoreError; imports all of
its rows into the second, which is frozen too and so takes no calls; compares the two to the last Nano; and
opens the second. The first stays frozen, and says whereto the project has moved. If anything fails, the first
is opened again and nothing has moved. Where the mover is killed, both stay frozen: repeat it, or `undo` it.

Settlements of calls that are under way meanwhile are refused like all else, and wait in the spool:
`budgetguard.engine.spool` sends them to the second store.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal, TypeVar

from budgetguard.core.money import Nanos, format_usd
from budgetguard.core.rows import (
    AccountRow,
    Export,
    HoldRow,
    Stored,
    StoredAccount,
    StoredEntry,
    StoredHold,
    StoredObservations,
    StoredScopes,
    StoredSwept,
    gone_since,
)
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores.base import Transfer, public_url
from budgetguard.stores.verifying import Latest

BATCH: Final = 500
"""Rows that a store takes in one transaction."""

_MOVING: Final = "moving to "
_MOVED: Final = "moved to "
_COPY: Final = "copy of "
_LEEWAY: Final = 3_600_000
"""Milliseconds before the end of the retention at which either store may have removed a row, or not yet."""
_MASK: Final = 2**128 - 1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a move has come: the step, and how many rows of it are done."""

    step: Literal["copying", "comparing"]
    rows: int


@dataclass(slots=True)
class Sums:
    """What the rows of a project come to.

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
    by_account: dict[str, int] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did.

    Attributes:
        action: `none` where the project had moved before.
        rows: how many rows were imported.
        seconds: for how long neither store took writes.
        sums: what the rows of the second store come to.
    """

    action: Literal["moved", "none"]
    rows: int
    seconds: float
    sums: Sums


def move(
    source: Transfer, target: Transfer, *, tell: Callable[[Progress], None] = lambda progress: None
) -> Moved:
    """Move a project to another store. One mover at a time.

    Args:
        source: where the project is.
        target: where it shall be: empty of that project, or an unfinished copy of this one.
        tell: is called with how far the move has come.

    Raises:
        ConfigurationError: the target has another project of that name, or the source is no more where the
            project is.
        StoreError: a store cannot be read or written, or the two are not the same in the end: the project
            stays where it was, and can be moved again.
    """
    return _Move(source, target, tell).run()


def undo(source: Transfer) -> None:
    """Open a project again whose move was killed.

    Raises:
        ConfigurationError: it is not being moved.
        StoreError: the store cannot be read or written.
    """
    note = source.frozen()
    if note is None or not note.startswith(_MOVING):
        state = "is in use" if note is None else f"is a project that has {note}"
        raise ConfigurationError(f"{source.project!r} of {public_url(source.url)} {state}: nothing to undo")
    source.freeze(None)


def frozen_error(store: Transfer, note: str) -> StoreError:
    """Return the error of a verb that would write to a frozen project."""
    project, here = f"project {store.project!r}", public_url(store.url)
    if note.startswith(_COPY):
        return StoreError(
            f"{project} of {here} is an unfinished {note}: programs use that one until `budgetguard copy` "
            "has moved it. Nothing was changed"
        )
    if note.startswith(_MOVING):
        there = note.removeprefix(_MOVING)
        return StoreError(
            f"{project} is being moved from {here} to {there}, which takes no calls until that is done: try "
            "again then, with that store. If the move was interrupted, repeat `budgetguard copy`, or take it "
            "back with `budgetguard copy --undo`. Nothing was changed"
        )
    there = note.removeprefix(_MOVED)
    return StoreError(
        f"{project} has moved from {here} to {there}: name that store (BUDGETGUARD_STORE, or the argument "
        "store) and start the program again. Nothing was changed. Settlements of calls that the move has "
        f"overtaken wait in the spool: `budgetguard deliver --from {here} --to {there}` sends them"
    )


def open_error(store: Transfer) -> StoreError:
    """Return the error of an import into a project that is in use."""
    return StoreError(
        f"project {store.project!r} of {public_url(store.url)} is in use, and rows would be written over it: "
        "freeze it first. Nothing was changed"
    )


def batches(rows: Iterable[_T], size: int = BATCH) -> Iterator[list[_T]]:
    """Yield rows in lists of up to so many."""
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch


class _Move:
    def __init__(self, source: Transfer, target: Transfer, tell: Callable[[Progress], None]) -> None:
        self._source = source
        self._target = target
        self._tell = tell
        self._origin, self._whereto = public_url(source.url), public_url(target.url)
        self._mark = f"{_COPY}project {source.project!r} of {self._origin}"
        self._rows = 0

    def run(self) -> Moved:
        moving, moved = f"{_MOVING}{self._whereto}", f"{_MOVED}{self._whereto}"
        before, note = self._source.frozen(), self._target.frozen()
        if before == moved and note is None:
            return Moved("none", 0, 0.0, _sums_of(self._target.export(), 0))
        began = time.monotonic()
        if before == moved and note == self._mark:  # killed when all was done but to open the target
            self._target.freeze(None)
            return Moved("moved", 0, time.monotonic() - began, _sums_of(self._target.export(), 0))
        self._check(before, note, moving)
        if note is None:
            self._target.freeze(self._mark)
        try:
            self._source.freeze(moving)
            self._import()
            sums = self._compare()
        except BaseException:
            with suppress(StoreError):
                if self._target.frozen() == self._mark:  # else another mover has finished
                    self._source.freeze(None)
            raise
        self._source.freeze(moved)
        self._target.freeze(None)
        return Moved("moved", self._rows, time.monotonic() - began, sums)

    def _check(self, before: str | None, note: str | None, moving: str) -> None:
        project = self._source.project
        if (self._whereto, self._target.project) == (self._origin, project):
            raise ConfigurationError(f"project {project!r} is to be moved from {self._origin} to itself")
        if before is not None and before != moving:
            remedy = "move it from there" if before.startswith(_MOVED) else "finish that move, or undo it"
            state = f"is a {before}" if before.startswith(_COPY) else f"is {before}"
            raise ConfigurationError(f"project {project!r} of {self._origin} {state}: {remedy}")
        if note is not None and note != self._mark:
            what = f"a {note}" if note.startswith(_COPY) else f"a project that is {note}"
            raise ConfigurationError(
                f"{self._whereto} has {what} under the name {project!r}: name another store"
            )
        if note is None:
            for one in self._target.export().rows:
                if isinstance(one, StoredSwept):  # no row is left
                    continue
                raise ConfigurationError(
                    f"{self._whereto} has a project {project!r} already, with {_name_of(one)}, which would "
                    "be written over: name another store, or delete that project"
                )

    def _import(self) -> None:
        # What an earlier move imported may have been deleted since.
        earlier = [one.name for one in self._target.export().rows if isinstance(one, StoredAccount)]
        self._target.restore(StoredAccount(name, None) for name in earlier)
        self._target.restore(self._counted("copying", self._source.export().rows))

    def _compare(self) -> Sums:
        here, there = self._source.export(), self._target.export()
        kept = min(self._source.retention_ms, self._target.retention_ms)
        horizon = max(here.at, there.at) - kept + min(_LEEWAY, kept // 10)
        ours = _sums_of(Export(here.at, self._counted("comparing", here.rows)), horizon)
        theirs = _sums_of(Export(there.at, self._counted("comparing", there.rows)), horizon)
        if ours == theirs:
            return theirs
        names = sorted(name for name, _ in ours.by_account.items() ^ theirs.by_account.items())
        differing = ", ".join(dict.fromkeys(names[:10])) or "none"
        raise StoreError(
            f"what was imported to {self._whereto} is not the same: {_totals(ours)} here, {_totals(theirs)} "
            f"there; accounts that differ: {differing}. Nothing has moved: the project goes on at "
            f"{self._origin}, and can be moved again"
        )

    def _counted(self, step: Literal["copying", "comparing"], rows: Iterator[Stored]) -> Iterator[Stored]:
        count = 0
        for count, one in enumerate(rows, 1):
            yield one
            if count % BATCH == 0:
                self._tell(Progress(step, count))
        if step == "copying":
            self._rows += count
        self._tell(Progress(step, count))


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
                sums.by_account[one.name] = _hash("account", one.name, [one.row, dict(one.open)])
        elif isinstance(one, StoredObservations):
            sums.fingerprint = sums.fingerprint + _hash("model", one.model, one.counts) & _MASK
        elif isinstance(one, StoredEntry):
            sums.fingerprint = sums.fingerprint + _hash("entry", one.entry.id, one.entry.text) & _MASK
        elif isinstance(one, StoredScopes):
            sums.fingerprint = sums.fingerprint + _hash("scopes", "", one.document.rules) & _MASK
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
    return row["ephemeral"] and not row["opened"] and row["updated"] < horizon


def _hash(kind: str, name: str, row: object) -> int:
    text = json.dumps([kind, name, row], sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())


def _name_of(one: StoredAccount | StoredHold | StoredObservations | StoredEntry | StoredScopes) -> str:
    if isinstance(one, StoredEntry | StoredScopes):
        return "an audit trail, or scopes of budgets"
    if isinstance(one, StoredHold):
        return f"records of calls ({one.id} is one)"
    return f"account {one.name}" if isinstance(one, StoredAccount) else f"what was learned of {one.model}"


def _totals(sums: Sums) -> str:
    return (
        f"{sums.accounts} accounts with {format_usd(sums.spent)} spent and {format_usd(sums.held)} held, "
        f"{sums.records} calls of {format_usd(sums.cost)}"
    )
