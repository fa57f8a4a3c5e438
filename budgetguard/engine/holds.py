"""How holds are made: whatever reserves or books money gets its `Hold` here."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from budgetguard.core.holds import Charge, Hold, HoldRecord, new_hold_id
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Milliseconds


def derived_id(at: Milliseconds, state: str) -> str:
    """Return the id of a hold that whoever finds the same state makes as well, so that it counts once."""
    return f"{at:012x}{hashlib.sha256(state.encode()).hexdigest()[:20]}"


def new_hold(
    now: Milliseconds,
    charges: tuple[Charge, ...],
    *,
    amount: Nanos,
    ttl: Milliseconds,
    on_expiry: Nanos = 0,
    user: str | None = None,
    model: str = "",
    endpoint: str = "",
    tags: tuple[str, ...] = (),
    ident: str | None = None,
) -> Hold:
    """Return a hold to reserve.

    Args:
        now: when it is made.
        charges: the accounts.
        amount: Nanos to set aside.
        ttl: milliseconds until it expires.
        on_expiry: Nanos booked when it does.
        user: who pays.
        model: the model as the call names it.
        endpoint: what is called.
        tags: labels.
        ident: its id, where that is derived; a new one by default.
    """
    return Hold(ident or new_hold_id(now), charges, amount, on_expiry, ttl, now, user, model, endpoint, tags)


def posting(
    at: Milliseconds,
    charges: tuple[Charge, ...],
    *,
    user: str | None,
    model: str,
    endpoint: str,
    ident: str | None = None,
    ttl: Milliseconds = 1,
) -> Hold:
    """Return a hold of nothing, by which a cost is booked that nothing was set aside for.

    Args:
        at: when the cost came about.
        charges: the accounts.
        user: who pays.
        model: the model that it was for.
        endpoint: what the record is known by, such as `import`.
        ident: its id, where that is derived; a new one by default.
        ttl: milliseconds until it would expire, should it ever be reserved.
    """
    return new_hold(at, charges, amount=0, ttl=ttl, user=user, model=model, endpoint=endpoint, ident=ident)


def hold_again(hold: Hold, now: Milliseconds) -> Hold:
    """Return another hold for the same call."""
    return replace(hold, id=new_hold_id(now), created=now)


def recorded_hold(record: HoldRecord) -> Hold:
    """Return the hold that a store has a record of; the store knows whom it charges."""
    return Hold(
        id=record.id,
        charges=(),
        amount=record.amount_nanos,
        on_expiry=record.on_expiry_nanos,
        ttl=0,
        created=record.created_ms,
        user=record.user,
        model=record.model,
        endpoint=record.endpoint,
        tags=record.tags,
    )
