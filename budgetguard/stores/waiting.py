"""Wait for a lock, also where gevent was patched in after the lock was made.

Such a lock is the operating system's: a greenlet that waits for it stops the whole thread, and with it the
greenlet that has the lock and waits for a server. So it is asked again and again instead, and others run
meanwhile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

_PAUSE: Final = 0.001


class Lock(Protocol):
    """What locks and semaphores have in common."""

    def acquire(self, blocking: bool = ..., timeout: Any = ...) -> bool:
        """Take it, and tell whether it could be taken in time (seconds)."""

    def release(self) -> None:
        """Let go of it."""


def take(lock: Lock, until: float) -> bool:
    """Take a lock, and tell whether it could be taken until a time (time.monotonic())."""
    if lock.acquire(blocking=False):
        return True
    if not _is_patched():
        return lock.acquire(timeout=max(0.0, until - time.monotonic()))
    while time.monotonic() < until:
        time.sleep(_PAUSE)  # gevent's: other greenlets run
        if lock.acquire(blocking=False):
            return True
    return False


@contextmanager
def taken(lock: Lock) -> Iterator[None]:
    """Hold a lock, however long it takes to get it."""
    if not lock.acquire(blocking=False):
        if _is_patched():
            while not lock.acquire(blocking=False):
                time.sleep(_PAUSE)
        else:
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("time"))
