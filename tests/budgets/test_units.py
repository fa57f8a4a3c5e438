"""Budgets of requests, tokens and calls under way: one refusal for rates and money."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

import pytest

from budgetguard import BudgetExceededError, ConfigurationError, Guard, budget_user
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import HELLO, MODEL, StatusError, completion, make_guard, record


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(clock: FakeClock) -> Guard:
    return make_guard(clock=clock)


def asker(guard: Guard, answer: Any = None) -> Any:
    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return completion(20, 10) if answer is None else answer()

    return ask


def test_so_many_requests_a_minute_and_when_to_come_back(guard: Guard, clock: FakeClock) -> None:
    balance = guard.set_budget(2, user="u", unit="requests", duration="1m")
    assert (balance.unit, balance.limit, balance.available) == ("requests", Decimal(2), Decimal(2))
    ask = asker(guard)
    with budget_user("u"):
        ask(HELLO)
        clock.advance(10)
        ask(HELLO)
        with pytest.raises(BudgetExceededError, match=r"0 requests left until.*Try again in 50.0 s") as no:
            ask(HELLO)
        error = no.value
        assert (error.unit, error.retry_after) == ("requests", 50.0)
        assert (error.current_cost, error.max_budget, error.projected_cost, error.available) == (2, 2, 1, 0)
        assert error.to_dict()["retry_after"] == 50.0
        clock.advance(50)
        ask(HELLO)


def test_a_rolling_minute_has_no_edge(guard: Guard, clock: FakeClock) -> None:
    guard.set_budget(2, user="u", unit="requests", duration="1m", rolling=True)
    ask = asker(guard)
    with budget_user("u"):
        clock.advance(59)
        ask(HELLO)
        ask(HELLO)
        clock.advance(2)
        with pytest.raises(BudgetExceededError) as refused:
            ask(HELLO)
        assert refused.value.retry_after is not None
        assert 58 <= refused.value.retry_after <= 60
        clock.advance(refused.value.retry_after)
        ask(HELLO)
    assert guard.balance("u", unit="requests", rolling="1m").rolling


def test_a_call_that_did_no_work_is_no_request_and_no_tokens(guard: Guard) -> None:
    for unit in ("requests", "tokens", "concurrent"):
        guard.set_budget(10_000, user="u", unit=unit)  # type: ignore[arg-type]
    with budget_user("u"), pytest.raises(StatusError):
        asker(guard, StatusError(429))(HELLO)
    for unit in ("requests", "tokens", "concurrent"):
        balance = guard.balance("u", unit=unit)
        assert (balance.spent_nanos, balance.held_nanos, balance.open_holds) == (0, 0, 0)


def test_tokens_are_held_as_projected_and_booked_as_reported(guard: Guard) -> None:
    for unit in ("tokens", "input_tokens", "output_tokens"):
        guard.set_budget(10_000, user="u", unit=unit)  # type: ignore[arg-type]
    seen: list[tuple[int, int, int]] = []

    def answer() -> Any:
        held = [guard.balance("u", unit=u).held_nanos for u in ("tokens", "input_tokens", "output_tokens")]
        seen.append((held[0], held[1], held[2]))
        return completion(100, 7)

    with budget_user("u"):
        asker(guard, answer)(HELLO)
    ((both, read, written),) = seen
    assert (written, both) == (10, read + 10)
    assert 4 < read < 100
    spent = {u: guard.balance("u", unit=u).spent_nanos for u in ("tokens", "input_tokens", "output_tokens")}
    assert spent == {"tokens": 107, "input_tokens": 100, "output_tokens": 7}
    (record_,) = guard.calls()
    assert {unit: counts[2] for unit, counts in record_.units.items()} == spent


def test_no_tokens_are_left_for_a_long_answer(guard: Guard) -> None:
    guard.set_budget(60, user="u", unit="output_tokens", duration="daily")
    with budget_user("u"):
        with pytest.raises(BudgetExceededError, match=r"need 1,000 output tokens.*has 60 output tokens left"):
            guard.budgeted(max_completion_tokens=1_000)(lambda messages, model=MODEL: completion(20, 10))(
                HELLO
            )
        asker(guard)(HELLO)


def test_strict_mode_caps_the_answer_by_the_tokens_that_are_left(clock: FakeClock) -> None:
    guard = make_guard(clock=clock, strict=True)
    guard.set_budget(60, user="u", unit="output_tokens")
    asked: list[int] = []

    @guard.budgeted
    def ask(messages: Any, model: str = MODEL, max_completion_tokens: int | None = None) -> Any:
        asked.append(max_completion_tokens or 0)
        return completion(20, 10)

    with budget_user("u"):
        ask(HELLO)
    assert asked == [60]


def test_only_so_many_calls_are_under_way_at_once() -> None:
    guard = make_guard()
    guard.set_budget(3, user="u", unit="concurrent")
    inside, go_on = threading.Semaphore(0), threading.Event()

    def answer() -> Any:
        inside.release()
        assert go_on.wait(60)
        return completion(20, 10)

    ask = asker(guard, answer)

    def call() -> None:
        with budget_user("u"):
            ask(HELLO)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert inside.acquire(timeout=60)
    told = "user 'u' has room for 0 more: of 3 calls under way, 3 are taken"
    with budget_user("u"), pytest.raises(BudgetExceededError, match=told) as refused:
        ask(HELLO)
    assert refused.value.retry_after is None
    go_on.set()
    for thread in threads:
        thread.join()
    balance = guard.balance("u", unit="concurrent")
    assert (balance.spent_nanos, balance.held_nanos) == (0, 0)
    call()


def test_several_windows_hold_at_once(guard: Guard, clock: FakeClock) -> None:
    guard.set_budget(1, user="u", duration="monthly")
    guard.set_budget(0.00012, user="u", duration="hourly", name="hourly")
    ask = asker(guard)
    with budget_user("u"):
        ask(HELLO)
        ask(HELLO)
        with pytest.raises(BudgetExceededError, match=r"user 'u' \(hourly\) has"):
            ask(HELLO)
        clock.advance(3_600)
        ask(HELLO)
    assert guard.balance("u").spent_nanos == 120_000
    assert guard.balance("u", name="hourly").spent_nanos == 40_000


def test_all_requests_of_the_project_may_be_limited(guard: Guard) -> None:
    guard.set_budget(1, unit="requests", duration="1m")
    guard.set_budget(1, user="v")
    ask = asker(guard)
    with budget_user("u"):
        ask(HELLO)
    with budget_user("v"), pytest.raises(BudgetExceededError, match="but the project has 0 requests left"):
        ask(HELLO)


def test_events_tell_the_unit(guard: Guard) -> None:
    guard.set_budget(1, user="u", unit="requests")
    events = record(guard)
    ask = asker(guard)
    with budget_user("u"):
        ask(HELLO)
        with pytest.raises(BudgetExceededError):
            ask(HELLO)
    told = {type(one).__name__: one.to_dict() for one in events}
    assert (told["ThresholdCrossed"]["unit"], told["ThresholdCrossed"]["limit"]) == ("requests", "1")
    assert (told["Refused"]["unit"], told["Refused"]["cost"]) == ("requests", "1")


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ({"unit": "words"}, "unit must be one of"),
        ({"unit": "requests", "limit": 0.5}, "whole number of requests"),
        ({"unit": "requests", "limit": -1}, "whole number of requests"),
        ({"unit": "tokens", "limit": 10**13}, "whole number of tokens"),
        ({"unit": "tokens", "endpoint": "videos"}, "billed without tokens"),
        ({"unit": "concurrent", "duration": "1m"}, "no window"),
        ({"rolling": True}, "needs a duration"),
        ({"rolling": True, "duration": "monthly"}, "elapsed time"),
        ({"rolling": True, "duration": "1d", "rollover": 1}, "no windows"),
        ({"rollover": 1}, "needs a limit and a duration"),
        ({"name": "a\nb"}, "control characters"),
    ],
)
def test_what_no_budget_can_be_is_refused_and_changes_nothing(
    guard: Guard, terms: dict[str, Any], told: str
) -> None:
    before = list(guard.budgets())
    with pytest.raises(ConfigurationError, match=told):
        guard.set_budget(terms.pop("limit", 5), user="u", **terms)
    assert list(guard.budgets()) == before
    assert guard.store.scopes().revision == 0
