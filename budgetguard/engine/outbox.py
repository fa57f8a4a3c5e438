"""The outbox: settlements that a store did not take, sent again until it does.

They are kept in memory and, for stores that outlive the process, in a spool on disk: what is left when
the process ends, even by a kill, the next process that opens the same store delivers.

A store that answers that it does not know the account may have lost it, or not be restored yet: what it is
asked to book is kept as well. It is sent again when the store is opened, or somebody flushes, not all the
time, since the account may also have been deleted for good.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from budgetguard.core.holds import Booked, Hold, Settlement, UnknownAccount
from budgetguard.core.money import format_usd
from budgetguard.core.process import keep_newest
from budgetguard.engine.background import background
from budgetguard.engine.spool import Spool
from budgetguard.errors import StoreError
from budgetguard.events import logger
from budgetguard.stores.base import Store

Tell: TypeAlias = Callable[[Hold, Settlement, Booked], None]

_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 30.0
_MOST_UNKNOWN: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Unsent:
    """One settlement, the store that is to take it (None: the present one), and its spool."""

    store: Store | None
    hold: Hold
    settlement: Settlement
    spool: Spool | None


class Outbox:
    """Settlements that could not be sent; they are sent again after 1 s, then 2 s, up to every 30 s.

    Args:
        present: opens the present store, or raises StoreError.
        tell: is told what a store answered once it has taken a settlement.
    """

    def __init__(self, present: Callable[[], Store], tell: Tell) -> None:
        self._present = present
        self._tell = tell
        self.unsent: dict[str, _Unsent] = {}
        self._unknown: dict[str, _Unsent] = {}
        self._retry_in = _FIRST_RETRY
        self._retrying_in = 0

    def __bool__(self) -> bool:
        return bool(self.unsent)

    def keep(self, store: Store | None, hold: Hold, settlement: Settlement, spool: Spool | None) -> None:
        """Keep a settlement that a store did not take, and try again later."""
        self.unsent[hold.id] = _Unsent(store, hold, settlement, _written(hold, settlement, spool))
        background.start()
        if self._retrying_in != os.getpid():
            self._retrying_in = os.getpid()
            background.after(self._retry_in, self._retry)

    def keep_unknown(
        self, store: Store, hold: Hold, settlement: Settlement, spool: Spool | None, account: str
    ) -> None:
        """Keep a settlement whose account the store does not know."""
        self._keep_unknown(_Unsent(store, hold, settlement, _written(hold, settlement, spool)), account)

    def adopt(self, store: Store, spool: Spool) -> None:
        """Take over what earlier processes left for a store in its spool, and send it soon."""
        found: dict[str, _Unsent] = {}
        for one in spool.waiting():
            unsent = _Unsent(store, one.hold, one.settlement, spool)
            (self._unknown if one.unknown else found)[one.hold.id] = unsent
        if found:
            logger.warning(
                "budgetguard: %d settlements from earlier are delivered to %s", len(found), spool.url
            )
            self.unsent = found | self.unsent
        if found or self._unknown:
            background.start()
            background.put(self.flush)

    def flush(self) -> None:
        """Send everything; what is refused stays, and so does what is for an account of nobody."""
        self._send({**self._unknown, **self.unsent})

    def flush_unsent(self) -> None:
        """Send what no store has answered yet."""
        self._send(dict(self.unsent))

    def _send(self, everything: dict[str, _Unsent]) -> None:
        away: set[int] = set()
        # Several threads may send the same one: it counts once.
        for ident, unsent in everything.items():
            if id(unsent.store) in away:
                continue  # asking once is enough
            try:
                store = unsent.store or self._present()
                answer = store.settle(unsent.hold, unsent.settlement)
            except StoreError:
                away.add(id(unsent.store))
                # To the back, so that one which never goes through does not hold up the others.
                if self.unsent.pop(ident, None) is not None:
                    self.unsent[ident] = unsent
                continue
            except Exception as error:  # noqa: BLE001 - nor does one that no store can take
                self.unsent.pop(ident, None)
                self._unknown.pop(ident, None)
                if unsent.spool is not None:
                    unsent.spool.set_aside(ident, error)
                else:
                    logger.exception("budgetguard: the settlement of hold %s cannot be booked", ident)
                continue
            self.unsent.pop(ident, None)
            if isinstance(answer, UnknownAccount) and unsent.settlement.cost:
                if ident not in self._unknown:
                    self._keep_unknown(unsent, answer.account)
                continue
            self._unknown.pop(ident, None)
            _forget(unsent)
            if isinstance(answer, Booked):
                self._tell(unsent.hold, unsent.settlement, answer)
        if not away:
            self._retry_in = _FIRST_RETRY

    def _keep_unknown(self, unsent: _Unsent, account: str) -> None:
        hold_id = unsent.hold.id
        where = "in memory"
        if unsent.spool is not None:
            try:
                unsent.spool.mark_unknown(hold_id)
            except OSError as error:
                logger.warning("budgetguard: a settlement keeps its name in the spool: %s", error)
            where = f"in {unsent.spool.folder} (see `budgetguard spool`)"
        self._unknown[hold_id] = unsent
        keep_newest(self._unknown, _MOST_UNKNOWN)  # those in the spool stay there
        logger.warning(
            "budgetguard: %s of hold %s is booked to nobody, since the store does not know %s: it is kept %s "
            "and sent again when the store is opened",
            format_usd(unsent.settlement.cost),
            hold_id,
            account,
            where,
        )

    def _retry(self) -> None:
        self._retrying_in = 0
        self.flush_unsent()
        if self.unsent:
            self._retry_in = min(self._retry_in * 2, _LONGEST_RETRY)
            self._retrying_in = os.getpid()
            background.after(self._retry_in, self._retry)


def _written(hold: Hold, settlement: Settlement, spool: Spool | None) -> Spool | None:
    if spool is None:
        return None
    try:
        spool.put(hold, settlement)
    except (OSError, ValueError) as error:
        logger.warning(
            "budgetguard: the settlement of hold %s waits in memory only, since %s cannot be written "
            "(%s): give the setting spool a folder that can",
            hold.id,
            spool.folder,
            error,
        )
        return None
    return spool


def _forget(unsent: _Unsent) -> None:
    if unsent.spool is not None:
        try:
            unsent.spool.remove(unsent.hold.id)
        except OSError as error:
            logger.warning("budgetguard: a delivered settlement stays in the spool: %s", error)
