"""Balances, records and what stores answer, as JSON values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

from budgetguard.core.accounts import Balance
from budgetguard.core.holds import (
    Crossing,
    Expiry,
    Granted,
    HoldRecord,
    HoldState,
    Refused,
    Reservation,
    Settled,
    UnknownAccount,
    Unlimited,
)
from budgetguard.errors import ConfigurationError
from budgetguard.stores.wire.fields import LATEST, Fields, read_number, shown

# Sums may grow beyond what one amount may be; 2^63 is what every engine's integers hold.
_MOST: Final = 2**63 - 1


def balance_to_json(balance: Balance) -> dict[str, Any]:
    """Return a balance as JSON values, money in Nanos."""
    return {
        "account": balance.account,
        "limit_nanos": balance.limit_nanos,
        "spent_nanos": balance.spent_nanos,
        "held_nanos": balance.held_nanos,
        "duration": balance.duration,
        "timezone": balance.timezone,
        "starts_ms": balance.starts_ms,
        "resets_ms": balance.resets_ms,
        "created_ms": balance.created_ms,
        "updated_ms": balance.updated_ms,
        "models": dict(balance.models),
        "expired_nanos": balance.expired_nanos,
        "expiries": balance.expiries,
        "open_holds": balance.open_holds,
    }


def balance_from_json(value: object) -> Balance:
    """Return the balance that JSON values tell of.

    Raises:
        ConfigurationError: they are no balance; the text names the field.
    """
    fields = Fields(value, "balance")
    models = fields.take("models")
    if not isinstance(models, Mapping):
        raise ConfigurationError(f"balance.models must be a JSON object, not {shown(models)}")
    balance = Balance(
        account=fields.text("account"),
        limit_nanos=fields.maybe("limit_nanos", lambda key: fields.number(key, _MOST)),
        spent_nanos=fields.number("spent_nanos", _MOST),
        held_nanos=fields.number("held_nanos", _MOST),
        duration=fields.maybe("duration", fields.text),
        timezone=fields.text("timezone"),
        starts_ms=fields.number("starts_ms", LATEST),
        resets_ms=fields.maybe("resets_ms", lambda key: fields.number(key, LATEST)),
        created_ms=fields.number("created_ms", LATEST),
        updated_ms=fields.number("updated_ms", LATEST),
        models={name: read_number(cost, f"balance.models.{name}", _MOST) for name, cost in models.items()},
        expired_nanos=fields.number("expired_nanos", _MOST),
        expiries=fields.number("expiries", _MOST),
        open_holds=fields.number("open_holds", _MOST),
    )
    fields.end()
    return balance


def reservation_to_json(answer: Reservation) -> dict[str, Any]:
    """Return what `reserve` answered as JSON values; `answer` says which of its four answers it is."""
    match answer:
        case Granted():
            return {
                "answer": "granted",
                "accounts": list(answer.accounts),
                "repeated": answer.repeated,
                "expired": expiries_to_json(answer.expired),
            }
        case Refused():
            return {
                "answer": "refused",
                "balance": balance_to_json(answer.balance),
                "expired": expiries_to_json(answer.expired),
            }
        case UnknownAccount():
            return unknown_to_json(answer)
        case Unlimited():
            return {"answer": "unlimited"}


def reservation_from_json(value: object) -> Reservation:
    """Return what `reserve` answered.

    Raises:
        ConfigurationError: it is none of its answers.
    """
    fields = Fields(value, "reservation")
    found: Reservation
    match fields.choice("answer", ("granted", "refused", "unknown", "unlimited")):
        case "granted":
            found = Granted(fields.texts("accounts"), fields.flag("repeated"), _expiries(fields))
        case "refused":
            found = Refused(balance_from_json(fields.take("balance")), _expiries(fields))
        case "unknown":
            found = UnknownAccount(fields.text("account"))
        case _:
            found = Unlimited()
    fields.end()
    return found


def settled_to_json(answer: Settled | UnknownAccount) -> dict[str, Any]:
    """Return what `settle` answered as JSON values."""
    if isinstance(answer, UnknownAccount):
        return unknown_to_json(answer)
    return {
        "answer": "settled",
        "booked": answer.booked,
        "repeated": answer.repeated,
        "late": answer.late,
        "crossings": [
            {"account": one.account, "threshold": one.threshold, "balance": balance_to_json(one.balance)}
            for one in answer.crossings
        ],
        "expired": expiries_to_json(answer.expired),
    }


def settled_from_json(value: object) -> Settled | UnknownAccount:
    """Return what `settle` answered.

    Raises:
        ConfigurationError: it is none of its answers.
    """
    fields = Fields(value, "settled")
    found: Settled | UnknownAccount
    if fields.choice("answer", ("settled", "unknown")) == "unknown":
        found = UnknownAccount(fields.text("account"))
    else:
        found = Settled(
            booked=fields.number("booked", _MOST),
            repeated=fields.flag("repeated"),
            late=fields.flag("late"),
            crossings=tuple(_crossing(one) for one in fields.list("crossings")),
            expired=_expiries(fields),
        )
    fields.end()
    return found


def unknown_to_json(answer: UnknownAccount) -> dict[str, Any]:
    """Return as JSON values that a required account does not exist."""
    return {"answer": "unknown", "account": answer.account}


def record_to_json(record: HoldRecord) -> dict[str, Any]:
    """Return the record of a hold as JSON values, money in Nanos."""
    return {
        "id": record.id,
        "state": record.state,
        "accounts": list(record.accounts),
        "amount_nanos": record.amount_nanos,
        "on_expiry_nanos": record.on_expiry_nanos,
        "cost_nanos": record.cost_nanos,
        "created_ms": record.created_ms,
        "expires_ms": record.expires_ms,
        "ended_ms": record.ended_ms,
        "user": record.user,
        "model": record.model,
        "endpoint": record.endpoint,
        "outcome": record.outcome,
        "request_id": record.request_id,
        "usage": dict(record.usage.units),
        "tags": list(record.tags),
    }


def record_from_json(value: object) -> HoldRecord:
    """Return the record of a hold that JSON values tell of.

    Raises:
        ConfigurationError: they are no record; the text names the field.
    """
    fields = Fields(value, "record")
    record = HoldRecord(
        id=fields.text("id"),
        state=fields.choice("state", get_args(HoldState)),
        accounts=fields.texts("accounts"),
        amount_nanos=fields.number("amount_nanos", _MOST),
        on_expiry_nanos=fields.number("on_expiry_nanos", _MOST),
        cost_nanos=fields.number("cost_nanos", _MOST),
        created_ms=fields.number("created_ms", LATEST),
        expires_ms=fields.number("expires_ms", 2 * LATEST),
        ended_ms=fields.maybe("ended_ms", lambda key: fields.number(key, LATEST)),
        user=fields.maybe("user", fields.text),
        model=fields.text("model"),
        endpoint=fields.text("endpoint"),
        outcome=fields.maybe("outcome", fields.text),
        request_id=fields.maybe("request_id", fields.text),
        usage=fields.usage("usage"),
        tags=fields.texts("tags"),
    )
    fields.end()
    return record


def expiries_to_json(expiries: Iterable[Expiry]) -> list[dict[str, Any]]:
    """Return expiries as JSON values.

    A server's store tells its hooks of those that a verb has found and does not answer with. They go to the
    one who asked, under `told` in the answer's outermost object, whatever the verb; absent if there are none.
    """
    return [_expiry_to_json(one) for one in expiries]


def expiries_from_json(value: object) -> tuple[Expiry, ...]:
    """Return the expiries that JSON values tell of.

    Raises:
        ConfigurationError: they are no list of expiries.
    """
    fields = Fields({"expired": value}, "told")
    return _expiries(fields)


def _expiry_to_json(expiry: Expiry) -> dict[str, Any]:
    return {
        "hold_id": expiry.hold_id,
        "accounts": list(expiry.accounts),
        "amount": expiry.amount,
        "booked": expiry.booked,
        "user": expiry.user,
        "model": expiry.model,
    }


def _expiry(value: object) -> Expiry:
    fields = Fields(value, "expiry")
    expiry = Expiry(
        hold_id=fields.text("hold_id"),
        accounts=fields.texts("accounts"),
        amount=fields.number("amount", _MOST),
        booked=fields.number("booked", _MOST),
        user=fields.maybe("user", fields.text),
        model=fields.text("model"),
    )
    fields.end()
    return expiry


def _expiries(fields: Fields) -> tuple[Expiry, ...]:
    return tuple(_expiry(one) for one in fields.list("expired"))


def _crossing(value: object) -> Crossing:
    fields = Fields(value, "crossing")
    crossing = Crossing(
        account=fields.text("account"),
        threshold=fields.number("threshold", 1000),
        balance=balance_from_json(fields.take("balance")),
    )
    fields.end()
    return crossing
