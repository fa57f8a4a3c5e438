"""Requests to other makers' models are counted by their templates, through whichever API they are made."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from budgetguard.errors import ConfigurationError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.anthropic.input_tokens import claude_input
from budgetguard.providers.base import Asked
from budgetguard.providers.bedrock.input_tokens import converse_input
from budgetguard.providers.cohere.input_tokens import cohere_input
from budgetguard.providers.google.input_tokens import gemini_input
from budgetguard.providers.json import compact_json
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.openai.responses import RESPONSES
from budgetguard.providers.templated import Templated
from budgetguard.tokens import claude
from budgetguard.tokens.pictures import other_image_tokens
from budgetguard.tokens.templates import template_of
from budgetguard.tokens.text import count_text, encoding_for

ASK = "Which of the two rivers is the longer one?"
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Say what the weather will be.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOL = {"type": "function", "function": WEATHER}
CLAUDE = "claude-sonnet-4-5"
LLAMA = "llama-3.3-70b-versatile"
MISTRAL = "mistral-small-latest"


@pytest.fixture(autouse=True)
def without_ctok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude, "counter", lambda version: None)


def chat(model: str, *messages: dict[str, Any], **more: Any) -> int:
    messages = messages or ({"role": "user", "content": ASK},)
    return CHAT.input_tokens({"messages": [*messages], **more}, model)


def text(model: str, value: str) -> int:
    return count_text(value, encoding_for(model))


@pytest.mark.parametrize(
    "model", [CLAUDE, "gemini-2.5-flash", LLAMA, MISTRAL, "deepseek-chat", "grok-4", "qwen3-32b"]
)
def test_a_chat_costs_its_text_and_what_the_template_has_around_it(model: str) -> None:
    template = template_of(model)
    assert template is not None
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": ASK}
    around = template.request + 2 * template.message + template.unformatted
    assert chat(model, system, user) == around + text(model, "Be brief.") + text(model, ASK)
    parts = {"role": "user", "content": [{"type": "text", "text": ASK}, {"type": "text", "text": ASK}]}
    assert chat(model, system, parts) == chat(model, system, user) + text(model, ASK)


def test_openais_models_have_no_template() -> None:
    assert template_of("gpt-4o") is None
    assert template_of("azure/gpt-5") is None
    assert template_of("a-model-of-tomorrow") is not None


def test_a_default_prompt_stands_where_there_is_no_system_message() -> None:
    system = {"role": "system", "content": "x"}
    user = {"role": "user", "content": ASK}
    assert chat("grok-4", user) > chat("grok-4", system, user)
    assert chat(LLAMA, user) < chat(LLAMA, system, user)


@pytest.mark.parametrize(
    ("model", "least"),
    [
        (CLAUDE, 500),
        ("claude-3-5-haiku-latest", 270),
        ("claude-opus-4-7", 690),
        (LLAMA, 150),
        ("llama-4-scout", 640),
    ],
)
def test_tools_are_explained_by_a_prompt_of_the_models_own(model: str, least: int) -> None:
    definition = text(model, compact_json(WEATHER))
    added = chat(model, tools=[TOOL]) - chat(model)
    assert least + definition <= added <= least + definition + 30
    two = chat(model, tools=[TOOL, TOOL]) - chat(model)
    assert definition <= two - added <= definition + 20


def test_claude_reads_another_prompt_where_a_tool_must_be_used() -> None:
    free = chat(CLAUDE, tools=[TOOL])
    assert chat(CLAUDE, tools=[TOOL], tool_choice="auto") == free
    assert chat(CLAUDE, tools=[TOOL], tool_choice="required") == free + 106
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert chat(CLAUDE, tools=[TOOL], tool_choice=named) == free + 106


def test_tools_that_may_not_be_used_are_shown_to_some_models_all_the_same() -> None:
    assert chat(CLAUDE, tools=[TOOL], tool_choice="none") > chat(CLAUDE) + 500
    assert chat(MISTRAL, tools=[TOOL], tool_choice="none") == chat(MISTRAL)
    assert chat(LLAMA, tools=[TOOL], tool_choice="none") == chat(LLAMA)


def test_gemini_is_billed_for_the_fields_of_its_tools() -> None:
    model = "gemini-2.5-flash"
    nested = {"type": "object", "properties": {"name": {"type": "string"}}}
    deeper = {**WEATHER, "parameters": {"type": "object", "properties": {"city": nested}}}
    flat = chat(model, tools=[TOOL]) - chat(model)
    words = ("get_weather", WEATHER["description"], "city", "city")
    assert flat == 18 + 9 + sum(text(model, word) for word in words)
    assert chat(model, tools=[{"type": "function", "function": deeper}]) - chat(model) > flat + 9
    older = "gemini-2.0-flash"
    assert chat(older, tools=[TOOL]) - chat(older) < flat - 18


def test_types_that_hold_themselves_are_unfolded_to_an_end() -> None:
    tree: dict[str, Any] = {
        "type": "object",
        "properties": {
            "left": {"$ref": "#/$defs/T"},
            "right": {"$ref": "#/$defs/T"},
            "x": {"$ref": "#/nowhere"},
        },
    }
    schema = {"type": "object", "$defs": {"T": tree}, "properties": {"root": {"$ref": "#/$defs/T"}}}
    counted = Templated.of("gemini-2.5-flash").tools([{"name": "plant", "parameters": schema}])
    assert 100 < counted < 200_000


def test_earlier_calls_and_their_results_cost_more_than_their_text() -> None:
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    }
    turns = (
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    )
    for model in (CLAUDE, LLAMA, MISTRAL, "gemini-3-flash", "deepseek-chat"):
        template = template_of(model)
        assert template is not None
        plain = chat(model) + 2 * template.message + text(model, "sunny") + text(model, "get_weather")
        assert chat(model, *turns) > plain


def test_what_was_thought_before_the_last_question_is_not_read_again_by_those_who_drop_it() -> None:
    thought = "Let me think about the rivers of the world, one by one, and how long they are. " * 5

    def asked(model: str, *more: dict[str, Any]) -> int:
        answer = {"role": "assistant", "content": "The first.", "reasoning_content": thought}
        return chat(model, {"role": "user", "content": ASK}, answer, *more)

    again = {"role": "user", "content": "Why?"}
    assert asked("deepseek-chat") - asked("deepseek-chat", again) > 40, "in a loop of tools it is"
    assert asked("grok-4", again) > asked("deepseek-chat", again) + 40


def test_schemas_are_billed_more_than_once_by_claude_and_not_at_all_by_mistral() -> None:
    schema = WEATHER["parameters"]
    wanted = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    added = chat(CLAUDE, response_format=wanted) - chat(CLAUDE)
    assert added > 100 + 1.5 * text(CLAUDE, compact_json(schema))
    assert chat(MISTRAL, response_format=wanted) < chat(MISTRAL), "and asks without its own prompt"
    assert chat("deepseek-chat", response_format={"type": "json_object"}) == chat("deepseek-chat") + 20


def test_openrouter_asks_gpt_5_for_responses_which_bill_no_prompt_beside_tools() -> None:
    body = {"messages": [{"role": "user", "content": ASK}], "tools": [TOOL]}
    assert (
        CHAT.input_tokens(body, "gpt-5", "openai")
        == CHAT.input_tokens(body, "openai/gpt-5", "openrouter") + 80
    )

    def projected(provider: str) -> int:
        return CHAT.project(Asked(body, "gpt-5", Rates.free("gpt-5", provider))).input_tokens

    assert projected("openai") > projected("openrouter")


@pytest.mark.parametrize("messages", [None, [], "text", {"role": "user"}])
def test_messages_that_are_none_are_refused(messages: Any) -> None:
    for count in (CHAT.input_tokens, claude_input, converse_input):
        with pytest.raises(ConfigurationError, match="messages"):
            count({"messages": messages}, CLAUDE)
    with pytest.raises(ConfigurationError, match="messages"):
        cohere_input({"messages": messages}, "command-a")


# --- responses ---


def response(model: str, *items: dict[str, Any], **more: Any) -> int:
    return RESPONSES.input_tokens({"input": [{"role": "user", "content": ASK}, *items], **more}, model)


def test_a_response_of_another_maker_costs_what_a_chat_does() -> None:
    tool = {"type": "function", **WEATHER}
    for model in ("grok-4", LLAMA):
        assert response(model) == RESPONSES.input_tokens({"input": ASK}, model) == chat(model)
        wrapped = text(model, compact_json(tool)) - text(model, compact_json(TOOL))
        assert response(model, tools=[tool]) == chat(model, tools=[TOOL]) + wrapped
        assert response(model, instructions="Be brief.") == chat(
            model, {"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}
        )


def test_thoughts_that_come_without_their_cipher_are_allowed_for() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "So."}]}
    body = {"input": [{"role": "user", "content": ASK}, thought, thought]}
    projection = RESPONSES.project(Asked(body, "grok-4", Rates.free("grok-4", "x-ai")))
    assert projection.hidden is not None
    assert projection.hidden.key == "grok-4 input beyond: thoughts"
    assert projection.input_tokens == projection.hidden.shown + 800
    assert response("grok-4", {**thought, "encrypted_content": "x" * 6_000}) == response("grok-4") + 1_000


# --- Claude's own API, and Converse ---


def test_claudes_messages_and_chats_and_converse_cost_the_same() -> None:
    own = {
        "name": WEATHER["name"],
        "description": WEATHER["description"],
        "input_schema": WEATHER["parameters"],
    }
    spec = {
        "name": WEATHER["name"],
        "description": WEATHER["description"],
        "inputSchema": {"json": WEATHER["parameters"]},
    }
    body: dict[str, Any] = {"messages": [{"role": "user", "content": ASK}]}
    converse: dict[str, Any] = {"messages": [{"role": "user", "content": [{"text": ASK}]}]}
    bedrock = f"us.anthropic.{CLAUDE}-20250929-v1:0"
    assert claude_input(body, CLAUDE).tokens == converse_input(converse, bedrock).tokens == chat(CLAUDE)
    tooled = claude_input({**body, "tools": [own]}, CLAUDE)
    assert tooled.kinds == {"tools"}
    assert abs(tooled.tokens - chat(CLAUDE, tools=[TOOL])) < 10
    there = converse_input({**converse, "toolConfig": {"tools": [{"toolSpec": spec}]}}, bedrock)
    assert abs(there.tokens - tooled.tokens) < 15


def claude_tokens(*messages: dict[str, Any], **more: Any) -> int:
    messages = messages or ({"role": "user", "content": ASK},)
    return claude_input({"messages": [*messages], **more}, CLAUDE).tokens


def test_thinking_with_a_budget_costs_a_prompt() -> None:
    asked = claude_tokens(thinking={"type": "enabled", "budget_tokens": 2_000})
    assert asked == claude_tokens() + 30
    assert claude_tokens(thinking={"type": "disabled"}) == claude_tokens()


def test_claude_reads_its_thoughts_again_in_a_loop_of_tools_and_drops_them_after() -> None:
    thought = {"type": "thinking", "thinking": "The Nile, or the Amazon? " * 20, "signature": "x" * 400}
    use = {"type": "tool_use", "id": "1", "name": "get_weather", "input": {"city": "Oslo"}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "sunny"}]}
    user = {"role": "user", "content": ASK}

    def thoughtful(*after: dict[str, Any]) -> int:
        with_it = claude_tokens(user, {"role": "assistant", "content": [thought, use]}, *after)
        return with_it - claude_tokens(user, {"role": "assistant", "content": [use]}, *after)

    assert thoughtful(result) > 100
    assert thoughtful(result, {"role": "assistant", "content": "Sunny."}, user) == 0
    newer = "claude-opus-4-6"
    turns = [user, {"role": "assistant", "content": [thought]}, user]
    assert (
        claude_input({"messages": turns}, newer).tokens
        > claude_input({"messages": turns}, CLAUDE).tokens + 100
    )


def test_a_conversation_that_the_assistant_begins_costs_more() -> None:
    begun = ({"role": "assistant", "content": "Hello."}, {"role": "user", "content": ASK})
    usual = ({"role": "user", "content": ASK}, {"role": "assistant", "content": "Hello."})
    assert claude_tokens(*begun) == claude_tokens(*usual) + 9


def test_documents_cost_more_where_they_may_be_cited_from() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "The Nile has 6 650 kilometres."}
    plain = {"type": "document", "source": source}
    cited = {**plain, "citations": {"enabled": True}}
    assert (
        claude_tokens({"role": "user", "content": [cited]})
        > claude_tokens({"role": "user", "content": [plain]}) + 400
    )
    found = {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]}
    assert claude_tokens({"role": "user", "content": [found]}) > 450


def test_pages_that_an_earlier_search_found_are_allowed_for() -> None:
    hits = [{"type": "web_search_result", "encrypted_content": cipher} for cipher in ("x" * 4_000, "")]
    block = {"type": "web_search_tool_result", "tool_use_id": "1", "content": hits}
    assert claude_tokens({"role": "assistant", "content": [block]}) > 1_000 + 700


def test_converse_reads_every_kind_of_block() -> None:
    document = {"name": "a", "format": "txt", "source": {"bytes": b"Some words in a document."}}
    blocks: list[dict[str, Any]] = [
        {"image": {"format": "png", "source": {"bytes": b"no image"}}},
        {"document": document},
        {"video": {"source": {"bytes": b"\0" * 100_000}}},
        {"toolUse": {"toolUseId": "1", "name": "f", "input": {"a": 1}}},
        {"toolResult": {"toolUseId": "1", "content": [{"json": {"b": 2}}, {"document": document}]}},
        {"toolResult": {"content": [{"searchResult": {"title": "t", "content": [{"text": "found"}]}}]}},
        {"guardContent": {"text": {"text": "guarded words"}}},
        {"something": "of the future"},
    ]
    body = {"messages": [{"role": "user", "content": [{"text": ASK}]}]}
    plain = converse_input(body, "amazon.nova-lite-v1:0")
    for block in blocks:
        more = {"messages": [{"role": "user", "content": [{"text": ASK}, block]}]}
        assert converse_input(more, "amazon.nova-lite-v1:0").tokens > plain.tokens, block
    point = {"messages": [{"role": "user", "content": [{"text": ASK}, {"cachePoint": {"type": "default"}}]}]}
    assert converse_input(point, "amazon.nova-lite-v1:0").tokens == plain.tokens


# --- Gemini's own API ---


def test_gemini_bills_a_token_around_each_message_which_vertex_does_not() -> None:
    model = "gemini-2.5-flash"
    said = {"role": "user", "parts": [{"text": ASK}]}
    body = {"contents": [said, said], "systemInstruction": {"parts": [{"text": "Be brief."}]}}
    shown = 2 * text(model, ASK) + text(model, "Be brief.")
    assert gemini_input(body, model).tokens == shown + 3
    assert gemini_input(body, model, vertex=True).tokens == shown
    assert gemini_input(body, "gemini-2.0-flash").tokens == shown
    digits = {"contents": [{"role": "user", "parts": [{"text": "1" * 300}]}]}
    assert 300 <= gemini_input(digits, model, vertex=True).tokens <= 330, "each digit once"


def test_vertex_bills_the_words_of_calls() -> None:
    model = "gemini-2.5-flash"
    call = {"functionCall": {"name": "get_weather", "args": {"city": "Oslo"}}}
    body = {"contents": [{"role": "user", "parts": [{"text": ASK}]}, {"role": "model", "parts": [call]}]}
    more = text(model, "get_weather") + text(model, "Oslo")
    assert gemini_input(body, model, vertex=True).tokens == text(model, ASK) + more + 5
    assert gemini_input(body, model).tokens > text(model, ASK) + more + 2


# --- Cohere ---


def test_cohere_bills_text_and_tools_and_nothing_around_them() -> None:
    model = "command-a-03-2025"
    body: dict[str, Any] = {"messages": [{"role": "user", "content": ASK}]}
    assert cohere_input(body, model).tokens == text(model, ASK)
    assert cohere_input({"message": ASK}, model).tokens == text(model, ASK)
    tooled = cohere_input({**body, "tools": [TOOL]}, model).tokens
    assert tooled == text(model, ASK) + text(model, compact_json(WEATHER))
    thought = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": ASK}, {"type": "text", "text": ASK}],
    }
    assert cohere_input({"messages": [thought]}, model).tokens == text(model, ASK)
    cited = cohere_input({**body, "documents": ["A document of some words."]}, model)
    assert cited.kinds == {"documents"}
    assert cited.tokens > text(model, ASK) + 20


# --- pictures ---


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("claude-sonnet-4-5", (1_000, 750), 1_004),
        ("claude-sonnet-4-5", (8_000, 8_000), 1_640),
        ("claude-sonnet-4-5", None, 1_640),
        ("claude-sonnet-5", None, 4_900),
        ("gemini-2.5-flash", (4_000, 3_000), 258),
        ("gemini-2.0-flash", (640, 480), 1_290),
        ("gemini-2.0-flash", (100, 100), 258),
        ("gemini-3-flash", None, 1_120),
        ("mistral-small-latest", (64, 64), 12),
        ("pixtral-large-2502-v1:0", (1_024, 1_024), 64 * 65),
        ("command-a-vision", (100, 100), 259),
        ("llama-4-scout", (300, 300), 158),
        ("a-model-of-tomorrow", None, 1_445),
    ],
)
def test_pictures_cost_by_their_size_as_each_maker_bills_them(
    model: str, size: tuple[int, int] | None, tokens: int
) -> None:
    assert other_image_tokens(model, size) == tokens


def test_a_picture_by_url_is_allowed_for_and_one_that_is_here_is_measured() -> None:
    def asked(url: str) -> Any:
        message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        return CHAT.project(Asked({"messages": [message]}, MISTRAL, Rates.free(MISTRAL, "mistral")))

    gif = "data:image/gif;base64," + base64.b64encode(b"GIF89a" + b"\x40\0\x40\0" + b"\0" * 8).decode()
    assert asked(gif).hidden.key == f"{MISTRAL} chat: images"
    named = asked("https://a.example/b.png")
    assert named.hidden.key == f"{MISTRAL} input beyond: unseen_images"
    assert named.input_tokens > asked(gif).input_tokens + 2_000
