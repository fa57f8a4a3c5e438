"""Laws of the shadow: an account that refuses nothing, and says what it would have refused."""

from __future__ import annotations

from typing import Final

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import VOID, Booked, Charge, Denied, Granted, Settlement
from budgetguard.core.money import MAX_NANOS, MAX_SUM
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    TTL,
    USER,
    ContractBase,
    budget,
    denied,
    granted,
    hold,
    money,
    record_of,
    settled,
)
from budgetguard.testing.clock import FakeClock

REQUESTS: Final = "labels:@unit=requests&user=1"


class ShadowLaws(ContractBase):
    """An account in the shadow refuses nothing, and says what it would have refused."""

    def test_it_lets_through_what_it_would_refuse_and_notes_it(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        budget(store, 5, REQUESTS)
        units = {"requests": 6}
        assert isinstance(store.reserve(hold(clock, 1, REQUESTS, units=units)), Denied)
        one = hold(clock, 10, USER, Charge(REQUESTS, shadow=True), units=units)
        answer = store.reserve(one)
        assert isinstance(answer, Granted)
        assert answer.accounts == (USER, REQUESTS)
        (standing,) = answer.shadowed
        assert (standing.account, standing.available_nanos) == (REQUESTS, 5)
        assert record_of(store, one).shadowed == (REQUESTS,)
        assert money(store, REQUESTS) == (5, 0, 6)
        settled(store, one, 7, units=units)
        assert record_of(store, one).shadowed == (REQUESTS,)
        assert (money(store), money(store, REQUESTS)) == ((100, 7, 0), (5, 6, 0))

    def test_what_it_would_grant_is_not_noted(self, store: Store, clock: FakeClock) -> None:
        budget(store, 5)
        one = hold(clock, 5, Charge(USER, shadow=True))
        assert store.reserve(one) == Granted((USER,))
        assert record_of(store, one).shadowed == ()
        # Nor what costs nothing, on an account that has too little.
        assert store.reserve(hold(clock, 0, Charge(USER, shadow=True))) == Granted((USER,))

    def test_another_account_refuses_all_the_same(self, store: Store, clock: FakeClock) -> None:
        budget(store, 5)
        budget(store, 5, "user:2")
        charges = (Charge(USER, shadow=True), Charge("user:2"))
        assert denied(store, hold(clock, 6, *charges)).account == "user:2"
        assert denied(store, hold(clock, 6, *reversed(charges))).account == "user:2"
        assert (money(store), money(store, "user:2")) == ((5, 0, 0), (5, 0, 0))
        assert list(store.calls()) == []

    def test_several_are_noted_in_the_order_of_the_charges(self, store: Store, clock: FakeClock) -> None:
        for name in (USER, "user:2", "user:3"):
            budget(store, 5, name)
        one = hold(clock, 6, *(Charge(f"user:{number}", shadow=True) for number in (3, 1, 2)))
        answer = store.reserve(one)
        assert isinstance(answer, Granted)
        noted = ["user:3", USER, "user:2"]
        assert [balance.account for balance in answer.shadowed] == noted
        assert list(record_of(store, one).shadowed) == noted

    def test_it_lets_through_as_an_expiry_and_a_void_are_booked(self, store: Store, clock: FakeClock) -> None:
        budget(store, 5)
        over = [granted(store, hold(clock, 6, Charge(USER, shadow=True))) for _ in range(2)]
        store.settle(over[0], VOID)
        clock.advance(TTL / 1000)
        assert money(store) == (5, 6, 0)
        assert settled(store, over[1], 2).late
        assert money(store) == (5, 2, 0)

    def test_a_repeated_hold_is_granted_as_before(self, store: Store, clock: FakeClock) -> None:
        budget(store, 5)
        one = granted(store, hold(clock, 6, Charge(USER, shadow=True)))
        assert store.reserve(one) == Granted((USER,), repeated=True)

    def test_a_limit_pinned_by_the_call_is_what_it_is_judged_by(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        one = hold(clock, 6, Charge(USER, budget=Budget(5), pinned=True, shadow=True))
        answer = store.reserve(one)
        assert isinstance(answer, Granted)
        assert [balance.limit_nanos for balance in answer.shadowed] == [5]
        assert money(store) == (5, 0, 6)

    def test_one_that_does_not_exist_is_made_passed_over_or_unknown_as_any(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        one = hold(
            clock, 6, USER, Charge("run:1", budget=Budget(5), shadow=True), Charge("run:2", shadow=True)
        )
        answer = store.reserve(one)
        assert isinstance(answer, Granted)
        assert [balance.account for balance in answer.shadowed] == ["run:1"]
        assert answer.accounts == (USER, "run:1")

    def test_by_the_rules_of_a_budget_that_makes_accounts_one_that_exists_is_in_no_shadow(
        self, store: Store, clock: FakeClock
    ) -> None:
        shadow = Charge(USER, budget=Budget(5, rules="{}"), shadow=True)
        one = store.reserve(hold(clock, 6, shadow))
        assert isinstance(one, Granted)
        assert [balance.account for balance in one.shadowed] == [USER], "it was made by that budget"
        store.delete(USER)
        budget(store, 5)  # somebody has set one of its own, which has no rules
        assert isinstance(store.reserve(hold(clock, 6, shadow)), Denied)

    def test_beyond_what_every_store_can_count_it_refuses_too(self, store: Store, clock: FakeClock) -> None:
        budget(store, 5)
        shadow = Charge(USER, shadow=True)
        for _ in range(MAX_SUM // MAX_NANOS):
            settled(store, granted(store, hold(clock, MAX_NANOS, shadow)), MAX_NANOS)
        assert isinstance(store.reserve(hold(clock, MAX_NANOS, shadow)), Denied)
        settled(store, granted(store, hold(clock, 1, shadow)), 1)

    def test_settlements_of_what_was_let_through_announce_thresholds(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 5)
        answer = store.settle(
            granted(store, hold(clock, 6, Charge(USER, shadow=True))), Settlement(6, thresholds=(100,))
        )
        assert isinstance(answer, Booked)
        assert [one.threshold for one in answer.crossings] == [100]
