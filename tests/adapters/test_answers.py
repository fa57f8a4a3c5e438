"""What answers say of their own cost, in every shape that providers use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import NOT_GIVEN
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from budgetguard.core.usage import Reported, Usage
from budgetguard.providers.answers import reported
from budgetguard.providers.openai.chat import ChatAccumulator
from budgetguard.tokens.text import SLICE, count_text

CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "service_tier": "scale",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 7},
        "completion_tokens_details": {
            "reasoning_tokens": 20,
            "audio_tokens": 3,
            "accepted_prediction_tokens": 5,
            "rejected_prediction_tokens": 4,
        },
    },
}
FULL = Usage.of(
    input_tokens=100,
    output_tokens=50,
    cache_read_tokens=64,
    input_audio_tokens=7,
    output_reasoning_tokens=20,
    output_audio_tokens=3,
)


@pytest.mark.parametrize(
    "answer",
    [CHAT, ChatCompletion.construct(**CHAT), ChatCompletion.model_validate(CHAT), json.dumps(CHAT)],
    ids=["mapping", "constructed", "validated", "json"],
)
def test_an_answer_is_read_in_every_form(answer: object) -> None:
    assert reported(answer) == Reported(FULL, "gpt-4o-2024-08-06", "scale", "chatcmpl-1")


def test_the_counts_of_responses_are_the_same_units() -> None:
    usage = {
        "input_tokens": 100,
        "output_tokens": 50,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 9},
        "output_tokens_details": {"reasoning_tokens": 20},
    }
    assert reported({"usage": usage}).usage == Usage.of(
        input_tokens=100,
        output_tokens=50,
        cache_read_tokens=64,
        cache_write_tokens=9,
        output_reasoning_tokens=20,
    )


def test_embeddings_have_no_output() -> None:
    answer = CreateEmbeddingResponse.construct(usage={"prompt_tokens": 8, "total_tokens": 8})
    assert reported(answer).usage == Usage.of(input_tokens=8)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": "100", "completion_tokens": " 50 "},
        {"prompt_tokens": 100.0, "completion_tokens": 49.5},
        {"prompt_tokens": 100, "completion_tokens": None, "total_tokens": 150},
        {"completion_tokens": 50, "total_tokens": "150"},
        {"prompt_tokens": 100, "completion_tokens": 50, "prompt_tokens_details": None},
        {"prompt_tokens": 100, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": None}},
        {"prompt_tokens": 100, "completion_tokens": 50, "prompt_tokens_details": [1]},
        {"prompt_tokens": 100, "completion_tokens": 50, "input_tokens": 3, "dream_tokens": {"a": 9}},
        {"prompt_tokens": 100, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": -3}},
    ],
)
def test_odd_counts_are_read_as_what_they_mean(usage: dict[str, Any]) -> None:
    assert reported({"usage": usage}).usage == Usage.of(input_tokens=100, output_tokens=50)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": {"prompt_tokens": None}},
        {"usage": {"prompt_tokens": True, "completion_tokens": "many"}},
        {"usage": {"prompt_tokens": float("nan"), "completion_tokens": float("inf")}},
        {"usage": {"prompt_tokens": "9" * 5000}},
        {"usage": NOT_GIVEN},
        {"usage": "none"},
        None,
        "no json",
        b"\xff",
        pytest.param(object(), id="an object"),
    ],
    ids=repr,
)
def test_an_answer_that_does_not_say_has_no_usage(answer: object) -> None:
    assert reported(answer).usage is None


@pytest.mark.full
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda leaf: (
            st.lists(leaf)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "usage",
                        "prompt_tokens",
                        "completion_tokens",
                        "total_tokens",
                        "prompt_tokens_details",
                        "cached_tokens",
                        "choices",
                        "delta",
                        "content",
                        "tool_calls",
                        "function",
                        "index",
                    ]
                ),
                leaf,
            )
        ),
    )
)
def test_nothing_that_a_server_sends_is_an_error(answer: object) -> None:
    reported(answer)
    tally = ChatAccumulator("gpt-4o")
    tally.feed(answer)
    assert tally.seen_tokens() >= 0


def chunk(index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"id": "c", "model": "gpt-4o", "choices": [{"index": index, "delta": delta}], "usage": None}


def test_a_tally_counts_what_was_seen_of_every_choice() -> None:
    tally = ChatAccumulator("gpt-4o")
    for index in (0, 1):
        for word in ("Hello", " there", " you"):
            tally.feed(chunk(index, content=word))
    tally.feed(ChatCompletionChunk.construct(**chunk(0, refusal="I will not")))
    tally.feed(chunk(0, tool_calls=[{"index": 0, "function": {"name": "greet", "arguments": '{"na'}}]))
    tally.feed(chunk(0, tool_calls=[{"index": 0, "function": {"arguments": 'me": "Ann"}'}}]))
    expected = ["Hello there you"] * 2 + ["I will not", "greet", '{"name": "Ann"}']
    assert tally.seen_tokens() == sum(count_text(text, "o200k_base") for text in expected)
    assert tally.reported is None


def test_a_tally_counts_legacy_completions() -> None:
    tally = ChatAccumulator("gpt-3.5-turbo-instruct")
    for text in ("Once upon", " a time"):
        tally.feed({"choices": [{"index": 0, "text": text}]})
    assert tally.seen_tokens() == count_text("Once upon a time", "cl100k_base")


def test_a_tally_reports_the_last_usage_with_what_came_before() -> None:
    tally = ChatAccumulator("gpt-4o")
    tally.feed({**chunk(content="Hello"), "service_tier": "flex"})
    tally.feed({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    tally.feed({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
    assert tally.reported == Reported(Usage.of(input_tokens=5, output_tokens=2), "gpt-4o", "flex", "c")


def test_a_tally_keeps_no_more_text_than_it_needs() -> None:
    tally = ChatAccumulator("gpt-4o")
    for _ in range(40):
        tally.feed(chunk(content="word " * 1000))
        assert sum(len(text) for pieces in tally._pieces.values() for text in pieces) < SLICE
    assert tally.seen_tokens() >= 40_000
