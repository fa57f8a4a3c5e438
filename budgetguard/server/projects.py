"""The stores of the projects that are served, opened on demand."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from budgetguard.core.accounts import Budget, account_name
from budgetguard.core.holds import Expiry
from budgetguard.core.process import system_clock
from budgetguard.core.windows import Clock
from budgetguard.server.events import REMEMBERED
from budgetguard.server.keys import EVENTS_PROJECT, KEYS_PROJECT, LEADER_PROJECT, list_keys
from budgetguard.server.quotas import Quotas
from budgetguard.server.views import Handed, Recent
from budgetguard.stores.base import Store, open_store

_OPEN_AT_MOST: Final = 128
_LEADERS_KEPT: Final = "1h"
_SERVED: Final = "served"


class Projects:
    """One store for each project in use; the least recently used are closed.

    Args:
        url: where budgets are kept.
        retention: how long records of ended calls are kept.
        clock: the time.
        quotas: how much each project may keep.
    """

    def __init__(
        self, url: str, retention: str, clock: Clock = system_clock, quotas: Quotas | None = None
    ) -> None:
        self.url = url
        self.clock = clock
        self.booked = Recent()
        """Digests of LiteLLM clients' records that are booked in full."""
        self.handed = Handed()
        """The views that /get_budget has handed out."""
        self.quotas = Quotas() if quotas is None else quotas
        self._retention = retention
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Store] = OrderedDict()
        self._here = threading.local()
        self._noted: set[str] | None = None
        self._watch: Callable[[Store], Store] = lambda store: store
        self.keys = self._new(KEYS_PROJECT)
        self.own = open_store(url, project=EVENTS_PROJECT, clock=clock, retention=REMEMBERED)
        self.leader = open_store(url, project=LEADER_PROJECT, clock=clock, retention=_LEADERS_KEPT)

    def note(self) -> None:
        """Record from now on which projects are written to."""
        self._noted = set()

    def watch(self, watch: Callable[[Store], Store]) -> None:
        """Have the stores that are opened from now on watched."""
        self._watch = watch

    def known(self) -> list[str]:
        """Return the projects that have keys, were written to, or were used lately; blocks.

        Raises:
            StoreError: the store failed.
        """
        keyed = {key.project for key in list_keys(self.keys) if key.project is not None}
        asked = {one.account.partition(":")[2] for one in self.own.list(_SERVED)}
        with self._lock:
            lately = set(self._open)
        return sorted(keyed | asked | lately)

    def store(self, project: str, *, to_write: bool = False) -> Store:
        """Return a project's store; blocks.

        Args:
            project: whose accounts.
            to_write: record that there is such a project. Requests that only read leave nothing behind.

        Raises:
            StoreError: it cannot be opened.
        """
        idle: Store | None = None
        if to_write and self._noted is not None and project not in self._noted:
            account = account_name(_SERVED, project)
            if self.own.read(account) is None:
                self.own.set_budget(account, Budget(None))
            self._noted.add(project)
        with self._lock:
            found = self._open.get(project)
            if found is None:
                found = self._watch(self._new(project))
                # A memory store is lost when it is closed, so one that was written to is kept.
                if found.blocking or to_write:
                    self._open[project] = found
                if len(self._open) > _OPEN_AT_MOST and found.blocking:
                    idle = self._open.popitem(last=False)[1]
            else:
                self._open.move_to_end(project)
        if idle is not None:
            idle.close()  # a request that still uses it opens it again with its next verb
        return found

    @contextmanager
    def listening(self) -> Iterator[list[Expiry]]:
        """Collect the expiries that stores find in this thread and do not answer with."""
        told: list[Expiry] = []
        self._here.told = told
        try:
            yield told
        finally:
            del self._here.told

    def close(self) -> None:
        """Close all stores."""
        with self._lock:
            stores = [*self._open.values(), self.keys, self.own, self.leader]
            self._open.clear()
        for store in stores:
            store.close()

    def _new(self, project: str) -> Store:
        store = open_store(self.url, project=project, clock=self.clock, retention=self._retention)
        store.on_expiry(self._hear)
        return store

    def _hear(self, expiry: Expiry) -> None:
        told: list[Expiry] | None = getattr(self._here, "told", None)
        if told is not None:
            told.append(expiry)
