"""Values as Redis has them: words and answers of the scripts, and rows whole.

Text is UTF-8 with lone surrogates let through, since a model's name may hold anything; numbers are decimal
digits; None is the empty string where nothing else can be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import Charge, Expiry, Hold, HoldRecord
from budgetguard.core.rows import (
    NEVER,
    AccountRow,
    Export,
    HoldRow,
    Stored,
    StoredAccount,
    StoredHold,
    StoredObservations,
    StoredSwept,
    gone_since,
    record,
)
from budgetguard.core.windows import Milliseconds

_PAGE: Final = 200
_ACCOUNTS: Final = 50
_FEW: Final = 500
"""Changes that may be read together with accounts, in one script that holds everybody up."""
_ROUNDS: Final = 20


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


class Exporting:
    """Read all rows of a project while others write them.

    There is no view of all rows at one instant. So holds are read page by page, then those that changed
    meanwhile, until they are few; the rest of them comes together with the accounts, at the same instant.

    Args:
        ask: runs the script `export`.
        answers: request id -> hold id, for all answers that were attached.
        models: whose answers were observed.
        observed: model -> its buckets.
    """

    def __init__(
        self,
        ask: Callable[..., Any],
        answers: Callable[[], Iterable[tuple[bytes, bytes]]],
        models: Callable[[], Iterable[bytes]],
        observed: Callable[[str], dict[str, int]],
    ) -> None:
        self._ask = ask
        self._answers = answers
        self._models = models
        self._observed = observed
        self._attached: dict[bytes, list[str]] = {}

    def export(self) -> Export:
        """Return what is stored: see `base.Transfer.export`."""
        stamp, _ = self._ask(b"now")
        return Export(int(stamp), self._rows(int(stamp)))

    def _rows(self, began: Milliseconds) -> Iterator[Stored]:
        for request_id, hold_id in self._answers():
            self._attached.setdefault(hold_id, []).append(decode(request_id))
        yield from self._by_id(b"holds")
        for _ in range(_ROUNDS):
            now, _ = self._ask(b"now")
            changed = 0
            for one in self._ended(began):
                changed += 1
                yield one
            began = int(now)
            if changed < _FEW:
                break
        yield from self._accounts(began)
        for model in sorted(self._models()):
            if counts := self._observed(decode(model)):
                yield StoredObservations(decode(model), counts)
        (swept_to,) = self._ask(b"swept")
        if swept_to:
            yield StoredSwept(decode(swept_to))

    def _by_id(self, index: bytes) -> Iterator[Stored]:
        low = b"-"
        while True:
            seen, last, page = self._ask(index, low, number(_PAGE))
            yield from map(self._hold, page)
            if seen < _PAGE:
                return
            low = b"(" + last

    def _ended(self, since: Milliseconds) -> Iterator[Stored]:
        low, seen = b"%d" % since, set[bytes]()
        while True:
            size = _PAGE + len(seen)
            found, page = self._ask(b"ended", low, number(size))
            yield from (self._hold(one) for one in page if one[0] not in seen)
            scores = pairs(found)
            if len(scores) < size:
                return
            last = found[-1]
            if last != low:
                seen.clear()
            # Several may have ended in the millisecond at which the page ends.
            seen.update(hold_id for hold_id, score in scores.items() if score == last)
            low = last

    def _accounts(self, since: Milliseconds) -> Iterator[Stored]:
        low = b"-"
        while True:
            now, seen, last, changed, page = self._ask(b"accounts", low, number(_ACCOUNTS), number(since))
            yield from map(self._hold, changed)
            for name, fields, models, open_holds in page:
                listed = {decode(hold_id): int(due) for hold_id, due in pairs(open_holds).items()}
                yield StoredAccount(decode(name), account_of(fields, models, listed), listed)
            if seen < _ACCOUNTS:
                return
            low, since = b"(" + last, int(now)

    def _hold(self, found: Sequence[Any]) -> StoredHold:
        hold_id, fields, on = found
        return StoredHold(decode(hold_id), hold_of(fields, on), tuple(self._attached.get(hold_id, ())))


def account_of(
    words: Sequence[bytes], models: Sequence[bytes], listed: Mapping[str, Milliseconds]
) -> AccountRow:
    """Return the row of an account: its fields, what it spent by model, when its open holds expire."""
    fields = pairs(words)
    row: dict[str, Any] = {name: int(fields[name.encode()]) for name in _ACCOUNT_NUMBERS}
    row["limit"], row["end"] = optional(fields[b"limit"]), optional(fields[b"end"])
    row["duration"] = decode(fields[b"duration"]) or None
    row["timezone"] = decode(fields[b"timezone"])
    row["models"] = {decode(model): int(cost) for model, cost in pairs(models).items()}
    row["opened"], row["due"] = len(listed), min(listed.values(), default=NEVER)
    row["crossed"] = [int(percent) for percent in fields[b"crossed"].split(b",") if percent]
    row["ephemeral"] = fields[b"ephemeral"] == b"1"
    return cast(AccountRow, row)


def words_of(one: Stored) -> list[bytes]:
    """Return a row as the script `restore` reads it."""
    if isinstance(one, StoredHold):
        return [b"hold", *_hold_words(one.id, one.row), *_counted(map(encode, one.answers))]
    if isinstance(one, StoredObservations):
        counts = {**one.counts, "sum": sum(one.counts.values())}
        return [b"model", encode(one.model), *_flat((encode(b), number(n)) for b, n in counts.items())]
    if isinstance(one, StoredSwept):
        return [b"swept", encode(one.id)]
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
