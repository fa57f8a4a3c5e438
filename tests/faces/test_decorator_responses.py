"""`@budgeted` functions that ask for responses, and functions of other providers, free ones among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from budgetguard import ConfigurationError, Guard, UnknownModelError, UnpricedAnswerError
from budgetguard.core.usage import Usage
from budgetguard.pricing.book import PriceBook
from tests.guarded_calls import HELLO, MODEL, completion, make_guard
from tests.provider.server import OpenAIServer, Reply

WEB: Any = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "news"}}
SEARCH: Any = [{"type": "web_search"}]


@pytest.fixture
def guard() -> Guard:
    return make_guard(user="u")


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with (
        OpenAIServer(lambda request: Reply(hosted=[WEB, WEB], text="Two rumours.")) as server,
        openai.OpenAI(base_url=server.base_url, api_key="test") as client,
    ):
        yield client


def booked(guard: Guard) -> Any:
    (call,) = guard.calls()
    return call


def price(call: Any, model: str = "gpt-5") -> int:
    return PriceBook().rates(model).cost(call.usage)


def test_a_response_s_hosted_tools_are_projected_and_their_fees_booked(
    guard: Guard, client: openai.OpenAI
) -> None:
    @guard.budgeted
    def research(question: str, input: Any, tools: Any, model: str = "gpt-5") -> Any:
        return client.responses.create(model=model, input=input, tools=tools)

    answer = research("?", "What is new?", tools=SEARCH)
    call = booked(guard)
    assert call.usage.units["web_searches"] == 2
    assert call.usage.input_tokens == answer.usage.input_tokens
    assert call.cost_nanos == price(call) > 20_000_000  # two searches at a cent each, and tokens
    assert call.amount_nanos > 30_000_000 + PriceBook().rates("gpt-5").cost(Usage.of(input_tokens=12_000))


def test_a_dict_of_a_response_is_read_with_its_fees(guard: Guard, client: openai.OpenAI) -> None:
    @guard.budgeted(model="gpt-5", input="question", max_completion_tokens=300)
    def research(question: str) -> Any:
        return client.responses.create(model="gpt-5", input=question, tools=SEARCH).model_dump()

    research("What is new?")
    assert booked(guard).usage.units["web_searches"] == 2


def test_a_streamed_response_is_settled_by_its_last_event(guard: Guard, client: openai.OpenAI) -> None:
    @guard.budgeted(model="gpt-5")
    def research(prompt: str, tools: Any) -> Any:
        yield from client.responses.create(model="gpt-5", input=prompt, tools=tools, stream=True)

    events = list(research("What is new?", SEARCH))
    assert events[-1].type == "response.completed"
    call = booked(guard)
    assert call.usage.input_tokens == events[-1].response.usage.input_tokens
    assert (call.usage.units["web_searches"], call.cost_nanos) == (2, price(call))


def test_a_stream_of_an_unguarded_client_is_settled_by_its_last_event(
    guard: Guard, client: openai.OpenAI
) -> None:
    @guard.budgeted(model="gpt-5")
    def research(prompt: str, tools: Any) -> Any:
        return client.responses.create(model="gpt-5", input=prompt, tools=tools, stream=True)

    assert list(research("What is new?", SEARCH))
    assert booked(guard).usage.units["web_searches"] == 2


@pytest.mark.parametrize(("model", "least", "most"), [("gpt-4o", 1, 4), ("gpt-5", 4_096, 4_096)])
def test_a_streamed_response_that_is_left_early_costs_what_was_seen_and_what_may_be_hidden(
    guard: Guard, client: openai.OpenAI, model: str, least: int, most: int
) -> None:
    @guard.budgeted(model=model)
    def answer(prompt: str, instructions: str) -> Any:
        yield from client.responses.create(model=model, input=prompt, stream=True)

    stream = answer("What is new?", "Be brief.")
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    call = booked(guard)
    assert call.outcome == "abandoned"
    assert least <= call.usage.output_tokens <= most


def test_text_says_nothing_of_fees_so_the_projection_stands_in(guard: Guard, client: openai.OpenAI) -> None:
    @guard.budgeted(model="gpt-5")
    def research(prompt: str, tools: Any) -> str:
        return client.responses.create(model="gpt-5", input=prompt, tools=tools).output_text

    assert research("What is new?", SEARCH) == "Two rumours."
    call = booked(guard)
    assert call.cost_nanos == call.amount_nanos > 0


@pytest.mark.parametrize("name", ["max_output_tokens", "max_tokens"])
def test_the_cap_of_a_response_is_projected_under_whichever_name(guard: Guard, name: str) -> None:
    @guard.budgeted(model=MODEL, usage=lambda answer: (1, 1))
    def answer(input: str, instructions: str = "Be brief.", **more: Any) -> Any:
        return more

    assert answer("Hello", **{name: 400_000}) == {name: 400_000}
    assert booked(guard).amount_nanos > 800_000_000  # 400 000 output tokens at $2 a million


def test_function_tools_in_the_shape_of_chat_make_no_response(guard: Guard) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

    @guard.budgeted(model=MODEL)
    def ask(messages: Any, tools: Any, max_tokens: int = 10) -> Any:
        return completion()

    ask(HELLO, [tool])
    assert booked(guard).amount_nanos < 1_000_000  # no search is allowed for


def test_the_web_search_of_a_chat_is_charged_although_no_answer_counts_it(guard: Guard) -> None:
    @guard.budgeted(model="gpt-5-search-api")
    def ask(messages: Any, web_search_options: Any) -> Any:
        return completion()

    ask(HELLO, {})
    assert booked(guard).usage.units["web_searches"] == 1


def test_an_unpriced_answer_is_told_of_as_before(guard: Guard) -> None:
    @guard.budgeted(model=MODEL)
    def ask(input: str, instructions: str) -> Any:
        return object()

    with pytest.raises(UnpricedAnswerError):
        ask("Hello", "Be brief.")


# Other providers


def test_a_function_may_say_whose_prices_count(guard: Guard) -> None:
    guard.register_price("their-model", provider="groq", input=1, output=1)

    @guard.budgeted(model="their-model", provider="groq")
    def by_name(prompt: str) -> Any:
        return completion()

    @guard.budgeted(model="their-model", base_url="https://api.groq.com/openai/v1")
    def by_address(prompt: str) -> Any:
        return completion()

    @guard.budgeted(model="their-model")
    def by_nothing(prompt: str) -> Any:
        return completion()

    by_name("Hello")
    by_address("Hello")
    assert [call.cost_nanos for call in guard.calls()] == [110_000, 110_000]  # 110 tokens at $1 a million
    with pytest.raises(UnknownModelError):
        by_nothing("Hello")


def test_a_function_of_a_free_server_costs_nothing_and_needs_no_budget() -> None:
    guard = Guard(store="memory://", user="nobody-knows-me", free_base_urls=["http://localhost:11434/v1"])

    @guard.budgeted(model="llama3.2", base_url="http://localhost:11434/v1")
    def ask(prompt: str) -> Any:
        return completion()

    @guard.budgeted(model="llama3.2", base_url="http://localhost:11435/v1")
    def elsewhere(prompt: str) -> Any:
        return completion()

    ask("Hello")
    call = booked(guard)
    assert (call.cost_nanos, call.usage.input_tokens) == (0, 100)
    with pytest.raises(UnknownModelError, match="free_base_urls"):
        elsewhere("Hello")


def test_a_function_s_model_is_looked_up_in_the_map(guard: Guard) -> None:
    guard.configure(model_map={"chat-prod": MODEL})

    @guard.budgeted
    def ask(prompt: str, model: str = "chat-prod") -> Any:
        return completion()

    ask("Hello")
    assert booked(guard).model == MODEL


@pytest.mark.parametrize("options", [{"provider": ""}, {"base_url": 3}])
def test_a_bad_provider_or_address_is_refused_when_decorating(guard: Guard, options: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be text"):
        guard.budgeted(model=MODEL, **options)(lambda prompt: prompt)
