"""What this process has spent, and the `max_budget` that caps it."""

from __future__ import annotations

import os
import threading

from budgetguard.accounts import PROCESS, Budget, account_name
from budgetguard.holds import Charge, Hold
from budgetguard.money import Nanos


class ProcessCap:
    """Count what one guard spends in this process, and cap it; a forked child counts from zero.

    The cap is an account like any other, so that it is held and refused in the same transaction: one
    account in each project's store. What was spent elsewhere, or before the cap was set, is not on that
    account, and is taken off its limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.limit: Nanos | None = None
        self._spent: Nanos = 0
        self._on_account: dict[str, Nanos] = {}
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
        """Count what a project's call cost."""
        self._mind_fork()
        with self._lock:
            self._spent += cost
            if any(charge.account == self._account for charge in hold.charges):
                self._on_account[project] = self._on_account.get(project, 0) + cost

    def begin_elsewhere(self) -> None:
        """Take new accounts, because the stores have changed; what is spent stays spent."""
        self._mind_fork()
        with self._lock:
            self._account = self._new_account()
            self._on_account = {}

    def _mind_fork(self) -> None:
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            self._account = self._new_account()
            self._spent = 0
            self._on_account = {}
            self._pid = os.getpid()

    @staticmethod
    def _new_account() -> str:
        return account_name(PROCESS, f"{os.getpid()}-{os.urandom(6).hex()}")
