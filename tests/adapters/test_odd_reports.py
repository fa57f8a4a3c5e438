"""What is told oddly: a sum alone, zeros in any vendor's shape, errors in lists, thinking by parameter."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import openai
import pytest

from budgetguard import BudgetManager, Guard
from budgetguard.pricing.regions import answered_factor
from budgetguard.providers.thinking import thinking_tokens
from tests.adapters.books import HTTP
from tests.adapters.test_stream_ends import (
    ERROR,
    HELLO,
    INPUT,
    OUTPUT,
    PROJECTED_INPUT,
    THINKER,
    THINKERS_OUTPUT,
    answer,
    booked,
    chunk,
    client_of,
    data_of,
    last,
)

CLAUDE = "claude-sonnet-4-5"
CLAUDES_INPUT, CLAUDES_OUTPUT = 3_000, 15_000  # Nanos a token
TEXT = "word " * 100


@pytest.fixture
def guard() -> Guard:
    guard = Guard(store="memory://", project="p")
    for user in ("u", "v"):
        guard.set_budget(100, user=user)
    return guard


def asked(guard: Guard, reply: Any, model: str = CLAUDE, **more: Any) -> int:
    """Return the Nanos booked for a function that answers so."""

    @guard.budgeted
    def ask(messages: Any, model: str = model, **_more: Any) -> Any:
        return reply() if callable(reply) else reply

    before = guard.balance("u").spent_nanos
    with guard.budget_user("u"):
        got = ask(HELLO, **more)
        for number, _ in enumerate(got if callable(reply) else (), 1):
            if number == 3:
                got.close()
                break
    assert guard.balance("u").held_nanos == 0
    return int(guard.balance("u").spent_nanos - before)


def posted(guard: Guard, reply: Any, **more: Any) -> int:
    """Return the Nanos booked for an answer by `update_cost`."""
    before = guard.balance("v").spent_nanos
    BudgetManager("p", guard=guard).update_cost("v", completion_obj=reply, **more)
    return int(guard.balance("v").spent_nanos - before)


# --- a sum alone ---


@pytest.mark.parametrize("stream", [False, True])
def test_a_sum_is_split_by_the_text_that_was_seen(stream: bool) -> None:
    told = {"total_tokens": 1_600}
    body: Any = answer(told, TEXT)
    if stream:
        body = data_of(chunk(TEXT), chunk(finish="stop"), last(told))
    assert booked(body).cost_nanos == 1_499 * INPUT + 101 * OUTPUT


def test_of_a_sum_that_a_model_thought_for_all_but_the_input_is_output() -> None:
    body = answer({"total_tokens": 1_600}, TEXT)
    call = booked(body, model=THINKER)
    assert call.usage.output_tokens == 1_560
    assert call.cost_nanos == 1_560 * THINKERS_OUTPUT + 40 * 1_250


@pytest.mark.parametrize("told", [{"total_tokens": 70}, {"prompt_tokens": 0, "total_tokens": 70}])
def test_the_sum_of_embeddings_is_input(told: dict[str, int]) -> None:
    data = [{"object": "embedding", "index": 0, "embedding": [0.1]}]
    body = {"object": "list", "model": "m", "data": data, "usage": told}
    with client_of(body) as (guard, client):
        client.embeddings.create(model="text-embedding-3-small", input="hello", encoding_format="float")
        assert guard.balance("u").spent_nanos == 70 * 20


def test_a_sum_is_booked_by_update_cost(guard: Guard) -> None:
    reply = answer({"total_tokens": 1_600}, TEXT, model="gpt-4o-mini")
    assert posted(guard, reply, model="gpt-4o-mini") == 1_499 * INPUT + 101 * OUTPUT


# --- zeros, and texts of other vendors ---

ZEROS: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": (
        CLAUDE,
        {
            "type": "message",
            "role": "assistant",
            "model": CLAUDE,
            "content": [{"type": "text", "text": TEXT}],
            "usage": {"input_tokens": 0, "output_tokens": 0},
        },
    ),
    "gemini": (
        "gemini-2.0-flash",
        {
            "candidates": [{"content": {"parts": [{"text": TEXT}]}}],
            "usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0},
            "modelVersion": "gemini-2.0-flash",
        },
    ),
    "cohere": (
        "command-r-08-2024",
        {
            "message": {"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
            "usage": {"billed_units": {"input_tokens": 0, "output_tokens": 0}},
        },
    ),
}
PRICES = {CLAUDE: (3_000, 15_000), "gemini-2.0-flash": (100, 400), "command-r-08-2024": (150, 600)}


@pytest.mark.parametrize("vendor", ZEROS)
def test_zeros_of_any_vendor_cost_what_the_text_has(guard: Guard, vendor: str) -> None:
    model, reply = ZEROS[vendor]
    read, written = PRICES[model]
    assert asked(guard, reply, model) >= 101 * written + 8 * read
    assert posted(guard, reply, model=model) == 101 * written


def test_a_gemini_sum_alone_costs_more_than_nothing(guard: Guard) -> None:
    reply = {**ZEROS["gemini"][1], "usageMetadata": {"totalTokenCount": 1_600}}
    assert posted(guard, reply) == 1_499 * 100 + 101 * 400


@pytest.mark.parametrize("many", [False, True])
def test_text_of_a_generation_server_is_counted(guard: Guard, many: bool) -> None:
    reply: Any = {"generated_text": TEXT}
    cost = asked(guard, [reply] if many else reply, "gpt-4o-mini")
    assert 101 * OUTPUT < cost <= 101 * OUTPUT + PROJECTED_INPUT * INPUT


def test_cohere_tokens_stand_for_what_is_billed_where_that_is_not_told(guard: Guard) -> None:
    reply = {**ZEROS["cohere"][1], "usage": {"tokens": {"input_tokens": 1_000, "output_tokens": 600}}}
    assert asked(guard, reply, "command-r-08-2024") == 1_000 * 150 + 600 * 600


def test_update_cost_knows_transcripts(guard: Guard) -> None:
    by_time = {"text": "hi", "usage": {"type": "duration", "seconds": 60}}
    assert posted(guard, by_time, model="whisper-1") == 6_000_000
    heard = {"type": "tokens", "input_tokens": 1_000, "output_tokens": 100, "total_tokens": 1_100}
    by_tokens = {"text": "hi", "usage": {**heard, "input_token_details": {"audio_tokens": 1_000}}}
    assert posted(guard, by_tokens, model="gpt-4o-transcribe") == 1_000 * 2_500 + 100 * 10_000
    assert posted(guard, by_tokens, model="gpt-audio") > posted(
        guard, {"text": "hi", "usage": heard}, model="gpt-audio"
    )


@pytest.mark.parametrize("cost", [0, "0", 0.0])
def test_a_bill_of_nothing_is_not_believed_by_update_cost(guard: Guard, cost: object) -> None:
    reply = answer({"prompt_tokens": 10, "completion_tokens": 5, "cost": cost}, model="gpt-4o-mini")
    assert posted(guard, reply) == 10 * INPUT + 5 * OUTPUT


# --- what a provider billed ---


def test_a_bill_is_read_from_text_and_is_a_floor_of_a_stream_that_is_left() -> None:
    told = {"prompt_tokens": 10, "completion_tokens": 5, "cost": "0.02"}
    bodies: list[Any] = [answer(told), data_of(chunk("word", usage=told), chunk("word"), done=False)]
    for body in bodies:
        with client_of(body, base_url="https://openrouter.ai/api/v1") as (guard, client):
            stream = isinstance(body, bytes)
            got = client.chat.completions.create(model="openai/gpt-4o-mini", messages=HELLO, stream=stream)
            if stream:
                next(iter(got))
                got.close()
            assert guard.balance("u").spent_nanos == 20_000_000


@pytest.mark.parametrize(
    ("model", "region", "right"),
    [
        ("claude-opus-4-6", "us", 11_000),
        ("claude-opus-5", "us", 11_000),
        ("claude-opus-4-6", "global", 10_000),
        ("claude-opus-4-5-20251101", "us", 10_000),
        ("claude-sonnet-4-20250514", "us", 10_000),
        ("claude-3-7-sonnet-latest", "us", 10_000),
    ],
)
def test_claude_costs_more_where_it_was_told_to_stay(model: str, region: str, right: int) -> None:
    assert 10_000 * answered_factor("anthropic", region, model) == right
    assert answered_factor("openai", region, model) == 1


def test_where_claude_ran_is_read_and_tools_cost_the_same_there(guard: Guard) -> None:
    used = {"input_tokens": 1_000, "output_tokens": 600, "inference_geo": "us"}
    used["server_tool_use"] = {"web_search_requests": 2}
    reply = {**ZEROS["anthropic"][1], "model": "claude-opus-4-6", "usage": used}
    right = (1_000 * 5_000 + 600 * 25_000) * 11 // 10 + 20_000_000
    assert asked(guard, reply, "claude-opus-4-6") == posted(guard, reply) == right


# --- errors ---


@pytest.mark.parametrize(
    "body",
    [
        [ERROR],
        {"object": "error", "message": "bad", "code": 400},
        {**ERROR, "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
        data_of([ERROR]),
    ],
)
def test_an_error_in_a_list_or_with_zeros_costs_nothing(body: Any) -> None:
    with client_of(body) as (guard, client):
        got = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=type(body) is bytes)
        if type(body) is bytes:
            list(got)
        assert (guard.balance("u").spent_nanos, guard.balance("u").held_nanos) == (0, 0)


@pytest.mark.parametrize("reply", [ERROR, lambda: iter([ERROR])], ids=["whole", "streamed"])
def test_a_function_that_answers_with_an_api_error_costs_nothing(guard: Guard, reply: Any) -> None:
    assert asked(guard, reply) == 0


# --- thinking by a parameter ---


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 8_000}}, 8_000),
        ({"thinking": {"type": "adaptive"}}, 0),
        ({"thinking": {"type": "disabled"}}, None),
        ({"thinking": None, "reasoning_effort": "none"}, None),
        ({"reasoning_effort": "high"}, 0),
        ({"reasoning": {"max_tokens": 2_000}}, 2_000),
        ({"reasoning": {"enabled": True}}, 0),
        ({"reasoning": {"effort": "none"}}, None),
        ({"extra_body": {"enable_thinking": True}}, 0),
        ({"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}, None),
        ({"extra_body": {"google": {"thinking_config": {"thinking_budget": 500}}}}, 500),
        ({"config": {"thinking_config": {"thinking_budget": 0}}}, None),
        ({"generationConfig": {"thinkingConfig": {"thinkingBudget": -1}}}, 0),
        ({"config": "thinking"}, None),
        ({"thinking": 5}, None),
    ],
)
def test_what_asks_for_thinking(body: dict[str, Any], tokens: int | None) -> None:
    assert thinking_tokens(body) == tokens


def pieces() -> list[dict[str, Any]]:
    message = {**ZEROS["anthropic"][1], "content": [], "usage": {"input_tokens": 1_000, "output_tokens": 1}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
    return [{"type": "message_start", "message": message}, *[delta] * 9]


def test_who_thinks_by_a_parameter_is_booked_as_projected_where_its_stream_is_left(guard: Guard) -> None:
    make: Callable[[], Any] = lambda: (piece for piece in pieces())  # noqa: E731
    thinking = {"type": "enabled", "budget_tokens": 8_000}
    left = asked(guard, make, thinking=thinking, max_tokens=9_000)
    assert left == 1_000 * CLAUDES_INPUT + 9_000 * CLAUDES_OUTPUT
    assert asked(guard, make, thinking=thinking) >= 1_000 * CLAUDES_INPUT + 8_000 * CLAUDES_OUTPUT
    assert asked(guard, make) < 1_000 * CLAUDES_INPUT + 20 * CLAUDES_OUTPUT


# --- encodings ---


@pytest.mark.parametrize("coding", ["gzip, gzip", "identity, gzip", "gzip,gzip,gzip"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_body_in_any_encoding_that_httpx_knows_is_read(coding: str, stream: bool) -> None:
    told = {"prompt_tokens": 1_000, "completion_tokens": 600}
    body = data_of(chunk("word"), chunk(finish="stop"), last(told))
    if not stream:
        body = HTTP.Response(200, json=answer(told)).content
    for _ in range(coding.count("gzip")):
        body = gzip.compress(body)
    headers = {"content-encoding": coding, "content-type": "text/event-stream" if stream else "text/json"}
    guard = Guard(store="memory://")
    guard.set_budget(100, user="u")
    transport = HTTP.MockTransport(lambda _: HTTP.Response(200, headers=headers, content=iter([body])))
    with HTTP.Client(transport=transport) as http, guard.budget_user("u"):
        client = guard.wrap(openai.OpenAI(api_key="k", http_client=http))
        got = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=stream)
        if stream:
            assert [len(one.choices) for one in got] == [1, 1]
        assert guard.balance("u").spent_nanos == 1_000 * INPUT + 600 * OUTPUT
