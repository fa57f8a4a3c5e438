"""Responses whose input the provider counts before it is held: asked once, exact, and never in the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgetguard.engine.projection import with_margin
from budgetguard.errors import BudgetExceededError
from budgetguard.providers.openai import responses
from tests.adapters.books import MESSAGES, MODEL, Books, open_books
from tests.adapters.response_books import ASK, check
from tests.projecting import response_input_tokens
from tests.provider.reply import INPUT_COUNTS
from tests.provider.server import OpenAIServer, Reply

TOOL: Any = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


@pytest.fixture
def books(server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    monkeypatch.setattr(responses, "_warned", set())
    with open_books(server, "memory", tmp_path, count="provider") as opened:
        yield opened


def asked(books: Books) -> list[str]:
    return [record.path for record in books.server.requests]


def projected(books: Books) -> int:
    return int(books.of("Projected")[-1].usage.input_tokens)


@pytest.mark.parametrize("more", [{}, {"tools": [TOOL]}, {"instructions": "Be brief."}])
def test_the_projection_is_the_count_of_the_provider_which_is_asked_once(books: Books, more: Any) -> None:
    books.client().responses.create(**ASK, **more)
    assert asked(books) == [INPUT_COUNTS, "/v1/responses"]
    counted, answered = books.server.requests
    assert counted.billed is None
    assert answered.billed is not None
    assert projected(books) == answered.billed["input_tokens"]
    assert projected(books) != with_margin(response_input_tokens({**ASK, **more}, MODEL))
    check(books)


def test_an_async_client_is_asked_too(books: Books) -> None:
    async def ask() -> None:
        async with books.aclient() as client:
            await client.responses.create(**ASK)

    asyncio.run(ask())
    assert asked(books) == [INPUT_COUNTS, "/v1/responses"]
    assert books.server.requests[1].billed is not None
    assert projected(books) == books.server.requests[1].billed["input_tokens"]
    check(books)


def test_a_stream_is_counted_before_it_begins(books: Books) -> None:
    for _ in books.client().responses.create(**ASK, stream=True):
        pass
    assert asked(books) == [INPUT_COUNTS, "/v1/responses"]
    assert "stream" not in books.server.requests[0].body
    check(books)


def test_only_what_decides_the_count_is_sent(books: Books) -> None:
    books.client().responses.create(**ASK, max_output_tokens=30, temperature=0, metadata={"a": "b"})
    assert set(books.server.requests[0].body) == {"model", "input"}


def test_what_hosted_tools_find_is_allowed_for_beside_the_count(books: Books) -> None:
    books.client().responses.create(**ASK, tools=[{"type": "web_search"}], previous_response_id="resp_1")
    assert 18_000 < projected(books) < 18_000 + 500, "what the provider keeps is in its count"


@pytest.mark.parametrize("refusal", [Reply(status=404), Reply(status=500), Reply(drop_after=0, status=503)])
def test_a_server_that_does_not_count_is_done_without_and_said_once(
    books: Books, refusal: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    books.server.count_refusal = refusal
    with caplog.at_level(logging.WARNING, logger="budgetguard"), books.client(max_retries=3) as client:
        client.responses.create(**ASK)
        client.responses.create(**ASK)
    assert asked(books) == [INPUT_COUNTS, "/v1/responses"] * 2, "a count is not worth a second try"
    assert projected(books) == with_margin(response_input_tokens(ASK, MODEL))
    assert [record.message.count("did not count") for record in caplog.records] == [1]
    check(books)


def test_a_count_that_takes_too_long_is_not_waited_for(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "_PATIENCE", 0.2)
    books.server.count_refusal = Reply(status=500, hang=True)
    books.client().responses.create(**ASK)
    assert projected(books) == with_margin(response_input_tokens(ASK, MODEL))
    check(books)


def test_a_call_that_is_refused_was_counted_and_not_made(books: Books) -> None:
    books.limit(1)
    with pytest.raises(BudgetExceededError):
        books.client().responses.create(**ASK)
    assert asked(books) == [INPUT_COUNTS]


def test_chats_and_templates_are_counted_here(books: Books) -> None:
    books.client().chat.completions.create(model=MODEL, messages=MESSAGES)
    books.client().responses.create(**ASK, prompt={"id": "pmpt_1"})
    assert asked(books) == ["/v1/chat/completions", "/v1/responses"]


def test_nothing_is_asked_unless_the_settings_say_so(server: OpenAIServer, tmp_path: Path) -> None:
    with open_books(server, "memory", tmp_path) as books:
        books.client().responses.create(**ASK)
        assert asked(books) == ["/v1/responses"]
