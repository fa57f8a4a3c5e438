"""Calls that say who has paid for them, made plainly and in generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from budgetguard import Guard, MissingUserError, budget_user
from tests.guarded_calls import HELLO, MODEL, completion, make_guard


def limited_guard() -> Guard:
    """Return one whose project may pay, so that a call without a user is booked unless it is refused."""
    guard = make_guard()
    guard.set_budget(1)
    for user in ("alice", "bob"):
        guard.set_budget(1, user=user)
    return guard


def asker(guard: Guard) -> Callable[..., str]:
    """Return a function that makes a call and says who has paid: a user, or `refused`, or `nobody`."""

    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    def who(*_: object) -> str:
        before = {user: guard.balance(user).spent for user in ("alice", "bob")}
        try:
            ask(HELLO)
        except MissingUserError as error:
            return "refused" if 'with budget_user("1234")' in str(error) else "refused without a remedy"
        paid = [user for user, spent in before.items() if guard.balance(user).spent != spent]
        assert len(paid) <= 1
        return paid[0] if paid else "nobody"

    return who


def agent(user: str, who: Callable[[], Any]) -> Iterator[Any]:
    with budget_user(user):
        while True:
            yield who()


async def async_agent(user: str, who: Callable[[], Any]) -> AsyncIterator[Any]:
    async with budget_user(user):
        while True:
            await asyncio.sleep(0)
            yield who()
