"""Clients of Bedrock's runtime that boto3 makes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiobotocore.session
import boto3
import botocore.config
import botocore.exceptions
import pytest

from budgetguard import check
from budgetguard.core.usage import Usage
from budgetguard.errors import (
    BudgetExceededError,
    ConfigurationError,
    UnknownEndpointError,
    UnknownModelError,
)
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.sdks import SDKS, wrap

from .bedrock_server import TEXT, bedrock
from .books import SdkBooks, sdk_books
from .server import Answer, Arrived

NOVA = "amazon.nova-lite-v1:0"
CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
LLAMA = "meta.llama3-1-8b-instruct-v1:0"
MESSAGES: Any = [{"role": "user", "content": [{"text": "Say hello to everybody in the room."}]}]


@contextmanager
def client(books: SdkBooks, service: str = "bedrock-runtime", **config: Any) -> Iterator[Any]:
    made = boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=books.server.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=botocore.config.Config(**{"retries": {"max_attempts": 0}, **config}),
    )
    try:
        yield made
    finally:
        made.close()


def cost(model: str, **units: int) -> int:
    return PriceBook().rates(model, provider="aws").cost(Usage.of(**units))


def claude_body(**more: Any) -> bytes:
    messages = [{"role": "user", "content": "Say hello to everybody in the room."}]
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": messages, **more}
    return json.dumps(body).encode()


LLAMA_BODY = json.dumps({"prompt": "Say hello to everybody in the room.", "max_gen_len": 50})
CONFIG = {"maxTokens": 50}
PLAIN = {"input_tokens": 20, "output_tokens": 5}
BOTH = {"input_tokens": 320, "output_tokens": 5, "cache_read_tokens": 100, "cache_write_tokens": 200}
READ = {"input_tokens": 120, "output_tokens": 5, "cache_read_tokens": 100}


def converse(made: Any, model: str) -> Any:
    said = made.converse(modelId=model, messages=MESSAGES, inferenceConfig=CONFIG)
    return said["output"]["message"]["content"][0]["text"]


def converse_stream(made: Any, model: str) -> Any:
    said = made.converse_stream(modelId=model, messages=MESSAGES, inferenceConfig=CONFIG)
    return "".join(
        one.get("contentBlockDelta", {}).get("delta", {}).get("text", "") for one in said["stream"]
    )


def invoke(made: Any, model: str) -> Any:
    body = claude_body() if "anthropic" in model else LLAMA_BODY
    said = json.loads(made.invoke_model(modelId=model, body=body)["body"].read())
    return said["content"][0]["text"] if "anthropic" in model else said["generation"]


def invoke_stream(made: Any, model: str) -> Any:
    body = claude_body() if "anthropic" in model else LLAMA_BODY
    said = made.invoke_model_with_response_stream(modelId=model, body=body)["body"]
    pieces = [json.loads(one["chunk"]["bytes"]) for one in said]
    return "".join(one.get("generation") or one.get("delta", {}).get("text", "") for one in pieces)


WAYS: dict[str, tuple[Callable[[Any, str], Any], str, dict[str, int]]] = {
    "converse": (converse, NOVA, PLAIN),
    "converse, cached": (converse, CLAUDE, BOTH),
    "converse stream": (converse_stream, NOVA, PLAIN),
    "converse stream, cached": (converse_stream, CLAUDE, BOTH),
    "invoke": (invoke, LLAMA, PLAIN),
    "invoke, claude": (invoke, CLAUDE, READ),
    "invoke stream": (invoke_stream, LLAMA, PLAIN),
    "invoke stream, claude": (invoke_stream, CLAUDE, READ),
}
ALL = pytest.mark.parametrize("way", WAYS)


@ALL
def test_each_way_is_booked_once_and_unnoticed(way: str) -> None:
    run, model, units = WAYS[way]
    with sdk_books(bedrock, "bedrock") as books, client(books) as made:
        assert run(made, model) == "".join(TEXT)
        assert (books.spent, books.held, books.sent) == (cost(model, **units), 0, 1)


@ALL
def test_a_refused_call_sends_nothing(way: str) -> None:
    run, model, _ = WAYS[way]
    with sdk_books(bedrock, "bedrock") as books, client(books) as made:
        books.limit(100)
        with pytest.raises(BudgetExceededError):
            run(made, model)
        assert (books.spent, books.held, books.sent) == (0, 0, 0)


def test_one_client_is_wrapped() -> None:
    with (
        sdk_books(bedrock, "bedrock", patched=False) as books,
        client(books) as made,
        client(books) as other,
    ):
        assert wrap(made, books.engine) is made
        converse(made, NOVA)
        converse(other, NOVA)
        assert (books.spent, books.sent) == (cost(NOVA, **PLAIN), 2)


def test_a_stream_that_is_left_is_booked_as_seen() -> None:
    with sdk_books(bedrock, "bedrock") as books, client(books) as made:
        stream = made.converse_stream(modelId=NOVA, messages=MESSAGES, inferenceConfig=CONFIG)["stream"]
        for one in stream:
            if "contentBlockDelta" in one:
                break
        stream.close()
        assert books.held == 0
        assert 0 < books.spent < cost(NOVA, input_tokens=200, output_tokens=50)
        assert books.of("Settled")[0].outcome == "abandoned"


def test_an_error_gives_the_hold_back() -> None:
    def refuse(_: Arrived) -> Answer:
        return Answer(
            {"message": "slow down"}, status=429, headers={"x-amzn-errortype": "ThrottlingException"}
        )

    with sdk_books(refuse, "bedrock") as books, client(books) as made:
        with pytest.raises(botocore.exceptions.ClientError):
            converse(made, NOVA)
        assert (books.spent, books.held, books.sent) == (0, 0, 1)


def test_a_try_that_was_never_answered_is_booked_when_the_next_one_is() -> None:
    def cut_once(arrived: Arrived) -> Answer:
        if len(books.server.requests) == 1:
            return Answer([b"x"], cut=0)
        return bedrock(arrived)

    with sdk_books(cut_once, "bedrock") as books, client(books, retries={"max_attempts": 2}) as made:
        converse(made, NOVA)
        held = books.of("Held")[0].amount
        assert books.sent == 2
        assert books.spent == cost(NOVA, **PLAIN) + int(held * 10**9)


@pytest.mark.parametrize(
    ("service", "verb", "arguments"),
    [
        (
            "bedrock-runtime",
            "apply_guardrail",
            {"guardrailIdentifier": "g", "guardrailVersion": "1", "source": "INPUT", "content": []},
        ),
        (
            "bedrock-agent-runtime",
            "retrieve",
            {"knowledgeBaseId": "A123456789", "retrievalQuery": {"text": "hi"}},
        ),
        (
            "bedrock",
            "create_provisioned_model_throughput",
            {"modelUnits": 1, "provisionedModelName": "p", "modelId": "m"},
        ),
    ],
)
def test_what_cannot_be_priced_is_refused_by_name(service: str, verb: str, arguments: Any) -> None:
    with sdk_books(bedrock, "bedrock") as books, client(books, service) as made:
        with pytest.raises(UnknownEndpointError, match="was not sent"):
            getattr(made, verb)(**arguments)
        assert books.sent == 0


def test_what_asks_and_other_services_pass() -> None:
    with sdk_books(bedrock, "bedrock") as books:
        with client(books, "bedrock") as made:
            made.list_foundation_models()
        with client(books, "dynamodb") as made:
            made.list_tables()
        assert (books.sent, books.of("Held")) == (2, [])


@pytest.mark.parametrize(
    "more",
    [
        {"performanceConfig": {"latency": "optimized"}},
        {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
    ],
)
def test_what_has_no_price_beside_the_tokens_is_refused(more: Any) -> None:
    with sdk_books(bedrock, "bedrock") as books, client(books) as made:
        with pytest.raises(UnknownModelError):
            made.converse(modelId=NOVA, messages=MESSAGES, inferenceConfig=CONFIG, **more)
        assert books.sent == 0


def test_a_tier_is_held_as_asked_and_booked_as_answered() -> None:
    def dear(arrived: Arrived) -> Answer:
        said = bedrock(arrived)
        return Answer({**said.body, "serviceTier": {"type": "priority"}})

    def spent(answer: Any, **more: Any) -> tuple[int, Any]:
        with sdk_books(answer, "bedrock") as books, client(books) as made:
            made.converse(modelId=NOVA, messages=MESSAGES, inferenceConfig=CONFIG, **more)
            return books.spent, books.of("Held")[0].amount

    plain, held = spent(bedrock)
    priority, held_more = spent(dear, serviceTier={"type": "priority"})
    assert (priority, held_more) == (plain * 7 // 4, held * 7 / 4)
    assert spent(bedrock, serviceTier={"type": "priority"}) == (plain, held_more)


def test_an_inference_profile_has_the_price_of_the_model_that_it_is_said_to_be() -> None:
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr"
    with (
        sdk_books(bedrock, "bedrock", model_map={"1arbu5hu2sjr": NOVA}) as books,
        client(books) as made,
    ):
        converse(made, profile)
        assert books.spent == cost(NOVA, **PLAIN)
    with sdk_books(bedrock, "bedrock") as books, client(books) as made:
        with pytest.raises(UnknownModelError, match="1arbu5hu2sjr"):
            converse(made, profile)
        assert books.sent == 0


def test_a_body_that_is_no_json_is_refused() -> None:
    with sdk_books(bedrock, "bedrock") as books, client(books) as made:
        with pytest.raises(ConfigurationError, match="cannot be read"):
            made.invoke_model(modelId=LLAMA, body=b"hello")
        assert books.sent == 0


def test_check_tells_of_it_only_where_a_client_was_made() -> None:
    with sdk_books(bedrock, "bedrock") as books, client(books):
        assert [one.guarded for one in check() if one.sdk == "botocore.client"] == [True]


async def aconverse(made: Any, model: str) -> Any:
    said = await made.converse(modelId=model, messages=MESSAGES, inferenceConfig=CONFIG)
    return said["output"]["message"]["content"][0]["text"]


async def aconverse_stream(made: Any, model: str) -> Any:
    said = await made.converse_stream(modelId=model, messages=MESSAGES, inferenceConfig=CONFIG)
    events = [one async for one in said["stream"]]
    return "".join(one.get("contentBlockDelta", {}).get("delta", {}).get("text", "") for one in events)


async def ainvoke(made: Any, model: str) -> Any:
    body = claude_body() if "anthropic" in model else LLAMA_BODY
    answered = await made.invoke_model(modelId=model, body=body)
    async with answered["body"] as content:
        said = json.loads(await content.read())
    return said["content"][0]["text"] if "anthropic" in model else said["generation"]


async def ainvoke_stream(made: Any, model: str) -> Any:
    body = claude_body() if "anthropic" in model else LLAMA_BODY
    answered = await made.invoke_model_with_response_stream(modelId=model, body=body)
    pieces = [json.loads(one["chunk"]["bytes"]) async for one in answered["body"]]
    return "".join(one.get("generation") or one.get("delta", {}).get("text", "") for one in pieces)


AWAYS = {
    "converse": aconverse,
    "converse, cached": aconverse,
    "converse stream": aconverse_stream,
    "converse stream, cached": aconverse_stream,
    "invoke": ainvoke,
    "invoke, claude": ainvoke,
    "invoke stream": ainvoke_stream,
    "invoke stream, claude": ainvoke_stream,
}


@asynccontextmanager
async def aclient(books: SdkBooks) -> AsyncIterator[Any]:
    made = aiobotocore.session.get_session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=books.server.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    async with made as opened:
        yield opened


@pytest.mark.parametrize("way", AWAYS)
async def test_each_async_way_is_booked_once_refused_and_unnoticed(way: str) -> None:
    _, model, units = WAYS[way]
    with sdk_books(bedrock, "bedrock", "aiobotocore") as books:
        async with aclient(books) as made:
            assert await AWAYS[way](made, model) == "".join(TEXT)
            assert (books.spent, books.held, books.sent) == (cost(model, **units), 0, 1)
            books.limit(cost(model, **units) + 100)
            with pytest.raises(BudgetExceededError):
                await AWAYS[way](made, model)
            assert books.sent == 1


async def test_one_async_client_is_wrapped() -> None:
    with sdk_books(bedrock, "aiobotocore", patched=False) as books:
        async with aclient(books) as made, aclient(books) as other:
            await aconverse(wrap(made, books.engine), NOVA)
            await aconverse(other, NOVA)
        assert (books.spent, books.sent) == (cost(NOVA, **PLAIN), 2)


def test_a_version_that_is_not_known_refuses_what_costs_and_nothing_else(monkeypatch: Any) -> None:
    monkeypatch.setattr(SDKS["bedrock"].sdk.__class__, "version", lambda _self: "2.1.0")
    with sdk_books(bedrock, "bedrock") as books:
        with (
            client(books) as made,
            pytest.raises(ConfigurationError, match=r"botocore 2\.1\.0 is not one that"),
        ):
            converse(made, NOVA)
        with client(books, "dynamodb") as made:
            made.list_tables()
        assert books.sent == 1
    monkeypatch.undo()
    with sdk_books(bedrock, "bedrock") as books, client(books) as made:
        converse(made, NOVA)
