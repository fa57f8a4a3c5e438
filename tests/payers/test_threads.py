"""Who pays in workers, pools and processes, which start with an empty context or outlive who started them."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from budgetguard import Guard, budget_user
from tests.guarded_calls import make_guard
from tests.payers.asking import agent, asker, limited_guard

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
from tests.payers.test_threads import Tracer
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


def test_a_callback_belongs_to_who_added_it(guard: Guard) -> None:
    who, left, seen = asker(guard), threading.Event(), queue.Queue[str]()
    with ThreadPoolExecutor(1) as pool, budget_user("alice"):
        job = pool.submit(left.wait, 30)
        with budget_user("bob"):
            job.add_done_callback(lambda _: seen.put(who()))
        left.set()
        assert seen.get(timeout=30) == "bob", "in a thread that alice's block has started"


# Processes


def _who_pays() -> str:
    return asker(limited_guard())()


def _who_pays_told(user: str) -> str:
    with budget_user(user):
        return _who_pays()


@pytest.mark.full
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
