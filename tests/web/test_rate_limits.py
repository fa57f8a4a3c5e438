"""What a client is told that has made too many requests: the field's status, and when to come back."""

from __future__ import annotations

import json

import pytest

from budgetguard import BudgetExceededError, budget_user
from budgetguard.integrations.web import problem_response
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import HELLO, MODEL, completion, make_guard


@pytest.mark.parametrize(
    ("unit", "limit", "status", "wait"), [("requests", 1, 429, "50"), ("usd", 0.0001, 402, "50")]
)
def test_a_limit_on_requests_is_answered_with_when_to_come_back(
    unit: str, limit: float, status: int, wait: str
) -> None:
    clock = FakeClock()
    guard = make_guard(clock=clock)
    guard.set_budget(limit, user="u", unit=unit, duration="1m", name="a")  # type: ignore[arg-type]
    ask = guard.budgeted(max_completion_tokens=10)(lambda messages, model=MODEL: completion(20, 10))
    with budget_user("u"):
        ask(HELLO)
        clock.advance(10.5)
        with pytest.raises(BudgetExceededError) as refused:
            ask(HELLO)
    response = problem_response(refused.value)
    assert (response.status, json.loads(response.body)["status"]) == (status, status)
    assert dict(response.headers)["retry-after"] == wait
