"""A projection is what a call will cost at most, as far as its request can tell."""

from __future__ import annotations

import base64
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import NOT_GIVEN, omit
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel

from budgetguard.engine.projection import Projection, assumed_output_cap, with_margin
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.json import compact_json
from budgetguard.tokens.images import image_size
from budgetguard.tokens.models import is_reasoning
from budgetguard.tokens.text import O200K, count_text
from tests.projecting import chat_input_tokens, embedding_input_tokens, project_chat, project_embeddings

MODEL = "gpt-4o-mini"
QUESTION = {"role": "user", "content": "What is the capital of France?"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def book() -> PriceBook:
    return PriceBook()


def project(body: dict[str, Any], model: str = MODEL, **options: Any) -> Projection:
    return project_chat(body, model, PriceBook().rates(model), **options)


def asked(**more: Any) -> dict[str, Any]:
    return {"messages": [QUESTION], **more}


def counted(*messages: Any, model: str = MODEL, **more: Any) -> int:
    return chat_input_tokens({"messages": list(messages), **more}, model)


# --- plain text: 3 a message, its role, its content, 1 + its name, 3 at the end ---


def test_a_plain_message_costs_its_text_and_seven_tokens_around_it() -> None:
    assert counted(QUESTION) == count_text(QUESTION["content"], O200K) + 3 + 1 + 3


def test_every_message_adds_its_own_frame() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert counted(system, QUESTION) == counted(QUESTION) + count_text("Be brief.", O200K) + 3 + 1


def test_a_name_costs_itself_and_one() -> None:
    assert counted({**QUESTION, "name": "Ada"}) == counted(QUESTION) + count_text("Ada", O200K) + 1


@pytest.mark.parametrize("model", ["o3-mini", "gpt-5", "gpt-5-mini", "gpt-5-chat-latest"])
def test_models_since_o1_end_the_prompt_one_token_shorter(model: str) -> None:
    assert counted(QUESTION, model=model) == counted(QUESTION) - 1


def test_older_models_count_with_their_own_encoding() -> None:
    text = {"role": "user", "content": "안녕하세요"}
    assert counted(text, model="gpt-4") == counted(text, model="gpt-4o") + 3


def test_text_in_parts_costs_as_much_as_text() -> None:
    parts = [{"type": "text", "text": QUESTION["content"]}]
    assert counted({"role": "user", "content": parts}) == counted(QUESTION)
    assert counted({"role": "user", "content": [QUESTION["content"]]}) == counted(QUESTION)


# --- what a body may hold besides dicts and text ---


def test_objects_of_the_sdk_count_like_their_dicts() -> None:
    spoken = ChatCompletionMessage(role="assistant", content="Paris.")
    assert counted(QUESTION, spoken) == counted(QUESTION, {"role": "assistant", "content": "Paris."})


@pytest.mark.parametrize("absent", [NOT_GIVEN, omit, None], ids=["NotGiven", "Omit", "None"])
def test_what_was_not_given_counts_for_nothing(absent: Any) -> None:
    bare = project(asked())
    keys = ("tools", "functions", "tool_choice", "response_format", "n", "max_tokens", "prediction")
    more = ("max_completion_tokens", "modalities", "service_tier", "web_search_options")
    assert project(asked(**dict.fromkeys(keys + more, absent))) == bare
    assert counted({**QUESTION, "name": absent, "tool_calls": absent}) == counted(QUESTION)
    empty = counted({"role": "user", "content": absent})
    assert empty == counted({"role": "user", "content": ""})


def test_bytes_count_by_their_number() -> None:
    assert counted({"role": "user", "content": b"abcd"}) == 4 + 3 + 1 + 3


def test_a_part_of_the_future_counts_with_all_of_its_text() -> None:
    future = {"type": "smell", "smell": {"notes": "bergamot, cedar and a little smoke"}}
    least = count_text("bergamot, cedar and a little smoke", O200K)
    assert counted({"role": "user", "content": [future]}) > least


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio", "file", "refusal", "new"])},
    optional=dict.fromkeys(("text", "image_url", "input_audio", "file", "refusal"), json_values),
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant", "tool"])},
    optional={
        "content": json_values | st.lists(parts, max_size=3),
        "name": json_values,
        "tool_calls": json_values | st.lists(json_values, max_size=2),
        "function_call": json_values,
    },
)


@pytest.mark.full
@given(
    history=st.lists(messages | json_values, min_size=1, max_size=4),
    more=st.dictionaries(
        st.sampled_from(["tools", "functions", "tool_choice", "response_format", "prediction", "modalities"]),
        json_values | st.lists(st.just(WEATHER), max_size=2),
        max_size=3,
    ),
    model=st.sampled_from([MODEL, "gpt-5", "gpt-4", "o4-mini"]),
)
@settings(max_examples=400, deadline=None)
def test_no_body_however_odd_breaks_the_count(history: list[Any], more: dict[str, Any], model: str) -> None:
    alone = chat_input_tokens({"messages": history, **more}, model)
    longer = chat_input_tokens({"messages": [*history, QUESTION], **more}, model)
    assert 0 < alone < longer


@pytest.mark.parametrize("bad", [None, [], (), "hello", {"role": "user"}, 7, NOT_GIVEN])
def test_messages_must_be_a_list_that_says_something(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="messages"):
        project({"messages": bad})


def test_a_body_without_messages_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="messages"):
        project({})


# --- tools and structured output ---


def test_tools_cost_the_text_that_declares_them() -> None:
    declared = (
        "namespace functions {\n\n// Get the weather of a city\ntype get_weather = (_: {\n"
        "// Its name\ncity: string,\n}) => any;\n\n} // namespace functions"
    )
    extra = counted(QUESTION, tools=[WEATHER]) - counted(QUESTION)
    assert extra == count_text(declared, O200K) + 9


def test_a_system_message_shares_its_frame_with_the_tools() -> None:
    system = {"role": "system", "content": "Be brief."}
    alone = counted(QUESTION, tools=[WEATHER]) - counted(QUESTION)
    assert counted(system, QUESTION, tools=[WEATHER]) - counted(system, QUESTION) == alone - 4


def test_the_older_functions_cost_as_much_as_tools() -> None:
    assert counted(QUESTION, functions=[WEATHER["function"]]) == counted(QUESTION, tools=[WEATHER])


def test_a_tool_that_must_be_called_costs_its_name_again() -> None:
    free = counted(QUESTION, tools=[WEATHER])
    forced = {"type": "function", "function": {"name": "get_weather"}}
    assert counted(QUESTION, tools=[WEATHER], tool_choice="auto") == free
    assert counted(QUESTION, tools=[WEATHER], tool_choice=forced) > free


def with_parameter(schema: dict[str, Any], **definitions: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"it": schema}, "$defs": definitions}
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"type": "string"}, {"type": "string", "description": "what it is"}),
        ({"type": "string"}, {"type": "string", "title": "The Thing"}),
        ({"type": "string"}, {"type": "string", "default": "nothing"}),
        ({"type": "string"}, {"enum": ["red", "green", "blue"]}),
        ({"type": "string"}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"type": "string"}, {"type": ["string", "null"]}),
        ({"type": "array"}, {"type": "array", "items": {"enum": ["red", "green"]}}),
        ({"type": "object"}, {"type": "object", "properties": {"a": {"type": "integer"}}}),
    ],
)
def test_what_a_schema_says_more_costs_more(less: dict[str, Any], more: dict[str, Any]) -> None:
    assert counted(QUESTION, tools=[with_parameter(more)]) > counted(QUESTION, tools=[with_parameter(less)])


def test_a_reference_costs_what_it_stands_for() -> None:
    place = {"type": "object", "properties": {"street": {"type": "string"}}}
    by_name = with_parameter({"$ref": "#/$defs/Place"}, Place=place)
    assert counted(QUESTION, tools=[by_name]) == counted(QUESTION, tools=[with_parameter(place)])


def test_definitions_that_unfold_without_end_are_counted_in_the_end() -> None:
    fork = {"$ref": "#/$defs/Fork"}
    endless = with_parameter(fork, Fork={"type": "object", "properties": {"left": fork, "right": fork}})
    assert 0 < counted(QUESTION, tools=[endless]) < 200_000


def test_a_custom_tool_costs_its_definition() -> None:
    grammar = "start: expr " * 50
    custom = {
        "type": "custom",
        "custom": {"name": "calc", "format": {"type": "grammar", "definition": grammar}},
    }
    assert counted(QUESTION, tools=[custom]) > counted(QUESTION) + count_text(grammar, O200K)


def test_past_tool_calls_and_their_results_cost_their_text() -> None:
    arguments = '{"city": "Reykjavik", "unit": "celsius"}'
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    asking = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees and wind"}
    text = count_text(arguments, O200K) + count_text("4 degrees and wind", O200K)
    extra = counted(QUESTION, asking, answer) - counted(QUESTION)
    assert text < extra < text + 30


class Joke(BaseModel):
    setup: str
    punchline: str


def test_titles_in_an_answers_schema_are_billed_by_a_constant() -> None:
    schema = Joke.model_json_schema()
    named = {"type": "json_schema", "json_schema": {"name": "Joke", "schema": schema, "strict": True}}
    bare = {key: value for key, value in schema.items() if key != "title"}
    bare["properties"] = {name: {"type": "string"} for name in schema["properties"]}
    untitled = {"type": "json_schema", "json_schema": {"name": "Joke", "schema": bare}}
    shown = count_text(compact_json(bare), O200K) + count_text("Joke", O200K)
    assert counted(QUESTION, response_format=untitled) == counted(QUESTION) + shown + 8
    assert counted(QUESTION, response_format=named) == counted(QUESTION) + shown + 19
    assert counted(QUESTION, response_format=Joke) == counted(QUESTION, response_format=named)
    dialect = {**bare, "$schema": "https://json-schema.org/draft/2020-12/schema"}
    with_dialect = {"type": "json_schema", "json_schema": {"name": "Joke", "schema": dialect}}
    assert counted(QUESTION, response_format=with_dialect) == counted(QUESTION, response_format=untitled)


def test_a_property_called_title_is_no_title() -> None:
    def answer(name: str) -> dict[str, Any]:
        schema = {"type": "object", "properties": {name: {"type": "string", "description": "a b c d e f"}}}
        return {"type": "json_schema", "json_schema": {"name": "Book", "schema": schema}}

    assert counted(QUESTION, response_format=answer("title")) == counted(
        QUESTION, response_format=answer("label")
    )


@pytest.mark.parametrize("plain", [{"type": "text"}, {"type": "json_object"}])
def test_an_answer_without_a_schema_costs_nothing_more(plain: dict[str, str]) -> None:
    assert counted(QUESTION, response_format=plain) == counted(QUESTION)


# --- images, audio, files ---


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00" * 8


def jpeg(width: int, height: int) -> bytes:
    thumbnail = b"\xff\xe1" + struct.pack(">H", 60_002) + b"\x00" * 60_000
    return (
        b"\xff\xd8" + thumbnail + b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\x00" * 9
    )


def webp_lossy(width: int, height: int) -> bytes:
    return b"RIFF\x00\x00\x00\x00WEBPVP8 " + b"\x00" * 10 + struct.pack("<HH", width, height)


def webp_lossless(width: int, height: int) -> bytes:
    bits = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return b"RIFF\x00\x00\x00\x00WEBPVP8L\x00\x00\x00\x00\x2f" + bits


def webp_extended(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x00\x00\x00\x00WEBPVP8X" + b"\x00" * 8 + sides


@pytest.mark.parametrize("make", [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended])
def test_an_images_size_is_read_from_its_header(make: Any) -> None:
    assert image_size(make(640, 400)) == (640, 400)
    assert image_size(make(640, 400)[:8]) is None


@given(st.binary(max_size=80), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF"]))
@settings(max_examples=300, deadline=None)
def test_no_bytes_break_the_reading_of_a_header(data: bytes, magic: bytes) -> None:
    size = image_size(magic + data)
    assert size is None or (size[0] > 0 and size[1] > 0)


def shown(data: bytes | str, detail: str | None = None, kind: str = "png") -> dict[str, Any]:
    url = data if isinstance(data, str) else f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    image = {"url": url} if detail is None else {"url": url, "detail": detail}
    return {"role": "user", "content": [{"type": "image_url", "image_url": image}]}


def image_cost(message: dict[str, Any], model: str, **options: Any) -> int:
    empty = {"role": "user", "content": ""}
    with_image = chat_input_tokens({"messages": [message]}, model, **options)
    return with_image - chat_input_tokens({"messages": [empty]}, model)


@pytest.mark.parametrize(
    ("model", "size", "detail", "cost"),
    [
        ("gpt-4o", (512, 512), None, 85 + 170),
        ("gpt-4o", (1024, 1024), "high", 85 + 4 * 170),
        ("gpt-4o", (4096, 8192), "high", 85 + 6 * 170),
        ("gpt-4o", (1024, 1024), "low", 85),
        ("gpt-4o", (10_000, 100), "auto", 85 + 4 * 170),
        ("gpt-4o-mini", (1, 1), None, 2_833 + 5_667),
        ("gpt-5", (512, 512), None, 70 + 140),
        ("o4-mini", (320, 320), None, 172),
        ("gpt-4.1-mini", (320, 320), None, 162),
        ("gpt-4.1-nano", (320, 320), None, 246),
        ("gpt-5-mini", (320, 320), None, 120),
        ("gpt-5-nano", (320, 320), None, 150),
        ("gpt-5.1-codex-mini", (320, 320), None, 120),
        ("gpt-5.2", (3_200, 3_200), None, 1_844),  # 1 536 patches
        ("gpt-5.4", (3_200, 3_200), None, 3_000),  # 2 500
        ("gpt-5.4", (3_200, 3_200), "original", 12_000),
        ("gpt-5.4-nano", (3_200, 3_200), "high", 3_750),
        ("gpt-5.6", (3_200, 3_200), "high", 3_000),
        ("gpt-5.6", (3_200, 3_200), None, 12_000),  # from gpt-5.5 on, `auto` is `original`
        ("gpt-5.6", (640, 480), "low", 231),  # 512 x 384
        ("openai/gpt-4o", (512, 512), None, 85 + 170),
    ],
)
def test_an_image_costs_by_size_detail_and_model(
    model: str, size: tuple[int, int], detail: str | None, cost: int
) -> None:
    assert image_cost(shown(png(*size), detail), model) == cost


@pytest.mark.parametrize(("detail", "most"), [(None, 85 + 8 * 170), ("low", 85)])
def test_an_image_by_url_is_allowed_the_most_that_one_can_cost_until_settled_calls_teach(
    detail: str | None, most: int
) -> None:
    message = shown("https://example.com/cat.png", detail)
    assert image_cost(message, "gpt-4o") == 0
    first = project({"messages": [message]}, model="gpt-4o")
    assert first.input_tokens == with_margin(counted(message, model="gpt-4o")) + most
    assert first.hidden is not None
    assert first.hidden.key == "gpt-4o input beyond: unseen_images"
    since = project({"messages": [message]}, model="gpt-4o", learned_input=lambda key: 40)
    assert since.input_tokens == first.input_tokens - most + max(50, most // 8)


@pytest.mark.parametrize("forged", [png(0, 0), png(2**32 - 1, 2**32 - 1), b"no image", png(9, 9)[:18]])
def test_a_header_that_no_image_has_is_not_believed(forged: bytes) -> None:
    assert image_cost(shown(forged), "gpt-4o") == 85 + 8 * 170


def test_a_size_behind_a_thumbnail_is_found() -> None:
    assert image_cost(shown(jpeg(512, 512), kind="jpeg"), "gpt-4o") == 85 + 170


def test_a_large_image_is_not_counted_by_the_text_that_carries_it() -> None:
    heavy = png(512, 512) + b"\x00" * 3_000_000
    assert image_cost(shown(heavy), "gpt-4o") == 85 + 170


def wav(seconds: int, rate: int = 16_000) -> bytes:
    body = b"\x00" * (seconds * rate * 2)
    head = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt "
    return head + struct.pack("<IHHIIHH", 16, 1, 1, rate, rate * 2, 2, 16) + b"data" + body


def heard(data: bytes, kind: str = "wav") -> dict[str, Any]:
    audio = {"data": base64.b64encode(data).decode(), "format": kind}
    return {"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}


def test_audio_costs_ten_tokens_a_second() -> None:
    assert image_cost(heard(wav(30)), "gpt-audio") in (300, 301, 302)


def test_audio_of_unknown_length_costs_no_less_than_wav_of_its_size() -> None:
    unknown = b"ID3" + wav(30)[3:]
    assert image_cost(heard(unknown, "mp3"), "gpt-audio") > 300


def test_audio_is_priced_as_audio() -> None:
    spoken = project({"messages": [heard(wav(60))], "max_tokens": 10}, "gpt-audio")
    assert spoken.usage.units["input_audio_tokens"] >= 600
    written = project({"messages": [{"role": "user", "content": "x " * 600}], "max_tokens": 10}, "gpt-audio")
    assert spoken.input_cost > 5 * written.input_cost


def test_an_answer_that_may_be_spoken_is_priced_as_audio() -> None:
    silent = project(asked(max_tokens=100), "gpt-audio")
    speaking = project(asked(max_tokens=100, modalities=["text", "audio"]), "gpt-audio")
    assert speaking.usage.units["output_audio_tokens"] == 100
    assert speaking.cost > silent.cost


def test_audio_on_a_model_without_a_price_for_it_is_refused() -> None:
    with pytest.raises(UnknownModelError) as caught:
        project({"messages": [heard(wav(1))]}, "gpt-4.1")
    assert caught.value.unit == "input_audio_tokens"


def test_a_file_of_unknown_form_costs_by_its_size_and_an_unseen_one_by_an_allowance() -> None:
    def attached(**file: str) -> dict[str, Any]:
        return {"role": "user", "content": [{"type": "file", "file": file}]}

    small = counted(attached(file_data="data:application/pdf;base64," + "A" * 4_000))
    large = counted(attached(file_data="data:application/pdf;base64," + "A" * 40_000))
    assert small < large < 40_000
    body = {"messages": [attached(file_id="file-123")]}
    assert project(body).input_tokens == with_margin(counted(*body["messages"])) + 20_000
    taught = project(body, learned_input=lambda key: 300).input_tokens
    assert taught == with_margin(counted(*body["messages"])) + 20_000 // 8, "the next file may be longer"
    taught = project(body, learned_input=lambda key: 4_000).input_tokens
    assert taught == with_margin(counted(*body["messages"])) + 4_000 + 1_000


# --- embeddings ---


def test_embeddings_cost_the_tokens_of_their_inputs(book: PriceBook) -> None:
    model = "text-embedding-3-small"
    one = embedding_input_tokens({"input": "hello world"}, model)
    assert one == 2
    assert embedding_input_tokens({"input": ["hello world", "hello world"]}, model) == 2 * one
    assert embedding_input_tokens({"input": [1, 2, 3]}, model) == 3
    assert embedding_input_tokens({"input": [[1, 2, 3], [4]]}, model) == 4
    assert embedding_input_tokens({"input": ""}, model) == 1
    assert embedding_input_tokens({"input": NOT_GIVEN}, model) == 0
    projection = project_embeddings({"input": "hello world"}, model, book.rates(model))
    assert projection.output_tokens == 0
    assert projection.cost == projection.input_cost == with_margin(2) * 20
    assert not projection.cap_assumed


# --- margin, cap, n ---


@given(st.integers(0, 10**9))
def test_the_margin_is_five_percent_and_thirty_two_tokens(tokens: int) -> None:
    assert 100 * (with_margin(tokens) - 32) >= 105 * tokens
    assert 100 * (with_margin(tokens) - 33) < 105 * tokens


@pytest.mark.parametrize(
    ("model", "reasons"),
    [
        ("o1", True),
        ("o3-mini-2025-01-31", True),
        ("gpt-5", True),
        ("openai/gpt-5.2", True),
        ("gpt-6-sol", True),
        ("deepseek-reasoner", True),
        ("gpt-5-chat-latest", False),
        ("gpt-4o", False),
        ("gpt-4.1-mini", False),
        ("grok-4-fast-non-reasoning", False),
        ("my-model", False),
    ],
)
def test_reasoning_models_are_known_and_assumed_to_say_more(model: str, reasons: bool) -> None:
    assert is_reasoning(model) is reasons
    assert assumed_output_cap(model) == (4_096 if reasons else 1_024)


@pytest.mark.parametrize(
    ("body", "learned", "output", "assumed"),
    [
        ({}, None, 1_024, True),
        ({}, 300, 300, True),
        ({"max_tokens": 50}, 300, 50, False),
        ({"max_completion_tokens": 70}, None, 70, False),
        ({"max_completion_tokens": 70, "max_tokens": 50}, None, 70, False),
        ({"max_tokens": 50, "n": 3}, None, 150, False),
        ({"n": 2}, 300, 600, True),
        ({"n": 2}, None, 2_048, True),
        ({"max_tokens": 0}, None, 0, False),
    ],
)
def test_the_output_is_the_cap_times_the_choices(
    body: dict[str, Any], learned: int | None, output: int, assumed: bool
) -> None:
    projection = project(asked(**body), learned_cap=learned)
    assert (projection.output_tokens, projection.cap_assumed) == (output, assumed)
    assert projection.usage.output_tokens == output


@pytest.mark.parametrize("name", ["n", "max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("bad", [-1, "10", True, 1.5, [5]])
def test_a_bad_count_is_refused_and_named(name: str, bad: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        project(asked(**{name: bad}))
    assert name in str(caught.value)
    assert repr(bad) in str(caught.value)


def test_no_choices_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="n must be"):
        project(asked(n=0))


# --- the price of it ---


def test_the_cost_is_input_with_margin_and_output_at_full_price() -> None:
    projection = project(asked(max_tokens=1_000))
    assert projection.model == MODEL
    assert projection.input_tokens == with_margin(counted(QUESTION)) == projection.usage.input_tokens
    assert projection.input_cost == projection.input_tokens * 150
    assert projection.cost == projection.input_cost + 1_000 * 600


def test_a_rejected_prediction_is_billed_as_output() -> None:
    text = "def f():\n    return 1\n" * 40
    plain = project(asked(max_tokens=100))
    predicted = project(asked(max_tokens=100, prediction={"type": "content", "content": text}))
    assert predicted.output_tokens == plain.output_tokens + count_text(text, O200K)
    in_parts = {"type": "content", "content": [{"type": "text", "text": text}]}
    assert project(asked(max_tokens=100, prediction=in_parts)).cost == predicted.cost


def test_a_tier_is_priced_at_the_most_that_it_may_cost() -> None:
    standard = project(asked(), "gpt-5")
    assert project(asked(service_tier="priority"), "gpt-5").cost > standard.cost
    assert project(asked(service_tier="priority"), "gpt-5").input_cost > standard.input_cost
    assert project(asked(service_tier="auto"), "gpt-5").cost == standard.cost
    # A request for flex may be answered at the standard tier, and is billed as it was answered.
    assert project(asked(service_tier="flex"), "gpt-5").cost == standard.cost
    assert project(asked(service_tier="unheard-of"), "gpt-5").cost >= standard.cost


def test_a_web_search_is_priced_beside_the_tokens() -> None:
    searching = project(asked(web_search_options={}), "gpt-4o-mini")
    assert searching.cost == project(asked(), "gpt-4o-mini").cost + 10_000_000


def test_a_free_model_costs_nothing(book: PriceBook) -> None:
    book.register("llama", input=0, output=0)
    body = {"messages": [shown("https://example.com/x.png"), heard(wav(1))], "modalities": ["audio"]}
    projection = project_chat(body, "llama", book.rates("llama"))
    assert (projection.cost, projection.input_cost) == (0, 0)
    assert projection.input_tokens > 0


@pytest.mark.full
def test_the_measuring_script_runs_and_prints_no_text(tmp_path: Path) -> None:
    billed = counted(QUESTION)
    lines = (
        '{"id": "abc", "endpoint": "chat", "model": "gpt-4o-mini", "request": {"messages": [{"role": "user", '
        f'"content": "What is the capital of France?"}}]}}, "usage": {{"prompt_tokens": {billed}}}}}\n'
        '{"id": "low", "endpoint": "chat", "model": "gpt-4o-mini", "request": {"messages": [{"role": "user", '
        '"content": "Hi"}]}, "usage": {"prompt_tokens": 900}}\n'
        '{"id": "emb", "endpoint": "embeddings", "model": "text-embedding-3-small", '
        '"request": {"input": "hello world"}, "usage": {"prompt_tokens": 2}}\n'
        '{"id": "no", "endpoint": "speech", "model": "tts-1", "request": {}, "usage": {}}\n'
    )
    file = tmp_path / "pairs.jsonl"
    file.write_text(lines)
    script = Path(__file__).parent.parent / "benchmarks" / "projection.py"
    done = subprocess.run([sys.executable, script, file], capture_output=True, text=True, check=True)
    rows: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        rows.setdefault(line[:20].strip(), line.split())
    assert rows["plain chat"][2:5] == ["2", "1", "1"]
    assert "low" in rows["plain chat"]
    assert rows["embeddings"][1:3] == ["1", "1"]
    assert "speech 1" in done.stdout
    assert "France" not in done.stdout
