"""`guard.call(...)`: one call under a budget, whatever makes it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import budgetguard
from budgetguard import (
    BudgetExceededError,
    ConfigurationError,
    Guard,
    MissingUserError,
    StoreError,
    UnknownModelError,
    UnknownUserError,
    Usage,
    budget_tags,
    budget_user,
)
from budgetguard.core.process import system_clock
from budgetguard.events import Held, Projected, Refused, Settled, Voided
from budgetguard.stores import open_store
from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import (
    HELLO,
    MODEL,
    GatedStore,
    StatusError,
    completion,
    drain,
    make_guard,
    names,
    nanos,
    record,
)

# 1 000 input tokens at 1 000 Nanos and 100 output tokens at 2 000 Nanos.
ASK: dict[str, Any] = {"model": MODEL, "input_tokens": 1_000, "max_output_tokens": 100}
HELD = 1_200_000


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


def test_entering_projects_and_holds_and_settling_books(guard: Guard) -> None:
    events = record(guard)
    with guard.call(**ASK, endpoint="search") as call:
        assert nanos(guard) == (0, HELD)
        assert call.projection.cost == Decimal("0.0012")
        assert call.projection.usage == Usage.of(input_tokens=1_000, output_tokens=100)
        assert call.cost is None
        call.settle((500, 20))
        assert call.cost == Decimal("0.00054")
        assert nanos(guard) == (540_000, 0)
    assert nanos(guard) == (540_000, 0)
    assert [type(event) for event in events] == [Projected, Held, Settled]
    assert {event.hold_id for event in events if isinstance(event, Projected | Held | Settled)} == {
        call.hold_id
    }
    [booked] = guard.calls()
    assert (booked.endpoint, booked.model, booked.state) == ("search", MODEL, "settled")
    assert booked.usage == Usage.of(input_tokens=500, output_tokens=20)


@pytest.mark.parametrize(
    ("answer", "booked"),
    [
        ((100, 10), 120_000),
        (Usage.of(input_tokens=100, output_tokens=10), 120_000),
        (completion(), 120_000),
        (json.dumps(completion()), 120_000),
        (json.dumps(completion()).encode(), 120_000),
        ({"type": "message", "model": MODEL, "usage": {"input_tokens": 100, "output_tokens": 10}}, 120_000),
        ("one two three", 1_000_000 + 3 * 2_000),
    ],
    ids=["tokens", "usage", "dict", "json", "bytes", "anthropic", "text"],
)
def test_an_answer_of_any_known_shape_is_read(guard: Guard, answer: Any, booked: int) -> None:
    with guard.call(**ASK) as call:
        call.settle(answer)
    assert nanos(guard) == (booked, 0)


def test_an_object_of_an_sdk_is_read(guard: Guard) -> None:
    from openai.types import CompletionUsage
    from openai.types.chat import ChatCompletion

    usage = CompletionUsage(prompt_tokens=100, completion_tokens=10, total_tokens=110)
    answer = ChatCompletion(id="1", choices=[], created=1, model=MODEL, object="chat.completion", usage=usage)
    with guard.call(**ASK) as call:
        call.settle(answer)
    assert nanos(guard) == (120_000, 0)


def test_tokens_and_a_cost_can_be_said_by_name(guard: Guard) -> None:
    events = record(guard)
    with guard.call(**ASK) as call:
        call.settle(input_tokens=100, output_tokens=10)
    with guard.call(**ASK) as call:
        call.settle(cost=Decimal("0.25"))
    assert call.cost == Decimal("0.25")
    with guard.call(**ASK) as call:
        call.settle(completion(), cost=0)
    assert nanos(guard) == (250_120_000, 0)
    assert [event.estimated for event in events if isinstance(event, Settled)] == [False, False, False]
    assert sorted(one.usage.input_tokens for one in guard.calls()) == [0, 100, 100]


def test_a_cost_of_nothing_is_booked_as_nothing(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        call.settle(cost=0)
    assert call.cost == 0
    assert nanos(guard) == (0, 0)


def test_void_gives_back_what_is_held(guard: Guard) -> None:
    events = record(guard)
    with guard.call(**ASK) as call:
        call.void("answered from a cache")
        assert nanos(guard) == (0, 0)
    assert call.cost == 0
    assert isinstance(events[-1], Voided)
    assert events[-1].reason == "answered from a cache"


@pytest.mark.parametrize(("policy", "booked"), [("charge", HELD), ("input", 1_000_000), ("release", 0)])
def test_leaving_without_a_word_is_an_unknown_outcome(policy: Any, booked: int) -> None:
    guard = make_guard(user="u", unknown_outcome=policy)
    with guard.call(**ASK) as call:
        pass
    assert nanos(guard) == (booked, 0)
    assert call.cost == Decimal(booked) / 10**9


@pytest.mark.parametrize(
    ("error", "booked"),
    [
        (StatusError(429), 0),
        (StatusError(503), 0),
        (ConnectionRefusedError(), 0),
        (TimeoutError(), HELD),
        (ValueError("of the program's own"), HELD),
        (KeyboardInterrupt(), HELD),
        (asyncio.CancelledError(), HELD),
    ],
    ids=repr,
)
def test_an_exception_is_judged_as_one_of_a_client(guard: Guard, error: BaseException, booked: int) -> None:
    with pytest.raises(type(error)), guard.call(**ASK):
        raise error
    assert nanos(guard) == (booked, 0)


def test_what_is_settled_stays_so_whatever_is_raised_after_it(guard: Guard) -> None:
    def ask() -> None:
        with guard.call(**ASK) as call:
            call.settle((100, 10))
            raise StatusError(500)

    with pytest.raises(StatusError):
        ask()
    assert nanos(guard) == (120_000, 0)


def test_a_call_that_does_not_fit_is_refused_before_its_block_runs(guard: Guard) -> None:
    guard.set_budget(Decimal("0.001"), user="u")
    events = record(guard)
    with pytest.raises(BudgetExceededError) as caught, guard.call(**ASK):
        pytest.fail("the block ran")
    assert caught.value.account == "user:u"
    assert nanos(guard) == (0, 0)
    assert isinstance(events[-1], Refused)


def test_the_other_refusals_are_raised_where_the_block_begins(guard: Guard) -> None:
    unknown = guard.call(model="no-such-model", input_tokens=1)
    with pytest.raises(UnknownModelError), unknown:
        pytest.fail("the block ran")
    with pytest.raises(UnknownUserError), guard.call(**ASK, user="nobody"):
        pytest.fail("the block ran")
    guard.configure(user=None)
    with pytest.raises(MissingUserError), guard.call(**ASK):
        pytest.fail("the block ran")


def test_the_user_and_the_tags_are_the_current_ones_and_those_that_are_given(guard: Guard) -> None:
    guard.set_budget(1, user="v")
    guard.set_budget(1, user="w")
    with budget_user("v"), budget_tags("outer"):
        with guard.call(**ASK, tags="here") as call:
            call.settle((1, 0))
        with guard.call(**ASK, user="w", tags=("a", "outer")) as call:
            call.settle((2, 0))
    assert {one.user: one.tags for one in guard.calls()} == {"v": ("outer", "here"), "w": ("outer", "a")}
    assert nanos(guard, "v") == (1_000, 0)
    assert nanos(guard, "w") == (2_000, 0)


def test_messages_and_input_are_counted_as_the_decorator_counts_them(guard: Guard) -> None:
    @guard.budgeted(max_completion_tokens=100)
    def ask(messages: Any, model: str = MODEL) -> str:
        return "hello"

    events = record(guard)
    ask(HELLO)
    with guard.call(model=MODEL, messages=HELLO, max_output_tokens=100) as call:
        call.settle("hello")
    with guard.call(model=MODEL, input="Say hello.", max_output_tokens=100) as call:
        call.settle("hello")
    projected = [event.cost for event in events if isinstance(event, Projected)]
    settled = [event.cost for event in events if isinstance(event, Settled)]
    assert len(set(projected)) == len(set(settled)) == 1
    with guard.call(model=MODEL, messages=HELLO, max_output_tokens=100, request={"n": 3}) as call:
        assert call.projection.usage.output_tokens == 300
        call.void()


def test_without_a_cap_one_is_assumed_and_then_learned(guard: Guard) -> None:
    for _ in range(60):
        with guard.call(model=MODEL, input_tokens=1) as call:
            assert call.projection.cap_assumed
            call.settle((1, 50))
    assert call.projection.output_cap is not None
    assert call.projection.output_cap < 1_024
    assert call.max_output_tokens is None


def test_strict_says_which_cap_the_budget_affords() -> None:
    guard = make_guard(user="u", strict=True)
    guard.set_budget(Decimal("0.0012"), user="u")
    with guard.call(model=MODEL, input_tokens=1_000) as call:
        assert call.max_output_tokens == 100
        assert nanos(guard) == (0, HELD)
        call.settle((1_000, 100))
    assert call.max_output_tokens == 100


def test_an_address_that_is_free_costs_nothing_and_is_never_refused() -> None:
    guard = make_guard(user="u", free_base_urls=("http://localhost:11434/v1",))
    guard.set_budget(0, user="u")
    with guard.call(**ASK, base_url="http://localhost:11434/v1") as call:
        call.settle((100, 10))
    assert call.cost == 0


def test_guarded_calls_inside_pay_and_the_block_does_not(guard: Guard) -> None:
    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    with guard.call(**ASK) as call:
        assert nanos(guard) == (0, HELD)
        ask(HELLO)
        assert nanos(guard) == (120_000, 0)
        call.settle((1_000, 100))
    assert call.cost == 0
    assert nanos(guard) == (120_000, 0)


def test_a_block_inside_a_guarded_function_pays_for_it(guard: Guard) -> None:
    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        with guard.call(**ASK) as call:
            call.settle((100, 10))
        return completion(900, 90)

    ask(HELLO)
    assert nanos(guard) == (120_000, 0)


def test_a_block_in_a_block_pays_for_both(guard: Guard) -> None:
    with guard.call(**ASK) as outer:
        with guard.call(**ASK) as inner:
            inner.settle((100, 10))
        outer.settle((900, 90))
    assert (outer.cost, inner.cost) == (0, Decimal("0.00012"))
    assert nanos(guard) == (120_000, 0)


def test_what_is_called_after_the_settlement_is_another_call(guard: Guard) -> None:
    with guard.call(**ASK) as first:
        first.settle((100, 10))
        with guard.call(**ASK) as second:
            second.settle((100, 10))
    assert nanos(guard) == (240_000, 0)


def test_between_the_steps_of_a_generator_nobody_is_inside_its_block(guard: Guard) -> None:
    def stream() -> Iterator[int]:
        with guard.call(**ASK) as call:
            yield from range(2)
            call.settle((100, 10))

    for _ in stream():
        with guard.call(**ASK) as between:
            between.settle((1, 0))
    assert nanos(guard) == (120_000 + 2 * 1_000, 0)


def test_what_a_generator_calls_in_its_block_is_inside(guard: Guard) -> None:
    def stream() -> Iterator[int]:
        with guard.call(**ASK) as outer:
            for number in range(2):
                with guard.call(**ASK) as inner:
                    inner.settle((1, 0))
                yield number
            outer.settle((900, 90))

    assert list(stream()) == [0, 1]
    assert nanos(guard) == (2_000, 0)


async def test_tasks_of_an_async_generator_are_inside_its_block_and_those_of_its_caller_are_not(
    guard: Guard,
) -> None:
    async def one(tokens: int) -> None:
        async with guard.call(**ASK) as call:
            call.settle((tokens, 0))

    async def stream() -> AsyncIterator[int]:
        async with guard.call(**ASK) as outer:
            yield 0
            await asyncio.create_task(one(1))
            outer.settle((900, 90))

    steps = stream()
    await anext(steps)
    await asyncio.create_task(one(10))
    assert nanos(guard) == (10_000, HELD)
    with pytest.raises(StopAsyncIteration):
        await anext(steps)
    assert nanos(guard) == (11_000, 0)


def test_threads_that_a_block_starts_are_inside_it(guard: Guard) -> None:
    def one() -> None:
        with guard.call(**ASK) as call:
            call.settle((1, 0))

    with guard.call(**ASK) as outer:
        thread = threading.Thread(target=one)
        thread.start()
        thread.join()
        outer.settle((900, 90))
    assert nanos(guard) == (1_000, 0)


def misuse(guard: Guard, use: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        use()
    return str(caught.value)


def test_a_call_is_settled_once(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        call.settle((100, 10))
        assert "settled already" in misuse(guard, lambda: call.settle((900, 90)))
        assert "settled already" in misuse(guard, call.void)
        assert "settled already" in misuse(guard, lambda: call.extend(1))
    assert nanos(guard) == (120_000, 0)
    with guard.call(**ASK) as call:
        call.void()
        assert "void already" in misuse(guard, lambda: call.settle((900, 90)))
    assert nanos(guard) == (120_000, 0)


def test_outside_of_its_block_a_call_does_nothing(guard: Guard) -> None:
    call = guard.call(**ASK)
    assert (call.cost, call.hold_id) == (None, None)
    assert "has not begun" in misuse(guard, lambda: call.settle((1, 1)))
    assert "has not begun" in misuse(guard, lambda: call.projection)
    with call:
        pass
    assert "is over" in misuse(guard, lambda: call.settle((1, 1)))
    assert "is over" in misuse(guard, call.void)

    def again() -> None:
        with call:
            pytest.fail("the block ran")

    assert "another guard.call" in misuse(guard, again)
    assert nanos(guard) == (HELD, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs what the call cost"),
        ({"answer": (1, 1), "input_tokens": 1}, "not both"),
        ({"answer": (1, -1)}, "output_tokens must be a whole number from 0, not -1"),
        ({"answer": (True, 1)}, "input_tokens must be a whole number"),
        ({"answer": (1.5, 1)}, "input_tokens must be a whole number from 0, not 1.5"),
        ({"answer": ("a secret", 1)}, "input_tokens must be a whole number from 0, not str"),
        ({"answer": Usage({"input_tokens": -1})}, "input_tokens must be a whole number"),
        ({"answer": object()}, "no cost can be read from object"),
        ({"answer": {"some": "thing"}}, "no cost can be read from dict"),
        ({"cost": -1}, "cost"),
        ({"cost": "much"}, "cost"),
    ],
)
def test_a_settlement_that_tells_no_cost_changes_nothing(guard: Guard, arguments: Any, said: str) -> None:
    with guard.call(**ASK) as call:
        assert said in misuse(guard, lambda: call.settle(**arguments))
        assert nanos(guard) == (0, HELD)
        call.settle((100, 10))
    assert nanos(guard) == (120_000, 0)


def test_a_call_that_was_answered_and_could_not_be_settled_is_booked_as_projected() -> None:
    guard = make_guard(user="u", unknown_outcome="release")
    with pytest.raises(ConfigurationError), guard.call(**ASK) as call:
        call.settle(object())
    assert nanos(guard) == (HELD, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": ""}, "model must be a name"),
        ({"model": MODEL}, "none is given"),
        ({"model": MODEL, "messages": HELLO, "input_tokens": 1}, "not messages and input_tokens"),
        ({"model": MODEL, "input_tokens": -1}, "input_tokens must be a whole number from 0, not -1"),
        ({"model": MODEL, "input_tokens": True}, "input_tokens"),
        ({"model": MODEL, "input_tokens": 1, "max_output_tokens": 1.5}, "max_output_tokens"),
        ({"model": MODEL, "input_tokens": 1, "request": {"n": 2}}, "count it into input_tokens"),
        ({"model": MODEL, "input": 5}, "the input must be text"),
        ({"model": MODEL, "input_tokens": 1, "provider": " "}, "provider must be text"),
        ({"model": MODEL, "input_tokens": 1, "user": 5}, "user must be text"),
        ({"model": MODEL, "input_tokens": 1, "tags": [""]}, "each tag must not be empty"),
        ({"model": MODEL, "input_tokens": 1, "endpoint": ""}, "endpoint must not be empty"),
    ],
)
def test_a_bad_argument_is_named_before_anything_is_held(guard: Guard, arguments: Any, said: str) -> None:
    assert said in misuse(guard, lambda: guard.call(**arguments))
    assert list(guard.holds()) == []


def test_a_stream_that_grows_beyond_its_hold_holds_more(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        call.extend(50)
        assert nanos(guard) == (0, HELD)
        call.extend(200)
        assert nanos(guard)[1] > HELD
        call.settle((1_000, 200))
    assert nanos(guard) == (1_400_000, 0)


def test_a_stream_that_is_given_up_costs_its_input_and_what_was_seen(guard: Guard) -> None:
    def ask() -> None:
        with guard.call(**ASK) as call:
            call.extend(30)
            call.extend(20)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        ask()
    assert nanos(guard) == (1_000_000 + 30 * 2_000, 0)


def test_a_stream_is_stopped_where_the_settings_say_so() -> None:
    guard = make_guard(user="u", on_stream_exceeded="stop")
    guard.set_budget(Decimal("0.0012"), user="u")
    with pytest.raises(BudgetExceededError), guard.call(**ASK) as call:
        call.extend(150)
    assert nanos(guard) == (1_300_000, 0)


def test_a_block_that_nobody_leaves_is_booked_when_it_is_garbage(guard: Guard) -> None:
    guard.call(**ASK).__enter__()
    gc.collect()
    drain()
    assert nanos(guard) == (HELD, 0)


def test_a_block_of_a_generator_that_is_dropped_is_booked(guard: Guard) -> None:
    def stream() -> Iterator[int]:
        with guard.call(**ASK) as call:
            call.extend(10)
            yield 1

    next(stream())
    gc.collect()
    drain()
    assert nanos(guard) == (1_020_000, 0)


def test_a_store_that_fails_before_the_block_refuses_and_after_it_raises_nothing() -> None:
    store = GatedStore()
    guard = make_guard(store, user="u")
    store.broken = frozenset({"reserve"})
    with pytest.raises(StoreError), guard.call(**ASK):
        pytest.fail("the block ran")
    store.broken = frozenset({"settle"})
    with guard.call(**ASK) as call:
        call.settle((100, 10))
    store.broken = frozenset()
    guard.flush()
    assert nanos(guard) == (120_000, 0)


@pytest.mark.parametrize("ident", ["answer-1", None], ids=["by its id", "by being the very object"])
def test_an_answer_that_is_settled_is_not_booked_again_by_a_manager(guard: Guard, ident: str | None) -> None:
    answer = completion(id=ident)
    with guard.call(**ASK) as call:
        call.settle(answer)
    guard.manager().update_cost("u", answer)
    assert nanos(guard) == (120_000, 0)


def test_exactly_ten_of_thirty_two_threads_are_admitted(guard: Guard) -> None:
    guard.set_budget(Decimal(10 * HELD) / 10**9, user="u")
    at_once = threading.Barrier(32)

    def one(_: int) -> bool:
        at_once.wait(30)
        try:
            with guard.call(**ASK) as call:
                call.settle((1_000, 100))
        except BudgetExceededError:
            return False
        return True

    with ThreadPoolExecutor(32) as pool:
        assert sum(pool.map(one, range(32))) == 10
    assert nanos(guard) == (10 * HELD, 0)


async def test_exactly_ten_of_thirty_two_tasks_are_admitted(tmp_path: Path) -> None:
    guard = make_guard(f"disk://{tmp_path}/store", user="u")
    guard.set_budget(Decimal(10 * HELD) / 10**9, user="u")

    async def one() -> bool:
        try:
            async with guard.call(**ASK) as call:
                await asyncio.sleep(0)
                call.settle((1_000, 100))
        except BudgetExceededError:
            return False
        return True

    assert sum(await asyncio.gather(*(one() for _ in range(32)))) == 10
    assert nanos(guard) == (10 * HELD, 0)
    guard.close()


async def test_an_async_block_books_when_it_is_left_off_the_loop() -> None:
    store = GatedStore()
    guard = make_guard(store, user="u")
    settling = threading.Event()
    store.gates = {"settle": settling}
    ticks = 0

    async def work() -> None:
        async with guard.call(**ASK) as call:
            call.settle((100, 10))
            assert call.cost is None
            assert "settled already" in misuse(guard, call.void)
        assert call.cost == Decimal("0.00012")

    task = asyncio.create_task(work())
    while not store.reached.is_set():
        await asyncio.sleep(0)
        ticks += 1
    settling.set()
    await task
    assert ticks > 0
    assert nanos(guard) == (120_000, 0)


async def test_an_answer_of_an_async_block_is_not_booked_again_by_a_manager(tmp_path: Path) -> None:
    guard = make_guard(f"disk://{tmp_path}", user="u")
    answer = completion(id=None)
    async with guard.call(**ASK) as call:
        call.settle(answer)
    guard.manager().update_cost("u", answer)
    assert nanos(guard) == (120_000, 0)
    guard.close()


async def test_what_is_called_after_an_async_settlement_is_another_call() -> None:
    guard = make_guard(GatedStore(), user="u")
    async with guard.call(**ASK) as first:
        first.settle((100, 10))
        async with guard.call(**ASK) as second:
            second.settle((100, 10))
    assert nanos(guard) == (240_000, 0)


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_task_that_is_cancelled_has_an_unknown_outcome(blocking: bool) -> None:
    guard = make_guard(GatedStore() if blocking else "memory://", user="u")
    inside = asyncio.Event()

    async def work() -> None:
        async with guard.call(**ASK):
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nanos(guard) == (HELD, 0)


async def test_a_task_that_is_cancelled_while_reserving_gives_everything_back() -> None:
    store = GatedStore()
    guard = make_guard(store, user="u")
    reserving = threading.Event()
    store.gates = {"reserve": reserving}

    async def work() -> None:
        async with guard.call(**ASK):
            pytest.fail("the block ran")

    task = asyncio.create_task(work())
    await asyncio.to_thread(store.reached.wait, 30)
    task.cancel()
    reserving.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert nanos(guard) == (0, 0)


def test_trio_works_as_asyncio_does() -> None:
    trio = pytest.importorskip("trio")
    guard = make_guard(GatedStore(), user="u")

    async def work() -> None:
        async with guard.call(**ASK) as call:
            await trio.sleep(0)
            call.settle((100, 10))
        with trio.move_on_after(0.01):
            async with guard.call(**ASK):
                await trio.sleep(60)

    trio.run(work)
    assert nanos(guard) == (120_000 + HELD, 0)


def test_the_module_has_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgetguard, "_guard", make_guard(user="u"))
    with budgetguard.call(**ASK) as call:
        call.settle((100, 10))
    assert nanos(budgetguard.default_guard()) == (120_000, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_that_leaves_the_block_books_nothing(tmp_path: Path) -> None:
    guard = make_guard(f"disk://{tmp_path}/store", user="u")
    with guard.call(**ASK) as call:
        if (child := os.fork()) == 0:
            call.__exit__(None, None, None)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert nanos(guard) == (0, HELD)
        call.settle((100, 10))
    assert nanos(guard) == (120_000, 0)
    guard.close()


KILLED = """
import sys
from budgetguard import Guard
guard = Guard(store=sys.argv[1], project="p", user="u", hold_ttl="1h")
guard.register_price("round-model", input=1, output=2)
call = guard.call(model="round-model", input_tokens=1_000, max_output_tokens=100)
with call:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_block_whose_process_is_killed_expires(tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/store"
    make_guard(url).close()
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
    clock = FakeClock(system_clock())
    store = open_store(url, project="p", clock=clock)
    before = store.read("user:u")
    clock.set(system_clock() + 3_600_001)
    after = store.read("user:u")
    assert before is not None
    assert after is not None
    assert (before.spent_nanos, before.held_nanos) == (0, HELD)
    assert (after.spent_nanos, after.held_nanos) == (HELD, 0)
    store.close()


def test_what_the_settings_leave_at_the_end_of_the_process_is_booked(tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/store"
    make_guard(url).close()
    left = KILLED.replace("with call:\n    print", "call.__enter__()\nif True:\n    print")
    subprocess.run([sys.executable, "-c", left, url], check=True, timeout=60, input=b"")
    store = open_store(url, project="p")
    balance = store.read("user:u")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos) == (HELD, 0)
    store.close()


def test_names_of_events_are_those_of_any_call(guard: Guard) -> None:
    events = record(guard)
    with guard.call(**ASK):
        pass
    assert names(events) == ["Projected", "Held", "Settled"]
