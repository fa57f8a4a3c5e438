"""What clients report, booked once each: two that find the same sum reported at the same instant, too."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from budgetguard.core.accounts import Balance, Budget
from budgetguard.server.views import LATE, ViewReport, Views
from budgetguard.stores import open_store
from budgetguard.stores.base import Store
from budgetguard.testing.clock import FakeClock

HOUR = 3_600


class Together:
    """A store whose readers of views wait for each other, once: both then act on what they have read."""

    def __init__(self, store: Store, readers: int, skip: int = 0) -> None:
        self._store = store
        self._barrier = threading.Barrier(readers)
        self._readers = readers
        self._skip = skip * readers
        self._seen = 0
        self._lock = threading.Lock()

    def read(self, account: str) -> Balance | None:
        found = self._store.read(account)
        with self._lock:
            self._seen += 1
            waits = self._skip < self._seen <= self._skip + self._readers
        if waits:
            self._barrier.wait(timeout=20)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Store:
    made = open_store("memory://", project="p", clock=clock)
    made.set_budget("user:u", Budget(10_000))
    return made


def report(clock: FakeClock, cost: int, base: int = 0, **values: Any) -> ViewReport:
    return ViewReport("u", "a-view", clock(), base, {"m": base} if base else {}, cost, {"m": cost}, **values)


def spent(store: Store) -> int:
    found = store.read("user:u")
    assert found is not None
    return found.spent_nanos


@pytest.mark.parametrize("silent", [0, HOUR], ids=["a new view", "one not heard of for an hour"])
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_reports_that_find_the_same_state_book_the_largest_once(
    store: Store, clock: FakeClock, silent: int, skip: int
) -> None:
    first = report(clock, 100)
    if silent:
        Views(store, clock).post(first, may_lower=False)
        clock.advance(silent)
    together: Any = Together(store, 2, skip)
    with ThreadPoolExecutor(2) as pool:
        sent = [
            pool.submit(
                Views(together, clock).post, replace(first, cost=cost, models={"m": cost}), may_lower=False
            )
            for cost in (150, 170)
        ]
        for one in sent:
            one.result(timeout=30)
    assert spent(store) == 170


def test_what_was_handed_out_is_not_booked_again(store: Store, clock: FakeClock) -> None:
    views = Views(store, clock)
    assert views.post(report(clock, 500, base=500), may_lower=False)
    assert spent(store) == 0
    views.post(report(clock, 530, base=500), may_lower=False)
    views.post(report(clock, 530, base=500), may_lower=False)
    assert spent(store) == 30


def test_an_increment_is_dated_by_when_it_came_to_within_minutes(store: Store, clock: FakeClock) -> None:
    views, first = Views(store, clock), report(clock, 10)
    views.post(first, may_lower=False)
    clock.advance(30 * 24 * HOUR)
    views.post(replace(first, cost=25, models={"m": 25}), may_lower=False)
    booked = [one for one in store.calls() if one.state == "settled"]
    assert [one.cost_nanos for one in booked] == [10, 15]
    assert clock() - booked[1].created_ms < 600_000


def test_models_share_what_was_added_and_the_rest_has_no_name(store: Store, clock: FakeClock) -> None:
    views = Views(store, clock)
    views.post(replace(report(clock, 100), models={"a": 30, "b": 50}), may_lower=False)
    found = store.read("user:u")
    assert found is not None
    assert found.models == {"a": 30, "b": 50, "unknown": 20}
    views.post(replace(report(clock, 160), models={"a": 90, "b": 50}), may_lower=False)
    found = store.read("user:u")
    assert found is not None
    assert (found.models, found.spent_nanos) == ({"a": 90, "b": 50, "unknown": 20}, 160)


def test_a_sum_below_what_was_handed_out_starts_anew_at_once(store: Store, clock: FakeClock) -> None:
    views = Views(store, clock)
    views.post(report(clock, 520, base=500), may_lower=False)
    views.post(report(clock, 5, base=500), may_lower=False)
    assert spent(store) == 25
    views.post(report(clock, 9, base=500), may_lower=False)
    assert spent(store) == 29


@pytest.mark.parametrize(("wait", "expected"), [(LATE / 1000 - 1, 100), (LATE / 1000 + 1, 140)])
def test_another_smaller_sum_may_be_late_for_a_minute(
    store: Store, clock: FakeClock, wait: float, expected: int
) -> None:
    views, first = Views(store, clock), report(clock, 100)
    views.post(first, may_lower=False)
    clock.advance(wait)
    is_done = views.post(replace(first, cost=40, models={"m": 40}), may_lower=False)
    assert spent(store) == expected
    assert is_done == (expected == 140)


def test_two_sums_of_one_view_go_on_beside_each_other(store: Store, clock: FakeClock) -> None:
    views, first = Views(store, clock), report(clock, 1_000)
    views.post(first, may_lower=False)
    clock.advance(LATE / 1000 + 1)
    for cost in (10, 1_010, 20, 1_020, 30):
        views.post(replace(first, cost=cost, models={"m": cost}), may_lower=False)
    assert spent(store) == 1_020 + 30


def test_the_project_s_budget_is_charged_as_well(store: Store, clock: FakeClock) -> None:
    store.set_budget("project:p", Budget(10_000))
    Views(store, clock).post(report(clock, 70), may_lower=False)
    found = store.read("project:p")
    assert found is not None
    assert found.spent_nanos == 70


def test_only_who_may_lower_resets_and_once(store: Store, clock: FakeClock) -> None:
    views = Views(store, clock)
    views.post(report(clock, 520, base=500), may_lower=True)
    for cost in (5, 5, 9):
        views.post(report(clock, cost, base=500), may_lower=True)
    assert spent(store) == 9
