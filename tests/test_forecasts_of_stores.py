"""A guard's balances are forecast from their store's records, in one pass, and only when it is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from budgetguard import Guard
from budgetguard.core.holds import Charge, Granted, HoldRecord, Settlement, new_hold
from budgetguard.core.report import summarize
from budgetguard.core.usage import Reported
from budgetguard.core.windows import Milliseconds
from budgetguard.engine import forecasting
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.events import Event, ForecastExceeded, ThresholdCrossed
from budgetguard.stores.base import Store, open_store
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import drain, names
from tests.stores import STORES, Row, on

HOUR = 3600
CENT = 10_000_000


class Counting:
    """A store that counts how often its records are read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[tuple[Milliseconds, Milliseconds | None]] = []
        self.failing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        self.asked.append((since, until))
        if self.failing:
            raise StoreError("no records today")
        return self._store.calls(since, until)


def spend(guard: Guard, clock: FakeClock, hours: int, *users: str, cost: int = CENT) -> None:
    """Have each user make a call an hour."""
    for _ in range(hours):
        for user in users:
            guard.engine.post(user, cost, model="m", endpoint="chat", reported=Reported(None))
        clock.advance(HOUR)


def counted(clock: FakeClock, **settings: Any) -> tuple[Guard, Counting]:
    store = Counting(open_store("memory://", project="p", clock=clock))
    return Guard(store=cast(Store, store), clock=clock, **settings), store


@on(STORES)
def test_a_balance_is_forecast_from_the_records_of_its_account(row: Row, tmp_path: Path) -> None:
    clock = FakeClock()
    with row.serve(tmp_path) as place:
        guard = Guard(store=place.open(clock), clock=clock)
        guard.set_budget(1, user="even", duration="monthly")
        guard.set_budget(1, user="idle", duration="monthly")
        spend(guard, clock, 60, "even")
        hold = new_hold(
            clock(), (Charge("user:even"),), amount=2 * CENT, on_expiry=CENT, ttl=1_800_000, user="even"
        )
        assert isinstance(guard.store.reserve(hold), Granted)
        clock.advance(HOUR)
        balance = guard.balance("even")
        assert balance.expiries == 1
        made = balance.forecast
        assert made.calls == 60, "59 after the first, and the one that expired"
        assert made.expected_nanos == pytest.approx(31 * 24 * CENT, rel=0.1)
        assert made.exceeds
        assert made.at_ms == clock()
        assert made.limit_reached_at is not None
        assert balance.to_dict()["forecast"] == made.to_dict()
        idle = guard.balance("idle").forecast
        assert (idle.calls, idle.is_known) == (0, False)
        read = guard.store.read("user:even")
        assert read == balance
        assert read is not None
        with pytest.raises(ConfigurationError, match=r"guard\.balance"):
            _ = read.forecast


def test_a_listing_reads_the_records_once_and_only_if_it_is_asked() -> None:
    clock = FakeClock()
    guard, store = counted(clock)
    users = [f"u{number}" for number in range(5)]
    for user in users:
        guard.set_budget(10, user=user, duration="monthly")
    spend(guard, clock, 30, *users)
    assert [one.account for one in guard.balances()] == [f"user:{user}" for user in users]
    assert store.asked == []
    made = [one.forecast for one in guard.balances()]
    assert [one.calls for one in made] == [29] * 5
    spans = [(since, until) for since, until in store.asked if until is not None]
    assert len(spans) == len(store.asked) <= 8
    for (later, _), (_, until) in itertools.pairwise(spans):
        assert until == later, "no record is read twice"
    alone = guard.balance("u3")
    assert alone.forecast == made[3]
    before = len(store.asked)
    assert alone.forecast == made[3]
    assert len(store.asked) == before


def test_of_very_many_records_only_the_latest_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    guard, store = counted(clock)
    guard.set_budget(100, user="u", duration="monthly")
    spend(guard, clock, 20 * 24, "u")
    whole = guard.balance("u").forecast
    monkeypatch.setattr(forecasting, "MOST_RECORDS", 100)
    store.asked.clear()
    made = guard.balance("u").forecast
    assert store.asked[-1][0] > clock() - 10 * 24 * 3_600_000
    assert 100 <= made.calls < whole.calls
    assert made.expected_nanos == pytest.approx(whole.expected_nanos, rel=0.1)


def exceeded(events: list[Event]) -> list[tuple[str, str | None]]:
    return [(one.account, one.user) for one in events if isinstance(one, ForecastExceeded)]


@on(STORES)
def test_it_is_told_once_a_window_by_one_of_several_guards(row: Row, tmp_path: Path) -> None:
    clock = FakeClock()
    with row.serve(tmp_path) as place:
        stores = [place.open(clock)] if not row.shared else [place.open(clock) for _ in range(2)]
        guards = [Guard(store=store, clock=clock, thresholds=[10, 20, 50, 100]) for store in stores]
        events: list[Event] = []
        for guard in guards:
            guard.on(events.append, ForecastExceeded)
        guards[0].set_budget(1, user="u", duration="7d")
        for hour in range(60):
            spend(guards[hour % len(guards)], clock, 1, "u")
            drain()
        assert exceeded(events) == [("user:u", "u")]
        (told,) = events
        assert isinstance(told, ForecastExceeded)
        assert told.low <= told.expected <= told.high
        assert told.limit == 1 < told.expected
        assert told.spent < told.limit
        assert told.limit_reached_at is not None
        assert told.resets_at is not None
        assert told.at < told.limit_reached_at < told.resets_at
        assert told.to_dict()["expected"] == format(told.expected, "f")
        report = summarize(guards[0].calls())
        assert (report.total.calls, report.total.voided) == (60, 0), "the mark is no call"
        clock.advance(7 * 24 * HOUR - 60 * HOUR + 1)
        spend(guards[0], clock, 25, "u")
        drain()
        assert exceeded(events) == [("user:u", "u")] * 2, "the next window tells it anew"


def test_nothing_is_read_where_nobody_listens_or_nothing_may_be_exceeded() -> None:
    clock = FakeClock()
    guard, store = counted(clock, thresholds=[10, 100])
    guard.set_budget(1, user="u", duration="7d")
    guard.set_budget(1, user="forever")
    spend(guard, clock, 30, "u", "forever")
    drain()
    assert store.asked == [], "no hook"
    events: list[Event] = []
    guard.on(events.append, ThresholdCrossed)
    spend(guard, clock, 75, "u", "forever")
    drain()
    assert names(events) == ["ThresholdCrossed"] * 2
    assert store.asked == [], "no hook of this kind"
    guard.on(events.append, ForecastExceeded)
    guard.reset("forever")
    spend(guard, clock, 30, "forever")
    drain()
    assert store.asked == [], "no window"


def test_a_modest_pace_is_not_told_and_a_failing_store_disturbs_no_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    guard, store = counted(clock, thresholds=[10, 20, 80])
    events: list[Event] = []
    guard.on(events.append, ForecastExceeded)
    guard.set_budget(2, user="modest", duration="7d")
    spend(guard, clock, 50, "modest")
    drain()
    assert store.asked
    assert events == []
    store.failing = True
    spend(guard, clock, 20, "modest", cost=8 * CENT)
    drain()
    assert events == []
    assert guard.balance("modest").spent_nanos == 210 * CENT
    assert "could not be foreseen" in caplog.text
    with pytest.raises(StoreError):
        _ = guard.balance("modest").forecast


def test_the_settlement_of_a_guarded_call_tells_it() -> None:
    clock = FakeClock()
    guard, _ = counted(clock, thresholds=[50])
    guard.set_budget(1, user="u", duration="7d")
    events: list[Event] = []
    guard.on(events.append, ForecastExceeded)
    guard.register_price("m", input=10_000, output=0)  # a cent a token
    for _ in range(50):
        with guard.call(model="m", input_tokens=1, max_output_tokens=0, user="u") as call:
            call.settle({"usage": {"prompt_tokens": 1, "completion_tokens": 0}})
        clock.advance(HOUR)
    assert guard.balance("u").spent_nanos == 50 * CENT
    drain()
    assert exceeded(events) == [("user:u", "u")]


def test_settlements_are_booked_as_before_with_thresholds_named_by_hand() -> None:
    clock = FakeClock()
    guard, store = counted(clock)
    guard.set_budget(1, user="u")
    hold = new_hold(clock(), (Charge("user:u"),), amount=CENT)
    guard.store.reserve(hold)
    answer: Any = guard.store.settle(hold, Settlement(90 * CENT, thresholds=(50,)))
    assert [one.threshold for one in answer.crossings] == [50]
    assert store.asked == []
