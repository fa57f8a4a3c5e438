"""The small server that is installed answers and bills chats as the whole fake does."""

from __future__ import annotations

import itertools
from typing import Any

import openai
import pytest
from openai import OpenAI

from budgetguard.testing import openai_server as small
from tests.provider import server as full

HELLO: list[Any] = [{"role": "user", "name": "Ada", "content": "hello there"}]
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def client_of(server: small.OpenAIServer) -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key="test", max_retries=0, timeout=20)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"max_tokens": 2},
        {"max_completion_tokens": 3, "n": 2},
        {"tools": [TOOL]},
        {"stream": True, "n": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("text", ["one two three four five six", "", None])
def test_it_bills_and_answers_as_the_whole_fake_does(more: dict[str, Any], text: str | None) -> None:
    said = []
    for kind in (small, full):
        with kind.OpenAIServer(kind.Reply(text)) as server, client_of(server) as client:
            options = {"stream_options": {"include_usage": True}} if "stream" in more else {}
            answer: Any = client.chat.completions.create(
                model="gpt-4o-mini", messages=HELLO, **more, **options
            )
            parts = list(answer) if "stream" in more else [answer]
            texts: dict[int, str] = {}
            for part in parts:
                for choice in part.choices:
                    said_now = choice.delta if "stream" in more else choice.message
                    texts[choice.index] = texts.get(choice.index, "") + (said_now.content or "")
            finish = [c.finish_reason for part in parts for c in part.choices if c.finish_reason]
            (billed,) = server.billed
            counts = {name: n for name, n in billed.items() if isinstance(n, int)}
            assert {name: getattr(parts[-1].usage, name) for name in counts} == counts
            said.append(
                (counts, finish, texts if not set(more) & {"max_tokens", "max_completion_tokens"} else 0)
            )
    assert said[0] == said[1]


def test_a_stream_that_is_left_is_billed_for_what_was_sent() -> None:
    with small.OpenAIServer("word " * 400) as server, client_of(server) as client:
        with client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True) as chunks:
            for _ in itertools.islice(chunks, 10):
                pass
        assert server.wait_idle()
        (request,) = server.requests
        assert request.billed is not None
        if request.completed:  # the network took it all in before the client hung up
            assert request.billed["completion_tokens"] == 500
        else:
            assert 0 < request.billed["completion_tokens"] < 500


def test_a_script_answers_in_turn_and_says_when_it_is_over() -> None:
    replies = [small.Reply("one", completion_tokens=50, prompt_tokens=7, delay=0.001), "two"]
    with small.OpenAIServer(replies) as server, client_of(server) as client:
        ask = {"model": "gpt-4o-mini", "messages": HELLO}
        first, second = (client.chat.completions.create(**ask) for _ in range(2))  # type: ignore[call-overload]
        assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (7, 50)
        assert second.choices[0].message.content == "two"
        with pytest.raises(openai.BadRequestError, match="no reply for request 3"):
            client.chat.completions.create(**ask)  # type: ignore[call-overload]
        assert len(server.billed) == 2


def test_what_is_no_chat_is_refused_and_free() -> None:
    with small.OpenAIServer() as server, client_of(server) as client:
        with pytest.raises(openai.NotFoundError, match="Invalid URL"):
            client.embeddings.create(model="text-embedding-3-small", input="hello")
        with pytest.raises(openai.BadRequestError, match="'model' and 'messages'"):
            client.chat.completions.create(model="gpt-4o-mini", messages=[])
        assert len(server.requests) == 2
        assert server.billed == []
