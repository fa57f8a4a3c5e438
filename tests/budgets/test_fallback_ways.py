"""A fallback is written into whatever a client sends: each way of asking sends the cheaper model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from openai import OpenAI

from budgetguard import Guard, budget_user
from tests.anthropic_client.server import MessagesServer
from tests.provider.server import OpenAIServer

HI: Any = [{"role": "user", "content": "Say hello to everybody."}]
DEAR = {"gpt-4o": "gpt-4o-mini", "text-embedding-3-large": "text-embedding-3-small", "gpt-5": "gpt-5-mini"}


def guard_with(fallbacks: dict[str, str], limit: float) -> Guard:
    guard = Guard(store="memory://", project="p")
    guard.set_budget(limit, user="u", fallbacks=fallbacks)
    return guard


WAYS: dict[str, Callable[[OpenAI], object]] = {
    "chat": lambda c: c.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100),
    "parse": lambda c: c.chat.completions.parse(model="gpt-4o", messages=HI, max_tokens=100),
    "chat raw": lambda c: c.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=HI, max_tokens=100
    ).parse(),
    "chat streamed": lambda c: list(
        c.chat.completions.create(model="gpt-4o", messages=HI, max_tokens=100, stream=True)
    ),
    "chat extra_body": lambda c: c.chat.completions.create(
        model="gpt-4o", messages=HI, max_tokens=100, extra_body={"user": "x"}
    ),
    "responses": lambda c: c.responses.create(model="gpt-5", input="Say hello.", max_output_tokens=100),
    "responses streamed": lambda c: list(
        c.responses.create(model="gpt-5", input="Say hello.", max_output_tokens=100, stream=True)
    ),
    "embeddings": lambda c: c.embeddings.create(model="text-embedding-3-large", input="hello " * 2_000),
    "post": lambda c: c.post(
        "/chat/completions", cast_to=object, body={"model": "gpt-4o", "messages": HI, "max_tokens": 100}
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_the_openai_client_sends_the_cheaper_model(way: str) -> None:
    limit = 0.00025
    guard = guard_with(DEAR, limit)
    with (
        OpenAIServer("Hello there, everybody.") as server,
        OpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client,
    ):
        guard.wrap(client)
        with budget_user("u"):
            WAYS[way](client)
        (request,) = server.requests
    assert request.body["model"] in DEAR.values()
    (record,) = guard.calls()
    assert (record.model, record.state) == (request.body["model"], "settled")
    assert 0 < record.cost_nanos < limit * 1e9


@pytest.mark.parametrize("streamed", [False, True])
def test_the_anthropic_client_sends_the_cheaper_model(streamed: bool) -> None:
    guard = guard_with({"claude-sonnet-4-6": "claude-haiku-4-5"}, 0.002)
    with (
        MessagesServer() as server,
        anthropic.Anthropic(base_url=server.base_url, api_key="test", max_retries=0) as client,
    ):
        guard.wrap(client)
        asked: Any = {"model": "claude-sonnet-4-6", "messages": HI, "max_tokens": 200}
        with budget_user("u"):
            if streamed:
                with client.messages.stream(**asked) as stream:
                    stream.get_final_message()
            else:
                client.messages.create(**asked)
        (request,) = server.requests
    assert request.body["model"] == "claude-haiku-4-5"
    (record,) = guard.calls()
    assert (record.model, record.state) == ("claude-haiku-4-5", "settled")
