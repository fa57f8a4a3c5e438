"""Races over accounts of several units, rolling windows, raises and scopes: what they admit is exact too."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from budgetguard.core.accounts import Budget, Document, Grant
from budgetguard.core.holds import Charge, Denied, Granted, Hold, Outdated, Settlement, new_hold_id
from budgetguard.stores import Store
from budgetguard.testing.clock import FakeClock
from tests.stores import SHARED, STORES, Row, on

from ._workers import (
    CONCURRENT,
    FIVE,
    ROLLING,
    ask_five_accounts,
    make_hold,
    make_hold_of_units,
    raise_once,
    spend_rolling,
)
from .test_stores import nimble_threads, run_processes

__all__ = ["nimble_threads"]  # the fixture


def give_budgets(store: Store) -> None:
    for name, budget in FIVE.items():
        store.set_budget(name, budget)


def held(store: Store) -> list[int]:
    return [balance.held_nanos for name in FIVE if (balance := store.read(name)) is not None]


@pytest.mark.usefixtures("nimble_threads")
@on(STORES)
def test_threads_get_exactly_the_ten_calls_that_five_accounts_of_three_units_and_usd_admit(
    row: Row, tmp_path: Path
) -> None:
    gate = threading.Barrier(16)
    with row.serve(tmp_path) as place, ThreadPoolExecutor(16) as pool:
        store = place.open()

        def ask(_: int) -> object:
            gate.wait()
            return store.reserve(make_hold_of_units())

        for _ in range(max(2, int(8 * row.brisk))):
            for name in FIVE:
                store.delete(name)
            give_budgets(store)
            answers = list(pool.map(ask, range(16)))
            assert sum(isinstance(answer, Granted) for answer in answers) == 10
            assert sum(isinstance(answer, Denied) for answer in answers) == 6
            assert held(store) == [1_000, 10, 100, 1_000, 10]


@pytest.mark.full
@on(SHARED)
def test_four_processes_of_eight_threads_get_exactly_the_ten_calls_that_five_accounts_admit(
    row: Row, tmp_path: Path
) -> None:
    with row.serve(tmp_path) as place:
        store = place.open()
        give_budgets(store)
        assert sum(run_processes(ask_five_accounts, place.url, 8)) == 10
        assert held(store) == [1_000, 10, 100, 1_000, 10]


@pytest.mark.usefixtures("nimble_threads")
@on(STORES)
def test_no_more_calls_are_under_way_than_may_be_and_each_that_ends_frees_its_place(
    row: Row, tmp_path: Path
) -> None:
    calls = max(5, int(25 * row.brisk))
    counting = threading.Lock()
    under_way: list[int] = [0]
    seen: list[int] = []
    with row.serve(tmp_path) as place:
        stores = [place.open()]
        if row.shared:
            stores.append(place.open())
        stores[0].set_budget(CONCURRENT, Budget(5))

        def work(number: int) -> int:
            store, made = stores[number % len(stores)], 0
            for _ in range(calls):
                hold = make_hold_of_units(1, CONCURRENT)
                while not isinstance(store.reserve(hold), Granted):
                    hold = make_hold_of_units(1, CONCURRENT)
                    time.sleep(0.002)
                with counting:
                    under_way[0] += 1
                    seen.append(under_way[0])
                with counting:
                    under_way[0] -= 1
                store.settle(hold, Settlement(1))
                made += 1
            return made

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) == 8 * calls
        balance = stores[0].read(CONCURRENT)
        assert balance is not None
        assert (balance.spent_nanos, balance.held_nanos, balance.open_holds) == (0, 0, 0)
    assert max(seen) <= 5


@pytest.mark.full
@on(SHARED)
def test_four_processes_of_eight_threads_spend_a_rolling_budget_to_the_last_and_no_more(
    row: Row, tmp_path: Path
) -> None:
    calls = int(200 * row.brisk)
    with row.serve(tmp_path) as place:
        store = place.open()
        store.set_budget(ROLLING, Budget(10 * calls, "1d", rolling=True))
        assert sum(run_processes(spend_rolling, place.url, 8)) == calls
        balance = store.read(ROLLING)
        assert balance is not None
        assert (balance.spent_nanos, balance.held_nanos) == (10 * calls, 0)
        assert sum(amount for _, amount in balance.frees) == 10 * calls


@pytest.mark.usefixtures("nimble_threads")
@on(STORES)
def test_no_minute_has_more_calls_than_a_rolling_budget_admits_while_time_goes_on(
    row: Row, tmp_path: Path
) -> None:
    clock, minute = FakeClock(), 60_000
    with row.serve(tmp_path) as place:
        store = place.open(clock)
        name = "labels:@unit=requests&@rolling=60s&user=1"
        store.set_budget(name, Budget(10, "60s", rolling=True))

        asked = max(12, int(60 * row.brisk))

        def spend(_: int) -> None:
            for _ in range(asked):
                now = clock()
                charges, units = (Charge(name),), {"requests": (1, 1)}
                hold = Hold(new_hold_id(now), charges, 1, 1, 600_000, now, "1", "m", "chat", units=units)
                if isinstance(store.reserve(hold), Granted):
                    store.settle(hold, Settlement(1))
                clock.advance(250 / (8 * asked))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(spend, range(8)))
        booked = sorted(call.ended_ms or 0 for call in store.calls())
        spans = [sum(at <= other < at + minute for other in booked) for at in booked]
        assert max(spans) == 10
        assert len(booked) > 10, "no second minute began"


@on(STORES)
def test_a_raise_that_eight_threads_send_counts_once(row: Row, tmp_path: Path) -> None:
    gate = threading.Barrier(8)
    with row.serve(tmp_path) as place, ThreadPoolExecutor(8) as pool:
        store = place.open()
        store.set_budget("user:1", Budget(100))

        def send(grant: Grant) -> int | None:
            gate.wait()
            balance = store.grant("user:1", grant)
            return None if balance is None else balance.limit_nanos

        for number in range(1, 4):
            grant = Grant(f"g{number}", 50, None)
            assert list(pool.map(send, [grant] * 8)) == [100 + 50 * number] * 8


@pytest.mark.full
@on(SHARED)
def test_raises_that_four_processes_of_eight_threads_send_count_once(row: Row, tmp_path: Path) -> None:
    with row.serve(tmp_path) as place:
        store = place.open()
        store.set_budget("user:1", Budget(100))
        assert max(run_processes(raise_once, place.url, 8)) == 157
        balance = store.read("user:1")
        assert balance is not None
        assert balance.limit_nanos == 157


@on(STORES)
def test_when_scopes_are_saved_nothing_is_granted_any_more_by_those_before(row: Row, tmp_path: Path) -> None:
    saved = threading.Event()
    with row.serve(tmp_path) as place, ThreadPoolExecutor(4) as pool:
        store, other = place.open(), place.open() if row.shared else None
        store.set_budget("user:1", Budget(10**9))

        def ask(_: int) -> int:
            granted = 0
            while True:
                late = saved.is_set()
                answer = (other or store).reserve(make_hold(1))
                if isinstance(answer, Outdated):
                    return granted
                assert not late, "granted by scopes that had been replaced"
                granted += 1

        asking = [pool.submit(ask, number) for number in range(3)]
        while store.read("user:1").held_nanos < 10:  # type: ignore[union-attr]  # it exists
            time.sleep(0.002)
        assert store.save_scopes(Document(7, "[]"), 0)
        saved.set()
        granted = sum(one.result(60) for one in asking)
        balance = store.read("user:1")
        assert balance is not None
        assert balance.held_nanos == granted
