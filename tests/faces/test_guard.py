"""What a guard's settings do to calls, each way; and how settings are changed."""

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budgetguard import (
    BudgetExceededError,
    ConfigurationError,
    Guard,
    MissingUserError,
    StoreError,
    UnknownModelError,
    UnknownUserError,
    budget_user,
)
from tests.guarded_calls import HELLO, MODEL, GatedStore, completion, drain, make_guard, names, nanos, record

COST = 120_000


def asker(guard: Guard, **options: Any) -> Any:
    @guard.budgeted(**options)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    return ask


# Nobody pays


def test_a_call_that_nothing_limits_is_refused_with_the_remedy() -> None:
    with pytest.raises(MissingUserError) as refused:
        asker(make_guard())(HELLO)
    for remedy in ('budget_user("1234")', "budgetguard.budget(0.50)", "max_budget", 'missing_user="allow"'):
        assert remedy in str(refused.value)


def test_a_call_that_nothing_limits_may_be_allowed_and_is_still_recorded() -> None:
    guard = make_guard(missing_user="allow")
    asker(guard)(HELLO)
    assert [(call.state, call.cost_nanos, call.accounts) for call in guard.calls()] == [("settled", COST, ())]


def test_a_project_limit_is_enough_and_counts_every_user() -> None:
    guard = make_guard()
    guard.set_budget(0.003)
    ask = asker(guard)
    ask(HELLO)
    with budget_user("u"):
        ask(HELLO)
        guard.set_budget(0.0003)
        with pytest.raises(BudgetExceededError, match="project 'p' has") as refused:
            ask(HELLO)
    assert refused.value.account == "project:p"
    assert guard.balance().spent_nanos == 2 * COST
    assert nanos(guard) == (COST, 0)


def test_the_user_of_the_settings_pays_where_no_budget_user_says() -> None:
    guard = make_guard(user="u")
    guard.set_budget(1, user="v")
    asker(guard)(HELLO)
    with budget_user("v"):
        asker(guard)(HELLO)
    assert (nanos(guard), nanos(guard, "v")) == ((COST, 0), (COST, 0))


def test_a_user_without_a_budget_is_refused_by_name() -> None:
    guard = make_guard()
    with (
        budget_user("nobody"),
        pytest.raises(UnknownUserError, match="user 'nobody' has no budget") as refused,
    ):
        asker(guard)(HELLO)
    assert (refused.value.user, refused.value.project) == ("nobody", "p")
    assert isinstance(refused.value, KeyError)
    assert list(guard.users()) == ["u"]


def test_a_default_budget_makes_one_and_only_when_it_is_needed() -> None:
    guard = make_guard(default_budget=0.01, default_duration="monthly")
    with budget_user("new"):
        asker(guard)(HELLO)
    made = guard.balance("new")
    assert (made.limit, made.duration, made.spent_nanos) == (Decimal("0.01"), "monthly", COST)
    assert made.resets_at is not None
    with budget_user("u"):
        asker(guard)(HELLO)
    assert guard.balance("u").limit == 1, "a budget that exists stays as it is"


def test_a_default_budget_that_is_too_small_refuses_and_makes_nothing() -> None:
    guard = make_guard(default_budget=0)
    with budget_user("new"), pytest.raises(BudgetExceededError):
        asker(guard)(HELLO)
    assert list(guard.users()) == ["u"]


# No price


def test_a_model_without_a_price_is_refused_by_name() -> None:
    guard = make_guard(user="u")
    with pytest.raises(UnknownModelError, match="no-such-model") as refused:
        asker(guard)(HELLO, model="no-such-model")
    assert refused.value.model == "no-such-model"
    assert isinstance(refused.value, LookupError)
    assert list(guard.calls()) == []


def test_a_model_without_a_price_may_be_allowed_and_is_booked_at_nothing() -> None:
    guard = make_guard(user="u", unknown_model="allow")
    asker(guard)(HELLO, model="no-such-model")
    (call,) = guard.calls()
    assert (call.state, call.cost_nanos, call.model) == ("settled", 0, "no-such-model")
    assert call.usage.input_tokens == 100


def test_a_price_by_the_users_word_counts_at_once() -> None:
    guard = make_guard(user="u")
    guard.register_price("no-such-model", input=3, output=3)
    asker(guard)(HELLO, model="no-such-model")
    assert nanos(guard) == (110 * 3_000, 0)


def test_a_free_model_is_never_refused_even_on_an_empty_budget() -> None:
    guard = make_guard(user="u")
    guard.set_budget(0, user="u")
    guard.register_price("free-model", input=0, output=0)
    asker(guard)(HELLO, model="free-model")
    assert nanos(guard) == (0, 0)


def test_the_price_of_the_hold_is_the_price_of_the_settlement() -> None:
    guard = make_guard(user="u")

    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        guard.register_price(MODEL, input=1_000, output=1_000)
        return completion()

    ask(HELLO)
    assert nanos(guard) == (COST, 0)


def test_a_call_dearer_than_any_budget_can_hold_is_refused_as_such() -> None:
    guard = make_guard(user="u", missing_user="allow")
    with pytest.raises(ConfigurationError, match="more than a budget can hold"):
        asker(guard, max_completion_tokens=10**13)(HELLO)
    assert nanos(guard) == (0, 0)


# A store that fails


def lock(folder: Path) -> Any:
    """Lock a disk store's database as another process would, and return the connection that does."""
    import sqlite3

    connection = sqlite3.connect(folder / "cache.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_a_locked_store_blocks_calls_by_default_and_never_says_over_budget(tmp_path: Path) -> None:
    guard = make_guard(f"disk://{tmp_path}?timeout=0.05", user="u")
    ran = []
    other = lock(tmp_path)
    with pytest.raises(StoreError, match="another process held its lock"):
        guard.budgeted(lambda messages, model=MODEL: ran.append(True))(HELLO)
    other.close()
    assert ran == []
    asker(guard)(HELLO)
    assert nanos(guard) == (COST, 0)
    guard.close()


def test_a_locked_store_may_be_passed_by_and_is_told_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = make_guard(f"disk://{tmp_path}?timeout=0.05", user="u", on_store_error="allow")
    other = lock(tmp_path)
    assert asker(guard)(HELLO) == completion()
    other.close()
    assert "allowed although its store failed" in caplog.text
    guard.flush()
    assert nanos(guard) == (COST, 0)
    guard.close()


def test_a_damaged_store_blocks_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"not a database, " * 1_000)
    guard = Guard(store=f"disk://{tmp_path}", user="u")
    with pytest.raises(StoreError, match="is not a budgetguard store, or is damaged"):
        asker(guard)(HELLO, model="gpt-4o-mini")


def test_a_settlement_that_the_store_refuses_is_retried_and_booked_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetguard.engine.outbox._FIRST_RETRY", 0.01)
    store = GatedStore()
    guard = make_guard(store, user="u")
    events = record(guard)
    store.broken = frozenset({"settle"})
    assert asker(guard)(HELLO) == completion(), "the caller has the answer"
    spent, held = nanos(guard)
    assert (spent, held > 0) == (0, True), "the hold stays until it is booked"
    assert "not booked yet, and will be tried again" in caplog.text
    assert "Settled" not in names(events)

    store.broken = frozenset()
    wait_until(lambda: nanos(guard) == (COST, 0))
    guard.flush()
    assert nanos(guard) == (COST, 0)
    assert names(events).count("Settled") == 1


def wait_until(reached: Any) -> None:
    import time

    give_up = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < give_up
        drain()
        time.sleep(0.005)


def test_one_settlement_that_never_goes_through_does_not_hold_up_the_others() -> None:
    class Picky(GatedStore):
        poison = ""

        def settle(self, hold: Any, settlement: Any) -> Any:
            if self.broken or hold.id == self.poison:
                raise StoreError("refused by the test")
            return super().settle(hold, settlement)

    store = Picky()
    guard = make_guard(store, user="u")
    store.broken = frozenset({"settle"})
    for _ in range(3):
        asker(guard)(HELLO)
    store.poison = next(guard.holds()).id
    store.broken = frozenset()
    guard.flush()
    guard.flush()
    spent, held = nanos(guard)
    assert spent == 2 * COST
    assert held > 0


def test_flushing_from_many_threads_loses_nothing() -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = GatedStore()
    guard = make_guard(store, user="u")
    store.broken = frozenset({"settle"})
    for _ in range(50):
        asker(guard)(HELLO)
    store.broken = frozenset()
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(guard.flush) for _ in range(8)]:
            future.result(30)
    assert nanos(guard) == (50 * COST, 0)


def test_a_store_that_breaks_in_an_unknown_way_does_not_cost_the_caller_the_answer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = make_guard(user="u")

    def broken(hold: Any, settlement: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(guard.store, "settle", broken)
    assert asker(guard)(HELLO) == completion()
    assert "could not be settled, and will expire" in caplog.text


# Changing settings


def test_settings_come_from_arguments_before_variables_before_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUDGETGUARD_STORE", "memory://")
    monkeypatch.setenv("BUDGETGUARD_PROJECT", "from-variable")
    monkeypatch.setenv("BUDGETGUARD_USER", "someone")
    guard = Guard(project="from-argument")
    assert (guard.project, guard.settings.user, guard.settings.store) == (
        "from-argument",
        "someone",
        "memory://",
    )
    assert Guard().project == "from-variable"


def test_configure_changes_what_is_named_and_nothing_else_and_all_or_nothing() -> None:
    guard = make_guard(user="u")
    guard.configure(default_budget=5)
    assert (guard.settings.default_budget, guard.settings.user) == (5, "u")
    with pytest.raises(ConfigurationError):
        guard.configure(default_budget=6, hold_ttl="soon")
    assert guard.settings.default_budget == 5
    assert guard.balance("u").limit == 1, "the store was not opened anew"


def test_a_call_under_way_is_settled_in_the_store_that_granted_it(tmp_path: Path) -> None:
    guard = make_guard(f"disk://{tmp_path / 'old'}", user="u")

    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        guard.configure(store=f"disk://{tmp_path / 'new'}")
        guard.set_budget(1, user="u")
        return completion()

    ask(HELLO)
    assert nanos(guard) == (0, 0)
    guard.configure(store=f"disk://{tmp_path / 'old'}")
    assert nanos(guard) == (COST, 0)
    guard.close()


def test_a_guard_takes_on_the_first_project_that_it_is_asked_for() -> None:
    guard = Guard(store="memory://")
    assert guard.in_project("app") is guard
    assert guard.project == "app"
    other = guard.in_project("other")
    assert (other.project, other is guard, guard.in_project("other") is other) == ("other", False, True)


def test_projects_share_prices_hooks_and_changes_of_settings_but_no_budgets() -> None:
    guard = make_guard(user="u")
    other = guard.in_project("other")
    events = record(guard)
    other.set_budget(2, user="u")
    guard.configure(default_budget=3)
    asker(other)(HELLO)
    assert (nanos(guard), nanos(other)) == ((0, 0), (COST, 0))
    assert other.settings.default_budget == 3
    assert {event.project for event in events} == {"other"}


def test_an_open_store_keeps_one_project() -> None:
    store = GatedStore(project="theirs")
    guard = Guard(store=store)
    assert guard.project == "theirs"
    with pytest.raises(ConfigurationError, match="'theirs'"):
        guard.in_project("other")
    with pytest.raises(ConfigurationError, match="opened for the project 'theirs', not for 'mine'"):
        Guard(store=store, project="mine")


# Budgets


def test_budgets_are_made_changed_listed_reset_and_deleted() -> None:
    guard = Guard(store="memory://", project="p")
    assert guard.set_budget(10, user="b", duration="monthly").available == 10
    guard.set_budget(5, user="a")
    assert list(guard.users()) == ["a", "b"]
    assert [balance.limit for balance in guard.balances()] == [5, 10]
    guard.register_price(MODEL, input=1, output=2)
    with budget_user("a"):
        asker(guard)(HELLO)
    assert guard.set_budget(7, user="a").spent_nanos == COST, "what is spent stays"
    assert guard.reset("a").spent == 0
    guard.delete("a")
    for verb in (guard.balance, guard.reset, guard.delete):
        with pytest.raises(UnknownUserError, match="'a'"):
            verb("a")


def test_a_project_without_a_budget_says_how_to_make_one() -> None:
    guard = Guard(store="memory://", project="p")
    for verb in (guard.balance, guard.reset, guard.delete):
        with pytest.raises(ConfigurationError, match=r"project 'p' has no budget.*set_budget\(limit\)"):
            verb()


def test_a_calendar_window_starts_with_the_calendar() -> None:
    guard = Guard(store="memory://", project="p")
    made = guard.set_budget(
        10, user="a", duration="monthly", align="calendar", starts_at=datetime(2024, 2, 17, 5, tzinfo=UTC)
    )
    assert made.resets_at is not None
    assert (made.resets_at.day, made.resets_at.hour) == (1, 0)


def test_open_holds_and_past_calls_can_be_listed() -> None:
    guard = make_guard(user="u")
    seen = []

    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        seen.extend(guard.holds("u"))
        return completion()

    ask(HELLO)
    assert [(hold.state, hold.user, hold.model, hold.endpoint) for hold in seen] == [
        ("held", "u", MODEL, "function")
    ]
    assert list(guard.holds()) == []
    assert [call.request_id for call in guard.calls()] == ["answer-1"]
    assert list(guard.calls(since=datetime(2999, 1, 1))) == []
    assert list(guard.calls(until=datetime(2000, 1, 1, tzinfo=UTC))) == []


def test_hooks_are_callable_and_can_be_taken_off() -> None:
    guard = make_guard(user="u")
    seen: list[Any] = []
    remove = guard.on(seen.append)
    asker(guard)(HELLO)
    remove()
    remove()
    asker(guard)(HELLO)
    assert names(seen) == ["Projected", "Held", "Settled"]
    with pytest.raises(ConfigurationError, match="cannot be called"):
        guard.on(3)  # type: ignore[arg-type]  # the mistake


@pytest.mark.full
def test_what_is_unsent_at_exit_is_sent_then(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from guarded_calls import *
guard = make_guard("disk://{tmp_path}", user="u")
settle = guard.store.settle
def broken(hold, settlement):
    raise budgetguard.StoreError("not now")
guard.store.settle = broken
guard.budgeted(lambda messages, model=MODEL: completion())(HELLO)
@guard.budgeted
def items(messages, model=MODEL):
    yield "Hello"
    yield "never"
kept = items(HELLO)
next(kept)
guard.store.settle = settle
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ})
    guard = Guard(store=f"disk://{tmp_path}", project="p")
    assert list(guard.holds()) == []
    assert sorted(call.outcome for call in guard.calls()) == ["abandoned", "answered"]
    assert guard.balance("u").spent_nanos > COST
    guard.close()
