"""The test server behaves on the wire as OpenAI's API does, and its records are the truth."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import http.client
import itertools
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

from budgetguard.errors import ConfigurationError
from tests.provider.server import OpenAIServer, Reply, count_by_length

CHAT = "/v1/chat/completions"
HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
# 3 for the message, 1 for "user", 3 for "hello there" at 4 characters a token, 3 at the end.
HELLO_TOKENS = 10
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
            "required": ["city", "days"],
        },
    },
}


class City(BaseModel):
    name: str
    people: int
    mayor: Mayor | None
    districts: list[str]


class Mayor(BaseModel):
    name: str
    city: City | None


class Bounded(BaseModel):
    kind: Literal["b", "a"]
    when: datetime.datetime
    id: uuid.UUID
    rating: Annotated[int, Field(ge=3, le=5)]
    share: Annotated[float, Field(gt=0.2, lt=0.4)]
    dozens: Annotated[int, Field(gt=20, multiple_of=12)]
    below: Annotated[int, Field(lt=-7)]
    code: Annotated[str, Field(min_length=8, max_length=9)]
    pair: Annotated[list[bool], Field(min_length=2, max_length=2)]
    either: int | str


def words(text: str) -> int:
    """Count one token a word."""
    return len(text.split())


@contextlib.contextmanager
def serving(reply: Any = None, *, retries: int = 0, **options: Any) -> Iterator[tuple[OpenAIServer, OpenAI]]:
    with (
        OpenAIServer(reply, **options) as server,
        OpenAI(base_url=server.base_url, api_key="test", max_retries=retries, timeout=20) as client,
    ):
        yield server, client


def ask(client: OpenAI, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt-4o-mini", "messages": HELLO, **more})


def content(chunks: Any) -> list[str]:
    return [
        chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content
    ]


def output_tokens(usage: dict[str, Any]) -> int:
    return int(usage["completion_tokens"])


class TestChat:
    def test_the_answer_reports_what_was_billed(self) -> None:
        with serving("one two three", count_tokens=words) as (server, client):
            answer = ask(client)
            assert answer.choices[0].message.content == "one two three"
            assert answer.choices[0].finish_reason == "stop"
            assert answer.usage.completion_tokens == 3
            assert answer.usage.prompt_tokens == 3 + 1 + 2 + 3
            assert answer.usage.total_tokens == 12
            assert [answer.usage.to_dict()] == server.billed

    def test_prompt_tokens_follow_the_published_count(self) -> None:
        messages = [
            {"role": "system", "content": "be brief please"},
            {"role": "user", "name": "Ada Lovelace", "content": [{"type": "text", "text": "a b c d"}]},
        ]
        with serving(count_tokens=words) as (_, client):
            assert ask(client, messages=messages).usage.prompt_tokens == (3 + 1 + 3) + (3 + 1 + 4 + 1 + 2) + 3

    def test_tools_and_schemas_are_input_too(self) -> None:
        schema: Any = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
        with serving() as (_, client):
            plain = ask(client).usage.prompt_tokens
            for more in ({"tools": [WEATHER]}, {"response_format": schema}):
                compact = json.dumps(next(iter(more.values())), separators=(",", ":"))
                assert ask(client, **more).usage.prompt_tokens == plain + count_by_length(compact)

    def test_every_choice_is_billed(self) -> None:
        with serving("one two three", count_tokens=words) as (_, client):
            answer = ask(client, n=3)
            assert [choice.index for choice in answer.choices] == [0, 1, 2]
            assert answer.usage.completion_tokens == 9

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_a_cap_cuts_the_text_and_the_bill(self, name: str) -> None:
        with serving("one two three", count_tokens=words) as (_, client):
            answer = ask(client, **{name: 2, "n": 2})
            assert {choice.finish_reason for choice in answer.choices} == {"length"}
            assert words(answer.choices[0].message.content) == 2
            assert answer.usage.completion_tokens == 4

    def test_a_cap_that_is_not_reached_changes_nothing(self) -> None:
        with serving("one two three", count_tokens=words) as (_, client):
            assert ask(client, max_tokens=3).choices[0].finish_reason == "stop"

    def test_the_script_sets_usage_tier_and_model(self) -> None:
        reply = Reply(
            text="hi",
            prompt_tokens=1000,
            completion_tokens=200,
            cached_tokens=800,
            reasoning_tokens=150,
            service_tier="flex",
            model="gpt-4o-mini-2024-07-18",
        )
        with serving(reply) as (_, client):
            answer = ask(client)
        assert answer.usage.prompt_tokens == 1000
        assert answer.usage.completion_tokens == 200
        assert answer.usage.prompt_tokens_details.cached_tokens == 800
        assert answer.usage.completion_tokens_details.reasoning_tokens == 150
        assert (answer.service_tier, answer.model) == ("flex", "gpt-4o-mini-2024-07-18")

    def test_a_cap_also_cuts_scripted_and_reasoning_tokens(self) -> None:
        with serving(Reply(text="one two", completion_tokens=500, reasoning_tokens=300)) as (_, client):
            answer = ask(client, max_completion_tokens=100)
        assert answer.usage.completion_tokens == 100
        assert answer.usage.completion_tokens_details.reasoning_tokens == 100
        assert answer.choices[0].message.content == ""
        assert answer.choices[0].finish_reason == "length"

    def test_usage_left_out_of_the_answer_is_billed_all_the_same(self) -> None:
        with serving(Reply(omit_usage=True, prompt_tokens=7)) as (server, client):
            assert ask(client).usage is None
            assert server.billed[0]["prompt_tokens"] == 7

    def test_the_tier_asked_for_is_the_tier_answered(self) -> None:
        with serving() as (_, client):
            tiers = [ask(client, service_tier=tier).service_tier for tier in ("auto", "priority")]
        assert tiers == ["default", "priority"]

    def test_a_scripted_tool_call(self) -> None:
        with serving(Reply(tool_calls=[("get_weather", {"city": "Oslo"})])) as (server, client):
            (choice,) = ask(client, tools=[WEATHER]).choices
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content is None
            (call,) = choice.message.tool_calls
            assert (call.function.name, json.loads(call.function.arguments)) == (
                "get_weather",
                {"city": "Oslo"},
            )
            assert output_tokens(server.billed[0]) == count_by_length("get_weather") + count_by_length(
                call.function.arguments
            )

    @pytest.mark.parametrize(
        "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
    )
    def test_a_tool_that_must_be_called_is_called_with_fitting_arguments(self, choice: Any) -> None:
        with serving() as (_, client):
            (call,) = ask(client, tools=[WEATHER], tool_choice=choice).choices[0].message.tool_calls
        arguments = json.loads(call.function.arguments)
        assert isinstance(arguments["city"], str)
        assert arguments["days"] >= 2

    def test_parse_gets_a_value_that_fits_a_nested_and_recursive_schema(self) -> None:
        with serving() as (_, client):
            answer = client.chat.completions.parse(model="gpt-4o-mini", messages=HELLO, response_format=City)
        assert isinstance(answer.choices[0].message.parsed, City)

    def test_parse_gets_a_value_within_the_bounds_of_its_schema(self) -> None:
        with serving() as (_, client):
            answer = client.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Bounded)
        assert isinstance(answer.choices[0].message.parsed, Bounded)

    def test_json_mode_wraps_a_text_that_is_not_json(self) -> None:
        with serving("plain words") as (_, client):
            answer = ask(client, response_format={"type": "json_object"})
        assert json.loads(answer.choices[0].message.content) == {"text": "plain words"}

    def test_a_scripted_json_text_is_kept(self) -> None:
        text = '{"name": "Oslo", "people": 700000, "mayor": null, "districts": []}'
        with serving(text) as (_, client):
            answer = client.chat.completions.parse(model="gpt-4o-mini", messages=HELLO, response_format=City)
        assert answer.choices[0].message.parsed == City(name="Oslo", people=700_000, mayor=None, districts=[])


class TestChatStream:
    def test_without_asking_there_is_no_usage(self) -> None:
        with serving("one two three") as (server, client):
            chunks = list(ask(client, stream=True))
            assert "".join(content(chunks)) == "one two three"
            assert chunks[0].choices[0].delta.role == "assistant"
            assert chunks[-1].choices[0].finish_reason == "stop"
            assert all("usage" not in chunk.to_dict() for chunk in chunks)
            assert server.requests[0].streamed
            assert server.requests[0].completed

    def test_the_usage_asked_for_comes_last_without_choices(self) -> None:
        with serving("one two three", count_tokens=words) as (server, client):
            chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
            assert [chunk.to_dict()["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
            assert chunks[-1].choices == []
            assert chunks[-1].usage.to_dict() == server.billed[0]
            assert chunks[-1].usage.completion_tokens == 3

    def test_the_last_line_is_done(self) -> None:
        body = {"model": "gpt-4o", "messages": HELLO, "stream": True}
        with serving() as (server, _):
            _, headers, data = post(server, CHAT, body)
        assert headers["content-type"].startswith("text/event-stream")
        assert data.endswith(b"\n\ndata: [DONE]\n\n")

    def test_choices_are_interleaved_and_each_ends(self) -> None:
        with serving(Reply(text="abcd", chunks=2), count_tokens=len) as (server, client):
            chunks = [chunk.choices[0] for chunk in ask(client, stream=True, n=2)]
            parts = [(choice.index, choice.delta.content) for choice in chunks if choice.delta.content]
            assert parts == [(0, "ab"), (1, "ab"), (0, "cd"), (1, "cd")]
            assert [choice.index for choice in chunks if choice.finish_reason] == [0, 1]
            assert output_tokens(server.billed[0]) == 8

    @pytest.mark.parametrize("chunks", [1, 3, 7])
    def test_the_script_sets_the_number_of_chunks(self, chunks: int) -> None:
        with serving(Reply(text="some answer", chunks=chunks)) as (_, client):
            parts = content(ask(client, stream=True))
        assert len(parts) == chunks
        assert "".join(parts) == "some answer"

    def test_the_stream_helper_assembles_text_and_usage(self) -> None:
        with (
            serving("one two three") as (server, client),
            client.chat.completions.stream(
                model="gpt-4o-mini", messages=HELLO, stream_options={"include_usage": True}
            ) as stream,
        ):
            final = stream.get_final_completion()
            assert final.choices[0].message.content == "one two three"
            assert final.usage is not None
            assert final.usage.to_dict() == server.billed[0]

    def test_the_stream_helper_assembles_tool_calls(self) -> None:
        calls: list[Any] = [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome", "days": 3})]
        strict: Any = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
        with (
            serving(Reply(tool_calls=calls, chunks=4)) as (_, client),
            client.chat.completions.stream(model="gpt-4o", messages=HELLO, tools=[strict]) as stream,
        ):
            message = stream.get_final_completion().choices[0].message
        assert message.tool_calls is not None
        assert [json.loads(call.function.arguments) for call in message.tool_calls] == [a for _, a in calls]


class TestOtherEndpoints:
    def test_embeddings_are_the_same_packed_and_plain(self) -> None:
        with serving(count_tokens=words) as (server, client):
            packed = client.embeddings.create(model="text-embedding-3-small", input=["a b", "c"])
            plain = client.embeddings.create(
                model="text-embedding-3-small", input=["a b", "c"], encoding_format="float"
            )
            assert [len(item.embedding) for item in packed.data] == [1536, 1536]
            for one, other in zip(packed.data, plain.data, strict=True):
                assert one.embedding == pytest.approx(other.embedding)
                assert sum(x * x for x in one.embedding) == pytest.approx(1.0, abs=1e-5)
            assert packed.data[0].embedding != packed.data[1].embedding
            assert server.billed == [{"prompt_tokens": 3, "total_tokens": 3}] * 2

    def test_packed_embeddings_are_little_endian_floats(self) -> None:
        body = {"model": "text-embedding-3-small", "input": "x", "dimensions": 4, "encoding_format": "base64"}
        with serving() as (server, _):
            packed = json.loads(post(server, "/v1/embeddings", body)[2])["data"][0]["embedding"]
            plain = json.loads(post(server, "/v1/embeddings", {**body, "encoding_format": "float"})[2])
        assert struct.unpack("<4f", base64.b64decode(packed)) == pytest.approx(plain["data"][0]["embedding"])

    def test_embeddings_of_token_lists_bill_the_tokens(self) -> None:
        with serving() as (server, client):
            client.embeddings.create(model="text-embedding-3-large", input=[[1, 2, 3], [4, 5]])
            client.embeddings.create(model="text-embedding-3-large", input=[1, 2, 3])
            assert [usage["prompt_tokens"] for usage in server.billed] == [5, 3]

    def test_responses(self) -> None:
        with serving("one two three", count_tokens=words) as (server, client):
            answer = client.responses.create(model="gpt-4o-mini", input="hello there", instructions="be nice")
            assert answer.output_text == "one two three"
            assert answer.status == "completed"
            assert answer.usage is not None
            assert answer.usage.to_dict() == server.billed[0]
            assert (answer.usage.input_tokens, answer.usage.output_tokens) == ((3 + 1 + 2) * 2 + 3, 3)

    def test_responses_parse_and_forced_tools(self) -> None:
        tool: Any = {"type": "function", "strict": False, **WEATHER["function"]}
        with serving() as (_, client):
            parsed = client.responses.parse(model="gpt-4o-mini", input="hi", text_format=City)
            called = client.responses.create(
                model="gpt-4o-mini", input="hi", tools=[tool], tool_choice="required"
            )
        assert isinstance(parsed.output_parsed, City)
        assert called.output[0].type == "function_call"
        assert json.loads(called.output[0].arguments)["days"] >= 2

    def test_a_capped_response_is_incomplete(self) -> None:
        with serving("one two three", count_tokens=words) as (_, client):
            answer = client.responses.create(model="gpt-4o-mini", input="hi", max_output_tokens=2)
            events = list(
                client.responses.create(model="gpt-4o-mini", input="hi", max_output_tokens=2, stream=True)
            )
        assert answer.status == "incomplete"
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "max_output_tokens"
        assert events[-1].type == "response.incomplete"

    def test_streamed_responses_are_typed_numbered_events(self) -> None:
        with serving("one two three") as (server, client):
            events = list(client.responses.create(model="gpt-4o-mini", input="hi", stream=True))
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert events[0].type == "response.created"
            deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
            assert "".join(deltas) == "one two three"
            assert events[-1].type == "response.completed"
            assert events[-1].response.usage is not None
            assert events[-1].response.usage.to_dict() == server.billed[0]

    @pytest.mark.parametrize("reply", [Reply(text="one two"), Reply(tool_calls=[("f", {"a": 1}), ("g", {})])])
    def test_the_responses_stream_helper_assembles_the_output(self, reply: Reply) -> None:
        with (
            serving(reply) as (_, client),
            client.responses.stream(model="gpt-4o-mini", input="hi") as stream,
        ):
            final = stream.get_final_response()
        assert final.output_text == (reply.text or "")
        calls = [
            (item.name, json.loads(item.arguments)) for item in final.output if item.type == "function_call"
        ]
        assert calls == list(reply.tool_calls)

    def test_completions_stop_at_16_tokens_unless_told_otherwise(self) -> None:
        text = " ".join(["word"] * 40)
        with serving(text, count_tokens=words) as (server, client):
            model = "gpt-3.5-turbo-instruct"
            short = client.completions.create(model=model, prompt="a b c")
            long = client.completions.create(model=model, prompt=["a", "b"], max_tokens=100, n=2)
            assert (short.choices[0].finish_reason, words(short.choices[0].text)) == ("length", 16)
            assert [choice.text for choice in long.choices] == [text] * 4
            assert [output_tokens(usage) for usage in server.billed] == [16, 160]
            assert [usage["prompt_tokens"] for usage in server.billed] == [3, 2]

    def test_streamed_completions(self) -> None:
        with serving("one two three") as (server, client):
            chunks = list(
                client.completions.create(
                    model="davinci-002", prompt="hi", stream=True, stream_options={"include_usage": True}
                )
            )
            assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "one two three"
            assert chunks[-1].usage is not None
            assert chunks[-1].usage.to_dict() == server.billed[0]

    def test_what_costs_nothing_bills_nothing(self) -> None:
        with serving() as (server, client):
            assert "gpt-4o" in [model.id for model in client.models.list()]
            assert client.models.retrieve("gpt-4o").id == "gpt-4o"
            verdicts = client.moderations.create(model="omni-moderation-latest", input=["a", "b"]).results
            assert [verdict.flagged for verdict in verdicts] == [False, False]
            with pytest.raises(openai.NotFoundError, match="gpt-99"):
                client.models.retrieve("gpt-99")
            assert server.billed == []
            assert server.count() == 4


def post(
    server: OpenAIServer, path: str, body: Any, method: str = "POST"
) -> tuple[int, dict[str, str], bytes]:
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, data)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "param"),
        [
            ("POST", "/v1/images/generations", {"prompt": "x"}, 404, None),
            ("POST", "/elsewhere", {}, 404, None),
            ("GET", CHAT, {}, 405, None),
            ("POST", CHAT, b"{not json", 400, None),
            ("POST", CHAT, b"[]", 400, None),
            ("POST", CHAT, {"messages": HELLO}, 400, "model"),
            ("POST", CHAT, {"model": "m"}, 400, "messages"),
            ("POST", CHAT, {"model": "m", "messages": "hi"}, 400, "messages"),
            ("POST", CHAT, {"model": "m", "messages": ["hi"]}, 400, "messages"),
            ("POST", CHAT, {"model": "m", "messages": HELLO, "max_tokens": "9"}, 400, "max_tokens"),
            ("POST", CHAT, {"model": "m", "messages": HELLO, "n": 0}, 400, "n"),
        ],
    )
    def test_a_bad_request_is_refused_in_openais_shape_and_takes_no_reply(
        self, method: str, path: str, body: Any, status: int, param: str | None
    ) -> None:
        with serving(["the only reply"]) as (server, client):
            got, _, data = post(server, path, body, method)
            error = json.loads(data)["error"]
            assert got == status
            assert set(error) == {"message", "type", "param", "code"}
            assert error["param"] == param
            assert server.billed == []
            assert ask(client).choices[0].message.content == "the only reply"

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, openai.BadRequestError),
            (401, openai.AuthenticationError),
            (404, openai.NotFoundError),
            (429, openai.RateLimitError),
            (500, openai.InternalServerError),
        ],
    )
    def test_a_scripted_error_is_the_clients_own_and_free(self, status: int, kind: type[Exception]) -> None:
        with serving(Reply(status=status, text="told so")) as (server, client):
            with pytest.raises(kind, match="told so"):
                ask(client, stream=True)
            assert server.billed == []
            assert server.requests[0].status == status

    def test_an_exhausted_quota_has_its_code_and_type(self) -> None:
        with (
            serving(Reply(status=429, error_code="insufficient_quota")) as (_, client),
            pytest.raises(openai.RateLimitError) as caught,
        ):
            ask(client)
        assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")

    def test_the_client_retries_and_every_try_is_counted(self) -> None:
        script = [Reply(status=429, retry_after=0.001), Reply(status=500, retry_after=0.001), "at last"]
        with serving(script, retries=2) as (server, client):
            assert ask(client).choices[0].message.content == "at last"
            assert [record.status for record in server.requests] == [429, 500, 200]
            assert len(server.billed) == 1

    def test_the_wait_before_a_retry_is_given_in_seconds_and_in_milliseconds(self) -> None:
        with serving(Reply(status=429, retry_after=1.5)) as (server, _):
            _, headers, _ = post(server, CHAT, {"model": "m", "messages": HELLO})
        assert (headers["retry-after-ms"], headers["retry-after"]) == ("1500", "2")

    def test_a_script_that_runs_out_says_so(self) -> None:
        with serving(["only one"], retries=5) as (server, client):
            ask(client)
            with pytest.raises(openai.BadRequestError, match="no reply for request 2"):
                ask(client)
            assert server.count() == 2

    def test_headers_of_the_script_and_a_request_id_are_sent(self) -> None:
        with serving(Reply(headers={"x-ratelimit-remaining-requests": "7"})) as (_, client):
            raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
        assert raw.headers["x-ratelimit-remaining-requests"] == "7"
        assert raw.request_id == "req_000001"


class TestScript:
    def test_a_function_answers_from_the_body(self) -> None:
        with serving(lambda body: Reply(text=body["messages"][0]["content"].upper())) as (_, client):
            assert ask(client).choices[0].message.content == "HELLO THERE"

    def test_an_endless_iterator_never_runs_out(self) -> None:
        with serving(itertools.cycle(["a", "b"])) as (_, client):
            assert [ask(client).choices[0].message.content for _ in range(4)] == ["a", "b", "a", "b"]

    @pytest.mark.parametrize("failure", [LookupError, ConnectionError])
    def test_a_function_that_fails_tells_the_client_without_retries_and_is_loud(
        self, failure: type[Exception], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(body: dict[str, Any]) -> str:
            raise failure(body["model"])

        loud: list[type[BaseException]] = []
        monkeypatch.setattr(threading, "excepthook", lambda args: loud.append(args.exc_type))
        with serving(broken, retries=5) as (server, client):
            with pytest.raises(openai.InternalServerError, match="script failed"):
                ask(client)
            assert server.count() == 1
        assert [issubclass(kind, LookupError | ConfigurationError) for kind in loud] == [True]


class TestBrokenConnections:
    def test_a_drop_before_any_answer(self) -> None:
        with serving(Reply(drop_after=0, completion_tokens=9)) as (server, client):
            with pytest.raises(openai.APIConnectionError):
                ask(client)
            assert server.wait_idle()
            # The provider has done the work, whoever got the answer.
            assert output_tokens(server.billed[0]) == 9
            assert not server.requests[0].completed

    def test_a_drop_in_the_middle_of_a_plain_answer(self) -> None:
        with serving(Reply(drop_after=1)) as (server, client):
            with pytest.raises(openai.APIConnectionError):
                ask(client)
            assert server.wait_idle()
            assert not server.requests[0].completed

    def test_a_dropped_stream_bills_the_chunks_sent(self) -> None:
        with serving(Reply(text="one two three four", drop_after=2), count_tokens=words) as (server, client):
            seen: list[str] = []
            with ask(client, stream=True) as stream, pytest.raises(openai.APIConnectionError):
                seen.extend(
                    chunk.choices[0].delta.content or "" for chunk in itertools.takewhile(bool, stream)
                )
            assert server.wait_idle()
            assert output_tokens(server.billed[0]) == 2
            assert server.billed[0]["prompt_tokens"] == 9
            assert not server.requests[0].completed

    def test_a_client_that_hangs_up_in_a_stream_pays_what_was_sent(self) -> None:
        reply = Reply(text="one two three four", pause_after=3, hang=True)
        with serving(reply, count_tokens=words) as (server, client):
            stream = ask(client, stream=True)
            parts = (chunk.choices[0].delta.content for chunk in stream)
            assert [part for part in itertools.islice(parts, 4) if part] == ["one", " two", " three"]
            assert server.in_flight == 1
            stream.close()
            assert server.wait_idle()
            assert output_tokens(server.billed[0]) == 3
            assert not server.requests[0].completed

    def test_a_client_that_gives_up_waiting_pays_for_the_answer_it_did_not_read(self) -> None:
        gate = threading.Event()
        with serving(Reply(gate=gate, completion_tokens=9)) as (server, client):
            with pytest.raises(openai.APITimeoutError):
                client.with_options(timeout=0.05).chat.completions.create(model="gpt-4o", messages=HELLO)
            gate.set()
            assert server.wait_idle()
            assert output_tokens(server.billed[0]) == 9
            assert not server.requests[0].completed

    def test_scripted_tokens_of_a_broken_stream_are_shared_out_over_its_chunks(self) -> None:
        reply = Reply(text="abcd", chunks=4, drop_after=3, completion_tokens=110, reasoning_tokens=10)
        with serving(reply) as (server, client):
            with ask(client, stream=True) as stream, pytest.raises(openai.APIConnectionError):
                list(stream)
            assert server.wait_idle()
            assert output_tokens(server.billed[0]) == 10 + 75

    def test_a_stream_dropped_before_any_chunk_bills_its_input(self) -> None:
        with serving(Reply(drop_after=0, reasoning_tokens=5)) as (server, client):
            with pytest.raises(openai.APIConnectionError):
                ask(client, stream=True)
            assert server.wait_idle()
            assert server.billed[0]["total_tokens"] == HELLO_TOKENS

    def test_hang_ups_leave_no_trace_on_stderr(self, capfd: pytest.CaptureFixture[str]) -> None:
        with OpenAIServer(Reply(text="x " * 50_000)) as server:
            address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
            body = json.dumps({"model": "m", "messages": HELLO, "stream": True})
            whole = f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            for sent in (b"", b"PO", b"nonsense\r\n\r\n", whole[:40], whole[:-5], whole):
                with socket.create_connection(address) as sock:
                    sock.sendall(sent)
                    # A reset, not a polite end.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert server.wait_count(1)
            assert server.wait_idle()
            assert server.count() == 1
            assert not server.requests[0].completed
        assert capfd.readouterr().err == ""


class TestLife:
    def test_stop_does_not_wait_for_requests_that_hang(self) -> None:
        errors: list[Exception] = []

        def call(client: OpenAI) -> None:
            try:
                ask(client)
            except openai.APIConnectionError as error:
                errors.append(error)

        never = threading.Event()
        server = OpenAIServer([Reply(hang=True), Reply(gate=never), Reply(delay=600)]).start()
        with OpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client:
            threads = [threading.Thread(target=call, args=(client,)) for _ in range(3)]
            for thread in threads:
                thread.start()
            assert server.wait_count(3)
            before = time.monotonic()
            server.stop()
            took = time.monotonic() - before
            for thread in threads:
                thread.join()
        assert len(errors) == 3
        assert server.in_flight == 0
        # Far below stop()'s own deadline: no worker had to be given up.
        assert took < 3

    def test_stop_closes_idle_connections(self) -> None:
        server = OpenAIServer().start()
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        before = time.monotonic()
        server.stop()
        took = time.monotonic() - before
        assert connection.sock.recv(1) == b""
        connection.close()
        # Far below stop()'s own deadline: no worker had to be given up.
        assert took < 3

    def test_a_stopped_server_is_not_reachable(self) -> None:
        with OpenAIServer() as server:
            address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(address, timeout=5)

    def test_stop_twice_is_stop_once(self) -> None:
        server = OpenAIServer().start()
        server.stop()
        server.stop()

    def test_a_server_starts_once_and_has_no_address_before(self) -> None:
        server = OpenAIServer()
        with pytest.raises(ConfigurationError, match="start"):
            _ = server.base_url
        with server, pytest.raises(ConfigurationError, match="started before"):
            server.start()

    def test_requests_wait_at_a_gate_until_it_opens(self) -> None:
        gate = threading.Event()
        answers: list[Any] = []
        with serving(Reply(gate=gate)) as (server, client):
            threads = [threading.Thread(target=lambda: answers.append(ask(client))) for _ in range(8)]
            for thread in threads:
                thread.start()
            assert server.wait_count(8)
            assert server.in_flight == 8
            assert answers == []
            gate.set()
            for thread in threads:
                thread.join()
        assert len(answers) == 8

    def test_one_connection_serves_many_requests(self) -> None:
        with OpenAIServer() as server:
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
            connection.connect()
            port = connection.sock.getsockname()[1]
            for stream in (False, True, False):
                body = {"model": "m", "messages": HELLO, "stream": stream}
                connection.request("POST", CHAT, json.dumps(body))
                assert connection.getresponse().read()
                assert connection.sock.getsockname()[1] == port
            connection.close()


class TestManyClients:
    async def test_64_async_calls_at_once(self) -> None:
        gate = threading.Event()
        with OpenAIServer(lambda body: Reply(text=body["user"], gate=gate)) as server:
            async with AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client:
                names = [f"user {number}" for number in range(64)]
                calls = [
                    asyncio.create_task(
                        client.chat.completions.create(model="gpt-4o", messages=HELLO, user=name)
                    )
                    for name in names
                ]
                assert await asyncio.to_thread(server.wait_count, 64)
                assert server.in_flight == 64
                gate.set()
                answers = await asyncio.gather(*calls)
            assert [answer.choices[0].message.content for answer in answers] == names
            assert len(server.billed) == 64

    async def test_async_streams_and_embeddings(self) -> None:
        with OpenAIServer("one two three") as server:
            async with AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client:
                stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
                parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
                vectors = await client.embeddings.create(model="text-embedding-3-small", input="x")
            assert "".join(parts) == "one two three"
            assert len(vectors.data[0].embedding) == 1536
            assert all(record.completed for record in server.requests)

    async def test_a_cancelled_call_is_recorded_as_not_completed(self) -> None:
        with OpenAIServer(Reply(hang=True)) as server:
            async with AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client:
                call = asyncio.create_task(client.chat.completions.create(model="gpt-4o", messages=HELLO))
                assert await asyncio.to_thread(server.wait_count, 1)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                assert await asyncio.to_thread(server.wait_idle)
            assert not server.requests[0].completed
            assert len(server.billed) == 1

    def test_64_connections_from_4_processes_at_once(self) -> None:
        program = """
import http.client, json, sys, threading
address, body = sys.argv[1], json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]})
answers = []
def call():
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("POST", "/v1/chat/completions", body)
    answers.append(json.loads(connection.getresponse().read())["usage"]["total_tokens"])
    connection.close()
threads = [threading.Thread(target=call) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(answers), sum(answers))
"""
        gate = threading.Event()
        with OpenAIServer(Reply(gate=gate)) as server:
            command = [sys.executable, "-c", program, server.url.removeprefix("http://")]
            children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
            assert server.wait_count(64, CHAT, timeout=30)
            assert server.in_flight == 64
            gate.set()
            seen = [child.communicate(timeout=30)[0].split() for child in children]
            assert [int(calls) for calls, _ in seen] == [16] * 4
            assert sum(int(tokens) for _, tokens in seen) == sum(u["total_tokens"] for u in server.billed)
