"""A thread that is there while there is something to do, and can be hurried when the process ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

_IDLE_S: Final = 30.0
_AFTER_FAILURE_S: Final = 1.0

T = TypeVar("T")
logger = logging.getLogger("budgetguard")


@dataclass(slots=True)
class Flush:
    """A wish to have all that waits worked off at once.

    Attributes:
        last: nothing comes after it, since the process ends.
        deadline: until when whoever wishes it waits (monotonic seconds).
        done: set when it was tried.
    """

    last: bool
    deadline: float
    done: threading.Event = field(default_factory=threading.Event)


class Worker(Generic[T]):
    """A queue, and a daemon thread that works it off. Putting something in waits for nothing.

    Args:
        name: of the thread.
        work: called with what was queued, perhaps nothing, and with the wish to hurry, if there is one.
        wait: seconds until there is something to do although nothing was queued; None for never.
    """

    def __init__(
        self, name: str, work: Callable[[list[T], Flush | None], None], wait: Callable[[], float | None]
    ) -> None:
        self._name = name
        self._work = work
        self._wait = wait
        self._lock = threading.RLock()
        self._queue: SimpleQueue[T | Flush] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def queued(self) -> int:
        """How much is queued."""
        return self._queue.qsize()

    def put(self, item: T) -> None:
        """Queue something."""
        self._queue.put(item)
        self._start()

    def hurry(self, patience: float, *, last: bool) -> Flush | None:
        """Have all that waits worked off at once; None if nothing waits, or if it was done here.

        Here, where the interpreter starts no threads any more.
        """
        with self._lock:
            if self._thread is None and self._wait() is None and not self.queued:
                return None
        if threading.current_thread() is self._thread:
            return None  # it cannot wait for itself
        wish = Flush(last, time.monotonic() + patience)
        self._queue.put(wish)
        if self._start():
            return wish
        self._work_off(self._next(at_once=True))
        return None

    def _start(self) -> bool:
        """Start the thread if there is none; return whether there is one."""
        with self._lock:
            if self._thread is not None:
                return True
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                # In a context of its own: whoever pays in the context that starts it does not pay in there.
                Context().run(self._thread.start)
            except RuntimeError:  # the interpreter is shutting down
                self._thread = None
                return False
            return True

    def _run(self) -> None:
        while True:
            items = self._next()
            self._work_off(items)
            with self._lock:
                if not items and self._wait() is None and not self.queued:
                    self._thread = None
                    return

    def _work_off(self, items: list[T | Flush]) -> None:
        flushes = [one for one in items if isinstance(one, Flush)]
        wish = max(flushes, key=lambda one: (one.last, one.deadline), default=None)
        try:
            self._work([one for one in items if not isinstance(one, Flush)], wish)
        except BaseException:
            logger.exception("budgetguard: the thread that sends alerts failed; it goes on")
            time.sleep(_AFTER_FAILURE_S)
        finally:
            for one in flushes:
                one.done.set()

    def _next(self, *, at_once: bool = False) -> list[T | Flush]:
        wait = 0.0 if at_once else self._wait()
        items: list[T | Flush] = []
        try:
            items.append(self._queue.get(timeout=_IDLE_S if wait is None else min(max(0.0, wait), _IDLE_S)))
            while True:
                items.append(self._queue.get_nowait())
        except Empty:
            return items
