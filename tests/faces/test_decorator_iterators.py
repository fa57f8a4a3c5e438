"""Functions that return what is still running: iterators of every make, and what must be entered."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import wrapt

from budgetguard import Guard, UnpricedAnswerError
from budgetguard.events import Settled
from tests.guarded_calls import HELLO, MODEL, drain, make_guard, nanos

CHUNKS = [
    {"choices": [{"index": 0, "delta": {"content": "hi"}}]},
    {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}},
]
COST = 120_000
"""Nanos: 100 tokens in, 10 out."""


class Wrapper:
    """Iterate both ways, as LiteLLM's `CustomStreamWrapper` does."""

    def __init__(self, items: list[Any]) -> None:
        self.items = iter(items)
        self.closed = False
        self.custom_llm_provider = "openai"

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.items)

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self.items)
        except StopIteration:
            raise StopAsyncIteration from None

    def close(self) -> None:
        self.closed = True


class OnlyAsync:
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    async def __aiter__(self) -> Any:
        for item in self.items:
            yield item


class OnlyIter:
    """Be iterated over as boto3's `EventStream` is."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class Entered:
    """Make the call when entered, as Anthropic's `MessageStreamManager` does."""

    def __init__(self, items: list[Any], error: Exception | None = None) -> None:
        self.items = items
        self.error = error

    def __enter__(self) -> Any:
        if self.error is not None:
            raise self.error
        return iter(self.items)

    def __exit__(self, *error: object) -> None:
        return None

    async def __aenter__(self) -> Any:
        return OnlyAsync(self.items)

    async def __aexit__(self, *error: object) -> None:
        return None


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


def ask(guard: Guard, make: Callable[[], Any], **options: Any) -> Any:
    @guard.budgeted(**options)
    def function(messages: Any, model: str = MODEL) -> Any:
        return make()

    return function(HELLO)


def projected(guard: Guard) -> int:
    (record,) = guard.calls()
    return record.amount_nanos


@pytest.mark.parametrize("make", [Wrapper, OnlyIter, iter], ids=["both ways", "only __iter__", "a list's"])
def test_what_is_iterated_over_is_settled_at_its_end(guard: Guard, make: Callable[[Any], Any]) -> None:
    answer = ask(guard, lambda: make(CHUNKS))
    assert nanos(guard)[1] > 0
    assert list(answer) == CHUNKS
    assert nanos(guard) == (COST, 0)
    assert list(answer) == [] or make is OnlyIter


@pytest.mark.parametrize("make", [Wrapper, OnlyAsync])
async def test_what_is_iterated_over_asynchronously(guard: Guard, make: Callable[[Any], Any]) -> None:
    @guard.budgeted
    async def function(messages: Any, model: str = MODEL) -> Any:
        return make(CHUNKS)

    assert [item async for item in await function(HELLO)] == CHUNKS
    assert nanos(guard) == (COST, 0)


def test_it_stays_what_it_was(guard: Guard) -> None:
    answer = ask(guard, lambda: Wrapper(CHUNKS))
    assert isinstance(answer, Wrapper)
    assert answer.custom_llm_provider == "openai"
    only = ask(guard, lambda: OnlyAsync(CHUNKS))
    assert hasattr(only, "__aiter__")
    assert not hasattr(type(only), "__next__")
    if hasattr(wrapt, "BaseObjectProxy"):  # proxies of wrapt 1 all say that they can be iterated over
        assert not hasattr(type(only), "__iter__")


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_one_that_is_left_costs_its_input_and_what_was_seen(guard: Guard, how: str) -> None:
    answer = ask(guard, lambda: Wrapper([{"choices": [{"index": 0, "delta": {"content": "hi"}}]}] * 2))
    next(answer)
    if how == "closed":
        answer.close()
        assert answer.closed
    del answer
    gc.collect()
    drain()
    spent, held = nanos(guard)
    assert held == 0
    assert 0 < spent < projected(guard)


def test_one_that_nobody_iterates_over_costs_its_projection(guard: Guard) -> None:
    answer = ask(guard, lambda: Wrapper(CHUNKS))
    del answer
    gc.collect()
    drain()
    assert nanos(guard) == (projected(guard), 0)


def test_an_error_in_the_middle_comes_out_and_is_settled(guard: Guard) -> None:
    class Breaks(Wrapper):
        def __next__(self) -> Any:
            raise TimeoutError("slow")

    with pytest.raises(TimeoutError):
        next(ask(guard, lambda: Breaks([])))
    assert nanos(guard) == (projected(guard), 0)


@pytest.mark.parametrize("items", [[object()], [{"a": 1}, {"a": 2}], [SimpleNamespace(x=1)]])
def test_items_that_tell_nothing_reach_the_caller_and_the_projection_is_booked(
    guard: Guard, items: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = []
    guard.on(events.append)
    with caplog.at_level(logging.WARNING, "budgetguard"):
        assert list(ask(guard, lambda: iter(items))) == items
    assert "from which no cost can be read" in caplog.text
    assert nanos(guard) == (projected(guard), 0)
    (settled,) = [event for event in events if isinstance(event, Settled)]
    assert settled.estimated


def test_text_in_items_of_no_known_shape_is_a_floor(guard: Guard) -> None:
    items = [SimpleNamespace(delta="some words here ", odd=1)] * 2_000
    assert len(list(ask(guard, lambda: iter(items)))) == 2_000
    assert nanos(guard)[0] >= 6_000 * 2_000, "6 000 tokens at $2 a million"


def test_a_stream_inside_a_dict(guard: Guard) -> None:
    items = [{"messageStart": {}}, {"metadata": {"usage": {"inputTokens": 100, "outputTokens": 10}}}]
    answer = ask(guard, lambda: {"ResponseMetadata": {}, "stream": OnlyIter(items)})
    assert list(answer["stream"]) == items
    assert nanos(guard) == (COST, 0)


def test_what_must_be_entered_is_settled_when_left(guard: Guard) -> None:
    manager = ask(guard, lambda: Entered(CHUNKS))
    assert isinstance(manager, Entered)
    with manager as stream:
        assert list(stream) == CHUNKS
    assert nanos(guard) == (COST, 0)


async def test_what_must_be_entered_asynchronously(guard: Guard) -> None:
    async with ask(guard, lambda: Entered(CHUNKS)) as stream:
        assert [item async for item in stream] == CHUNKS
    assert nanos(guard) == (COST, 0)


def test_what_is_never_entered_costs_nothing(guard: Guard) -> None:
    manager = ask(guard, lambda: Entered(CHUNKS))
    del manager
    gc.collect()
    drain()
    assert nanos(guard) == (0, 0)


def test_an_error_on_entering_ends_the_call(guard: Guard) -> None:
    with (
        pytest.raises(ConnectionRefusedError),
        ask(guard, lambda: Entered([], error=ConnectionRefusedError())),
    ):
        pass
    assert nanos(guard) == (0, 0)


def test_a_usage_of_ones_own_is_asked_about_the_answer_itself(guard: Guard) -> None:
    answer = ask(guard, lambda: Wrapper(CHUNKS), usage=lambda wrapper: (100, 10))
    assert nanos(guard) == (COST, 0)
    assert type(answer) is Wrapper


@pytest.mark.parametrize("answer", [{"a": 1}, [1], SimpleNamespace(x=1)])
def test_a_whole_answer_that_tells_nothing_is_in_the_error(guard: Guard, answer: Any) -> None:
    with pytest.raises(UnpricedAnswerError) as caught:
        ask(guard, lambda: answer)
    assert caught.value.answer is answer
    assert nanos(guard) == (projected(guard), 0)


def test_a_whole_answer_that_reports_nothing_but_has_text_is_not_free(guard: Guard) -> None:
    text = "word " * 500
    answer = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": text}}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
    }
    assert ask(guard, lambda: answer) is answer
    assert nanos(guard)[0] >= 500 * 2_000
