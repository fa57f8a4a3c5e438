"""Rows: the stored form of accounts and holds, and what can be computed from one row alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias, TypedDict

from budgetguard.core.accounts import Balance, Budget, Document, Grant
from budgetguard.core.holds import Entry, HoldRecord, HoldState
from budgetguard.core.money import MAX_SUM, Nanos
from budgetguard.core.usage import Observations, Usage
from budgetguard.core.windows import Milliseconds, window_at

NEVER: Final = 2**62
"""The time (milliseconds) that stands for no time at all."""


class GrantRow(TypedDict):
    """A raise of a limit. One that has been added to the limit for good stays for a day, as 0."""

    id: str
    amount: Nanos
    until: Milliseconds


class PartRow(TypedDict):
    """What was booked on a rolling account in one epoch, which is a part of its window."""

    epoch: int
    until: Milliseconds
    spent: Nanos
    expired: Nanos
    expiries: int
    models: dict[str, Nanos]


class AccountRow(TypedDict):
    """The stored form of an account: JSON values only.

    Its open holds are those whose rows name it. It knows their number (`opened`), and a time before which
    none of them expires (`due`): a lower bound, since a hold that ends does not move it.

    `grants` are the raises in force, in the order in which they came. A rolling account has `parts`, oldest
    first, and its `end` is when the first of them falls out; another has none. `rules` and `labels` are text
    for clients, numbered by `revision`. Lists are replaced when they change, never changed in place, but for
    `crossed`.
    """

    limit: Nanos | None
    rollover: Nanos
    grants: list[GrantRow]
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
    parts: list[PartRow] | None
    opened: int
    due: Milliseconds
    crossed: list[int]
    created: Milliseconds
    updated: Milliseconds
    ephemeral: bool
    rules: str
    labels: str
    revision: int


class HoldRow(TypedDict):
    """The stored form of a hold: JSON values only, and no text of the call.

    `accounts` are its accounts, with the window of each that granted it; `epochs` the accounts that booked
    what it cost, with the epoch of each in which they did. `units` are those other than USD: what was set
    aside, what is booked if it expires, and what was booked. `shadowed` are the accounts that would have
    refused it.
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
    units: dict[str, list[int]]
    labels: dict[str, str]
    shadowed: list[str]


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


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry of the audit trail."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class StoredScopes:
    """The project's scopes."""

    document: Document


Stored: TypeAlias = StoredAccount | StoredHold | StoredObservations | StoredSwept | StoredEntry | StoredScopes


@dataclass(frozen=True, slots=True)
class Export:
    """All that a store has of a project.

    Attributes:
        at: when it was begun, by the store's clock.
        rows: holds, then accounts in order of their names, then observations, then what was swept, the
            scopes and the audit trail. A hold may come more than once: the last of it counts. An account
            agrees with the holds that came before it, and is due when the first of its open holds expires.
    """

    at: Milliseconds
    rows: Iterator[Stored]


class Rows(Protocol):
    """Load and save rows inside one transaction. A loaded row is the caller's to change."""

    @property
    def swept_to(self) -> str:
        """The greatest id of a hold whose record was swept; empty if none was."""

    @property
    def scopes(self) -> Document:
        """The project's scopes."""

    def save_scopes(self, document: Document) -> None:
        """Replace the project's scopes."""

    def add_entry(self, entry: Entry) -> None:
        """Add an entry to the audit trail; one of that id counts once."""

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


def new_life() -> int:
    """Return a random number of 48 bits."""
    return int.from_bytes(os.urandom(6))


def new_account(budget: Budget, now: Milliseconds, *, ephemeral: bool = False) -> AccountRow:
    """Return the row of an account that has spent nothing."""
    anchor = now if budget.starts_at is None else budget.starts_at
    start, end = now, None
    if not budget.rolling:
        window = window_at(budget.duration, anchor, budget.timezone, now)
        start, end = window.start, window.end
    life = new_life()
    return {
        "limit": budget.limit,
        "rollover": budget.rollover,
        "grants": [],
        "duration": budget.duration,
        "timezone": budget.timezone,
        "anchor": anchor,
        "start": start,
        "end": end,
        "window": life,
        "epoch": life,
        "spent": 0,
        "held": 0,
        "expired": 0,
        "expiries": 0,
        "models": {},
        "parts": [] if budget.rolling else None,
        "opened": 0,
        "due": NEVER,
        "crossed": [],
        "created": now,
        "updated": now,
        "ephemeral": ephemeral,
        "rules": budget.rules,
        "labels": "",
        "revision": life if budget.rules else 0,
    }


def limit_of(row: AccountRow) -> Nanos | None:
    """Return what may be spent now: the budget's limit and the raises in force."""
    limit = row["limit"]
    if limit is None or not row["grants"]:
        return limit
    return min(limit + sum(grant["amount"] for grant in row["grants"]), MAX_SUM)


def document(row: AccountRow) -> Document:
    """Return the rules and labels that are kept with an account."""
    return Document(row["revision"], row["rules"], row["labels"])


def balance(name: str, row: AccountRow) -> Balance:
    """Return an account's row as the value that callers see."""
    return Balance(
        account=name,
        limit_nanos=limit_of(row),
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
        grants=tuple(Grant(one["id"], one["amount"], one["until"]) for one in row["grants"] if one["amount"]),
        rolling=row["parts"] is not None,
        frees=tuple((part["until"], part["spent"]) for part in row["parts"] or () if part["spent"]),
        rollover_nanos=row["rollover"],
        document=document(row),
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
        units={unit: tuple(counts) for unit, counts in row["units"].items()},
        labels=row["labels"].copy(),
        shadowed=tuple(row["shadowed"]),
    )
