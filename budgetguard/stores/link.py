"""Connections to one server: kept, bounded in time, made again after an outage, never shared with a child.

Drivers' own pools and clients are not used: they bound each step of a request and not the whole, and what
they do in the background is lost in a fork.
"""

from __future__ import annotations

import os
import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

C = TypeVar("C")
T = TypeVar("T")

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_DICE: Final = random.SystemRandom()

_INHERITED: Final[list[Any]] = []
"""Connections of a parent process: to close them, be it by forgetting them, might end them for it too."""


class ServerLink(ABC, Generic[C]):
    """Requests to one server, from any thread, each within the time that a verb may take.

    A subclass knows how to connect and disconnect, which connections are still in order after an error, and
    which errors pass by themselves.

    Args:
        timeout: seconds that a verb may take, connecting and trying again included.
        kept: connections that are kept for the next requests at most.
    """

    def __init__(self, timeout: float, kept: int = 64) -> None:
        self._timeout = timeout
        self._kept = kept
        self._begin()
        self._owner = os.getpid()

    def deadline(self) -> float:
        """Return until when a verb that begins now may take (time.monotonic())."""
        return time.monotonic() + self._timeout

    def close(self) -> None:
        """Close the connections that are not in use; the next request opens others."""
        if self._owner != os.getpid():
            self._begin_in_child()
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._disconnect(self._idle.pop())

    @abstractmethod
    def _connect(self, deadline: float) -> C:
        """Return a new connection, made by a deadline."""

    @abstractmethod
    def _disconnect(self, connection: C) -> None:
        """Close a connection; raise nothing."""

    @abstractmethod
    def _is_in_order(self, connection: C, error: BaseException | None) -> bool:
        """Return whether a connection can take another request, after an error or an answer (None)."""

    @abstractmethod
    def _retry_after(self, error: Exception, connection: C | None) -> float | None:
        """Return after how many seconds at least to try again; None where that would not help. Raise nothing.

        Args:
            error: what an attempt ended with.
            connection: the one that it used; None where none was made.
        """

    def _begin(self) -> None:
        """Begin without connections, in the process that opens this and in a forked child of it."""
        self._idle: deque[C] = deque()

    def _begin_in_child(self) -> None:
        _INHERITED.append(self._idle)
        self._begin()
        self._owner = os.getpid()  # at last: other threads of the child look here

    def _repeat(self, attempt: Callable[[C], T], deadline: float, *, fresh: bool = False) -> T:
        """Return what an attempt with some connection returns; try again while its errors pass by themselves.

        What an attempt sends may so arrive twice, and must count once.

        Args:
            attempt: sends a request and returns its answer.
            deadline: when to give up (time.monotonic()).
            fresh: use no connection that was kept.

        Raises:
            Exception: of the last attempt.
        """
        if self._owner != os.getpid():
            self._begin_in_child()
        pause = 0.0
        while True:
            connection: C | None = None
            try:
                connection = (None if fresh else self._take()) or self._connect(deadline)
                answer = attempt(connection)
            except BaseException as error:
                least = self._retry_after(error, connection) if isinstance(error, Exception) else None
                in_order = connection is not None and self._give_back(connection, error)
                if least is None:
                    raise
                if not in_order:
                    self.close()  # what is idle was made before whatever has happened
                pause = max(pause, least)
                if time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)
                if time.monotonic() >= deadline:  # it slept for longer, on a busy machine
                    raise  # what went wrong, and not that the next attempt had no time
            else:
                self._give_back(connection, None)
                return answer
            # The first time at once: the server may merely have closed what was idle for long.
            pause = min(pause * 2, _LONGEST_PAUSE) * _DICE.uniform(0.7, 1) if pause else _FIRST_PAUSE

    def _take(self) -> C | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _give_back(self, connection: C, error: BaseException | None) -> bool:
        """Keep a connection if it is in order, else close it; return whether it is."""
        in_order = self._is_in_order(connection, error)
        if in_order and len(self._idle) < self._kept:
            self._idle.append(connection)
        else:
            self._disconnect(connection)
        return in_order
