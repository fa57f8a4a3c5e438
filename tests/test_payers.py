"""Who pays where what is current cannot be told from the context alone: workers, pools, generators, forks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import multiprocessing
import queue
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from budgetguard import Guard, MissingUserError, budget_tags, budget_user, current_user
from budgetguard.engine.context import current_tags
from budgetguard.engine.threads import surroundings
from tests.guarded_calls import HELLO, MODEL, completion, make_guard


@pytest.fixture(autouse=True)
def _nothing_stays_current() -> Iterator[None]:
    yield
    assert surroundings() is None


def limited_guard() -> Guard:
    """Return one whose project may pay, so that a call without a user is booked unless it is refused."""
    guard = make_guard()
    guard.set_budget(1)
    for user in ("alice", "bob"):
        guard.set_budget(1, user=user)
    return guard


@pytest.fixture
def guard() -> Guard:
    return limited_guard()


def asker(guard: Guard) -> Callable[..., str]:
    """Return a function that makes a call and says who has paid: a user, or `refused`, or `nobody`."""

    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    def who(*_: object) -> str:
        before = {user: guard.balance(user).spent for user in ("alice", "bob")}
        try:
            ask(HELLO)
        except MissingUserError as error:
            return "refused" if 'with budget_user("1234")' in str(error) else "refused without a remedy"
        paid = [user for user, spent in before.items() if guard.balance(user).spent != spent]
        assert len(paid) <= 1
        return paid[0] if paid else "nobody"

    return who


# Workers


def worker_thread(jobs: Any, answers: Any) -> None:
    for job in iter(jobs.get, None):
        answers.put(job())


@pytest.mark.parametrize("kind", [queue.Queue, queue.SimpleQueue])
def test_a_worker_thread_does_not_keep_the_user_of_who_started_it(guard: Guard, kind: Any) -> None:
    who, jobs, answers = asker(guard), kind(), kind()
    with budget_user("alice"):
        thread = threading.Thread(target=worker_thread, args=(jobs, answers))
        thread.start()
        jobs.put(who)
        assert answers.get(timeout=30) == "alice"
    with budget_user("bob"):
        jobs.put(who)
        assert answers.get(timeout=30) == "refused"
        jobs.put(budget_user("bob")(who))  # what the error says
        assert answers.get(timeout=30) == "bob"
    jobs.put(None)
    thread.join(30)


async def test_a_worker_task_does_not_keep_the_user_of_who_started_it(guard: Guard) -> None:
    who, jobs, answers = asker(guard), asyncio.Queue[Any](), asyncio.Queue[Any]()

    async def work() -> None:
        while (job := await jobs.get()) is not None:
            answers.put_nowait([job(), *[await in_thread(job) for in_thread in in_threads]])

    in_threads = (asyncio.to_thread, anyio.to_thread.run_sync)
    async with budget_user("alice"):
        task = asyncio.create_task(work())
        jobs.put_nowait(who)
        assert await answers.get() == ["alice"] * 3
    async with budget_user("bob"):
        jobs.put_nowait(who)
        assert await answers.get() == ["refused"] * 3
        jobs.put_nowait(budget_user("bob")(who))
        assert await answers.get() == ["bob"] * 3
    jobs.put_nowait(None)
    await task


def test_a_task_of_trio_does_not_keep_the_user_of_who_started_it(guard: Guard) -> None:
    who, seen = asker(guard), []

    async def main() -> None:
        inside, left = trio.Event(), trio.Event()

        async def work() -> None:
            seen.append(who())
            inside.set()
            await left.wait()
            seen.extend([who(), budget_user("bob")(who)()])

        async with trio.open_nursery() as nursery:
            with budget_user("alice"):
                nursery.start_soon(work)
                await inside.wait()
                seen.append(await trio.to_thread.run_sync(who))
            left.set()

    trio.run(main)
    assert seen == ["alice", "alice", "refused", "bob"]


def test_a_worker_that_a_worker_starts_knows_no_more_than_it(guard: Guard) -> None:
    who, left, seen = asker(guard), threading.Event(), []

    def nest() -> None:
        assert left.wait(30)
        inner = threading.Thread(target=lambda: seen.append(who()))
        inner.start()
        inner.join(30)
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(who).result(30))

    with budget_user("alice"):
        thread = threading.Thread(target=nest)
        thread.start()
    left.set()
    thread.join(30)
    assert seen == ["refused", "refused"]


def test_a_run_that_has_ended_is_not_charged_by_what_it_started(guard: Guard) -> None:
    who, left, seen = asker(guard), threading.Event(), []

    def late() -> None:
        assert left.wait(30)
        seen.extend([who(), budget_user("bob")(who)()])

    with guard.budget(1) as run:
        thread = threading.Thread(target=late)
        thread.start()
    left.set()
    thread.join(30)
    assert (seen, run.spent) == (["refused", "bob"], 0)


def test_a_user_set_for_the_process_does_not_stand_in_for_one_that_is_lost() -> None:
    guard = make_guard(user="alice")
    for user in ("alice", "bob"):
        guard.set_budget(1, user=user)
    left, who, seen = threading.Event(), asker(guard), []
    with budget_user("bob"):
        thread = threading.Thread(target=lambda: left.wait(30) and seen.append(who()))
        thread.start()
    left.set()
    thread.join(30)
    assert seen == ["refused"]


def test_a_thread_that_cannot_be_started_is_left_as_it_was() -> None:
    with budget_user("alice"):
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join(30)
        with pytest.raises(RuntimeError, match="only be started once"):
            thread.start()
    assert "run" not in vars(thread)


# Others around the same methods


class Tracer:
    """Wrap `start` and `submit` as error reporters and tracers do, and count what goes through."""

    def __init__(self, patch: pytest.MonkeyPatch, style: str) -> None:
        self.ran = 0
        start, submit = threading.Thread.start, ThreadPoolExecutor.submit
        getattr(self, style)(patch, start)

        def traced_submit(pool: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            def traced(*a: Any, **k: Any) -> Any:
                self.ran += 1
                return function(*a, **k)

            return submit(pool, traced, *args, **kwargs)

        patch.setattr(ThreadPoolExecutor, "submit", traced_submit)

    def on_the_instance(self, patch: pytest.MonkeyPatch, start: Any) -> None:
        """As sentry-sdk does: the function inside the method, called with the current thread."""

        def traced_start(thread: Any, *args: Any, **kwargs: Any) -> Any:
            inner = getattr(thread.run, "__func__", thread.run)

            def run(*a: Any, **k: Any) -> Any:
                self.ran += 1
                return inner(threading.current_thread(), *a[1:], **k)

            thread.run = run
            return start(thread, *args, **kwargs)

        patch.setattr(threading.Thread, "start", traced_start)

    def put_back(self, patch: pytest.MonkeyPatch, start: Any) -> None:
        """Delete `run` from the thread before it runs."""

        def traced_start(thread: Any) -> Any:
            inner = thread.run

            def run() -> Any:
                self.ran += 1
                del thread.run
                return inner()

            thread.run = run
            return start(thread)

        patch.setattr(threading.Thread, "start", traced_start)

    def on_the_class(self, patch: pytest.MonkeyPatch, start: Any) -> None:
        """As OpenTelemetry's does: one wrapper around the class's `run`."""
        inner = threading.Thread.run

        def run(thread: Any) -> Any:
            self.ran += 1
            return inner(thread)

        patch.setattr(threading.Thread, "run", run)


@pytest.mark.parametrize("style", ["on_the_instance", "put_back", "on_the_class"])
@pytest.mark.parametrize("order", ["ours first", "theirs first", "both sides"])
def test_threads_and_pools_work_beside_wrappers_of_others(style: str, order: str, tmp_path: Any) -> None:
    program = f"""
import threading, sys
from concurrent.futures import ThreadPoolExecutor
import pytest
from budgetguard import budget_user, current_user
from tests.test_payers import Tracer
order, patch = {order!r}, pytest.MonkeyPatch()
tracers = []
if order != "ours first":
    tracers.append(Tracer(patch, {style!r}))
with budget_user("alice"):
    pass
if order != "theirs first":
    tracers.append(Tracer(patch, {style!r}))
errors = []
threading.excepthook = errors.append
class Own(threading.Thread):
    def run(self):
        super().run()
with budget_user("alice"):
    for kind in (threading.Thread, Own):
        seen = []
        thread = kind(target=lambda: seen.append(current_user()))
        thread.start(); thread.join(30)
        assert seen == ["alice"], (kind, seen, errors)
    timed = []
    timer = threading.Timer(0, lambda: timed.append(current_user()))
    timer.start(); timer.join(30)
    assert timed == ["alice"], (timed, errors)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(current_user).result(30) == "alice"
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result(30)
assert pool.submit(current_user).result(30) is None
assert not errors, errors
assert all(tracer.ran >= 3 for tracer in tracers), [tracer.ran for tracer in tracers]
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


# Pools


def submitted(job: Callable[..., Any]) -> dict[str, Callable[[ThreadPool], Any]]:
    return {
        "apply": lambda pool: pool.apply(job, (0,)),
        "apply_async": lambda pool: pool.apply_async(func=job, args=(0,)).get(30),
        "map": lambda pool: pool.map(job, [0])[0],
        "map_async": lambda pool: pool.map_async(job, (n for n in range(1))).get(30)[0],
        "starmap": lambda pool: pool.starmap(job, [(0, 1)])[0],
        "starmap_async": lambda pool: pool.starmap_async(job, iterable=[(0, 1)]).get(30)[0],
        "imap": lambda pool: next(pool.imap(job, [0])),
        "imap_unordered": lambda pool: next(pool.imap_unordered(job, range(1), 1)),
        "an iterator": lambda pool: next(pool.imap(str, (job() for _ in range(1)))),
        "a callback": lambda pool: in_callback(pool, job, "callback"),
        "a callback on error": lambda pool: in_callback(pool, job, "error_callback"),
    }


def in_callback(pool: ThreadPool, job: Callable[..., Any], name: str) -> Any:
    done: Future[Any] = Future()
    function = int if name == "callback" else divmod  # which fails, called with nothing
    pool.apply_async(function, **{name: lambda _: done.set_result(job())})
    return done.result(30)


@pytest.mark.parametrize("way", submitted(int))
def test_a_job_of_a_thread_pool_belongs_to_who_submitted_it(guard: Guard, way: str) -> None:
    who = asker(guard)
    submit = submitted(who)[way]
    with budget_user("alice"):
        pool = ThreadPool(1)
        assert submit(pool) == "alice"
        with budget_user("bob"):
            assert submit(pool) == "bob", "while alice's is open"
    with pool:
        with budget_user("bob"):
            assert submit(pool) == "bob"
        assert submit(pool) == "nobody"


def test_a_job_keeps_its_user_when_its_submitter_has_left(guard: Guard) -> None:
    who, left = asker(guard), threading.Event()

    def late() -> list[str]:
        assert left.wait(30)
        thread_saw: list[str] = []
        thread = threading.Thread(target=lambda: thread_saw.append(who()))
        thread.start()
        thread.join(30)

        async def inner() -> str:
            return await asyncio.create_task(asyncio.to_thread(who))

        return [who(), *thread_saw, asyncio.run(inner())]

    with ThreadPoolExecutor(1) as pool:
        with budget_user("alice"):
            job = pool.submit(late)
        left.set()
        assert job.result(30) == ["alice"] * 3


async def test_to_thread_and_the_loop_s_executor_keep_the_user_of_who_asked(guard: Guard) -> None:
    who, left = asker(guard), threading.Event()

    def late() -> str:
        assert left.wait(30)
        return who()

    async with budget_user("alice"):
        first = asyncio.ensure_future(asyncio.to_thread(int))
        second = asyncio.get_running_loop().run_in_executor(None, late)
    left.set()
    assert (await first, await second) == (0, "alice")


def test_a_job_of_a_task_keeps_its_user_while_somebody_else_s_generator_waits(guard: Guard) -> None:
    who, left = asker(guard), threading.Event()

    async def main() -> str:
        with budget_user("alice"):
            job = asyncio.create_task(asyncio.to_thread(lambda: left.wait(30) and who()))
            await asyncio.sleep(0)  # in which it is submitted
        left.set()
        return await job

    with contextlib.closing(agent("bob", who)) as waiting:
        next(waiting)
        assert asyncio.run(main()) == "alice"


def test_a_job_of_a_task_keeps_its_user_in_a_thread_that_was_started_with_it(guard: Guard) -> None:
    who, left, submitted = asker(guard), threading.Event(), threading.Event()

    async def main() -> str:
        job = asyncio.create_task(asyncio.to_thread(lambda: left.wait(30) and who()))
        await asyncio.sleep(0)
        submitted.set()
        return await job

    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(main())))
    with budget_user("alice"):
        thread.start()
        assert submitted.wait(30)
    left.set()
    thread.join(30)
    assert seen == ["alice"]


# Generators


def agent(user: str, who: Callable[[], Any]) -> Iterator[Any]:
    with budget_user(user):
        while True:
            yield who()


async def async_agent(user: str, who: Callable[[], Any]) -> AsyncIterator[Any]:
    async with budget_user(user):
        while True:
            await asyncio.sleep(0)
            yield who()


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
    assert await asyncio.create_task(a.aclose()) is None  # type: ignore[attr-defined, func-returns-value]
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


def test_a_callback_belongs_to_who_added_it(guard: Guard) -> None:
    who, left, seen = asker(guard), threading.Event(), queue.Queue[str]()
    with ThreadPoolExecutor(1) as pool, budget_user("alice"):
        job = pool.submit(left.wait, 30)
        with budget_user("bob"):
            job.add_done_callback(lambda _: seen.put(who()))
        left.set()
        assert seen.get(timeout=30) == "bob", "in a thread that alice's block has started"


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


# Processes


def _who_pays() -> str:
    return asker(limited_guard())()


def _who_pays_told(user: str) -> str:
    with budget_user(user):
        return _who_pays()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes_does_not_keep_the_user_of_who_started_it(method: str) -> None:
    with budget_user("alice"):
        pool = multiprocessing.get_context(method).Pool(1)
        pool.apply(int)
    with budget_user("bob"):
        seen = [pool.apply(_who_pays), pool.apply(_who_pays_told, ("bob",))]
    pool.close()
    pool.join()
    assert seen == ["refused" if method == "fork" else "nobody", "bob"]
