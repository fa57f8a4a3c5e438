"""What sends alerts: a queue and one thread, so that no call waits for a chat's server or fails with it.

The thread asks the store who is first to tell, keeps the quiet period, and sends; what an address does not
take is sent again after longer and longer, and given up with one line in the log. It is started with the
first alert and ends when it has had nothing to do for a while. At the end of the process what is queued is
sent within a bound. A forked child begins with an empty queue: its parent sends what is in its own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final, Protocol, TypeAlias

from budgetguard.alerts.alert import REFUSED, THRESHOLD, Alert, subject_of
from budgetguard.alerts.quiet import Quiet
from budgetguard.alerts.wording import Message, in_words, message_of
from budgetguard.core.process import keep_newest
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.core.wording import count

Mark: TypeAlias = Callable[[str, int], bool]
"""(account, mark) -> whether this is the first to mark it in the account's present window."""

MOST_QUEUED: Final = 1_000
_MOST_WAITING: Final = 100
_MOST_REMEMBERED: Final = 10_000
_TRIES: Final = 8
_RETRY_S: Final = 1.0
_IDLE_S: Final = 30.0
PATIENCE_S: Final = 5.0
"""Seconds that the end of a process waits for alerts to be sent."""

logger = logging.getLogger("budgetguard")


class Receiver(Protocol):
    """What takes messages: an `AlertAddress`.

    Attributes:
        shown: what it is called in the log, without secrets.
    """

    @property
    def shown(self) -> str: ...

    def send(self, message: Message) -> str:
        """Send a message; return why it was not taken, empty if it was."""


@dataclass(slots=True)
class _Outgoing:
    """What waits for one address, oldest first, and how often that has failed in a row."""

    receiver: Receiver
    waiting: deque[tuple[str, Message]] = field(default_factory=deque)
    failures: int = 0
    resumes: float = 0.0
    dropped: int = 0


@dataclass(slots=True)
class _Flush:
    """A wish to have all that is queued tried at once; `last` says that nothing comes after it."""

    last: bool
    deadline: float
    done: threading.Event = field(default_factory=threading.Event)


class Alerts:
    """Tells of thresholds and refusals, once a window and account, to some addresses.

    No method raises or waits for a network, but for `finish`.

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
        retry: float = _RETRY_S,
        tries: int = _TRIES,
    ) -> None:
        self.receivers = tuple(receivers)
        self._kinds = frozenset(kinds)
        self._percents = None if percents is None else frozenset(percents)
        self._clock = clock
        self._retry = retry
        self._tries = tries
        self._quiet = Quiet(quiet)
        self._told: dict[tuple[str, str, int], tuple[Milliseconds, int]] = {}
        self._begin()
        _everyone.add(self)

    def _begin(self) -> None:
        """Begin in this process, with nothing queued."""
        self._lock = threading.RLock()
        self._queue: SimpleQueue[tuple[Alert, Mark | None] | _Flush] = SimpleQueue()
        self._outgoing = [_Outgoing(receiver) for receiver in self.receivers]
        self._quiet.forget_kept()
        self._thread: threading.Thread | None = None
        self._overflowed = 0

    def wants(self, kind: str, percent: int = 0) -> bool:
        """Whether such alerts are to be told."""
        return kind in self._kinds and (percent == 0 or self._percents is None or percent in self._percents)

    def is_known(self, project: str, account: str, mark: int, starts: Milliseconds, spent: int) -> bool:
        """Whether this process has told, or has seen told, the same of an account's window.

        Less spent than then is a budget that was reset.
        """
        known = self._told.get((project, account, mark))
        return known is not None and known[0] == starts and known[1] <= spent

    def count_refusal(self, project: str, account: str) -> None:
        """Count a refusal that needs no alert any more, for a line of the account's next one."""
        with self._lock:
            self._quiet.count_refusal(subject_of(project, account), self._clock())

    def put(self, alert: Alert, mark: Mark | None) -> None:
        """Queue an alert, to be told if nobody has told it.

        Args:
            alert: what has happened.
            mark: the store's verb that decides who is first; None for whoever asks.
        """
        if self._queue.qsize() >= MOST_QUEUED:
            self._overflowed += 1
            return
        with self._lock:
            self._told[alert.project, alert.account, alert.mark] = alert.starts, alert.spent
            keep_newest(self._told, _MOST_REMEMBERED)
        self._queue.put((alert, mark))
        self._start()

    def finish(self, patience: float = PATIENCE_S, *, last: bool = False) -> bool:
        """Have what is queued sent now, and wait at most `patience` seconds for that.

        Args:
            patience: seconds.
            last: the process ends: what is kept back by the quiet period is sent as well.

        Returns whether nothing is left to send.
        """
        if threading.current_thread() is self._thread:
            return False
        if not self._is_pending(last):
            return True
        wish = _Flush(last, time.monotonic() + patience)
        self._queue.put(wish)
        if not self._start():
            return False  # the interpreter starts no threads any more, and sending here may take minutes
        wish.done.wait(patience)
        left = self._is_pending(last)
        if left and last:
            logger.error("budgetguard: the process ends before its alerts could be sent")
        return not left

    def _is_pending(self, last: bool) -> bool:
        with self._lock:
            kept = last and self._quiet.next_due() is not None
        return not self._queue.empty() or kept or self._busy or any(one.waiting for one in self._outgoing)

    def _start(self) -> bool:
        """Start the thread if there is none; return whether there is one."""
        with self._lock:
            if self._thread is not None:
                return True
            self._busy = True
            self._thread = threading.Thread(
                target=self._work, args=(self._queue,), name="budgetguard-alerts", daemon=True
            )
            try:
                # In a context of its own: whoever pays in the context that starts it does not pay in there.
                Context().run(self._thread.start)
            except RuntimeError:  # the interpreter is shutting down
                self._thread = None
                return False
            return True

    # What the thread does

    def _work(self, queue: SimpleQueue[tuple[Alert, Mark | None] | _Flush]) -> None:
        while True:
            try:
                items = [queue.get(timeout=self._wait())]
            except Empty:
                items = []
            with self._lock:
                self._busy = True
            try:
                while True:
                    try:
                        items.append(queue.get_nowait())
                    except Empty:
                        break
                self._do(items)
            except Exception:
                logger.exception("budgetguard: the thread that sends alerts failed; it goes on")
            with self._lock:
                self._busy = False
                if not items and self._is_idle() and queue.empty():
                    self._thread = None
                    return

    def _do(self, items: Sequence[tuple[Alert, Mark | None] | _Flush]) -> None:
        flushes = [one for one in items if isinstance(one, _Flush)]
        last = any(one.last for one in flushes)
        try:
            told = [self._decide(*one) for one in items if not isinstance(one, _Flush)]
            with self._lock:
                now = self._clock()
                due = [*self._quiet.due(now), *(self._quiet.rest() if last else ())]
            if alerts := [*(one for one in told if one is not None), *due]:
                self._post(in_words(alerts[0]), message_of(alerts, now))
            self._send(at_once=bool(flushes))
            deadline = max((one.deadline for one in flushes), default=0.0)
            while last and any(one.waiting for one in self._outgoing) and time.monotonic() < deadline:
                time.sleep(min(0.05, self._retry))
                self._send()
        finally:
            for one in flushes:
                one.done.set()

    def _decide(self, alert: Alert, mark: Mark | None) -> Alert | None:
        """Return what is to be told now because of an alert; None where another process or time decides."""
        try:
            if mark is not None and not mark(alert.account, alert.mark):
                return None
        except Exception as error:  # noqa: BLE001 - to be told twice is better than not at all
            logger.info("budgetguard: it is not known whether another process has told an alert: %s", error)
        with self._lock:
            return self._quiet.take(alert)

    def _post(self, about: str, message: Message) -> None:
        missed, self._overflowed = self._overflowed, 0
        if missed:
            logger.error("budgetguard: %s came too fast to be told", count(missed, "alert"))
        for one in self._outgoing:
            one.waiting.append((about, message))
            if len(one.waiting) > _MOST_WAITING:
                one.waiting.popleft()
                one.dropped += 1

    def _send(self, *, at_once: bool = False) -> None:
        for one in self._outgoing:
            while one.waiting and (at_once or time.monotonic() >= one.resumes):
                about, message = one.waiting[0]
                problem = one.receiver.send(message)
                if not problem:
                    one.waiting.popleft()
                    one.failures = 0
                    continue
                one.failures += 1
                one.resumes = time.monotonic() + self._retry * 2 ** (one.failures - 1)
                if one.failures >= self._tries:
                    self._give_up(one, about, problem)
                break

    def _give_up(self, one: _Outgoing, about: str, problem: str) -> None:
        others = len(one.waiting) - 1 + one.dropped
        logger.error(
            "budgetguard: an alert could not be sent to %s in %d tries and is given up: %s%s: %s",
            one.receiver.shown,
            one.failures,
            about,
            f" (and {count(others, 'other')})" if others else "",
            problem,
        )
        one.waiting.clear()
        one.failures = one.dropped = 0
        one.resumes = 0.0

    def _wait(self) -> float:
        """Return seconds until there is something to do without anything new."""
        waits = [_IDLE_S, *(one.resumes - time.monotonic() for one in self._outgoing if one.waiting)]
        with self._lock:
            if (due := self._quiet.next_due()) is not None:
                waits.append((due - self._clock()) / 1000)
        return max(0.0, min(waits))

    def _is_idle(self) -> bool:
        return self._quiet.next_due() is None and not any(one.waiting for one in self._outgoing)

    _busy = False


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
