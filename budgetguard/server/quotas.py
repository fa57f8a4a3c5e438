"""How much one project may keep in the service's store: accounts, names of models, and open holds.

Each server counts for itself: everything when a project first makes something, then what is made through it,
and everything again when that reaches the limit. So several servers together may admit somewhat more.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from budgetguard.core.holds import Hold
from budgetguard.core.usage import MOST_MODELS
from budgetguard.server.problems import QuotaExceeded
from budgetguard.stores.base import Store

DEFAULT_ACCOUNTS: Final = 100_000
DEFAULT_HOLDS: Final = 100_000

_AGAIN_S: Final = 15.0
_PROJECTS: Final = 1_000
_NAMES: Final = 10_000


@dataclass(slots=True)
class _Counts:
    """What is counted of one project."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    counted_at: float = float("-inf")
    accounts: int = 0
    holds: int = 0
    names: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """The accounts last seen to exist."""
    open: OrderedDict[str, tuple[int, float]] = field(default_factory=OrderedDict)
    """The holds granted here: on how many accounts, and until when."""
    models: set[str] = field(default_factory=set)

    def know(self, name: str) -> None:
        """Add an account that exists, or will in a moment."""
        self.names[name] = None
        if len(self.names) > _NAMES:
            self.names.popitem(last=False)


class Quotas:
    """What each project keeps, counted.

    Args:
        accounts: how many one project may have.
        holds: how many of one project's may be open, each counted once for each of its accounts.
    """

    def __init__(self, accounts: int = DEFAULT_ACCOUNTS, holds: int = DEFAULT_HOLDS) -> None:
        self._accounts = accounts
        self._holds = holds
        self._lock = threading.Lock()
        self._by_project: OrderedDict[str, _Counts] = OrderedDict()

    def check_accounts(self, store: Store, names: Iterable[str]) -> None:
        """Reserve room for accounts that are about to be made, where they do not exist.

        Raises:
            QuotaExceeded: there would be too many.
            StoreError: the store failed.
        """
        counts = self._counts(store.project)
        new = [name for name in dict.fromkeys(names) if not self._exists(counts, store, name)]
        if not new:
            return
        with counts.lock:
            if counts.accounts + len(new) > self._accounts or counts.counted_at < 0:
                self._count(counts, store)
            if counts.accounts + len(new) > self._accounts:
                raise QuotaExceeded(
                    f"the project has {counts.accounts} accounts, and at most {self._accounts} are kept: "
                    "delete some, or raise --max-accounts; nothing was changed"
                )
            counts.accounts += len(new)
            for name in new:
                counts.know(name)

    def check_hold(self, store: Store, hold: Hold) -> None:
        """Reserve room for a hold that is about to be reserved, and for the accounts that it makes.

        Raises:
            QuotaExceeded: there would be too many.
            StoreError: the store failed.
        """
        self.check_accounts(store, (one.account for one in hold.charges if one.budget is not None))
        counts = self._counts(store.project)
        with counts.lock:
            if counts.holds + len(hold.charges) > self._holds or counts.counted_at < 0:
                self._count(counts, store)
            if counts.holds + len(hold.charges) > self._holds:
                raise QuotaExceeded(
                    f"the project has {counts.holds} open holds, and at most {self._holds} are kept: settle "
                    "or void some, give them a shorter ttl, or raise --max-holds; nothing was changed"
                )
            counts.holds += len(hold.charges)

    def granted(self, store: Store, hold: Hold) -> None:
        """Count a hold that was granted as open."""
        counts = self._counts(store.project)
        with counts.lock:
            counts.open[hold.id] = len(hold.charges), time.monotonic() + hold.ttl / 1000
            if len(counts.open) > self._holds:
                counts.open.popitem(last=False)

    def not_granted(self, store: Store, hold: Hold) -> None:
        """Free the room that `check_hold` has made for a hold."""
        counts = self._counts(store.project)
        with counts.lock:
            counts.holds = max(0, counts.holds - len(hold.charges))

    def ended(self, store: Store, ident: str) -> None:
        """Free the room of a hold that has ended, if it was granted here: any id can be settled."""
        counts = self._counts(store.project)
        with counts.lock:
            accounts, until = counts.open.pop(ident, (0, 0.0))
            if until > counts.counted_at:  # else it had expired by then, and was not among those counted
                counts.holds = max(0, counts.holds - accounts)

    def tells_apart(self, store: Store, model: str) -> bool:
        """Return whether there is room for a model's name: each account keeps those of its present window.

        Raises:
            StoreError: the store failed.
        """
        counts = self._counts(store.project)
        with counts.lock:
            if model in counts.models:
                return True
            if len(counts.models) >= MOST_MODELS or counts.counted_at < 0:
                self._count(counts, store)
            if len(counts.models) >= MOST_MODELS:
                return model in counts.models
            counts.models.add(model)
            return True

    def forget(self, store: Store, account: str) -> None:
        """Free the room of an account that was deleted."""
        counts = self._counts(store.project)
        with counts.lock:
            counts.names.pop(account, None)
            counts.accounts = max(0, counts.accounts - 1)

    def _counts(self, project: str) -> _Counts:
        with self._lock:
            found = self._by_project.get(project)
            if found is None:
                found = self._by_project[project] = _Counts()
                if len(self._by_project) > _PROJECTS:
                    self._by_project.popitem(last=False)
            else:
                self._by_project.move_to_end(project)
            return found

    @staticmethod
    def _exists(counts: _Counts, store: Store, name: str) -> bool:
        if name in counts.names:
            return True
        if store.read(name) is None:
            return False
        with counts.lock:
            counts.know(name)
        return True

    @staticmethod
    def _count(counts: _Counts, store: Store) -> None:
        now = time.monotonic()
        if now - counts.counted_at < _AGAIN_S:
            return
        accounts = holds = 0
        models: set[str] = set()
        for one in store.list():
            accounts += 1
            holds += one.open_holds
            models.update(one.models)
        counts.accounts, counts.holds, counts.models, counts.counted_at = accounts, holds, models, now
