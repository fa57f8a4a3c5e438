"""Batches: their file is projected at batch prices before they exist, and they are settled when asked for."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard.engine import background_answers as pending
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import (
    BudgetExceededError,
    BudgetGuardError,
    ConfigurationError,
    StoreError,
    UnknownEndpointError,
    UnknownModelError,
)
from budgetguard.pricing.book import PriceBook
from budgetguard.testing.clock import FakeClock
from tests.adapters.batch_books import ASK, arguments, batch_nanos, lines
from tests.adapters.books import MODEL, USER, Books, open_books
from tests.projecting import project_chat
from tests.provider.server import OpenAIServer, Reply

DAY = 24 * 3_600
CREATED = "/v1/batches"


def projected(*bodies: Any, model: str = MODEL) -> int:
    rates = PriceBook().rates(model, tier="batch")
    return sum(project_chat(body, model, rates).cost for body in bodies)


def create(books: Books, client: openai.OpenAI, *bodies: Any, **more: Any) -> Any:
    return client.batches.create(**arguments(books.server.files.add(lines(*bodies, **more)), **more))


def test_a_batch_is_held_at_the_batch_price_of_all_its_lines(books: Books) -> None:
    longer = {**ASK, "max_completion_tokens": 900}
    with books.client() as client:
        uploaded = client.files.create(file=io.BytesIO(lines(ASK, ASK, longer)), purpose="batch")
        batch = client.batches.create(**arguments(uploaded.id))
        assert (books.spent, books.held) == (0, projected(ASK, ASK, longer))
        used = books.server.batches.end(batch.id)
        assert client.batches.retrieve(batch.id).status == "completed"
    assert used["input_tokens"] > 0
    assert (books.spent, books.held) == (batch_nanos(used), 0)
    (settled,) = books.of("Settled")
    assert (settled.user, settled.request_id, settled.estimated) == (USER, batch.id, False)


def test_a_batch_price_is_half_of_the_price() -> None:
    for model in (MODEL, "gpt-4.1", "text-embedding-3-small", "text-embedding-3-large"):
        rates = PriceBook().rates(model)
        usage = project_chat(ASK, MODEL, PriceBook().rates(MODEL)).usage
        if model.startswith("text"):
            usage = type(usage)({"input_tokens": 1_000_000})
        assert rates.with_tier("batch").cost(usage) * 2 == rates.cost(usage)


def test_polls_of_one_under_way_change_nothing_and_later_ones_count_once(books: Books) -> None:
    with books.client() as client:
        batch = create(books, client, ASK, ASK)
        held = books.held
        books.server.batches.progress(batch.id, completed=1)
        for _ in range(3):
            client.batches.retrieve(batch.id)
            client.batches.list()
            _ask_streaming(client, batch.id)
            _ask_list_streaming(client, batch.id)
        assert (books.spent, books.held) == (0, held)
        used = books.server.batches.end(batch.id)
        for _ in range(3):
            client.batches.retrieve(batch.id)
            client.batches.list()
    assert (books.spent, books.held) == (batch_nanos(used), 0)
    assert books.names().count("Settled") == 1


async def test_an_async_client_reads_the_file_and_settles_the_same(books: Books) -> None:
    async with books.aclient() as client:
        file_id = books.server.files.add(lines(ASK, ASK))
        batch = await client.batches.create(**arguments(file_id))
        assert (books.spent, books.held) == (0, projected(ASK, ASK))
        used = books.server.batches.end(batch.id)
        await asyncio.gather(*(client.batches.retrieve(batch.id) for _ in range(8)))
        assert [one.id async for one in client.batches.list()] == [batch.id]
    assert (books.spent, books.held) == (batch_nanos(used), 0)
    assert books.names().count("Settled") == 1


def _ask_streaming(client: openai.OpenAI, name: str) -> None:
    with client.batches.with_streaming_response.retrieve(name) as response:
        response.json()


def _ask_list(client: openai.OpenAI, name: str) -> None:
    assert name in [one.id for one in client.batches.list()]


def _ask_list_streaming(client: openai.OpenAI, name: str) -> None:
    with client.batches.with_streaming_response.list() as response:
        response.read()


@pytest.mark.parametrize("ask", [_ask_list, _ask_list_streaming])
def test_listing_batches_charges_those_that_have_ended_once(ask: Any, books: Books) -> None:
    with books.client() as client:
        name = create(books, client, ASK).id
        used = books.server.batches.end(name)
        for _ in range(3):
            ask(client, name)
    assert (books.spent, books.held) == (batch_nanos(used), 0)
    assert books.names().count("Settled") == 1


def test_a_batch_that_does_not_fit_is_refused_and_not_created(books: Books) -> None:
    books.limit(projected(ASK, ASK) - 1)
    with books.client() as client:
        with pytest.raises(BudgetExceededError):
            create(books, client, ASK, ASK)
        assert create(books, client, ASK).status == "validating"
    assert books.server.count(CREATED) == 1


def test_ten_batches_of_a_budget_for_ten_are_created_by_eight_threads(books: Books) -> None:
    books.limit(10 * projected(ASK, ASK))
    file_id = books.server.files.add(lines(ASK, ASK))
    outcomes: list[str] = []

    def work() -> None:
        with budget_user(USER), books.client() as client:
            for _ in range(3):
                try:
                    client.batches.create(**arguments(file_id))
                    outcomes.append("created")
                except BudgetExceededError:
                    outcomes.append("refused")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (outcomes.count("created"), outcomes.count("refused")) == (10, 14)
    assert books.server.count(CREATED) == 10


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (lines({**ASK, "model": "a-model-of-nobody"}), UnknownModelError),
        (lines({"messages": ASK["messages"]}), UnknownModelError),
        (lines({"input": "a"}, url="/v1/fine_tuning/jobs"), UnknownEndpointError),
        (lines({"input_file_id": "file-1"}, url="/v1/batches"), ConfigurationError),
        (lines({**ASK, "messages": "not a list"}), ConfigurationError),
        (b"{not json\n", ConfigurationError),
        (b"[1, 2]\n", ConfigurationError),
        (b'{"url": "/v1/chat/completions"}\n', ConfigurationError),
        (b"\xff\xfe\n", ConfigurationError),
    ],
)
def test_a_line_that_cannot_be_priced_refuses_the_batch_by_its_number(
    line: bytes, error: type[BudgetGuardError], books: Books
) -> None:
    file_id = books.server.files.add(lines(ASK) + b"\n" + line + lines(ASK))
    with books.client() as client, pytest.raises(error, match=f"line 3 of .* {file_id}"):
        client.batches.create(**arguments(file_id))
    assert (books.spent, books.held, books.server.count(CREATED)) == (0, 0, 0)


def test_a_file_without_requests_and_a_batch_without_file_are_refused(books: Books) -> None:
    with books.client() as client:
        with pytest.raises(ConfigurationError, match="no requests"):
            client.batches.create(**arguments(books.server.files.add(b"\n \n")))
        with pytest.raises(ConfigurationError, match="input_file_id"):
            client.post("/batches", body={"endpoint": "/v1/responses"}, cast_to=object)
    assert books.server.count(CREATED) == 0


def test_a_file_that_the_provider_does_not_have_raises_its_own_error(books: Books) -> None:
    with books.client() as client, pytest.raises(openai.NotFoundError) as raised:
        client.batches.create(**arguments("file-of-nobody"))
    assert "file-of-nobody" in "".join(raised.value.__notes__)
    assert (books.spent, books.held, books.server.count(CREATED)) == (0, 0, 0)


async def test_an_async_client_raises_the_same(books: Books) -> None:
    async with books.aclient() as client:
        with pytest.raises(openai.NotFoundError):
            await client.batches.create(**arguments("file-of-nobody"))
        file_id = books.server.files.add(lines({**ASK, "model": "a-model-of-nobody"}))
        with pytest.raises(UnknownModelError, match="line 1 of"):
            await client.batches.create(**arguments(file_id))
    assert (books.spent, books.held, books.server.count(CREATED)) == (0, 0, 0)


def test_a_batch_that_fails_in_validation_costs_nothing(books: Books) -> None:
    with books.client() as client:
        batch = create(books, client, ASK)
        books.server.batches.end(batch.id, "failed")
        client.batches.retrieve(batch.id)
    assert (books.spent, books.held) == (0, 0)


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_what_was_done_of_one_that_ended_early_is_booked(status: str, books: Books) -> None:
    with books.client() as client:
        batch = create(books, client, ASK, ASK, ASK)
        if status == "cancelled":
            assert client.batches.cancel(batch.id).status == "cancelling"
        assert (books.spent, books.held) == (0, projected(ASK, ASK, ASK))
        used = books.server.batches.end(batch.id, status, completed=2)
        client.batches.retrieve(batch.id)
    assert (books.spent, books.held) == (batch_nanos(used), 0)
    assert 0 < books.spent < projected(ASK, ASK, ASK)


@pytest.mark.parametrize(("completed", "part"), [(3, 3), (1, 1), (0, 0)])
def test_without_usage_the_share_of_completed_requests_of_the_projection_is_booked(
    completed: int, part: int, books: Books
) -> None:
    with books.client() as client:
        batch = create(books, client, ASK, ASK, ASK)
        books.server.batches.end(batch.id, completed=completed, told=False)
        client.batches.retrieve(batch.id)
    assert (books.spent, books.held) == (-(-projected(ASK, ASK, ASK) * part // 3), 0)


@pytest.mark.parametrize(
    ("url", "body", "model"),
    [
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["one", "two"]}, None),
        ("/v1/responses", {"model": "gpt-5-mini", "input": "Say hello."}, None),
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Say hello."}, None),
        ("/v1/moderations", {"model": "omni-moderation-latest", "input": "Hello."}, None),
        ("/v1/moderations", {"input": "Hello."}, "omni-moderation-latest"),
    ],
)
def test_batches_of_other_endpoints_are_booked_at_their_batch_prices(
    url: str, body: dict[str, Any], model: str | None, books: Books
) -> None:
    if model is not None:
        body = {"model": model, **body}
    free = "moderations" in url
    with books.client() as client:
        batch = create(books, client, body, body, url=url)
        assert (books.held > 0) is not free
        used = books.server.batches.end(batch.id)
        client.batches.retrieve(batch.id)
    expected = 0 if free else batch_nanos(used, body["model"])
    assert (books.spent, books.held) == (expected, 0)


def test_models_that_the_usage_does_not_tell_apart_are_booked_at_the_dearest(books: Books) -> None:
    dear = {**ASK, "model": "gpt-4.1"}
    with books.client() as client:
        batch = create(books, client, ASK, dear, ASK)
        assert books.held == projected(ASK, ASK) + projected(dear, model="gpt-4.1")
        used = books.server.batches.end(batch.id)
        client.batches.retrieve(batch.id)
    assert books.spent == batch_nanos(used, "gpt-4.1")


def test_calls_of_tools_that_the_usage_does_not_tell_are_booked_as_projected(books: Books) -> None:
    body = {"model": "gpt-5-mini", "input": "Search.", "tools": [{"type": "web_search"}]}
    with books.client() as client:
        batch = create(books, client, body, body, url="/v1/responses")
        held = books.held
        books.server.batches.end(batch.id, completed=1)
        client.batches.retrieve(batch.id)
    assert (books.spent, books.held) == (-(-held // 2), 0)
    (settled,) = books.of("Settled")
    assert (settled.endpoint, settled.estimated) == ("batches with tools", True)


def test_a_standard_tier_in_a_line_does_not_make_it_dearer_and_another_does(books: Books) -> None:
    with books.client() as client:
        create(books, client, {**ASK, "service_tier": "auto"})
        assert books.held == projected(ASK)
        create(books, client, {**ASK, "service_tier": "priority"})
    assert books.held > 2 * projected(ASK)


PROGRAM = """
    import sys
    import openai
    from tests.adapters.books import *
    patch(keeper_on("disk", Path(sys.argv[1])))
    client = openai.OpenAI(base_url=sys.argv[2], api_key="test")
"""


def run(tmp_path: Path, server: OpenAIServer, program: str, *more: str) -> subprocess.CompletedProcess[str]:
    text = textwrap.dedent(PROGRAM) + textwrap.dedent(program)
    command = [sys.executable, "-c", text, str(tmp_path), server.base_url, *more]
    return subprocess.run(command, timeout=60, capture_output=True, text=True)


@pytest.mark.full
def test_another_process_settles_it_days_later_and_once(tmp_path: Path) -> None:
    program = """
        with budget_user("somebody else"):
            for _ in range(2):
                assert client.batches.retrieve(sys.argv[3]).status == sys.argv[4]
                assert [one.id for one in client.batches.list()] == [sys.argv[3]]
    """
    with OpenAIServer() as server, open_books(server, "disk", tmp_path) as books:
        with books.client() as client:
            batch = create(books, client, ASK, ASK)
            held = books.held
            for _ in range(2):
                assert run(tmp_path, server, program, batch.id, "validating").returncode == 0
            assert (books.spent, books.held) == (0, held)
            used = server.batches.end(batch.id)
            for _ in range(2):
                ran = run(tmp_path, server, program, batch.id, "completed")
                assert ran.returncode == 0, ran.stderr
                assert (books.spent, books.held) == (batch_nanos(used), 0)
            client.batches.retrieve(batch.id)
        assert (books.spent, books.held) == (batch_nanos(used), 0)


@pytest.mark.full
def test_a_batch_of_a_process_that_was_killed_is_settled_by_another(tmp_path: Path) -> None:
    program = """
        import os, signal
        with budget_user(USER):
            batch = client.batches.create(
                input_file_id=sys.argv[3], endpoint="/v1/chat/completions", completion_window="24h"
            )
            print(batch.id, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    with OpenAIServer() as server, open_books(server, "disk", tmp_path) as books:
        killed = run(tmp_path, server, program, server.files.add(lines(ASK, ASK)))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert (books.spent, books.held) == (0, projected(ASK, ASK))
        used = server.batches.end(killed.stdout.strip(), "expired", completed=1)
        with books.client() as client:
            client.batches.retrieve(killed.stdout.strip())
        assert (books.spent, books.held) == (batch_nanos(used), 0)


def test_nobody_books_anything_for_a_server_that_is_free(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        settings: Any = {"free_base_urls": (server.base_url,)}
        with open_books(server, "disk", tmp_path, **settings) as books, books.client() as client:
            batch = create(books, client, ASK)
            assert (books.spent, books.held) == (0, 0)
            server.batches.end(batch.id)
        with open_books(server, "disk", tmp_path, **settings) as others, others.client() as client:
            client.batches.retrieve(batch.id)
            assert (others.spent, others.held, others.names()) == (0, 0, ["Settled"])


def test_its_hold_outlives_its_window_by_days_and_a_late_look_corrects_its_expiry(tmp_path: Path) -> None:
    clock = FakeClock()
    with (
        OpenAIServer() as server,
        open_books(server, "memory", tmp_path, clock=clock) as books,
        books.client() as client,
    ):
        batch = create(books, client, ASK)
        clock.advance(6.9 * DAY)
        assert (books.spent, books.held) == (0, projected(ASK))
        clock.advance(0.2 * DAY)
        assert (books.spent, books.held) == (projected(ASK), 0)
        used = server.batches.end(batch.id)
        client.batches.retrieve(batch.id)
        assert (books.spent, books.held) == (batch_nanos(used), 0)


def test_a_store_that_fails_is_nothing_to_who_polls(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise StoreError("the disk is gone")

    store = books.engine.store
    theirs = books.server.batches.create(arguments(books.server.files.add(lines(ASK))))
    books.server.batches.end(theirs)
    with books.client() as client:
        with monkeypatch.context() as failing:
            failing.setattr(store, "attach", fails)
            batch = create(books, client, ASK)
            used = books.server.batches.end(batch.id)
            failing.setattr(store, "attached", fails)
            failing.setattr(store, "settle", fails)
            assert client.batches.retrieve(batch.id).status == "completed"
            assert client.batches.retrieve(theirs).status == "completed"
        books.engine.flush()
    assert (books.spent, books.held) == (batch_nanos(used), 0)


def test_a_hold_whose_answer_could_not_be_noted_is_noted_later(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, store = threading.Event(), books.engine.store
    attach = store.attach
    answers: list[Any] = [StoreError("busy"), StoreError("busy")]

    def shaky(hold_id: str, request_id: str) -> bool:
        if answers:
            raise answers.pop()
        done = attach(hold_id, request_id)
        noted.set()
        return done

    monkeypatch.setattr(store, "attach", shaky)
    monkeypatch.setattr(pending, "_FIRST_RETRY", 0.001)
    with books.client() as client:
        batch = create(books, client, ASK)
    assert noted.wait(10)
    found = store.attached(batch.id)
    assert found is not None
    assert (found.state, found.endpoint) == ("held", "batches")


def test_the_store_is_asked_once_for_one_that_nobody_waits_for(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    store = books.engine.store
    attached = store.attached

    def counted(request_id: str) -> Any:
        asked.append(request_id)
        return attached(request_id)

    monkeypatch.setattr(store, "attached", counted)
    with books.client() as client:
        theirs = client.files.create(file=io.BytesIO(lines(ASK)), purpose="batch")
        made = books.server.batches.create(arguments(theirs.id))
        client.batches.retrieve(made)
        assert asked == [], "it is under way, so nothing can be settled"
        books.server.batches.end(made)
        for _ in range(3):
            client.batches.retrieve(made)
            client.batches.list()
            client.files.list()
            client.models.list()
    assert asked == [made]
    assert (books.spent, books.held) == (0, 0)


def test_a_batch_reads_as_without_a_guard(tmp_path: Path) -> None:
    def run(server: OpenAIServer) -> Any:
        with openai.OpenAI(base_url=server.base_url, api_key="test") as client:
            uploaded = client.files.create(file=io.BytesIO(lines(ASK, ASK)), purpose="batch")
            begun = client.batches.create(**arguments(uploaded.id))
            server.batches.end(begun.id)
            later = client.batches.retrieve(begun.id)
            assert later.output_file_id is not None
            output = client.files.content(later.output_file_id).text
            return type(begun), {**later.to_dict(), "id": ""}, output.count("\n")

    with OpenAIServer() as server:
        expected = run(server)
    with OpenAIServer() as server, open_books(server, "memory", tmp_path):
        assert run(server) == expected


def test_a_line_that_no_cap_bounds_is_projected_at_what_its_model_usually_answers(tmp_path: Path) -> None:
    with (
        OpenAIServer(Reply(completion_tokens=12)) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        free = {"model": MODEL, "messages": ASK["messages"]}
        for _ in range(30):
            client.chat.completions.create(**free)
        before = books.held
        create(books, client, free)
        assert 0 < books.held - before < projected(free) / 5
