"""`require_user`: no call without a user, whatever else limits it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from openai import OpenAI

from budgetguard import ConfigurationError, Guard, MissingUserError, budget_user
from budgetguard.config import from_environment
from tests.guarded_calls import HELLO, MODEL, completion, make_guard
from tests.provider.server import OpenAIServer

SETTINGS: list[dict[str, Any]] = [{"require_user": True}, {"missing_user": "require"}]


def asker(guard: Guard, **options: Any) -> Any:
    @guard.budgeted(max_completion_tokens=10, **options)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    return ask


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_call_without_a_user_is_refused_whatever_else_limits_it(settings: dict[str, Any]) -> None:
    guard = make_guard(**settings)
    guard.set_budget(1)
    guard.max_budget = 1
    ask = asker(guard)
    with pytest.raises(MissingUserError, match="every call needs one"), guard.budget(1) as run:
        ask(HELLO)
    assert (guard.balance().spent, guard.balance().held, run.spent) == (0, 0, 0)
    with budget_user("u"):
        ask(HELLO)
    asker(guard, user="u")(HELLO)
    assert guard.balance("u").spent == guard.balance().spent > 0


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_settings_user_is_one(settings: dict[str, Any]) -> None:
    guard = make_guard(user="u", **settings)
    asker(guard)(HELLO)
    assert guard.balance("u").spent > 0


def test_the_client_is_held_to_it_too_except_where_it_costs_nothing() -> None:
    with OpenAIServer("hi") as server:
        free = make_guard(require_user=True, free_base_urls=(server.base_url,))
        dear = make_guard(require_user=True)
        dear.set_budget(1)
        asked: dict[str, Any] = {"model": "gpt-4o-mini", "messages": HELLO, "max_tokens": 10}
        with OpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client:
            dear.wrap(client)
            for stream in (False, True):
                with pytest.raises(MissingUserError):
                    client.chat.completions.create(**asked, stream=stream)
        assert server.count() == 0
        with OpenAI(base_url=server.base_url, api_key="x", max_retries=0) as client:
            free.wrap(client).chat.completions.create(**asked)
        assert server.count() == 1


async def test_a_user_set_in_another_thread_is_none() -> None:
    """What a sync dependency of FastAPI does: it is entered in a thread, and the endpoint runs elsewhere."""
    guard = make_guard(require_user=True)
    guard.set_budget(1)
    user = budget_user("u")
    await asyncio.to_thread(user.__enter__)
    with pytest.raises(MissingUserError, match="another thread"):
        await asyncio.to_thread(asker(guard), HELLO)
    await asyncio.to_thread(user.__exit__, None, None, None)


def test_it_is_a_variable_and_does_not_go_with_its_contrary() -> None:
    assert from_environment({"BUDGETGUARD_REQUIRE_USER": "1"}).requires_user
    assert from_environment({"BUDGETGUARD_MISSING_USER": "require"}).requires_user
    assert not from_environment({"BUDGETGUARD_REQUIRE_USER": "no"}).requires_user
    with pytest.raises(ConfigurationError, match='missing_user="allow" lets through'):
        Guard(store="memory://", require_user=True, missing_user="allow")
    with pytest.raises(ConfigurationError, match="require_user must be True or False, not 1"):
        Guard(store="memory://", require_user=1)


def test_a_call_whose_user_is_lost_is_refused_even_where_none_is_allowed() -> None:
    guard, left, seen = make_guard(missing_user="allow"), threading.Event(), []

    def late() -> None:
        assert left.wait(30)
        try:
            asker(guard)(HELLO)
        except MissingUserError as error:
            seen.append(str(error))

    with budget_user("u"):
        thread = threading.Thread(target=late)
        thread.start()
    left.set()
    thread.join(30)
    assert "has ended since" in seen[0]
