"""Rows as the scripts show them and take them, whole: what a copy is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from budgetguard.core.rows import (
    AccountRow,
    Export,
    HoldRow,
    Stored,
    StoredAccount,
    StoredHold,
    StoredObservations,
    StoredSwept,
    gone_since,
)
from budgetguard.core.windows import Milliseconds
from budgetguard.stores.redis_wire import decode, dump, encode, hold_of, number, optional, pairs

_PAGE: Final = 200
_ACCOUNTS: Final = 50
_FEW: Final = 500
"""Changes that may be read together with accounts, in one script that holds everybody up."""
_ROUNDS: Final = 20

Ask = Callable[..., Any]


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
        ask: Ask,
        answers: Callable[[], Iterable[tuple[bytes, bytes]]],
        models: Callable[[], Iterable[bytes]],
        observed: Callable[[str], dict[str, int]],
    ) -> None:
        self._ask = ask
        self._answers = answers
        self._models = models
        self._observed = observed
        self._attached: dict[bytes, list[str]] = {}

    def export(self, since: Milliseconds) -> Export:
        """Return what is stored: see `movable.Movable.export`."""
        stamp, _ = self._ask(b"now")
        return Export(int(stamp), self._rows(int(stamp), since))

    def _rows(self, began: Milliseconds, since: Milliseconds) -> Iterator[Stored]:
        for request_id, hold_id in self._answers():
            self._attached.setdefault(hold_id, []).append(decode(request_id))
        if since:
            yield from self._ended(since)
            yield from self._by_id(b"open")
            yield from self._named(sorted(self._attached))
        else:
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

    def _named(self, ids: Sequence[bytes]) -> Iterator[Stored]:
        for first in range(0, len(ids), _PAGE):
            (page,) = self._ask(b"ids", b"", b"", *ids[first : first + _PAGE])
            yield from map(self._hold, page)

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
                row = account_of(fields, models, open_holds)
                yield StoredAccount(decode(name), row, len(row["open"]))
            if seen < _ACCOUNTS:
                return
            low, since = b"(" + last, int(now)

    def _hold(self, found: Sequence[Any]) -> StoredHold:
        hold_id, fields, on = found
        return StoredHold(decode(hold_id), hold_of(fields, on), tuple(self._attached.get(hold_id, ())))


def account_of(fields: Sequence[bytes], models: Sequence[bytes], open_holds: Sequence[bytes]) -> AccountRow:
    """Return the row of an account: its fields, what it spent by model, its open holds by expiry."""
    row = pairs(fields)
    return {
        "limit": optional(row[b"limit"]),
        "duration": decode(row[b"duration"]) or None,
        "timezone": decode(row[b"timezone"]),
        "anchor": int(row[b"anchor"]),
        "start": int(row[b"start"]),
        "end": optional(row[b"end"]),
        "window": int(row[b"window"]),
        "epoch": int(row[b"epoch"]),
        "spent": int(row[b"spent"]),
        "held": int(row[b"held"]),
        "expired": int(row[b"expired"]),
        "expiries": int(row[b"expiries"]),
        "models": {decode(model): int(cost) for model, cost in pairs(models).items()},
        "open": {decode(hold_id): int(expires) for hold_id, expires in pairs(open_holds).items()},
        "crossed": [int(percent) for percent in row[b"crossed"].split(b",") if percent],
        "created": int(row[b"created"]),
        "updated": int(row[b"updated"]),
        "ephemeral": row[b"ephemeral"] == b"1",
    }


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
    return [b"account", encode(one.name), *_account_words(one.row)]


def _hold_words(hold_id: str, row: HoldRow) -> list[bytes]:
    fields = {
        b"state": encode(row["state"]),
        b"amount": number(row["amount"]),
        b"on_expiry": number(row["on_expiry"]),
        b"cost": number(row["cost"]),
        b"created": number(row["created"]),
        b"expires": number(row["expires"]),
        b"ended": number(row["ended"]),
        b"model": encode(row["model"]),
        b"endpoint": encode(row["endpoint"]),
        b"usage": dump(row["usage"]) if row["usage"] else b"",
    }
    for name, text in (
        (b"user", row["user"]),
        (b"outcome", row["outcome"]),
        (b"request_id", row["request_id"]),
    ):
        if text is not None:
            fields[name] = encode(text)
    if row["tags"]:
        fields[b"tags"] = dump(row["tags"])
    epochs = row["epochs"]
    on = [
        (encode(name), number(window), number(epochs.get(name))) for name, window in row["accounts"].items()
    ]
    head = [encode(hold_id), number(row["expires"]), number(gone_since(row))]
    return [*head, *_flat(fields.items()), *_counted(word for three in on for word in three)]


def _account_words(row: AccountRow) -> list[bytes]:
    crossed = b",".join(map(number, row["crossed"]))
    ephemeral = b"1" if row["ephemeral"] else b"0"
    fields = {
        b"limit": number(row["limit"]),
        b"duration": encode(row["duration"] or ""),
        b"timezone": encode(row["timezone"]),
        b"anchor": number(row["anchor"]),
        b"start": number(row["start"]),
        b"end": number(row["end"]),
        b"window": number(row["window"]),
        b"epoch": number(row["epoch"]),
        b"spent": number(row["spent"]),
        b"held": number(row["held"]),
        b"expired": number(row["expired"]),
        b"expiries": number(row["expiries"]),
        b"crossed": b"," + crossed + b"," if crossed else b"",
        b"created": number(row["created"]),
        b"updated": number(row["updated"]),
        b"ephemeral": ephemeral,
    }
    return [
        ephemeral,
        number(row["updated"]),
        *_flat(fields.items()),
        *_flat((encode(model), number(cost)) for model, cost in row["models"].items()),
        *_flat((encode(hold_id), number(expires)) for hold_id, expires in row["open"].items()),
    ]


def _flat(fields: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    words = [word for pair in fields for word in pair]
    return [number(len(words) // 2), *words]


def _counted(words: Iterable[bytes]) -> list[bytes]:
    found = list(words)
    return [number(len(found)), *found]
