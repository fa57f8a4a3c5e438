"""Programs that only change the import: what LiteLLM's manager has beside its methods, and its answers."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from budgetguard import BudgetManager, ConfigurationError, Guard, UnknownModelError, UnknownUserError

from .answers import COST, completion


@pytest.fixture
def guard() -> Guard:
    return Guard(store="memory://", project="p")


@pytest.fixture
def manager(guard: Guard) -> BudgetManager:
    manager = BudgetManager("p", guard=guard)
    manager.create_budget(10, "u")
    return manager


def spent(guard: Guard, user: str = "u") -> Decimal:
    return guard.balance(user).spent


def test_user_dict_shows_what_is_stored_whenever_it_is_looked_at(manager: BudgetManager) -> None:
    users = manager.user_dict
    assert list(users) == ["u"]
    manager.create_budget(20, "v", "daily")
    assert len(users) == 2
    assert "v" in users
    assert "w" not in users
    assert users["v"]["total_budget"] == 20.0
    assert users["v"]["duration"] == 1
    manager.update_cost("v", completion())
    assert users["v"]["current_cost"] == COST
    assert users.get("w") is None
    assert json.loads(json.dumps(dict(users)))["v"]["current_cost"] == COST
    with pytest.raises(UnknownUserError):
        users["w"]


def test_user_dict_is_not_where_users_are_changed(manager: BudgetManager) -> None:
    users: Any = manager.user_dict
    with pytest.raises(ConfigurationError, match=r"create_budget\(\)"):
        users["u"] = {"total_budget": 5}
    with pytest.raises(TypeError):
        del users["u"]
    assert manager.get_total_budget("u") == 10.0


def test_the_methods_that_have_nothing_to_do(
    manager: BudgetManager, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "budgetguard"):
        manager.print_verbose("user dict")
    assert "user dict" in caplog.text
    manager.load_data()
    assert manager.get_users() == ["u"]


def test_the_defaults_that_it_shows() -> None:
    manager = BudgetManager("p", guard=Guard(store="memory://", project="p"))
    assert manager.api_base == "https://api.litellm.ai"
    assert manager.headers == {"Content-Type": "application/json"}
    with pytest.raises(ConfigurationError, match="api_base"):
        BudgetManager("p", client_type="hosted")


def test_a_user_that_is_a_whole_number_is_its_digits(manager: BudgetManager, guard: Guard) -> None:
    manager.create_budget(10, 1234, "monthly")
    assert manager.is_valid_user(1234)
    assert manager.is_valid_user("1234")
    assert manager.update_cost(1234, completion())["user"]["current_cost"] == COST
    assert manager.get_current_cost("1234") == manager.get_current_cost(1234) == COST
    assert manager.get_model_cost(1234) == {"gpt-4o-mini": COST}
    assert manager.get_total_budget(1234) == 10.0
    assert manager.projected_cost("gpt-4o-mini", [{"role": "user", "content": "hi"}], 1234) > COST
    manager.reset_on_duration(1234)
    assert manager.user_dict[1234]["current_cost"] == COST  # type: ignore[index]
    assert manager.reset_cost(1234)["user"]["current_cost"] == 0.0
    assert list(guard.users()) == ["1234", "u"]
    for wrong in (True, 1.5, None):
        with pytest.raises(ConfigurationError, match="user must be text"):
            manager.get_current_cost(wrong)  # type: ignore[arg-type]


def test_the_fees_of_hosted_tools_and_the_price_of_a_batch(manager: BudgetManager, guard: Guard) -> None:
    searches = [{"type": "web_search_call", "action": {"type": "search"}}] * 5
    response = {
        "object": "response",
        "model": "gpt-5",
        "tools": [{"type": "web_search"}],
        "output": searches,
        "usage": {"input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100},
    }
    manager.update_cost("u", response)
    assert spent(guard) == Decimal("0.05225")
    guard.reset("u")
    usage = {"input_tokens": 10**6, "output_tokens": 0, "total_tokens": 10**6}
    manager.update_cost("u", {"object": "batch", "model": "gpt-4o-mini", "usage": usage})
    assert spent(guard) == Decimal("0.075")
    going_on = {"object": "batch", "model": "gpt-4o-mini", "status": "in_progress", "usage": usage}
    with pytest.raises(ConfigurationError, match="over"):
        manager.update_cost("u", going_on)


@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("claude-sonnet-4-5", "0.018"),
        ("gemini-2.5-flash", "0.0028"),
        ("mistral-large-latest", "0.002"),
        ("command-r-plus-08-2024", "0.0125"),
        ("llama-3.3-70b-versatile", "0.00138"),
    ],
)
def test_a_name_that_only_one_provider_can_have_needs_none(
    manager: BudgetManager, guard: Guard, model: str, usd: str
) -> None:
    manager.update_cost("u", completion(1_000, 1_000, model=model))
    assert spent(guard) == Decimal(usd)
    assert manager.get_model_cost("u").keys() == {model}

    @guard.budgeted(user="u")
    def ask(messages: Any, model: str) -> Any:
        return completion(1_000, 1_000, model=model)

    ask([{"role": "user", "content": "hi"}], model)
    assert spent(guard) == 2 * Decimal(usd)


@pytest.mark.parametrize("model", ["nobody/claude-sonnet-4-5", "claude", "my-own-gemini"])
def test_a_name_that_several_can_have_or_none_stays_unknown(manager: BudgetManager, model: str) -> None:
    with pytest.raises(UnknownModelError):
        manager.update_cost("u", completion(model=model))


def litellm_answer(model: str, provider: str, cost: float | None = None) -> Any:
    answer = completion(1_000, 1_000, model=model)
    return SimpleNamespace(**answer, _hidden_params={"custom_llm_provider": provider, "response_cost": cost})


@pytest.mark.parametrize(
    ("model", "provider", "cost", "usd"),
    [
        ("openai/gpt-oss-120b", "groq", None, "0.00075"),
        ("claude-3-haiku-20240307", "anthropic", 99.0, "0.0015"),
        ("nobody-prices-this", "watsonx", 0.0125, "0.0125"),
        ("llama3", "ollama", 0.0, "0"),
    ],
)
def test_an_answer_of_litellms_is_priced_by_the_provider_that_it_names(
    manager: BudgetManager, guard: Guard, model: str, provider: str, cost: float | None, usd: str
) -> None:
    manager.update_cost("u", litellm_answer(model, provider, cost))
    assert spent(guard) == Decimal(usd)


def test_what_litellm_cannot_price_either_is_never_free(manager: BudgetManager, guard: Guard) -> None:
    for cost in (None, 0.0, float("nan")):
        with pytest.raises(UnknownModelError):
            manager.update_cost("u", litellm_answer("nobody-prices-this", "huggingface", cost))
    assert spent(guard) == 0


def test_an_answer_of_half_a_shape_books_nothing(manager: BudgetManager, guard: Guard) -> None:
    with pytest.raises(ConfigurationError, match="nothing was booked"):
        manager.update_cost("u", {"model": "gpt-4o-mini", "usage": {"tokens_in": 5, "tokens_out": 6}})
    assert spent(guard) == 0


def test_an_answer_that_says_0_and_has_500_words_is_not_free(manager: BudgetManager, guard: Guard) -> None:
    answer = completion(0, 0)
    answer["choices"][0]["message"]["content"] = "word " * 500
    manager.update_cost("u", answer)
    assert spent(guard) >= Decimal("0.0003")
