"""Responses in the background: held until they end, charged once, by whoever asks for them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard.engine.surrounding import budget_user
from budgetguard.testing.clock import FakeClock
from tests.adapters.books import USER, Books, open_books
from tests.adapters.response_books import ASK, check
from tests.provider.server import OpenAIServer, Reply

LATER: Any = {**ASK, "background": True}
HOUR = 3_600


@pytest.fixture
def books(store: str, tmp_path: Path) -> Iterator[Books]:
    with OpenAIServer(Reply(polls=2)) as server, open_books(server, store, tmp_path) as opened:
        yield opened


def test_it_is_held_until_it_ends_and_charged_once(books: Books) -> None:
    with books.client() as client:
        begun = client.responses.create(**LATER)
        assert begun.status == "queued"
        statuses = []
        for _ in range(6):
            statuses.append(client.responses.retrieve(begun.id).status)
            if statuses[-1] != "completed":
                assert (books.spent, books.held > 0) == (0, True)
    assert statuses == ["in_progress", "in_progress", "completed", "completed", "completed", "completed"]
    check(books)
    (settled,) = books.of("Settled")
    assert (settled.user, settled.estimated, settled.request_id) == (USER, False, begun.id)


async def test_it_is_charged_once_however_many_ask_at_once(books: Books) -> None:
    async with books.aclient() as client:
        begun = await client.responses.create(**LATER)
        await asyncio.gather(*(client.responses.retrieve(begun.id) for _ in range(12)))
    check(books)
    assert books.names().count("Settled") == 1


def test_threads_that_ask_at_once_charge_once(books: Books) -> None:
    with books.client() as client:
        begun = client.responses.create(**LATER)
        threads = [threading.Thread(target=client.responses.retrieve, args=(begun.id,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    check(books)


def _raw(client: openai.OpenAI, name: str) -> None:
    client.responses.with_raw_response.retrieve(name).parse()


def _streaming(client: openai.OpenAI, name: str) -> None:
    with client.responses.with_streaming_response.retrieve(name) as response:
        response.json()


def _events(client: openai.OpenAI, name: str) -> None:
    list(client.responses.retrieve(name, stream=True))


def _later_events(client: openai.OpenAI, name: str) -> None:
    list(client.responses.retrieve(name, stream=True, starting_after=4))


def _get(client: openai.OpenAI, name: str) -> None:
    client.get(f"/responses/{name}", cast_to=object)


@pytest.mark.parametrize("ask", [_raw, _streaming, _events, _later_events, _get])
@pytest.mark.parametrize("begin", ["create", "raw", "streaming"])
def test_every_way_of_beginning_and_asking_charges_once(
    begin: str, ask: Any, store: str, tmp_path: Path
) -> None:
    with OpenAIServer(Reply(polls=0)) as server, open_books(server, store, tmp_path) as books:
        with books.client() as client:
            if begin == "create":
                name = client.responses.create(**LATER).id
            elif begin == "raw":
                name = client.responses.with_raw_response.create(**LATER).parse().id
            else:
                with client.responses.with_streaming_response.create(**LATER) as response:
                    name = response.json()["id"]
            assert (books.spent, books.held > 0) == (0, True)
            for _ in range(3):
                ask(client, name)
        check(books)
        assert books.names().count("Settled") == 1


def test_a_background_stream_read_to_its_end_is_charged_at_its_end(books: Books) -> None:
    with books.client() as client:
        events = list(client.responses.create(**LATER, stream=True))
        assert events[-1].type == "response.completed"
        check(books)
        client.responses.retrieve(events[-1].response.id)
    check(books)


def test_a_background_stream_that_is_left_goes_on_and_is_charged_when_asked_for(
    store: str, tmp_path: Path
) -> None:
    with OpenAIServer(Reply(polls=0)) as server, open_books(server, store, tmp_path) as books:
        with books.client() as client:
            with client.responses.create(**LATER, stream=True) as stream:
                first: Any = next(stream)
            assert (books.spent, books.held > 0) == (0, True)
            with client.responses.retrieve(first.response.id, stream=True) as again:
                next(again)
            assert (books.spent, books.held > 0) == (0, True)
            client.responses.retrieve(first.response.id)
        check(books)


def test_who_asked_for_it_pays_and_not_who_looks_for_it(books: Books) -> None:
    with books.client() as client:
        begun = client.responses.create(**LATER)
        with budget_user("somebody else"):
            for _ in range(3):
                client.responses.retrieve(begun.id)
    check(books)


def test_one_that_failed_costs_nothing(store: str, tmp_path: Path) -> None:
    with OpenAIServer(Reply(ends="failed", polls=1)) as server, open_books(server, store, tmp_path) as books:
        with books.client() as client:
            begun = client.responses.create(**LATER)
            assert books.held > 0
            assert [client.responses.retrieve(begun.id).status for _ in range(2)] == ["in_progress", "failed"]
        assert (books.spent, books.held) == (0, 0)


def test_one_that_is_cancelled_is_booked_as_projected(books: Books) -> None:
    """It did some of its work, and nobody says how much."""
    with books.client() as client:
        begun = client.responses.create(**LATER)
        assert client.responses.cancel(begun.id).status == "cancelled"
        client.responses.retrieve(begun.id)
    (projected,), (settled,) = books.of("Projected"), books.of("Settled")
    assert (settled.cost, settled.estimated, books.held) == (projected.cost, True, 0)


def test_its_hold_lives_for_hours_and_a_late_look_corrects_what_an_expiry_booked(tmp_path: Path) -> None:
    clock = FakeClock()
    with (
        OpenAIServer(Reply(polls=0)) as server,
        open_books(server, "memory", tmp_path, clock=clock) as books,
        books.client() as client,
    ):
        begun = client.responses.create(**LATER)
        clock.advance(23 * HOUR)
        assert (books.spent, books.held > 0) == (0, True)
        clock.advance(2 * HOUR)
        (projected,) = books.of("Projected")
        assert (books.spent, books.held) == (int(projected.cost * 10**9), 0)
        client.responses.retrieve(begun.id)
        check(books)


@pytest.mark.full
def test_another_process_that_asks_settles_it_for_who_asked_for_it(tmp_path: Path) -> None:
    program = """
        import sys
        import openai
        from tests.adapters.books import *
        patch(keeper_on("disk", Path(sys.argv[1])))
        with budget_user("somebody else"):
            client = openai.OpenAI(base_url=sys.argv[2], api_key="test")
            for _ in range(3):
                assert client.responses.retrieve(sys.argv[3]).status == "completed"
    """
    with OpenAIServer(Reply(polls=0)) as server, open_books(server, "disk", tmp_path) as books:
        with books.client() as client:
            begun = client.responses.create(**LATER)
            arguments = [str(tmp_path), server.base_url, begun.id]
            subprocess.run(
                [sys.executable, "-c", textwrap.dedent(program), *arguments], check=True, timeout=60
            )
            check(books)
            client.responses.retrieve(begun.id)
        check(books)


def test_an_answer_in_the_background_reads_as_without_a_guard(tmp_path: Path) -> None:
    def run(base_url: str) -> Any:
        with openai.OpenAI(base_url=base_url, api_key="test") as client:
            begun = client.responses.create(**LATER)
            later = client.responses.retrieve(begun.id)
            return begun.to_dict(), later.to_dict(), type(later)

    with OpenAIServer(Reply(polls=0)) as server:
        expected = run(server.base_url)
    with OpenAIServer(Reply(polls=0)) as server, open_books(server, "memory", tmp_path):
        assert run(server.base_url) == expected
