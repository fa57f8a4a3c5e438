"""Answers that go on after a guarded function has returned: iterators of every kind, and awaitables.

Calls made inside a generator are inside the guarded call, but its caller is not, so the call is current
only while the generator runs. A generator that nobody starts holds nothing; one that is dropped is
settled by a finalizer, which does no I/O itself.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from budgetguard.engine.context import enter_frame, leave_frame
from budgetguard.engine.flow import adrive, drive, finish_async, invoking, reserving
from budgetguard.engine.outcomes import UNREADABLE, NotCharged, Outcome, Unknown
from budgetguard.errors import UnpricedAnswerError

if TYPE_CHECKING:
    from budgetguard.engine.call import GuardedCall

logger = logging.getLogger("budgetguard")


class Reader(Protocol):
    """What reads the cost of a call from the items that it yields."""

    def feed(self, item: object) -> None:
        """Take one item."""

    def outcome(self) -> Outcome:
        """Return the outcome of a call whose items are all read.

        Raises:
            UnpricedAnswerError: they tell no cost.
        """

    def outcome_early(self, error: BaseException | None) -> Outcome:
        """Return the outcome of a call that goes no further: given up, or broken off by an error."""


class Stepped:
    """The steps through what a guarded call yields: the first reserves, the last settles.

    Args:
        call: the call, its money not yet set aside unless `begun`.
        make: returns the generator, or whatever is stepped through.
        reader: reads the cost from its items.
        begun: the money is set aside already, and the answer was returned: it is nowhere else, so an end
            that tells no cost raises nothing.
    """

    def __init__(
        self, call: GuardedCall, make: Callable[[], Any], reader: Reader, *, begun: bool = False
    ) -> None:
        self._call = call
        self._make = make
        self._reader = reader
        self._inner: Any = None
        self._over = False
        self._begun = False
        self._keeps = begun
        self._call_off: Callable[[], bool] | None = None
        if begun:
            self._inner = make()
            self._begin()

    def step(self, advance: Callable[[], Any]) -> Any:
        """Return the next item, which `advance` brings; settle if there is none."""
        if self._over:
            # A finished generator knows best what it raises; a new one made for that runs nothing.
            if self._inner is None:
                self._inner = self._make()
                self._inner.close()
            return advance()
        if not self._begun:
            grip = self._call.keep()
            drive(reserving(self._call))
            self._begin()
            del grip
        if self._inner is None:
            self._inner = self._make()
        try:
            item = self.inside(advance)
        except StopIteration:
            if self._end():
                self._complete(self._call.finish)
            raise
        except BaseException as error:
            if self._end():
                self._call.finish(self._reader.outcome_early(error))
            raise
        self._reader.feed(item)
        return item

    async def astep(self, advance: Callable[[], Awaitable[Any]]) -> Any:
        """Return the next item, which `advance` brings; settle if there is none."""
        if self._over:
            if self._inner is None:
                self._inner = self._make()
                await self._inner.aclose()
            return await advance()
        if not self._begun:
            grip = self._call.keep()
            await adrive(reserving(self._call))
            self._begin()
            del grip
        if self._inner is None:
            self._inner = self._make()
        try:
            item = await self.ainside(advance)
        except StopAsyncIteration:
            if self._end():
                endings: list[Outcome] = []
                try:
                    self._complete(endings.append)
                finally:
                    await finish_async(self._call, endings[0])
            raise
        except BaseException as error:
            if self._end():
                await finish_async(self._call, self._reader.outcome_early(error))
            raise
        self._reader.feed(item)
        return item

    def give_up(self, close: Callable[[], Any] | None = None) -> Any:
        """Settle what will be stepped no further, and close it."""
        self._over = True
        try:
            return None if close is None else self.inside(close)
        finally:
            if self._end():
                self._call.finish(self._reader.outcome_early(None))

    async def agive_up(self, close: Callable[[], Awaitable[Any]] | None = None) -> Any:
        """Settle what will be stepped no further, and close it."""
        self._over = True
        try:
            return None if close is None else await self.ainside(close)
        finally:
            if self._end():
                await finish_async(self._call, self._reader.outcome_early(None))

    def inside(self, do: Callable[[], Any]) -> Any:
        """Run something as a part of the call."""
        frame = enter_frame(self._call)
        try:
            return do()
        finally:
            leave_frame(frame)

    async def ainside(self, do: Callable[[], Awaitable[Any]]) -> Any:
        """Run something as a part of the call."""
        frame = enter_frame(self._call)
        try:
            return await do()
        finally:
            leave_frame(frame)

    def _begin(self) -> None:
        self._begun = True
        self._call_off = self._call.finish_when_dropped(self, partial(self._reader.outcome_early, None))

    def _end(self) -> bool:
        """Whether there is something to settle, which from here on nobody else will."""
        self._over = True
        return self._call_off is not None and self._call_off()

    def _complete(self, finish: Callable[[Outcome], object]) -> None:
        try:
            outcome = self._reader.outcome()
        except UnpricedAnswerError as error:
            finish(UNREADABLE)
            if self._call.delegated:
                return
            if not self._keeps:
                raise
            logger.warning("budgetguard: %s", error)
        else:
            finish(outcome)


class GuardedGenerator(Stepped, Generator[Any, Any, Any]):
    """A generator that is stepped through as one guarded call."""

    def send(self, value: Any) -> Any:
        return self.step(lambda: self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        if not self._begun:
            # It runs no line of its body, and so makes no call.
            self._over = True
            self._inner = self._inner or self._make()
        return self.step(lambda: self._inner.throw(*error))

    def close(self) -> None:
        if not self._over:
            self.give_up(None if self._inner is None else self._inner.close)


class GuardedAsyncGenerator(Stepped, AsyncGenerator[Any, Any]):
    """An async generator that is stepped through as one guarded call."""

    async def asend(self, value: Any) -> Any:
        return await self.astep(lambda: self._inner.asend(value))

    async def athrow(self, *error: Any) -> Any:
        if not self._begun:
            # It runs no line of its body, and so makes no call.
            self._over = True
            self._inner = self._inner or self._make()
        return await self.astep(lambda: self._inner.athrow(*error))

    async def aclose(self) -> None:
        if not self._over:
            await self.agive_up(None if self._inner is None else self._inner.aclose)


def guard_awaitable(answer: Awaitable[Any], call: GuardedCall) -> Coroutine[Any, Any, Any]:
    """Return a coroutine that awaits an answer as the rest of a guarded call."""
    coroutine = _await(answer, call)
    # A coroutine that nobody awaits does nothing; a task or future goes on all the same.
    dropped = NotCharged("never awaited") if inspect.iscoroutine(answer) else Unknown("never awaited")
    call.finish_when_dropped(coroutine, lambda: dropped)
    return coroutine


async def _await(answer: Awaitable[Any], call: GuardedCall) -> Any:
    async def invoke() -> Any:
        return await answer

    return await adrive(invoking(call), invoke)
