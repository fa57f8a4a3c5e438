"""Laws of time: expiries, late settles, windows, clocks that jump."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from budgetguard.core.holds import VOID, Booked, Denied, Expiry, Granted
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    PROJECT,
    TTL,
    USER,
    ContractBase,
    budget,
    granted,
    hold,
    money,
    now,
    settled,
)
from budgetguard.testing.clock import FakeClock

DAY = 86_400


class TimeLaws(ContractBase):
    """Laws 4, 6 and 9."""

    # Law 6: what expires is booked as the hold says, is counted, and is told

    @pytest.mark.parametrize("on_expiry", [0, 25, 60])
    def test_a_hold_that_nobody_ends_books_what_it_carries_and_is_counted(
        self, store: Store, clock: FakeClock, on_expiry: int
    ) -> None:
        budget(store, 100)
        granted(store, hold(clock, 60, on_expiry=on_expiry))
        clock.advance(TTL / 1000 - 0.001)
        assert money(store) == (100, 0, 60)
        clock.advance(0.001)
        assert money(store) == (100, on_expiry, 0)
        balance = now(store)
        assert (balance.expiries, balance.expired_nanos, balance.open_holds) == (1, on_expiry, 0)

    def test_an_expiry_books_on_every_account_of_the_hold_at_once(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        budget(store, 1_000, PROJECT)
        granted(store, hold(clock, 60, USER, PROJECT, on_expiry=25))
        clock.advance(TTL / 1000)
        assert money(store, PROJECT) == (1_000, 25, 0)
        assert money(store, USER) == (100, 25, 0)
        assert (now(store, USER).expiries, now(store, PROJECT).expiries) == (1, 1)

    def test_an_expiry_makes_room_for_the_next_hold(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        lost = granted(store, hold(clock, 60, on_expiry=25))
        clock.advance(TTL / 1000)
        answer = store.reserve(hold(clock, 75))
        told = Expiry(lost.id, (USER,), amount=60, booked=25, user="1", model="gpt-4o")
        assert answer == Granted((USER,), expired=(told,))
        assert money(store) == (100, 25, 75)

    def test_each_expiry_is_told_once_whoever_finds_it(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        told: list[str] = []
        store.on_expiry(lambda expiry: told.append(expiry.hold_id))
        if other is not store:
            other.on_expiry(lambda expiry: told.append(expiry.hold_id))
        finders: dict[str, Callable[[], object]] = {
            "read": lambda: now(other),
            "list": lambda: list(store.list("user")),
            "set_budget": lambda: budget(other, 10_000),
            "reset": lambda: store.reset(USER),
            "holds": lambda: list(other.holds()),
            "holds of one": lambda: list(store.holds(USER)),
            "calls": lambda: list(other.calls()),
            "delete": lambda: store.delete(USER),
        }
        budget(store, 10_000)
        lost = []
        for find in finders.values():
            lost.append(granted(store, hold(clock, 10)).id)
            clock.advance(TTL / 1000)
            find()
            if store.read(USER) is not None:
                now(other)
            assert told == lost

    def test_reserve_and_settle_answer_with_the_expiries_that_they_find(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        first = granted(store, hold(clock, 10))
        clock.advance(1)
        second = granted(store, hold(clock, 10))
        clock.advance(TTL / 1000 - 1)
        refused = store.reserve(hold(clock, 1_000))
        assert isinstance(refused, Denied)
        assert [expiry.hold_id for expiry in refused.expired] == [first.id]
        third = granted(store, hold(clock, 10))
        clock.advance(1)
        assert [expiry.hold_id for expiry in settled(store, third, 5).expired] == [second.id]

    def test_a_refusal_for_an_unknown_account_swallows_no_expiry(
        self, store: Store, clock: FakeClock
    ) -> None:
        told: list[str] = []
        store.on_expiry(lambda expiry: told.append(expiry.hold_id))
        budget(store, 100)
        lost = granted(store, hold(clock, 10))
        clock.advance(TTL / 1000)
        store.reserve(hold(clock, 10, USER, "user:nobody"))
        now(store)
        assert told == [lost.id]

    # Law 4: late settles

    @pytest.mark.parametrize("seen", [True, False], ids=["expiry seen", "expiry not seen"])
    @pytest.mark.parametrize("cost", [0, 10, 90])
    def test_a_late_settle_books_once_in_place_of_the_expiry(
        self, store: Store, other: Store, clock: FakeClock, cost: int, seen: bool
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60, on_expiry=25))
        clock.advance(TTL / 1000)
        if seen:
            assert money(store) == (100, 25, 0)
        assert settled(store, call, cost) == Booked(cost, late=seen)
        assert money(store) == (100, cost, 0)
        assert (now(store).expiries, now(store).expired_nanos) == (0, 0)
        assert settled(other, call, cost).repeated
        assert money(store) == (100, cost, 0)

    def test_a_late_settle_takes_back_the_expiry_of_each_account(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        budget(store, 1_000, PROJECT)
        call = granted(store, hold(clock, 60, USER, PROJECT))
        clock.advance(TTL / 1000)
        now(store, PROJECT)
        settled(store, call, 10)
        assert (money(store), money(store, PROJECT)) == ((100, 10, 0), (1_000, 10, 0))

    def test_a_late_void_takes_the_expiry_back(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        clock.advance(TTL / 1000)
        now(store)
        assert store.settle(call, VOID) == Booked(0, late=True)
        assert money(store) == (100, 0, 0)

    def test_a_late_settle_after_a_reset_takes_back_only_what_is_still_in_the_sum(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        clock.advance(TTL / 1000)
        now(store)
        store.reset(USER)
        settled(store, call, 10)
        assert money(store) == (100, 10, 0)
        assert now(store).expiries == 0

    # Law 9: windows end by themselves

    def test_a_window_that_is_over_is_over_for_every_verb_with_no_job_having_run(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100, duration="daily")
        settled(store, granted(store, hold(clock, 100)), 100)
        assert isinstance(store.reserve(hold(clock, 1)), Denied)
        clock.advance(DAY - 0.001)
        assert money(store) == (100, 100, 0)
        clock.advance(0.001)
        assert [b.spent_nanos for b in store.list()] == [0]
        assert money(store) == (100, 0, 0)
        assert now(store).starts_ms == clock()
        clock.advance(10 * DAY)
        settled(store, granted(store, hold(clock, 100)), 100)
        assert now(store).starts_ms == clock()

    def test_reserve_sees_that_the_window_is_over_without_a_read(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100, duration="daily")
        settled(store, granted(store, hold(clock, 100)), 100)
        clock.advance(3 * DAY)
        granted(store, hold(clock, 100))

    def test_a_hold_of_a_window_that_is_over_weighs_and_books_on_it_alone(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100, duration="daily")
        early = granted(store, hold(clock, 60, ttl=7 * DAY * 1000))
        clock.advance(DAY)
        assert money(store) == (100, 0, 0)
        granted(store, hold(clock, 100))
        settled(store, early, 60)
        assert money(store) == (100, 0, 100)

    @pytest.mark.parametrize("seen", [True, False], ids=["expiry seen", "expiry not seen"])
    def test_a_settle_later_than_expiry_and_window_changes_nothing_of_the_new_window(
        self, store: Store, clock: FakeClock, seen: bool
    ) -> None:
        budget(store, 100, duration="daily")
        call = granted(store, hold(clock, 60))
        clock.advance(TTL / 1000)
        if seen:
            assert money(store) == (100, 60, 0)
        clock.advance(DAY)
        settled(store, granted(store, hold(clock, 5)), 5)
        settled(store, call, 40)
        assert money(store) == (100, 5, 0)
        assert now(store).expiries == 0

    def test_a_hold_on_accounts_with_different_windows_books_where_its_window_still_runs(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100, USER, "daily")
        budget(store, 1_000, PROJECT, "weekly")
        call = granted(store, hold(clock, 60, USER, PROJECT, ttl=7 * DAY * 1000))
        clock.advance(DAY)
        settled(store, call, 40)
        assert (money(store), money(store, PROJECT)) == ((100, 0, 0), (1_000, 40, 0))

    def test_an_expiry_after_its_window_is_booked_where_the_window_still_runs(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100, USER, "daily")
        budget(store, 1_000, PROJECT, "weekly")
        granted(store, hold(clock, 60, USER, PROJECT, on_expiry=25))
        clock.advance(DAY)
        assert (money(store), money(store, PROJECT)) == ((100, 0, 0), (1_000, 25, 0))
        assert (now(store).expiries, now(store, PROJECT).expiries) == (0, 1)

    def test_a_clock_that_jumps_back_brings_no_finished_window_back(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100, duration="daily")
        settled(store, granted(store, hold(clock, 80)), 80)
        clock.advance(DAY)
        settled(store, granted(store, hold(clock, 30)), 30)
        started = now(store).starts_ms
        clock.advance(-DAY / 2)
        assert money(store) == (100, 30, 0)
        settled(store, granted(store, hold(clock, 70)), 70)
        assert isinstance(store.reserve(hold(clock, 1)), Denied)
        clock.advance(DAY / 2)
        assert money(store) == (100, 100, 0)
        assert now(store).starts_ms == started

    def test_a_clock_that_jumps_back_expires_nothing_early(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        granted(store, hold(clock, 60))
        clock.advance(-3 * DAY)
        assert money(store) == (100, 0, 60)
