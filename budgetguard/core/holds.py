"""Holds: money set aside for one call, and what stores answer about them.

A hold is reserved, then settled or voided; else it expires. Its id is made by the client and begins
with the time, so ids sort by age and a verb that is sent twice counts once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from budgetguard.core.accounts import USD, Balance, Budget, Document, Unit
from budgetguard.core.money import Nanos, to_usd
from budgetguard.core.usage import Usage
from budgetguard.core.windows import Milliseconds, to_datetime

REFUSAL_TOLD: Final = 0
FORECAST_TOLD: Final = -1
"""Marks on an account's window, see `ledger.mark`: a refusal, or that the limit will be passed, was told."""

HoldState: TypeAlias = Literal["held", "settled", "voided", "expired"]
Outcome: TypeAlias = Literal["answered", "abandoned", "failed", "unknown", "posted"]


def new_hold_id(now: Milliseconds) -> str:
    """Make an id: 12 hex digits of time, then 80 random bits."""
    return f"{now:012x}{os.urandom(10).hex()}"


def derived_id(at: Milliseconds, state: str) -> str:
    """Return the id of a hold that whoever finds the same state makes as well, so that it counts once."""
    import hashlib  # importing budgetguard is to be quick

    return f"{at:012x}{hashlib.sha256(state.encode()).hexdigest()[:20]}"


@dataclass(frozen=True, slots=True)
class Charge:
    """One account that a hold is taken from.

    Attributes:
        account: such as `user:1234`.
        required: the call is refused if the account does not exist; else it is passed over.
        budget: made if the account does not exist.
        pinned: `budget` also replaces the limit of an account that does exist.
        ephemeral: an account that `budget` makes may be forgotten once idle for the store's retention.
        revision: of the account's rules and labels by which the call was judged.
        shadow: the account refuses nothing: the hold notes that it would have. Where the charge has a budget
            that makes the account, and no revision of rules, it is by that budget's rules: it does not count
            for an account that exists, which has none.
    """

    account: str
    required: bool = False
    budget: Budget | None = None
    pinned: bool = False
    ephemeral: bool = False
    revision: int = 0
    shadow: bool = False

    @property
    def shadows_new_only(self) -> bool:
        """Whether `shadow` counts only if the account is made now."""
        return self.budget is not None and not self.pinned and not self.revision


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one call.

    Attributes:
        id: see `new_hold_id`.
        charges: the accounts, all charged alike; all grant it or none.
        amount: Nanos set aside.
        on_expiry: Nanos booked if neither settle nor void ever comes.
        ttl: milliseconds until it expires.
        created: when the client made it.
        user: who pays, if a user does.
        model: the model as the call named it.
        endpoint: what was called, such as `chat`.
        tags: labels of the program's own, for reports.
        units: what is set aside on accounts that count another unit than USD, and what is booked on them
            if neither settle nor void ever comes.
        labels: labels of one value each that are not told above, for reports.
        scopes: the revision of the project's scopes by which the charges were found.
    """

    id: str
    charges: tuple[Charge, ...]
    amount: Nanos
    on_expiry: Nanos
    ttl: Milliseconds
    created: Milliseconds
    user: str | None = None
    model: str = ""
    endpoint: str = ""
    tags: tuple[str, ...] = ()
    units: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    scopes: int = 0

    def amount_of(self, unit: Unit) -> int:
        """Return what is set aside of a unit."""
        return self.amount if unit == USD else self.units.get(unit, (0, 0))[0]


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a call ended, and what it cost.

    Attributes:
        cost: Nanos to book; 0 with state `voided`.
        state: `settled` or `voided`.
        outcome: why it cost this.
        usage: what the provider reported, if it did.
        request_id: the provider's id of the answer; None leaves what `attach` noted.
        thresholds: percentages of a limit that are announced when first reached in a window.
        observed: output tokens seen per model since the last settlement, for learned output caps.
        units: what to book of other units than USD; of one that the hold set aside and that is not here,
            what is booked if the hold expires.
    """

    cost: Nanos
    state: Literal["settled", "voided"] = "settled"
    outcome: Outcome = "answered"
    usage: Usage | None = None
    request_id: str | None = None
    thresholds: tuple[int, ...] = ()
    observed: tuple[tuple[str, int], ...] = ()
    units: Mapping[str, int] = field(default_factory=dict)


VOID = Settlement(cost=0, state="voided", outcome="failed")


@dataclass(frozen=True, slots=True)
class Expiry:
    """A hold that expired: what was booked for it, on which accounts."""

    hold_id: str
    accounts: tuple[str, ...]
    amount: Nanos
    booked: Nanos
    user: str | None
    model: str


@dataclass(frozen=True, slots=True)
class Crossing:
    """A threshold (percent of the limit) that an account reached first in its window."""

    account: str
    threshold: int
    balance: Balance


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer that the money is set aside.

    Attributes:
        accounts: the charged accounts that exist.
        repeated: the hold had been granted before; nothing changed.
        expired: holds found expired on the way.
        shadowed: the accounts that would have refused, if they refused anything.
    """

    accounts: tuple[str, ...]
    repeated: bool = False
    expired: tuple[Expiry, ...] = ()
    shadowed: tuple[Balance, ...] = ()


@dataclass(frozen=True, slots=True)
class Denied:
    """The answer that an account has too little available; nothing changed."""

    balance: Balance
    expired: tuple[Expiry, ...] = ()


@dataclass(frozen=True, slots=True)
class UnknownAccount:
    """The answer that a required account does not exist; nothing changed."""

    account: str


@dataclass(frozen=True, slots=True)
class Unlimited:
    """The answer that none of the accounts exists, so nothing limits the call; nothing changed."""


@dataclass(frozen=True, slots=True)
class Outdated:
    """The answer that the call was judged by documents that have changed; nothing else has.

    Attributes:
        scopes: the project's, if that is one of them.
        accounts: those of accounts.
    """

    scopes: Document | None = None
    accounts: Mapping[str, Document] = field(default_factory=dict)


Reservation: TypeAlias = Granted | Denied | UnknownAccount | Unlimited | Outdated


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the audit trail: who changed what, and why.

    Attributes:
        id: as a hold's: it begins with the time, and the entry counts once.
        text: JSON, see `engine.trail`.
    """

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Booked:
    """What a settlement did.

    Attributes:
        booked: Nanos booked; 0 where the hold had been settled or voided before.
        repeated: it had been; nothing changed.
        late: the hold had expired, and what its expiry booked was taken back.
        crossings: thresholds reached first by this settlement.
        expired: other holds found expired on the way.
    """

    booked: Nanos
    repeated: bool = False
    late: bool = False
    crossings: tuple[Crossing, ...] = ()
    expired: tuple[Expiry, ...] = ()


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """A hold as it stands: open, or the record of a call that ended. No text of the call.

    The properties are for people and callers (USD as Decimal, aware datetimes); the attributes are what
    stores exchange (Nanos, milliseconds).

    Attributes:
        ended_ms: when it was settled, voided or expired; None while open.
        expires_ms: when it expires if nothing comes.
        cost_nanos: what was booked.
        units: of each unit other than USD: what was set aside, what is booked if the hold expires, and what
            was booked.
        shadowed: the accounts that would have refused the call, if they refused anything.
    """

    id: str
    state: HoldState
    accounts: tuple[str, ...]
    amount_nanos: Nanos
    on_expiry_nanos: Nanos
    cost_nanos: Nanos
    created_ms: Milliseconds
    expires_ms: Milliseconds
    ended_ms: Milliseconds | None
    user: str | None
    model: str
    endpoint: str
    outcome: str | None
    request_id: str | None
    usage: Usage = field(default_factory=Usage)
    tags: tuple[str, ...] = ()
    units: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    shadowed: tuple[str, ...] = ()

    @property
    def amount(self) -> Decimal:
        """What was set aside, USD."""
        return to_usd(self.amount_nanos)

    @property
    def cost(self) -> Decimal:
        """What was booked, USD."""
        return to_usd(self.cost_nanos)

    def held_of(self, unit: Unit) -> int:
        """Return what was set aside of a unit."""
        return self.amount_nanos if unit == USD else self.units.get(unit, _NO_COUNTS)[0]

    def cost_of(self, unit: Unit) -> int:
        """Return what was booked of a unit."""
        return self.cost_nanos if unit == USD else self.units.get(unit, _NO_COUNTS)[2]

    @property
    def created_at(self) -> datetime:
        """When the call was made."""
        return to_datetime(self.created_ms)

    @property
    def expires_at(self) -> datetime:
        """When the hold expires if nothing comes."""
        return to_datetime(self.expires_ms)

    @property
    def ended_at(self) -> datetime | None:
        """When it was settled, voided or expired; None while open."""
        return None if self.ended_ms is None else to_datetime(self.ended_ms)


_NO_COUNTS: Final = (0, 0, 0)
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


# The one place where holds are made; reading one from a store or from the wire is not making it.


def new_hold(
    created: Milliseconds,
    charges: tuple[Charge, ...],
    *,
    amount: Nanos = 0,
    on_expiry: Nanos = 0,
    ttl: Milliseconds = 1,
    ident: str | None = None,
    user: str | None = None,
    model: str = "",
    endpoint: str = "",
    tags: tuple[str, ...] = (),
    units: Mapping[str, tuple[int, int]] = _NOTHING,
    labels: Mapping[str, str] = _NOTHING,
    scopes: int = 0,
) -> Hold:
    """Make a hold, see `Hold`; one of nothing is what a cost is booked by that nothing was set aside for.

    `ident` is its id, where that is derived from what it is about; a new one by default.
    """
    ident = ident or new_hold_id(created)
    return Hold(
        ident,
        charges,
        amount,
        on_expiry,
        ttl,
        created,
        user,
        model,
        endpoint,
        tags,
        units,
        labels,
        scopes,
    )


def hold_again(hold: Hold, now: Milliseconds) -> Hold:
    """Make another hold for the same call."""
    return replace(hold, id=new_hold_id(now), created=now)


def recorded_hold(record: HoldRecord) -> Hold:
    """Return the hold that a store has a record of; the store knows whom it charges."""
    return new_hold(
        record.created_ms,
        (),
        amount=record.amount_nanos,
        on_expiry=record.on_expiry_nanos,
        ttl=0,
        ident=record.id,
        user=record.user,
        model=record.model,
        endpoint=record.endpoint,
        tags=record.tags,
        units={unit: (counts[0], counts[1]) for unit, counts in record.units.items()},
        labels=record.labels,
    )
