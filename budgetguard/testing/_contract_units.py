"""Laws of units: accounts that count tokens, requests or calls under way, beside those that count USD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import VOID, Booked, Charge, Denied, Granted, Hold
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
    now,
    record_of,
    settled,
)
from budgetguard.testing.clock import FakeClock

REQUESTS: Final = "labels:@unit=requests&user=1"
TOKENS: Final = "labels:@unit=tokens&user=1"
INPUT: Final = "labels:@unit=input_tokens&user=1"
OUTPUT: Final = "labels:@unit=output_tokens&user=1"
CONCURRENT: Final = "labels:@unit=concurrent&user=1"
OF_EACH_UNIT: Final = (USER, REQUESTS, TOKENS, INPUT, OUTPUT, CONCURRENT)

# A call of 2 to 7 tokens in and 30 out at most; if nobody ends it, 20 of those out are booked.
ASIDE: Final[Mapping[str, int | tuple[int, int]]] = {
    "requests": 1,
    "tokens": (37, 27),
    "input_tokens": (7, 7),
    "output_tokens": (30, 20),
    "concurrent": (1, 0),
}
COST: Final = {"requests": 1, "tokens": 14, "input_tokens": 5, "output_tokens": 9}


def call(
    clock: FakeClock, *accounts: str | Charge, units: Mapping[str, int | tuple[int, int]] = ASIDE
) -> Hold:
    """Make a hold of 60 Nanos, 25 of them booked if it expires, and of all units."""
    return hold(clock, 60, *(accounts or OF_EACH_UNIT), on_expiry=25, units=units)


def spent(store: Store) -> list[int]:
    """Return what was spent of each unit."""
    return [now(store, name).spent_nanos for name in OF_EACH_UNIT]


def held(store: Store) -> list[int]:
    """Return what is held of each unit."""
    return [now(store, name).held_nanos for name in OF_EACH_UNIT]


class UnitLaws(ContractBase):
    """Each account is charged in its own unit; all of them grant or none does."""

    @pytest.fixture
    def of_each(self, store: Store) -> Store:
        """Return the store with an account of each unit that has room for three calls or so."""
        for name in OF_EACH_UNIT:
            budget(store, 200, name)
        return store

    # What is set aside

    def test_each_account_sets_aside_its_own_unit(self, of_each: Store, clock: FakeClock) -> None:
        answer = of_each.reserve(call(clock))
        assert answer == Granted(OF_EACH_UNIT)
        assert held(of_each) == [60, 1, 37, 7, 30, 1]
        assert spent(of_each) == [0] * 6
        assert [now(of_each, name).open_holds for name in OF_EACH_UNIT] == [1] * 6

    @pytest.mark.parametrize(
        ("poor", "limit"),
        [(USER, 59), (REQUESTS, 0), (TOKENS, 36), (INPUT, 6), (OUTPUT, 29), (CONCURRENT, 0)],
    )
    def test_one_account_that_has_one_too_few_refuses_for_all_units(
        self, of_each: Store, clock: FakeClock, poor: str, limit: int
    ) -> None:
        budget(of_each, limit, poor)
        assert denied(of_each, call(clock)).account == poor
        assert held(of_each) == [0] * 6
        assert list(of_each.holds()) == []
        budget(of_each, limit + 1, poor)
        granted(of_each, call(clock))

    def test_the_first_poor_account_in_the_order_of_the_charges_is_named(
        self, of_each: Store, clock: FakeClock
    ) -> None:
        for poor in (TOKENS, CONCURRENT):
            budget(of_each, 0, poor)
        assert denied(of_each, call(clock)).account == TOKENS
        assert denied(of_each, call(clock, *reversed(OF_EACH_UNIT))).account == CONCURRENT

    def test_what_sets_nothing_of_its_unit_aside_is_not_refused_by_an_account(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        budget(store, 0, TOKENS)
        budget(store, 3, REQUESTS)
        settled(
            store, granted(store, hold(clock, 1, REQUESTS, units={"requests": 3})), 1, units={"requests": 9}
        )
        assert now(store, REQUESTS).available_nanos == -6
        free = granted(store, hold(clock, 60, USER, TOKENS, REQUESTS, units={"tokens": (0, 5)}))
        assert [now(store, name).open_holds for name in (USER, TOKENS, REQUESTS)] == [1] * 3
        assert denied(store, hold(clock, 1, USER, TOKENS, units={"tokens": 1})).account == TOKENS
        settled(store, free, 2, units={"tokens": 4})
        assert (money(store, TOKENS), money(store)) == ((0, 4, 0), (100, 2, 0))
        # And what costs no money is refused by no account of money.
        budget(store, 0)
        granted(store, hold(clock, 0, USER, REQUESTS))

    def test_an_account_of_a_unit_without_a_limit_counts_and_refuses_nothing(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, None, TOKENS)
        one = granted(store, hold(clock, 1, TOKENS, units={"tokens": 10**12}))
        settled(store, one, 1, units={"tokens": 10**12})
        assert money(store, TOKENS) == (None, 10**12, 0)

    def test_an_account_of_a_unit_is_made_with_its_budget_by_the_hold(
        self, store: Store, clock: FakeClock
    ) -> None:
        charge = Charge(REQUESTS, budget=Budget(2), required=True)
        for _ in range(2):
            granted(store, hold(clock, 0, charge, units={"requests": 1}))
        refused = denied(store, hold(clock, 0, charge, units={"requests": 1}))
        assert (refused.unit, refused.available_nanos) == ("requests", 0)
        granted(store, hold(clock, 0, Charge(REQUESTS, budget=Budget(3), pinned=True), units={"requests": 1}))
        assert money(store, REQUESTS) == (3, 0, 3)

    def test_a_balance_shows_counts_as_they_are_and_money_in_usd(self, store: Store) -> None:
        assert str(budget(store, 5, REQUESTS).limit) == "5"
        assert str(budget(store, 5_000_000_000).limit) == "5.00"
        assert [(one.account, one.unit) for one in store.list("labels")] == [(REQUESTS, "requests")]

    # How a call ends

    def test_a_settlement_books_each_unit(self, of_each: Store, clock: FakeClock) -> None:
        one = granted(of_each, call(clock))
        assert settled(of_each, one, 33, units=COST) == Booked(33)
        assert spent(of_each) == [33, 1, 14, 5, 9, 0]
        assert held(of_each) == [0] * 6
        assert settled(of_each, one, 40, units=COST).repeated
        assert spent(of_each) == [33, 1, 14, 5, 9, 0]
        assert dict(now(of_each, TOKENS).models) == {"gpt-4o": 14}
        assert record_of(of_each, one).units == {
            "requests": (1, 1, 1),
            "tokens": (37, 27, 14),
            "input_tokens": (7, 7, 5),
            "output_tokens": (30, 20, 9),
            "concurrent": (1, 0, 0),
        }

    def test_of_a_unit_that_a_settlement_does_not_tell_what_an_expiry_books_is_booked(
        self, of_each: Store, clock: FakeClock
    ) -> None:
        settled(of_each, granted(of_each, call(clock)), 33, units={"input_tokens": 0})
        assert spent(of_each) == [33, 1, 27, 0, 20, 0]

    def test_of_a_unit_that_was_not_set_aside_nothing_is_booked(
        self, of_each: Store, clock: FakeClock
    ) -> None:
        settled(of_each, granted(of_each, call(clock, units={"requests": 1})), 33, units=COST)
        assert spent(of_each) == [33, 1, 0, 0, 0, 0]

    def test_a_void_books_nothing_of_any_unit(self, of_each: Store, clock: FakeClock) -> None:
        one = granted(of_each, call(clock))
        of_each.settle(one, VOID)
        assert spent(of_each) == held(of_each) == [0] * 6
        assert {counts[2] for counts in record_of(of_each, one).units.values()} == {0}

    def test_an_expiry_books_of_each_unit_what_the_hold_says(self, of_each: Store, clock: FakeClock) -> None:
        one = granted(of_each, call(clock))
        clock.advance(TTL / 1000)
        assert spent(of_each) == [25, 1, 27, 7, 20, 0]
        assert held(of_each) == [0] * 6
        assert [now(of_each, name).expired_nanos for name in OF_EACH_UNIT] == [25, 1, 27, 7, 20, 0]
        assert [now(of_each, name).expiries for name in OF_EACH_UNIT] == [1] * 6
        assert record_of(of_each, one).units["output_tokens"] == (30, 20, 20)

    def test_a_late_settle_takes_back_of_each_unit_what_the_expiry_booked(
        self, of_each: Store, clock: FakeClock
    ) -> None:
        one = granted(of_each, call(clock))
        clock.advance(TTL / 1000)
        now(of_each)
        assert settled(of_each, one, 33, units=COST).late
        assert spent(of_each) == [33, 1, 14, 5, 9, 0]
        assert [now(of_each, name).expiries for name in OF_EACH_UNIT] == [0] * 6
        assert [now(of_each, name).expired_nanos for name in OF_EACH_UNIT] == [0] * 6
        assert record_of(of_each, one).units["tokens"] == (37, 27, 14)

    def test_a_late_void_takes_all_back(self, of_each: Store, clock: FakeClock) -> None:
        one = granted(of_each, call(clock))
        clock.advance(TTL / 1000)
        now(of_each)
        of_each.settle(one, VOID)
        assert spent(of_each) == [0] * 6

    def test_a_hold_that_was_never_reserved_is_booked_in_each_unit(
        self, of_each: Store, clock: FakeClock
    ) -> None:
        settled(of_each, call(clock), 33, units=COST)
        assert spent(of_each) == [33, 1, 14, 5, 9, 0]
        assert held(of_each) == [0] * 6

    def test_thresholds_are_of_each_accounts_own_unit(self, of_each: Store, clock: FakeClock) -> None:
        budget(of_each, 28, TOKENS)
        budget(of_each, 2, REQUESTS)
        found = settled(of_each, granted(of_each, call(clock, units=COST)), 0, (50, 100), COST).crossings
        assert {(one.account, one.threshold) for one in found} == {(TOKENS, 50), (REQUESTS, 50)}
        clock.advance(1)
        found = settled(of_each, granted(of_each, call(clock, units=COST)), 0, (50, 100), COST).crossings
        assert {(one.account, one.threshold) for one in found} == {(TOKENS, 100), (REQUESTS, 100)}

    def test_what_time_and_people_do_to_an_account_is_the_same_in_each_unit(
        self, of_each: Store, clock: FakeClock
    ) -> None:
        budget(of_each, 50, TOKENS, duration="hourly")
        settled(of_each, granted(of_each, call(clock)), 33, units=COST)
        over = granted(of_each, call(clock, units={"tokens": 36, "requests": 1}))
        of_each.reset(REQUESTS)
        assert (money(of_each, REQUESTS), money(of_each, TOKENS)) == ((200, 0, 1), (50, 14, 36))
        clock.advance(3_600)
        assert money(of_each, TOKENS) == (50, 0, 0)
        settled(of_each, over, 1, units={"tokens": 3})
        assert money(of_each, TOKENS) == (50, 0, 0)
        of_each.delete(OUTPUT)
        granted(of_each, call(clock, USER, Charge(OUTPUT)))

    # Calls under way

    def test_calls_under_way_are_at_most_so_many_and_free_their_place_as_they_end(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 3, CONCURRENT)

        def under_way(ttl: int = TTL) -> Hold:
            return hold(clock, 5, CONCURRENT, units={"concurrent": (1, 0)}, ttl=ttl)

        first, second, _ = (granted(store, under_way()) for _ in range(3))
        assert denied(store, under_way()).account == CONCURRENT
        settled(store, first, 5)
        granted(store, under_way(ttl=2 * TTL))
        store.settle(second, VOID)
        granted(store, under_way(ttl=2 * TTL))
        assert denied(store, under_way()).held_nanos == 3
        clock.advance(TTL / 1000)  # the third expires, and books nothing of it
        granted(store, under_way())
        assert isinstance(store.reserve(under_way()), Denied)
        assert money(store, CONCURRENT) == (3, 0, 3)
        assert now(store, CONCURRENT).expiries == 1

    def test_what_a_call_under_way_cost_late_takes_no_place(self, store: Store, clock: FakeClock) -> None:
        budget(store, 1, CONCURRENT)
        one = granted(store, hold(clock, 5, CONCURRENT, units={"concurrent": (1, 0)}))
        clock.advance(TTL / 1000)
        granted(store, hold(clock, 5, CONCURRENT, units={"concurrent": (1, 0)}))
        assert settled(store, one, 5).late
        assert money(store, CONCURRENT) == (1, 0, 1)

    # Labels of a call

    def test_labels_of_a_call_are_in_its_record_of(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        said = {"customer": "acme \N{PARTY POPPER}", "feature": "a\\*b"}
        one = granted(store, hold(clock, 5, labels=said))
        assert record_of(store, one).labels == said
        settled(store, one, 5)
        assert record_of(store, one).labels == said
