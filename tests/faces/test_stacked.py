"""Faces on faces: whichever stands inside which, each call of the provider is charged once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest

from budgetguard import BudgetExceededError, BudgetManager, Guard
from tests.adapters.books import HTTP
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, nanos

Inner = Callable[[], Any]
Face = Callable[[Guard], Inner]
Outer = Callable[[Guard, Inner], Any]

COST = 120_000
CAP = 10


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


# Faces that make a call of the provider.


def function(guard: Guard) -> Inner:
    @guard.budgeted(max_completion_tokens=CAP)
    def ask(messages: object, model: str = MODEL) -> Any:
        return completion()

    return lambda: ask(HELLO)


def generator(guard: Guard) -> Inner:
    @guard.budgeted(max_completion_tokens=CAP)
    def ask(messages: object, model: str = MODEL) -> Iterator[Any]:
        yield completion()

    return lambda: next(iter(list(ask(HELLO))))


def client(guard: Guard) -> Inner:
    answer = completion(object="chat.completion", created=1)
    transport = HTTP.MockTransport(lambda _: HTTP.Response(200, json=json.loads(json.dumps(answer))))
    made = guard.wrap(
        openai.OpenAI(
            base_url="http://local.test/v1",
            api_key="x",
            http_client=HTTP.Client(transport=transport),
            max_retries=0,
        )
    )
    create: Any = made.chat.completions.create
    return lambda: create(model=MODEL, messages=HELLO, max_completion_tokens=CAP)


def block(guard: Guard) -> Inner:
    def ask() -> Any:
        with guard.call(model=MODEL, messages=HELLO, max_output_tokens=CAP) as call:
            answer = completion()
            call.settle(answer)
        return answer

    return ask


def block_in_a_loop(guard: Guard) -> Inner:
    async def ask() -> Any:
        async with guard.call(model=MODEL, messages=HELLO, max_output_tokens=CAP) as call:
            answer = completion()
            call.settle(answer)
        return answer

    return lambda: asyncio.run(ask())


FACES: tuple[Face, ...] = (function, generator, client, block, block_in_a_loop)


# Faces around them. Each returns what the inner calls answered, and would be charged for it alone.


def in_function(guard: Guard, inner: Inner) -> Any:
    @guard.budgeted(max_completion_tokens=1_000)
    def agent(messages: object, model: str = MODEL) -> Any:
        return inner()

    return agent(HELLO)


def in_generator(guard: Guard, inner: Inner) -> Any:
    @guard.budgeted(max_completion_tokens=1_000)
    def agent(messages: object, model: str = MODEL) -> Iterator[Any]:
        yield inner()

    return list(agent(HELLO))[-1]


def in_async_generator(guard: Guard, inner: Inner) -> Any:
    @guard.budgeted(max_completion_tokens=1_000)
    async def agent(messages: object, model: str = MODEL) -> AsyncIterator[Any]:
        yield await asyncio.to_thread(inner)

    async def last() -> Any:
        return [item async for item in agent(HELLO)][-1]

    return asyncio.run(last())


def in_block(guard: Guard, inner: Inner) -> Any:
    with guard.call(model=MODEL, messages=HELLO, max_output_tokens=1_000) as call:
        answer = inner()
        call.settle(answer)
    return answer


def in_async_block(guard: Guard, inner: Inner) -> Any:
    async def ask() -> Any:
        async with guard.call(model=MODEL, messages=HELLO, max_output_tokens=1_000) as call:
            answer = await asyncio.to_thread(inner)
            call.settle(answer)
        return answer

    return asyncio.run(ask())


def in_block_in_function(guard: Guard, inner: Inner) -> Any:
    return in_function(guard, lambda: in_block(guard, inner))


OUTERS: tuple[Outer, ...] = (
    in_function,
    in_generator,
    in_async_generator,
    in_block,
    in_async_block,
    in_block_in_function,
)


@pytest.mark.parametrize("outer", OUTERS)
@pytest.mark.parametrize("face", FACES)
def test_a_call_inside_is_charged_once(guard: Guard, outer: Outer, face: Face) -> None:
    inner = face(guard)
    inner()
    assert nanos(guard) == (COST, 0)
    outer(guard, inner)
    assert nanos(guard) == (2 * COST, 0)


@pytest.mark.parametrize("outer", OUTERS)
@pytest.mark.parametrize("face", FACES)
def test_each_of_several_calls_inside_is_charged_once(guard: Guard, outer: Outer, face: Face) -> None:
    inner = face(guard)
    outer(guard, lambda: [inner() for _ in range(3)][-1])
    assert nanos(guard) == (3 * COST, 0)


@pytest.mark.parametrize("outer", OUTERS)
@pytest.mark.parametrize("face", FACES)
def test_a_call_inside_that_is_refused_charges_nothing(guard: Guard, outer: Outer, face: Face) -> None:
    inner = face(guard)

    def asks() -> Any:
        guard.set_budget(0, user="u")
        return inner()

    with pytest.raises(BudgetExceededError):
        outer(guard, asks)
    assert nanos(guard) == (0, 0)


@pytest.mark.parametrize("outer", OUTERS)
@pytest.mark.parametrize("face", FACES)
def test_a_manager_does_not_book_it_again(guard: Guard, outer: Outer, face: Face) -> None:
    answer = outer(guard, face(guard))
    BudgetManager("p", guard=guard).update_cost("u", answer)
    assert nanos(guard) == (COST, 0)
