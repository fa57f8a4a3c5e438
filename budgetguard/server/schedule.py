"""The schedule: what the service does by itself. It reads all accounts now and then, and delivers events.

It takes one thread of each process and no scheduler's library: there is one job of one interval. That only
one of several servers does it, and that another takes over, is a lease in the budgets' own store: a hold on
an account whose limit is one hold. One server reserves it, and it expires when that server falls silent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import VOID, Charge, Granted, Hold, new_hold
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.errors import StoreError
from budgetguard.server.events import Events
from budgetguard.server.projects import Projects
from budgetguard.server.views import Recent
from budgetguard.server.webhooks import NO_ANSWER, Webhook
from budgetguard.stores.base import Store

DEFAULT_LEASE: Final = 30.0
DEFAULT_RETRY: Final = 1.0

LEASE: Final = "lease:leader"
_PASSED: Final = "service:passed"
_TURN: Final[Milliseconds] = 5_000
_LONGEST_RETRY: Final = 300_000
_POLL_S: Final = 1.0
# Servers' clocks must agree with the store's to within this.
_SKEW: Final[Milliseconds] = 600_000
_CHECK_EVERY: Final = 500
_STOPPING_S: Final = 12.0
_OUTAGE_S: Final = 5.0
_log = logging.getLogger("budgetguard.server")


def monotonic() -> Milliseconds:
    """Return milliseconds of a clock that is never set."""
    return time.monotonic_ns() // 1_000_000


class Lease:
    """A lease: at most one of the servers that share a store has it at a time.

    Args:
        store: opened for `LEADER_PROJECT`.
        clock: the time, good enough to date holds.
        name: of this server, for people.
        length: seconds after which another server may take over from a silent one.
        ticks: monotonic milliseconds.
    """

    def __init__(
        self, store: Store, clock: Clock, name: str, length: float, ticks: Clock = monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._name = name
        self._length: Milliseconds = max(3, round(length * 1000))
        self._ticks = ticks
        self._mine: Hold | None = None
        self._next = ticks()

    def held(self) -> bool:
        """Return whether this server has the lease now, taking or renewing it when that is due.

        Raises:
            StoreError: the store failed, and this server does not have the lease.
        """
        now = self._ticks()  # read before the store is asked, whose hold begins later
        if now < self._next:
            return self._mine is not None
        self.release()
        self._next = now + self._length // 3
        dated = self._clock()
        charge = Charge(LEASE, budget=Budget(1))
        asked = new_hold(dated, (charge,), amount=1, ttl=self._length, user=self._name)
        if isinstance(self._store.reserve(asked), Granted):
            self._mine = asked
        return self._mine is not None

    def release(self) -> None:
        """Give the lease back, if this server has it, so that another need not wait.

        Raises:
            StoreError: the store failed; it expires.
        """
        mine, self._mine = self._mine, None
        if mine is not None:
            self._store.settle(mine, VOID)


class Delivery:
    """Delivery of events, in order; what was not taken is sent again after longer and longer.

    Args:
        events: the outbox.
        webhook: where events go.
        retry: seconds until the first repetition; each further one waits twice as long, at most five minutes.
        ticks: monotonic milliseconds.
    """

    def __init__(self, events: Events, webhook: Webhook, retry: float, ticks: Clock = monotonic) -> None:
        self._events = events
        self._webhook = webhook
        self._retry: Milliseconds = max(1, round(retry * 1000))
        self._ticks = ticks
        self._tries: dict[str, tuple[int, Milliseconds]] = {}
        self._failures = 0
        self._resumes = ticks()

    def send(self, may: Callable[[], bool]) -> None:
        """Send the events that are due, as long as `may()` allows it.

        Raises:
            StoreError: the store failed.
        """
        if self._ticks() < self._resumes:
            return
        tries, self._tries = self._tries, {}
        until = self._ticks() + _TURN
        waiting = list(self._events.waiting())
        self._tries = {one.id: tries[one.id] for one in waiting if one.id in tries}
        for one in waiting:
            if not may() or self._ticks() < self._resumes or self._ticks() >= until:
                return  # so that the accounts get their turn
            failed, due = self._tries.get(one.id, (0, 0))
            if self._ticks() < due:
                continue
            problem, is_general = self._problem(one.id, one.body)
            if not problem:
                self._failures = 0
                self._tries.pop(one.id, None)
                self._events.delivered(one.id)
                continue
            wait = self._wait(failed)
            if is_general:  # the others would fail alike, and must not overtake this one
                wait = self._wait(self._failures)
                self._failures += 1
                self._resumes = self._ticks() + wait
            self._tries[one.id] = failed + 1, self._ticks() + wait
            _log.warning(
                "the webhook at %s did not take event %s: %s; it is sent again in %.1f s",
                self._webhook.host,
                one.id,
                problem,
                wait / 1000,
            )

    def _problem(self, ident: str, body: bytes) -> tuple[str, bool]:
        """Post; return why it failed, empty if it did not, and whether other events would fail alike."""
        try:
            status = self._webhook.post(ident, body, self._events.clock() // 1000)
        except NO_ANSWER as error:
            return f"no answer ({type(error).__name__})", True
        if 200 <= status < 300:
            return "", False
        return f"status {status}", status >= 500 or status in (401, 403, 404, 408, 410, 425, 429)

    def _wait(self, failures: int) -> Milliseconds:
        return min(self._retry << min(failures, 20), _LONGEST_RETRY)


class Schedule:
    """The thread that does what is due, from `start` to `stop`.

    Args:
        projects: all stores.
        lease: decides which server does it.
        refresh: seconds from one pass over all accounts to the next.
        events: the outbox, if there is a webhook.
        delivery: sends the events; None without a webhook.
        ticks: monotonic milliseconds.
    """

    def __init__(
        self,
        projects: Projects,
        lease: Lease,
        refresh: float,
        events: Events | None = None,
        delivery: Delivery | None = None,
        ticks: Clock = monotonic,
    ) -> None:
        self._projects = projects
        self._lease = lease
        self._refresh: Milliseconds = round(refresh * 1000)
        self._events = events
        self._delivery = delivery
        self._ticks = ticks
        self._told = Recent()
        self._due = ticks()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        if events is not None:
            events.on_recorded = self._wake.set

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="budgetguard-schedule", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits some seconds at most for a delivery under way."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_STOPPING_S)

    def step(self) -> None:
        """Do what is due, if this server has the lease.

        Raises:
            StoreError: the store failed.
        """
        if self._events is not None:
            self._events.save()
            self._events.foresee()
        if not self._may():
            return
        if self._ticks() >= self._due and self._pass():
            self._due = self._ticks() + self._refresh
        if self._delivery is not None:
            self._delivery.send(self._may)

    def _may(self) -> bool:
        return not self._stopping and self._lease.held()

    def _pass(self) -> bool:
        """Read all accounts, which ends windows and expires holds; return whether the lease lasted."""
        own, began = self._projects.own, self._projects.clock()
        passed = own.read(_PASSED)
        since = None if passed is None else passed.starts_ms - _SKEW
        is_whole = True
        for project in self._projects.known():
            try:
                if not self._go_over(project, since):
                    return False
            except StoreError as error:
                is_whole = False
                _log.error("the accounts of a project cannot be read: %s", error)
        if is_whole:
            # The start of an account's window can be set: this account keeps when the last whole pass began.
            own.set_budget(_PASSED, Budget(None, starts_at=began))
        return True

    def _go_over(self, project: str, since: Milliseconds | None) -> bool:
        for count, balance in enumerate(self._projects.store(project).list(), start=1):
            if count % _CHECK_EVERY == 0 and not self._may():
                return False
            if self._events is None or since is None or balance.resets_ms is None:
                continue
            # A window that began when its account was made is no event.
            if balance.starts_ms < since or balance.starts_ms <= balance.created_ms:
                continue
            window = (project, balance.account, balance.starts_ms)
            if window not in self._told:
                self._events.started(project, balance)
                self._told.add(window)
        return True

    def _run(self) -> None:
        poll = min(_POLL_S, self._refresh / 1000)
        while not self._stopping:
            self._wake.clear()
            wait = poll
            try:
                self.step()
            except StoreError as error:
                wait = max(poll, _OUTAGE_S)
                _log.error("the store failed: %s", error)
            except Exception:  # noqa: BLE001  # the next step may succeed
                _log.exception("the schedule failed; it goes on")
            self._wake.wait(wait)
        try:
            self._lease.release()
        except StoreError as error:
            _log.warning("the store failed, so others take over late: %s", error)
