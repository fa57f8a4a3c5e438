"""Money that moves: grants that end, prepaid credit, what is left over; and who did what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budgetguard import BudgetExceededError, ConfigurationError, Guard, UnknownUserError, budget_user
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import HELLO, MODEL, completion, make_guard
from tests.stores import STORES, Row, on

DAY = 86_400


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(clock: FakeClock) -> Guard:
    return make_guard(clock=clock, actor="tests")


def asker(guard: Guard) -> Any:
    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion(20, 10)

    return ask


def test_a_grant_raises_the_limit_and_ends_by_itself(guard: Guard, clock: FakeClock) -> None:
    guard.set_budget(0.00005, user="u")
    ask = asker(guard)
    with budget_user("u"), pytest.raises(BudgetExceededError):
        ask(HELLO)
    after = guard.grant(0.0005, user="u", expires="2d", reason="launch")
    assert after.limit == Decimal("0.00055")
    assert [one.amount for one in after.grants] == [500_000]
    with budget_user("u"):
        ask(HELLO)
        clock.advance(2 * DAY)
        with pytest.raises(BudgetExceededError):
            ask(HELLO)
    assert guard.balance("u").limit == Decimal("0.00005")
    assert guard.balance("u").grants == ()


def test_a_grant_ends_at_a_time_that_is_named(guard: Guard, clock: FakeClock) -> None:
    end = datetime.fromtimestamp(clock() / 1_000, UTC) + timedelta(hours=5)
    guard.grant(2, user="u", expires=end)
    clock.advance(5 * 3_600 - 1)
    assert guard.balance("u").limit == 3
    clock.advance(1)
    assert guard.balance("u").limit == 1


def test_a_budget_that_is_set_anew_keeps_its_grants(guard: Guard) -> None:
    guard.grant(2, user="u", expires="2d")
    assert guard.set_budget(5, user="u").limit == 7


def test_prepaid_credit_is_topped_up(guard: Guard) -> None:
    assert guard.top_up(3, user="new").limit == 3
    assert guard.top_up(4, user="new", reason="invoice 17").limit == 7
    assert guard.balance("new").grants == ()
    assert guard.top_up(100, team="red", unit="requests").limit == 100


def test_what_was_not_used_is_added_to_the_next_window(guard: Guard, clock: FakeClock) -> None:
    guard.set_budget(0.00012, user="u", duration="daily", rollover=0.0001)
    ask = asker(guard)
    with budget_user("u"):
        ask(HELLO)
        clock.advance(DAY)
        assert guard.balance("u").limit_nanos == 200_000
        for _ in range(4):
            ask(HELLO)
        with pytest.raises(BudgetExceededError):
            ask(HELLO)
        clock.advance(DAY)
        assert guard.balance("u").limit_nanos == 160_000, "40 000 of 200 000 are left"
        clock.advance(3 * DAY)
        assert guard.balance("u").limit_nanos == 220_000, "at most 100 000 are added"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda guard: guard.grant(5, user="u"), "a grant needs an end"),
        (lambda guard: guard.grant(5, user="u", expires="soon"), "unknown duration 'soon'"),
        (lambda guard: guard.grant(5, user="u", expires=datetime(2020, 1, 1)), "must be in the future"),
        (lambda guard: guard.grant(0, user="u", expires="1d"), "must be more than 0"),
        (lambda guard: guard.grant(-1, user="u", expires="1d"), "must not be negative"),
        (lambda guard: guard.grant(1, user="free", expires="1d"), "has no limit"),
        (lambda guard: guard.grant(1, customer="*", expires="1d"), "a budget for each value"),
        (lambda guard: guard.grant(1, team="none", expires="1d"), "no budget for team 'none'"),
        (lambda guard: guard.top_up(1, user="daily"), "has a limit for each window"),
        (lambda guard: guard.top_up(0, user="u"), "must be more than 0"),
        (lambda guard: guard.top_up(1, user="free"), "has no limit"),
        (lambda guard: guard.set_member("u", model="x"), "is known of every call"),
        (lambda guard: guard.set_member("", team="x"), "must not be empty"),
        (lambda guard: guard.balance(team="none"), "no budget for team 'none'"),
        (lambda guard: guard.delete(team="none"), "no budget for team 'none'"),
    ],
)
def test_what_cannot_be_meant_changes_nothing_and_leaves_no_trace(guard: Guard, call: Any, told: str) -> None:
    guard.set_budget(None, user="free")
    guard.set_budget(1, user="daily", duration="daily")
    guard.set_budget(1, customer="*")
    before, trail = list(guard.budgets()), list(guard.audit())
    with pytest.raises(ConfigurationError, match=told):
        call(guard)
    assert (list(guard.budgets()), list(guard.audit())) == (before, trail)


def test_only_who_has_a_budget_is_granted_more(guard: Guard) -> None:
    with pytest.raises(UnknownUserError):
        guard.grant(1, user="nobody", expires="1d")


@on(STORES)
def test_the_trail_says_who_did_what_when_and_why(row: Row, tmp_path: Path) -> None:
    with row.serve(tmp_path) as place:
        guard = Guard(store=place.open(), project="p", actor="tests")
        guard.set_budget(5, user="u", duration="monthly", by="ann", reason="new customer")
        guard.grant(2, user="u", expires="2d", by="bob", reason="launch")
        guard.set_member("u", team="red")
        guard.set_budget(60, team="red", unit="requests", duration="1m", rolling=True)
        guard.set_budget(1, customer="*")
        guard.reset("u", reason="by mistake")
        guard.delete("u", by="ann")
        said = [(one.by, one.action, one.account, one.reason) for one in guard.audit()]
        assert said == [
            ("ann", "set_budget", "user:u", "new customer"),
            ("bob", "grant", "user:u", "launch"),
            ("tests", "set_member", "user:u", ""),
            ("tests", "set_budget", "labels:@unit=requests&@rolling=1m&team=red", ""),
            ("tests", "set_budget", "labels:customer=*", ""),
            ("tests", "reset", "user:u", "by mistake"),
            ("ann", "delete", "user:u", ""),
        ]
        first, second, third, *_ = guard.audit()
        assert dict(first.details) == {"limit": "5.00", "duration": "monthly"}
        assert second.details["amount"] == "2.00"
        assert third.details == {"labels": {"team": "red"}}
        assert first.at <= second.at <= third.at
        assert [one.action for one in guard.audit(third.at)][-1] == "delete"
        guard.close()
