"""Hooks that make calls of their own: they are paid like others, and no hook hears of them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from budgetguard import Guard, budget_user
from budgetguard.engine.background import background
from budgetguard.events import Event, Refused, Settled
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, names

COST = 120_000


def inside_thread(ask: Callable[[], Any]) -> None:
    thread = threading.Thread(target=budget_user("u")(ask))
    thread.start()
    thread.join(30)


def inside_pool(ask: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask).result(30)


def inside_task(ask: Callable[[], Any]) -> None:
    async def task() -> None:
        ask()

    async def run() -> None:
        await asyncio.create_task(task())

    thread = threading.Thread(target=asyncio.run, args=(run(),))  # the hook may run in a loop's thread
    thread.start()
    thread.join(30)


WAYS = [lambda ask: ask(), inside_thread, inside_pool, inside_task]


@pytest.mark.parametrize("way", WAYS, ids=["directly", "thread", "pool", "task"])
@pytest.mark.parametrize("kinds", [(), (Settled,)], ids=["all events", "settled"])
def test_a_hook_s_own_calls_are_booked_and_tell_no_hooks(way: Any, kinds: Any) -> None:
    guard, calls, heard = make_guard(), [], list[Event]()

    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        calls.append(1)
        assert len(calls) < 20
        return completion()

    def hook(event: Event) -> None:
        heard.append(event)
        way(lambda: ask(HELLO))

    guard.on(hook, *kinds)
    with budget_user("u"):
        ask(HELLO)
    told = ["Projected", "Held", "Settled"] if not kinds else ["Settled"]
    assert names(heard) == told
    assert len(calls) == 1 + len(told)
    assert guard.balance("u").spent * 10**9 == len(calls) * COST


def test_a_hook_of_one_guard_is_not_told_of_a_hook_s_call_to_another() -> None:
    one, other, heard = make_guard(), make_guard(), []

    def asker(guard: Guard) -> Any:
        @guard.budgeted(max_completion_tokens=10, user="u")
        def ask(messages: Any, model: str = MODEL) -> Any:
            return completion()

        return ask

    asks = {one: asker(other), other: asker(one)}
    for guard, ask in asks.items():
        guard.on(heard.append, Settled)
        guard.on(lambda _, ask=ask: ask(HELLO), Settled)
    asks[other](HELLO)
    assert len(heard) == 1


def test_a_stream_that_a_hook_has_dropped_is_settled_and_tells_no_hooks() -> None:
    guard, heard = make_guard(), []

    @guard.budgeted(max_completion_tokens=10, user="u")
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    @guard.budgeted(max_completion_tokens=10, user="u")
    def stream(messages: Any, model: str = MODEL) -> Any:
        yield "Hello"
        yield completion()

    def hook(event: Event) -> None:
        heard.append(event)
        next(stream(HELLO))

    guard.on(hook, Settled)
    ask(HELLO)
    gc.collect()
    done = threading.Event()
    background.put(done.set)
    assert done.wait(30)
    assert len(heard) == 1
    assert guard.balance("u").held == 0


def test_the_log_of_a_run_hears_of_what_a_hook_s_call_was_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from budgetguard.engine import runlog

    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv(runlog.VARIABLE, str(log))
    guard = make_guard()
    runlog.follow(guard.engine.hooks)
    guard.set_budget(0, user="poor")

    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    heard: list[Event] = []
    guard.on(heard.append, Refused)
    guard.on(lambda _: budget_user("poor")(ask)(HELLO), Settled)
    with budget_user("u"):
        ask(HELLO)
    assert (heard, [one.user for one in runlog.read(log)]) == ([], ["poor"])
