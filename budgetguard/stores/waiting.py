"""Waiting for a lock, also where gevent was patched in after the lock was made.

Such a lock is the operating system's: a greenlet that waits for it stops the whole thread, and with it the
greenlet that holds the lock and waits for a server. So it is polled instead, and others run meanwhile.
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
        """Acquire it, and return whether that was possible in time (seconds)."""

    def release(self) -> None:
        """Release it."""


def take(lock: Lock, until: float) -> bool:
    """Acquire a lock, and return whether that was possible by a time (time.monotonic())."""
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
    """Keep a lock for a block, however long it takes to acquire it."""
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
