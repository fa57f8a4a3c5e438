"""Laws of grants: raises of a limit that count once and end by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from budgetguard.core.accounts import Budget, Grant
from budgetguard.core.holds import Charge
from budgetguard.core.money import MAX_NANOS
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    PROJECT,
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
DAY: Final = 86_400
REQUESTS: Final = "labels:@unit=requests&user=1"


class GrantLaws(ContractBase):
    """A grant raises the limit until some time, or for good, once per id."""

    def test_a_grant_raises_what_may_be_spent_and_is_shown(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        until = in_seconds(clock, HOUR)
        balance = raised(store, 50, until)
        assert (balance.limit_nanos, balance.available_nanos) == (150, 150)
        assert balance.grants == (Grant("g", 50, until),)
        assert now(store) == balance
        granted(store, hold(clock, 150))
        assert denied(store, hold(clock, 1)).limit_nanos == 150

    @pytest.mark.parametrize("until", [DAY, None])
    def test_a_grant_counts_once_however_often_it_is_sent(
        self, store: Store, other: Store, clock: FakeClock, until: int | None
    ) -> None:
        budget(store, 100)
        ends = None if until is None else in_seconds(clock, until)
        for sender in (store, other, store):
            assert raised(sender, 50, ends).limit_nanos == 150
            clock.advance(60)
        assert raised(other, 7, ends, "another").limit_nanos == 157

    def test_several_grants_add_up_and_each_ends_by_itself(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        for number, seconds in enumerate((30, 10, 20)):
            raised(store, 10**number, in_seconds(clock, seconds), f"g{number}")
        assert limit(store) == 211
        assert [one.id for one in now(store).grants] == ["g0", "g1", "g2"]
        clock.advance(9.999)
        assert limit(store) == 211
        for expected, passed in ((201, 0.001), (101, 10), (100, 10)):
            clock.advance(passed)
            assert limit(store) == expected
        assert now(store).grants == ()

    @pytest.mark.parametrize(
        "find",
        [
            lambda store, _: store.read(USER).limit_nanos,
            lambda store, _: next(iter(store.list("user"))).limit_nanos,
            lambda store, clock: denied(store, hold(clock, 101)).limit_nanos,
            lambda store, _: store.set_budget(USER, Budget(100)).limit_nanos,
            lambda store, _: store.reset(USER).limit_nanos,
            lambda store, _: store.set_labels(USER, '{"team":["a"]}').limit_nanos,
        ],
        ids=["read", "list", "reserve", "set_budget", "reset", "set_labels"],
    )
    def test_it_has_ended_whoever_looks_first(
        self, store: Store, clock: FakeClock, find: Callable[[Store, FakeClock], int]
    ) -> None:
        budget(store, 100)
        raised(store, 50, in_seconds(clock, 10))
        clock.advance(10)
        assert find(store, clock) == 100
        balance = now(store)
        assert balance.grants == ()
        granted(store, hold(clock, 100, Charge(USER, revision=balance.document.revision)))

    def test_what_was_held_and_spent_on_a_grant_stays_when_it_ends(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        raised(store, 50, in_seconds(clock, 10))
        settled(store, granted(store, hold(clock, 80)), 80)
        under_way = granted(store, hold(clock, 70))
        clock.advance(10)
        assert (money(store), now(store).available_nanos) == ((100, 80, 70), -50)
        settled(store, under_way, 60)
        assert money(store) == (100, 140, 0)
        denied(store, hold(clock, 1))

    def test_a_grant_for_good_raises_the_budget_itself(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100, duration="hourly")
        balance = raised(store, 50, None)
        assert (balance.limit_nanos, balance.grants) == (150, ())
        clock.advance(400 * DAY)
        assert limit(store) == 150
        assert budget(store, 70).limit_nanos == 70

    def test_what_is_raised_for_good_counts_once_within_a_day(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        raised(store, 50, None)
        clock.advance(DAY - 1)
        assert raised(store, 50, None).limit_nanos == 150
        clock.advance(1)
        assert raised(store, 50, None).limit_nanos == 200

    def test_a_grant_for_good_stops_at_the_largest_limit(self, store: Store) -> None:
        budget(store, MAX_NANOS - 5)
        assert raised(store, MAX_NANOS, None).limit_nanos == MAX_NANOS

    def test_a_grant_beyond_the_largest_limit_is_there_while_it_lasts(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, MAX_NANOS)
        raised(store, MAX_NANOS, in_seconds(clock, 10))
        assert limit(store) == 2 * MAX_NANOS
        granted(store, hold(clock, MAX_NANOS))
        granted(store, hold(clock, MAX_NANOS))
        clock.advance(10)
        assert limit(store) == MAX_NANOS

    @pytest.mark.parametrize("until", [HOUR, None])
    def test_an_account_without_a_limit_stays_without_one(
        self, store: Store, clock: FakeClock, until: int | None
    ) -> None:
        budget(store, None)
        balance = raised(store, 50, None if until is None else in_seconds(clock, until))
        assert (balance.limit_nanos, balance.grants) == (None, ())
        assert budget(store, 100).limit_nanos == 100

    def test_a_grant_that_has_ended_already_raises_nothing(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        assert raised(store, 50, clock()).limit_nanos == 100
        assert raised(store, 50, clock() - 1).limit_nanos == 100
        assert raised(store, 50, clock() + 1).limit_nanos == 150

    def test_there_is_no_grant_on_an_account_that_does_not_exist(
        self, store: Store, clock: FakeClock
    ) -> None:
        assert store.grant(USER, Grant("g", 5, None)) is None
        assert store.read(USER) is None
        assert budget(store, 100).limit_nanos == 100
        raised(store, 50, in_seconds(clock, HOUR))
        store.delete(USER)
        assert budget(store, 100).limit_nanos == 100

    def test_grants_stay_in_force_when_the_budget_is_set_or_the_account_is_reset(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        raised(store, 50, in_seconds(clock, HOUR))
        assert budget(store, 10, duration="daily").limit_nanos == 60
        assert budget(store, None).limit_nanos is None
        assert budget(store, 20).limit_nanos == 70
        store.reset(USER)
        assert limit(store) == 70

    def test_a_windows_end_takes_no_grant_away(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100, duration="hourly")
        raised(store, 50, in_seconds(clock, 2 * HOUR + 1))
        settled(store, granted(store, hold(clock, 150)), 150)
        for _ in range(2):
            clock.advance(HOUR)
            assert money(store) == (150, 0, 0)
        clock.advance(1)
        assert money(store) == (100, 0, 0)

    def test_thresholds_are_of_the_limit_in_force(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        raised(store, 100, in_seconds(clock, 10))

        def reached(cost: int) -> list[int]:
            answer = settled(store, granted(store, hold(clock, 0)), cost, (50, 100))
            return [one.threshold for one in answer.crossings]

        assert reached(99) == []
        assert reached(1) == [50]
        clock.advance(10)
        assert reached(0) == [100]

    def test_a_limit_that_a_call_pins_is_what_it_is_judged_by(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        raised(store, 50, in_seconds(clock, 10))
        pinned = Charge(USER, budget=Budget(60), pinned=True)
        assert denied(store, hold(clock, 61, pinned)).limit_nanos == 60
        assert limit(store) == 150
        granted(store, hold(clock, 60, pinned))
        assert limit(store) == 110

    def test_grants_are_in_the_unit_of_the_account(self, store: Store, clock: FakeClock) -> None:
        budget(store, 1, REQUESTS)
        raised(store, 1, in_seconds(clock, 10), account=REQUESTS)
        for _ in range(2):
            granted(store, hold(clock, 5, REQUESTS, units={"requests": 1}))
        denied(store, hold(clock, 5, REQUESTS, units={"requests": 1}))

    def test_a_clock_that_jumps_back_brings_no_grant_back_that_was_seen_to_end(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        raised(store, 50, in_seconds(clock, 10))
        clock.advance(10)
        assert limit(store) == 100
        clock.advance(-10)
        assert limit(store) == 100

    def test_it_is_told_when_what_does_not_fit_now_will(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100, duration="hourly")
        raised(store, 50, in_seconds(clock, 600), "ends before")
        settled(store, granted(store, hold(clock, 120)), 120)
        balance = now(store)
        assert balance.fits_at(30) is None  # now
        assert balance.fits_at(31) == balance.resets_ms == in_seconds(clock, HOUR)
        assert balance.fits_at(100) == balance.resets_ms
        assert balance.fits_at(101) is None  # the grant is over by then
        raised(store, 7, in_seconds(clock, 2 * HOUR), "ends after")
        assert now(store).fits_at(107) == balance.resets_ms
        assert now(store).fits_at(108) is None
        assert budget(store, 100, PROJECT).fits_at(101) is None
