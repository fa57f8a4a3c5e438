"""What the user follows, and what not: the rows of the table in docs/threads.md, each with what shows it.

A probe runs inside `with budget_user("alice")`. What it returns looks again, after the block has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import Any, Final, TypeAlias

from budgetguard import MissingUserError, budget_user
from tests.guarded_calls import HELLO, MODEL, completion, make_guard

ALICE: Final = "alice"
REFUSED: Final = "refused"
NOBODY: Final = "nobody"
NONE: Final = ""

Look: TypeAlias = Callable[[], str]
After: TypeAlias = Callable[[], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """Hold one row: what is done inside the block, who pays while the block is open, and who afterwards."""

    what: str
    inside: str
    after: str
    probes: tuple[Callable[[Look], Awaitable[tuple[str, After | None]]], ...]


def look() -> str:
    """Make a call, and say who has paid: `alice`, `nobody` (the project has), or that it was refused."""
    guard = make_guard()
    guard.set_budget(1)
    guard.set_budget(1, user="alice")

    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    try:
        ask(HELLO)
    except MissingUserError:
        return REFUSED
    return ALICE if guard.balance("alice").spent else NOBODY


async def _thread(look: Look, kind: Any = threading.Thread) -> tuple[str, After]:
    jobs: queue.Queue[Look] = queue.Queue()
    seen: queue.Queue[str] = queue.Queue()

    def work() -> None:
        for _ in range(2):
            seen.put(jobs.get(timeout=30)())

    kind(work).start()
    jobs.put(look)

    def again() -> str:
        jobs.put(look)
        return seen.get(timeout=30)

    return seen.get(timeout=30), again


def _plain_thread(work: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=work)


async def _submit(look: Look) -> tuple[str, After]:
    pool, left = ThreadPoolExecutor(1), threading.Event()
    first = pool.submit(look).result(30)
    late = pool.submit(lambda: left.wait(30) and look())

    def again() -> str:
        left.set()
        with pool:
            return str(late.result(30))

    return first, again


async def _in_executor(look: Look) -> tuple[str, After]:
    left = threading.Event()
    first = await asyncio.to_thread(look)
    late = asyncio.get_running_loop().run_in_executor(None, lambda: left.wait(30) and look())
    also = asyncio.ensure_future(asyncio.to_thread(lambda: left.wait(30) and look()))
    await asyncio.sleep(0)

    async def again() -> str:
        left.set()
        seen = await also
        assert seen == ALICE, seen
        return str(await late)

    return first, again


async def _thread_pool(look: Look) -> tuple[str, After]:
    pool, left = ThreadPool(1), threading.Event()
    first = pool.map(lambda _: look(), [0])[0]
    late = pool.apply_async(lambda: left.wait(30) and look())

    def again() -> str:
        left.set()
        with pool:
            return str(late.get(30))

    return first, again


async def _task(look: Look) -> tuple[str, After]:
    left = asyncio.Event()

    async def late() -> tuple[str, str]:
        first = look()
        inside.set()
        await left.wait()
        return first, look()

    inside = asyncio.Event()
    task = asyncio.create_task(late())
    await inside.wait()

    async def again() -> str:
        left.set()
        return (await task)[1]

    async def soon() -> str:
        return look()

    (gathered,) = await asyncio.gather(soon())
    async with asyncio.TaskGroup() as group:
        grouped = group.create_task(soon())
    assert gathered == grouped.result()
    return gathered, again


async def _callback(look: Look) -> tuple[str, After]:
    loop = asyncio.get_running_loop()
    soon, late = loop.create_future(), loop.create_future()
    left = asyncio.Event()
    loop.call_soon(lambda: soon.set_result(look()))

    def waiting() -> None:
        if left.is_set():
            late.set_result(look())
        else:
            loop.call_later(0.001, waiting)

    loop.call_soon(waiting)

    async def again() -> str:
        left.set()
        return str(await late)

    return await soon, again


async def _copied(look: Look) -> tuple[str, After]:
    context = contextvars.copy_context()
    return context.run(look), partial(context.run, look)


async def _generator(look: Look) -> tuple[str, After]:
    def steps() -> Iterator[str]:
        with budget_user("alice"):
            yield look()
            yield look()

    running = steps()
    first = next(running)
    return first, lambda: next(running)


async def _async_generator(look: Look) -> tuple[str, After]:
    async def steps() -> AsyncIterator[str]:
        async with budget_user("alice"):
            yield look()
            yield look()

    running = steps()
    return await anext(running), running.__anext__


async def _caller_of_generator(look: Look) -> tuple[str, After]:
    def steps() -> Iterator[None]:
        with budget_user("somebody else"):
            yield

    running = steps()
    next(running)
    seen = look()

    def again() -> str:
        try:
            return look()
        finally:
            running.close()  # type: ignore[attr-defined]

    return seen, again


async def _task_between_steps(look: Look) -> tuple[str, After]:
    async def soon() -> str:
        return look()

    async def steps() -> AsyncIterator[None]:
        async with budget_user("somebody else"):
            yield

    running = steps()
    await anext(running)
    seen = await asyncio.create_task(soon())

    async def again() -> str:
        try:
            return await asyncio.create_task(soon())
        finally:
            await running.aclose()  # type: ignore[attr-defined]

    return seen, again


async def _callback_around_generator(look: Look) -> tuple[str, After]:
    def steps() -> Iterator[None]:
        with budget_user("alice"):
            yield

    running = steps()
    next(running)

    async def soon() -> str:
        seen = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: seen.set_result(look()))
        return str(await seen)

    first = await soon()

    async def again() -> str:
        try:
            return await soon()
        finally:
            running.close()  # type: ignore[attr-defined]

    return first, again


async def _done_callback(look: Look) -> tuple[str, After]:
    left, seen = threading.Event(), queue.Queue[str]()
    pool = ThreadPoolExecutor(1)
    first, late = Future[None](), pool.submit(left.wait, 30)
    first.add_done_callback(lambda _: seen.put(look()))
    first.set_result(None)
    late.add_done_callback(lambda _: seen.put(look()))

    def again() -> str:
        left.set()
        with pool:
            return seen.get(timeout=30)

    return seen.get(timeout=30), again


async def _task_of_generator(look: Look) -> tuple[str, After]:
    async def soon() -> str:
        return look()

    async def steps() -> AsyncIterator[str]:
        async with budget_user("alice"):
            yield await asyncio.create_task(soon())
            yield await asyncio.create_task(soon())

    running = steps()
    return await anext(running), running.__anext__


async def _decorated_generator(look: Look) -> tuple[str, After]:
    async def soon() -> str:
        return look()

    @budget_user("alice")
    async def steps() -> AsyncIterator[str]:
        for _ in range(2):
            yield await asyncio.create_task(soon())

    running = steps()
    return await anext(running), running.__anext__


async def _context_manager(look: Look) -> tuple[str, After]:
    @contextlib.contextmanager
    def as_alice() -> Iterator[None]:
        with budget_user("alice"):
            yield

    with as_alice():
        return look(), look


async def _process(look: Look, *, method: str) -> tuple[str, None]:
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply(look), None


async def _fork(look: Look) -> tuple[str, None]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, look().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return pipe.read(), None


async def _signal(look: Look) -> tuple[str, After]:
    seen: list[str] = []

    def again() -> str:
        before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(look()))
        try:
            signal.raise_signal(signal.SIGUSR1)
        finally:
            signal.signal(signal.SIGUSR1, before)
        return seen[-1]

    return again(), again


ROWS: Final = (
    Row(
        "starts a thread: `Thread(target=f).start()`, a `Timer`, a subclass",
        ALICE,
        REFUSED,
        (partial(_thread, kind=_plain_thread), partial(_thread, kind=partial(threading.Timer, 0))),
    ),
    Row(
        "starts a task: `asyncio.create_task(f())`, `gather`, a `TaskGroup`",
        ALICE,
        REFUSED,
        (_task,),
    ),
    Row("submits to a `ThreadPoolExecutor`, whoever started its threads", ALICE, ALICE, (_submit,)),
    Row(
        "submits to a `multiprocessing.pool.ThreadPool` (joblib's threads are one), whoever started it",
        ALICE,
        ALICE,
        (_thread_pool,),
    ),
    Row("adds a callback to a job of a pool: `Future.add_done_callback(f)`", ALICE, ALICE, (_done_callback,)),
    Row("`await asyncio.to_thread(f)`, `loop.run_in_executor(None, f)`", ALICE, ALICE, (_in_executor,)),
    Row("`loop.call_soon(f)`, `loop.call_later(1, f)`", ALICE, REFUSED, (_callback,)),
    Row("`copy_context().run(f)`, called by whoever copied it", ALICE, ALICE, (_copied,)),
    Row(
        'steps a generator, sync or async, that has a `with budget_user("alice")` in it',
        ALICE,
        ALICE,
        (_generator, _async_generator),
    ),
    Row(
        "has stepped a generator that has somebody else's `with` in it, and calls itself",
        ALICE,
        NOBODY,
        (_caller_of_generator,),
    ),
    Row(
        "starts a task between two steps of a generator that has somebody else's `with` in it",
        ALICE,
        NOBODY,
        (_task_between_steps,),
    ),
    Row(
        'steps a generator that has a `with budget_user("alice")` in it and starts a task',
        ALICE,
        ALICE,
        (_task_of_generator,),
    ),
    Row(
        "calls `loop.call_soon(f)` between two steps of a generator that has a `with` in it",
        REFUSED,
        REFUSED,
        (_callback_around_generator,),
    ),
    Row(
        'a generator decorated with `@budget_user("alice")` steps, or starts a task',
        ALICE,
        ALICE,
        (_decorated_generator,),
    ),
    Row(
        "enters a `@contextmanager` that has the `with` in it (and calls after leaving it)",
        ALICE,
        NOBODY,
        (_context_manager,),
    ),
    Row(
        "forks a process with `multiprocessing`, or a pool of them",
        REFUSED,
        NONE,
        (partial(_process, method="fork"),),
    ),
    Row(
        "spawns a process with `multiprocessing`, or a pool of them",
        NOBODY,
        NONE,
        (partial(_process, method="spawn"),),
    ),
    Row("calls `os.fork()` and goes on in the child", ALICE, NONE, (_fork,)),
    Row("is interrupted by a signal, whose handler calls", ALICE, NOBODY, (_signal,)),
)
