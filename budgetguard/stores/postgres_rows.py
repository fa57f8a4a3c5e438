"""Values as PostgreSQL has them: parameters and answers of the functions, and rows whole.

PostgreSQL's text holds no NUL and no lone surrogates, and a model's name may. Those are written as U+001A,
their code in hexadecimal, and a full stop; so is U+001A itself. Names of accounts have none of them, so
these keep their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, cast

from budgetguard.core.accounts import Balance, Document, Grant, unit_of
from budgetguard.core.holds import Charge, Crossing, Entry, Expiry, Hold, HoldRecord, Outdated
from budgetguard.core.rows import (
    NEVER,
    AccountRow,
    GrantRow,
    HoldRow,
    PartRow,
    Stored,
    StoredAccount,
    StoredEntry,
    StoredHold,
    StoredObservations,
    StoredScopes,
    StoredSwept,
)
from budgetguard.core.usage import Usage
from budgetguard.core.windows import Milliseconds

_REQUIRED, _BUDGETED, _PINNED, _SHADOW, _SHADOW_IF_MADE = 1, 2, 4, 8, 16
_UNFIT: Final = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED: Final = re.compile("\x1a([0-9a-f]+)\\.")
_PAGE: Final = 500

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
        dump(_encoded_texts(hold.labels)) if hold.labels else None,
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
            "models": _decoded_keys(value["models"]),
            "grants": tuple(
                Grant(one["id"], one["amount"], one["until"])
                for one in _grants_of(value["grants"])
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
            "accounts": _decoded(value["accounts"]),
            "user": decode_optional(value["user"]),
            "model": decode(value["model"]),
            "endpoint": decode(value["endpoint"]),
            "request_id": decode_optional(value["request_id"]),
            "usage": Usage(_decoded_keys(value["usage"])),
            "tags": _decoded(value["tags"]),
            "units": {unit: tuple(counts) for unit, counts in (value["units"] or {}).items()},
            "labels": _decoded_texts(value["labels"] or {}),
            "shadowed": _decoded(value["shadowed"] or ()),
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


def exported(ask: Callable[..., Any]) -> Iterator[Stored]:
    """Yield what is stored of a project: see `base.Transfer.export`.

    Args:
        ask: calls a function of the schema with some arguments after the project.
    """
    for row in _pages("id", lambda after: ask("export_calls", after, _PAGE)):
        yield StoredHold(decode(row["id"]), _hold_of(row), tuple(map(decode, row["answers"])))
    for row in _pages("name", lambda after: ask("export_budgets", after, _PAGE)):
        yield StoredAccount(decode(row["name"]), _account_of(row), row["open"])
    for row in _pages("name", lambda after: ask("export_models", after, _PAGE)):
        yield StoredObservations(decode(row["name"]), row["counts"])
    if swept_to := ask("swept_to"):
        yield StoredSwept(swept_to)
    if scopes := ask("read_scopes"):
        yield StoredScopes(document_of(scopes))
    for row in _pages("id", lambda after: ask("page_of_entries", "", after, _PAGE)):
        yield StoredEntry(entry_of(row))


def _pages(key: str, ask: Callable[[str], list[Mapping[str, Any]] | None]) -> Iterator[Mapping[str, Any]]:
    after = ""
    while page := ask(after):
        yield from page
        after = page[-1][key]


def rows_value(rows: Iterable[Stored]) -> dict[str, Any]:
    """Return rows as the function `restore` takes them; of each, the last."""
    holds: dict[str, Any] = {}
    accounts: dict[str, Any] = {}
    removed: set[str] = set()
    models: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    scopes: list[Any] = []
    swept_to = ""
    for one in rows:
        if isinstance(one, StoredHold):
            before = holds.get(one.id, {}).get("answers", [])
            answers = dict.fromkeys([*before, *map(encode, one.answers)])
            holds[one.id] = {**_hold_columns(one.id, one.row), "answers": list(answers)}
        elif isinstance(one, StoredObservations):
            models[one.model] = {"name": encode(one.model), "counts": one.counts}
        elif isinstance(one, StoredSwept):
            swept_to = max(swept_to, one.id)
        elif isinstance(one, StoredEntry):
            entries[one.entry.id] = {"id": encode(one.entry.id), "text": encode(one.entry.text)}
        elif isinstance(one, StoredScopes):
            scopes = [{"revision": one.document.revision, "rules": encode(one.document.rules)}]
        elif one.row is None:
            accounts.pop(one.name, None)
            removed.add(encode(one.name))
        else:
            accounts[one.name] = _account_columns(one.name, one.row, one.open)
            removed.discard(encode(one.name))
    return {
        "holds": list(holds.values()),
        "accounts": list(accounts.values()),
        "removed": sorted(removed),
        "models": list(models.values()),
        "swept": swept_to,
        "scopes": scopes,
        "entries": list(entries.values()),
    }


# The columns of a row that have its fields as they are.
_HOLD_COLUMNS: Final = {
    "state": "state",
    "amount": "amount_nanos",
    "on_expiry": "on_expiry_nanos",
    "cost": "cost_nanos",
    "created": "created_ms",
    "expires": "expires_ms",
    "ended": "ended_ms",
    "outcome": "outcome",
}
_HOLD_TEXTS: Final = ("user", "model", "endpoint", "request_id")
_ACCOUNT_COLUMNS: Final = {
    "limit": "limit_nanos",
    "rollover": "rollover_nanos",
    "duration": "duration",
    "timezone": "timezone",
    "anchor": "anchor_ms",
    "start": "starts_ms",
    "end": "ends_ms",
    "window": "window_no",
    "epoch": "epoch_no",
    "spent": "spent_nanos",
    "held": "held_nanos",
    "expired": "expired_nanos",
    "expiries": "expiries",
    "opened": "open_holds",
    "crossed": "crossed",
    "created": "created_ms",
    "updated": "updated_ms",
    "ephemeral": "ephemeral",
    "revision": "revision",
}
_ACCOUNT_TEXTS: Final = ("rules", "labels")


def _hold_of(columns: Mapping[str, Any]) -> HoldRow:
    names = _decoded(columns["accounts"])
    epochs = zip(names, columns["epochs"] or (), strict=False)  # a hold that did not end has none
    row = {field: columns[column] for field, column in _HOLD_COLUMNS.items()}
    row |= {field: decode_optional(columns[field]) for field in _HOLD_TEXTS}
    row["accounts"] = dict(zip(names, columns["windows"], strict=True))
    row["epochs"] = {name: epoch for name, epoch in epochs if epoch is not None}
    row["usage"] = _decoded_keys(columns["usage"])
    row["tags"] = list(_decoded(columns["tags"]))
    row["units"] = columns["units"] or {}
    row["labels"] = _decoded_texts(columns["labels"] or {})
    row["shadowed"] = list(_decoded(columns["shadowed"] or ()))
    return cast(HoldRow, row)


def _hold_columns(hold_id: str, row: HoldRow) -> dict[str, Any]:
    fields: Mapping[str, Any] = cast(Mapping[str, Any], row)
    names = list(row["accounts"])
    columns = {column: fields[field] for field, column in _HOLD_COLUMNS.items()}
    columns |= {field: encode_optional(fields[field]) for field in _HOLD_TEXTS}
    columns["id"] = encode(hold_id)
    columns["accounts"] = [encode(name) for name in names]
    columns["windows"] = list(row["accounts"].values())
    columns["epochs"] = None if row["state"] == "held" else [row["epochs"].get(name) for name in names]
    columns["usage"] = _encoded_keys(row["usage"])
    columns["tags"] = [encode(tag) for tag in row["tags"]]
    columns["units"] = row["units"] or None
    columns["labels"] = _encoded_texts(row["labels"]) or None
    columns["shadowed"] = [encode(name) for name in row["shadowed"]] or None
    return columns


def _account_of(columns: Mapping[str, Any]) -> AccountRow:
    row = {field: columns[column] for field, column in _ACCOUNT_COLUMNS.items()}
    row |= {field: decode(columns[field]) for field in _ACCOUNT_TEXTS}
    row["models"] = _decoded_keys(columns["models"])
    row["grants"] = _grants_of(columns["grants"])
    row["parts"] = _parts_of(columns["parts"])
    row["due"] = min(columns["open"].values(), default=NEVER)
    return cast(AccountRow, row)


def _account_columns(name: str, row: AccountRow, listed: Mapping[str, Milliseconds]) -> dict[str, Any]:
    fields: Mapping[str, Any] = cast(Mapping[str, Any], row)
    columns = {column: fields[field] for field, column in _ACCOUNT_COLUMNS.items()}
    columns["name"] = encode(name)
    columns |= {field: encode(fields[field]) for field in _ACCOUNT_TEXTS}
    columns["models"] = _encoded_keys(row["models"])
    columns["grants"] = [{**grant, "id": encode(grant["id"])} for grant in row["grants"]] or None
    columns["parts"] = None
    if row["parts"] is not None:
        columns["parts"] = [{**part, "models": _encoded_keys(part["models"])} for part in row["parts"]]
    columns["open"] = dict(listed)
    columns["next_due_ms"] = min(listed.values(), default=None)
    return columns


def _decoded(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(decode, names))


def _decoded_keys(counts: Mapping[str, int]) -> dict[str, int]:
    return {decode(key): count for key, count in counts.items()}


def _encoded_keys(counts: Mapping[str, int]) -> dict[str, int]:
    return {encode(key): count for key, count in counts.items()}


def _decoded_texts(texts: Mapping[str, str]) -> dict[str, str]:
    return {decode(key): decode(text) for key, text in texts.items()}


def _encoded_texts(texts: Mapping[str, str]) -> dict[str, str]:
    return {encode(key): encode(text) for key, text in texts.items()}


def _grants_of(grants: Sequence[GrantRow] | None) -> list[GrantRow]:
    return [{"id": decode(one["id"]), "amount": one["amount"], "until": one["until"]} for one in grants or ()]


def _parts_of(parts: Sequence[PartRow] | None) -> list[PartRow] | None:
    if parts is None:
        return None
    return [
        {
            "epoch": part["epoch"],
            "until": part["until"],
            "spent": part["spent"],
            "expired": part["expired"],
            "expiries": part["expiries"],
            "models": _decoded_keys(part["models"]),
        }
        for part in parts
    ]
