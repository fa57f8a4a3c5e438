"""Answers that go on after a guarded function has returned: iterators of every kind, and awaitables.

Calls made inside a generator are inside the guarded call, but its caller is not, so the call is current
only while the generator runs. A generator that nobody starts holds nothing; one that is dropped is
settled by a finalizer, which does no I/O itself.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from budgetguard.core.usage import Reported
from budgetguard.engine.context import enter_frame, leave_frame
from budgetguard.engine.flow import Closed, Flow, Work, adrive, drive, invoking, reserving
from budgetguard.engine.outcomes import UNREADABLE, Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.provider_call import Do
from budgetguard.errors import UnpricedAnswerError
from budgetguard.providers.answer_shapes import ItemAccumulator

if TYPE_CHECKING:
    from budgetguard.engine.call import GuardedCall
    from budgetguard.providers.functions import FunctionCall

logger = logging.getLogger("budgetguard")


class Reader(Protocol):
    """What reads the cost of a call from the items that it yields."""

    def feed(self, item: Any) -> None:
        """Take one item."""

    def seen_beyond(self, tokens: int) -> int | None:
        """Return the output tokens seen so far if they are known to be more than so many, else None."""

    def outcome(self) -> Outcome:
        """Return the outcome of a call whose items are all read.

        Raises:
            UnpricedAnswerError: they tell no cost.
        """

    def outcome_early(self, error: BaseException | None) -> Outcome:
        """Return the outcome of a call that goes no further: given up, or broken off by an error."""


class ItemReader:
    """What the items that a call yields tell of its cost: text, or pieces of an answer.

    Args:
        request: the call.
        answer: what yields them, if it is itself an answer: once it is over it may know more than they told.
        told: the last item says it all, read by the user's `usage=`.
    """

    def __init__(self, request: FunctionCall, answer: object = None, *, told: bool = False) -> None:
        self._request = request
        self._answer = answer
        self._told = told
        self._events = ItemAccumulator(request.model)
        self._any = False
        self._last: object = None

    def feed(self, item: object) -> None:
        """Take one item."""
        self._any = True
        if self._told:
            self._last = item
        self._events.feed(item)

    def seen_beyond(self, tokens: int) -> int | None:
        """Return None: what a function yields is not known to be as long as its answer."""
        return None

    def outcome(self) -> Outcome:
        """Return the outcome of a call whose items are all read.

        Raises:
            UnpricedAnswerError: they tell no cost.
        """
        if self._told and self._any:
            return self._request.outcome(self._last)
        try:
            outcome = self._request.outcome_of_stream(self._events)
        except UnpricedAnswerError:
            if (told := self._outcome_of_answer()) is not None:
                return told
            raise
        return outcome if _is_whole(outcome) else self._outcome_of_answer() or outcome

    def outcome_early(self, error: BaseException | None) -> Outcome:
        """Return the outcome of a call that goes no further: given up, or broken off by an error."""
        if error is not None and not self._any:
            return self._request.outcome_of_error(error)
        outcome = self._request.outcome_of_partial_stream(self._events)
        if self._answer is None:
            return outcome
        if not _is_whole(outcome) and (told := self._outcome_of_answer()) is not None:
            return told
        # Nobody has iterated over it, so it was read in another way, or not at all.
        return outcome if self._any else Answered(Reported(usage=None))

    def _outcome_of_answer(self) -> Outcome | None:
        if self._answer is None:
            return None
        try:
            outcome = self._request.outcome(self._answer)
        except UnpricedAnswerError:
            return None
        except Exception:
            logger.exception("budgetguard: an answer could not be read; its projection is booked")
            return None
        return outcome if _is_whole(outcome) else None


def _is_whole(outcome: Outcome) -> bool:
    if not isinstance(outcome, Answered):
        return False
    return outcome.reported.usage is not None and not outcome.reported.unsaid


@dataclass(frozen=True, slots=True)
class _Ended:
    """The end of an iteration, as a value.

    A flow cannot raise it, and what drives a flow is not to meet errors where nothing is wrong: an interrupt
    that comes while it deals with one would leave the flow where it is.
    """

    stop: StopIteration | StopAsyncIteration


def _advanced(advance: Callable[[], Any]) -> Any:
    try:
        return advance()
    except StopIteration as stop:
        return _Ended(stop)


async def _aadvanced(advance: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await advance()
    except StopAsyncIteration as stop:
        return _Ended(stop)


class Stepped:
    """The steps through what a guarded call yields: the first reserves, the last settles.

    Args:
        call: the call, its money not yet set aside unless `begun`.
        make: returns the generator, or whatever is stepped through.
        reader: reads the cost from its items.
        begun: the money is set aside already, and the answer was returned: it is nowhere else, so an end
            that tells no cost raises nothing.
    """

    # The method that ends what is stepped through, where it can be ended.
    _closes: ClassVar[str | None] = None

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
        return _item(advance() if self._over else drive(self._stepping(partial(_advanced, advance))))

    async def astep(self, advance: Callable[[], Awaitable[Any]]) -> Any:
        """Return the next item, which `advance` brings; settle if there is none."""
        return _item(
            await (advance() if self._over else adrive(self._stepping(partial(_aadvanced, advance))))
        )

    def giving_up(self, close: Callable[[], Any] | None = None) -> Flow:
        """Settle what will be stepped no further, and close it."""
        self._over = True
        try:
            return None if close is None else (yield from self.inside(close))
        finally:
            if self._end():
                yield self._finish(self._reader.outcome_early(None))

    def inside(self, do: Callable[[], Any]) -> Flow:
        """Do something as a part of the call."""
        frame = enter_frame(self._call)
        try:
            return (yield Do(do))
        finally:
            leave_frame(frame)

    def _stepping(self, advance: Callable[[], Any]) -> Flow:
        if not self._begun:
            grip = self._call.keep()
            yield from reserving(self._call)
            self._begin()
            del grip
        self._made()
        frame = enter_frame(self._call)
        try:
            item = yield Do(advance)
        except BaseException as error:
            leave_frame(frame)
            if self._end():
                raised = error.original if isinstance(error, Closed) else error
                yield self._finish(self._reader.outcome_early(raised))
            raise
        leave_frame(frame)
        if isinstance(item, _Ended):
            if self._end():
                yield from self._completing()
            return item
        self._reader.feed(item)
        held = self._call.output_held
        if held is not None and (seen := self._reader.seen_beyond(held)) is not None:
            yield from self._extending(seen)
        return item

    def _extending(self, seen: int) -> Flow:
        """Hold more for a stream that has grown beyond its hold; where that is refused, end it."""
        try:
            yield Work(partial(self._call.extend, seen), self._call.blocking)
        except BaseException as error:
            if self._closes is not None:
                yield from self.inside(getattr(self._inner, self._closes))
            if self._end():
                yield self._finish(self._reader.outcome_early(error))
            raise

    def _completing(self) -> Flow:
        unpriced: UnpricedAnswerError | None = None
        try:
            outcome = self._reader.outcome()
        except UnpricedAnswerError as error:
            outcome, unpriced = UNREADABLE, error
        yield self._finish(outcome)
        if unpriced is None or self._call.delegated:
            return
        if not self._keeps:
            raise unpriced
        logger.warning("budgetguard: %s", unpriced)

    def _finish(self, outcome: Outcome) -> Work:
        return Work(partial(self._call.finish, outcome), self._call.blocking)

    def _begin(self) -> None:
        self._begun = True
        self._call_off = self._call.finish_when_dropped(self, partial(self._reader.outcome_early, None))

    def _end(self) -> bool:
        """Whether there is something to settle, which from here on nobody else will."""
        self._over = True
        return self._call_off is not None and self._call_off()

    def _made(self) -> Any:
        self._inner = self._inner or self._make()
        return self._inner

    def _skip(self) -> None:
        """Run no line of what has not begun, so that it makes no call."""
        if not self._begun:
            self._over = True
            self._made()


def _item(found: Any) -> Any:
    if isinstance(found, _Ended):
        raise found.stop
    return found


class GuardedGenerator(Stepped, Generator[Any, Any, Any]):
    """A generator that is stepped through as one guarded call."""

    _closes = "close"

    def send(self, value: Any) -> Any:
        return self.step(lambda: self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        self._skip()
        return self.step(lambda: self._inner.throw(*error))

    def close(self) -> None:
        if not self._over:
            drive(self.giving_up(self._made().close))


class GuardedAsyncGenerator(Stepped, AsyncGenerator[Any, Any]):
    """An async generator that is stepped through as one guarded call."""

    _closes = "aclose"

    async def asend(self, value: Any) -> Any:
        return await self.astep(lambda: self._inner.asend(value))

    async def athrow(self, *error: Any) -> Any:
        self._skip()
        return await self.astep(lambda: self._inner.athrow(*error))

    async def aclose(self) -> None:
        if not self._over:
            await adrive(self.giving_up(self._made().aclose))


def guard_awaitable(answer: Awaitable[Any], call: GuardedCall) -> Coroutine[Any, Any, Any]:
    """Return a coroutine that awaits an answer as the rest of a guarded call."""
    call_off: list[Callable[[], bool]] = []
    coroutine = _await(answer, call, call_off)
    # A coroutine that nobody awaits does nothing; a task or future goes on all the same.
    dropped = NotCharged("never awaited") if inspect.iscoroutine(answer) else Unknown("never awaited")
    call_off.append(call.finish_when_dropped(coroutine, lambda: dropped))
    return coroutine


async def _await(answer: Awaitable[Any], call: GuardedCall, call_off: list[Callable[[], bool]]) -> Any:
    while call_off:
        call_off.pop()()  # what it answers with may still be running when this is garbage

    async def invoke() -> Any:
        return await answer

    return await adrive(invoking(call), invoke)
