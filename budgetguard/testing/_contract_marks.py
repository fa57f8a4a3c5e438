"""Laws of marks: what is noted about a window is noted once in it, among all who note it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from budgetguard.core.accounts import Budget
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    TTL,
    USER,
    ContractBase,
    budget,
    granted,
    hold,
    now,
    settled,
)
from budgetguard.testing.clock import FakeClock


class MarkLaws(ContractBase):
    """Notes of a window."""

    def test_a_mark_is_new_once_a_window(self, store: Store, other: Store, clock: FakeClock) -> None:
        budget(store, 100, duration="hourly")
        for _ in range(3):
            assert [store.mark(USER, 0), other.mark(USER, 0), store.mark(USER, -1)] == [True, False, True]
            assert not other.mark(USER, -1)
            clock.advance(3_599.999)
            assert not store.mark(USER, 0)
            clock.advance(0.001)

    def test_it_is_new_again_after_a_reset_and_in_another_life(self, store: Store) -> None:
        budget(store, 100)
        assert (store.mark(USER, 0), store.mark(USER, 0)) == (True, False)
        store.reset(USER)
        assert (store.mark(USER, 0), store.mark(USER, 0)) == (True, False)
        budget(store, 50)
        assert not store.mark(USER, 0)
        store.delete(USER)
        budget(store, 100)
        assert store.mark(USER, 0)

    def test_of_an_account_that_does_not_exist_nothing_is_noted(self, store: Store) -> None:
        assert not store.mark(USER, 0)
        assert store.read(USER) is None
        budget(store, 100)
        assert store.mark(USER, 0)

    def test_marks_and_thresholds_leave_each_other_alone(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        assert store.mark(USER, -100)
        answer = settled(store, granted(store, hold(clock, 100)), 100, (50, 100))
        assert [one.threshold for one in answer.crossings] == [50, 100]
        assert not store.mark(USER, -100)
        assert store.mark(USER, -50)
        assert settled(store, granted(store, hold(clock, 0)), 1, (50, 100)).crossings == ()

    def test_one_of_many_who_note_it_at_once_is_the_first(self, store: Store, other: Store) -> None:
        budget(store, 100)
        with ThreadPoolExecutor(8) as pool:
            noted = pool.map(lambda number: (store, other)[number % 2].mark(USER, 0), range(16))
            assert sum(noted) == 1

    def test_on_a_rolling_account_it_is_new_again_once_all_has_fallen_out(
        self, store: Store, clock: FakeClock
    ) -> None:
        name = "labels:@rolling=hourly&user=1"
        store.set_budget(name, Budget(100, "hourly", rolling=True))
        settled(store, granted(store, hold(clock, 10, name)), 10)
        assert store.mark(name, 0)
        clock.advance(1_800)
        settled(store, granted(store, hold(clock, 10, name)), 10)
        clock.advance(1_860)
        assert not store.mark(name, 0)
        clock.advance(1_800)
        assert (store.mark(name, 0), store.mark(name, 0)) == (True, False)

    def test_it_changes_nothing_else_and_finds_what_has_expired(self, store: Store, clock: FakeClock) -> None:
        told: list[str] = []
        store.on_expiry(lambda expiry: told.append(expiry.hold_id))
        balance = budget(store, 100)
        assert store.mark(USER, 0)
        assert now(store) == balance
        lost = granted(store, hold(clock, 10))
        clock.advance(TTL / 1000)
        assert not store.mark(USER, 0)
        assert told == [lost.id]
