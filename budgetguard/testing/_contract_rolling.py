"""Laws of rolling windows: what was spent counts for a duration from then, and falls out bit by bit."""

from __future__ import annotations

from typing import Final

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import VOID, Denied, Granted
from budgetguard.core.windows import Milliseconds, falls_out
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    PROJECT,
    TTL,
    USER,
    ContractBase,
    budget,
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
PART: Final = 60
"""Seconds of a part of an hour's window."""
ROLLING: Final = "labels:@rolling=hourly&user=1"
REQUESTS: Final = "labels:@unit=requests&@rolling=60s&user=1"


def spend(store: Store, clock: FakeClock, cost: int, thresholds: tuple[int, ...] = ()) -> list[int]:
    """Spend on the rolling account, and return the thresholds that this reached."""
    answer = settled(store, granted(store, hold(clock, 0, ROLLING)), cost, thresholds)
    return [one.threshold for one in answer.crossings]


def spent(store: Store) -> int:
    """Return what is spent of the rolling account."""
    return now(store, ROLLING).spent_nanos


class RollingLaws(ContractBase):
    """No span of the duration has more than the limit, and what has left it may be spent again."""

    @pytest.fixture
    def rolling(self, store: Store) -> Store:
        """Return the store with a user who has 100 in any hour."""
        store.set_budget(ROLLING, Budget(100, "hourly", rolling=True))
        return store

    # When it falls out

    def test_it_is_made_without_an_end_and_says_that_it_rolls(self, rolling: Store, clock: FakeClock) -> None:
        balance = now(rolling, ROLLING)
        assert balance.rolling
        assert (balance.duration, balance.resets_ms, balance.frees) == ("hourly", None, ())
        assert balance.starts_ms == clock()
        assert not budget(rolling, 100, duration="hourly").rolling

    @pytest.mark.parametrize("after", [0.0, 0.001, 31.5, PART - 0.001])
    def test_what_was_spent_falls_out_with_its_part_and_never_before_a_full_duration(
        self, rolling: Store, clock: FakeClock, after: float
    ) -> None:
        clock.advance(after)
        spend(rolling, clock, 40)
        spent_at = clock()
        (at, amount), *more = now(rolling, ROLLING).frees
        assert (amount, more) == (40, [])
        assert at == now(rolling, ROLLING).resets_ms == falls_out("hourly", spent_at)
        assert spent_at + HOUR * 1000 < at <= spent_at + (HOUR + PART) * 1000
        clock.set(at - 1)
        assert spent(rolling) == 40
        clock.set(at)
        assert spent(rolling) == 0
        assert now(rolling, ROLLING).resets_ms is None

    def test_what_was_spent_in_one_part_falls_out_together_and_in_another_by_itself(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        for cost, passes in ((1, 0), (2, PART - 1), (4, 1), (8, 10 * PART)):
            clock.advance(passes)
            spend(rolling, clock, cost)
        start = clock() - 11 * PART * 1000
        ends = [start + (HOUR + part * PART) * 1000 for part in (1, 2, 12)]
        assert now(rolling, ROLLING).frees == tuple(zip(ends, (3, 4, 8), strict=True))
        for end, left in zip(ends, (12, 8, 0), strict=True):
            clock.set(end - 1)
            before = spent(rolling)
            clock.set(end)
            assert (spent(rolling), before > left) == (left, True)

    def test_parts_that_are_over_fall_out_all_at_once_if_nobody_looked(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        for cost in (1, 2, 4, 8):
            spend(rolling, clock, cost)
            clock.advance(10 * PART)
        clock.advance(HOUR - 20 * PART + PART)  # the first three are over
        balance = now(rolling, ROLLING)
        assert (balance.spent_nanos, [amount for _, amount in balance.frees]) == (8, [8])
        assert dict(balance.models) == {"gpt-4o": 8}

    def test_no_hour_ever_has_more_than_the_limit(self, rolling: Store, clock: FakeClock) -> None:
        made: list[Milliseconds] = []
        for step in range(700):
            if isinstance(rolling.reserve(one := hold(clock, 10, ROLLING)), Granted):
                settled(rolling, one, 10)
                made.append(clock())
            clock.advance(17 if step % 3 else 29)
        assert max(sum(at <= other < at + HOUR * 1000 for other in made) for at in made) == 10
        assert len(made) > 30  # and what has left is spent again

    def test_what_has_fallen_out_may_be_spent_again(self, rolling: Store, clock: FakeClock) -> None:
        spend(rolling, clock, 60)
        clock.advance(HOUR / 2)
        spend(rolling, clock, 40)
        assert denied(rolling, hold(clock, 1, ROLLING)).resets_ms == in_seconds(clock, HOUR / 2 + PART)
        clock.advance(HOUR / 2 + PART)
        granted(rolling, hold(clock, 60, ROLLING))
        denied(rolling, hold(clock, 1, ROLLING))

    def test_costs_by_model_fall_out_with_their_parts(self, rolling: Store, clock: FakeClock) -> None:
        for model, cost in (("a", 3), ("b", 4)):
            settled(rolling, granted(rolling, hold(clock, 0, ROLLING, model=model)), cost)
        clock.advance(PART)
        settled(rolling, granted(rolling, hold(clock, 0, ROLLING, model="a")), 5)
        assert dict(now(rolling, ROLLING).models) == {"a": 8, "b": 4}
        clock.advance(HOUR)
        assert dict(now(rolling, ROLLING).models) == {"a": 5}

    def test_it_may_count_another_unit_over_a_minute(self, store: Store, clock: FakeClock) -> None:
        store.set_budget(REQUESTS, Budget(3, "60s", rolling=True))
        for _ in range(3):
            one = granted(store, hold(clock, 5, REQUESTS, units={"requests": 1}))
            settled(store, one, 5)
            clock.advance(20)
        more = hold(clock, 5, REQUESTS, units={"requests": 1})
        refused = denied(store, more)
        assert refused.fits_at(1) == in_seconds(clock, 1)
        clock.advance(1)
        granted(store, more)

    # What is held

    def test_what_is_held_does_not_fall_out(self, rolling: Store, clock: FakeClock) -> None:
        one = granted(rolling, hold(clock, 30, ROLLING, ttl=10 * HOUR * 1000))
        spend(rolling, clock, 20)
        clock.advance(3 * HOUR)
        assert money(rolling, ROLLING) == (100, 0, 30)
        settled(rolling, one, 25)  # it counts from when it is booked
        assert money(rolling, ROLLING) == (100, 25, 0)
        clock.advance(HOUR - 1)
        assert spent(rolling) == 25
        clock.advance(PART + 1)
        assert spent(rolling) == 0

    def test_a_void_books_nothing_and_begins_no_part(self, rolling: Store, clock: FakeClock) -> None:
        rolling.settle(granted(rolling, hold(clock, 30, ROLLING)), VOID)
        balance = now(rolling, ROLLING)
        assert (balance.spent_nanos, balance.held_nanos, balance.frees) == (0, 0, ())

    # Expiries and late settles

    def test_an_expiry_is_booked_and_counted_and_falls_out(self, rolling: Store, clock: FakeClock) -> None:
        granted(rolling, hold(clock, 30, ROLLING, on_expiry=25))
        granted(rolling, hold(clock, 30, ROLLING, on_expiry=0))
        clock.advance(TTL / 1000)
        balance = now(rolling, ROLLING)
        assert (balance.spent_nanos, balance.expired_nanos, balance.expiries) == (25, 25, 2)
        clock.advance(HOUR - 1)
        assert now(rolling, ROLLING) == balance
        clock.advance(PART + 1)
        balance = now(rolling, ROLLING)
        assert (balance.spent_nanos, balance.expired_nanos, balance.expiries) == (0, 0, 0)

    def test_a_late_settle_takes_back_from_the_part_that_booked_the_expiry(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        late = granted(rolling, hold(clock, 30, ROLLING, on_expiry=25))
        clock.advance(PART)
        spend(rolling, clock, 3)  # finds it expired, and is booked in the same part
        clock.advance(10 * PART)
        spend(rolling, clock, 4)
        assert [amount for _, amount in now(rolling, ROLLING).frees] == [28, 4]
        assert settled(rolling, late, 6).late
        balance = now(rolling, ROLLING)
        assert [amount for _, amount in balance.frees] == [3, 10]
        assert (balance.spent_nanos, balance.expired_nanos, balance.expiries) == (13, 0, 0)
        clock.advance(HOUR - 9 * PART)
        assert spent(rolling) == 10
        clock.advance(10 * PART)
        assert spent(rolling) == 0

    def test_a_late_settle_takes_nothing_back_that_has_fallen_out(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        late = granted(rolling, hold(clock, 30, ROLLING, on_expiry=25))
        clock.advance(TTL / 1000)
        now(rolling, ROLLING)
        clock.advance(HOUR)
        spend(rolling, clock, 5)
        clock.advance(PART)
        assert spent(rolling) == 5
        assert settled(rolling, late, 6).late
        assert (spent(rolling), now(rolling, ROLLING).expiries) == (11, 0)

    # Resets, budgets, deletion

    def test_a_reset_empties_all_parts_and_keeps_what_is_held(self, rolling: Store, clock: FakeClock) -> None:
        late = granted(rolling, hold(clock, 30, ROLLING, on_expiry=25))
        clock.advance(PART)
        spend(rolling, clock, 5)
        under_way = granted(rolling, hold(clock, 7, ROLLING))
        rolling.reset(ROLLING)
        balance = now(rolling, ROLLING)
        assert (money(rolling, ROLLING), balance.frees, balance.resets_ms) == ((100, 0, 7), (), None)
        assert settled(rolling, late, 6).late  # nothing to take back
        settled(rolling, under_way, 4)
        assert spent(rolling) == 10
        clock.advance(HOUR + PART)
        assert spent(rolling) == 0

    def test_another_limit_keeps_what_was_spent_and_when_it_falls_out(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        spend(rolling, clock, 30)
        before = now(rolling, ROLLING)
        balance = rolling.set_budget(ROLLING, Budget(40, "hourly", rolling=True))
        assert (balance.limit_nanos, balance.spent_nanos, balance.frees) == (40, 30, before.frees)
        assert (balance.rolling, balance.duration, balance.starts_ms) == (True, "hourly", before.starts_ms)

    @pytest.mark.parametrize("asked", [Budget(40, "daily", rolling=True), Budget(40), Budget(40, "hourly")])
    def test_it_rolls_over_the_same_duration_as_long_as_it_lives(
        self, rolling: Store, clock: FakeClock, asked: Budget
    ) -> None:
        spend(rolling, clock, 30)
        balance = rolling.set_budget(ROLLING, asked)
        assert (balance.rolling, balance.duration, balance.limit_nanos) == (True, "hourly", 40)
        clock.advance(HOUR + PART)
        assert money(rolling, ROLLING) == (40, 0, 0)

    def test_one_with_windows_does_not_begin_to_roll(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100, duration="hourly")
        balance = store.set_budget(USER, Budget(50, "hourly", rolling=True))
        assert (balance.rolling, balance.resets_ms) == (False, in_seconds(clock, HOUR))

    def test_a_hold_of_a_former_life_is_not_booked_on_the_next(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        budget(rolling, 100, PROJECT)
        one = granted(rolling, hold(clock, 30, ROLLING, PROJECT))
        rolling.delete(ROLLING)
        rolling.set_budget(ROLLING, Budget(100, "hourly", rolling=True))
        settled(rolling, one, 20)
        assert (money(rolling, ROLLING), money(rolling, PROJECT)) == ((100, 0, 0), (100, 20, 0))

    # Grants and thresholds

    def test_grants_end_by_themselves(self, rolling: Store, clock: FakeClock) -> None:
        raised(rolling, 50, in_seconds(clock, 600), account=ROLLING)
        spend(rolling, clock, 130)
        assert limit(rolling, ROLLING) == 150
        clock.advance(600)
        assert money(rolling, ROLLING) == (100, 130, 0)

    def test_a_threshold_is_told_again_after_spend_has_fallen_below_it(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        assert spend(rolling, clock, 50, (50, 100)) == [50]
        clock.advance(HOUR / 2)
        assert spend(rolling, clock, 20, (50, 100)) == []
        clock.advance(HOUR / 2 + PART)
        assert spend(rolling, clock, 29, (50, 100)) == []
        assert spend(rolling, clock, 1, (50, 100)) == [50]
        assert spend(rolling, clock, 50, (50, 100)) == [100]

    def test_a_threshold_that_stays_reached_is_not_told_again(self, rolling: Store, clock: FakeClock) -> None:
        spend(rolling, clock, 20)
        clock.advance(HOUR / 2)
        assert spend(rolling, clock, 60, (50,)) == [50]
        clock.advance(HOUR / 2 + PART)
        assert spent(rolling) == 60
        assert spend(rolling, clock, 1, (50,)) == []

    def test_whether_one_stays_reached_is_judged_by_the_limit_without_grants_that_have_ended(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        spend(rolling, clock, 20)
        clock.advance(HOUR / 2)
        raised(rolling, 100, in_seconds(clock, HOUR / 2), account=ROLLING)
        assert spend(rolling, clock, 90, (50,)) == [50]
        clock.advance(HOUR / 2 + PART)  # the grant ends, the 20 fall out, and 90 of 100 are spent
        assert spend(rolling, clock, 1, (50,)) == []

    # Clocks that jump

    def test_a_clock_that_jumps_back_books_where_it_falls_out_no_earlier_than_what_was_booked_before(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        spend(rolling, clock, 10)
        ((at, _),) = now(rolling, ROLLING).frees
        clock.advance(-10 * PART)
        spend(rolling, clock, 5)
        assert now(rolling, ROLLING).frees == ((at, 15),)
        clock.set(at)
        assert spent(rolling) == 0

    def test_what_has_fallen_out_does_not_come_back_with_a_clock_that_jumps_back(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        spend(rolling, clock, 10)
        clock.advance(HOUR + PART)
        assert spent(rolling) == 0
        clock.advance(-HOUR)
        assert spent(rolling) == 0
        spend(rolling, clock, 5)
        clock.advance(HOUR)
        assert spent(rolling) == 5
        clock.advance(PART)
        assert spent(rolling) == 0

    # When an amount fits

    def test_it_is_told_when_an_amount_fits(self, rolling: Store, clock: FakeClock) -> None:
        for cost in (10, 20, 60):
            spend(rolling, clock, cost)
            clock.advance(PART)
        balance = now(rolling, ROLLING)
        first, second, third = (at for at, _ in balance.frees)
        assert balance.fits_at(10) is None  # it fits now
        assert [balance.fits_at(amount) for amount in (11, 20, 21, 40, 41, 100, 101)] == [
            first, first, second, second, third, third, None,
        ]  # fmt: skip
        for at, amount in ((first, 20), (second, 40)):
            clock.set(at - 1)
            assert isinstance(rolling.reserve(hold(clock, amount, ROLLING)), Denied)
            clock.set(at)
            rolling.settle(granted(rolling, hold(clock, amount, ROLLING)), VOID)

    def test_of_what_calls_under_way_hold_nobody_can_say_when_it_fits(
        self, rolling: Store, clock: FakeClock
    ) -> None:
        spend(rolling, clock, 40)
        granted(rolling, hold(clock, 50, ROLLING))
        balance = now(rolling, ROLLING)
        assert balance.fits_at(50) == balance.resets_ms
        assert balance.fits_at(51) is None
