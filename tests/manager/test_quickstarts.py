"""LiteLLM's own quick starts run with nothing but the import changed, and stop where they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openai import OpenAI

import budgetguard
from budgetguard import BudgetExceededError, BudgetManager, Guard, budgeted
from tests.manager.answers import MESSAGES, MODEL
from tests.provider.server import OpenAIServer

Completion = Callable[..., Any]


@pytest.fixture(autouse=True)
def default_guard(monkeypatch: pytest.MonkeyPatch) -> Guard:
    guard = Guard(store="memory://")
    monkeypatch.setattr(budgetguard, "_guard", guard)
    return guard


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


@pytest.fixture
def completion(server: OpenAIServer) -> Iterator[Completion]:
    with OpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client:

        def completion(model: str, messages: Any, max_tokens: int = 20) -> Any:
            return client.chat.completions.create(
                model=model, messages=messages, max_completion_tokens=max_tokens
            )

        yield completion


def billed_usd(server: OpenAIServer, usd_in: float = 0.15, usd_out: float = 0.6) -> float:
    return (
        sum(one["prompt_tokens"] * usd_in + one["completion_tokens"] * usd_out for one in server.billed) / 1e6
    )


def test_the_check_before_a_call_and_the_update_after_it(
    server: OpenAIServer, completion: Completion
) -> None:
    budget_manager = BudgetManager(project_name="test_project")
    user = "1234"
    if not budget_manager.is_valid_user(user):
        budget_manager.create_budget(total_budget=0.00002, user=user)
    response: Any = None
    for _ in range(50):
        if budget_manager.get_current_cost(user=user) <= budget_manager.get_total_budget(user):
            response = completion(model=MODEL, messages=MESSAGES)
            budget_manager.update_cost(completion_obj=response, user=user)
        else:
            response = "Sorry - no budget!"
    assert response == "Sorry - no budget!"
    assert 1 < server.count() < 50
    assert budget_manager.get_current_cost(user) == pytest.approx(billed_usd(server))
    assert budget_manager.get_model_cost(user).keys() == {server.requests[0].model}


def test_a_projection_before_a_call_keeps_within_the_limit(
    server: OpenAIServer, completion: Completion
) -> None:
    budget_manager = BudgetManager(project_name="test_project")
    budget_manager.create_budget(total_budget=0.0001, user="1234", duration="daily")
    while budget_manager.projected_cost(
        model=MODEL, messages=MESSAGES, user="1234", max_tokens=20
    ) <= budget_manager.get_total_budget("1234"):
        budget_manager.update_cost(user="1234", completion_obj=completion(model=MODEL, messages=MESSAGES))
    assert server.count() > 1
    assert billed_usd(server) <= 0.0001


def test_text_in_and_text_out_without_an_answer_to_read(server: OpenAIServer) -> None:
    budget_manager = BudgetManager(project_name="test_project")
    budget_manager.create_budget(total_budget=10, user="12345", duration="daily")
    input_text, output_text = "hello world", "it's a sunny day in san francisco"
    budget_manager.update_cost(user="12345", input_text=input_text, output_text=output_text, model=MODEL)
    assert 0 < budget_manager.get_current_cost("12345") < 0.00001


def test_max_budget_stops_a_guarded_function(server: OpenAIServer, completion: Completion) -> None:
    guarded = budgeted(completion)
    budgetguard.max_budget = 0.0001
    calls = (guarded(model=MODEL, messages=MESSAGES) for _ in range(50))
    with pytest.raises(BudgetExceededError) as caught:
        list(calls)
    assert 1 < server.count() < 50
    assert budgetguard.current_cost() == pytest.approx(billed_usd(server))
    assert float(caught.value.current_cost) == budgetguard.current_cost()
    assert float(caught.value.max_budget) == 0.0001
    assert caught.value.message == str(caught.value)


def test_max_budget_stops_the_patched_client(server: OpenAIServer, completion: Completion) -> None:
    budgetguard.patch_openai()
    try:
        budgetguard.max_budget = 1e-9
        with pytest.raises(BudgetExceededError):
            completion(model=MODEL, messages=MESSAGES)
    finally:
        budgetguard.unpatch_openai()
    assert server.count() == 0
