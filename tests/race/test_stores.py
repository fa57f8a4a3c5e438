"""Races whose outcome is exact: what a budget admits, it admits, however many ask at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Denied, Granted, Settlement
from budgetguard.stores import Store, open_store
from tests.stores import SHARED, STORES, Row, on

from ._workers import TEN, ask_for_one_each, cross_thresholds, make_hold, reserve_and_settle

SPAWN = multiprocessing.get_context("spawn")


def run_processes(worker: Callable[..., None], url: str, number: int, processes: int = 4) -> list[Any]:
    gate = SPAWN.Barrier(processes)
    answers = SPAWN.Queue()
    running = [SPAWN.Process(target=worker, args=(url, number, gate, answers)) for _ in range(processes)]
    for process in running:
        process.start()
    found = [answers.get(timeout=240) for _ in running]
    for process in running:
        process.join()
    answers.close()
    answers.join_thread()
    assert [process.exitcode for process in running] == [0] * processes
    return found


@pytest.fixture
def nimble_threads() -> Iterator[None]:
    """Let threads be switched within a verb, not only between verbs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("nimble_threads")
@on(STORES)
def test_thirty_two_threads_get_exactly_the_ten_calls_that_the_budget_admits(
    row: Row, tmp_path: Path
) -> None:
    gate = threading.Barrier(32)
    with row.serve(tmp_path) as place, ThreadPoolExecutor(32) as pool:
        store = place.open()

        def ask(_: int) -> object:
            gate.wait()
            return store.reserve(make_hold())

        for _ in range(max(5, int(20 * row.brisk))):
            store.delete("user:1")
            store.set_budget("user:1", TEN)
            answers = list(pool.map(ask, range(32)))
            assert sum(isinstance(a, Granted) for a in answers) == 10
            assert sum(isinstance(a, Denied) for a in answers) == 22


@pytest.mark.full
@on(STORES)
async def test_thirty_two_tasks_get_exactly_ten_calls_of_a_budget_of_ten(row: Row, tmp_path: Path) -> None:
    with row.serve(tmp_path) as place:
        store = place.open()
        store.set_budget("user:1", TEN)
        answers = await asyncio.gather(*(asyncio.to_thread(store.reserve, make_hold()) for _ in range(32)))
    assert sum(isinstance(a, Granted) for a in answers) == 10
    assert sum(isinstance(a, Denied) for a in answers) == 22


@pytest.mark.full
@pytest.mark.usefixtures("nimble_threads")
@on(STORES)
def test_threads_that_spend_until_they_are_refused_spend_all_there_is_and_no_more(
    row: Row, tmp_path: Path
) -> None:
    calls = int(300 * row.brisk)
    with row.serve(tmp_path) as place:
        store = place.open()
        store.set_budget("user:1", Budget(calls))

        def spend(_: int) -> int:
            made = 0
            while isinstance(store.reserve(hold := make_hold(1)), Granted):
                store.settle(hold, Settlement(1))
                made += 1
            return made

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(spend, range(8))) == calls
        _check(store, spent=calls)


@on(SHARED)
def test_four_processes_of_eight_threads_on_a_store_that_does_not_exist_yet_get_exactly_ten(
    row: Row, tmp_path: Path
) -> None:
    with row.serve(tmp_path) as place:
        assert sum(run_processes(ask_for_one_each, place.url, 8)) == 10
        _check(place.open(), held=1_000, open_holds=10)


@pytest.mark.full
@on(SHARED)
def test_four_processes_that_settle_all_the_time_book_exactly_what_they_settled(
    row: Row, tmp_path: Path
) -> None:
    each = int(500 * row.brisk)
    with row.serve(tmp_path) as place:
        store = place.open()
        store.set_budget("user:1", Budget(1_000_000))
        assert run_processes(reserve_and_settle, place.url, each) == [each] * 4
        _check(store, spent=4 * each)
        assert sum(call.cost_nanos for call in store.calls()) == 4 * each


@pytest.mark.full
@on(SHARED)
def test_four_processes_announce_each_threshold_once_among_them(row: Row, tmp_path: Path) -> None:
    with row.serve(tmp_path) as place:
        store = place.open()
        store.set_budget("user:1", Budget(100))
        announced = run_processes(cross_thresholds, place.url, 40)
    assert sorted(percent for found in announced for percent in found) == [50, 80, 100]


@pytest.mark.full
@on(SHARED)
def test_threads_that_close_the_store_do_not_disturb_threads_that_use_it(row: Row, tmp_path: Path) -> None:
    done = threading.Event()
    with row.serve(tmp_path) as place:
        store = place.open()
        store.set_budget("user:1", Budget(10**9))

        def disturb() -> None:
            while not done.wait(0.001):
                store.close()

        def work(_: int) -> None:
            for _ in range(25):
                hold = make_hold()
                store.reserve(hold)
                store.settle(hold, Settlement(1))

        with ThreadPoolExecutor(5) as pool:
            disturbing = pool.submit(disturb)
            list(pool.map(work, range(4)))
            done.set()
            disturbing.result()
        _check(store, spent=100)


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@on(SHARED)
def test_a_forked_child_talks_over_connections_of_its_own_and_leaves_its_parents_alone(
    row: Row, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    with row.serve(tmp_path) as place:
        store = place.open()
        store.set_budget("user:1", Budget(10**6))

        def work() -> None:
            for _ in range(50):
                hold = make_hold()
                assert isinstance(store.reserve(hold), Granted)
                store.settle(hold, Settlement(1))

        work()
        children = [context.Process(target=work) for _ in range(2)]
        for process in children:
            process.start()
        work()
        for process in children:
            process.join()
        work()
        assert [process.exitcode for process in children] == [0, 0]
        _check(store, spent=250)


def _check(store: Store, *, spent: int = 0, held: int = 0, open_holds: int = 0) -> None:
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos, balance.open_holds) == (spent, held, open_holds)


# Of the disk store alone


@pytest.mark.full
def test_stores_opened_at_once_on_a_folder_that_does_not_exist_yet_are_one_store(tmp_path: Path) -> None:
    for number in range(60):
        url = f"disk://{tmp_path}/{number}"
        together = threading.Barrier(8)

        def make(name: int, url: str = url, together: threading.Barrier = together) -> None:
            together.wait(30)
            store = open_store(url, project="p")
            store.set_budget(f"user:{name}", Budget(1))
            store.close()

        with ThreadPoolExecutor(8) as pool:
            for made in [pool.submit(make, name) for name in range(8)]:
                made.result(60)
        store = open_store(url, project="p")
        assert len(list(store.list())) == 8
        store.close()


@pytest.mark.full
def test_threads_that_read_list_and_close_do_not_disturb_threads_that_reserve_and_settle(
    tmp_path: Path,
) -> None:
    store = open_store(f"disk://{tmp_path}", project="p")
    store.set_budget("user:1", Budget(10**9))
    done = threading.Event()

    def disturb(verb: Callable[[], object]) -> None:
        while not done.is_set():
            verb()

    def work(_: int) -> None:
        for _ in range(50):
            hold = make_hold()
            store.reserve(hold)
            store.settle(hold, Settlement(1))

    verbs: list[Callable[[], object]] = [
        lambda: store.read("user:1"),
        lambda: list(store.list()),
        lambda: list(store.calls()),
        lambda: list(store.holds()),
        store.close,
    ]
    with ThreadPoolExecutor(12) as pool:
        disturbing = [pool.submit(disturb, verb) for verb in verbs]
        list(pool.map(work, range(4)))
        done.set()
        for each in disturbing:
            each.result()
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos) == (200, 0)
    store.close()
