"""The async driver: cancelled anywhere, closed, on a slow store; nothing is held and nothing is lost."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from budgetguard import BudgetExceededError, Guard, budget_user
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.flow import adrive, drive, guarded
from tests.guarded_calls import GatedStore, Scripted, StatusError, drain, make_guard, nanos


@pytest.fixture
def store() -> GatedStore:
    return GatedStore()


@pytest.fixture
def guard(store: GatedStore) -> Guard:
    return make_guard(store)


@pytest.fixture
async def gates() -> AsyncIterator[threading.Event]:
    """A gate that is opened at the latest when the test ends, so that no worker thread stays stuck."""
    gate = threading.Event()
    yield gate
    gate.set()


async def answer() -> int:
    await asyncio.sleep(0)
    return 70


def call(guard: Guard) -> GuardedCall:
    with budget_user("u"):
        return GuardedCall(guard.engine, Scripted())


async def reach(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


async def test_cancelled_while_the_store_reserves_gives_the_hold_back(
    guard: Guard, store: GatedStore, gates: threading.Event
) -> None:
    invoked = []

    async def invoke() -> None:
        invoked.append(True)

    store.gates = {"reserve": gates}
    task = asyncio.create_task(adrive(guarded(call(guard)), invoke))
    await reach(store.reached)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done(), "the hold may still be granted, so the task waits to give it back"
    gates.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert invoked == []
    assert nanos(guard) == (0, 0)


async def test_cancelled_over_and_over_while_the_store_settles_books_once(
    guard: Guard, store: GatedStore, gates: threading.Event
) -> None:
    store.gates = {"settle": gates}
    task = asyncio.create_task(adrive(guarded(call(guard)), answer))
    await reach(store.reached)
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0.002)
    assert nanos(guard) == (0, 300_000)
    gates.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nanos(guard) == (70_000, 0)


async def test_cancelled_during_the_call_books_what_an_unknown_outcome_costs(guard: Guard) -> None:
    started = asyncio.Event()

    async def invoke() -> None:
        started.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(adrive(guarded(call(guard)), invoke))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nanos(guard) == (300_000, 0)


async def test_a_timeout_is_a_timeout_and_leaves_no_cancellation_behind(guard: Guard) -> None:
    async def slow() -> None:
        deadline.reschedule(asyncio.get_running_loop().time())  # the call is under way
        await asyncio.sleep(60)

    deadline = asyncio.timeout(None)
    with pytest.raises(TimeoutError):
        async with deadline:
            await adrive(guarded(call(guard)), slow)
    assert asyncio.current_task().cancelling() == 0
    assert nanos(guard) == (300_000, 0)


async def test_a_slow_store_does_not_stop_the_loop(
    guard: Guard, store: GatedStore, gates: threading.Event
) -> None:
    store.gates = {"reserve": gates}
    task = asyncio.create_task(adrive(guarded(call(guard)), answer))
    await reach(store.reached)
    turns = 0
    for _ in range(100):  # only a loop that runs gets through these
        await asyncio.sleep(0)
        turns += 1
    assert turns == 100
    assert not task.done()
    gates.set()
    assert await task == 70


async def test_more_slow_calls_than_worker_threads_all_get_through(
    guard: Guard, store: GatedStore, gates: threading.Event
) -> None:
    store.gates = {"reserve": gates}
    tasks = [asyncio.create_task(adrive(guarded(call(guard)), answer)) for _ in range(40)]
    await reach(store.reached)
    gates.set()
    assert await asyncio.gather(*tasks) == [70] * 40
    assert nanos(guard) == (40 * 70_000, 0)


async def test_refusals_and_errors_come_out_as_they_are(guard: Guard) -> None:
    async def fail() -> None:
        raise StatusError(500)

    with pytest.raises(StatusError):
        await adrive(guarded(call(guard)), fail)
    assert nanos(guard) == (0, 0)
    guard.set_budget(0, user="u")
    with pytest.raises(BudgetExceededError):
        await adrive(guarded(call(guard)), answer)
    assert nanos(guard) == (0, 0)


def test_a_coroutine_closed_during_the_call_is_settled_and_closes() -> None:
    guard = make_guard()

    async def invoke() -> None:
        await _Pause()

    coroutine = adrive(guarded(call(guard)), invoke)
    coroutine.send(None)  # as far as the call itself: a store in memory waits for nothing
    assert nanos(guard) == (0, 300_000)
    coroutine.close()
    drain()
    assert nanos(guard) == (300_000, 0)


def test_a_coroutine_thrown_away_by_the_garbage_collector_is_settled() -> None:
    guard = make_guard()

    async def invoke() -> None:
        await _Pause()

    coroutine = adrive(guarded(call(guard)), invoke)
    coroutine.send(None)  # as far as the call itself: a store in memory waits for nothing
    assert nanos(guard) == (0, 300_000)
    del coroutine
    gc.collect()
    drain()
    assert nanos(guard) == (300_000, 0)


async def test_a_coroutine_closed_while_the_store_reserves_gives_the_hold_back(
    guard: Guard, store: GatedStore, gates: threading.Event
) -> None:
    store.gates = {"reserve": gates}
    coroutine = adrive(guarded(call(guard)), answer)
    coroutine.send(None)
    await reach(store.reached)
    coroutine.close()
    gates.set()
    await asyncio.to_thread(drain)
    assert nanos(guard) == (0, 0)
    assert list(guard.holds()) == []


def test_a_coroutine_that_is_never_awaited_holds_nothing(guard: Guard) -> None:
    coroutine = adrive(guarded(call(guard)), answer)
    coroutine.close()
    assert nanos(guard) == (0, 0)


def test_ctrl_c_during_a_sync_call_is_settled_and_goes_on(guard: Guard) -> None:
    def invoke() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(guarded(call(guard)), invoke)
    assert nanos(guard) == (300_000, 0)


def test_generator_exit_through_a_sync_call_is_settled_and_stays_itself(guard: Guard) -> None:
    def invoke() -> None:
        raise GeneratorExit

    with pytest.raises(GeneratorExit):
        drive(guarded(call(guard)), invoke)
    assert nanos(guard) == (300_000, 0)


def test_ctrl_c_while_the_store_settles_is_sent_again_and_counts_once(
    guard: Guard, store: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(verb: str) -> None:
        if verb == "settle":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store, "_pass", interrupted)
        with pytest.raises(KeyboardInterrupt):
            drive(guarded(call(guard)), lambda: 70)
    assert nanos(guard) == (0, 300_000)
    guard.flush()
    guard.flush()
    assert nanos(guard) == (70_000, 0)


async def test_a_store_on_disk_serves_many_tasks_and_never_oversells(tmp_path: Path) -> None:
    guard = make_guard(f"disk://{tmp_path}")
    guard.set_budget(0.003, user="u")  # ten calls of $0.0003
    results = await asyncio.gather(
        *(adrive(guarded(call(guard)), lambda: asyncio.sleep(0.05, 300)) for _ in range(25)),
        return_exceptions=True,
    )
    assert sum(result == 300 for result in results) == 10
    assert sum(isinstance(result, BudgetExceededError) for result in results) == 15
    assert nanos(guard) == (3_000_000, 0)
    guard.close()


class _Pause:
    def __await__(self):
        yield


async def test_cancelled_while_the_store_refuses_leaves_no_trace_of_a_hold(
    guard: Guard, store: GatedStore, gates: threading.Event
) -> None:
    guard.set_budget(0, user="u")
    store.gates = {"reserve": gates}
    task = asyncio.create_task(adrive(guarded(call(guard)), answer))
    await reach(store.reached)
    task.cancel()
    gates.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(guard.calls()) == []


async def test_a_coroutine_closed_before_its_hold_was_even_made_gives_it_back(
    guard: Guard, store: GatedStore, gates: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    projecting, project = threading.Event(), Scripted.project

    def slow(self: Scripted, *given: object) -> object:
        projecting.set()
        assert gates.wait(30)
        return project(self, *given)

    monkeypatch.setattr(Scripted, "project", slow)
    coroutine = adrive(guarded(call(guard)), answer)
    coroutine.send(None)
    await reach(projecting)
    coroutine.close()
    gates.set()
    while "reserve" not in store.sent:
        await asyncio.sleep(0.001)
    await asyncio.to_thread(drain)
    await asyncio.sleep(0.02)  # time for a hold that nobody waits for to show
    assert list(guard.holds()) == []
    assert nanos(guard) == (0, 0)
