"""Responses that a realtime session makes of its own accord, and transcripts of what it hears."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.usage import Usage
from budgetguard.engine.background import background
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetExceededError, UnknownModelError
from budgetguard.pricing.book import PriceBook
from tests.adapters.books import USER
from tests.adapters.realtime_books import (
    MODEL,
    QUIET,
    SILENCE,
    SPEECH,
    RealtimeBooks,
    auntil,
    realtime_books,
    sound,
    until,
)

CAP = 100
TURN = CAP * 1_000  # Nanos, at the flat price


@pytest.fixture
def books(store: str, tmp_path: Path) -> Iterator[RealtimeBooks]:
    with realtime_books(store, tmp_path) as opened:
        yield opened


def exact(books: RealtimeBooks, turns: int) -> None:
    """Have each response cost its hold to the Nano, and give the user money for so many."""
    books.flat_price()
    books.limit(turns * TURN)
    books.server.output_tokens = CAP


def listening(client: Any, session: Any = None) -> Any:
    """Return a connection whose responses are capped."""
    connection = client.realtime.connect(model=MODEL).enter()
    connection.session.update(session={"type": "realtime", "max_output_tokens": CAP, **(session or {})})
    until(connection, "session.updated")
    return connection


def say(connection: Any) -> None:
    connection.input_audio_buffer.append(audio=sound(SPEECH + SILENCE))


def test_turns_that_the_server_takes_are_booked_at_their_usage(books: RealtimeBooks) -> None:
    with books.client() as client, client.realtime.connect(model=MODEL) as connection:
        until(connection, "session.created")
        assert books.held == 0  # nothing can be made of silence
        for turn in range(3):
            say(connection)
            until(connection, "response.done")
            assert books.spent == books.billed
            assert len(books.server.billed) == turn + 1
            assert books.held > 0  # for the next one
    assert books.server.count("response.create") == 0
    books.check()


async def test_turns_that_the_server_takes_are_booked_at_their_usage_async(books: RealtimeBooks) -> None:
    async with books.aclient() as client, client.realtime.connect(model=MODEL) as connection:
        for _ in range(3):
            await connection.input_audio_buffer.append(audio=sound(SPEECH + SILENCE))
            await auntil(connection, "response.done")
            assert books.spent == books.billed
            assert books.held > 0
    books.check()


def test_sound_is_not_sent_when_no_answer_to_it_can_be_paid(books: RealtimeBooks) -> None:
    exact(books, 0)
    with books.client() as client:
        connection = listening(client)
        with pytest.raises(BudgetExceededError):
            say(connection)
        books.limit(2 * TURN)
        say(connection)
        until(connection, "response.done")
        connection.close()
    assert books.server.count("input_audio_buffer.append") == 1
    assert (books.spent, books.held) == (TURN, 0)


def test_a_session_ends_after_the_last_turn_that_can_be_paid(books: RealtimeBooks) -> None:
    exact(books, 3)
    with books.client() as client:
        connection = listening(client)
        for _ in range(3):
            say(connection)
            until(connection, "response.done")
        # The last one is heard to its end; then the line is closed, by us.
        assert books.server.closed.acquire(timeout=10)
        with pytest.raises(BudgetExceededError) as refused:
            connection.recv()
        assert refused.value.account == f"user:{USER}"
        with pytest.raises(BudgetExceededError):
            say(connection)
        with pytest.raises(BudgetExceededError):
            next(iter(connection))
        connection.close()
    assert books.server.begun == 3
    assert books.server.count("input_audio_buffer.append") == 3
    assert (books.spent, books.held) == (3 * TURN, 0)


async def test_a_session_ends_after_the_last_turn_that_can_be_paid_async(books: RealtimeBooks) -> None:
    exact(books, 2)
    async with books.aclient() as client, client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session={"type": "realtime", "max_output_tokens": CAP})
        await auntil(connection, "session.updated")
        for _ in range(2):
            await connection.input_audio_buffer.append(audio=sound(SPEECH + SILENCE))
            await auntil(connection, "response.done")
        with pytest.raises(BudgetExceededError):
            await connection.recv()
        with pytest.raises(BudgetExceededError):
            await connection.input_audio_buffer.append(audio=sound(SPEECH + SILENCE))
    assert books.server.begun == 2
    assert (books.spent, books.held) == (2 * TURN, 0)


def test_a_session_stops_at_once_where_that_is_asked_for(tmp_path: Path) -> None:
    with realtime_books("memory", tmp_path, on_stream_exceeded="stop") as books:
        exact(books, 2)
        books.server.hang_after = None
        with books.client() as client:
            connection = listening(client)
            say(connection)
            until(connection, "response.done")
            say(connection)
            with pytest.raises(BudgetExceededError):
                until(connection, "response.created")
            assert books.server.closed.acquire(timeout=10)
        assert books.server.begun == 2
        assert TURN <= books.spent <= 2 * TURN
        assert books.held == 0


def test_money_that_comes_in_time_lets_a_session_go_on(books: RealtimeBooks) -> None:
    exact(books, 1)
    with books.client() as client:
        connection = listening(client)
        say(connection)
        until(connection, "response.created")
        with pytest.raises(BudgetExceededError):
            say(connection)
        books.limit(3 * TURN)
        until(connection, "response.done")
        say(connection)
        until(connection, "response.done")
        connection.close()
    assert (books.spent, books.held) == (2 * TURN, 0)


def test_a_session_that_takes_no_turns_holds_nothing_in_advance(books: RealtimeBooks) -> None:
    with books.client() as client:
        connection = listening(client, QUIET)
        say(connection)
        assert books.held == 0
        connection.input_audio_buffer.commit()
        until(connection, "input_audio_buffer.committed")
        connection.response.create()
        until(connection, "response.done")
        (projected,) = books.of("Projected")
        assert projected.usage.units["input_audio_tokens"] == 21  # two seconds, and a twentieth more
        books.check()
        connection.close()


def test_turning_turns_off_gives_back_what_was_held_for_them(books: RealtimeBooks) -> None:
    with books.client() as client:
        connection = listening(client)
        connection.input_audio_buffer.append(audio=sound(SPEECH))
        assert books.held > 0
        connection.session.update(session=QUIET)
        until(connection, "session.updated")
        assert books.held == 0
        connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad"}}}}
        )
        assert books.held > 0
        connection.close()
    assert (books.spent, books.held) == (0, 0)


def test_a_change_that_the_server_refuses_changes_nothing(books: RealtimeBooks) -> None:
    with books.client() as client:
        connection = listening(client, QUIET)
        turns: Any = {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}, "voice": "nobody"}
        connection.session.update(session=turns)
        assert until(connection, "error").error.event_id is None
        connection.input_audio_buffer.append(audio=sound(SPEECH))
        assert books.held == 0
        connection.close()


@pytest.mark.parametrize("end", ["close", "drop", "kill"])
def test_what_was_held_in_advance_is_given_back_at_the_end(books: RealtimeBooks, end: str) -> None:
    if end == "kill":
        books.server.kill_after = 2
    with books.client() as client:
        connection = listening(client)
        connection.input_audio_buffer.append(audio=sound(SPEECH))
        assert books.held > 0
        if end == "close":
            connection.close()
        elif end == "drop":
            del connection
            gc.collect()
            background.finish()
        else:
            connection.input_audio_buffer.append(audio=sound(SILENCE))
            with pytest.raises(Exception, match=r"close|frame"):
                until(connection, "response.done")
    assert books.held == 0
    assert (books.spent > 0) == (end == "kill")
    assert len(books.of("Settled")) == (end == "kill")


def test_a_hold_made_in_advance_is_renewed_while_the_session_lives(tmp_path: Path) -> None:
    now = [1_700_000_000_000]
    with (
        realtime_books("memory", tmp_path, clock=lambda: now[0], hold_ttl="10m") as books,
        books.client() as client,
    ):
        connection = listening(client)
        for _ in range(8):
            connection.input_audio_buffer.append(audio=sound(SPEECH))
            now[0] += 4 * 60_000
        assert books.held > 0
        connection.close()
        assert (books.spent, books.held) == (0, 0)
        assert books.of("Expired") == []


def test_more_sound_is_held_for_as_it_is_sent(books: RealtimeBooks) -> None:
    with books.client() as client:
        connection = listening(client)
        for _ in range(4):
            connection.input_audio_buffer.append(audio=sound(SPEECH * 20))
        last = books.of("Projected")[-1]
        assert last.usage.units["input_audio_tokens"] >= 800
        connection.close()
    assert books.held == 0


def test_turns_that_the_server_takes_are_paid_by_who_opened_the_session(books: RealtimeBooks) -> None:
    books.engine.store.set_budget("user:other", Budget(limit=10**10))
    with books.client() as client:
        connection = listening(client)
        with budget_user("other"):
            say(connection)
            until(connection, "response.done")
            connection.close()
    other = books.engine.store.read("user:other")
    assert other is not None
    assert (other.spent_nanos, other.held_nanos) == (0, 0)
    books.check()


def test_a_turn_for_which_nothing_is_held_is_booked_and_is_the_last(books: RealtimeBooks) -> None:
    """Ours is not the only way to have one made; here a client's own socket below the SDK's asks for it."""
    exact(books, 0)
    with books.client() as client:
        connection = listening(client, QUIET)
        socket = connection._connection
        type(socket).send(socket, '{"type": "response.create"}')
        until(connection, "response.done")
        with pytest.raises(BudgetExceededError):
            connection.response.create()
        connection.close()
    assert (books.spent, books.held) == (TURN, 0)


# Transcripts


@pytest.mark.parametrize("writer", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"])
def test_transcripts_are_booked_beside_the_responses(books: RealtimeBooks, writer: str) -> None:
    session: Any = {"audio": {"input": {"transcription": {"model": writer}}}}
    with books.client() as client:
        connection = listening(client, session)
        for _ in range(2):
            say(connection)
            until(connection, "response.done")
        connection.close()
    billed = [model for model, _ in books.server.billed]
    assert billed == [writer, MODEL, writer, MODEL]
    settled = {event.endpoint for event in books.of("Settled") if event.model == writer}
    assert settled == {"realtime transcription"}
    books.check()


def test_a_transcript_that_never_came_is_booked_by_its_length(books: RealtimeBooks) -> None:
    books.server.kill_after = 0
    session: Any = {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    with books.client() as client:
        connection = listening(client, session)
        connection.input_audio_buffer.append(audio=sound(SPEECH * 7 + SILENCE))
        until(connection, "input_audio_buffer.committed")
        connection.close()
    (settled,) = (event for event in books.of("Settled") if event.model == "whisper-1")
    assert settled.cost * 10**9 == PriceBook().rates("whisper-1").cost(Usage.of(input_audio_seconds=7))
    assert settled.outcome == "abandoned"
    assert books.held == 0


def test_a_writer_without_a_price_is_not_set(books: RealtimeBooks) -> None:
    session: Any = {"type": "realtime", "audio": {"input": {"transcription": {"model": "scribe-9"}}}}
    with books.client() as client:
        connection = client.realtime.connect(model=MODEL).enter()
        with pytest.raises(UnknownModelError):
            connection.session.update(session=session)
        connection.close()
    assert books.server.count("session.update") == 0


async def test_sending_and_receiving_in_two_tasks_books_all(books: RealtimeBooks) -> None:
    async with books.aclient() as client, client.realtime.connect(model=MODEL) as connection:

        async def speak() -> None:
            for _ in range(20):
                await connection.input_audio_buffer.append(audio=sound(SPEECH[:24_000]))
                await asyncio.sleep(0)
            await connection.input_audio_buffer.append(audio=sound(SILENCE))

        speaking = asyncio.create_task(speak())
        await auntil(connection, "response.done")
        await speaking
        assert books.spent == books.billed
    books.check()
