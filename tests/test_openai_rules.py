"""What OpenAI bills beside the text: earlier calls and thoughts, forced orders of calls, files, compactions."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Mapping
from typing import Any

import pytest

from budgetguard.engine.projection import with_margin
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.openai.responses import COMPACT, RESPONSES
from budgetguard.tokens.text import O200K, count_text
from tests.projecting import chat_input_tokens, project_response, response_input_tokens

ASK = {"role": "user", "content": "What is the weather in Oslo?"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"type": "function", "name": "get_weather", "parameters": SCHEMA}
CALL = {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": '{"city":"Oslo"}'}
SHEET = "<worksheet><sheetData><row><c><v>42</v></c></row></sheetData></worksheet>"
RESULT = {"type": "function_call_output", "call_id": "c", "output": "sunny"}


def response(model: str, *items: Mapping[str, Any], **more: Any) -> int:
    return response_input_tokens({"input": [*items], **more}, model)


def text(value: str) -> int:
    return count_text(value, O200K)


@pytest.mark.parametrize(
    ("model", "each", "parallel"), [("gpt-4o", 11, 0), ("gpt-5.4", 18, 8), ("gpt-5-nano", 18, 8)]
)
def test_an_earlier_call_costs_more_than_its_text_and_two_at_once_more_again(
    model: str, each: int, parallel: int
) -> None:
    said = text("get_weather") + text('{"city":"Oslo"}')
    alone = response(model, ASK, CALL, RESULT) - response(model, ASK, RESULT)
    assert alone == each + said
    at_once = response(model, ASK, CALL, CALL, RESULT, RESULT)
    one_by_one = response(model, ASK, CALL, RESULT, CALL, RESULT)
    assert at_once == one_by_one + parallel


@pytest.mark.parametrize(("model", "each"), [("gpt-4o", 8), ("gpt-5", 12)])
def test_an_earlier_call_in_a_chat_costs_more_than_its_text(model: str, each: int) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    bare = {"role": "assistant", "content": None}
    made = chat_input_tokens({"messages": [ASK, {**bare, "tool_calls": [call]}]}, model)
    assert made == chat_input_tokens({"messages": [ASK, bare]}, model) + each + text("get_weather") + text(
        "{}"
    )


def thought(length: int) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "encrypted_content": "g" * length}


def test_thoughts_before_the_users_last_message_are_not_read_again() -> None:
    again = {"role": "user", "content": "And tomorrow?"}
    answer = {"role": "assistant", "content": "Sunny."}
    before = response("gpt-5", ASK, thought(10_900), answer, again)
    assert before == response("gpt-5", ASK, answer, again) + 2
    after = response("gpt-5", ASK, thought(10_900), CALL, RESULT)
    assert after == response("gpt-5", ASK, CALL, RESULT) + 2_000
    kept = response("gpt-5", ASK, thought(10_900), answer, again, reasoning={"context": "all_turns"})
    assert kept == response("gpt-5", ASK, answer, again) + 2_000


def test_calls_that_must_come_one_by_one_are_explained_unless_they_are_forced() -> None:
    def more(model: str, **options: Any) -> int:
        one_by_one = response(model, ASK, tools=[FUNCTION], parallel_tool_calls=False, **options)
        return one_by_one - response(model, ASK, tools=[FUNCTION], **options)

    assert more("gpt-5-nano") == 80
    assert more("gpt-4o") == more("gpt-4o", tool_choice="auto") == 20
    assert more("gpt-4o", tool_choice="required") == 0
    assert response("gpt-4o", ASK, parallel_tool_calls=False) == response("gpt-4o", ASK)
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
    body = {"messages": [ASK], "tools": [tool]}
    plain = chat_input_tokens(body, "gpt-4o")
    assert chat_input_tokens({**body, "parallel_tool_calls": False}, "gpt-4o") == plain + 33
    forced = {**body, "tool_choice": "required"}
    assert chat_input_tokens({**forced, "parallel_tool_calls": False}, "gpt-4o") == chat_input_tokens(
        forced, "gpt-4o"
    )


def test_keywords_that_a_schema_for_a_response_is_not_billed_for() -> None:
    def wanted(**age: Any) -> int:
        schema = {
            "type": "object",
            "properties": {"age": {"type": "integer", **age}},
            "additionalProperties": False,
        }
        return response(
            "gpt-4o", ASK, text={"format": {"type": "json_schema", "name": "x", "schema": schema}}
        )

    assert wanted() == wanted(minimum=18, maximum=99, default=20)
    assert wanted() == response("gpt-4o", ASK) + text("x") + text(
        '{"type":"object","properties":{"age":{"type":"integer"}}}'
    )
    assert wanted(title="Age") == wanted() + 13, "titles, as pydantic gives them"
    assert wanted(description="in years") > wanted()


def test_a_compaction_is_asked_for_with_a_prompt() -> None:
    body = {"input": [ASK]}
    assert COMPACT.input_tokens(body, "gpt-4o") == RESPONSES.input_tokens(body, "gpt-4o") + 95


def test_pro_mode_reads_the_input_again_for_each_draft() -> None:
    rates = PriceBook().rates("gpt-5")
    body = {"input": [ASK], "reasoning": {"mode": "pro"}}
    first = project_response(body, "gpt-5", rates)
    shown = with_margin(response_input_tokens(body, "gpt-5"))
    assert first.input_tokens == shown + 1_600 + 4 * shown
    longer = {**body, "input": [{"role": "user", "content": "rain or sun " * 500}]}
    more = response_input_tokens(longer, "gpt-5") - response_input_tokens(body, "gpt-5")
    assert project_response(longer, "gpt-5", rates).input_tokens > first.input_tokens + 5 * more


def test_a_spreadsheet_costs_a_summary_beside_its_cells() -> None:
    def billed(*more: str) -> int:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as packed:
            packed.writestr("xl/worksheets/sheet1.xml", SHEET)
            for name in more:
                packed.writestr(name, "<workbook/>")
        coded = "data:application/octet-stream;base64," + base64.b64encode(held.getvalue()).decode()
        return response("gpt-4o", {"role": "user", "content": [{"type": "input_file", "file_data": coded}]})

    assert billed("xl/workbook.xml") == billed() + 48
