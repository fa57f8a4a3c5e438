"""Responses: their tools, their failures, their broken streams. `tests/matrix` has their styles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard.core.usage import ENOUGH, Usage
from budgetguard.engine.projection import with_margin
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.tokens.text import count_text
from tests.adapters.books import HTTP, MODEL, Books, open_books
from tests.adapters.response_books import ASK, STREAMED, billed_nanos, check
from tests.projecting import response_input_tokens
from tests.provider.server import OpenAIServer, Reply

WEB: Any = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "news"}}
PAGE: Any = {"type": "web_search_call", "status": "completed", "action": {"type": "open_page", "url": "u"}}
FILES: Any = {"type": "file_search_call", "status": "completed", "queries": ["a"]}
CODE: Any = {
    "type": "code_interpreter_call",
    "status": "completed",
    "container_id": "cntr_1",
    "code": "1+1",
    "outputs": [],
}
MCP: Any = {"type": "mcp_list_tools", "server_label": "s", "tools": []}
TEXT = "one two three four five six seven eight"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("tool", "items", "units"),
    [
        ({"type": "web_search"}, [WEB, WEB], {"web_searches": 2}),
        ({"type": "web_search_preview"}, [WEB, PAGE], {"web_search_previews": 1}),
        ({"type": "file_search", "vector_store_ids": ["vs"]}, [FILES], {"storage_searches": 1}),
        (
            {"type": "code_interpreter", "container": {"type": "auto"}},
            [CODE, CODE],
            {"container_sessions_1g": 1},
        ),
        (
            {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}},
            [CODE],
            {"container_sessions_4g": 1},
        ),
        ({"type": "code_interpreter", "container": "cntr_1"}, [CODE], {}),
        ({"type": "mcp", "server_label": "s", "server_url": "https://a.example"}, [MCP], {}),
    ],
)
def test_hosted_tools_bill_their_fees(
    tool: Any, items: Any, units: dict[str, int], stream: bool, tmp_path: Path
) -> None:
    with OpenAIServer(Reply(hosted=items)) as server, open_books(server, "memory", tmp_path) as books:
        with books.client() as client:
            answer: Any = client.responses.create(model="gpt-5", input="Go.", tools=[tool], stream=stream)
            if stream:
                list(answer)
        (billed,) = server.billed
        tokens = {"input_tokens": billed["input_tokens"], "output_tokens": billed["output_tokens"]}
        rates = books.engine.prices.rates("gpt-5")
        assert (books.spent, books.held) == (rates.cost(Usage({**tokens, **units})), 0)
        (projected,) = books.of("Projected")
        assert set(units) <= set(projected.usage.units)


@pytest.mark.parametrize(("items", "learns"), [([WEB], True), ([], False)])
def test_an_answer_that_did_not_search_teaches_nothing_of_what_a_search_finds(
    items: Any, learns: bool, tmp_path: Path
) -> None:
    with OpenAIServer(Reply(hosted=items)) as server, open_books(server, "memory", tmp_path) as books:
        with books.client() as client:
            for _ in range(ENOUGH + 1):
                client.responses.create(model=MODEL, input="Go.", tools=[{"type": "web_search"}])
        first, *_, last = (event.usage.input_tokens for event in books.of("Projected"))
        assert (last < first) is learns
        assert first > 18_000


def test_what_the_provider_counts_of_its_searches_counts(tmp_path: Path) -> None:
    reply = Reply(hosted=[WEB, WEB, WEB], tool_usage={"web_search": {"num_requests": 1}})
    with (
        OpenAIServer(reply) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        client.responses.create(model="gpt-5", input="Go.", tools=[{"type": "web_search"}])
        (settled,) = books.of("Settled")
        assert settled.usage.units["web_searches"] == 1


def test_a_tool_whose_fee_has_no_price_is_refused_unsent(books: Books) -> None:
    tool: Any = {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "2g"}}
    with books.client() as client, pytest.raises(UnknownModelError, match="container_sessions_2g"):
        client.responses.create(model="gpt-5", input="Count.", tools=[tool])
    assert books.server.count() == 0
    assert books.held == 0


@pytest.mark.parametrize("price", [None, 8])
def test_an_image_that_a_tool_drew_is_booked_at_the_price_that_was_set_or_is_listed(
    tmp_path: Path, price: int | None
) -> None:
    image: Any = {"type": "image_generation_call", "status": "completed", "result": ""}
    counted = {"image_gen": {"input_tokens": 50, "output_tokens": 4_160, "total_tokens": 4_210}}
    reply = Reply(hosted=[image], tool_usage=counted)
    with (
        OpenAIServer(reply) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        if price is not None:
            books.engine.prices.register("gpt-5", drawn_mtok_gpt_image_1=price)
        client.responses.create(model="gpt-5", input="Draw.", tools=[{"type": "image_generation"}])
        (billed,) = server.billed
        words = Usage.of(input_tokens=billed["input_tokens"], output_tokens=billed["output_tokens"])
        assert books.spent == books.engine.prices.rates("gpt-5").cost(words) + 4_210 * (price or 40) * 1_000
        assert books.held == 0


def test_an_image_model_of_a_tool_has_its_own_price_and_one_without_is_refused(tmp_path: Path) -> None:
    image: Any = {"type": "image_generation_call", "status": "completed", "result": ""}
    counted = {"image_gen": {"input_tokens": 0, "output_tokens": 1_000, "total_tokens": 1_000}}
    tool: Any = {"type": "image_generation", "model": "gpt-image-1-mini"}
    with (
        OpenAIServer(Reply(hosted=[image], tool_usage=counted)) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        client.responses.create(model="gpt-5", input="Draw.", tools=[tool])
        (settled,) = books.of("Settled")
        assert settled.usage.units["drawn_tokens_gpt_image_1_mini"] == 1_000
        (billed,) = server.billed
        words = Usage.of(input_tokens=billed["input_tokens"], output_tokens=billed["output_tokens"])
        assert books.spent == books.engine.prices.rates("gpt-5").cost(words) + 1_000 * 8 * 1_000
        with pytest.raises(UnknownModelError, match="drawn_mtok_gpt_image_99"):
            client.responses.create(model="gpt-5", input="Draw.", tools=[tool | {"model": "gpt-image-99"}])
        assert server.count() == 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_incomplete_response_is_booked_as_billed(books: Books, stream: bool) -> None:
    with books.client() as client:
        answer: Any = client.responses.create(**ASK, max_output_tokens=2, stream=stream)
        status = list(answer)[-1].response.status if stream else answer.status
    assert status == "incomplete"
    check(books)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_response_costs_nothing(store: str, tmp_path: Path, stream: bool) -> None:
    with OpenAIServer(Reply(ends="failed")) as server, open_books(server, store, tmp_path) as books:
        with books.client() as client:
            answer: Any = client.responses.create(**ASK, stream=stream)
            status = list(answer)[-1].response.status if stream else answer.status
        assert status == "failed"
        assert (books.spent, books.held) == (0, 0)


def test_a_response_without_usage_is_booked_as_projected(store: str, tmp_path: Path) -> None:
    with OpenAIServer(Reply(omit_usage=True)) as server, open_books(server, store, tmp_path) as books:
        with books.client() as client:
            client.responses.create(**ASK)
        (projected,), (settled,) = books.of("Projected"), books.of("Settled")
        assert (settled.cost, settled.estimated, books.held) == (projected.cost, True, 0)


def test_an_abandoned_stream_costs_its_input_and_what_was_seen(store: str, tmp_path: Path) -> None:
    reply = Reply(text=TEXT, hang=True, pause_after=3)
    with (
        OpenAIServer(reply) as server,
        open_books(server, store, tmp_path) as books,
        books.client() as client,
    ):
        seen = ""
        with client.responses.create(**STREAMED) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    seen += event.delta
                    if seen.count(" ") == 2:
                        break
        tokens = with_margin(response_input_tokens(ASK, MODEL))
        usage = Usage.of(input_tokens=tokens, output_tokens=count_text(seen, "o200k_base"))
        assert (books.spent, books.held) == (books.engine.prices.rates(MODEL).cost(usage), 0)
        assert [event.outcome for event in books.of("Settled")] == ["abandoned"]


def test_a_search_that_was_given_up_is_booked_with_its_fee(tmp_path: Path) -> None:
    reply = Reply(text=TEXT, hang=True, pause_after=3, hosted=[WEB])
    with (
        OpenAIServer(reply) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        tools: Any = [{"type": "web_search"}]
        with client.responses.create(**STREAMED, tools=tools) as stream:
            next(stream)
        assert books.of("Settled")[0].usage.units["web_searches"] == 1
        assert books.held == 0


async def test_a_broken_async_stream_costs_what_was_seen(store: str, tmp_path: Path) -> None:
    reply = Reply(text=TEXT, drop_after=3)
    with OpenAIServer(reply) as server, open_books(server, store, tmp_path) as books:
        async with books.aclient() as client:
            with pytest.raises((openai.APIConnectionError, HTTP.RemoteProtocolError)):
                async for _ in await client.responses.create(**STREAMED):
                    pass
        assert books.spent > 0
        assert books.held == 0
        assert [event.outcome for event in books.of("Settled")] == ["abandoned"]


def test_what_a_search_finds_is_learned_from_what_was_billed(tmp_path: Path) -> None:
    """After enough answers, the allowance is what such answers were billed, and not the first guess."""
    tools: Any = [{"type": "web_search"}]
    reply = Reply(hosted=[WEB], prompt_tokens=2_000)
    with (
        OpenAIServer(reply) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        for _ in range(31):
            client.responses.create(**ASK, tools=tools, max_output_tokens=100)
        client.responses.create(**ASK, max_output_tokens=100)
        projected = [event.usage.input_tokens for event in books.of("Projected")]
        assert projected[0] > 12_000
        assert 2_000 <= projected[30] < 3_000
        assert projected[31] < 100
        check(books)


@pytest.mark.parametrize(
    "wrong", [{"input": 7}, {"max_output_tokens": -1}, {"max_output_tokens": "many"}, {"input": {"a": 1}}]
)
def test_a_request_that_cannot_be_right_is_refused_unsent(wrong: Any, books: Books) -> None:
    with books.client() as client, pytest.raises(ConfigurationError):
        client.responses.create(**{**ASK, **wrong})
    assert books.server.count() == 0


def test_a_request_without_a_model_is_refused_unsent(books: Books) -> None:
    with books.client() as client, pytest.raises(UnknownModelError, match="names no model"):
        client.responses.create(prompt={"id": "pmpt_1"})
    assert books.server.count() == 0


def test_counting_tokens_first_is_free(books: Books) -> None:
    with books.client() as client:
        # As `responses.input_tokens.count` does it, which not every SDK has.
        client.post("/responses/input_tokens", body=ASK, cast_to=object)
    assert books.server.count() == 1
    assert books.names() == []


def test_asking_for_an_answer_that_is_paid_for_costs_nothing(books: Books) -> None:
    with books.client() as client:
        answer = client.responses.create(**ASK)
        for _ in range(3):
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(answer.id)
    assert billed_nanos(books.server) == books.spent
    check(books)
