"""Forks while stores are open.

A fork copies every lock as it is: one held by another thread stays locked in the child for ever, over rows
half saved. And a child of a process with an open SQLite database cannot use that database at all, not even
through a connection of its own: SQLite's list of the file locks that this process holds is copied, the locks
are not. So a fork waits for the verbs under way, and finds no connection open.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
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
