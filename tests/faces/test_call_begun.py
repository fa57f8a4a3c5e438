"""`call.begin()`, `call.end()`, `call.feed()`: a call that two callbacks tell of, and its stream."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextvars import copy_context
from decimal import Decimal
from typing import Any

import pytest

from budgetguard import BudgetExceededError, ConfigurationError, Guard, budget_user
from budgetguard.engine.links import current
from budgetguard.providers.call_block import BudgetedCall
from tests.guarded_calls import MODEL, StatusError, drain, make_guard, nanos

# 1 000 input tokens at 1 000 Nanos and 100 output tokens at 2 000 Nanos.
ASK: dict[str, Any] = {"model": MODEL, "input_tokens": 1_000, "max_output_tokens": 100}
HELD = 1_200_000


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


def chunk(text: str = "", usage: dict[str, int] | None = None) -> dict[str, Any]:
    choices = [] if usage else [{"index": 0, "delta": {"content": text}}]
    return {"object": "chat.completion.chunk", "model": MODEL, "choices": choices, "usage": usage}


def pay(guard: Guard, tokens: int = 1) -> None:
    with guard.call(**ASK) as call:
        call.settle((tokens, 0))


def depth() -> int:
    found, frame = 0, current.frame
    while frame is not None:
        found, frame = found + 1, frame.outer
    return found


def test_it_ends_in_another_thread_and_who_pays_is_who_began_it(guard: Guard) -> None:
    guard.set_budget(1, user="v")
    with budget_user("v"):
        call = guard.call(**ASK).begin()

    def end() -> None:
        call.settle((100, 10))
        call.end()

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert guard.balance("v").spent_nanos == 120_000
    assert nanos(guard) == (0, 0)


def test_it_is_refused_where_it_begins(guard: Guard) -> None:
    guard.set_budget(0, user="u")
    call = guard.call(**ASK)
    with pytest.raises(BudgetExceededError):
        call.begin()
    call.end()
    assert nanos(guard) == (0, 0)


def test_what_is_called_until_the_end_is_inside(guard: Guard) -> None:
    call = guard.call(**ASK).begin()
    pay(guard)
    call.settle((900, 90))
    call.end()
    pay(guard)
    assert nanos(guard) == (2_000, 0)


def test_within_a_function_only_what_it_calls_is_inside(guard: Guard) -> None:
    def begins() -> BudgetedCall:
        call = guard.call(**ASK).begin(within=sys._getframe())
        pay(guard)
        return call

    def begins_only() -> BudgetedCall:
        return guard.call(**ASK).begin(within=sys._getframe())

    paid_inside, alone = begins(), begins_only()
    pay(guard, 10)
    for call in (paid_inside, alone):
        call.settle((100, 10))
        call.end()
    assert nanos(guard) == (1_000 + 10_000 + 120_000, 0)


def test_within_any_call_of_a_function(guard: Guard) -> None:
    def step() -> None:
        pay(guard)

    call = guard.call(**ASK).begin(within=step.__code__)
    pay(guard, 10)
    step()
    call.settle((100, 10))
    call.end()
    assert nanos(guard) == (11_000, 0)


def test_calls_that_one_function_begins_are_beside_each_other(guard: Guard) -> None:
    def batch() -> list[BudgetedCall]:
        return [guard.call(**ASK).begin(within=sys._getframe()) for _ in range(3)]

    begun = batch()
    assert nanos(guard) == (0, 3 * HELD)
    for call in begun:
        call.settle((100, 10))
        call.end()
    assert nanos(guard) == (3 * 120_000, 0)


def test_what_is_paid_inside_a_batch_is_paid_for_all_of_it(guard: Guard) -> None:
    def batch() -> list[BudgetedCall]:
        begun = [guard.call(**ASK).begin(within=here) for here in [sys._getframe()] * 2]
        pay(guard)
        return begun

    for call in batch():
        call.settle((100, 10))
        call.end()
    assert nanos(guard) == (1_000, 0)


@pytest.mark.parametrize(
    ("error", "booked"),
    [(StatusError(429), 0), (TimeoutError(), HELD), (None, HELD)],
    ids=["refused by the provider", "unknown", "not settled"],
)
def test_it_ends_without_a_settlement_as_a_block_does(
    guard: Guard, error: Exception | None, booked: int
) -> None:
    call = guard.call(**ASK).begin()
    call.end(error)
    assert nanos(guard) == (booked, 0)


def test_an_error_says_as_much_as_the_one_that_it_was_raised_from(guard: Guard) -> None:
    refused = RuntimeError("a framework's words")
    refused.__cause__ = StatusError(400)
    guard.call(**ASK).begin().end(refused)
    assert nanos(guard) == (0, 0)


def test_the_second_end_does_nothing_and_the_second_begin_is_an_error(guard: Guard) -> None:
    call = guard.call(**ASK).begin()
    call.settle((100, 10))
    call.end()
    call.end(TimeoutError())
    with pytest.raises(ConfigurationError, match="entered before"):
        call.begin()
    with pytest.raises(ConfigurationError, match=r"before call\.end"):
        call.settle((100, 10))
    with pytest.raises(ConfigurationError, match=r"or call\.begin"):
        guard.call(**ASK).feed("text")
    assert nanos(guard) == (120_000, 0)


@pytest.mark.parametrize(("fed", "booked"), [(False, HELD), (True, 1_004_000)])
def test_one_that_is_dropped_is_booked_by_what_is_known(guard: Guard, fed: bool, booked: int) -> None:
    call = guard.call(**ASK).begin()
    if fed:
        call.feed("hello world")
    del call
    gc.collect()
    drain()
    assert nanos(guard) == (booked, 0)
    pay(guard)
    assert nanos(guard) == (booked + 1_000, 0)


def test_ends_in_other_contexts_leave_nothing_behind(guard: Guard) -> None:
    for _ in range(5):
        call = guard.call(**ASK).begin()
        call.settle((1, 0))
        copy_context().run(call.end)
    assert depth() == 1
    pay(guard)
    assert depth() == 0
    assert nanos(guard) == (6_000, 0)


@pytest.mark.parametrize("store", ["memory://", "disk"])
async def test_async_programs_begin_and_end_it_in_their_own_way(store: str, tmp_path: Any) -> None:
    guard = make_guard("memory://" if store != "disk" else f"disk://{tmp_path / 'books'}", user="u")

    async def ends(call: BudgetedCall) -> None:
        call.settle((100, 10))
        await call.aend()

    call = await guard.call(**ASK).abegin()
    await asyncio.create_task(ends(call))
    assert nanos(guard) == (120_000, 0)
    assert call.cost == Decimal("0.00012")


# Streams


def test_pieces_that_tell_their_usage_are_booked_by_it(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        for piece in (
            chunk("hello"),
            chunk(" world"),
            chunk(usage={"prompt_tokens": 7, "completion_tokens": 3}),
        ):
            call.feed(piece)
        call.settle()
    assert nanos(guard) == (13_000, 0)


def test_of_pieces_that_tell_no_usage_the_text_is_counted(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        for piece in ("hello", " world"):
            call.feed(piece)
        call.settle()
    assert nanos(guard) == (1_004_000, 0)


def test_an_answer_counts_more_than_its_pieces(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        call.feed("hello")
        call.settle((100, 10))
    assert nanos(guard) == (120_000, 0)


def test_pieces_that_nobody_can_read_book_the_projection(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        call.feed(object())
        with pytest.raises(ConfigurationError, match="no cost can be read from object"):
            call.settle()
    assert nanos(guard) == (HELD, 0)


def test_a_stream_that_breaks_off_books_its_input_and_its_pieces(guard: Guard) -> None:
    def ask() -> None:
        with guard.call(**ASK) as call:
            call.feed(chunk("hello"))
            call.extend(1)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        ask()
    assert nanos(guard) == (1_002_000, 0)


def test_more_is_held_as_pieces_exceed_the_hold(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        for _ in range(400):
            call.feed(" word")
        assert nanos(guard)[1] > HELD
        call.settle()
    assert nanos(guard) == (1_000_000 + 400 * 2_000, 0)


def test_pieces_stop_a_stream_where_the_settings_say_so() -> None:
    guard = make_guard(user="u", on_stream_exceeded="stop")
    guard.set_budget(Decimal("0.0012"), user="u")

    def ask() -> None:
        with guard.call(**ASK) as call:
            for _ in range(1_000):
                call.feed(" word")

    with pytest.raises(BudgetExceededError):
        ask()
    spent, held = nanos(guard)
    assert HELD < spent < 1_000_000 + 1_000 * 2_000
    assert held == 0


# Beside the call


def test_what_is_called_outside_is_paid_beside_the_call(guard: Guard) -> None:
    with guard.call(**ASK) as call:
        with call.outside():
            pay(guard)
        call.settle((100, 10))
    assert nanos(guard) == (121_000, 0)


def test_a_call_around_it_is_around_what_is_called_outside(guard: Guard) -> None:
    with guard.call(**ASK) as outer:
        with guard.call(**ASK) as inner:
            with inner.outside():
                pay(guard)
            inner.settle((100, 10))
        outer.settle((900, 90))
    assert nanos(guard) == (121_000, 0)


# Caps


def test_strict_projects_as_without_it_where_the_cap_cannot_be_sent() -> None:
    guard = make_guard(user="u", strict=True)
    with guard.call(model=MODEL, input_tokens=1_000, sends_cap=False) as call:
        assert not call.caps
        assert call.projection.cap_assumed
        call.settle((1, 1))
    with guard.call(model=MODEL, input_tokens=1_000) as call:
        assert call.caps
        assert call.max_output_tokens
        call.settle((1, 1))
