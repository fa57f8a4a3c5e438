"""Laws of rollover: what a window leaves unused is added to the next one's limit, up to a bound."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from budgetguard.core.accounts import Budget, Grant
from budgetguard.core.holds import VOID
from budgetguard.core.windows import Milliseconds
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    TTL,
    USER,
    ContractBase,
    denied,
    granted,
    hold,
    in_seconds,
    limit,
    money,
    now,
    raised,
    settled,
)
from budgetguard.testing.clock import FakeClock

HOUR: Final = 3_600
DAY: Final = 86_400


def spend(store: Store, clock: FakeClock, cost: int) -> None:
    """Spend on `user:1`."""
    settled(store, granted(store, hold(clock, 0)), cost)


class RolloverLaws(ContractBase):
    """What a window leaves unused is added to the next one's limit, up to a bound."""

    @pytest.fixture
    def hourly(self, store: Store) -> Store:
        """Return the store with a user who has 100 an hour, and takes 30 at most into the next."""
        store.set_budget(USER, Budget(100, "hourly", rollover=30))
        return store

    def test_what_is_unused_is_there_in_the_next_window_and_only_there(
        self, hourly: Store, clock: FakeClock
    ) -> None:
        spend(hourly, clock, 80)
        clock.advance(HOUR - 0.001)
        assert money(hourly) == (100, 80, 0)
        clock.advance(0.001)
        balance = now(hourly)
        assert (balance.limit_nanos, balance.spent_nanos, balance.rollover_nanos) == (120, 0, 30)
        assert balance.grants == (Grant("rollover", 20, in_seconds(clock, HOUR)),)
        spend(hourly, clock, 120)
        clock.advance(HOUR)
        assert (money(hourly), now(hourly).grants) == ((100, 0, 0), ())

    @pytest.mark.parametrize(
        ("spent", "carried"), [(0, 30), (69, 30), (70, 30), (71, 29), (99, 1), (100, 0), (130, 0)]
    )
    def test_it_is_at_most_the_rollover_and_never_below_nothing(
        self, hourly: Store, clock: FakeClock, spent: int, carried: int
    ) -> None:
        spend(hourly, clock, spent)
        clock.advance(HOUR)
        assert limit(hourly) == 100 + carried

    def test_what_was_rolled_over_and_is_unused_again_is_rolled_over_again(
        self, hourly: Store, clock: FakeClock
    ) -> None:
        spend(hourly, clock, 90)
        clock.advance(HOUR)
        spend(hourly, clock, 95)  # of 110
        clock.advance(HOUR)
        assert limit(hourly) == 115
        spend(hourly, clock, 114)
        clock.advance(HOUR)
        assert limit(hourly) == 101

    def test_what_is_held_at_the_windows_end_counts_as_used(self, hourly: Store, clock: FakeClock) -> None:
        spend(hourly, clock, 60)
        under_way = granted(hourly, hold(clock, 25, ttl=2 * HOUR * 1000))
        clock.advance(HOUR)
        assert money(hourly) == (115, 0, 0)
        hourly.settle(under_way, VOID)
        assert money(hourly) == (115, 0, 0)

    def test_an_expiry_that_nobody_has_met_before_the_windows_end_counts_as_booked(
        self, hourly: Store, clock: FakeClock
    ) -> None:
        spend(hourly, clock, 60)
        granted(hourly, hold(clock, 30, on_expiry=12, ttl=TTL))
        clock.advance(HOUR)
        assert limit(hourly) == 128

    def test_windows_that_nobody_saw_leave_all_of_theirs(self, store: Store, clock: FakeClock) -> None:
        store.set_budget(USER, Budget(100, "hourly", rollover=10_000))
        spend(store, clock, 80)
        clock.advance(4 * HOUR - 0.001)  # in the third after it
        assert limit(store) == 100 + 20 + 2 * 100
        clock.advance(0.001)
        assert limit(store) == 100 + 20 + 3 * 100

    @pytest.mark.parametrize("skipped", [1, 2, 7])
    def test_it_is_the_same_whether_each_window_was_looked_at_or_only_the_last(
        self, store: Store, clock: FakeClock, skipped: int
    ) -> None:
        for name in (USER, "user:2"):
            store.set_budget(name, Budget(100, "hourly", rollover=270))
            settled(store, granted(store, hold(clock, 0, name)), 180)
        for _ in range(skipped):
            clock.advance(HOUR)
            now(store)
        assert money(store) == money(store, "user:2")
        assert now(store).grants == now(store, "user:2").grants

    @pytest.mark.parametrize(
        "find",
        [
            lambda store, clock: denied(store, hold(clock, 131)).limit_nanos,
            lambda store, _: store.set_budget(USER, Budget(100, "hourly", rollover=30)).limit_nanos,
            lambda store, _: next(iter(store.list())).limit_nanos,
        ],
        ids=["reserve", "set_budget", "list"],
    )
    def test_it_is_rolled_over_whoever_looks_first(
        self, hourly: Store, clock: FakeClock, find: Callable[[Store, FakeClock], int]
    ) -> None:
        clock.advance(HOUR)
        assert find(hourly, clock) == 130
        granted(hourly, hold(clock, 130))

    def test_other_grants_are_not_rolled_over(self, hourly: Store, clock: FakeClock) -> None:
        raised(hourly, 50, in_seconds(clock, 10 * HOUR))
        spend(hourly, clock, 95)
        clock.advance(HOUR)
        balance = now(hourly)
        assert balance.limit_nanos == 100 + 5 + 50
        assert {one.id: one.amount for one in balance.grants} == {"g": 50, "rollover": 5}
        spend(hourly, clock, 150)  # more than the budget and what was carried: the grant's
        clock.advance(HOUR)
        assert limit(hourly) == 150

    def test_a_reset_keeps_what_was_rolled_over(self, hourly: Store, clock: FakeClock) -> None:
        clock.advance(HOUR)
        spend(hourly, clock, 130)
        hourly.reset(USER)
        assert money(hourly) == (130, 0, 0)

    def test_without_a_limit_nothing_is_rolled_over(self, store: Store, clock: FakeClock) -> None:
        store.set_budget(USER, Budget(None, "hourly", rollover=30))
        clock.advance(HOUR)
        assert now(store).grants == ()
        store.set_budget(USER, Budget(100, "hourly", rollover=30))
        assert limit(store) == 100

    def test_a_budget_set_without_it_ends_it_with_the_window(self, hourly: Store, clock: FakeClock) -> None:
        clock.advance(HOUR)
        assert hourly.set_budget(USER, Budget(100, "hourly")).limit_nanos == 130
        clock.advance(HOUR)
        assert limit(hourly) == 100

    def test_what_was_rolled_over_into_a_window_ends_with_it_though_the_next_is_longer(
        self, hourly: Store, clock: FakeClock
    ) -> None:
        clock.advance(HOUR)
        assert limit(hourly) == 130
        hourly.set_budget(USER, Budget(20, "daily", rollover=100))
        assert limit(hourly) == 50
        clock.advance(DAY)  # and nobody looks meanwhile
        assert limit(hourly) == 40

    def test_months_roll_over_at_their_ends(self, store: Store, clock: FakeClock) -> None:
        clock.set(round(datetime(2026, 1, 31, tzinfo=UTC).timestamp() * 1000))
        store.set_budget(USER, Budget(100, "monthly", rollover=1_000))
        spend(store, clock, 80)
        for month, day, expected in ((2, 28, 120), (3, 31, 220), (4, 30, 320)):
            ends = round(datetime(2026, month, day, tzinfo=UTC).timestamp() * 1000)
            clock.set(ends - 1)
            assert limit(store) == expected - 100 or month == 2
            clock.set(ends)
            assert (limit(store), now(store).starts_ms) == (expected, ends)
        clock.set(round(datetime(2026, 7, 30, 23, tzinfo=UTC).timestamp() * 1000))  # 5-31 and 6-30 have begun
        assert limit(store) == 520

    def test_days_roll_over_at_midnight_of_the_zone_as_clocks_change(
        self, store: Store, clock: FakeClock
    ) -> None:
        berlin = ZoneInfo("Europe/Berlin")

        def midnight(month: int, day: int) -> Milliseconds:
            return round(datetime(2026, month, day, tzinfo=berlin).timestamp() * 1000)

        for month, last, hours in ((3, 29, 23), (10, 25, 25)):
            clock.set(midnight(month, last - 1))
            account = f"user:{month}"
            store.set_budget(account, Budget(100, "daily", "Europe/Berlin", rollover=1_000))
            clock.set(midnight(month, last))
            assert limit(store, account) == 200
            clock.advance(hours * HOUR - 0.001)
            assert limit(store, account) == 200
            clock.advance(0.001)
            assert limit(store, account) == 300
            clock.set(midnight(month, last + 2) + 60_000)
            assert limit(store, account) == 400

    def test_a_clock_that_jumps_back_rolls_nothing_over_twice(self, hourly: Store, clock: FakeClock) -> None:
        spend(hourly, clock, 80)
        clock.advance(HOUR)
        assert limit(hourly) == 120
        clock.advance(-HOUR / 2)
        assert limit(hourly) == 120
        spend(hourly, clock, 110)
        clock.advance(HOUR / 2)
        assert money(hourly) == (120, 110, 0)
        clock.advance(HOUR)
        assert limit(hourly) == 110
