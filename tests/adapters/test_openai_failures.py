"""What a call costs that did not go well, and who is asked again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import ConfigurationError, UnknownModelError
from tests.adapters.books import HTTP, MESSAGES, MODEL, USER, Books, open_books
from tests.matrix.chat import TAKES_CONTENT, helpers
from tests.provider.server import OpenAIServer, Reply

CHAT: Any = {"model": MODEL, "messages": MESSAGES}


class Room(BaseModel):
    name: str


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_that_the_provider_answers_costs_nothing(
    status: int, stream: bool, store: str, tmp_path: Path
) -> None:
    with (
        OpenAIServer(Reply(status=status)) as server,
        open_books(server, store, tmp_path) as books,
        books.client(max_retries=0) as client,
    ):
        with pytest.raises(openai.APIStatusError) as error:
            client.chat.completions.create(**CHAT, stream=stream)
        assert error.value.status_code == status
        assert (books.spent, books.held) == (0, 0)
        assert books.of("Voided")[0].reason == f"HTTP {status}"


async def test_an_error_that_the_provider_answers_an_async_client_costs_nothing(
    store: str, tmp_path: Path
) -> None:
    with OpenAIServer(Reply(status=429)) as server, open_books(server, store, tmp_path) as books:
        async with books.aclient(max_retries=0) as client:
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(**CHAT)
        assert (books.spent, books.held) == (0, 0)


def test_the_client_s_own_retries_are_one_call(store: str, tmp_path: Path) -> None:
    script = [Reply(status=429, retry_after=0.001), Reply(status=500, retry_after=0.001), "Hello!"]
    with (
        OpenAIServer(script) as server,
        open_books(server, store, tmp_path) as books,
        books.client(max_retries=2) as client,
    ):
        client.chat.completions.create(**CHAT)
        assert server.count() == 3
        assert books.names().count("Held") == books.names().count("Settled") == 1
        books.check()


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_the_caller_s_number_of_retries_is_kept(retries: int, store: str, tmp_path: Path) -> None:
    with (
        OpenAIServer(Reply(status=500, retry_after=0.001)) as server,
        open_books(server, store, tmp_path) as books,
        books.client() as client,
    ):
        with pytest.raises(openai.InternalServerError):
            client.with_options(max_retries=retries).chat.completions.create(**CHAT)
        assert server.count() == 1 + retries
        assert (books.spent, books.held) == (0, 0)


@contextmanager
def unheard() -> Iterator[str]:
    """Yield the URL of a port that nobody listens on, nor anybody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"


def test_a_refused_connection_costs_nothing(books: Books) -> None:
    with (
        unheard() as url,
        openai.OpenAI(base_url=url, api_key="test", max_retries=1) as client,
        pytest.raises(openai.APIConnectionError),
    ):
        client.chat.completions.create(**CHAT)
    assert (books.spent, books.held) == (0, 0)
    assert books.of("Voided")[0].reason == "no connection"


async def test_a_refused_connection_costs_an_async_client_nothing(books: Books) -> None:
    with unheard() as url:
        async with openai.AsyncOpenAI(base_url=url, api_key="test", max_retries=0) as client:
            with pytest.raises(openai.APIConnectionError):
                await client.chat.completions.create(**CHAT)
    assert (books.spent, books.held) == (0, 0)


def test_a_full_connection_pool_costs_nothing(store: str, tmp_path: Path) -> None:
    limits = HTTP.Limits(max_connections=1)
    with (
        OpenAIServer(Reply(hang=True, pause_after=1)) as server,
        open_books(server, store, tmp_path) as books,
        HTTP.Client(limits=limits, timeout=HTTP.Timeout(30, pool=0.05)) as http,
        books.client(http_client=http, max_retries=0) as client,
        client.chat.completions.create(**CHAT, stream=True),
    ):
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**CHAT)
        assert [event.reason for event in books.of("Voided")] == ["no connection"]


@pytest.mark.parametrize(("policy", "part"), [("charge", "cost"), ("input", "input"), ("release", "nothing")])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [(Reply(hang=True), openai.APITimeoutError), (Reply(drop_after=0), openai.APIConnectionError)],
    ids=["no answer in time", "connection dropped"],
)
def test_a_call_of_unknown_outcome_costs_what_the_settings_say(
    reply: Reply, kind: type[Exception], policy: str, part: str, store: str, tmp_path: Path
) -> None:
    with (
        OpenAIServer(reply) as server,
        open_books(server, store, tmp_path, unknown_outcome=policy) as books,
        books.client(max_retries=0, timeout=0.3) as client,
    ):
        with pytest.raises(kind):
            client.chat.completions.create(**CHAT, max_tokens=10)
        (projected,) = books.of("Projected")
        rates = books.engine.prices.rates(MODEL)
        usage = projected.usage
        costs = {
            "cost": rates.cost(usage),
            "input": rates.cost(type(usage).of(input_tokens=usage.input_tokens)),
            "nothing": 0,
        }
        assert (books.spent, books.held) == (costs[part], 0)
        assert books.of("Settled")[0].outcome == "unknown"


def test_an_answer_that_the_sdk_will_not_parse_is_paid_for(store: str, tmp_path: Path) -> None:
    with (
        OpenAIServer(Reply(text='{"name": "a very long name for a room"}')) as server,
        open_books(server, store, tmp_path) as books,
        books.client() as client,
    ):
        with pytest.raises(openai.LengthFinishReasonError):
            helpers(client).parse(**CHAT, response_format=Room, max_tokens=2)
        assert len(server.billed) == 1
        books.check()
        assert books.of("Settled")[0].outcome == "answered"


async def test_an_answer_that_the_async_sdk_will_not_parse_is_paid_for(store: str, tmp_path: Path) -> None:
    reply = Reply(text='{"name": "a very long name for a room"}')
    with OpenAIServer(reply) as server, open_books(server, store, tmp_path) as books:
        async with books.aclient() as client:
            with pytest.raises(openai.LengthFinishReasonError):
                await helpers(client).parse(**CHAT, response_format=Room, max_tokens=2)
        books.check()
        assert books.spent > 0


def test_an_answer_of_the_wrong_shape_is_paid_for(books: Books) -> None:
    from openai.types.chat import ChatCompletion

    class Strict(ChatCompletion):
        weather: int

    with (
        books.client(_strict_response_validation=True) as client,
        pytest.raises(openai.APIResponseValidationError),
    ):
        client.post("/chat/completions", body=CHAT, cast_to=Strict)
    assert books.spent > 0
    books.check()


def test_an_answer_that_the_sdk_throws_away_is_booked_as_projected(books: Books) -> None:
    with books.client() as client:
        client.post("/chat/completions", body=CHAT, cast_to=type(None))
    (projected,), (settled,) = books.of("Projected"), books.of("Settled")
    assert (settled.cost, settled.estimated) == (projected.cost, True)


def test_an_answer_without_usage_is_booked_as_projected(store: str, tmp_path: Path) -> None:
    with (
        OpenAIServer(Reply(omit_usage=True)) as server,
        open_books(server, store, tmp_path) as books,
        books.client() as client,
    ):
        client.chat.completions.create(**CHAT)
        (projected,), (settled,) = books.of("Projected"), books.of("Settled")
        assert (settled.cost, settled.estimated, books.held) == (projected.cost, True, 0)


def test_cached_input_is_booked_at_its_price(store: str, tmp_path: Path) -> None:
    reply = Reply(prompt_tokens=2000, cached_tokens=1536, completion_tokens=5, reasoning_tokens=2)
    with (
        OpenAIServer(reply) as server,
        open_books(server, store, tmp_path) as books,
        books.client() as client,
    ):
        client.chat.completions.create(**CHAT)
        list(client.chat.completions.create(**CHAT, stream=True))
        books.check()


def test_a_request_that_cannot_be_sent_costs_nothing(books: Books) -> None:
    with books.client() as client, pytest.raises(TypeError):
        client.chat.completions.create(**CHAT, extra_body={"metadata": object()})
    assert books.server.count() == 0
    assert (books.spent, books.held) == (0, 0)


def test_an_answer_that_is_not_read_is_booked_as_projected(books: Books) -> None:
    with (
        books.client() as client,
        client.chat.completions.with_streaming_response.create(**CHAT) as response,
    ):
        assert response.status_code == 200
        assert books.held > 0
    (projected,), (settled,) = books.of("Projected"), books.of("Settled")
    assert (settled.cost, settled.estimated, books.held) == (projected.cost, True, 0)


@pytest.mark.parametrize("body", [b"{not json", [1, 2], "no object", None], ids=repr)
def test_a_body_that_cannot_be_read_is_refused(body: object, books: Books) -> None:
    more: Any = {"content" if TAKES_CONTENT and isinstance(body, bytes) else "body": body}
    with books.client() as client, pytest.raises(ConfigurationError, match="pass a dict"):
        client.post("/chat/completions", cast_to=object, **more)
    assert books.server.count() == 0


def test_a_model_without_a_price_is_refused_unsent(books: Books) -> None:
    with books.client() as client:
        for model in ("gpt-99-ultra", "", None):
            with pytest.raises(UnknownModelError):
                client.chat.completions.create(model=model, messages=MESSAGES)  # type: ignore[arg-type]  # not a str
    assert books.server.count() == 0


def test_a_call_cancelled_while_it_runs_costs_what_the_settings_say(store: str, tmp_path: Path) -> None:
    async def run(books: Books) -> None:
        async with books.aclient() as client:
            task = asyncio.create_task(client.chat.completions.create(**CHAT))
            await asyncio.to_thread(books.server.wait_count, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert books.held == 0

    with OpenAIServer(Reply(hang=True)) as server, open_books(server, store, tmp_path) as books:
        asyncio.run(run(books))
        (projected,), (settled,) = books.of("Projected"), books.of("Settled")
        assert (settled.cost, settled.outcome) == (projected.cost, "unknown")


@pytest.mark.parametrize("turns", range(12))
def test_a_call_cancelled_at_any_time_leaves_nothing_held(turns: int, books: Books) -> None:
    """Cancelled after so many turns of the loop: before, while reserving, while calling, while settling."""

    async def run() -> None:
        async with books.aclient() as client:
            task = asyncio.create_task(client.chat.completions.create(**CHAT))
            for _ in range(turns):
                await asyncio.sleep(0.002 * (turns % 3))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert books.held == 0
    assert books.server.wait_idle()
    assert books.spent >= books.billed


def test_a_thread_pool_shares_a_client(books: Books) -> None:
    with books.client() as client, ThreadPoolExecutor(32) as pool:

        def one(number: int) -> None:
            with budget_user(USER):
                if number % 2:
                    list(client.chat.completions.create(**CHAT, stream=True))
                else:
                    client.chat.completions.create(**CHAT)

        list(pool.map(one, range(32)))
    assert len(books.server.billed) == 32
    books.check()
