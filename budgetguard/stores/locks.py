"""The locks of stores: in a fork, where gevent was patched in, and in a signal handler.

A fork copies every lock as it is: one held by another thread stays locked in the child for ever, over rows
half saved. And a child of a process with an open SQLite database cannot use that database at all, not even
through a connection of its own: SQLite's list of the file locks that this process holds is copied, the locks
are not. So a fork waits for the verbs under way, and finds no connection open.

A lock that was made before gevent was patched in is the operating system's: a greenlet that waits for it
stops the whole thread, and with it the greenlet that holds the lock and waits for a server. So it is polled
instead, and others run meanwhile.

A signal handler runs between any two instructions of the main thread, so also inside a store's lock. The
locks are re-entrant, so that it does not wait for itself for ever; what it reads is what was committed. But
it cannot write: the verb that it has interrupted goes on from what it read before.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol
from weakref import WeakSet

from budgetguard.errors import StoreError

_PAUSE: Final = 0.001


class Forkable:
    """A store whose verbs all run under one lock."""

    _lock: threading.RLock

    def _before_fork(self) -> None:
        """Close what a child must not inherit; called under the lock."""

    def _after_fork_in_child(self) -> None:
        """Drop what was inherited all the same; called before anything else in the child."""


_STORES: WeakSet[Forkable] = WeakSet()
_LOCKED: list[threading.RLock] = []
_FORKING = threading.RLock()  # two threads that fork at once must not take the stores' locks crosswise


def survive_forks(store: Forkable) -> None:
    """Prepare a store for every fork from now on, as long as it exists."""
    _STORES.add(store)


def _before() -> None:
    _FORKING.acquire()
    _LOCKED.append(_FORKING)
    for store in list(_STORES):
        store._lock.acquire()
        _LOCKED.append(store._lock)
        store._before_fork()


def _after() -> None:
    while _LOCKED:
        _LOCKED.pop().release()


def _after_in_child() -> None:
    for store in list(_STORES):
        store._after_fork_in_child()
    _after()  # nothing is locked where C code forked without running the hooks before


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after_in_child)


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


def nested(url: str) -> StoreError:
    """Return the error for a verb that writes in the middle of another."""
    return StoreError(
        f"the store {url} is in the middle of another call's verb, which a signal handler has interrupted: "
        "let the handler note what is to be done, and do it once it has returned; nothing was changed"
    )
