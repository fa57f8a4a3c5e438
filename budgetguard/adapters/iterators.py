"""Answers that go on after a guarded function has returned: generators, async generators, awaitables.

Calls made inside a generator are inside the guarded call, but its caller is not, so the call is current
only while the generator runs. A generator that nobody starts holds nothing; one that is dropped is
settled by a finalizer, which does no I/O itself.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from budgetguard.adapters.base import Ending, NotCharged
from budgetguard.context import enter_frame, leave_frame
from budgetguard.errors import UnpricedAnswerError

if TYPE_CHECKING:
    from budgetguard.calls import Call


class Reader(Protocol):
    """Read the cost of a call from the items that it yields."""

    def feed(self, item: object) -> None:
        """Take note of one item."""

    def ending(self, *, complete: bool) -> Ending:
        """Say how the call ended; raises UnpricedAnswerError if the items of a complete one tell no cost."""


class GuardedGenerator(Generator[Any, Any, Any]):
    """Step through a generator as one guarded call.

    Args:
        call: the call, its money not yet set aside unless `begun`.
        make: returns the generator.
        reader: reads the cost from its items.
        begun: the money is set aside already.
    """

    def __init__(self, call: Call, make: Callable[[], Any], reader: Reader, *, begun: bool = False) -> None:
        self._call = call
        self._make = make
        self._reader = reader
        self._inner: Any = None
        self._closed = False
        self._begun = begun
        if begun:
            self._mind()

    def send(self, value: Any) -> Any:
        return self._step(lambda: self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._step(lambda: self._inner.throw(*error))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._inner is not None:
                self._inside(self._inner.close)
            if self._begun:
                self._call.finish(self._reader.ending(complete=False))

    def _mind(self) -> None:
        from budgetguard.background import background

        background.start()
        weakref.finalize(self, _finish_dropped, self._call, self._reader)

    def _step(self, advance: Callable[[], Any]) -> Any:
        if self._closed:
            raise StopIteration
        if not self._begun:
            from budgetguard.flow import drive, reserving

            drive(reserving(self._call), lambda: None)
            self._begun = True
            self._mind()
        if self._inner is None:
            self._inner = self._make()
        try:
            item = self._inside(advance)
        except StopIteration:
            self._closed = True
            self._call.finish(_complete(self._call, self._reader))
            raise
        except BaseException as error:
            self._closed = True
            self._call.finish(self._call.request.ending_of_error(error))
            raise
        self._reader.feed(item)
        return item

    def _inside(self, do: Callable[[], Any]) -> Any:
        frame = enter_frame(self._call)
        try:
            return do()
        finally:
            leave_frame(frame)


class GuardedAsyncGenerator(AsyncGenerator[Any, Any]):
    """Step through an async generator as one guarded call; see `GuardedGenerator`."""

    def __init__(self, call: Call, make: Callable[[], Any], reader: Reader, *, begun: bool = False) -> None:
        self._call = call
        self._make = make
        self._reader = reader
        self._inner: Any = None
        self._closed = False
        self._begun = begun
        if begun:
            self._mind()

    async def asend(self, value: Any) -> Any:
        return await self._step(lambda: self._inner.asend(value))

    async def athrow(self, *error: Any) -> Any:
        return await self._step(lambda: self._inner.athrow(*error))

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            if self._inner is not None:
                await self._inside(self._inner.aclose)
            if self._begun:
                await self._finish(self._reader.ending(complete=False))

    def _mind(self) -> None:
        from budgetguard.background import background

        background.start()
        weakref.finalize(self, _finish_dropped, self._call, self._reader)

    async def _step(self, advance: Callable[[], Awaitable[Any]]) -> Any:
        if self._closed:
            raise StopAsyncIteration
        if not self._begun:
            from budgetguard.flow import adrive, reserving

            await adrive(reserving(self._call), _nothing)
            self._begun = True
            self._mind()
        if self._inner is None:
            self._inner = self._make()
        try:
            item = await self._inside(advance)
        except StopAsyncIteration:
            self._closed = True
            await self._finish(_complete(self._call, self._reader))
            raise
        except BaseException as error:
            self._closed = True
            await self._finish(self._call.request.ending_of_error(error))
            raise
        self._reader.feed(item)
        return item

    async def _inside(self, do: Callable[[], Awaitable[Any]]) -> Any:
        frame = enter_frame(self._call)
        try:
            return await do()
        finally:
            leave_frame(frame)

    async def _finish(self, ending: Ending) -> None:
        from budgetguard.flow import Work, finished

        await finished(Work(partial(self._call.finish, ending), self._call.blocking))


def guard_awaitable(answer: Awaitable[Any], call: Call) -> Coroutine[Any, Any, Any]:
    """Return a coroutine that awaits an answer as the rest of a guarded call."""
    from budgetguard.background import background

    coroutine = _await(answer, call)
    background.start()
    weakref.finalize(coroutine, call.finish_later, lambda: NotCharged("never awaited"))
    return coroutine


async def _await(answer: Awaitable[Any], call: Call) -> Any:
    from budgetguard.flow import adrive, invoking

    async def invoke() -> Any:
        return await answer

    return await adrive(invoking(call), invoke)


def _complete(call: Call, reader: Reader) -> Ending:
    try:
        return reader.ending(complete=True)
    except UnpricedAnswerError:
        if call.delegated:
            return NotCharged("calls inside it paid")
        call.finish(call.unreadable())
        raise


def _finish_dropped(call: Call, reader: Reader) -> None:
    call.finish_later(lambda: reader.ending(complete=False))


async def _nothing() -> None:
    """Be the call of a flow that makes none."""
