"""Responses of realtime sessions that the program asks for: booked at their usage, refused unsent."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.resources.realtime.realtime import (
    AsyncRealtimeConnection,
    AsyncRealtimeConnectionManager,
    RealtimeConnection,
    RealtimeConnectionManager,
)
from websockets.asyncio.client import ClientConnection as AsyncSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection as SyncSocket

from budgetguard.engine.background import background
from budgetguard.engine.context import budget_user
from budgetguard.errors import (
    BudgetExceededError,
    MissingUserError,
    UnknownEndpointError,
    UnknownModelError,
    UnknownUserError,
)
from tests.adapters.books import USER, keeper_on
from tests.adapters.clients import patch, unpatch, wrap
from tests.adapters.realtime_books import (
    MODEL,
    TEXT_ONLY,
    RealtimeBooks,
    auntil,
    message,
    realtime_books,
    until,
)


@pytest.fixture
def books(store: str, tmp_path: Path) -> Iterator[RealtimeBooks]:
    with realtime_books(store, tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("spoken", [True, False], ids=["spoken", "text"])
def test_each_response_is_booked_at_its_usage(books: RealtimeBooks, spoken: bool) -> None:
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        if not spoken:
            connection.session.update(session=TEXT_ONLY)
        for turn in range(3):
            connection.conversation.item.create(item=message())
            connection.response.create()
            assert until(connection, "response.created")
            assert books.held > 0
            done = until(connection, "response.done")
            assert done.response.usage.output_tokens == (25 if spoken else 5)
            assert len(books.server.billed) == turn + 1
            books.check()
    books.check()
    assert books.spent > 0
    assert [event.outcome for event in books.of("Settled")] == ["answered"] * 3
    assert not any(event.estimated for event in books.of("Settled"))


@pytest.mark.parametrize("spoken", [True, False], ids=["spoken", "text"])
async def test_each_response_is_booked_at_its_usage_async(books: RealtimeBooks, spoken: bool) -> None:
    async with books.aclient() as client, client.realtime.connect(model=MODEL) as connection:
        if not spoken:
            await connection.session.update(session=TEXT_ONLY)
        for _ in range(3):
            await connection.conversation.item.create(item=message())
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    break
            books.check()
    books.check()
    assert len(books.of("Settled")) == 3


def test_cached_text_and_sound_have_their_own_prices(books: RealtimeBooks) -> None:
    books.server.usage_more = {
        "input_tokens": 1_000,
        "input_token_details": {
            "text_tokens": 400,
            "audio_tokens": 600,
            "cached_tokens": 500,
            "cached_tokens_details": {"text_tokens": 200, "audio_tokens": 300},
        },
        "output_tokens": 90,
        "output_token_details": {"text_tokens": 30, "audio_tokens": 60},
    }
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        connection.response.create()
        until(connection, "response.done")
    # USD per million: text 4, cached 0.40; sound 32, cached 0.40; out 16 and 64.
    text, heard = 200 * 4_000 + 200 * 400, 300 * 32_000 + 300 * 400
    assert books.spent == text + heard + 30 * 16_000 + 60 * 64_000


def test_the_projection_follows_the_conversation(books: RealtimeBooks) -> None:
    """What is projected to be read is never less than what was billed, and not twice as much."""
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        for turn in range(4):
            connection.conversation.item.create(item=message("word " * 300 * (turn + 1)))
            connection.response.create(response={"max_output_tokens": 200})
            until(connection, "response.done")
    projected = [event.usage for event in books.of("Projected")]
    read = [usage["input_tokens"] for _, usage in books.server.billed]
    heard = [usage["input_token_details"]["audio_tokens"] for _, usage in books.server.billed]
    assert all(200 == usage.units["output_audio_tokens"] == usage.output_tokens for usage in projected)
    for usage, tokens, sound in zip(projected, read, heard, strict=True):
        assert tokens <= usage.input_tokens <= 1.3 * tokens + 64
        assert sound <= usage.units.get("input_audio_tokens", 0) <= 1.1 * sound + 1
    assert read == sorted(read)
    assert heard[-1] > 0


def test_a_response_with_its_own_input_is_projected_by_that_alone(books: RealtimeBooks) -> None:
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        connection.conversation.item.create(item=message("word " * 2_000))
        connection.response.create()
        until(connection, "response.done")
        connection.response.create(response={"conversation": "none", "input": [message("Hi")]})
        until(connection, "response.done")
        connection.response.create()
        until(connection, "response.done")
    first, apart, last = (event.usage.input_tokens for event in books.of("Projected"))
    assert apart < 100 < 2_000 < first < last
    books.check()


@pytest.mark.parametrize("status", ["cancelled", "failed", "incomplete"])
def test_a_response_that_did_not_complete_costs_what_it_reports(books: RealtimeBooks, status: str) -> None:
    books.server.status = status
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        connection.response.create()
        assert until(connection, "response.done").response.status == status
        books.check()
    assert books.spent > 0


def test_a_response_without_usage_costs_its_projection(books: RealtimeBooks) -> None:
    books.server.reports = False
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        connection.response.create()
        until(connection, "response.done")
        (projected,) = books.of("Projected")
        assert (books.spent, books.held) == (int(projected.cost * 10**9), 0)


def _create(connection: Any) -> None:
    connection.response.create()


def _send_raw(connection: Any) -> None:
    connection.send({"type": "response.create"})


def _send_object(connection: Any) -> None:
    from openai.types.realtime import ResponseCreateEvent

    connection.send(ResponseCreateEvent(type="response.create", event_id="mine"))


def _send_below(connection: Any) -> None:
    connection._connection.send(json.dumps({"type": "response.create"}).encode())


@pytest.mark.parametrize("ask", [_create, _send_raw, _send_object, _send_below])
def test_without_money_nothing_is_sent_and_the_connection_stays(books: RealtimeBooks, ask: Any) -> None:
    books.limit(1_000_000)
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        with pytest.raises(BudgetExceededError) as refused:
            ask(connection)
        assert refused.value.account == f"user:{USER}"
        connection.conversation.item.create(item=message())
        until(connection, "conversation.item.added")
        assert books.server.count("response.create") == 0
        assert (books.spent, books.held) == (0, 0)
        books.limit(10**10)
        ask(connection)
        until(connection, "response.done")
    assert books.server.count("response.create") == 1
    books.check()


async def test_without_money_nothing_is_sent_async(books: RealtimeBooks) -> None:
    books.limit(1_000_000)
    async with books.aclient() as client, client.realtime.connect(model=MODEL) as connection:
        with pytest.raises(BudgetExceededError):
            await connection.response.create()
        await connection.conversation.item.create(item=message())
        await auntil(connection, "conversation.item.added")
    assert books.server.count("response.create") == 0
    assert books.held == 0


@pytest.mark.skipif(not hasattr(RealtimeConnectionManager, "send"), reason="this SDK has no queue")
def test_what_is_queued_before_the_connection_is_refused_aloud(books: RealtimeBooks) -> None:
    with books.client() as client:
        manager = client.realtime.connect(model=MODEL)
        manager.send({"type": "response.create"})
        with manager as connection:
            until(connection, "response.done")
        books.check()
        books.limit(books.spent)
        manager = client.realtime.connect(model=MODEL)
        manager.send({"type": "response.create"})
        with pytest.raises(BudgetExceededError):
            manager.enter()
    assert books.server.count("response.create") == 1
    books.check()


def test_a_budget_of_ten_lets_ten_through_four_connections(books: RealtimeBooks) -> None:
    books.flat_price()
    books.limit(10 * 100 * 1_000)
    books.server.output_tokens = 100
    refused = []

    def ask_until_refused() -> None:
        with budget_user(USER), books.client() as client, client.realtime.connect(model=MODEL) as connection:
            connection.session.update(session={**TEXT_ONLY, "max_output_tokens": 100})
            until(connection, "session.updated")
            while True:
                try:
                    connection.response.create()
                except BudgetExceededError as error:
                    refused.append(error)
                    return
                until(connection, "response.done")

    threads = [threading.Thread(target=ask_until_refused) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 4
    assert books.server.begun == books.server.count("response.create") == 10
    assert (books.spent, books.held) == (10 * 100 * 1_000, 0)


def test_a_longer_answer_extends_its_hold(books: RealtimeBooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("budgetguard.providers.openai.realtime.calls.UNCAPPED", 10)
    books.flat_price()
    books.server.spoken_ms = 20_000  # 400 tokens
    books.server.hang_after = 99
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        connection.response.create()
        for _ in range(90):
            until(connection, "response.output_audio.delta")
        assert books.held >= 90 * 4 * 1_000
    assert books.held == 0


def test_a_longer_answer_is_stopped_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetguard.providers.openai.realtime.calls.UNCAPPED", 10)
    with realtime_books("memory", tmp_path, on_stream_exceeded="stop") as books:
        books.flat_price()
        books.limit(40 * 1_000)
        books.server.spoken_ms = 20_000
        with books.client() as client, client.realtime.connect(model=MODEL) as connection:
            connection.response.create()
            with pytest.raises(BudgetExceededError):
                until(connection, "response.done")
            assert books.server.closed.acquire(timeout=10)
        assert 30 * 1_000 <= books.spent <= 44 * 1_000
        assert books.held == 0


@pytest.mark.parametrize("own", [None, "mine"])
def test_an_error_gives_the_hold_back(books: RealtimeBooks, own: str | None) -> None:
    books.server.refuse = "conversation_already_has_active_response"
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        event = {"type": "response.create"} if own is None else {"type": "response.create", "event_id": own}
        connection.send(event)  # type: ignore[arg-type]
        error = until(connection, "error")
        assert error.error.code == books.server.refuse
        assert error.error.event_id == own
        assert (books.spent, books.held) == (0, 0)


# What ends early


def test_leaving_early_books_what_was_read_and_seen(books: RealtimeBooks) -> None:
    books.server.hang_after = 3
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        connection.session.update(session=TEXT_ONLY)
        until(connection, "session.updated")
        connection.response.create()
        for _ in range(3):
            until(connection, "response.output_text.delta")
    (settled,) = books.of("Settled")
    assert settled.outcome == "abandoned"
    assert 3 <= settled.usage.output_tokens <= 4  # "Hello to all "
    assert settled.usage.input_tokens > 0
    assert books.held == 0
    assert books.spent == int(settled.cost * 10**9) > 0


def test_a_cut_line_books_what_was_seen(books: RealtimeBooks) -> None:
    books.server.kill_after = 3
    with books.client() as client:
        manager = client.realtime.connect(model=MODEL)
        connection = manager.enter()
        connection.response.create()
        with pytest.raises(ConnectionClosed):
            until(connection, "response.done")
        (settled,) = books.of("Settled")
        assert settled.usage.units["output_audio_tokens"] == 3 * 4
        assert books.held == 0
        connection.close()
        assert books.of("Settled") == [settled]


async def test_a_cut_line_books_what_was_seen_async(books: RealtimeBooks) -> None:
    books.server.kill_after = 3
    async with books.aclient() as client:
        connection = await client.realtime.connect(model=MODEL).enter()
        await connection.response.create()
        with pytest.raises(ConnectionClosed):
            await auntil(connection, "response.done")
        (settled,) = books.of("Settled")
        assert settled.usage.units["output_audio_tokens"] == 3 * 4
        assert books.held == 0


def test_a_forgotten_connection_is_closed_and_booked(books: RealtimeBooks) -> None:
    books.server.hang_after = 3
    with books.client() as client:
        connection = client.realtime.connect(model=MODEL).enter()
        connection.response.create()
        until(connection, "response.output_audio.delta")
        del connection
        gc.collect()
        background.finish()
        (settled,) = books.of("Settled")
        assert settled.outcome == "abandoned"
        assert books.held == 0
        assert books.server.closed.acquire(timeout=10)


async def test_a_forgotten_connection_is_closed_and_booked_async(books: RealtimeBooks) -> None:
    books.server.hang_after = 3
    async with books.aclient() as client:
        connection = await client.realtime.connect(model=MODEL).enter()
        await connection.response.create()
        await auntil(connection, "response.output_audio.delta")
        del connection
        gc.collect()
        background.finish()
        (settled,) = books.of("Settled")
        assert settled.outcome == "abandoned"
        assert books.held == 0


async def test_a_cancelled_task_books_what_was_seen(books: RealtimeBooks) -> None:
    import asyncio

    books.server.hang_after = 3
    seen = asyncio.Event()

    async def talk() -> None:
        async with books.aclient() as client, client.realtime.connect(model=MODEL) as connection:
            await connection.response.create()
            async for event in connection:
                if event.type == "response.output_audio.delta":
                    seen.set()

    task = asyncio.create_task(talk())
    await seen.wait()
    assert books.held > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (settled,) = books.of("Settled")
    assert settled.outcome == "abandoned"
    assert books.held == 0


async def test_waiting_with_a_timeout_loses_no_event_and_ends_nothing(books: RealtimeBooks) -> None:
    import asyncio

    async with books.aclient() as client, client.realtime.connect(model=MODEL) as connection:
        await auntil(connection, "session.created")
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(connection.recv(), 0.02)
        await connection.response.create()
        kinds = []
        while not kinds or kinds[-1] != "response.done":
            kinds.append((await connection.recv()).type)
        assert kinds.count("response.output_audio.delta") == 5
    books.check()


# Who pays, and what is refused by name


def test_the_connection_is_the_sdks_own(books: RealtimeBooks) -> None:
    with books.client() as client:
        manager = client.realtime.connect(model=MODEL)
        assert isinstance(manager, RealtimeConnectionManager)
        assert type(manager).__name__ == "RealtimeConnectionManager"
        with manager as connection:
            assert type(connection) is RealtimeConnection
            assert type(connection._connection) is SyncSocket
            raw = connection.recv_bytes()
            assert connection.parse_event(raw).type == "session.created"


async def test_the_connection_is_the_sdks_own_async(books: RealtimeBooks) -> None:
    async with books.aclient() as client:
        manager = client.realtime.connect(model=MODEL)
        assert isinstance(manager, AsyncRealtimeConnectionManager)
        async with manager as connection:
            assert type(connection) is AsyncRealtimeConnection
            assert type(connection._connection) is AsyncSocket
            raw = await connection.recv_bytes()
            assert connection.parse_event(raw).type == "session.created"


def test_a_response_is_paid_by_who_asks_for_it(books: RealtimeBooks) -> None:
    from budgetguard.core.accounts import Budget

    books.engine.store.set_budget("user:other", Budget(limit=10**10))
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        with budget_user("other"):
            connection.response.create()
            until(connection, "response.done")
        assert books.spent == 0
        other = books.engine.store.read("user:other")
        assert other is not None
        assert other.spent_nanos == books.billed > 0

        # Where nobody is current, the one who opened it pays.
        thread = threading.Thread(
            target=lambda: (connection.response.create(), until(connection, "response.done"))
        )
        thread.start()
        thread.join(30)
        assert books.spent + other.spent_nanos == books.billed


def test_nobody_connects_whom_nothing_limits(tmp_path: Path) -> None:
    with realtime_books("memory", tmp_path) as books:
        unpatch()
        engine = keeper_on("memory", tmp_path)
        patch(engine)
        with books.client() as client, budget_user("nobody"), pytest.raises(UnknownUserError):
            client.realtime.connect(model=MODEL).enter()
    patch(engine)
    try:
        with pytest.raises(MissingUserError):
            books.client().realtime.connect(model=MODEL).enter()
    finally:
        unpatch()
    assert not books.server.closed.acquire(timeout=0)


def test_a_model_without_a_price_is_refused_before_it_connects(books: RealtimeBooks) -> None:
    with books.client() as client, pytest.raises(UnknownModelError):
        client.realtime.connect(model="gpt-tomorrow").enter()
    assert not books.server.closed.acquire(timeout=0)


def test_what_is_spent_elsewhere_is_refused_by_name(books: RealtimeBooks) -> None:
    with books.client() as client:
        with pytest.raises(UnknownEndpointError, match="where budgetguard does not see it") as error:
            client.realtime.client_secrets.create()
        assert error.value.endpoint == "POST /realtime/client_secrets"
        with pytest.raises(UnknownEndpointError, match="where budgetguard does not see it") as error:
            client.realtime.connect(model=MODEL, extra_query={"call_id": "rtc_1"})
        assert error.value.endpoint == "WEBSOCKET /realtime?call_id"


def test_a_wrapped_client_is_guarded_and_others_are_not(store: str, tmp_path: Path) -> None:
    with realtime_books(store, tmp_path) as books:
        unpatch()
        wrapped = wrap(books.client(), books.engine)
        for client in (books.client(), wrapped):
            with client.realtime.connect(model=MODEL) as connection:
                connection.response.create()
                until(connection, "response.done")
        assert books.billed % 2 == 0
        assert books.spent == books.billed // 2
        assert books.held == 0


@pytest.mark.skipif(not hasattr(RealtimeConnectionManager, "on"), reason="this SDK does not reconnect")
def test_a_connection_that_takes_the_place_of_a_lost_one_is_guarded(books: RealtimeBooks) -> None:
    books.server.kill_after = 3
    with books.client() as client:
        manager = client.realtime.connect(model=MODEL, on_reconnecting=lambda event: None, initial_delay=0.01)
        done = 0
        with manager as connection:
            connection.response.create()
            for event in connection:
                if event.type == "session.created" and books.of("Settled"):
                    books.server.kill_after = None
                    connection.response.create()
                if event.type == "response.done":
                    done += 1
                    break
        assert done == 1
    abandoned, answered = books.of("Settled")
    assert (abandoned.outcome, answered.outcome) == ("abandoned", "answered")
    assert books.held == 0


def test_a_deployment_is_priced_by_the_model_that_a_map_names(tmp_path: Path) -> None:
    with realtime_books("memory", tmp_path, model_map={"our-voice": MODEL}) as books:
        options = {"base_url": "https://gateway.example/v1", "websocket_base_url": books.server.base_url}
        with openai.OpenAI(api_key="test", **options) as client:
            with client.realtime.connect(model="our-voice") as connection:
                connection.response.create()
                used = until(connection, "response.done").response.usage
            with pytest.raises(UnknownModelError):
                client.realtime.connect(model="their-voice").enter()
        assert {event.model for event in books.of("Settled")} == {MODEL}
        spoken, read = used.output_token_details.audio_tokens, used.input_tokens
        written = used.output_token_details.text_tokens
        assert books.spent == read * 4_000 + written * 16_000 + spoken * 64_000


def test_a_server_that_is_declared_free_costs_nothing(tmp_path: Path) -> None:
    with realtime_books("memory", tmp_path, free_base_urls=("http://localhost:9/v1",)) as books:
        books.limit(0)
        options = {"base_url": "http://localhost:9/v1", "websocket_base_url": books.server.base_url}
        client = openai.OpenAI(api_key="test", **options)
        with client.realtime.connect(model="our-own") as connection:
            connection.response.create()
            until(connection, "response.done")
        assert (books.spent, books.held) == (0, 0)


@pytest.mark.skipif(not hasattr(openai.resources.beta.Beta, "realtime"), reason="this SDK has no beta of it")
def test_the_beta_of_the_api_is_guarded_as_well(books: RealtimeBooks) -> None:
    with books.client() as client, client.beta.realtime.connect(model=MODEL) as connection:
        connection.conversation.item.create(item=message())
        connection.response.create()
        until(connection, "response.done")
        books.check()
        books.limit(books.spent)
        with pytest.raises(BudgetExceededError):
            connection.response.create()
    assert books.server.count("response.create") == 1
    books.check()
