"""What is remembered of answers that are paid for costs little, and is never taken for another answer."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from budgetguard import Guard, budget_user
from budgetguard.core.usage import Reported, Usage
from budgetguard.engine import payers
from tests.manager.answers import COST, MESSAGES, MODEL, completion


class Answer:
    """An answer that can be referred to weakly, as those of the openai package can."""

    def __init__(self) -> None:
        self.model = MODEL
        self.usage = {"prompt_tokens": 1_000, "completion_tokens": 100}


@pytest.fixture
def guard() -> Guard:
    return Guard(store="memory://", project="app")


def ask(guard: Guard, answer: Any, user: str = "1234") -> Any:
    @guard.budgeted
    def function(messages: Any, model: str = MODEL) -> Any:
        return answer

    with budget_user(user):
        return function(MESSAGES)


def test_an_answer_is_not_kept_alive(guard: Guard) -> None:
    guard.set_budget(10, user="1234")
    answer = Answer()
    ask(guard, answer)
    assert payers.is_paid(guard.engine, "1234", answer, Reported(None))
    gone = weakref.ref(answer)
    del answer
    gc.collect()
    assert gone() is None


def test_objects_that_come_and_go_are_never_taken_for_one_that_was_paid(guard: Guard) -> None:
    guard.set_budget(10, user="1234")
    manager = guard.manager()
    for number in range(1, 301):
        # Freed at once, so that the next one is likely to have its address.
        ask(guard, Answer() if number % 2 else completion())
        manager.update_cost("1234", Answer() if number % 2 else completion())
    assert manager.get_current_cost("1234") == pytest.approx(600 * COST)


def test_an_answer_paid_to_two_users_is_known_for_both(guard: Guard) -> None:
    manager = guard.manager()
    answer = Answer()
    for user in ("1234", "5678"):
        manager.create_budget(10, user)
        ask(guard, answer, user)
    for user in ("1234", "5678"):
        assert manager.update_cost(user, answer)["user"]["current_cost"] == COST


def test_an_answer_whose_call_was_refused_or_failed_is_not_known(guard: Guard) -> None:
    guard.set_budget(10, user="1234")

    @guard.budgeted
    def function(messages: Any, model: str = MODEL) -> Any:
        raise ZeroDivisionError

    with budget_user("1234"), pytest.raises(ZeroDivisionError):
        function(MESSAGES)
    guard.reset("1234")
    assert guard.manager().update_cost("1234", Answer())["user"]["current_cost"] == COST


def test_equal_ids_of_different_calls_are_told_apart_by_their_usage(guard: Guard) -> None:
    guard.set_budget(10, user="1234")
    ask(guard, completion(id="chatcmpl-7"))
    other = completion(2_000, 100, id="chatcmpl-7")
    assert guard.manager().update_cost("1234", other)["user"]["current_cost"] > 2 * COST


def test_only_the_newest_ids_are_remembered(guard: Guard) -> None:
    def said(number: int) -> Reported:
        return Reported(Usage.of(input_tokens=1), MODEL, None, f"chatcmpl-{number}")

    for number in range(10_000):
        payers.remember_paid(guard.engine, "1234", said(number))
    known = [
        number for number in range(10_000) if payers.is_paid(guard.engine, "1234", object(), said(number))
    ]
    assert known == list(range(10_000 - len(known), 10_000))
    assert 1_000 < len(known) < 10_000
