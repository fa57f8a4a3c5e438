"""What happens at the limit, which models may be called, and for how much."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from budgetguard import (
    BudgetExceededError,
    ConfigurationError,
    Guard,
    ModelNotAllowedError,
    budget_user,
)
from budgetguard.core.rules import Rules, read_rules
from budgetguard.testing.clock import FakeClock
from budgetguard.testing.openai_server import OpenAIServer
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, names, record

SMALL = "small-model"


@pytest.fixture
def guard() -> Guard:
    guard = make_guard()
    guard.register_price(SMALL, input=0.1, output=0.2)
    return guard


def asker(guard: Guard, seen: list[str] | None = None) -> Any:
    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        if seen is not None:
            seen.append(model)
        return completion(20, 10, model=model)

    return ask


def test_a_shadow_lets_through_books_and_tells(guard: Guard) -> None:
    guard.set_budget(0.0001, team="red", on_limit="shadow")
    events, ask = record(guard), asker(guard)
    with budget_user("u", team="red"):
        ask(HELLO)
        ask(HELLO)
    assert guard.balance(team="red").spent_nanos == 80_000
    first, second = guard.calls()
    assert (first.shadowed, second.shadowed) == ((), ("team:red",))
    (told,) = (one for one in events if type(one).__name__ == "Shadowed")
    assert told.to_dict()["account"] == "team:red"
    assert names(events).count("Refused") == 0


def test_a_shadow_s_other_rules_do_not_bite_either(guard: Guard) -> None:
    guard.set_budget(1, team="red", on_limit="shadow", forbid="round-*", max_call_cost=0)
    with budget_user("u", team="red"):
        asker(guard)(HELLO)


def test_a_shadow_for_each_value_is_not_that_of_a_budget_that_was_set_for_one(guard: Guard) -> None:
    guard.set_budget(0, customer="*", on_limit="shadow", forbid="round-*")
    guard.set_budget(0.00005, customer="acme")
    ask = asker(guard)
    with budget_user("u", customer="acme"), pytest.raises(BudgetExceededError, match="customer 'acme'"):
        ask(HELLO)
    with budget_user("u", customer="other"):
        ask(HELLO)
        ask(HELLO)
    assert [record_.shadowed for record_ in guard.calls()] == [("customer:other",)] * 2


def test_what_is_forbidden_for_each_value_is_not_for_a_budget_that_was_set_for_one(guard: Guard) -> None:
    guard.set_budget(1, customer="*", forbid="round-*")
    guard.set_budget(1, customer="acme")
    ask = asker(guard)
    with budget_user("u", customer="other"), pytest.raises(ModelNotAllowedError):
        ask(HELLO)
    with budget_user("u", customer="acme"):
        ask(HELLO)
    guard.delete(customer="acme")
    with budget_user("u", customer="acme"), pytest.raises(ModelNotAllowedError):
        ask(HELLO)


def test_a_cheaper_model_is_called_where_the_money_does_not_reach(guard: Guard) -> None:
    guard.register_price("dear-model", input=5, output=5)
    guard.set_budget(0.00005, team="red", fallbacks={MODEL: ["dear-model", SMALL]})
    events, seen = record(guard), []
    with budget_user("u", team="red"):
        asker(guard, seen)(HELLO)
    assert seen == [SMALL]
    (held,) = guard.calls()
    assert (held.model, held.cost_nanos) == (SMALL, 4_000)
    (told,) = (one for one in events if type(one).__name__ == "FellBack")
    said = told.to_dict()
    assert (said["model"], said["instead_of"], said["account"]) == (SMALL, MODEL, "team:red")
    assert guard.balance(team="red").spent_nanos == 4_000
    assert guard.balance(team="red").held_nanos == 0


def test_the_refusal_is_of_the_model_that_was_asked_for(guard: Guard) -> None:
    guard.set_budget(0.000001, team="red", fallbacks={MODEL: SMALL})
    with (
        budget_user("u", team="red"),
        pytest.raises(BudgetExceededError, match=f"call to {MODEL} may cost") as refused,
    ):
        asker(guard)(HELLO)
    assert refused.value.projected_cost is not None
    assert refused.value.projected_cost > Decimal("0.00001")
    assert list(guard.calls()) == []


def test_the_refusal_tells_what_was_tried_instead(guard: Guard) -> None:
    guard.set_budget(0.00002, team="red", fallbacks={MODEL: SMALL})
    guard.set_budget(0, user="u", unit="requests")
    with budget_user("u", team="red"), pytest.raises(BudgetExceededError) as refused:
        asker(guard)(HELLO)
    assert refused.value.account == "team:red"
    assert str(refused.value).endswith(f". {SMALL} was tried instead, but user 'u' has 0 requests left")


def test_never_a_model_that_another_budget_does_not_allow(guard: Guard) -> None:
    guard.set_budget(0.00002, team="red", fallbacks={MODEL: SMALL})
    guard.set_budget(1, user="u", allow="round-*")
    seen: list[str] = []
    with budget_user("u", team="red"), pytest.raises(BudgetExceededError, match=MODEL):
        asker(guard, seen)(HELLO)
    assert seen == []


def test_a_budget_of_the_model_itself_lets_go_of_a_call_that_falls_back(guard: Guard) -> None:
    guard.set_budget(0, user="u", model="round-*", fallbacks={MODEL: SMALL})
    with budget_user("u"):
        asker(guard)(HELLO)
    assert guard.balance("u").spent_nanos == 4_000
    assert guard.balance("u", model="round-*").spent_nanos == 0


def test_a_function_that_is_told_no_model_cannot_fall_back(
    guard: Guard, caplog: pytest.LogCaptureFixture
) -> None:
    guard.set_budget(0.00002, user="u", fallbacks={MODEL: SMALL})

    @guard.budgeted(model=MODEL, max_completion_tokens=10)
    def ask(messages: Any) -> Any:
        raise AssertionError("it was called")

    with budget_user("u"), caplog.at_level(logging.WARNING), pytest.raises(BudgetExceededError):
        ask(HELLO)
    assert "no other model can be written into this call" in caplog.text


@pytest.mark.parametrize("strict", [False, True])
def test_the_fallback_is_what_the_client_sends(strict: bool) -> None:
    guard = Guard(store="memory://", project="p", strict=strict)
    guard.set_budget(0.0005, user="u", fallbacks={"gpt-4o": "gpt-4o-mini"})
    messages: Any = [{"role": "user", "content": "hello there"}]
    caps: Any = {} if strict else {"max_completion_tokens": 100}
    with (
        OpenAIServer("one two three") as server,
        OpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client,
    ):
        guard.wrap(client)
        asked = {"model": "gpt-4o", "messages": messages, "max_completion_tokens": 100}
        with budget_user("u"):
            if strict:
                guard.set_budget(0.00002, user="u", fallbacks={"gpt-4o": "gpt-4o-mini"})
            answer = client.chat.completions.create(model="gpt-4o", messages=messages, **caps)
            chunks = list(
                client.chat.completions.create(model="gpt-4o", messages=messages, stream=True, **caps)
            )
        assert answer.model.startswith("gpt-4o-mini")
        assert chunks
        assert [request.body["model"] for request in server.requests] == ["gpt-4o-mini"] * 2
        assert asked["model"] == "gpt-4o", "what the caller has is not changed"
    assert {record.model for record in guard.calls()} == {"gpt-4o-mini"}


def test_a_block_is_told_which_model_to_call(guard: Guard) -> None:
    guard.set_budget(0.00002, user="u", fallbacks={MODEL: SMALL})
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "max_output_tokens": 10, "user": "u"}
    with pytest.raises(BudgetExceededError), guard.call(**asked):
        pytest.fail("the block ran")
    with guard.call(**asked, sends_model=True, labels={"team": "red"}) as call:
        assert call.model == SMALL
        call.settle(completion(20, 10, model=call.model))
    (record_,) = guard.calls()
    assert (record_.model, record_.cost_nanos, record_.labels["team"]) == (SMALL, 4_000, "red")


def test_a_call_waits_until_another_one_has_ended(guard: Guard) -> None:
    guard.set_budget(1, user="u", unit="concurrent", on_limit="wait", wait="60s")
    events, order, first = record(guard), [], threading.Event()

    @guard.budgeted(max_completion_tokens=10)
    def slow(messages: Any, model: str = MODEL) -> Any:
        order.append("begun")
        first.set()
        time.sleep(0.05)
        order.append("ended")
        return completion(20, 10)

    def call() -> None:
        with budget_user("u"):
            slow(HELLO)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == ["begun", "ended"] * 4
    assert "Refused" not in names(events)
    assert "Waiting" in names(events)


def test_an_async_call_waits_without_holding_up_its_loop(guard: Guard) -> None:
    guard.set_budget(1, user="u", unit="concurrent", on_limit="wait", wait="60s")
    under_way, most = 0, 0

    @guard.budgeted(max_completion_tokens=10)
    async def slow(messages: Any, model: str = MODEL) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return completion(20, 10)

    async def main() -> None:
        with budget_user("u"):
            await asyncio.gather(*(slow(HELLO) for _ in range(6)))

    asyncio.run(main())
    assert most == 1
    assert guard.balance("u").spent_nanos == 6 * 40_000


def test_who_waited_in_vain_is_refused_and_a_cancelled_one_holds_nothing(guard: Guard) -> None:
    guard.set_budget(1, user="u", unit="concurrent", on_limit="wait", wait="1s")
    begun = asyncio.Event()

    @guard.budgeted(max_completion_tokens=10)
    async def slow(messages: Any, model: str = MODEL) -> Any:
        begun.set()
        await asyncio.sleep(30)

    async def main() -> None:
        with budget_user("u"):
            running = asyncio.create_task(slow(HELLO))
            await begun.wait()
            cancelled = asyncio.create_task(slow(HELLO))
            await asyncio.sleep(0.05)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            with pytest.raises(BudgetExceededError):
                await slow(HELLO)
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(main())
    assert guard.balance("u", unit="concurrent").held_nanos == 0


def test_nobody_waits_for_a_window_that_ends_too_late() -> None:
    clock = FakeClock()
    guard = make_guard(clock=clock)
    guard.set_budget(1, user="u", unit="requests", duration="1h", on_limit="wait", wait="60s")
    with budget_user("u"):
        asker(guard)(HELLO)
        began = time.monotonic()
        with pytest.raises(BudgetExceededError):
            asker(guard)(HELLO)
    assert time.monotonic() - began < 30


def test_allowed_models_are_a_list_and_forbidden_ones_another(guard: Guard) -> None:
    ask = asker(guard)
    guard.set_budget(1, team="red", allow=["round-*", "gpt-4o*"], forbid="gpt-4o-mini*")
    with budget_user("u", team="red"):
        ask(HELLO)
        ask(HELLO, model="gpt-4o")
        for model in ("gpt-4o-mini", "openai/gpt-4o-mini", SMALL):
            with pytest.raises(ModelNotAllowedError, match=r"allows round-\*, gpt-4o\*") as refused:
                ask(HELLO, model=model)
            assert (refused.value.model, refused.value.account) == (model, "team:red")
            assert refused.value.to_dict()["error"] == "ModelNotAllowedError"
    with budget_user("u"):
        ask(HELLO, model=SMALL)


def test_one_call_may_cost_no_more_than_its_cap(guard: Guard) -> None:
    guard.set_budget(1, user="u", max_call_cost=0.00005)
    ask = asker(guard)
    with budget_user("u"):
        ask([{"role": "user", "content": "hi"}], model=SMALL)
        with pytest.raises(BudgetExceededError, match=r"lets one call cost \$0.00005 at most"):
            ask(HELLO)
    assert guard.balance("u").spent_nanos == 4_000


def test_async_clients_fall_back_too() -> None:
    guard = Guard(store="memory://", project="p")
    guard.set_budget(0.0005, user="u", fallbacks={"gpt-4o": "gpt-4o-mini"})

    async def main() -> str:
        plain = AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0)
        async with plain, budget_user("u"):
            answer = await guard.wrap(plain).chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=100
            )
        return answer.model

    with OpenAIServer("one two three") as server:
        assert asyncio.run(main()).startswith("gpt-4o-mini")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"on_limit": "ignore"}, "on_limit must be one of refuse, shadow, wait"),
        ({"on_limit": "wait"}, "needs for how long"),
        ({"wait": "30s"}, "needs for how long"),
        ({"on_limit": "wait", "wait": "soon"}, "unknown duration 'soon'"),
        ({"fallbacks": {"gpt-4o": "gpt-4o"}}, "fall back to itself"),
        ({"fallbacks": {"gpt-4o": []}}, "names no model"),
        ({"fallbacks": {"gpt-4o": ["gpt-4*"]}}, "not patterns"),
        ({"fallbacks": {"gpt-4o": ["gpt-nothing"]}}, "the fallback 'gpt-nothing' is no model"),
        ({"fallbacks": {"gpt-4o": "gpt-4o-mini"}, "forbid": "*mini"}, "does not allow"),
        ({"fallbacks": {"gpt-4o": "openai/gpt-4o-mini"}, "forbid": "gpt-4o-mini"}, "does not allow"),
        ({"fallbacks": "gpt-4o"}, "fallbacks says which models"),
        ({"allow": "gpt-4o*", "forbid": ["gpt-4o*"]}, "allow and forbid both have gpt-4o\\*"),
        ({"allow": "gpt-nothing*"}, "no model that is known matches 'gpt-nothing\\*'"),
        ({"forbid": "gpt-nothing"}, "the model 'gpt-nothing' is no model"),
        ({"model": "gtp-4*"}, "no model that is known matches 'gtp-4\\*'"),
        ({"max_call_cost": -1}, "max_call_cost must not be negative"),
        ({"allow": [""]}, "each of allow must not be empty"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused_and_change_nothing(
    guard: Guard, rules: dict[str, Any], told: str
) -> None:
    before = list(guard.budgets())
    with pytest.raises(ConfigurationError, match=told):
        guard.set_budget(1, user="u", **rules)
    assert list(guard.budgets()) == before


def test_rules_of_a_later_version_refuse_calls_rather_than_being_passed_over(guard: Guard) -> None:
    from budgetguard.core.accounts import Budget

    guard.store.set_budget("user:u", Budget(10**9, rules='{"on_limit":"refuse","moon":"full"}'))
    with budget_user("u"), pytest.raises(ConfigurationError, match="upgrade"):
        asker(guard)(HELLO)
    assert list(guard.calls()) == []


def test_rules_are_read_as_they_were_written() -> None:
    rules = Rules("wait", 5, {"a": ("b", "c")}, ("x*",), ("y",), 7, "labels:user=*")
    assert read_rules(rules.text) == rules
    assert Rules().text == ""
