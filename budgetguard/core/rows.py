"""Rows: the stored form of accounts and holds, and what can be computed from one row alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, TypedDict

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import HoldRecord, HoldState
from budgetguard.core.money import Nanos
from budgetguard.core.usage import Observations, Usage
from budgetguard.core.windows import Milliseconds, window_at

NEVER: Final = 2**62
"""The time (milliseconds) that stands for no time at all."""


class AccountRow(TypedDict):
    """The stored form of an account: JSON values only.

    Its open holds are those whose rows name it. It knows their number (`opened`), and a time before which
    none of them expires (`due`): a lower bound, since a hold that ends does not move it.
    """

    limit: Nanos | None
    duration: str | None
    timezone: str
    anchor: Milliseconds
    start: Milliseconds
    end: Milliseconds | None
    window: int
    epoch: int
    spent: Nanos
    held: Nanos
    expired: Nanos
    expiries: int
    models: dict[str, Nanos]
    opened: int
    due: Milliseconds
    crossed: list[int]
    created: Milliseconds
    updated: Milliseconds
    ephemeral: bool


class HoldRow(TypedDict):
    """The stored form of a hold: JSON values only, and no text of the call.

    `accounts` are its accounts, with the window of each that granted it; `epochs` the accounts that booked
    what it cost, with the epoch of each in which they did.
    """

    state: HoldState
    accounts: dict[str, int]
    epochs: dict[str, int]
    amount: Nanos
    on_expiry: Nanos
    cost: Nanos
    created: Milliseconds
    expires: Milliseconds
    ended: Milliseconds | None
    user: str | None
    model: str
    endpoint: str
    outcome: str | None
    request_id: str | None
    usage: dict[str, int]
    tags: list[str]


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account as a store has it.

    Attributes:
        row: None removes the account from the store that takes it.
        open: the open holds that the store lists for it, with when they expire.
    """

    name: str
    row: AccountRow | None
    open: Mapping[str, Milliseconds] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredHold:
    """A hold as a store has it, with the provider's answers that were attached to it last."""

    id: str
    row: HoldRow
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredObservations:
    """What a store has observed of a model."""

    model: str
    counts: Observations


@dataclass(frozen=True, slots=True)
class StoredSwept:
    """The greatest id of a hold whose record a store has swept: see `Rows.swept_to`."""

    id: str


Stored: TypeAlias = StoredAccount | StoredHold | StoredObservations | StoredSwept


@dataclass(frozen=True, slots=True)
class Export:
    """All that a store has of a project.

    Attributes:
        at: when it was begun, by the store's clock.
        rows: holds, then accounts in order of their names, then observations, then what was swept. A hold
            may come more than once: the last of it counts. An account agrees with the holds that came before
            it, and is due when the first of its open holds expires.
    """

    at: Milliseconds
    rows: Iterator[Stored]


class Rows(Protocol):
    """Load and save rows inside one transaction. A loaded row is the caller's to change."""

    @property
    def swept_to(self) -> str:
        """The greatest id of a hold whose record was swept; empty if none was."""

    def load_account(self, name: str) -> AccountRow | None:
        """Return an account's row, or None."""

    def save_account(self, name: str, row: AccountRow) -> None:
        """Insert or replace an account's row."""

    def remove_account(self, name: str) -> None:
        """Delete an account's row."""

    def load_hold(self, hold_id: str) -> HoldRow | None:
        """Return a hold's row, or None."""

    def save_hold(self, hold_id: str, row: HoldRow) -> None:
        """Insert or replace a hold's row."""

    def open_holds(self, account: str) -> Mapping[str, Milliseconds]:
        """Return the ids of the holds stored as open on an account, with when they expire."""

    def load_answer(self, request_id: str) -> str | None:
        """Return the id of the hold that an answer of the provider's was attached to last, or None."""

    def save_answer(self, request_id: str, hold_id: str) -> None:
        """Insert or replace which hold waits for an answer of the provider's."""

    def load_observations(self, model: str) -> Observations:
        """Return what has been observed of a model; empty if nothing."""

    def count_models(self) -> int:
        """Return of how many models something was observed."""

    def save_observations(self, model: str, counts: Observations) -> None:
        """Insert or replace what has been observed of a model."""


def is_hold_due(row: HoldRow, now: Milliseconds) -> bool:
    """Return whether a hold has expired and is not yet stored so."""
    return row["state"] == "held" and row["expires"] <= now


def gone_since(row: HoldRow) -> Milliseconds | None:
    """Return when a hold ended, or expired with no account left to end it; None while it is open."""
    return row["expires"] if row["ended"] is None and not row["accounts"] else row["ended"]


def new_account(budget: Budget, now: Milliseconds, *, ephemeral: bool = False) -> AccountRow:
    """Return the row of an account that has spent nothing."""
    anchor = now if budget.starts_at is None else budget.starts_at
    window = window_at(budget.duration, anchor, budget.timezone, now)
    life = int.from_bytes(os.urandom(6))
    return {
        "limit": budget.limit,
        "duration": budget.duration,
        "timezone": budget.timezone,
        "anchor": anchor,
        "start": window.start,
        "end": window.end,
        "window": life,
        "epoch": life,
        "spent": 0,
        "held": 0,
        "expired": 0,
        "expiries": 0,
        "models": {},
        "opened": 0,
        "due": NEVER,
        "crossed": [],
        "created": now,
        "updated": now,
        "ephemeral": ephemeral,
    }


def balance(name: str, row: AccountRow) -> Balance:
    """Return an account's row as the value that callers see."""
    return Balance(
        account=name,
        limit_nanos=row["limit"],
        spent_nanos=row["spent"],
        held_nanos=row["held"],
        duration=row["duration"],
        timezone=row["timezone"],
        starts_ms=row["start"],
        resets_ms=row["end"],
        created_ms=row["created"],
        updated_ms=row["updated"],
        models=dict(row["models"]),
        expired_nanos=row["expired"],
        expiries=row["expiries"],
        open_holds=row["opened"],
    )


def record(hold_id: str, row: HoldRow) -> HoldRecord:
    """Return a hold's row as the value that callers see."""
    return HoldRecord(
        id=hold_id,
        state=row["state"],
        accounts=tuple(row["accounts"]),
        amount_nanos=row["amount"],
        on_expiry_nanos=row["on_expiry"],
        cost_nanos=row["cost"],
        created_ms=row["created"],
        expires_ms=row["expires"],
        ended_ms=row["ended"],
        user=row["user"],
        model=row["model"],
        endpoint=row["endpoint"],
        outcome=row["outcome"],
        request_id=row["request_id"],
        usage=Usage(row["usage"].copy()),
        tags=tuple(row["tags"]),
    )
