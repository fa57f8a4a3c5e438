"""Guarded calls inside guarded calls: the innermost pays, once."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from budgetguard import BudgetExceededError, Guard, UnpricedAnswerError
from budgetguard.events import Settled, Voided
from tests.guarded_calls import HELLO, MODEL, StatusError, completion, make_guard, names, nanos, record

INNER = 120_000


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


def inner(guard: Guard, answer: Any = None, *, cap: int = 10) -> Any:
    @guard.budgeted(max_completion_tokens=cap)
    def ask(messages: Any, model: str = MODEL) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return completion()

    return ask


def ainner(guard: Guard) -> Any:
    @guard.budgeted(max_completion_tokens=10)
    async def ask(messages: Any, model: str = MODEL) -> Any:
        await asyncio.sleep(0)
        return completion()

    return ask


def test_an_agent_that_makes_five_calls_is_charged_five_times_once_each(guard: Guard) -> None:
    ask = inner(guard)
    events = record(guard)

    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> str:
        for _ in range(5):
            ask(messages)
        return "all done"

    assert agent(HELLO) == "all done"
    assert nanos(guard) == (5 * INNER, 0)
    assert names(events).count("Settled") == 5
    assert [event.reason for event in events if isinstance(event, Voided)] == ["a call inside it pays"]


def test_the_outer_hold_is_given_back_when_the_first_inner_reserves(guard: Guard) -> None:
    held = []

    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        held.append(nanos(guard)[1])
        return completion()

    @guard.budgeted(max_completion_tokens=1_000)
    def agent(messages: Any, model: str = MODEL) -> str:
        held.append(nanos(guard)[1])
        ask(messages)
        held.append(nanos(guard)[1])
        return "done"

    agent(HELLO)
    outer, both, after = held
    assert outer - both == 990 * 2_000, "only the inner call is held while it runs"
    assert after == 0


def test_a_budget_that_holds_one_call_is_enough_for_an_agent_around_it(guard: Guard) -> None:
    guard.set_budget(Decimal("0.0001"), user="u")  # one call with 10 tokens out, not two

    @guard.budgeted(max_completion_tokens=10)
    def agent(messages: Any, model: str = MODEL) -> str:
        inner(guard)(messages)
        return "done"

    assert agent(HELLO) == "done"


def test_three_levels_are_charged_at_the_innermost(guard: Guard) -> None:
    ask = inner(guard)
    middle = guard.budgeted(lambda messages, model=MODEL: [ask(messages), "text"][1])
    outer = guard.budgeted(lambda messages, model=MODEL: middle(messages))
    assert outer(HELLO) == "text"
    assert nanos(guard) == (INNER, 0)


def test_an_outer_that_answers_after_its_inner_was_refused_pays_itself(guard: Guard) -> None:
    dear = inner(guard, cap=1_000_000)

    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> Any:
        with pytest.raises(BudgetExceededError):
            dear(messages)
        assert nanos(guard) == (0, 0), "the outer gave back what it held"
        return completion(200, 0)

    agent(HELLO)
    assert nanos(guard) == (200_000, 0)


def test_an_inner_refusal_that_goes_through_the_outer_costs_nothing(guard: Guard) -> None:
    agent = guard.budgeted(lambda messages, model=MODEL: inner(guard, cap=1_000_000)(messages))
    with pytest.raises(BudgetExceededError):
        agent(HELLO)
    assert nanos(guard) == (0, 0)


def test_an_outer_whose_inner_failed_for_nothing_is_priced_by_its_answer(guard: Guard) -> None:
    broken = inner(guard, StatusError(500))

    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> Any:
        with pytest.raises(StatusError):
            broken(messages)
        return completion(200, 0)

    agent(HELLO)
    assert nanos(guard) == (200_000, 0)
    assert list(guard.holds()) == []


def test_an_outer_that_fails_after_its_inner_paid_pays_nothing_more(guard: Guard) -> None:
    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> Any:
        inner(guard)(messages)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        agent(HELLO)
    assert nanos(guard) == (INNER, 0)


def test_an_answer_without_a_price_needs_none_where_calls_inside_paid(guard: Guard) -> None:
    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> Any:
        inner(guard)(messages)
        return object()

    agent(HELLO)
    assert nanos(guard) == (INNER, 0)

    lonely = guard.budgeted(lambda messages, model=MODEL: object())
    with pytest.raises(UnpricedAnswerError):
        lonely(HELLO)


@pytest.mark.parametrize("how", ["thread", "pool"])
def test_calls_in_threads_that_an_agent_starts_pay_for_it(guard: Guard, how: str) -> None:
    ask = inner(guard)

    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> str:
        if how == "thread":
            threads = [threading.Thread(target=ask, args=(messages,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(ask, [messages] * 3))
        return "done"

    agent(HELLO)
    assert nanos(guard) == (3 * INNER, 0)


async def test_calls_in_tasks_that_an_agent_starts_pay_for_it(guard: Guard) -> None:
    ask = ainner(guard)

    @guard.budgeted
    async def agent(messages: Any, model: str = MODEL) -> str:
        await asyncio.gather(ask(messages), ask(messages), asyncio.to_thread(inner(guard), messages))
        return "done"

    await agent(HELLO)
    assert nanos(guard) == (3 * INNER, 0)


async def test_calls_beside_an_agent_are_not_inside_it(guard: Guard) -> None:
    ask = ainner(guard)
    agent_runs, beside_done = asyncio.Event(), asyncio.Event()

    @guard.budgeted
    async def agent(messages: Any, model: str = MODEL) -> Any:
        agent_runs.set()
        await beside_done.wait()
        return completion(200, 0)

    async def beside() -> None:
        await agent_runs.wait()
        await ask(HELLO)
        beside_done.set()

    await asyncio.gather(agent(HELLO), beside())
    assert nanos(guard) == (200_000 + INNER, 0)


def test_a_generator_agent_is_paid_by_its_calls_and_its_caller_is_not_inside_it(guard: Guard) -> None:
    ask = inner(guard)

    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> Any:
        yield "thinking"
        ask(messages)
        yield "done"

    for item in agent(HELLO):
        if item == "thinking":
            ask(HELLO)  # the caller's own call, between two steps of the agent
    assert nanos(guard) == (2 * INNER, 0)

    generator = agent(HELLO)
    next(generator)
    ask(HELLO)
    generator.close()
    spent, held = nanos(guard)
    assert spent > 3 * INNER, "an agent that was left before its own call pays for what it said"
    assert held == 0


async def test_an_async_generator_agent_is_paid_by_its_calls(guard: Guard) -> None:
    ask = ainner(guard)

    @guard.budgeted
    async def agent(messages: Any, model: str = MODEL) -> Any:
        yield "thinking"
        await ask(messages)
        yield object()

    assert len([item async for item in agent(HELLO)]) == 2
    assert nanos(guard) == (INNER, 0)


def test_a_call_of_another_guard_inside_is_another_guards_business(guard: Guard) -> None:
    other = make_guard(user="u")

    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> Any:
        inner(other)(messages)
        return completion(200, 0)

    agent(HELLO)
    assert nanos(guard) == (200_000, 0)
    assert nanos(other) == (INNER, 0)


def test_what_an_outer_books_after_giving_back_is_told_with_its_own_hold(guard: Guard) -> None:
    events = record(guard)
    dear = inner(guard, cap=1_000_000)

    @guard.budgeted
    def agent(messages: Any, model: str = MODEL) -> Any:
        with pytest.raises(BudgetExceededError):
            dear(messages)
        return completion()

    agent(HELLO)
    (settled,) = [event for event in events if isinstance(event, Settled)]
    assert settled.cost == Decimal("0.00012")
    assert sum(record.cost_nanos for record in guard.calls()) == INNER
