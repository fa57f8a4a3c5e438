"""Turns: how many requests of one project are under way at once, so that no project occupies the service.

A gate admits so many requests of one project at once, keeps some more waiting, and refuses the rest at once
with 429. A caller that disconnects while waiting loses its place. A project whose store did not answer in
time is not asked again for a moment: callers that wait for the same silence only make a queue.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio
from anyio import CancelScope, CapacityLimiter, create_task_group
from anyio.to_thread import run_sync

from budgetguard.errors import StoreError
from budgetguard.server.problems import BadRequest, StoreUnavailable, TooManyRequests

T = TypeVar("T")

_HUNG_S: Final = 1.0
"""A store whose failure takes this long hangs."""

_PAUSE_S: Final = 0.5
_TRYING_S: Final = 5.0
_REMEMBERED: Final = 10_000


class TurnGate:
    """Turns for requests of one kind.

    Args:
        total: how many are under way at once.
        each: how many of those may be one project's.
        waiting: how many more of one project's may wait.
        longest: the most seconds that one waits.
    """

    def __init__(self, total: int, each: int, waiting: int, longest: float) -> None:
        self._all = CapacityLimiter(total)
        self._each = each
        self._waiting = waiting
        self._longest = longest
        self._limiters: dict[str, CapacityLimiter] = {}
        self._present: dict[str, int] = {}

    @asynccontextmanager
    async def enter(self, whose: str, gone: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """Wait for a turn, which lasts as long as the block.

        Args:
            whose: the project or the key whose share it counts against.
            gone: returns when the caller has disconnected.

        Raises:
            TooManyRequests: too many of its requests wait already, or this one has waited too long.
            BadRequest: the caller has disconnected.
        """
        present = self._present.get(whose, 0)
        if present >= self._each + self._waiting:
            raise TooManyRequests(
                f"{present} requests of this kind are under way or waiting already: wait a moment"
            )
        limiter = self._limiters.get(whose)
        if limiter is None:
            limiter = self._limiters[whose] = CapacityLimiter(self._each)
        self._present[whose] = present + 1
        try:
            await _acquire(limiter, gone, self._longest)
            try:
                await _acquire(self._all, gone, self._longest)
                try:
                    yield
                finally:
                    self._all.release()
            finally:
                limiter.release()
        finally:
            self._present[whose] -= 1
            if not self._present[whose]:
                del self._present[whose], self._limiters[whose]


class Circuits:
    """Circuit breakers, one a project: which projects' stores hang."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: OrderedDict[str, float] = OrderedDict()

    def check(self, project: str) -> None:
        """Refuse a request to a store that has just failed to answer in time.

        Raises:
            StoreUnavailable: the store is not asked now.
        """
        if time.monotonic() < self._until.get(project, 0.0):
            raise StoreUnavailable("the store did not answer in time: send the same request again")

    def run(self, project: str, work: Callable[[], T]) -> T:
        """Run work on a project's store, in this thread.

        Raises:
            StoreError: the store failed.
            StoreUnavailable: the store has failed to answer in time since the request came.
        """
        started = time.monotonic()
        with self._lock:
            self.check(project)
            if project in self._until:  # one request tries it, and the others wait for its result
                self._until[project] = started + _TRYING_S
        try:
            done = work()
        except StoreError:
            now = time.monotonic()
            self._note(project, now + _PAUSE_S if now - started >= _HUNG_S else None)
            raise
        except BaseException:
            self._note(project, None)
            raise
        self._note(project, None)
        return done

    def _note(self, project: str, until: float | None) -> None:
        """Set until when a project's store is not asked; None if it answers."""
        if until is None and project not in self._until:
            return
        with self._lock:
            self._until.pop(project, None)
            if until is not None:
                self._until[project] = until
                if len(self._until) > _REMEMBERED:
                    self._until.popitem(last=False)


async def in_thread(work: Callable[[], T]) -> T:
    """Run work in a thread, with no limit of its own: a gate limits how many do."""
    return await run_sync(work, limiter=CapacityLimiter(1))


async def _acquire(limiter: CapacityLimiter, gone: Callable[[], Awaitable[object]], longest: float) -> None:
    try:
        limiter.acquire_nowait()
    except anyio.WouldBlock:
        pass
    else:
        return
    taken = left = False
    async with create_task_group() as group:

        async def watch(scope: CancelScope) -> None:
            nonlocal left
            await gone()
            left = True
            scope.cancel()

        with anyio.move_on_after(longest) as scope:
            group.start_soon(watch, scope)
            await limiter.acquire()
            taken = True
        group.cancel_scope.cancel()
    if not taken:
        raise BadRequest("the caller has disconnected") if left else TooManyRequests("busy: wait a moment")
