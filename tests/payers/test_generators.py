"""Who pays in generators, which share a context with their callers, and in what generators start."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import random
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from budgetguard import Guard, budget_tags, budget_user, current_user
from budgetguard.engine.context import current_tags
from tests.payers.asking import agent, asker, async_agent


@contextlib.contextmanager
def as_user(user: str) -> Iterator[None]:
    with budget_user(user):
        yield


class Payer:
    def __init__(self, user: str) -> None:
        self.entered = budget_user(user)

    def __enter__(self) -> None:
        self.entered.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.entered.__exit__(*error)


def helped_agent(user: str, who: Callable[[], Any]) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(as_user(user))
        yield who()
        with Payer("bob"):
            yield who()
        yield who()


def test_generators_in_turn_pay_for_themselves_and_never_for_their_caller(guard: Guard) -> None:
    who = asker(guard)
    a, b = agent("alice", who), agent("bob", who)
    assert [next(a), next(b), next(a), next(b), who()] == ["alice", "bob", "alice", "bob", "nobody"]
    with budget_user("bob"):
        assert [next(a), who()] == ["alice", "bob"]
        a.close()
        assert who() == "bob"
    assert who() == "nobody"
    b.close()


def test_a_generator_that_enters_through_context_managers_pays_for_itself(guard: Guard) -> None:
    who = asker(guard)
    steps = helped_agent("alice", who)
    seen = []
    for paid in steps:
        seen += [paid, who()]
    assert seen == ["alice", "nobody", "bob", "nobody", "alice", "nobody"]


def test_context_managers_and_fixtures_written_as_generators_set_the_user_of_who_uses_them() -> None:
    with as_user("alice"):
        assert current_user() == "alice"
    assert current_user() is None


@pytest.fixture
def alice() -> Iterator[None]:
    with budget_user("alice"):
        yield


@pytest.fixture
async def bob() -> AsyncIterator[None]:
    async with budget_user("bob"):
        yield


def test_a_fixture_sets_the_user_of_its_test(alice: None) -> None:
    assert current_user() == "alice"


async def test_an_async_fixture_sets_the_user_of_its_test_or_none(bob: None) -> None:
    assert current_user() in ("bob", None)  # as pytest-asyncio hands its context on


def test_each_step_in_a_context_of_its_own_has_the_generator_s_user(guard: Guard) -> None:
    who = asker(guard)

    def tagged() -> Any:
        with budget_tags("t"), budget_user("bob"):
            return who(), current_tags()

    steps = agent("alice", lambda: (who(), tagged(), who(), current_tags()))
    expected = ("alice", ("bob", ("t",)), "alice", ())
    for _ in range(3):
        assert contextvars.copy_context().run(next, steps) == expected
    with ThreadPoolExecutor(1) as pool, budget_user("bob"):
        assert pool.submit(next, steps).result(30) == expected
        assert who() == "bob"
    steps.close()


def test_what_a_generator_starts_is_its_user_s_and_what_its_caller_starts_is_not(guard: Guard) -> None:
    who = asker(guard)

    def started() -> list[str]:
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(who()))
        thread.start()
        thread.join(30)
        with ThreadPoolExecutor(1) as pool:
            return [*seen, pool.submit(who).result(30)]

    steps = agent("alice", started)
    assert next(steps) == ["alice", "alice"]
    assert started() == ["nobody", "nobody"]
    assert next(steps) == ["alice", "alice"]
    steps.close()


async def test_async_generators_in_turn_pay_for_themselves(guard: Guard) -> None:
    who = asker(guard)
    a, b = async_agent("alice", who), async_agent("bob", who)
    seen = [await anext(a), who(), await anext(b), await anext(a), await anext(b), who()]
    assert seen == ["alice", "nobody", "bob", "alice", "bob", "nobody"]
    assert await asyncio.create_task(anext(a)) == "alice"  # type: ignore[arg-type]
    assert await asyncio.create_task(a.aclose()) is None  # type: ignore[attr-defined]
    await b.aclose()  # type: ignore[attr-defined]
    assert who() == "nobody"


async def in_this_context(step: Any) -> Any:
    return await step


@pytest.mark.parametrize("step", [in_this_context, asyncio.ensure_future])
async def test_a_task_belongs_to_the_generator_that_starts_it_or_to_its_caller(
    guard: Guard, step: Any
) -> None:
    who = asker(guard)

    async def task() -> str:
        assert await asyncio.to_thread(who) == who() == await asyncio.create_task(inner())
        return who()

    async def inner() -> str:
        return who()

    async def steps() -> AsyncIterator[Any]:
        async with budget_user("alice"):
            yield await asyncio.create_task(task())
            async with asyncio.TaskGroup() as group:
                started = group.create_task(task())
            yield [started.result(), *await asyncio.gather(task(), task())]

    running = steps()
    seen = [await step(anext(running)), await asyncio.create_task(task())]
    with budget_user("bob"):
        seen += [await step(anext(running)), await asyncio.create_task(task())]
        await running.aclose()  # type: ignore[attr-defined]
        seen.append(await asyncio.create_task(task()))
    assert [*seen, await asyncio.create_task(task())] == [
        "alice", "nobody", ["alice"] * 3, "bob", "bob", "nobody"
    ]  # fmt: skip


async def test_a_task_that_outlives_the_generator_that_started_it_is_refused(guard: Guard) -> None:
    who, left = asker(guard), asyncio.Event()

    async def late() -> str:
        await left.wait()
        return who()

    async def steps() -> AsyncIterator[Any]:
        async with budget_user("alice"):
            yield asyncio.create_task(late())

    (task,) = [task async for task in steps()]
    left.set()
    assert await task == "refused"


async def test_a_generator_that_is_left_by_break_leaves_its_caller_s_tasks_alone(guard: Guard) -> None:
    who = asker(guard)

    async def task() -> str:
        return who()

    with budget_user("bob"):
        async for _ in async_agent("alice", who):
            break
        seen = [who(), await asyncio.create_task(task())]
        await asyncio.sleep(0)
        seen += [who(), await asyncio.create_task(task())]
    assert seen == ["bob"] * 4


def test_a_task_of_trio_that_may_be_a_generator_s_or_its_caller_s_is_refused(guard: Guard) -> None:
    who, seen = asker(guard), list[str]()

    async def task() -> None:
        seen.extend([who(), budget_user("bob")(who)()])

    async def main() -> None:
        running = agent("alice", who)
        async with trio.open_nursery() as nursery:
            next(running)
            nursery.start_soon(task)
        running.close()  # type: ignore[attr-defined]

    trio.run(main)
    assert seen == ["refused", "bob"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_job_of_anyio_may_be_a_generator_s_step(guard: Guard, backend: str) -> None:
    who = asker(guard)

    async def main() -> list[str]:
        running = agent("alice", who)
        seen = []
        for _ in range(2):
            seen += [await anyio.to_thread.run_sync(next, running), who()]
        running.close()  # type: ignore[attr-defined]
        return seen

    assert anyio.run(main, backend=backend) == ["alice", "nobody"] * 2


def test_one_budget_user_that_generators_and_blocks_share_is_left_by_whoever_leaves_it(guard: Guard) -> None:
    who, shared = asker(guard), budget_user("alice")

    def steps() -> Iterator[str]:
        with shared:
            while True:
                yield who()

    a, b = steps(), steps()
    assert [next(a), next(b), who()] == ["alice", "alice", "nobody"]
    with shared:
        a.close()  # type: ignore[attr-defined]
        assert who() == "alice"
        assert next(b) == "alice"
    assert [who(), next(b), who()] == ["nobody", "alice", "nobody"]
    b.close()  # type: ignore[attr-defined]


# Entered by a job that does nothing else


@pytest.mark.parametrize("make", [budget_user, as_user, Payer])
@pytest.mark.parametrize("run", [asyncio.to_thread, anyio.to_thread.run_sync])
async def test_what_a_job_enters_that_does_nothing_else_is_not_silently_nobody_s(
    guard: Guard, make: Any, run: Any
) -> None:
    """FastAPI enters so what its sync dependencies enter, and leaves it in another job."""
    who, manager = asker(guard), make("alice")
    assert who() == "nobody"
    await run(manager.__enter__)
    seen = [who(), await asyncio.to_thread(who), budget_user("bob")(who)()]
    await run(manager.__exit__, None, None, None)
    assert [*seen, who()] == ["refused", "refused", "bob", "nobody"]
    del manager


async def test_a_job_that_enters_and_is_dropped_or_goes_on_refuses_nobody_else(guard: Guard) -> None:
    who, inside, left = asker(guard), threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(budget_user("alice").__enter__).result(30)
    gc.collect()

    def goes_on() -> str:
        with as_user("alice"):
            inside.set()
            left.wait(30)
            return who()

    job = asyncio.get_running_loop().run_in_executor(None, goes_on)
    inside.wait(30)
    seen = [who()]
    left.set()
    assert [*seen, await job] == ["nobody", "alice"]


async def test_a_job_in_a_thread_is_the_generator_s_or_its_caller_s(guard: Guard) -> None:
    who = asker(guard)

    async def steps() -> AsyncIterator[str]:
        async with budget_user("alice"):
            while True:
                yield await asyncio.to_thread(who)

    running = steps()
    seen = [await anext(running), await asyncio.to_thread(who)]
    with budget_user("bob"):
        seen += [await asyncio.to_thread(who), await anext(running), await asyncio.to_thread(who)]
    await running.aclose()  # type: ignore[attr-defined]
    assert seen == ["alice", "nobody", "bob", "alice", "bob"]


async def test_tasks_of_a_decorated_async_generator_are_its_user_s(guard: Guard) -> None:
    who = asker(guard)

    async def task() -> str:
        return who()

    @budget_user("alice")
    async def steps() -> AsyncIterator[str]:
        yield await asyncio.create_task(task())

    assert [paid async for paid in steps()] == ["alice"]


def test_a_generator_that_is_dropped_ends_at_once_and_leaves_nothing() -> None:
    ended: list[str | None] = []

    def steps() -> Iterator[None]:
        with budget_user("alice"):
            try:
                yield
            finally:
                ended.append(current_user())

    gc.disable()
    try:
        dropped = steps()
        next(dropped)
        gone = weakref.ref(dropped)
        del dropped
        assert (gone(), ended) == (None, ["alice"])
    finally:
        gc.enable()


@pytest.mark.parametrize("seed", range(20))
def test_however_generators_and_blocks_are_mixed_each_has_its_own_user(seed: int) -> None:
    """Steps of many generators, in this context, in copies of it and in threads, blocks between them."""
    choose = random.Random(seed)
    shared = budget_user("shared")

    def steps(user: str, entered: budget_user) -> Iterator[str | None]:
        before = current_user
        with entered:
            while True:
                assert before() == user
                if choose.random() < 0.3:
                    with budget_user("inner"):
                        assert current_user() == "inner"
                yield current_user()

    def checked(stack: list[str]) -> None:
        assert current_user() == (stack[-1] if stack else None)

    running: list[tuple[str, Iterator[Any]]] = []

    def act(stack: list[str], depth: int, pool: ThreadPoolExecutor) -> None:
        for _ in range(6):
            kind = choose.choice(["make", "step", "step", "copy", "pool", "close", "block"])
            if kind == "make" or not running:
                user = choose.choice(["a", "b", "shared"])
                entered = shared if user == "shared" else budget_user(user)
                running.append((user, steps(user, entered)))
            elif kind == "block" and depth < 3:
                with budget_user(f"block {depth}"):
                    act([*stack, f"block {depth}"], depth + 1, pool)
            else:
                user, generator = choose.choice(running)
                if kind == "close":
                    running.remove((user, generator))
                    generator.close()  # type: ignore[attr-defined]
                elif kind == "copy":
                    assert contextvars.copy_context().run(next, generator) == user
                elif kind == "pool":
                    assert pool.submit(next, generator).result(30) == user
                else:
                    assert next(generator) == user
            checked(stack)

    with ThreadPoolExecutor(2) as pool:
        act([], 0, pool)
    for _, generator in running:
        generator.close()  # type: ignore[attr-defined]
