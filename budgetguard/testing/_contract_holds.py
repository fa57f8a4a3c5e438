"""Laws of holds: what is granted, what is refused, what is booked, and how often."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import (
    VOID,
    Booked,
    Charge,
    Denied,
    Granted,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.money import MAX_NANOS, MAX_SUM
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


class HoldLaws(ContractBase):
    """Laws 1, 2, 3, 5, 7, and the holds of several accounts."""

    # Law 1: granted only if the money is there, on all accounts or none

    def test_a_hold_that_takes_the_last_nano_is_granted(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        granted(store, hold(clock, 60))
        granted(store, hold(clock, 40))
        assert money(store) == (100, 0, 100)

    def test_one_nano_above_what_is_available_is_refused(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        settled(store, granted(store, hold(clock, 60)), 30)
        granted(store, hold(clock, 50))
        assert isinstance(store.reserve(hold(clock, 21)), Denied)
        granted(store, hold(clock, 20))

    @pytest.mark.parametrize("poor", [USER, PROJECT])
    def test_one_poor_account_refuses_for_all(self, store: Store, clock: FakeClock, poor: str) -> None:
        for account in (USER, PROJECT):
            budget(store, 9 if account == poor else 100, account)
        answer = store.reserve(hold(clock, 10, USER, PROJECT))
        assert isinstance(answer, Denied)
        assert answer.balance.account == poor
        assert money(store, USER)[1:] == money(store, PROJECT)[1:] == (0, 0)

    def test_a_hold_is_taken_from_each_account_and_settled_on_each(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        budget(store, 1_000, PROJECT)
        call = granted(store, hold(clock, 10, USER, PROJECT))
        assert (money(store), money(store, PROJECT)) == ((100, 0, 10), (1_000, 0, 10))
        settled(store, call, 7)
        assert (money(store), money(store, PROJECT)) == ((100, 7, 0), (1_000, 7, 0))

    def test_an_account_named_twice_is_charged_once(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60, USER, USER))
        assert money(store) == (100, 0, 60)
        settled(store, call, 50)
        assert money(store) == (100, 50, 0)

    def test_threads_together_never_get_more_than_there_is(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        gate = threading.Barrier(16)

        def ask(_: int) -> bool:
            gate.wait()
            return isinstance(store.reserve(hold(clock, 10)), Granted)

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(ask, range(16))) == 10
        assert money(store) == (100, 0, 100)

    def test_what_costs_nothing_is_granted_on_an_empty_and_on_an_overdrawn_budget(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 0)
        granted(store, hold(clock, 0))
        settled(store, granted(store, hold(clock, 0)), 5)
        assert now(store).available_nanos == -5
        granted(store, hold(clock, 0))

    def test_an_account_without_a_limit_counts_and_refuses_nothing(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, None)
        settled(store, granted(store, hold(clock, 10**15)), 10**15)
        assert money(store) == (None, 10**15, 0)
        assert now(store).available_nanos is None

    # Which accounts a hold is taken from

    def test_a_required_account_that_does_not_exist_is_named(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        assert store.reserve(hold(clock, 10, USER, "user:nobody")) == UnknownAccount("user:nobody")
        assert money(store) == (100, 0, 0)

    def test_an_account_that_need_not_exist_is_passed_over(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        answer = store.reserve(hold(clock, 10, USER, Charge(PROJECT)))
        assert answer == Granted((USER,))
        assert store.read(PROJECT) is None

    def test_a_hold_on_no_account_that_exists_is_unlimited_and_leaves_no_trace(
        self, store: Store, clock: FakeClock
    ) -> None:
        assert store.reserve(hold(clock, 10, Charge(USER), Charge(PROJECT))) == Unlimited()
        assert not list(store.list())
        assert not list(store.calls())

    def test_a_charge_makes_the_account_that_it_has_a_budget_for(
        self, store: Store, clock: FakeClock
    ) -> None:
        charge = Charge(USER, required=True, budget=Budget(100, "daily"))
        granted(store, hold(clock, 10, charge))
        assert money(store) == (100, 0, 10)
        assert now(store).duration == "daily"

    def test_a_refused_hold_makes_no_account(self, store: Store, clock: FakeClock) -> None:
        charge = Charge(USER, budget=Budget(100))
        assert isinstance(store.reserve(hold(clock, 101, charge)), Denied)
        assert store.read(USER) is None

    def test_a_charge_leaves_the_budget_of_an_account_that_exists(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        granted(store, hold(clock, 10, Charge(USER, budget=Budget(5))))
        assert money(store) == (100, 0, 10)

    def test_a_pinned_charge_replaces_the_limit_when_granted_and_not_when_refused(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        raised = Charge(USER, budget=Budget(500), pinned=True)
        assert isinstance(store.reserve(hold(clock, 501, raised)), Denied)
        assert money(store) == (100, 0, 0)
        granted(store, hold(clock, 400, raised))
        assert money(store) == (500, 0, 400)
        lowered = Charge(USER, budget=Budget(300), pinned=True)
        assert isinstance(store.reserve(hold(clock, 1, lowered)), Denied)
        assert money(store) == (500, 0, 400)

    def test_a_refused_pin_is_not_kept_along_with_what_time_has_changed(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        granted(store, hold(clock, 60, on_expiry=25, ttl=1_000))
        clock.advance(1)
        lowered = Charge(USER, budget=Budget(30), pinned=True)
        answer = store.reserve(hold(clock, 10, lowered))
        assert isinstance(answer, Denied)
        assert answer.balance.limit_nanos == 30
        assert money(store) == (100, 25, 0)

    # Law 2: reserve once per id

    def test_a_hold_sent_twice_is_granted_twice_and_taken_once(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        assert other.reserve(call) == Granted((USER,), repeated=True)
        assert money(store) == (100, 0, 60)

    def test_a_hold_that_has_ended_is_granted_again_without_effect(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        settled(store, call, 100)
        assert store.reserve(call) == Granted((USER,), repeated=True)
        assert money(store) == (100, 100, 0)

    def test_a_refused_hold_may_be_asked_for_again(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        call = hold(clock, 150)
        assert isinstance(store.reserve(call), Denied)
        budget(store, 200)
        assert store.reserve(call) == Granted((USER,))

    # Law 3: settle once per id

    def test_a_settle_counts_once_from_wherever_it_is_sent(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        assert settled(store, call, 40) == Booked(40)
        assert settled(other, call, 40) == Booked(0, repeated=True)
        assert settled(store, call, 7) == Booked(0, repeated=True)
        assert other.settle(call, VOID) == Booked(0, repeated=True)
        assert money(store) == (100, 40, 0)

    def test_a_settle_sent_by_many_threads_counts_once(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        gate = threading.Barrier(8)

        def settle(_: int) -> Booked:
            gate.wait()
            return settled(store, call, 40)

        with ThreadPoolExecutor(8) as pool:
            assert sorted(answer.booked for answer in pool.map(settle, range(8))) == [0] * 7 + [40]
        assert money(store) == (100, 40, 0)

    def test_a_void_gives_everything_back_and_a_later_settle_changes_nothing(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        assert store.settle(call, VOID) == Booked(0)
        assert money(store) == (100, 0, 0)
        assert settled(store, call, 40).repeated
        assert money(store) == (100, 0, 0)

    @pytest.mark.parametrize("cost", [0, 1, 59, 60, 61])
    def test_nothing_stays_held_once_a_call_is_settled(
        self, store: Store, clock: FakeClock, cost: int
    ) -> None:
        budget(store, 100)
        settled(store, granted(store, hold(clock, 60)), cost)
        assert money(store) == (100, cost, 0)
        assert now(store).open_holds == 0

    def test_a_settle_of_a_hold_that_was_never_reserved_is_booked_once(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = hold(clock, 60)
        assert settled(store, call, 40) == Booked(40)
        assert settled(store, call, 40) == Booked(0, repeated=True)
        assert money(store) == (100, 40, 0)

    def test_a_settle_on_an_unknown_required_account_books_nothing(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        answer = store.settle(hold(clock, 60, USER, "user:nobody"), Settlement(40))
        assert answer == UnknownAccount("user:nobody")
        assert money(store) == (100, 0, 0)

    # Law 5: a settle above the hold books in full

    def test_a_settle_above_the_hold_and_the_limit_books_in_full(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        settled(store, granted(store, hold(clock, 60)), 250)
        assert money(store) == (100, 250, 0)
        assert now(store).available_nanos == -150
        assert isinstance(store.reserve(hold(clock, 1)), Denied)

    # Law 7: a refusal changes nothing and says why

    def test_a_refusal_changes_nothing_and_gives_the_numbers(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100, duration="daily")
        settled(store, granted(store, hold(clock, 60)), 30)
        granted(store, hold(clock, 50))
        before = now(store)
        clock.advance(5)
        answer = store.reserve(hold(clock, 21))
        assert isinstance(answer, Denied)
        assert answer.balance == before == now(store)
        assert (before.limit_nanos, before.spent_nanos, before.held_nanos) == (100, 30, 50)
        assert before.resets_ms == before.starts_ms + 86_400_000
        assert len(list(store.calls())) == 2

    # Thresholds

    def test_a_threshold_is_announced_by_the_settle_that_reaches_it_and_never_again(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)

        def reached(by: Store, cost: int) -> list[int]:
            answer = settled(by, granted(by, hold(clock, 0)), cost, (50, 80, 100))
            assert all(crossing.account == USER for crossing in answer.crossings)
            return [crossing.threshold for crossing in answer.crossings]

        assert reached(store, 49) == []
        assert reached(other, 1) == [50]
        assert reached(store, 1) == []
        assert reached(other, 60) == [80, 100]
        assert reached(store, 60) == []

    def test_a_threshold_is_announced_again_in_the_next_window_and_after_a_reset(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100, duration="daily")

        def reached() -> list[int]:
            answer = settled(store, granted(store, hold(clock, 0)), 60, (50,))
            return [crossing.balance.spent_nanos for crossing in answer.crossings]

        assert reached() == [60]
        clock.advance(86_400)
        assert reached() == [60]
        store.reset(USER)
        assert reached() == [60]
        assert reached() == []

    def test_every_account_of_a_hold_announces_its_own_thresholds(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        budget(store, 1_000, PROJECT)
        budget(store, None, "run:1")
        call = granted(store, hold(clock, 0, USER, PROJECT, "run:1"))
        answer = settled(store, call, 500, (50, 100))
        found = [(crossing.account, crossing.threshold) for crossing in answer.crossings]
        assert sorted(found) == [(PROJECT, 50), (USER, 50), (USER, 100)]

    def test_a_void_announces_nothing_that_was_announced(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        settled(store, granted(store, hold(clock, 0)), 60, (50,))
        assert store.settle(granted(store, hold(clock, 1)), VOID) == Booked(0)

    # Sums have a bound

    def test_what_is_spent_stops_at_a_bound_where_it_can_be_read_reset_and_deleted(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        budget(store, MAX_NANOS)
        budget(store, None, "project:p")
        for _ in range(MAX_SUM // MAX_NANOS + 2):
            settled(store, hold(clock, 0, USER, "project:p"), MAX_NANOS)
        for account in (USER, "project:p"):
            assert now(other, account).spent_nanos == MAX_SUM
            assert now(other, account).models == {"gpt-4o": MAX_SUM}
            assert isinstance(store.reserve(hold(clock, 1, account)), Denied)
            granted(store, hold(clock, 0, account))
        assert [b.account for b in store.list()] == ["project:p", USER]
        assert settled(store, hold(clock, 0), 1).booked == 1
        assert now(store).spent_nanos == MAX_SUM
        reset = store.reset(USER)
        assert reset is not None
        assert (reset.spent_nanos, reset.models) == (0, {})
        settled(store, granted(store, hold(clock, 7)), 7)
        assert money(other) == (MAX_NANOS, 7, 0)
        assert store.delete("project:p")
        assert other.read("project:p") is None

    def test_no_more_is_held_than_can_be_counted_without_a_limit_either(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, None)
        count = MAX_SUM // MAX_NANOS
        calls = [granted(store, hold(clock, MAX_NANOS)) for _ in range(count)]
        answer = store.reserve(hold(clock, MAX_NANOS))
        assert isinstance(answer, Denied)
        assert answer.balance.limit_nanos == MAX_SUM
        assert money(store) == (None, 0, count * MAX_NANOS)
        clock.advance(TTL)
        assert money(store) == (None, count * MAX_NANOS, 0)
        for call in calls:
            settled(store, call, 1)
        assert money(store) == (None, count, 0)
