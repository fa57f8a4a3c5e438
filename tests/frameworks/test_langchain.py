"""What LangChain does beside plain calls: batches, caches, retries, cancelled calls, untold usage."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

pytest.importorskip("langchain_openai")

from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI, OpenAI

from budgetguard import BudgetExceededError, ConfigurationError, UnknownModelError
from budgetguard.core.money import to_nanos
from budgetguard.integrations import langchain
from budgetguard.integrations.langchain import BudgetCallback, BudgetMiddleware
from tests.provider.server import OpenAIServer, Reply

from .case import ASK, MODEL, POOR, USER, WORDS, Books, open_books

pytestmark = pytest.mark.filterwarnings("ignore")

ANSWER = Reply(WORDS, prompt_tokens=20, completion_tokens=120)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(ANSWER) as server:
        yield server


@pytest.fixture
def books(server: OpenAIServer) -> Iterator[Books]:
    with open_books(server) as books:
        yield books
        books.settle()


def chat(books: Books, **more: Any) -> Any:
    options = {"callbacks": [BudgetCallback(books.guard)], "max_retries": 0, **more}
    return ChatOpenAI(model=MODEL, base_url=books.place.base_url, api_key="test", **options)


def completions(books: Books, **more: Any) -> Any:
    options = {"callbacks": [BudgetCallback(books.guard)], "max_retries": 0, **more}
    return OpenAI(model="gpt-3.5-turbo-instruct", base_url=books.place.base_url, api_key="test", **options)


def test_a_stream_that_tells_no_usage_is_counted_by_its_text(books: Books) -> None:
    """LangChain asks for it only at OpenAI's own address, unless it is told to."""
    text = "".join(piece.text for piece in chat(books).stream(ASK))
    assert text == WORDS
    [settled] = books.of("Settled")
    assert settled.usage.output_tokens == 120
    assert settled.cost > 0


def test_each_of_a_batch_of_messages_is_a_call(books: Books, server: OpenAIServer) -> None:
    chat(books).generate([[HumanMessage(ASK)], [HumanMessage("Hello!")]])
    assert server.count() == len(books.booked()) == 2
    assert (books.spent, books.held) == (books.billed, 0)


async def test_each_of_an_async_batch_of_messages_is_a_call(books: Books, server: OpenAIServer) -> None:
    await chat(books).agenerate([[HumanMessage(ASK)], [HumanMessage("Hello!")]])
    assert server.count() == len(books.booked()) == 2
    assert (books.spent, books.held) == (books.billed, 0)


def test_a_batch_of_which_one_is_refused_sends_none_and_holds_nothing(
    books: Books, server: OpenAIServer
) -> None:
    model = chat(books, max_tokens=1_000)
    books.guard.set_budget(0.0009, user=USER)  # more than one costs at most, and less than two
    with pytest.raises(BudgetExceededError):
        model.generate([[HumanMessage(ASK)], [HumanMessage("Hello!")]])
    assert (server.count(), books.spent, books.held) == (0, 0, 0)
    assert len(books.of("Voided")) == 1


def test_a_batch_over_a_patched_client_is_paid_there(server: OpenAIServer) -> None:
    with open_books(server, patched="openai") as books:
        chat(books).generate([[HumanMessage(ASK)], [HumanMessage("Hello!")]])
        assert len(books.booked()) == 2
        assert (books.spent, books.held) == (books.billed, 0)


def test_prompts_that_are_sent_with_one_request_are_booked_once(server: OpenAIServer, books: Books) -> None:
    completions(books).generate([ASK, "Hello!"])
    [record] = server.requests
    assert record.billed
    told = sum(event.usage.output_tokens for event in books.of("Settled") if event.usage)
    assert told == record.billed["completion_tokens"]
    assert books.held == 0


def test_a_completion_s_stream_is_counted(books: Books) -> None:
    assert "".join(completions(books).stream(ASK))
    [settled] = books.of("Settled")
    assert settled.usage.output_tokens > 0


def test_what_langchain_s_cache_answers_costs_nothing(books: Books, server: OpenAIServer) -> None:
    model = chat(books, cache=InMemoryCache())
    first, again = model.invoke(ASK), model.invoke(ASK)
    assert first.text == again.text
    assert server.count() == len(books.booked()) == 1
    assert (books.spent, books.held) == (books.billed, 0)


def test_tools_of_an_answer_without_usage_are_counted(books: Books) -> None:
    callback = BudgetCallback(books.guard)
    calls = [{"name": "look_up", "args": {"words": "many " * 50}, "id": "1"}]
    told: dict[str, Any] = {"metadata": {"ls_model_name": MODEL}, "invocation_params": {}}
    from uuid import uuid4

    from langchain_core.outputs import ChatGeneration, LLMResult

    run = uuid4()
    callback.on_chat_model_start({}, [[HumanMessage(ASK)]], run_id=run, **told)
    message = AIMessage("", tool_calls=calls)
    callback.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run)
    [settled] = books.of("Settled")
    assert settled.usage.output_tokens > 50


@pytest.mark.parametrize("callbacks", [2, 1])
def test_two_callbacks_charge_once(books: Books, callbacks: int) -> None:
    model = chat(books, callbacks=[BudgetCallback(books.guard) for _ in range(callbacks)])
    model.invoke(ASK, config={"callbacks": [BudgetCallback(books.guard)]})
    assert (books.spent, books.held) == (books.billed, 0)


def test_an_own_callback_goes_before_that_of_the_process(books: Books, server: OpenAIServer) -> None:
    with open_books(server) as others:
        langchain.guard_langchain(others.guard)
        try:
            chat(books).invoke(ASK)
        finally:
            langchain.unguard_langchain()
        assert others.spent == 0
    assert books.spent == books.billed


def test_a_retry_of_langchain_s_tries_a_refusal_as_often_as_it_is_told_and_sends_nothing(
    server: OpenAIServer,
) -> None:
    with open_books(server, usd=POOR) as books:
        model = chat(books).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
        with pytest.raises(BudgetExceededError):
            model.invoke(ASK)
        assert (server.count(), len(books.of("Refused"))) == (0, 3)
        # As the page says it.
        fails = (ConnectionError,)
        model = chat(books).with_retry(stop_after_attempt=3, retry_if_exception_type=fails)
        with pytest.raises(BudgetExceededError):
            model.invoke(ASK)
        assert (server.count(), len(books.of("Refused"))) == (0, 4)


def test_each_try_of_an_agent_s_retry_is_a_call(server: OpenAIServer) -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelRetryMiddleware

    with OpenAIServer([Reply(status=503), ANSWER]) as flaky, open_books(flaky) as books:
        retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0, jitter=False)
        agent = create_agent(chat(books, callbacks=None), middleware=[BudgetMiddleware(books.guard), retry])
        agent.invoke({"messages": [{"role": "user", "content": ASK}]})
        assert len(books.of("Held")) == flaky.count() == 2
        assert (books.spent, books.held) == (books.billed, 0)


async def test_a_call_that_is_cancelled_is_booked_as_an_unknown_outcome_and_is_around_nothing() -> None:
    with OpenAIServer([Reply(hang=True), ANSWER]) as server, open_books(server) as books:
        model = chat(books)
        cancelled = asyncio.create_task(model.ainvoke(ASK))
        assert await asyncio.to_thread(server.wait_count, 1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        del cancelled
        await asyncio.sleep(0)  # the loop lets go of it
        books.settle()
        [settled] = books.of("Settled")
        assert settled.outcome == "unknown"
        assert settled.cost == books.of("Projected")[0].cost
        await model.ainvoke(ASK)
        assert len(books.booked()) == 2
        assert books.held == 0


def test_between_the_pieces_of_a_stream_other_calls_pay_for_themselves(books: Books) -> None:
    model = chat(books, stream_usage=True)
    for number, _ in enumerate(model.stream(ASK)):
        if number == 3:
            model.invoke(ASK)
    assert len(books.booked()) == 2
    assert (books.spent, books.held) == (books.billed, 0)


def test_events_of_the_third_version_are_booked_once(server: OpenAIServer) -> None:
    for patched in ("", "openai"):
        with open_books(server, patched=patched) as books:
            model = chat(books, stream_usage=True)
            if not hasattr(model, "_iter_v2_events"):
                pytest.skip("this LangChain has none")
            list(model.stream_events(ASK, version="v3"))
            books.settle()
            assert len(books.booked()) == 1, patched
            assert books.held == 0


def test_more_is_held_for_a_long_stream_and_stopped_where_the_settings_say_so() -> None:
    long = Reply("word " * 3_000)
    with OpenAIServer(long) as server, open_books(server, usd=0.0007, on_stream_exceeded="stop") as books:
        with pytest.raises(BudgetExceededError), closing(chat(books).stream(ASK)) as stream:
            for _ in stream:
                pass
        [settled] = books.of("Settled")
        assert 1_024 < settled.usage.output_tokens < 3_000
        assert books.held == 0
    with OpenAIServer(long) as server, open_books(server) as books:
        assert len(list(chat(books).stream(ASK))) > 3_000
        [settled] = books.of("Settled")
        assert settled.usage.output_tokens >= 3_000


def test_a_model_without_a_price_is_refused_by_its_name(books: Books) -> None:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    with pytest.raises(UnknownModelError, match="fake"):
        FakeListChatModel(responses=["a"], callbacks=[BudgetCallback(books.guard)]).invoke(ASK)


def test_who_pays_and_the_tags_can_be_said(books: Books) -> None:
    books.guard.set_budget(1, user="other")
    chat(books, callbacks=[BudgetCallback(books.guard, user="other", tags="agent")]).invoke(ASK)
    [booked] = books.guard.calls()
    assert (booked.user, booked.tags) == ("other", ("agent",))
    assert books.guard.balance("other").spent_nanos == books.billed


@pytest.mark.parametrize(
    ("options", "message"),
    [({"guard": "no guard"}, "guard must be"), ({"user": ""}, "user"), ({"tags": ["a b\n"]}, "tag")],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BudgetCallback(**options)
    assert gc.isenabled()


def test_a_hold_is_what_the_request_may_cost(books: Books) -> None:
    def look_up(words: str) -> str:
        """Look words up."""
        return words

    plain = chat(books, max_tokens=100)
    plain.invoke(ASK)
    plain.bind_tools([look_up]).invoke(ASK)
    less, more = (to_nanos(event.cost) for event in books.of("Projected"))
    assert less < more
    assert all(event.output_cap == 100 for event in books.of("Projected"))
