"""The order of things in one guarded call, written once, and the two drivers that carry it out.

A flow is a generator that yields steps and is sent their results. It does no I/O itself, so the order
is the same for sync and async callers, cancellation included, and a test can drive it by hand.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from budgetguard.engine.background import background
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.context import enter_frame, leave_frame
from budgetguard.engine.engine import Pause
from budgetguard.engine.outcomes import NEVER_SENT, UNREADABLE
from budgetguard.engine.provider_call import Do
from budgetguard.errors import BudgetGuardError, UnpricedAnswerError

logger = logging.getLogger("budgetguard")


@dataclass(frozen=True, slots=True)
class Work:
    """A short piece of work with the store, which is finished even if the caller is cancelled meanwhile.

    Attributes:
        run: what to do.
        blocking: whether it waits for I/O.
    """

    run: Callable[[], Any]
    blocking: bool


@dataclass(frozen=True, slots=True)
class Invoke:
    """The call itself."""


Step: TypeAlias = Work | Do | Invoke | Pause
Flow: TypeAlias = Generator[Step, Any, Any]


def guarded(call: GuardedCall) -> Flow:
    """Prepare, project, hold, call, settle.

    Returns the answer; raises what refused, or what the call raised.
    """
    grip = call.keep()
    yield from reserving(call)
    answer = yield from invoking(call)
    del grip
    return answer


def reserving(call: GuardedCall) -> Flow:
    """Fetch what the projection needs, project and hold."""
    if (preparation := call.prepare()) is not None:
        yield from preparation
    try:
        while (pause := (yield Work(partial(call.reserve, may_wait=True), call.engine.blocking))) is not None:
            yield pause
    except BudgetGuardError:
        raise  # refused: nothing is held
    except BaseException:
        # Cancelled or interrupted while reserving: the hold may have been granted, the call was not made.
        yield Work(partial(call.finish, NEVER_SENT), call.engine.blocking)
        raise


def invoking(call: GuardedCall) -> Flow:
    """Call and settle."""
    frame = enter_frame(call)
    call.sent()
    try:
        answer = yield Invoke()
    except BaseException as error:
        leave_frame(frame)
        yield Work(partial(call.finish, call.request.outcome_of_error(error)), call.engine.blocking)
        raise
    leave_frame(frame)
    call.answered(answer)
    unpriced: UnpricedAnswerError | None = None
    try:
        attached = call.request.attach(answer, call)
        if attached is not None:
            return attached
        outcome = call.request.outcome(answer)
    except UnpricedAnswerError as error:
        # What calls inside have paid for needs no price of its own.
        unpriced = None if call.delegated else error
        outcome = UNREADABLE
    except Exception:
        logger.exception("budgetguard: an answer could not be read; its projection is booked")
        outcome = UNREADABLE
    yield Work(partial(call.finish, outcome), call.engine.blocking)
    call.remember(answer)
    if unpriced is not None:
        unpriced.answer = answer  # it was paid for
        raise unpriced
    return answer


class Closed(BaseException):
    """A GeneratorExit inside a flow: `yield from` would close the flow instead of asking it."""

    def __init__(self, original: GeneratorExit) -> None:
        super().__init__("closed")
        self.original = original


def _nothing() -> None:
    """Make no call."""


async def _anothing() -> None:
    """Make no call."""


def drive(flow: Flow, invoke: Callable[[], Any] = _nothing) -> Any:
    """Carry out a flow in this thread.

    An interrupt (Ctrl-C, a signal handler that raises) comes between any two instructions: also here, and
    the flow hears of it as if its step had raised it.
    """
    send: Callable[[], Step] = partial(next, flow)
    while True:
        try:
            try:
                step = send()
            except StopIteration as stop:
                return stop.value
            except Closed as closed:
                raise closed.original from None
            value = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            else:
                value = invoke() if isinstance(step, Invoke) else step.run()
            send = partial(flow.send, value)
        except BaseException as error:
            if _is_over(flow):  # this is what it raised
                if not isinstance(error, Exception):
                    background.start()  # what an interrupt has left undone is done there; see `GuardedCall`
                raise
            send = partial(flow.throw, Closed(error) if isinstance(error, GeneratorExit) else error)


async def adrive(flow: Flow, invoke: Callable[[], Awaitable[Any]] = _anothing) -> Any:
    """Carry out a flow in an event loop (asyncio or trio), store work in worker threads."""
    background.start()
    closing = False
    send: Callable[[], Step] = partial(next, flow)
    while True:
        try:
            try:
                step = send()
            except StopIteration as stop:
                return stop.value
            except Closed as closed:
                raise closed.original from None
            if closing and isinstance(step, Work):
                # A coroutine that is being closed may not wait for anything. Nor may it take locks: the
                # garbage collector closes coroutines too, and it runs anywhere, inside a store as well.
                background.put(step.run)
                value = None
            elif isinstance(step, Pause):
                await _sleep(step.seconds)
                value = None
            else:
                value = await (finished(step) if isinstance(step, Work) else _asked(step, invoke))
            send = partial(flow.send, value)
        except BaseException as error:
            if _is_over(flow):
                raise
            closing = closing or isinstance(error, GeneratorExit)
            send = partial(flow.throw, Closed(error) if isinstance(error, GeneratorExit) else error)


def _is_over(flow: Flow) -> bool:
    return inspect.getgeneratorstate(flow) == inspect.GEN_CLOSED


def _asked(step: Do | Invoke, invoke: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
    answer: Awaitable[Any] = step.run() if isinstance(step, Do) else invoke()
    return answer


async def _sleep(seconds: float) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # see `finished`
        import anyio

        await anyio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def finished(work: Work) -> Any:
    """Finish the work, then raise the cancellation that came meanwhile, if one did."""
    if not work.blocking:
        return work.run()
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # another event loop: trio, which anyio (openai brings it) knows how to speak to
        import anyio
        import anyio.to_thread

        with anyio.CancelScope(shield=True):
            return await anyio.to_thread.run_sync(copy_context().run, work.run)
    running = _workers().submit(copy_context().run, work.run)
    doing = asyncio.wrap_future(running)
    cancelled: asyncio.CancelledError | None = None
    while not doing.done():
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError as error:
            cancelled = error
        except GeneratorExit:
            background.put(running.exception)  # waits: what the flow does next must come after this
            raise
    if cancelled is not None:
        doing.exception()  # retrieved: the cancellation outranks it
        raise cancelled
    return doing.result()


_pool: tuple[int, ThreadPoolExecutor] | None = None


def _workers() -> ThreadPoolExecutor:
    # Not the loop's default pool: that may be full of the program's own calls, which wait for a loop
    # that waits for us. After a fork the parent's threads are gone, so a child makes its own.
    global _pool
    if _pool is None or _pool[0] != os.getpid():
        _pool = os.getpid(), ThreadPoolExecutor(max_workers=8, thread_name_prefix="budgetguard")
    return _pool[1]
