"""What the functions are told and what they answer, as SQL and JSON values.

PostgreSQL's text holds no NUL and no lone surrogates, and a model's name may. Those are written as U+001A,
their code in hexadecimal, and a full stop; so is U+001A itself. Names of accounts have none of them, so
these keep their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

from budgetguard.core.accounts import Balance
from budgetguard.core.holds import Charge, Crossing, Expiry, HoldRecord
from budgetguard.core.usage import Usage

_REQUIRED, _BUDGETED, _PINNED = 1, 2, 4
_UNFIT: Final = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED: Final = re.compile("\x1a([0-9a-f]+)\\.")

dump: Final = json.JSONEncoder(separators=(",", ":")).encode


def sql_value(value: Any) -> bytes | None:
    """Return a parameter as PostgreSQL reads it from text: None, bool, int, str, bytes, or a list of them."""
    if value is None:
        return None
    return _literal(value).encode()


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return "{" + ",".join(["NULL" if one is None else _quoted(_literal(one)) for one in value]) + "}"


def _quoted(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def encode(text: str) -> str:
    """Return text as PostgreSQL can hold it."""
    return _UNFIT.sub(lambda found: f"\x1a{ord(found[0]):x}.", text)


def decode(text: str) -> str:
    """Return what `encode` was given."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "\x1a" in text else text


def digest(name: str) -> bytes:
    """Return a key of fixed length for a name of any length."""
    return sha256(encode(name).encode()).digest()


def charge_values(charges: Sequence[Charge]) -> tuple[list[str], list[int], list[int | None]]:
    """Return accounts, flags and limits of charges, place by place.

    Of several pinned charges of one account the last one's limit counts for all of them.
    """
    pins = {
        charge.account: charge.budget.limit
        for charge in charges
        if charge.pinned and charge.budget is not None
    }
    flags = [
        _REQUIRED * charge.required
        | _BUDGETED * (charge.budget is not None)
        | _PINNED * (charge.account in pins)
        for charge in charges
    ]
    return [encode(c.account) for c in charges], flags, [pins.get(charge.account) for charge in charges]


def balance_of(value: Mapping[str, Any]) -> Balance:
    """Return the account that a function described."""
    models = {decode(model): nanos for model, nanos in value["models"].items()}
    return Balance(**{**value, "account": decode(value["account"]), "models": models})


def record_of(value: Mapping[str, Any]) -> HoldRecord:
    """Return the hold that a function described."""
    optional = {name: None if value[name] is None else decode(value[name]) for name in ("user", "request_id")}
    return HoldRecord(
        **{
            **value,
            **optional,
            "id": decode(value["id"]),
            "accounts": _decoded(value["accounts"]),
            "model": decode(value["model"]),
            "endpoint": decode(value["endpoint"]),
            "usage": Usage({decode(unit): count for unit, count in value["usage"].items()}),
            "tags": _decoded(value["tags"]),
        }
    )


def expiries_of(values: Sequence[Mapping[str, Any]]) -> tuple[Expiry, ...]:
    """Return the expiries that a function found."""
    return tuple(
        Expiry(
            hold_id=decode(value["hold_id"]),
            accounts=_decoded(value["accounts"]),
            amount=value["amount"],
            booked=value["booked"],
            user=None if value["user"] is None else decode(value["user"]),
            model=decode(value["model"]),
        )
        for value in values
    )


def crossings_of(values: Sequence[Mapping[str, Any]]) -> tuple[Crossing, ...]:
    """Return the thresholds that a function found crossed."""
    return tuple(
        Crossing(decode(value["account"]), value["threshold"], balance_of(value["balance"]))
        for value in values
    )


def _decoded(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(decode, names))
