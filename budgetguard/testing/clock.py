"""A clock that stands still until it is told otherwise."""

from __future__ import annotations

import threading
from typing import Final

from budgetguard.core.windows import Milliseconds

DEFAULT_START: Final[Milliseconds] = 1_767_225_600_000
"""2026-01-01 00:00 UTC."""


class FakeClock:
    """Tell a time that only the test moves: a `Clock` for every store, safe in threads.

    Args:
        start: milliseconds since 1970-01-01 UTC; a whole year's first moment by default.

    >>> clock = FakeClock(0)
    >>> clock.advance(1.5)
    1500
    >>> clock()
    1500
    """

    def __init__(self, start: Milliseconds = DEFAULT_START) -> None:
        self._now = start
        self._lock = threading.Lock()

    def __call__(self) -> Milliseconds:
        """Return the time."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> Milliseconds:
        """Move on by seconds, rounded to milliseconds, or back if negative; return the new time."""
        with self._lock:
            self._now += round(seconds * 1000)
            return self._now

    def set(self, instant: Milliseconds) -> None:
        """Jump to an instant, forward or back."""
        with self._lock:
            self._now = instant
