"""What the scripts are told and what they answer, as bytes.

Text is UTF-8 with lone surrogates let through, since a model's name may hold anything; numbers are decimal
digits; None is the empty string where nothing else can be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Sequence
from typing import Any, Final

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import Charge, Expiry, Hold, HoldRecord
from budgetguard.core.rows import HoldRow, record

# ASCII only, as in every other store: the text then is the same wherever it is kept.
_dump: Final = json.JSONEncoder(separators=(",", ":")).encode


def encode(text: str) -> bytes:
    """Return text as bytes."""
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> str:
    """Return what `encode` was given."""
    return data.decode("utf-8", "surrogatepass")


def number(value: int | None) -> bytes:
    """Return a whole number as digits, None as nothing."""
    return b"" if value is None else b"%d" % value


def optional(data: bytes | None) -> int | None:
    """Return what `number` was given."""
    return int(data) if data else None


def dump(value: object) -> bytes:
    """Return a value that only clients read, as JSON."""
    return _dump(value).encode()


def budget_words(budget: Budget) -> list[bytes]:
    """Return a budget, and the number at which the counters of an account made of it begin."""
    return [
        number(budget.limit),
        encode(budget.duration or ""),
        encode(budget.timezone),
        number(budget.starts_at),
        number(int.from_bytes(os.urandom(6))),
    ]


def charge_words(charges: Sequence[Charge], seen: Container[str]) -> list[bytes]:
    """Return charges as the scripts read them, with those of accounts that were seen here marked."""
    words = [number(len(charges))]
    for charge in charges:
        flags = (b"r" if charge.required else b"") + (b"s" if charge.account in seen else b"")
        if charge.budget is None:
            words += (encode(charge.account), flags)
            continue
        flags += b"b" + (b"p" if charge.pinned else b"") + (b"e" if charge.ephemeral else b"")
        words += (encode(charge.account), flags, *budget_words(charge.budget))
    return words


def hold_words(hold: Hold) -> list[bytes]:
    """Return the fields of a hold that no script changes, names and values, after their count."""
    fields = [
        b"created",
        number(hold.created),
        b"model",
        encode(hold.model),
        b"endpoint",
        encode(hold.endpoint),
    ]
    if hold.user is not None:
        fields += (b"user", encode(hold.user))
    if hold.tags:
        fields += (b"tags", dump(hold.tags))
    return [number(len(fields)), *fields]


def balance_of(answer: Sequence[Any]) -> Balance:
    """Return the account that a script described."""
    name, fields, models, open_holds = answer
    row = pairs(fields)
    return Balance(
        account=decode(name),
        limit_nanos=optional(row[b"limit"]),
        spent_nanos=int(row[b"spent"]),
        held_nanos=int(row[b"held"]),
        duration=decode(row[b"duration"]) or None,
        timezone=decode(row[b"timezone"]),
        starts_ms=int(row[b"start"]),
        resets_ms=optional(row[b"end"]),
        created_ms=int(row[b"created"]),
        updated_ms=int(row[b"updated"]),
        models={decode(model): int(cost) for model, cost in pairs(models).items()},
        expired_nanos=int(row[b"expired"]),
        expiries=int(row[b"expiries"]),
        open_holds=open_holds,
    )


def hold_of(fields: Sequence[bytes], on: Sequence[bytes]) -> HoldRow:
    """Return the row of a hold: its fields, and its accounts with window and epoch each."""
    row = pairs(fields)
    user, request, outcome, usage = (row.get(name) for name in (b"user", b"request_id", b"outcome", b"usage"))
    return {
        "state": decode(row[b"state"]),  # type: ignore[typeddict-item]  # the scripts write states only
        "accounts": {decode(on[i]): int(on[i + 1]) for i in range(0, len(on), 3)},
        "epochs": {decode(on[i]): int(on[i + 2]) for i in range(0, len(on), 3) if on[i + 2]},
        "amount": int(row[b"amount"]),
        "on_expiry": int(row[b"on_expiry"]),
        "cost": int(row.get(b"cost", 0)),
        "created": int(row[b"created"]),
        "expires": int(row[b"expires"]),
        "ended": optional(row.get(b"ended")),
        "user": None if user is None else decode(user),
        "model": decode(row[b"model"]),
        "endpoint": decode(row[b"endpoint"]),
        "outcome": None if outcome is None else decode(outcome),
        "request_id": None if request is None else decode(request),
        "usage": json.loads(usage) if usage else {},
        "tags": json.loads(row.get(b"tags", b"[]")),
    }


def record_of(hold_id: bytes, fields: Sequence[bytes], on: Sequence[bytes]) -> HoldRecord:
    """Return a hold that a script showed."""
    return record(decode(hold_id), hold_of(fields, on))


def expiries_of(answer: Sequence[Any]) -> tuple[Expiry, ...]:
    """Return the expiries that a script found."""
    return tuple(
        Expiry(
            hold_id=decode(hold_id),
            accounts=tuple(map(decode, accounts)),
            amount=int(amount),
            booked=int(booked),
            user=None if user is None else decode(user),
            model=decode(model),
        )
        for hold_id, accounts, amount, booked, model, user in answer
    )


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return names and values in turn as a dictionary."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
