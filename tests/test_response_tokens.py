"""What a Responses request, and a legacy completion, is projected at."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given as given_by
from hypothesis import settings
from hypothesis import strategies as st
from openai import NOT_GIVEN, omit

from budgetguard.core.usage import HiddenInput
from budgetguard.engine.projection import with_margin
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.openai.hosted_tools import (
    container_unit,
    hidden_input,
    projected_fees,
    search_unit,
)
from budgetguard.tokens.text import count_text
from tests.projecting import (
    completion_choices,
    completion_input_tokens,
    project_completion,
    project_response,
    response_input_tokens,
)

GPT = "gpt-4o"
WORDS = "What is the capital of France?"
O200K = "o200k_base"


def tokens(input_: Any, model: str = GPT, **more: Any) -> int:
    return response_input_tokens({"model": model, "input": input_, **more}, model)


def text(value: str) -> int:
    return count_text(value, O200K)


def function(name: str = "get_weather", **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "name": name, "parameters": schema, **more}


def test_a_text_is_billed_as_one_message_of_the_user() -> None:
    assert tokens(WORDS) == 3 + text("user") + text(WORDS) + 3
    assert tokens(WORDS) == tokens([{"role": "user", "content": WORDS}])
    parts = [{"type": "input_text", "text": WORDS}]
    assert tokens(WORDS) == tokens([{"type": "message", "role": "user", "content": parts}])


def test_instructions_are_billed_as_a_message_of_the_system() -> None:
    assert tokens(WORDS, instructions="Be brief.") - tokens(WORDS) == 3 + text("system") + text("Be brief.")
    assert tokens(WORDS, instructions="") == tokens(WORDS, instructions=None) == tokens(WORDS)


def test_what_is_not_given_is_not_counted() -> None:
    absent: dict[str, Any] = {
        "instructions": omit,
        "tools": NOT_GIVEN,
        "text": omit,
        "previous_response_id": None,
    }
    assert tokens(WORDS, **absent) == tokens(WORDS)
    assert hidden_input({"input": WORDS, **absent, "conversation": omit}, GPT) == {}


def test_the_title_and_description_of_a_tool_s_arguments_are_billed() -> None:
    named = function()
    named["parameters"] = {**named["parameters"], "title": "weather_args", "description": "Where to look."}
    more = tokens(WORDS, tools=[named]) - tokens(WORDS, tools=[function()])
    assert more == text("{\n// weather_args\n// Where to look.\n") - text("{\n")


def test_a_tool_counts_alike_in_the_form_of_chat_and_in_a_namespace() -> None:
    flat = tokens(WORDS, tools=[function()])
    nested = {key: value for key, value in function().items() if key != "type"}
    assert tokens(WORDS, tools=[{"type": "function", "function": nested}]) == flat
    inside = {"type": "namespace", "name": "ns", "description": "A few.", "tools": [function()]}
    assert tokens(WORDS, tools=[inside]) == flat + text("ns") + text("A few.")


def test_only_the_turns_since_the_last_compaction_are_billed() -> None:
    old = [{"role": "user", "content": WORDS * 500}]
    compacted = {"type": "compaction", "encrypted_content": "g" * 1_900}
    assert tokens([*old, compacted, {"role": "user", "content": WORDS}]) == tokens(WORDS) + 1_000 // 5


def test_reasoning_of_earlier_turns_is_billed_by_its_length() -> None:
    def reasoning(length: int) -> int:
        item = {"type": "reasoning", "summary": [], "encrypted_content": "g" * length}
        return tokens([{"role": "user", "content": WORDS}, item], model="gpt-5") - tokens(
            WORDS, model="gpt-5"
        )

    assert reasoning(10_900) == 2_000
    assert reasoning(900) < reasoning(3_000) < reasoning(9_000)


def test_a_text_file_is_billed_for_its_text() -> None:
    inside = "A line of text.\n" * 400
    data = "data:text/plain;base64," + base64.b64encode(inside.encode()).decode()
    file = {"type": "input_file", "filename": "a.txt", "file_data": data}
    counted = tokens([{"role": "user", "content": [file]}]) - tokens([{"role": "user", "content": ""}])
    assert counted == text(inside) + text("a.txt")


def test_a_file_that_cannot_be_read_here_is_bounded() -> None:
    broken = {"type": "input_file", "file_data": "data:text/plain;base64,%%%"}
    assert tokens([{"role": "user", "content": [broken]}]) > tokens([{"role": "user", "content": ""}])


@pytest.mark.parametrize("named", [{"file_id": "file-1"}, {"file_url": "https://a.example/b.pdf"}])
def test_a_file_that_is_only_named_has_an_allowance_until_settled_calls_teach_better(named: Any) -> None:
    rates = PriceBook().rates(GPT)
    file = {"type": "input_file", **named}
    body = {"input": [{"role": "user", "content": [file]}]}
    shown = with_margin(response_input_tokens(body, GPT))
    projection = project_response(body, GPT, rates)
    assert projection.input_tokens == shown + 20_000
    assert projection.hidden is not None
    assert projection.hidden.key == f"{GPT} input beyond: unseen_files"
    assert project_response(body, GPT, rates, learned_input=lambda key: 4_000).input_tokens == shown + 5_000
    twice = {
        "input": [{"role": "user", "content": [file]}, {"type": "function_call_output", "output": [file]}]
    }
    assert project_response(twice, GPT, rates).input_tokens > 40_000


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "name": "f", "arguments": '{"a": 1}', "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "sunny"}]},
        {"type": "custom_tool_call", "name": "f", "input": "x = 1"},
        {
            "type": "computer_call_output",
            "output": {"type": "computer_screenshot", "image_url": "https://a/b"},
        },
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"query": "news of today"}},
        {"type": "mcp_list_tools", "server_label": "s", "tools": [function()]},
        {"type": "additional_tools", "role": "developer", "tools": [function()]},
        {"type": "item_reference", "id": "msg_1"},
        {"type": "an_item_of_the_future", "something": "to read"},
    ],
)
def test_every_kind_of_item_counts(item: Any) -> None:
    assert tokens([{"role": "user", "content": WORDS}, item]) > tokens(WORDS)


def test_a_schema_for_the_answer_counts_in_either_model_family() -> None:
    wanted = {"format": {"type": "json_schema", "name": "city", "schema": {"type": "object"}}}
    assert tokens(WORDS, text=wanted) == tokens(WORDS) + text('{"type":"object"}') + text("city")
    assert tokens(WORDS, text={"format": {"type": "text"}}) == tokens(WORDS)


@pytest.mark.parametrize("wrong", [7, {"role": "user"}, b"bytes", True])
def test_input_that_is_neither_text_nor_a_list_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="input must be"):
        tokens(wrong)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KINDS = [
    "message",
    "reasoning",
    "compaction",
    "function_call",
    "function_call_output",
    "tool",
    "item_reference",
]


@pytest.mark.full
@settings(max_examples=150, deadline=None)
@given_by(
    st.lists(
        st.dictionaries(st.sampled_from(["role", "content", "output", "tools", "name", "id"]), json_values)
        | st.fixed_dictionaries(
            {"type": st.sampled_from(KINDS), "content": json_values, "tools": json_values}
        ),
        max_size=5,
    ),
    json_values,
)
def test_any_json_counts_to_a_whole_number(items: list[Any], more: Any) -> None:
    body = {"input": items, "tools": more, "text": more, "instructions": more, "tool_choice": more}
    assert response_input_tokens(body, GPT) > 0
    assert all(count > 0 for count in hidden_input(body, GPT).values())
    assert all(count > 0 for count in projected_fees(body, GPT).values())


# --- what the request does not show ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ({"tools": [function(), {"type": "custom", "name": "x"}]}, set()),
        ({"tools": [{"type": "web_search_preview_2025_03_11"}]}, {"web_search"}),
        ({"tools": [{"type": "computer_use_preview"}, {"type": "local_shell"}]}, {"computer_use", "shell"}),
        ({"tools": [{"type": "mcp"}, {"type": "mcp"}]}, {"mcp server"}),
        (
            {
                "tools": [
                    {"type": "mcp", "server_url": "https://a.example/sse"},
                    {"type": "mcp", "connector_id": "c"},
                ]
            },
            {"mcp a.example", "mcp c"},
        ),
        ({"tools": [{"type": "mcp", "server_url": "https://[broken"}]}, {"mcp server"}),
        ({"reasoning": {"mode": "pro"}}, {"pro_mode"}),
        ({"tools": [{"type": "a_tool_of_the_future"}]}, {"other_tool"}),
        ({"previous_response_id": "resp_1"}, {"previous_response"}),
        ({"conversation": {"id": "conv_1"}, "prompt": {"id": "pmpt_1"}}, {"conversation", "prompt"}),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "file_search"}]}]}, {"file_search"}),
    ],
)
def test_what_a_request_does_not_show_is_named(more: Any, kinds: set[str]) -> None:
    assert set(hidden_input({"input": WORDS, **more}, GPT)) == kinds


def test_what_a_preview_search_finds_is_billed_only_to_models_that_reason() -> None:
    def allowed(model: str, tool: str) -> int:
        return hidden_input({"tools": [{"type": tool}]}, model)["web_search"]

    assert allowed("gpt-4o", "web_search_preview") < 1_000
    assert allowed("gpt-4o", "web_search") == allowed("gpt-5", "web_search_preview") > 9_500


def test_the_allowance_gives_way_to_what_was_learned_for_the_same_model_and_kinds() -> None:
    rates = PriceBook().rates("gpt-5")
    body = {"input": WORDS, "tools": [{"type": "web_search"}, {"type": "mcp"}]}
    asked: list[str] = []

    def learned(key: str) -> int:
        asked.append(key)
        return 77

    counted = with_margin(response_input_tokens(body, "gpt-5"))
    projection = project_response(body, "gpt-5", rates, learned_input=learned)
    assert projection.input_tokens == counted + 24_000 // 8, "what is found next may be longer"
    assert asked == ["gpt-5 input beyond: mcp server web_search"]
    taught = project_response(body, "gpt-5", rates, learned_input=lambda key: 7_777)
    assert taught.input_tokens == counted + 7_777 + 7_777 // 4
    assert projection.hidden is not None
    assert projection.hidden.observed(5_000) == 5_000 - counted
    assert projection.hidden.observed(0) == 1
    assert project_response(body, "gpt-5", rates).input_tokens == counted + 24_000


def test_what_was_billed_beyond_what_is_shown_is_learned_by_model_and_shape() -> None:
    rates = PriceBook().rates(GPT)
    asked: list[str] = []

    def learned(key: str) -> int:
        asked.append(key)
        return 215

    wanted = {"format": {"type": "json_schema", "name": "city", "schema": {"type": "object"}}}
    image = {"type": "input_image", "image_url": "data:image/gif;base64,R0lGODlhAQABAAAAACw="}
    for more in (
        {},
        {"tools": [function()]},
        {"tools": [function()], "text": wanted},
        {"input": [{"role": "user", "content": [image]}]},
    ):
        body = {"input": WORDS, **more}
        shown = with_margin(response_input_tokens(body, GPT))
        assert project_response(body, GPT, rates, learned_input=learned).input_tokens == shown + 215
    assert asked == [f"{GPT} responses: {shape}" for shape in ("text", "tools", "schema tools", "images")]


@given_by(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_what_is_learned_only_ever_adds(shown: int, billed: int, proportional: bool) -> None:
    hidden = HiddenInput("key", shown + 32, shown if proportional else 0)
    added = hidden.tokens(hidden.observed(billed))
    assert added >= 0
    least = 1 + (shown // 1_000 if proportional else 0)
    assert hidden.shown + added >= billed - least, "the least that is observed is taken for nothing"
    assert hidden.tokens(0) == hidden.tokens(1) == 0


def test_fees_heed_the_most_calls_that_are_allowed() -> None:
    body = {"tools": [{"type": "web_search"}, {"type": "file_search"}]}
    assert projected_fees(body, "gpt-5") == {"web_searches": 3, "storage_searches": 1}
    assert projected_fees({**body, "max_tool_calls": 1}, "gpt-5") == {
        "web_searches": 1,
        "storage_searches": 1,
    }
    assert projected_fees({**body, "max_tool_calls": 0}, "gpt-5") == {}


@pytest.mark.parametrize(
    ("container", "unit"),
    [
        ({"type": "auto"}, "container_sessions_1g"),
        ({"type": "auto", "memory_limit": "16g"}, "container_sessions_16g"),
        (None, "container_sessions_1g"),
        ("cntr_1", None),
    ],
)
def test_a_container_is_billed_by_its_memory_unless_it_was_there_before(container: Any, unit: str) -> None:
    body = {"tools": [{"type": "code_interpreter", "container": container}]}
    assert container_unit(body) == unit
    assert projected_fees(body, "gpt-5") == ({} if unit is None else {unit: 1})


def test_searches_by_the_preview_tool_have_a_price_of_their_own() -> None:
    assert search_unit({"tools": [{"type": "web_search_preview"}]}) == "web_search_previews"
    assert search_unit({"tools": [{"type": "web_search"}]}) == "web_searches"
    body = {"input": WORDS, "tools": [{"type": "web_search_preview"}], "max_output_tokens": 1}
    projection = project_response(body, GPT, PriceBook().rates(GPT))
    assert projection.input_cost > 25_000_000


def test_a_fee_without_a_price_is_refused() -> None:
    container = {"type": "auto", "memory_limit": "2g"}
    body = {"input": WORDS, "tools": [{"type": "code_interpreter", "container": container}]}
    with pytest.raises(UnknownModelError, match="container_sessions_2g"):
        project_response(body, "gpt-5", PriceBook().rates("gpt-5"))


def test_a_response_is_projected_at_its_cap_or_at_an_assumed_one() -> None:
    rates = PriceBook().rates(GPT)
    body = {"input": WORDS}
    capped = project_response({**body, "max_output_tokens": 50}, GPT, rates)
    assert (capped.output_tokens, capped.cap_assumed) == (50, False)
    assert project_response(body, GPT, rates).cap_assumed
    assert project_response(body, GPT, rates, learned_cap=9).output_tokens == 9
    with pytest.raises(ConfigurationError, match="max_output_tokens"):
        project_response({**body, "max_output_tokens": "50"}, GPT, rates)


# --- legacy completions ---------------------------------------------------------------------------------

OLD = "gpt-3.5-turbo-instruct"


@pytest.mark.parametrize(
    ("prompt", "counted", "prompts"),
    [
        ("one two", 2, 1),
        (["one two", "three"], 3, 2),
        ([1, 2, 3, 4], 4, 1),
        ([[1, 2], [3]], 3, 2),
        (None, 1, 1),
        ("", 1, 1),
    ],
)
def test_a_completion_is_billed_for_its_prompts(prompt: Any, counted: int, prompts: int) -> None:
    body = {"prompt": prompt}
    assert completion_input_tokens(body, OLD) == counted
    assert completion_choices(body) == prompts
    assert completion_input_tokens({**body, "suffix": "and on"}, OLD) == counted + 2 * prompts


@pytest.mark.parametrize(
    ("more", "output"),
    [
        ({}, 16),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 0}, 0),
        ({"n": 3}, 48),
        ({"n": 2, "best_of": 5}, 80),
        ({"n": NOT_GIVEN, "best_of": omit, "max_tokens": None}, 16),
        ({"prompt": ["a", "b"], "n": 2, "max_tokens": 10}, 40),
    ],
)
def test_a_completion_is_projected_for_all_the_answers_it_makes(more: Any, output: int) -> None:
    projection = project_completion({"prompt": "a", **more}, OLD, PriceBook().rates(OLD))
    assert (projection.output_tokens, projection.cap_assumed) == (output, False)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"best_of": "2"}, {"max_tokens": -1}, {"n": True}])
def test_a_completion_that_cannot_be_right_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        project_completion({"prompt": "a", **wrong}, OLD, PriceBook().rates(OLD))
