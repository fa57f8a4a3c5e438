"""How much one project may keep in the service's store: accounts, names of models, and holds that are open.

Each server counts for itself: all there is when a project first makes something, what is made from then on,
and all anew where that comes to the limit. So several servers together may let in somewhat more.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from budgetguard.core.holds import Hold
from budgetguard.core.learning import MOST_MODELS
from budgetguard.server.problems import QuotaExceeded
from budgetguard.stores.base import Store

DEFAULT_ACCOUNTS: Final = 100_000
DEFAULT_HOLDS: Final = 100_000

_AGAIN_S: Final = 15.0
_PROJECTS: Final = 1_000
_NAMES: Final = 10_000


@dataclass(slots=True)
class _Tally:
    """Hold what is counted of one project."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counted_at: float = float("-inf")
    accounts: int = 0
    holds: int = 0
    names: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Accounts that are known to exist, the latest."""
    open: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict)
    """Holds that were granted here: for how many accounts, and until when."""
    models: set[str] = field(default_factory=set)

    def know(self, name: str) -> None:
        """Note that an account exists, or will in a moment."""
        self.names[name] = None
        if len(self.names) > _NAMES:
            self.names.popitem(last=False)


class Quotas:
    """Count what projects keep.

    Args:
        accounts: how many one project may have.
        holds: how many of one project's may be open, each counted once for each of its accounts.
    """

    def __init__(self, accounts: int = DEFAULT_ACCOUNTS, holds: int = DEFAULT_HOLDS) -> None:
        self._accounts = accounts
        self._holds = holds
        self._lock = threading.Lock()
        self._tallies: OrderedDict[str, _Tally] = OrderedDict()

    def check_accounts(self, store: Store, names: Iterable[str]) -> None:
        """Make room for accounts that are about to be made, if they do not exist.

        Raises:
            QuotaExceeded: there would be too many.
            StoreError: the store failed.
        """
        tally = self._tally(store.project)
        new = [name for name in dict.fromkeys(names) if not self._exists(tally, store, name)]
        if not new:
            return
        with tally.lock:
            if tally.accounts + len(new) > self._accounts or tally.counted_at < 0:
                self._count(tally, store)
            if tally.accounts + len(new) > self._accounts:
                raise QuotaExceeded(
                    f"the project has {tally.accounts} accounts, and at most {self._accounts} are kept: "
                    "delete some, or raise --max-accounts; nothing was changed"
                )
            tally.accounts += len(new)
            for name in new:
                tally.know(name)

    def check_hold(self, store: Store, hold: Hold) -> None:
        """Make room for a hold that is about to be reserved, and the accounts that come with it.

        Raises:
            QuotaExceeded: there would be too many.
            StoreError: the store failed.
        """
        self.check_accounts(store, (one.account for one in hold.charges if one.budget is not None))
        tally = self._tally(store.project)
        with tally.lock:
            if tally.holds + len(hold.charges) > self._holds or tally.counted_at < 0:
                self._count(tally, store)
            if tally.holds + len(hold.charges) > self._holds:
                raise QuotaExceeded(
                    f"the project has {tally.holds} open holds, and at most {self._holds} are kept: settle "
                    "or void some, give them a shorter ttl, or raise --max-holds; nothing was changed"
                )
            tally.holds += len(hold.charges)

    def granted(self, store: Store, hold: Hold) -> None:
        """Note that a hold for which there was room is open."""
        tally = self._tally(store.project)
        with tally.lock:
            tally.open[hold.id] = len(hold.charges), time.monotonic() + hold.ttl / 1000
            if len(tally.open) > self._holds:
                tally.open.popitem(last=False)

    def not_granted(self, store: Store, hold: Hold) -> None:
        """Note that a hold for which there was room did not take it."""
        tally = self._tally(store.project)
        with tally.lock:
            tally.holds = max(0, tally.holds - len(hold.charges))

    def ended(self, store: Store, ident: str) -> None:
        """Note that a hold has ended: one that was granted here, as anybody may settle what never was."""
        tally = self._tally(store.project)
        with tally.lock:
            accounts, until = tally.open.pop(ident, (0, 0.0))
            if until > tally.counted_at:  # else it had expired by then, and was not among those counted
                tally.holds = max(0, tally.holds - accounts)

    def tells_apart(self, store: Store, model: str) -> bool:
        """Tell whether there is room for a model's name: every account keeps those of its present window.

        Raises:
            StoreError: the store failed.
        """
        tally = self._tally(store.project)
        with tally.lock:
            if model in tally.models:
                return True
            if len(tally.models) >= MOST_MODELS or tally.counted_at < 0:
                self._count(tally, store)
            if len(tally.models) >= MOST_MODELS:
                return model in tally.models
            tally.models.add(model)
            return True

    def forget(self, store: Store, account: str) -> None:
        """Note that an account was deleted."""
        tally = self._tally(store.project)
        with tally.lock:
            tally.names.pop(account, None)
            tally.accounts = max(0, tally.accounts - 1)

    def _tally(self, project: str) -> _Tally:
        with self._lock:
            found = self._tallies.get(project)
            if found is None:
                found = self._tallies[project] = _Tally()
                if len(self._tallies) > _PROJECTS:
                    self._tallies.popitem(last=False)
            else:
                self._tallies.move_to_end(project)
            return found

    @staticmethod
    def _exists(tally: _Tally, store: Store, name: str) -> bool:
        if name in tally.names:
            return True
        if store.read(name) is None:
            return False
        with tally.lock:
            tally.know(name)
        return True

    @staticmethod
    def _count(tally: _Tally, store: Store) -> None:
        now = time.monotonic()
        if now - tally.counted_at < _AGAIN_S:
            return
        accounts = holds = 0
        models: set[str] = set()
        for one in store.list():
            accounts += 1
            holds += one.open_holds
            models.update(one.models)
        tally.accounts, tally.holds, tally.models, tally.counted_at = accounts, holds, models, now
