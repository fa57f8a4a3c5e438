"""What this process has spent, and the `max_budget` that caps it."""

from __future__ import annotations

import os
import threading
from typing import Final

from budgetguard.core.accounts import PROCESS, Budget, account_name
from budgetguard.core.holds import Charge, Hold
from budgetguard.core.money import Nanos
from budgetguard.core.newest import keep_newest

_MOST_COUNTED: Final = 1_024


class ProcessCap:
    """Count what one guard spends in this process, and cap it; a forked child counts from zero.

    The cap is an account like any other, so that it is held and refused in the same transaction: one
    account in each project's store. What was spent elsewhere, or before the cap was set, is not on that
    account, and is taken off its limit.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.limit: Nanos | None = None
        self._spent: Nanos = 0
        self._on_account: dict[str, Nanos] = {}
        self._counted: dict[str, None] = {}
        self._pid = 0
        self._mind_fork()

    @property
    def spent(self) -> Nanos:
        """What this process has spent."""
        self._mind_fork()
        return self._spent

    def charge(self, project: str) -> Charge | None:
        """Return the charge that caps a project's call, or None where nothing is capped (limit None)."""
        if self.limit is None:
            return None
        self._mind_fork()
        with self._lock:
            elsewhere = self._spent - self._on_account.get(project, 0)
            left = Budget(max(0, self.limit - elsewhere))
            return Charge(self._account, budget=left, pinned=True, ephemeral=True)

    def is_mine(self, account: str) -> bool:
        """Tell whether an account is this process's."""
        return account == self._account

    def count(self, project: str, hold: Hold, cost: Nanos) -> None:
        """Count what a project's call cost; once, also if an interrupted settlement is made again."""
        self._mind_fork()
        capped = any(charge.account == self._account for charge in hold.charges)
        with self._lock:
            if hold.id in self._counted:
                return
            # An interrupt comes at a call or a jump backwards, so not in here.
            self._counted[hold.id] = None
            self._spent += cost
            if capped:
                self._on_account[project] = self._on_account.get(project, 0) + cost
            keep_newest(self._counted, _MOST_COUNTED)

    def begin_elsewhere(self) -> None:
        """Take new accounts, because the stores have changed; what is spent stays spent."""
        self._mind_fork()
        with self._lock:
            self._account = self._new_account()
            self._on_account = {}

    def _mind_fork(self) -> None:
        if self._pid != os.getpid():
            self._lock = threading.RLock()
            self._account = self._new_account()
            self._spent = 0
            self._on_account = {}
            self._pid = os.getpid()

    @staticmethod
    def _new_account() -> str:
        return account_name(PROCESS, f"{os.getpid()}-{os.urandom(6).hex()}")
