"""Nulls, strings, lists, fields of tomorrow anywhere: answers are read, requests projected or refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.errors import BudgetGuardError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.base import Endpoint, Polled
from budgetguard.providers.openai.endpoints import POLLED, PRICED

# What answers and requests have, and words that mean something in some of these places.
NAMES = re.findall(
    r"\S+",
    """
    id object model service_tier status usage prompt_tokens completion_tokens input_tokens output_tokens
    total_tokens prompt_tokens_details input_tokens_details output_tokens_details cached_tokens
    image_tokens text_tokens choices delta content refusal tool_calls function name arguments index text
    output type action container_id tools container memory_limit tool_usage image_gen web_search
    num_requests data request_counts completed total background response item seconds size duration
    audio transcript error of_tomorrow messages role input prompt instructions image_url url detail file
    file_data input_audio response_format json_schema schema tool_choice n max_tokens max_output_tokens
    max_tool_calls quality web_search_options stream_options partial_images voice best_of conversation
    previous_response_id reasoning
""",
)
WORDS = re.findall(
    r"\S+",
    """
    completed failed queued cancelled web_search_call code_interpreter_call image_generation web_search
    function code_interpreter file_search thread.run response.completed response.output_text.delta auto
    high 1024x1024 9 input_file input_image image_url text user message function_call gpt-image-1
    data:image/png;base64,AAAA
""",
)
ODD = st.recursive(
    st.sampled_from([None, True, 0, 5, -5, 10**30, 1e99, "", *WORDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), ODD, max_size=8)
BOOK = PriceBook()
MODELS = {
    "embeddings": "text-embedding-3-small",
    "completions": "gpt-3.5-turbo-instruct",
    "images": "gpt-image-1",
    "speech": "tts-1",
    "transcriptions": "whisper-1",
    "translations": "whisper-1",
    "videos": "sora-2",
}

read = pytest.mark.parametrize("row", [*PRICED, *POLLED], ids=lambda row: row.path)
streamed = pytest.mark.parametrize("row", [row for row in PRICED if row.streams], ids=lambda row: row.path)
projects = pytest.mark.parametrize(
    "row", [row for row in PRICED if row.prepare is None], ids=lambda row: row.path
)


@read
@settings(max_examples=60, deadline=None)
@given(answer=OBJECTS, written=st.booleans())
def test_an_answer_is_read_whatever_stands_in_it(
    row: Endpoint | Polled, answer: dict[str, Any], written: bool
) -> None:
    said: Any = row.read(json.dumps(answer).encode() if written else answer)
    for one in said if isinstance(row, Polled) else [said]:
        assert one.usage is None or all(number >= 0 for number in one.usage.units.values())


@streamed
@settings(max_examples=40, deadline=None)
@given(chunks=st.lists(OBJECTS, max_size=4))
def test_a_stream_is_read_whatever_stands_in_it(row: Endpoint, chunks: list[dict[str, Any]]) -> None:
    assert row.streams
    tally = row.accumulator("gpt-4o-mini")
    for chunk in chunks:
        tally.feed(chunk)
    assert tally.seen_tokens() >= 0


@projects
@settings(max_examples=60, deadline=None)
@given(body=OBJECTS)
def test_a_request_is_projected_or_refused_whatever_stands_in_it(row: Endpoint, body: dict[str, Any]) -> None:
    model = MODELS.get(row.name.removeprefix("image ").replace("edits", "images"), "gpt-5")
    more: dict[str, Any] = {"learned_input": lambda _key: None} if row.learns_input else {}
    try:
        projection = row.project(body, model, BOOK.rates(model), None, **more)
    except BudgetGuardError:
        return
    assert projection.cost >= projection.input_cost >= 0
    assert projection.choices >= 1
    assert row.least_ttl(body) >= 0
