"""`@budgeted` on every kind of function, and what it makes of their answers."""

import asyncio
import contextlib
import functools
import gc
import inspect
from decimal import Decimal
from typing import Any

import pytest
from openai.types import CompletionUsage, CreateEmbeddingResponse, Embedding
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.create_embedding_response import Usage as EmbeddingUsage

from budgetguard import (
    BudgetExceededError,
    ConfigurationError,
    Guard,
    UnpricedAnswerError,
    Usage,
    budget_user,
)
from budgetguard.events import Projected
from budgetguard.tokens.text import count_text, encoding_for
from tests.guarded_calls import HELLO, MODEL, StatusError, completion, drain, make_guard, nanos, record

COST = 120_000
"""What `completion()` costs, Nanos: 100 tokens in, 10 out."""


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


def projected(guard: Guard) -> int:
    """Return what the one call that was made was held for, Nanos."""
    (record,) = guard.calls()
    return record.amount_nanos


# What kinds of functions


def test_bare_and_with_arguments_on_a_sync_function(guard: Guard) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    @guard.budgeted(model=MODEL, user="v", input="question")
    def other(question: str) -> Any:
        return completion()

    guard.set_budget(1, user="v")
    assert ask(HELLO) == completion()
    assert other("why?") == completion()
    assert nanos(guard) == (COST, 0)
    assert nanos(guard, "v") == (COST, 0)


async def test_on_an_async_function(guard: Guard) -> None:
    @guard.budgeted
    async def ask(messages: Any, model: str = MODEL) -> Any:
        await asyncio.sleep(0)
        assert nanos(guard)[1] > 0, "held while it runs"
        return completion()

    assert await ask(HELLO) == completion()
    assert nanos(guard) == (COST, 0)


def bot_class(guard: Guard) -> type:
    class Bot:
        prefix = "class:"

        def __init__(self) -> None:
            self.prefix = "object:"

        @guard.budgeted(usage=lambda answer: (100, 10))
        def method(self, messages: Any, model: str = MODEL) -> str:
            return self.prefix + messages

        @guard.budgeted(usage=lambda answer: (100, 10))
        async def async_method(self, messages: Any, model: str = MODEL) -> str:
            return self.prefix + messages

        @guard.budgeted(usage=lambda answer: (100, 10))
        @classmethod
        def outside_class(cls, messages: Any, model: str = MODEL) -> str:
            return cls.prefix + messages

        @classmethod
        @guard.budgeted(usage=lambda answer: (100, 10))
        def inside_class(cls, messages: Any, model: str = MODEL) -> str:
            return cls.prefix + messages

        @guard.budgeted(usage=lambda answer: (100, 10))
        @staticmethod
        def outside_static(messages: Any, model: str = MODEL) -> str:
            return "static:" + messages

        @staticmethod
        @guard.budgeted(usage=lambda answer: (100, 10))
        def inside_static(messages: Any, model: str = MODEL) -> str:
            return "static:" + messages

        @guard.budgeted(usage=lambda answer: (100, 10))
        def anything(*args: Any, **kwargs: Any) -> str:
            return args[0].prefix + kwargs["messages"]

    return Bot


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("method", "object:hi"),
        ("outside_class", "class:hi"),
        ("inside_class", "class:hi"),
        ("outside_static", "static:hi"),
        ("inside_static", "static:hi"),
    ],
)
def test_on_methods_of_every_binding(guard: Guard, name: str, answer: str) -> None:
    bot = bot_class(guard)()
    assert getattr(bot, name)("hi") == answer
    assert getattr(bot, name)(messages="hi", model=MODEL) == answer
    assert nanos(guard) == (2 * COST, 0)


def test_on_a_method_called_through_its_class_or_bound_beforehand(guard: Guard) -> None:
    kind = bot_class(guard)
    assert kind.method(kind(), "hi") == "object:hi"
    assert guard.budgeted(bot_class(guard)().method)("hi") == "object:hi"
    assert kind().anything(messages="hi", model=MODEL) == "object:hi"


async def test_on_an_async_method(guard: Guard) -> None:
    bot = bot_class(guard)()
    assert inspect.iscoroutinefunction(bot.async_method)
    assert await bot.async_method("hi") == "object:hi"
    assert nanos(guard) == (COST, 0)


async def test_on_callable_objects_and_partials(guard: Guard) -> None:
    class Asker:
        async def __call__(self, messages: Any, model: str = MODEL) -> Any:
            return completion()

    def ask(messages: Any, model: str) -> Any:
        return completion()

    assert await guard.budgeted(Asker())(HELLO) == completion()
    assert guard.budgeted(functools.partial(ask, model=MODEL))(HELLO) == completion()
    assert nanos(guard) == (2 * COST, 0)


def test_what_python_says_of_the_function_stays_true(guard: Guard) -> None:
    def ask(messages: list[dict[str, str]], model: str = MODEL) -> str:
        """Ask."""
        return ""

    async def later(messages: Any, model: str = MODEL) -> str:
        return ""

    def items(messages: Any, model: str = MODEL) -> Any:
        yield ""

    async def async_items(messages: Any, model: str = MODEL) -> Any:
        yield ""

    assert inspect.signature(guard.budgeted(ask)) == inspect.signature(ask)
    assert guard.budgeted(ask).__name__ == "ask"
    assert guard.budgeted(ask).__doc__ == "Ask."
    assert inspect.iscoroutinefunction(guard.budgeted(later))
    assert inspect.isgeneratorfunction(guard.budgeted(items))
    assert inspect.isasyncgenfunction(guard.budgeted(async_items))
    assert inspect.isfunction(guard.budgeted(ask))


# Which input


@pytest.mark.parametrize("name", ["messages", "prompt", "input"])
def test_the_input_is_found_under_its_usual_names(guard: Guard, name: str) -> None:
    namespace: dict[str, Any] = {"completion": completion}
    exec(f"def ask(model, {name}): return completion()", namespace)
    guard.budgeted(namespace["ask"])(MODEL, "Say hello.")
    assert nanos(guard) == (COST, 0)


def test_a_callable_makes_the_input_of_the_arguments(guard: Guard) -> None:
    seen = []

    def build(question: str, *, style: str = "short") -> Any:
        seen.append((question, style))
        return [{"role": "system", "content": style}, {"role": "user", "content": question * 1000}]

    @guard.budgeted(model=MODEL, input=build)
    def ask(question: str, *, style: str = "short") -> Any:
        return completion()

    ask("why? ", style="long")
    assert seen == [("why? ", "long")]
    assert projected(guard) > 2_000 * 1_000, "projected from what the callable made"


def test_the_cap_of_the_function_or_of_the_decorator_is_projected(guard: Guard) -> None:
    @guard.budgeted(max_completion_tokens=7)
    def capped(messages: Any, model: str = MODEL) -> Any:
        return completion()

    @guard.budgeted
    def caps(messages: Any, model: str = MODEL, max_completion_tokens: int = 507) -> Any:
        return completion()

    @guard.budgeted
    def free(messages: Any, model: str = MODEL) -> Any:
        return completion()

    events = record(guard)
    capped(HELLO)
    caps(HELLO)
    free(HELLO)
    first, second, third = [event.cost for event in events if isinstance(event, Projected)]
    assert second - first == Decimal("0.001")
    assert third - first == Decimal(1_024 - 7) * 2 / 1_000_000


# Which answers


def openai_answer() -> ChatCompletion:
    return ChatCompletion.model_validate(
        {
            **completion(),
            "object": "chat.completion",
            "created": 1,
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello!"}}
            ],
        }
    )


def embedding_answer() -> CreateEmbeddingResponse:
    return CreateEmbeddingResponse(
        data=[Embedding(embedding=[0.5], index=0, object="embedding")],
        model=MODEL,
        object="list",
        usage=EmbeddingUsage(prompt_tokens=120, total_tokens=120),
    )


@pytest.mark.parametrize(
    "answer",
    [completion(), openai_answer(), embedding_answer(), CompletionUsage],
    ids=["dict", "chat", "embedding", "parts"],
)
def test_answers_that_report_usage_cost_what_they_report(guard: Guard, answer: Any) -> None:
    if answer is CompletionUsage:
        answer = {"usage": CompletionUsage(prompt_tokens=100, completion_tokens=10, total_tokens=110)}

    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        return answer

    assert ask(HELLO) is answer
    assert nanos(guard) == (COST, 0)


def test_text_costs_its_tokens_and_those_of_the_input(guard: Guard) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> str:
        return "Hello there, how are you? " * 20

    ask(HELLO)
    spent, held = nanos(guard)
    output = count_text("Hello there, how are you? " * 20, encoding_for(MODEL)) * 2_000
    assert output < spent < output + 40 * 1_000
    assert held == 0


def test_texts_to_embed_are_projected_without_output(guard: Guard) -> None:
    @guard.budgeted
    def embed(input: list[str], model: str = MODEL) -> Any:
        return embedding_answer()

    embed(["one", "two"])
    assert projected(guard) < 100 * 1_000
    assert nanos(guard) == (COST, 0)


@pytest.mark.parametrize("read", [lambda answer: (100, 10), lambda answer: Usage.of(input_tokens=120)])
def test_usage_reads_what_nothing_else_can(guard: Guard, read: Any) -> None:
    @guard.budgeted(usage=read)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return object()

    ask(HELLO)
    assert nanos(guard) == (COST, 0)


@pytest.mark.parametrize("kind", ["sync", "async", "generator", "async generator"])
async def test_an_answer_without_a_price_is_booked_as_projected_and_says_what_to_pass(
    guard: Guard, kind: str
) -> None:
    async def later(messages: Any, model: str = MODEL) -> Any:
        return object()

    async def async_items(messages: Any, model: str = MODEL) -> Any:
        yield object()

    def items(messages: Any, model: str = MODEL) -> Any:
        yield object()

    function = {
        "sync": lambda messages, model=MODEL: object(),
        "async": later,
        "generator": items,
        "async generator": async_items,
    }[kind]
    ask = guard.budgeted(function)

    async def run() -> None:
        answer = ask(HELLO)
        if kind == "async":
            await answer
        elif kind != "sync":
            await collect(answer)

    with pytest.raises(UnpricedAnswerError, match=r"answered with object.*@budgeted\(usage=f\)"):
        await run()
    assert nanos(guard) == (projected(guard), 0)


# Errors


def test_the_providers_own_refusal_costs_nothing_and_comes_out_as_it_is(guard: Guard) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        raise StatusError(429)

    with pytest.raises(StatusError):
        ask(HELLO)
    assert nanos(guard) == (0, 0)


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError()])
def test_a_connection_that_never_was_costs_nothing_and_a_timeout_what_was_projected(
    guard: Guard, error: Exception
) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        raise RuntimeError("the SDK's own error") from error

    with pytest.raises(RuntimeError):
        ask(HELLO)
    never_sent = isinstance(error, ConnectionRefusedError)
    assert nanos(guard) == (0 if never_sent else projected(guard), 0)


def test_a_refused_call_does_not_run_the_function(guard: Guard) -> None:
    guard.set_budget(0, user="u")
    ran = []

    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        ran.append(True)

    with pytest.raises(BudgetExceededError):
        ask(HELLO)
    assert ran == []


# Generators


def chunk(text: str | None = None, usage: dict[str, int] | None = None) -> ChatCompletionChunk:
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    return ChatCompletionChunk.model_validate(
        {
            "id": "c",
            "created": 1,
            "model": MODEL,
            "object": "chat.completion.chunk",
            "choices": choices,
            "usage": usage,
        }
    )


REPORTED = chunk(usage={"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110})


def stream(guard: Guard, items: list[Any], *, fail: BaseException | None = None) -> Any:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        yield from items
        if fail is not None:
            raise fail

    return ask(HELLO)


def astream(guard: Guard, items: list[Any], *, fail: BaseException | None = None) -> Any:
    @guard.budgeted
    async def ask(messages: Any, model: str = MODEL) -> Any:
        for item in items:
            yield item
        if fail is not None:
            raise fail

    return ask(HELLO)


async def collect(generator: Any) -> list[Any]:
    if inspect.isasyncgen(generator) or hasattr(generator, "__anext__"):
        return [item async for item in generator]
    return list(generator)


def input_cost(guard: Guard) -> int:
    """Return what an abandoned stream without output costs: its input as projected, Nanos."""
    probe = make_guard(user="u")
    generator = stream(probe, ["", "x"])
    next(generator)
    generator.close()
    return nanos(probe)[0]


both = pytest.mark.parametrize("make", [stream, astream], ids=["generator", "async generator"])


@both
async def test_a_generator_of_chunks_costs_what_its_last_chunk_reports(guard: Guard, make: Any) -> None:
    items = [chunk("Hel"), chunk("lo"), REPORTED]
    assert await collect(make(guard, items)) == items
    assert nanos(guard) == (COST, 0)


@both
async def test_a_generator_of_text_costs_its_tokens(guard: Guard, make: Any) -> None:
    assert await collect(make(guard, ["Hello ", "there"])) == ["Hello ", "there"]
    spent, held = nanos(guard)
    assert 2 * 2_000 < spent < 2 * 2_000 + 40 * 1_000
    assert held == 0


@both
async def test_chunks_that_report_nothing_cost_the_tokens_that_were_seen(guard: Guard, make: Any) -> None:
    await collect(make(guard, [chunk("Hello "), chunk("there")]))
    spent, held = nanos(guard)
    assert 2 * 2_000 < spent < 2 * 2_000 + 40 * 1_000
    assert held == 0


@both
async def test_a_generator_that_nobody_starts_holds_nothing(guard: Guard, make: Any) -> None:
    generator = make(guard, ["x"])
    assert nanos(guard) == (0, 0)
    del generator
    gc.collect()
    drain()
    assert list(guard.calls()) == []


@both
async def test_a_generator_closed_early_costs_the_input_and_what_was_seen(guard: Guard, make: Any) -> None:
    generator = make(guard, ["Hello ", "there", "never"])
    if make is stream:
        assert [next(generator), next(generator)] == ["Hello ", "there"]
        generator.close()
        generator.close()
        assert next(generator, "over") == "over"
    else:
        assert [await anext(generator), await anext(generator)] == ["Hello ", "there"]
        await generator.aclose()
        await generator.aclose()
        assert await anext(generator, "over") == "over"
    assert nanos(guard) == (input_cost(guard) + 2 * 2_000, 0)


@both
async def test_a_generator_dropped_without_closing_is_settled_all_the_same(guard: Guard, make: Any) -> None:
    generator = make(guard, ["Hello ", "never"])
    assert await anext(aiter(generator)) == "Hello " if make is astream else next(generator) == "Hello "
    assert nanos(guard)[1] > 0
    del generator
    gc.collect()
    drain()
    spent, held = nanos(guard)
    assert input_cost(guard) < spent <= input_cost(guard) + 2 * 2_000
    assert held == 0


@both
async def test_an_error_in_the_middle_costs_the_input_and_what_was_seen(guard: Guard, make: Any) -> None:
    with pytest.raises(StatusError):
        await collect(make(guard, ["Hello ", "there"], fail=StatusError(500)))
    assert nanos(guard) == (input_cost(guard) + 2 * 2_000, 0)


@both
async def test_an_error_before_anything_came_is_judged_as_of_any_call(guard: Guard, make: Any) -> None:
    with pytest.raises(StatusError):
        await collect(make(guard, [], fail=StatusError(500)))
    assert nanos(guard) == (0, 0)
    with pytest.raises(TimeoutError):
        await collect(make(guard, [], fail=TimeoutError()))
    assert nanos(guard)[0] > 1_024 * 2_000


@both
async def test_a_refused_generator_raises_when_it_is_started(guard: Guard, make: Any) -> None:
    guard.set_budget(0, user="u")
    generator = make(guard, ["x"])
    with pytest.raises(BudgetExceededError):
        await collect(generator)
    assert nanos(guard) == (0, 0)


async def test_usage_reads_the_last_item_of_a_generator(guard: Guard) -> None:
    @guard.budgeted(usage=lambda item: item["tokens"])
    def ask(messages: Any, model: str = MODEL) -> Any:
        yield {"text": "Hello"}
        yield {"tokens": (100, 10)}

    assert len(list(ask(HELLO))) == 2
    assert nanos(guard) == (COST, 0)


def test_generators_take_what_is_sent_and_thrown_and_return_what_they_return(guard: Guard) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        got = yield "first"
        with contextlib.suppress(KeyError):
            yield got
        yield "caught"
        return "returned"

    generator = ask(HELLO)
    assert next(generator) == "first"
    assert generator.send("sent") == "sent"
    assert generator.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "returned"


async def test_async_generators_take_what_is_sent_and_thrown(guard: Guard) -> None:
    @guard.budgeted
    async def ask(messages: Any, model: str = MODEL) -> Any:
        got = yield "first"
        with contextlib.suppress(KeyError):
            yield got
        yield "caught"

    generator = ask(HELLO)
    assert await anext(generator) == "first"
    assert await generator.asend("sent") == "sent"
    assert await generator.athrow(KeyError()) == "caught"
    assert await anext(generator, "over") == "over"


@both
async def test_an_error_thrown_into_a_generator_that_never_started_costs_nothing(
    guard: Guard, make: Any
) -> None:
    generator = make(guard, ["x"])
    with pytest.raises(KeyError):
        generator.throw(KeyError()) if make is stream else await generator.athrow(KeyError())
    assert list(guard.calls()) == []


async def test_a_task_cancelled_between_chunks_settles_what_was_seen(guard: Guard) -> None:
    waiting = asyncio.Event()

    @guard.budgeted
    async def ask(messages: Any, model: str = MODEL) -> Any:
        yield "Hello "
        waiting.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(collect(ask(HELLO)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    spent, held = nanos(guard)
    assert input_cost(guard) < spent <= input_cost(guard) + 2 * 2_000
    assert held == 0


# Functions that return what goes on


def test_a_function_that_returns_a_generator_is_settled_when_that_ends(guard: Guard) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        return (item for item in [chunk("Hello"), REPORTED])

    generator = ask(HELLO)
    assert nanos(guard) == (0, projected(guard)), "held from the moment at which it was called"
    list(generator)
    assert nanos(guard) == (COST, 0)


async def test_a_function_that_returns_an_awaitable_is_settled_when_that_is_awaited(guard: Guard) -> None:
    async def later() -> Any:
        return completion()

    ask = guard.budgeted(lambda messages, model=MODEL: later())
    awaitable = ask(HELLO)
    assert nanos(guard) == (0, projected(guard))
    assert await awaitable == completion()
    assert nanos(guard) == (COST, 0)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_an_awaitable_that_nobody_awaits_is_given_back(guard: Guard) -> None:
    async def later() -> Any:
        return completion()

    ask = guard.budgeted(lambda messages, model=MODEL: later())
    ask(HELLO)
    gc.collect()
    await asyncio.to_thread(drain)
    assert nanos(guard) == (0, 0)


# What cannot be right is said when decorating


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (lambda question, model: 1, {}, r"no parameter messages, prompt, input.*input=\"question\""),
        (lambda messages: 1, {}, r"no parameter model.*model=\"gpt-4o-mini\""),
        (lambda question, model: 1, {"input": "query"}, "no parameter 'query'.*question, model"),
        (lambda: 1, {"model": "m", "input": "query"}, "of which it has none"),
        (lambda messages: 1, {"model": 4}, "model must be a name such as 'gpt-4o-mini', not 4"),
        (lambda messages: 1, {"model": ""}, "model must be a name"),
        (lambda messages, model: 1, {"input": 4}, "input must be a parameter's name or a callable, not 4"),
        (lambda messages, model: 1, {"usage": 4}, "usage must be a callable"),
        (lambda messages, model: 1, {"user": ""}, "user must not be empty"),
        (lambda messages, model: 1, {"user": 1234}, "user must be text.*write '1234'"),
        (lambda messages, model: 1, {"max_completion_tokens": -1}, "whole number of tokens from 0, not -1"),
        (lambda messages, model: 1, {"max_completion_tokens": 1.5}, "not 1.5"),
        ("no function", {}, "guards functions, and 'no function' is none"),
        (dict, {}, "cannot see the parameters"),
    ],
)
def test_an_option_that_cannot_be_right_is_refused_when_decorating(
    guard: Guard, function: Any, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        guard.budgeted(function, **options) if not options else guard.budgeted(**options)(function)


def test_an_unknown_option_is_refused_when_decorating(guard: Guard) -> None:
    with pytest.raises(TypeError, match="modle"):
        guard.budgeted(modle="x")  # type: ignore[call-overload]  # the mistake


def test_a_call_without_model_or_input_says_so(guard: Guard) -> None:
    @guard.budgeted
    def ask(messages: Any = None, model: Any = None) -> Any:
        return completion()

    with pytest.raises(ConfigurationError, match="called without a model"):
        ask(HELLO)
    with pytest.raises(ConfigurationError, match="called without its input: none of messages, prompt, input"):
        ask(model=MODEL)
    with pytest.raises(TypeError, match="surprise"):
        ask(HELLO, surprise=1)


def test_the_user_of_the_decorator_comes_before_the_current_one(guard: Guard) -> None:
    guard.set_budget(1, user="v")

    @guard.budgeted(user="v")
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    with budget_user("u"):
        ask(HELLO)
    assert nanos(guard, "v") == (COST, 0)
    assert nanos(guard) == (0, 0)
