"""Values as PostgreSQL has them: parameters and answers of the functions.

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

from budgetguard.core.accounts import Balance, Document, Grant, unit_of
from budgetguard.core.holds import Charge, Crossing, Entry, Expiry, Hold, HoldRecord, Outdated
from budgetguard.core.rows import GrantRow
from budgetguard.core.usage import Usage

_REQUIRED, _BUDGETED, _PINNED, _SHADOW, _SHADOW_IF_MADE = 1, 2, 4, 8, 16
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


def encode_optional(text: str | None) -> str | None:
    """Return text as PostgreSQL can hold it, or None."""
    return None if text is None else encode(text)


def decode_optional(text: str | None) -> str | None:
    """Return what `encode_optional` was given."""
    return None if text is None else decode(text)


def digest(name: str) -> bytes:
    """Return a key of fixed length for a name of any length."""
    return sha256(encode(name).encode()).digest()


def charge_values(charges: Sequence[Charge]) -> tuple[list[str], list[int], list[int | None]]:
    """Return accounts, flags and limits of charges, place by place.

    Of several pinned charges of one account the last one's limit counts for all of them; one that is in the
    shadow lets all of them be.
    """
    pins = {
        charge.account: charge.budget.limit
        for charge in charges
        if charge.pinned and charge.budget is not None
    }
    shadows = {charge.account for charge in charges if charge.shadow and not charge.shadows_new_only}
    if_made = {charge.account for charge in charges if charge.shadow and charge.shadows_new_only}
    flags = [
        _REQUIRED * charge.required
        | _BUDGETED * (charge.budget is not None)
        | _PINNED * (charge.account in pins)
        | _SHADOW * (charge.account in shadows)
        | _SHADOW_IF_MADE * (charge.account in if_made)
        for charge in charges
    ]
    return [encode(c.account) for c in charges], flags, [pins.get(charge.account) for charge in charges]


def hold_values(hold: Hold) -> tuple[Any, ...]:
    """Return what the functions are told of a hold beside its id and its charges."""
    units = {unit: [held, on_expiry, 0] for unit, (held, on_expiry) in hold.units.items()}
    return (
        hold.amount,
        hold.on_expiry,
        hold.ttl,
        hold.created,
        encode_optional(hold.user),
        encode(hold.model),
        encode(hold.endpoint),
        [encode(tag) for tag in hold.tags],
        dump(units) if units else None,
        dump(encoded_texts(hold.labels)) if hold.labels else None,
    )


def amounts_of(hold: Hold) -> list[int]:
    """Return what a hold sets aside on the account of each charge, in the account's unit."""
    return [hold.amount_of(unit_of(charge.account)) for charge in hold.charges]


def entry_values(entry: Entry | None) -> tuple[str | None, str | None]:
    """Return what the functions are told of an entry of the audit trail."""
    return (None, None) if entry is None else (encode(entry.id), encode(entry.text))


def entry_of(value: Mapping[str, Any]) -> Entry:
    """Return the entry of the audit trail that a function described."""
    return Entry(decode(value["id"]), decode(value["text"]))


def document_of(value: Mapping[str, Any] | None) -> Document:
    """Return the text for clients that a function described."""
    if not value:
        return Document()
    return Document(value["revision"], decode(value["rules"]), decode(value.get("labels", "")))


def outdated_of(value: Mapping[str, Any]) -> Outdated:
    """Return the documents by which a function says that a call is to be judged."""
    scopes = None if value["scopes"] is None else document_of(value["scopes"])
    return Outdated(scopes, {decode(name): document_of(one) for name, one in value["outdated"].items()})


def balance_of(value: Mapping[str, Any]) -> Balance:
    """Return the account that a function described."""
    return Balance(
        **{
            **value,
            "account": decode(value["account"]),
            "models": decoded_keys(value["models"]),
            "grants": tuple(
                Grant(one["id"], one["amount"], one["until"])
                for one in grants_of(value["grants"])
                if one["amount"]
            ),
            "frees": tuple((until, spent) for until, spent in value["frees"] or ()),
            "document": document_of(value["document"]),
        }
    )


def record_of(value: Mapping[str, Any]) -> HoldRecord:
    """Return the hold that a function described."""
    return HoldRecord(
        **{
            **value,
            "id": decode(value["id"]),
            "accounts": decoded(value["accounts"]),
            "user": decode_optional(value["user"]),
            "model": decode(value["model"]),
            "endpoint": decode(value["endpoint"]),
            "request_id": decode_optional(value["request_id"]),
            "usage": Usage(decoded_keys(value["usage"])),
            "tags": decoded(value["tags"]),
            "units": {unit: tuple(counts) for unit, counts in (value["units"] or {}).items()},
            "labels": decoded_texts(value["labels"] or {}),
            "shadowed": decoded(value["shadowed"] or ()),
        }
    )


def expiries_of(values: Sequence[Mapping[str, Any]]) -> tuple[Expiry, ...]:
    """Return the expiries that a function found."""
    return tuple(
        Expiry(
            hold_id=decode(value["hold_id"]),
            accounts=decoded(value["accounts"]),
            amount=value["amount"],
            booked=value["booked"],
            user=decode_optional(value["user"]),
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


def decoded(names: Sequence[str]) -> tuple[str, ...]:
    """Return texts as `encode` was given them."""
    return tuple(map(decode, names))


def decoded_keys(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by what `encode` was given."""
    return {decode(key): count for key, count in counts.items()}


def encoded_keys(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by keys that PostgreSQL can hold."""
    return {encode(key): count for key, count in counts.items()}


def decoded_texts(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts by texts, as `encode` was given them."""
    return {decode(key): decode(text) for key, text in texts.items()}


def encoded_texts(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts by texts, as PostgreSQL can hold them."""
    return {encode(key): encode(text) for key, text in texts.items()}


def grants_of(grants: Sequence[GrantRow] | None) -> list[GrantRow]:
    """Return the raises in force, as a column has them."""
    return [{"id": decode(one["id"]), "amount": one["amount"], "until": one["until"]} for one in grants or ()]
