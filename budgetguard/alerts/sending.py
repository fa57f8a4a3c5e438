"""What tells of alerts: who is first to tell, the quiet period, and on to every address.

No call waits for a store, a chat's server or a mail server here, or fails with it: calls put alerts into a
queue. One thread works that off, and one for each address sends. At the end of the process what is queued
is sent within a bound. A forked child begins with empty queues: its parent sends what is in its own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from budgetguard.alerts.alert import REFUSED, THRESHOLD, Alert, subject_of
from budgetguard.alerts.courier import RETRY_S, TRIES, Courier, Receiver
from budgetguard.alerts.quiet import Quiet, merged
from budgetguard.alerts.wording import in_words, message_of
from budgetguard.alerts.worker import Flush, Worker
from budgetguard.core.process import keep_newest
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.core.wording import count

Mark: TypeAlias = Callable[[str, int], bool]
"""(account, mark) -> whether this is the first to mark it in the account's present window."""


MOST_QUEUED: Final = 1_000
"""Alerts that wait to be told; of more, the newest are dropped."""
PATIENCE_S: Final = 5.0
"""Seconds that the end of a process waits for alerts to be sent."""
_MOST_REMEMBERED: Final = 10_000
_REMEMBERED_MS: Final[Milliseconds] = 60_000
_DOUBT_S: Final = 2.0

logger = logging.getLogger("budgetguard")


class ToldBefore(Protocol):
    """What was told lately by all processes on a store. Its methods may raise."""

    def told_since(self, at: Milliseconds) -> Iterable[tuple[Milliseconds, Alert]]:
        """Return when (milliseconds) what was told, oldest first."""

    def add(self, alert: Alert) -> None:
        """Take note of what is told now."""

    def close(self) -> None:
        """Let go of files and connections, until it is used again."""


@dataclass(frozen=True, slots=True)
class _Doubtful:
    """An alert in the queue, which may be revoked until some time (monotonic seconds)."""

    alert: Alert
    mark: Mark | None
    history: ToldBefore | None
    until: float


_Queued: TypeAlias = _Doubtful | None
"""None wakes the thread up."""


class Alerts:
    """Tells of thresholds and refusals, once a window and account, to some addresses.

    Nothing here raises, and nothing but `finish` waits.

    Args:
        receivers: where alerts go.
        kinds: `threshold`, `refused`.
        percents: the thresholds that are told; None for all that are announced.
        quiet: milliseconds for which nothing else is told about an account, unless it is worse.
        clock: the time.
        retry: seconds until the first repetition; each further one waits twice as long.
        tries: how often a message is sent before it is given up.
    """

    def __init__(
        self,
        receivers: Sequence[Receiver],
        *,
        kinds: Sequence[str] = (THRESHOLD, REFUSED),
        percents: Sequence[int] | None = None,
        quiet: Milliseconds = 0,
        clock: Clock,
        retry: float = RETRY_S,
        tries: int = TRIES,
    ) -> None:
        self._couriers = tuple(Courier(one, retry=retry, tries=tries) for one in receivers)
        self._kinds = frozenset(kinds)
        self._percents = None if percents is None else frozenset(percents)
        self.clock = clock
        self._quiet = Quiet(quiet)
        self._told: dict[tuple[str, str, int], tuple[Milliseconds, int, Milliseconds]] = {}
        self._period = quiet
        self._histories: dict[str, ToldBefore] = {}
        self._begin()
        _everyone.add(self)

    def _begin(self) -> None:
        """Begin in this process, with nothing queued."""
        self._lock = threading.RLock()
        self._quiet.forget_kept()
        self._missed = 0
        self._doubtful: dict[str, _Doubtful] = {}
        self._worker: Worker[_Queued] = Worker("budgetguard-alerts", self._work, self._wait)
        for courier in self._couriers:
            courier.begin()

    def wants(self, kind: str, percent: int = 0) -> bool:
        """Whether such alerts are to be told."""
        return kind in self._kinds and (percent == 0 or self._percents is None or percent in self._percents)

    def is_known(self, project: str, account: str, mark: int, starts: Milliseconds, spent: int) -> bool:
        """Whether this process has just told, or seen told, the same of an account's window.

        After a minute, or where less is spent than then, the budget may have been reset: the store is asked
        again.
        """
        known = self._told.get((project, account, mark))
        if known is None:
            return False
        window, then, at = known
        return window == starts and then <= spent and self.clock() - at < _REMEMBERED_MS

    def count_refusal(self, project: str, account: str) -> None:
        """Count a refusal that needs no alert any more, for a line of the account's next one."""
        with self._lock:
            self._quiet.count_refusal(subject_of(project, account), self.clock())

    def put(
        self, alert: Alert, mark: Mark | None, history: ToldBefore | None = None, *, revocable: str = ""
    ) -> None:
        """Queue an alert, to be told if nobody has told it.

        Args:
            alert: what has happened.
            mark: the store's verb that decides who is first; None for whoever asks.
            history: what was told on the store; None if only this process knows.
            revocable: a name under which it can be revoked for a moment; empty tells it at once.
        """
        if self._worker.queued >= MOST_QUEUED:
            self._missed += 1
            return
        with self._lock:
            self._told[alert.project, alert.account, alert.mark] = alert.starts, alert.spent, self.clock()
            keep_newest(self._told, _MOST_REMEMBERED)
        item = _Doubtful(alert, mark, history, time.monotonic() + _DOUBT_S)
        if revocable:
            with self._lock:
                self._doubtful[revocable] = item
                keep_newest(self._doubtful, MOST_QUEUED)
        self._worker.put(None if revocable else item)

    def revoke(self, name: str) -> None:
        """Revoke an alert that was put under this name, if it has not been told."""
        if name not in self._doubtful:
            return
        with self._lock:
            doubtful = self._doubtful.pop(name, None)
            if doubtful is not None:
                alert = doubtful.alert
                self._told.pop((alert.project, alert.account, alert.mark), None)

    def finish(self, patience: float = PATIENCE_S, *, last: bool = False) -> bool:
        """Have what is queued sent now, and wait at most `patience` seconds for that.

        Args:
            patience: seconds.
            last: the process ends: what is kept back by the quiet period is sent as well.

        Returns whether nothing is left to send.
        """
        until = time.monotonic() + patience
        self._hurry((self._worker,), until, last)
        self._hurry(self._couriers, until, last)
        left = self._worker.queued + sum(one.left for one in self._couriers)
        if left and last:
            where = ", ".join(one.receiver.shown for one in self._couriers if one.left)
            logger.error("budgetguard: the process ends before its alerts were sent to %s", where)
        return not left

    def _hurry(self, those: Sequence[Worker[_Queued] | Courier], until: float, last: bool) -> None:
        wishes = [one.hurry(until - time.monotonic(), last=last) for one in those]
        for wish in wishes:
            if wish is not None:
                wish.done.wait(max(0.0, until - time.monotonic()))

    # What the thread does

    def _work(self, items: list[_Queued], wish: Flush | None) -> None:
        certain = [*(one for one in items if one is not None), *self._settled(everything=wish is not None)]
        mine = [one for one in certain if self._is_first(one)]
        due = self._quiet.next_due()
        if mine or (due is not None and due <= self.clock()):
            self._learn(mine)
        with self._lock:
            now = self.clock()
            told = [self._quiet.take(one.alert) for one in mine]
            kept = self._quiet.rest() if wish is not None and wish.last else self._quiet.due(now)
        missed, self._missed = self._missed, 0
        if missed:
            logger.error("budgetguard: %s came too fast to be told", count(missed, "alert"))
        if alerts := merged([*(one for one in told if one is not None), *kept]):
            more = len(alerts) - 1
            about = in_words(alerts[0]) + (f", and {count(more, 'more')}" if more else "")
            message = message_of(alerts, now)
            for courier in self._couriers:
                courier.put(about, message)
        self._remember(alerts)

    def _is_first(self, item: _Doubtful) -> bool:
        """Return whether nobody has told an alert in its window."""
        alert = item.alert
        try:
            if item.mark is None or item.mark(alert.account, alert.mark):
                return True
        except Exception as error:  # noqa: BLE001 - to be told twice is better than not at all
            logger.info("budgetguard: it is not known whether another process has told an alert: %s", error)
            return True
        if alert.kind == REFUSED:
            self.count_refusal(alert.project, alert.account)
        return False

    def _learn(self, items: Sequence[_Doubtful]) -> None:
        """Take note of what other processes have told within the quiet period."""
        for one in items:
            if one.history is not None and self._period:
                self._histories[one.alert.project] = one.history
        for history in set(self._histories.values()):
            try:
                for at, alert in history.told_since(self.clock() - self._period):
                    with self._lock:
                        self._quiet.told(alert, at)
            except Exception as error:  # noqa: BLE001 - then the quiet period is this process's own
                logger.info("budgetguard: it is not known what other processes have told: %s", error)

    def _remember(self, alerts: Sequence[Alert]) -> None:
        """Let other processes know what is told."""
        for alert in alerts:
            history = self._histories.get(alert.project)
            if history is not None:
                try:
                    history.add(alert)
                except Exception as error:  # noqa: BLE001
                    logger.info("budgetguard: other processes cannot know what was told: %s", error)
        for history in set(self._histories.values()):
            history.close()

    def _settled(self, *, everything: bool) -> list[_Doubtful]:
        """Take out the alerts that nobody has revoked in time."""
        with self._lock:
            now = time.monotonic()
            names = [name for name, one in self._doubtful.items() if everything or one.until <= now]
            return [self._doubtful.pop(name) for name in names]

    def _wait(self) -> float | None:
        with self._lock:
            due = self._quiet.next_due()
            waits = [one.until - time.monotonic() for one in self._doubtful.values()]
        if due is not None:
            waits.append((due - self.clock()) / 1000)
        return max(0.0, min(waits)) if waits else None


_everyone: Final[weakref.WeakSet[Alerts]] = weakref.WeakSet()


def finish_all() -> None:
    """Send what all alerts of this process have queued, since it ends."""
    for one in list(_everyone):
        one.finish(last=True)


def _renew() -> None:
    for one in list(_everyone):
        one._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
