"""What this process has spent, and the `max_budget` that caps it."""

from __future__ import annotations

import os
import threading

from budgetguard.accounts import PROCESS, Budget, account_name
from budgetguard.holds import Charge, Hold
from budgetguard.money import Nanos


class ProcessCap:
    """Count what one guard spends in this process, and cap it; a forked child counts from zero.

    The cap is an account like any other, so that it is held and refused in the same transaction. What
    was spent before the cap was set, and so is not on that account, is taken off its limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.limit: Nanos = 0
        self._pid = 0
        self._mind_fork()

    @property
    def spent(self) -> Nanos:
        """What this process has spent."""
        self._mind_fork()
        return self._spent

    def charge(self) -> Charge | None:
        """Return the charge that caps a call, or None where nothing is capped (limit 0)."""
        if not self.limit:
            return None
        self._mind_fork()
        left = max(0, self.limit - self._elsewhere)
        return Charge(self._account, budget=Budget(left), pinned=True, ephemeral=True)

    def is_mine(self, account: str) -> bool:
        """Tell whether an account is this process's."""
        return account == self._account

    def count(self, hold: Hold, cost: Nanos) -> None:
        """Count what a call cost."""
        self._mind_fork()
        with self._lock:
            self._spent += cost
            if not any(charge.account == self._account for charge in hold.charges):
                self._elsewhere += cost

    def _mind_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._account = account_name(PROCESS, f"{os.getpid()}-{os.urandom(6).hex()}")
            self._spent: Nanos = 0
            self._elsewhere: Nanos = 0
