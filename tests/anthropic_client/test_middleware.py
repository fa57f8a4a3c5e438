"""Clients with middleware, which may change a request or send it more than once: each attempt is guarded."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from budgetguard.errors import BudgetExceededError, UnknownEndpointError

from .server import MODEL, MessagesServer, Reply
from .test_client import AWAYS, BODY, COST, INPUT, OUTPUT, WAYS

pytestmark = pytest.mark.skipif(
    not hasattr(anthropic._base_client.SyncAPIClient, "_attempt_request"),
    reason="clients of this anthropic have no middleware",
)


def nothing(request: Any, call_next: Any) -> Any:
    return call_next(request)


async def anothing(request: Any, call_next: Any) -> Any:
    return await call_next(request)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_booked_once_or_refused_unsent(way: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client(middleware=[nothing]) as client:
        WAYS[way](client)
        assert (books.spent, books.held, books.server.count()) == (COST, 0, 1)
        books.limit(books.spent + 1_000)
        with pytest.raises(BudgetExceededError):
            WAYS[way](client)
    assert (books.spent, books.held, len(books.server.requests)) == (COST, 0, 1)
    assert len(books.of("Held")) == 1


@pytest.mark.parametrize("way", AWAYS)
async def test_each_async_way_is_booked_once_or_refused_unsent(way: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    async with books.aclient(middleware=[anothing]) as client:
        await AWAYS[way](client)
        assert (books.spent, books.held, books.server.count()) == (COST, 0, 1)
        books.limit(books.spent + 1_000)
        with pytest.raises(BudgetExceededError):
            await AWAYS[way](client)
    assert (books.spent, books.held, len(books.server.requests)) == (COST, 0, 1)


def test_a_request_that_is_sent_twice_is_booked_twice(open_books: Any) -> None:
    books = open_books(MessagesServer())

    def hedging(request: Any, call_next: Any) -> Any:
        call_next(request).parse()
        return call_next(request)

    with books.client(middleware=[hedging]) as client:
        client.messages.create(**BODY)
    assert (books.spent, books.held, books.server.count()) == (2 * COST, 0, 2)
    assert len(books.of("Held")) == 2


def test_what_the_middleware_makes_of_a_request_is_what_is_held(open_books: Any) -> None:
    books = open_books(MessagesServer())

    def dearer(request: Any, call_next: Any) -> Any:
        return call_next(request.copy(body={**request.json, "model": "claude-opus-5", "max_tokens": 900}))

    def elsewhere(request: Any, call_next: Any) -> Any:
        return call_next(request.copy(url="/v1/made/up"))

    with books.client(middleware=[dearer]) as client:
        client.messages.create(**BODY)
        assert (books.spent, books.held) == (20 * 5_000 + 9 * 25_000, 0)
        assert books.of("Held")[0].amount * 10**9 > 900 * 25_000
        with pytest.raises(UnknownEndpointError, match="POST /made/up may cost money"):
            client.with_options(middleware=[elsewhere]).messages.create(**BODY)
    assert books.server.count() == len(books.server.requests) == 1


def test_an_answer_of_the_middleware_s_own_costs_nothing(open_books: Any) -> None:
    books = open_books(MessagesServer())
    with books.client(middleware=[lambda _request, _next: "kept"]) as client:
        assert client.messages.create(**BODY) == "kept"
    assert (books.server.requests, books.spent, books.held, books.of("Held")) == ([], 0, 0, [])


def test_errors_and_retries_below_middleware(open_books: Any) -> None:
    books = open_books(MessagesServer([Reply(status=529), Reply(), Reply(status=400), Reply(hang=True)]))
    with books.client(middleware=[nothing], max_retries=1) as client:
        client.messages.create(**BODY)
        assert (books.spent, books.held, books.server.count()) == (COST, 0, 2)
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**BODY)
        assert (books.spent, books.held) == (COST, 0)
        with pytest.raises(anthropic.APITimeoutError):
            client.with_options(timeout=0.3, max_retries=0).messages.create(**BODY)
    lost = int(books.of("Held")[-1].amount * 10**9)
    assert (books.spent, books.held) == (COST + lost, 0)


def test_a_wrapped_client_s_middleware_too(open_books: Any, patch: Any) -> None:
    books = open_books(MessagesServer(), patched=False)
    with books.client(middleware=[nothing]) as other:
        client = patch.wrap(books.client(middleware=[nothing]), books.engine)
        other.messages.create(**BODY)
        assert books.spent == 0
        client.messages.create(**BODY)
        client.with_options(timeout=20).messages.create(**BODY)
        client.close()
    assert (books.spent, len(books.of("Held"))) == (2 * COST, 2)


def test_unpatching_takes_the_guard_off(open_books: Any, patch: Any) -> None:
    books = open_books(MessagesServer())
    patch.unpatch()
    with books.client(middleware=[nothing]) as client:
        client.messages.create(**BODY)
    assert books.spent == 0


def test_batches_below_middleware_are_settled_by_their_results(open_books: Any) -> None:
    from .test_batches import done, end, request

    books = open_books(MessagesServer())
    with books.client(middleware=[nothing]) as client:
        batch = client.messages.batches.create(requests=[request("a"), request("b")])
        assert books.held > 0
        end(books.server, done(), "errored")
        client.messages.batches.retrieve(batch.id)
        list(client.messages.batches.results(batch.id))
    assert (books.spent, books.held) == (20 * 1_500 + 9 * 7_500, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_each_model_that_the_sdk_s_fallbacks_ask_is_held_and_booked(stream: bool, open_books: Any) -> None:
    middleware = pytest.importorskip("anthropic.lib.middleware")
    token = {"type": "refusal", "category": "cyber", "fallback_credit_token": "t"}
    refusal = Reply(text="I was", more={"stop_reason": "refusal", "stop_details": token})
    books = open_books(MessagesServer([refusal, Reply(), refusal, Reply()]))
    fallbacks = middleware.BetaRefusalFallbackMiddleware([{"model": "claude-opus-5"}])

    def call(client: Any) -> Any:
        if not stream:
            return client.beta.messages.create(**BODY).content[-1].text
        with client.beta.messages.stream(**BODY) as events:
            return events.get_final_message().stop_reason

    with books.client(middleware=[fallbacks]) as client:
        call(client)
        spent = COST + 20 * 5_000 + 9 * 25_000
        assert (books.spent, books.held, books.server.count()) == (spent, 0, 2)
        assert [event.model for event in books.of("Held")] == [MODEL, "claude-opus-5"]
        # The money is enough for the first model, and not for the second.
        books.limit(spent + 60 * INPUT + 100 * OUTPUT)
        if stream:
            assert call(client) == "refusal"  # the SDK gives the first model's answer then
        else:
            with pytest.raises(BudgetExceededError):
                call(client)
    assert (books.spent, books.held, books.server.count()) == (spent + COST, 0, 3)
