"""Answers of every vendor's shape: what is read of whole ones, and of the pieces of streams."""

from __future__ import annotations

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from budgetguard.core.usage import Usage
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.answer_shapes import ItemAccumulator, read_answer, recognised
from budgetguard.providers.frameworks import litellm_cost

CLAUDE = "claude-sonnet-4-5"
TEXT = "word " * 200


def anthropic(**usage: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "hi"}]
    return {
        "id": "msg",
        "type": "message",
        "role": "assistant",
        "model": CLAUDE,
        "content": content,
        "usage": usage,
    }


def openai(**usage: Any) -> dict[str, Any]:
    return {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": usage}


WHOLE: dict[str, tuple[Any, dict[str, int]]] = {
    "anthropic": (
        anthropic(
            input_tokens=10,
            output_tokens=50,
            cache_read_input_tokens=200,
            cache_creation_input_tokens=100,
            cache_creation={"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
            output_tokens_details={"thinking_tokens": 20},
            server_tool_use={"web_search_requests": 3},
        ),
        {
            "input_tokens": 310,
            "output_tokens": 50,
            "cache_read_tokens": 200,
            "cache_write_tokens": 100,
            "cache_write_5m_tokens": 60,
            "cache_write_1h_tokens": 40,
            "output_reasoning_tokens": 20,
            "web_searches": 3,
        },
    ),
    "anthropic, without a type": (
        SimpleNamespace(
            model=CLAUDE,
            usage=SimpleNamespace(
                input_tokens=10,
                output_tokens=5,
                cache_creation_input_tokens=None,
                cache_read_input_tokens=90,
            ),
        ),
        {"input_tokens": 100, "output_tokens": 5, "cache_read_tokens": 90},
    ),
    "anthropic, compacted on the way": (
        anthropic(
            input_tokens=10,
            output_tokens=5,
            iterations=[
                {"type": "compaction", "input_tokens": 1_000, "output_tokens": 100},
                {"type": "message", "input_tokens": 10, "output_tokens": 5},
            ],
        ),
        {"input_tokens": 1_010, "output_tokens": 105},
    ),
    "gemini": (
        {
            "modelVersion": "gemini-2.5-flash",
            "candidates": [{"groundingMetadata": {"webSearchQueries": ["a", "b"]}}],
            "usageMetadata": {
                "promptTokenCount": 100,
                "toolUsePromptTokenCount": 20,
                "cachedContentTokenCount": 50,
                "candidatesTokenCount": 10,
                "thoughtsTokenCount": 90,
                "totalTokenCount": 220,
                "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 7}],
            },
        },
        {
            "input_tokens": 120,
            "output_tokens": 100,
            "cache_read_tokens": 50,
            "output_reasoning_tokens": 90,
            "input_audio_tokens": 7,
            "web_searches": 1,
        },
    ),
    "gemini 3, each query": (
        {
            "modelVersion": "gemini-3-pro-preview",
            "candidates": [{"groundingMetadata": {"webSearchQueries": ["a", "b"]}}],
            "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
        },
        {"input_tokens": 1, "output_tokens": 1, "web_searches": 2},
    ),
    "gemini, thinking that only the total shows": (
        SimpleNamespace(
            candidates=None,
            usage_metadata=SimpleNamespace(
                prompt_token_count=35, candidates_token_count=12, total_token_count=109
            ),
        ),
        {"input_tokens": 35, "output_tokens": 74},
    ),
    "bedrock": (
        {
            "output": {},
            "usage": {
                "inputTokens": 3,
                "outputTokens": 5,
                "totalTokens": 1,
                "cacheReadInputTokens": 20,
                "cacheWriteInputTokens": 30,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 30}],
            },
        },
        {
            "input_tokens": 53,
            "output_tokens": 5,
            "cache_read_tokens": 20,
            "cache_write_tokens": 30,
            "cache_write_1h_tokens": 30,
        },
    ),
    "cohere": (
        {
            "id": "c",
            "message": {},
            "usage": {
                "billed_units": {"input_tokens": 51.0, "output_tokens": 13.0},
                "tokens": {"input_tokens": 1_533, "output_tokens": 36},
            },
        },
        {"input_tokens": 51, "output_tokens": 13},
    ),
    "cohere's embeddings": (
        {"embeddings": [], "meta": {"billed_units": {"input_tokens": 4}}},
        {"input_tokens": 4},
    ),
    "voyage's embeddings": (
        {"object": "list", "data": [], "model": "voyage-3.5", "usage": {"total_tokens": 9}},
        {"input_tokens": 9},
    ),
    "langchain": (
        SimpleNamespace(
            content="hi",
            additional_kwargs={},
            response_metadata={"model_name": CLAUDE},
            usage_metadata={
                "input_tokens": 310,
                "output_tokens": 50,
                "input_token_details": {
                    "cache_read": 200,
                    "cache_creation": 0,
                    "ephemeral_5m_input_tokens": 60,
                    "ephemeral_1h_input_tokens": 40,
                },
                "output_token_details": {"reasoning": 20},
            },
        ),
        {
            "input_tokens": 310,
            "output_tokens": 50,
            "cache_read_tokens": 200,
            "cache_write_tokens": 100,
            "cache_write_5m_tokens": 60,
            "cache_write_1h_tokens": 40,
            "output_reasoning_tokens": 20,
        },
    ),
    "llama-index": (
        SimpleNamespace(text="hi", delta=None, raw=anthropic(input_tokens=1, output_tokens=2)),
        {"input_tokens": 1, "output_tokens": 2},
    ),
    "the agents sdk": (
        SimpleNamespace(
            context_wrapper=SimpleNamespace(
                usage=SimpleNamespace(
                    requests=2,
                    input_tokens=100,
                    output_tokens=10,
                    total_tokens=110,
                    input_tokens_details=SimpleNamespace(cached_tokens=60),
                )
            )
        ),
        {"input_tokens": 100, "output_tokens": 10, "cache_read_tokens": 60},
    ),
    "ollama": (
        {"model": "llama3", "done": True, "prompt_eval_count": 10, "eval_count": 5, "response": "hi"},
        {"input_tokens": 10, "output_tokens": 5},
    ),
    "xai's own": (
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "reasoning_tokens": 20,
                "cached_prompt_text_tokens": 4,
            }
        },
        {"input_tokens": 10, "output_tokens": 25, "cache_read_tokens": 4, "output_reasoning_tokens": 20},
    ),
    "litellm, of anthropic": (
        SimpleNamespace(
            object="chat.completion",
            choices=[],
            model=CLAUDE,
            _hidden_params={"custom_llm_provider": "anthropic"},
            usage={
                "prompt_tokens": 310,
                "completion_tokens": 50,
                "cache_creation_input_tokens": 100,
                "prompt_tokens_details": {
                    "cached_tokens": 200,
                    "cache_creation_tokens": 100,
                    "cache_creation_token_details": {"ephemeral_1h_input_tokens": 40},
                },
                "server_tool_use": {"web_search_requests": 1},
            },
        ),
        {
            "input_tokens": 310,
            "output_tokens": 50,
            "cache_read_tokens": 200,
            "cache_write_tokens": 100,
            "cache_write_1h_tokens": 40,
            "web_searches": 1,
        },
    ),
    "openai": (openai(prompt_tokens=10, completion_tokens=5), {"input_tokens": 10, "output_tokens": 5}),
}


@pytest.mark.parametrize(("answer", "units"), WHOLE.values(), ids=WHOLE)
def test_a_whole_answer_is_read_whole(answer: Any, units: dict[str, int]) -> None:
    said = read_answer(answer)
    assert said.usage == Usage(units)
    assert said.unsaid == frozenset()
    if isinstance(answer, dict):
        assert read_answer(json.dumps(answer)) == said


@pytest.mark.parametrize(
    "answer",
    [
        SimpleNamespace(tokens=5, cost=1),
        {"usage": {"input": 5, "output": 6}},
        {"delta": "text", "usage": 12},
        {"meta": {"billed_units": {"search_units": 1}}},
        {"type": "text", "text": "hi"},
        {"message": "hi"},
        [1, 2],
        None,
        object(),
    ],
)
def test_what_is_of_no_known_shape_is_not_read(answer: Any) -> None:
    assert read_answer(answer).usage is None


def test_a_property_that_fails_is_a_field_that_is_absent() -> None:
    class Odd:
        @property
        def usage(self) -> object:
            raise ValueError("not yet")

    assert read_answer(Odd()).usage is None


@pytest.mark.parametrize(
    ("usage", "tier", "usd"),
    [
        ({}, None, "0.00033"),
        ({"service_tier": "standard"}, None, "0.00033"),
        ({"service_tier": "priority"}, None, "0.00033"),
        ({"service_tier": "batch"}, "batch", "0.000165"),
    ],
)
def test_anthropics_tiers(usage: dict[str, Any], tier: str | None, usd: str) -> None:
    said = read_answer(anthropic(input_tokens=10, output_tokens=20, **usage))
    assert said.tier == tier
    assert said.usage is not None
    cost = PriceBook().rates(CLAUDE, provider="anthropic", tier=said.tier).cost(said.usage)
    assert Decimal(cost) / 10**9 == Decimal(usd)


ANTHROPIC_EVENTS = [
    {
        "type": "message_start",
        "message": anthropic(input_tokens=10, cache_read_input_tokens=90, output_tokens=1),
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
    {"type": "text", "text": TEXT, "snapshot": TEXT},  # the SDK's helper: the same again
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 300}},
]
STREAMS: dict[str, tuple[list[Any], dict[str, int]]] = {
    "anthropic": (ANTHROPIC_EVENTS, {"input_tokens": 100, "output_tokens": 300, "cache_read_tokens": 90}),
    "anthropic, input at the end too": (
        [
            ANTHROPIC_EVENTS[0],
            {
                "type": "message_delta",
                "delta": {},
                "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 3},
            },
        ],
        {"input_tokens": 100, "output_tokens": 3, "cache_read_tokens": 90},
    ),
    "gemini, the last counts all": (
        [
            {"candidates": [], "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": n}}
            for n in (1, 5, 8)
        ],
        {"input_tokens": 9, "output_tokens": 8},
    ),
    "bedrock": (
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "hi"}, "contentBlockIndex": 0}},
            {"metadata": {"usage": {"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokens": 30}}},
        ],
        {"input_tokens": 31, "output_tokens": 2, "cache_read_tokens": 30},
    ),
    "cohere": (
        [
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "hi"}}}},
            {
                "type": "message-end",
                "delta": {"usage": {"billed_units": {"input_tokens": 5, "output_tokens": 2}}},
            },
        ],
        {"input_tokens": 5, "output_tokens": 2},
    ),
    "cohere v1": (
        [
            {"event_type": "text-generation", "text": "hi"},
            {
                "event_type": "stream-end",
                "response": {"meta": {"billed_units": {"input_tokens": 5, "output_tokens": 2}}},
            },
        ],
        {"input_tokens": 5, "output_tokens": 2},
    ),
    "langchain, each a part": (
        [
            SimpleNamespace(
                content="hi",
                additional_kwargs={},
                response_metadata={},
                usage_metadata={"input_tokens": i, "output_tokens": o},
            )
            for i, o in ((10, 0), (0, 3), (0, 4))
        ],
        {"input_tokens": 10, "output_tokens": 7},
    ),
    "llama-index over anthropic": (
        [
            SimpleNamespace(message="hi", delta="hi", raw=ANTHROPIC_EVENTS[0]),
            SimpleNamespace(message="hi", delta="", raw=ANTHROPIC_EVENTS[3]),
        ],
        {"input_tokens": 100, "output_tokens": 300, "cache_read_tokens": 90},
    ),
    "groq": (
        [
            {"choices": [{"index": 0, "delta": {"content": "hi"}}]},
            {"choices": [], "x_groq": {"usage": {"prompt_tokens": 4, "completion_tokens": 2}}},
        ],
        {"input_tokens": 4, "output_tokens": 2},
    ),
    "mistral's events": (
        [
            SimpleNamespace(
                data=SimpleNamespace(choices=[], usage={"prompt_tokens": 4, "completion_tokens": 2})
            )
        ],
        {"input_tokens": 4, "output_tokens": 2},
    ),
    "the agents sdk's raw events": (
        [
            SimpleNamespace(
                type="raw_response_event",
                data={
                    "type": "response.completed",
                    "response": {
                        "object": "response",
                        "status": "completed",
                        "usage": {"input_tokens": 4, "output_tokens": 2},
                    },
                },
            )
        ],
        {"input_tokens": 4, "output_tokens": 2},
    ),
    "ollama": (
        [
            {"message": {"content": "hi"}, "done": False},
            {"message": {"content": ""}, "done": True, "prompt_eval_count": 3, "eval_count": 2},
        ],
        {"input_tokens": 3, "output_tokens": 2},
    ),
}


@pytest.mark.parametrize(("items", "units"), STREAMS.values(), ids=STREAMS)
def test_the_pieces_of_a_stream_are_added_up(items: list[Any], units: dict[str, int]) -> None:
    tally = ItemAccumulator("gpt-4o-mini")
    for item in items:
        tally.feed(item)
    assert tally.reported is not None
    assert tally.reported.usage == Usage(units)
    assert tally.unread is None


def test_what_a_stream_told_first_counts_though_it_is_left() -> None:
    tally = ItemAccumulator(CLAUDE)
    for item in ANTHROPIC_EVENTS[:3]:
        tally.feed(item)
    said = tally.reported
    assert said is not None
    assert said.usage == Usage({"input_tokens": 100, "output_tokens": 1, "cache_read_tokens": 90})
    assert said.unsaid == {"output_tokens"}, "how much it writes is not known yet"
    assert not tally.told
    assert tally.seen_tokens() > 200


def test_text_that_each_piece_repeats_counts_once() -> None:
    tally = ItemAccumulator("gpt-4o-mini")
    for n in range(1, 101):
        tally.feed(SimpleNamespace(text="word " * n))
    assert tally.unread is SimpleNamespace
    assert 100 <= tally.seen_tokens() <= 101


@pytest.mark.parametrize(
    ("hidden", "nanos"),
    [
        ({"response_cost": 1.35e-05, "custom_llm_provider": "openai"}, 13_500),
        ({"response_cost": 0.0, "custom_llm_provider": "huggingface"}, None),
        ({"response_cost": 0.0, "custom_llm_provider": "ollama"}, 0),
        ({"response_cost": None}, None),
        ({"response_cost": float("nan")}, None),
        ({"response_cost": 1e300}, None),
        ({}, None),
    ],
)
def test_what_litellm_computed(hidden: dict[str, Any], nanos: int | None) -> None:
    assert litellm_cost(SimpleNamespace(_hidden_params=hidden)) == nanos


def test_an_answer_that_wraps_itself_ends_somewhere() -> None:
    endless = SimpleNamespace(text="", delta=None)
    endless.raw = endless
    assert read_answer(endless).usage is None
    around: tuple[Any, Any] = (SimpleNamespace(additional_kwargs={}, response_metadata={}), {})
    assert recognised(around)[0] is not None
