"""The outbox: settlements that a store did not take, sent again until it does.

They are kept in memory and, for stores that outlive the process, in a spool on disk: what is left when
the process ends, even by a kill, the next process that opens the same store delivers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from budgetguard.background import background
from budgetguard.errors import StoreError
from budgetguard.events import logger
from budgetguard.holds import Hold, Settled, Settlement, UnknownAccount
from budgetguard.spool import Spool
from budgetguard.stores.base import Store

Tell: TypeAlias = Callable[[Hold, Settlement, Settled | UnknownAccount], None]

_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Unsent:
    """Hold one settlement, the store that shall take it (None: the present one), and its spool."""

    store: Store | None
    hold: Hold
    settlement: Settlement
    spool: Spool | None


class Outbox:
    """Keep what could not be sent, and send it again: after 1 s, then 2 s, up to every 30 s.

    Args:
        present: opens the present store, or raises StoreError.
        tell: is told what a store answered once it has taken a settlement.
    """

    def __init__(self, present: Callable[[], Store], tell: Tell) -> None:
        self._present = present
        self._tell = tell
        self._unsent: dict[str, _Unsent] = {}
        self._retry_in = _FIRST_RETRY
        self._retrying_in = 0

    def __bool__(self) -> bool:
        return bool(self._unsent)

    def keep(self, store: Store | None, hold: Hold, settlement: Settlement, spool: Spool | None) -> None:
        """Keep a settlement that a store did not take, and try again later."""
        if spool is not None:
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
                spool = None
        self._unsent[hold.id] = _Unsent(store, hold, settlement, spool)
        background.start()
        if self._retrying_in != os.getpid():
            self._retrying_in = os.getpid()
            background.after(self._retry_in, self._retry)

    def adopt(self, store: Store, spool: Spool) -> None:
        """Take over what earlier processes left for a store in its spool, and send it soon."""
        found = {one.hold.id: _Unsent(store, one.hold, one.settlement, spool) for one in spool.waiting()}
        if found:
            logger.warning(
                "budgetguard: %d settlements from earlier are delivered to %s", len(found), spool.url
            )
            self._unsent = found | self._unsent
            background.start()
            background.put(self.flush)

    def flush(self) -> None:
        """Send everything; what is refused stays."""
        away: set[int] = set()
        # Several threads may send the same one: it counts once.
        for ident, unsent in list(self._unsent.items()):
            if id(unsent.store) in away:
                continue  # asking once is enough
            try:
                store = unsent.store or self._present()
                answer = store.settle(unsent.hold, unsent.settlement)
            except StoreError:
                away.add(id(unsent.store))
                # To the back, so that one which never goes through does not hold up the others.
                if self._unsent.pop(ident, None) is not None:
                    self._unsent[ident] = unsent
                continue
            self._unsent.pop(ident, None)
            _forget(unsent)
            self._tell(unsent.hold, unsent.settlement, answer)
        if not away:
            self._retry_in = _FIRST_RETRY

    def _retry(self) -> None:
        self._retrying_in = 0
        self.flush()
        if self._unsent:
            self._retry_in = min(self._retry_in * 2, _LONGEST_RETRY)
            self._retrying_in = os.getpid()
            background.after(self._retry_in, self._retry)


def _forget(unsent: _Unsent) -> None:
    if unsent.spool is not None:
        try:
            unsent.spool.remove(unsent.hold.id)
        except OSError as error:
            logger.warning("budgetguard: a delivered settlement stays in the spool: %s", error)
