"""Values as Redis has them: words and answers of the scripts, and rows whole.

Text is UTF-8 with lone surrogates let through, since a model's name may hold anything; numbers are decimal
digits; None is the empty string where nothing else can be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import Charge, Entry, Expiry, Hold, HoldRecord
from budgetguard.core.rows import (
    NEVER,
    AccountRow,
    GrantRow,
    HoldRow,
    PartRow,
    Stored,
    StoredEntry,
    StoredHold,
    StoredObservations,
    StoredScopes,
    StoredSwept,
    balance,
    gone_since,
    record,
)
from budgetguard.core.windows import Milliseconds, duration_ms

# ASCII only, as in every other store: the text then is the same wherever it is kept.
_dump: Final = json.JSONEncoder(separators=(",", ":")).encode
# As the scripts write it, which know no escapes of half a character.
_dump_texts: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


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


def more_budget_words(budget: Budget) -> list[bytes]:
    """Return the rest of a budget, which most budgets have nothing of."""
    span = _span(budget.duration) if budget.rolling else b""
    return [span, number(budget.rollover), encode(budget.rules)]


def _span(duration: str | None) -> bytes:
    """Return what the parts of a rolling account begin with."""
    return b"," if duration is None else b"%d," % duration_ms(duration)


def charge_words(charges: Sequence[Charge], seen: Container[str]) -> list[bytes]:
    """Return charges as the scripts read them, with those of accounts that were seen here marked."""
    words = [number(len(charges))]
    for charge in charges:
        flags, more = (b"r" if charge.required else b"") + (b"s" if charge.account in seen else b""), []
        if charge.shadow:
            flags += b"hn" if charge.shadows_new_only else b"h"
        if charge.revision:
            flags += b"v"
            more = [number(charge.revision)]
        if (budget := charge.budget) is not None:
            flags += b"b" + (b"p" if charge.pinned else b"") + (b"e" if charge.ephemeral else b"")
            more += budget_words(budget)
            if budget.rolling or budget.rollover or budget.rules:
                flags += b"x"
                more += more_budget_words(budget)
        words += (encode(charge.account), flags, *more)
    return words


def entry_words(entry: Entry | None) -> list[bytes]:
    """Return an entry of the audit trail, or that there is none."""
    return [b"", b""] if entry is None else [encode(entry.id), encode(entry.text)]


def counts_word(counts: Mapping[str, int]) -> bytes:
    """Return what was booked of units."""
    return ",".join(f"{unit} {count}" for unit, count in counts.items()).encode()


def _units_word(units: Mapping[str, Sequence[int]]) -> bytes:
    """Return what a hold has set aside of units, what is booked if it expires, and what was booked."""
    return ",".join([" ".join([unit, *map(str, counts)]) for unit, counts in units.items()]).encode()


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
    if hold.units:
        fields += (b"units", _units_word({unit: (*counts, 0) for unit, counts in hold.units.items()}))
    if hold.labels:
        fields += (b"labels", dump(dict(hold.labels)))
    return [number(len(fields)), *fields]


MALFORMED: Final = (KeyError, ValueError, IndexError, TypeError)


def balance_of(answer: Sequence[Any]) -> Balance:
    """Return the account that a script described; raises MALFORMED if a field is missing or no number."""
    name, fields, models, open_holds = answer
    row = _account_row(pairs(fields), pairs(models))
    row["opened"] = open_holds
    return balance(decode(name), row)


_PART_SUMS: Final = (b"spent", b"expired", b"expiries")

# Fields of rows that are always whole numbers, and texts that may be missing.
_HOLD_NUMBERS: Final = ("amount", "on_expiry", "created", "expires")
_HOLD_TEXTS: Final = ("user", "outcome", "request_id")
_ACCOUNT_NUMBERS: Final = (
    "anchor",
    "start",
    "window",
    "epoch",
    "spent",
    "held",
    "expired",
    "expiries",
    "created",
    "updated",
)


def hold_of(words: Sequence[bytes], on: Sequence[bytes]) -> HoldRow:
    """Return the row of a hold: its fields, and its accounts with window and epoch each."""
    fields = pairs(words)
    row: dict[str, Any] = {name: int(fields[name.encode()]) for name in _HOLD_NUMBERS}
    row["cost"] = int(fields.get(b"cost", 0))
    for name in _HOLD_TEXTS:
        text = fields.get(name.encode())
        row[name] = None if text is None else decode(text)
    row["state"], row["model"], row["endpoint"] = (
        decode(fields[name]) for name in (b"state", b"model", b"endpoint")
    )
    row["ended"] = optional(fields.get(b"ended"))
    row["usage"] = json.loads(fields.get(b"usage") or b"{}")
    row["tags"] = json.loads(fields.get(b"tags", b"[]"))
    counts = (words.split() for words in decode(fields.get(b"units", b"")).split(",") if words)
    row["units"] = {unit: [*map(int, numbers)] for unit, *numbers in counts}
    row["labels"] = json.loads(fields.get(b"labels", b"{}"))
    row["shadowed"] = json.loads(decode(fields.get(b"shadowed", b"[]")))
    charged = [(decode(on[i]), int(on[i + 1]), on[i + 2]) for i in range(0, len(on), 3)]
    row["accounts"] = {name: window for name, window, _ in charged}
    row["epochs"] = {name: int(epoch) for name, _, epoch in charged if epoch}
    return cast(HoldRow, row)


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


def account_of(
    words: Sequence[bytes], models: Sequence[bytes], listed: Mapping[str, Milliseconds]
) -> AccountRow:
    """Return the row of an account: its fields, what it spent by model, when its open holds expire."""
    row = _account_row(pairs(words), pairs(models))
    row["opened"], row["due"] = len(listed), min(listed.values(), default=NEVER)
    return row


def _account_row(fields: Mapping[bytes, bytes], models: Mapping[bytes, bytes]) -> AccountRow:
    row: dict[str, Any] = {name: int(fields[name.encode()]) for name in _ACCOUNT_NUMBERS}
    row["limit"], row["end"] = optional(fields[b"limit"]), optional(fields[b"end"])
    row["duration"] = decode(fields[b"duration"]) or None
    row["timezone"] = decode(fields[b"timezone"])
    row["models"] = {decode(model): int(cost) for model, cost in models.items()}
    row["opened"], row["due"] = 0, NEVER
    row["crossed"] = [int(percent) for percent in fields[b"crossed"].split(b",") if percent]
    row["ephemeral"] = fields[b"ephemeral"] == b"1"
    # What an older version did not know is missing, and so is what most accounts do not have.
    row["rollover"], row["revision"] = (int(fields.get(name) or 0) for name in (b"rollover", b"revision"))
    row["rules"], row["labels"] = (decode(fields.get(name, b"")) for name in (b"rules", b"labels"))
    row["grants"] = _grants_in(fields.get(b"grants"))
    row["parts"] = _parts_in(fields) if fields.get(b"parts") else None
    return cast(AccountRow, row)


def _grants_in(text: bytes | None) -> list[GrantRow]:
    words = json.loads(decode(text)) if text else []
    return [
        {"id": words[i], "amount": int(words[i + 1]), "until": int(words[i + 2])}
        for i in range(0, len(words), 3)
    ]


def _grants_out(grants: Iterable[GrantRow]) -> bytes:
    words = [word for one in grants for word in (one["id"], str(one["amount"]), str(one["until"]))]
    return encode(_dump_texts(words))


def _parts_in(fields: Mapping[bytes, bytes]) -> list[PartRow]:
    parts: dict[bytes, PartRow] = {}
    for part in fields[b"parts"].split(b",")[1:-1]:
        epoch, until = part.split(b":")
        spent, expired, expiries = (int(fields[epoch + b"." + name]) for name in _PART_SUMS)
        parts[epoch] = {
            "epoch": int(epoch),
            "until": int(until),
            "spent": spent,
            "expired": expired,
            "expiries": expiries,
            "models": {},
        }
    for name, cost in fields.items():
        epoch, colon, model = name.partition(b":")
        if colon and epoch in parts:
            parts[epoch]["models"][decode(model)] = int(cost)
    return list(parts.values())


def _parts_out(duration: str | None, parts: Iterable[PartRow]) -> dict[bytes, bytes]:
    fields = {b"parts": _span(duration)}
    for part in parts:
        epoch = number(part["epoch"])
        fields[b"parts"] += epoch + b":" + number(part["until"]) + b","
        sums = (part["spent"], part["expired"], part["expiries"])
        fields |= {epoch + b"." + name: number(value) for name, value in zip(_PART_SUMS, sums, strict=True)}
        fields |= {epoch + b":" + encode(model): number(cost) for model, cost in part["models"].items()}
    return fields


def words_of(one: Stored) -> list[bytes]:
    """Return a row as the script `restore` reads it."""
    if isinstance(one, StoredHold):
        return [b"hold", *_hold_words(one.id, one.row), *_counted(map(encode, one.answers))]
    if isinstance(one, StoredObservations):
        counts = {**one.counts, "sum": sum(one.counts.values())}
        return [b"model", encode(one.model), *_flat((encode(b), number(n)) for b, n in counts.items())]
    if isinstance(one, StoredSwept):
        return [b"swept", encode(one.id)]
    if isinstance(one, StoredScopes):
        return [b"scopes", number(one.document.revision), encode(one.document.rules)]
    if isinstance(one, StoredEntry):
        return [b"entry", *entry_words(one.entry)]
    if one.row is None:
        return [b"removed", encode(one.name)]
    return [b"account", encode(one.name), *_account_words(one.row, one.open)]


def _hold_words(hold_id: str, row: HoldRow) -> list[bytes]:
    values = cast(Mapping[str, Any], row)
    fields = {name.encode(): number(values[name]) for name in (*_HOLD_NUMBERS, "cost", "ended")}
    fields |= {name.encode(): encode(values[name]) for name in _HOLD_TEXTS if values[name] is not None}
    fields |= {name.encode(): encode(values[name]) for name in ("state", "model", "endpoint")}
    fields[b"usage"] = dump(row["usage"]) if row["usage"] else b""
    if row["tags"]:
        fields[b"tags"] = dump(row["tags"])
    if row["units"]:
        fields[b"units"] = _units_word(row["units"])
    if row["labels"]:
        fields[b"labels"] = dump(row["labels"])
    if row["shadowed"]:
        fields[b"shadowed"] = encode(_dump_texts(row["shadowed"]))
    epochs = row["epochs"]
    on = [
        (encode(name), number(window), number(epochs.get(name))) for name, window in row["accounts"].items()
    ]
    head = [encode(hold_id), number(row["expires"]), number(gone_since(row))]
    return [*head, *_flat(fields.items()), *_counted(word for three in on for word in three)]


def _account_words(row: AccountRow, listed: Mapping[str, Milliseconds]) -> list[bytes]:
    values = cast(Mapping[str, Any], row)
    fields = {name.encode(): number(values[name]) for name in (*_ACCOUNT_NUMBERS, "limit", "end")}
    fields[b"duration"] = encode(row["duration"] or "")
    fields[b"timezone"] = encode(row["timezone"])
    fields[b"crossed"] = b",".join([b"", *map(number, row["crossed"]), b""]) if row["crossed"] else b""
    fields[b"ephemeral"] = b"1" if row["ephemeral"] else b"0"
    if row["rollover"]:
        fields[b"rollover"] = number(row["rollover"])
    if row["grants"]:
        fields[b"grants"] = _grants_out(row["grants"])
    if row["revision"]:
        fields |= {name.encode(): encode(values[name]) for name in ("rules", "labels")}
        fields[b"revision"] = number(row["revision"])
    if row["parts"] is not None:
        fields |= _parts_out(row["duration"], row["parts"])
    return [
        fields[b"ephemeral"],
        fields[b"updated"],
        *_flat(fields.items()),
        *_flat((encode(model), number(cost)) for model, cost in row["models"].items()),
        *_flat((encode(hold_id), number(expires)) for hold_id, expires in listed.items()),
    ]


def _flat(fields: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    words = [word for pair in fields for word in pair]
    return [number(len(words) // 2), *words]


def _counted(words: Iterable[bytes]) -> list[bytes]:
    found = list(words)
    return [number(len(found)), *found]
