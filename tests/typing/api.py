"""The public API as programs use it, for `mypy --strict`: this file is checked, not run."""

from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import assert_type

import budgetguard
from budgetguard import Balance, Event, Guard, Run, Usage, budget_user, budgeted
from budgetguard.events import Settled

Messages = list[dict[str, str]]


@budgeted
def ask(messages: Messages, model: str = "gpt-4o-mini") -> str:
    return ""


@budgeted(model="gpt-4o-mini", input="question", user="1234", max_completion_tokens=100)
async def later(question: str, *, times: int = 1) -> int:
    return times


@budgeted(model="gpt-4o-mini", input=lambda question: question, usage=lambda answer: (1, 2))
def read(question: str) -> bytes:
    return b""


@budgeted(usage=lambda answer: Usage.of(input_tokens=1))
def stream(messages: Messages, model: str) -> Iterator[str]:
    yield ""


@budgeted
async def astream(messages: Messages, model: str) -> AsyncIterator[str]:
    yield ""


@budget_user("1234")
def job(times: int) -> str:
    return "done" * times


@budgetguard.budget(0.50)
async def limited(times: int) -> str:
    return "done" * times


class Bot:
    @budgeted
    def method(self, messages: Messages, model: str = "gpt-4o-mini") -> str:
        return ""


async def use() -> None:
    assert_type(ask([{"role": "user", "content": "hi"}], model="m"), str)
    assert_type(await later("why?", times=2), int)
    assert_type(read("why?"), bytes)
    assert_type(stream([], "m"), Iterator[str])
    assert_type(astream([], "m"), AsyncIterator[str])
    assert_type(Bot().method([]), str)
    assert_type(job(2), str)
    assert_type(await limited(2), str)

    with budgetguard.budget(Decimal("0.5")) as run:
        assert_type(run, Run)
        assert_type(run.spent, Decimal)
    async with budget_user("1234") as user:
        assert_type(user, budget_user)
    budgetguard.max_budget = 0.50
    assert_type(budgetguard.current_cost(), float)
    assert_type(budgetguard.current_user(), str | None)
    budgetguard.configure(store="memory://", project="app")
    budgetguard.register_price("my-model", input=1, output=2)

    guard = Guard(store="memory://")
    assert_type(guard.set_budget(10, user="1234", duration="monthly"), Balance)
    assert_type(guard.balance("1234").available, Decimal | None)

    def hook(event: Event) -> None:
        if isinstance(event, Settled):
            assert_type(event.cost, Decimal)

    assert_type(guard.on(hook, Settled), Callable[[], None])
    assert_type(guard.budgeted(job)(3), str)


ask(3)  # type: ignore[arg-type]  # must be refused: signatures are kept
job("3")  # type: ignore[arg-type]  # must be refused: signatures are kept
