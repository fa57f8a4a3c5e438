"""Read all rows of a project from Redis while others write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from budgetguard.core.accounts import Document
from budgetguard.core.holds import Entry
from budgetguard.core.rows import (
    Export,
    Stored,
    StoredAccount,
    StoredEntry,
    StoredHold,
    StoredObservations,
    StoredScopes,
    StoredSwept,
)
from budgetguard.core.windows import Milliseconds
from budgetguard.stores.redis_rows import account_of, decode, hold_of, number, pairs

_PAGE: Final = 200
_ACCOUNTS: Final = 50
_FEW: Final = 500
"""Changes that may be read together with accounts, in one script that holds everybody up."""
_ROUNDS: Final = 20


class Exporting:
    """Read all rows of a project while others write them.

    There is no view of all rows at one instant. So holds are read page by page, then those that changed
    meanwhile, until they are few; the rest of them comes together with the accounts, at the same instant.

    Args:
        ask: runs the script `export`.
        answers: request id -> hold id, for all answers that were attached.
        models: whose answers were observed.
        observed: model -> its buckets.
        scopes: the project's.
        entries: the audit trail.
    """

    def __init__(
        self,
        ask: Callable[..., Any],
        answers: Callable[[], Iterable[tuple[bytes, bytes]]],
        models: Callable[[], Iterable[bytes]],
        observed: Callable[[str], dict[str, int]],
        scopes: Callable[[], Document],
        entries: Callable[[], Iterable[Entry]],
    ) -> None:
        self._ask = ask
        self._answers = answers
        self._models = models
        self._observed = observed
        self._scopes = scopes
        self._entries = entries
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
        scopes = self._scopes()
        if scopes.revision:
            yield StoredScopes(scopes)
        for entry in self._entries():
            yield StoredEntry(entry)

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
