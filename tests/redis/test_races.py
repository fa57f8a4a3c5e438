"""Races on a server: what a budget admits, it admits, however many ask at once and from wherever."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Granted, Refused, Settlement
from budgetguard.stores import open_store
from tests.race._workers import TEN, ask_for_one_each, cross_thresholds, make_hold, reserve_and_settle
from tests.race.test_stores import run_processes
from tests.servers.valkey import ValkeyServer


def test_thirty_two_threads_get_exactly_the_ten_calls_that_the_budget_admits(server: ValkeyServer) -> None:
    store = open_store(server.url, project="p")
    gate = threading.Barrier(32)

    def ask(_: int) -> object:
        gate.wait()
        return store.reserve(make_hold())

    with ThreadPoolExecutor(32) as pool:
        for _ in range(20):
            store.delete("user:1")
            store.set_budget("user:1", TEN)
            answers = list(pool.map(ask, range(32)))
            assert sum(isinstance(a, Granted) for a in answers) == 10
            assert sum(isinstance(a, Refused) for a in answers) == 22
    store.close()


async def test_thirty_two_tasks_get_exactly_the_ten_calls_that_the_budget_admits(
    server: ValkeyServer,
) -> None:
    store = open_store(server.url, project="p")
    store.set_budget("user:1", TEN)
    answers = await asyncio.gather(*(asyncio.to_thread(store.reserve, make_hold()) for _ in range(32)))
    assert sum(isinstance(answer, Granted) for answer in answers) == 10
    store.close()


def test_four_processes_of_eight_threads_get_exactly_ten_of_an_account_that_the_first_one_makes(
    server: ValkeyServer,
) -> None:
    assert sum(run_processes(ask_for_one_each, server.url, 8)) == 10
    store = open_store(server.url, project="p")
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.held_nanos, balance.open_holds) == (1_000, 10)
    store.close()


def test_four_processes_that_settle_500_calls_each_book_exactly_2000(server: ValkeyServer) -> None:
    store = open_store(server.url, project="p")
    store.set_budget("user:1", Budget(1_000_000))
    assert run_processes(reserve_and_settle, server.url, 500) == [500] * 4
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos, balance.open_holds) == (2_000, 0, 0)
    assert sum(call.cost_nanos for call in store.calls()) == 2_000
    store.close()


def test_four_processes_announce_each_threshold_once_among_them(server: ValkeyServer) -> None:
    store = open_store(server.url, project="p")
    store.set_budget("user:1", Budget(100))
    announced = run_processes(cross_thresholds, server.url, 40)
    assert sorted(percent for found in announced for percent in found) == [50, 80, 100]
    store.close()


def test_threads_that_close_the_store_do_not_disturb_threads_that_use_it(server: ValkeyServer) -> None:
    store = open_store(server.url, project="p")
    store.set_budget("user:1", Budget(10**9))
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            store.close()

    def work(_: int) -> None:
        for _ in range(50):
            hold = make_hold()
            store.reserve(hold)
            store.settle(hold, Settlement(1))

    with ThreadPoolExecutor(5) as pool:
        disturbing = pool.submit(disturb)
        list(pool.map(work, range(4)))
        done.set()
        disturbing.result()
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos) == (200, 0)
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_talks_over_connections_of_its_own_and_leaves_its_parents_alone(
    server: ValkeyServer,
) -> None:
    store = open_store(server.url, project="p")
    store.set_budget("user:1", Budget(10**6))
    context = multiprocessing.get_context("fork")

    def child() -> None:
        for _ in range(100):
            hold = make_hold()
            assert isinstance(store.reserve(hold), Granted)
            store.settle(hold, Settlement(1))

    children = [context.Process(target=child) for _ in range(2)]
    for process in children:
        process.start()
    child()
    for process in children:
        process.join()
    child()
    assert [process.exitcode for process in children] == [0, 0]
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos) == (400, 0)
    store.close()
