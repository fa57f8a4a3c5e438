"""What a call has cost is read from whatever the program has of it, and booked once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai import OpenAI
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

import budgetguard
from budgetguard import (
    BudgetManager,
    ConfigurationError,
    Guard,
    StoreError,
    UnknownModelError,
    budget_user,
)
from budgetguard.testing.clock import FakeClock
from tests.manager.answers import COST, COST_NANOS, MESSAGES, MODEL, completion
from tests.provider.server import OpenAIServer


@pytest.fixture
def user(manager: BudgetManager) -> str:
    manager.create_budget(10, "1234", "monthly")
    return "1234"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


@pytest.fixture
def client(server: OpenAIServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="test", max_retries=0) as made:
        yield made


# Answers of every kind


def test_a_dict_is_booked_under_its_model_and_the_record_returned(manager: BudgetManager, user: str) -> None:
    record = manager.update_cost(user, completion())["user"]
    assert record["current_cost"] == COST
    assert record["model_cost"] == {MODEL: COST}
    manager.update_cost(completion_obj=completion(model="gpt-4o"), user=user)
    assert manager.get_model_cost(user) == {MODEL: COST, "gpt-4o": 0.0035}
    assert manager.get_current_cost(user) == 0.00371


def test_openais_own_answers_are_read(manager: BudgetManager, user: str, client: OpenAI) -> None:
    answers: list[tuple[object, float, float]] = [
        (client.chat.completions.create(model=MODEL, messages=MESSAGES), 0.15, 0.6),
        (client.embeddings.create(model="text-embedding-3-small", input="Hello there."), 0.02, 0.0),
        (client.responses.create(model=MODEL, input="Hello there."), 0.15, 0.6),
        (client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Hello there."), 1.5, 2.0),
    ]
    assert [type(answer) for answer, _, _ in answers] == [
        ChatCompletion,
        CreateEmbeddingResponse,
        Response,
        Completion,
    ]
    for answer, usd_in, usd_out in answers:
        usage: Any = answer.usage  # type: ignore[attr-defined]  # each has one
        tokens_in = getattr(usage, "prompt_tokens", None) or usage.input_tokens
        tokens_out = usage.total_tokens - tokens_in
        before = manager.get_current_cost(user)
        after = manager.update_cost(user=user, completion_obj=answer)["user"]["current_cost"]
        assert after - before == pytest.approx((tokens_in * usd_in + tokens_out * usd_out) / 1e6, abs=1.1e-9)


def test_an_object_with_usage_is_read_as_litellms_response_is(manager: BudgetManager, user: str) -> None:
    answer = SimpleNamespace(
        model=MODEL, usage=SimpleNamespace(prompt_tokens=1_000, completion_tokens=100, total_tokens=1_100)
    )
    assert manager.update_cost(user, answer)["user"]["current_cost"] == COST


def test_cached_tokens_cost_what_cached_tokens_cost(manager: BudgetManager, user: str) -> None:
    answer = completion()
    answer["usage"]["prompt_tokens_details"] = {"cached_tokens": 800}
    # 200 at $0.15, 800 at $0.075 and 100 at $0.60 a million.
    assert manager.update_cost(user, answer)["user"]["current_cost"] == 0.00015


def test_the_service_tier_of_the_answer_decides_the_price(manager: BudgetManager, user: str) -> None:
    standard = manager.update_cost(user, completion(model="gpt-5-mini"))["user"]["current_cost"]
    both = manager.update_cost(user, completion(model="gpt-5-mini", service_tier="priority"))
    assert both["user"]["current_cost"] > 2 * standard


def test_a_given_model_prices_an_answer_that_names_none_or_one_unheard_of(
    manager: BudgetManager, user: str
) -> None:
    manager.update_cost(user, completion(model=None), model=MODEL)
    manager.update_cost(user, completion(model="my-deployment"), MODEL)
    assert manager.get_model_cost(user) == {MODEL: 2 * COST}


def test_an_answer_is_booked_in_full_above_the_limit(manager: BudgetManager) -> None:
    manager.create_budget(0, "1234")
    assert manager.update_cost("1234", completion())["user"]["current_cost"] == COST


# Text


def test_the_text_form_counts_the_tokens_of_both_texts(manager: BudgetManager, user: str) -> None:
    record = manager.update_cost(user=user, model=MODEL, input_text="Hello", output_text="Hello there")[
        "user"
    ]
    # A chat of one message is 7 tokens and its text; the answer is its text alone.
    assert record["model_cost"] == {MODEL: round((8 * 0.15 + 2 * 0.6) / 1e6, 9)}


def test_an_answer_without_text_costs_its_input(manager: BudgetManager, user: str) -> None:
    record = manager.update_cost(user, None, MODEL, "Hello", "")["user"]
    assert record["current_cost"] == round(8 * 0.15 / 1e6, 9)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"model": MODEL}, {"model": MODEL, "input_text": "Hi"}, {"input_text": "Hi", "output_text": "Ho"}],
)
def test_neither_an_answer_nor_both_texts_is_a_value_error(
    manager: BudgetManager, user: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(
        ValueError, match=r"needs the answer \(completion_obj=\), or model=, input_text="
    ) as caught:
        manager.update_cost(user, **arguments)
    assert isinstance(caught.value, ConfigurationError)


# What cannot be priced


@pytest.mark.parametrize(
    "answer", [{}, {"model": MODEL}, completion() | {"usage": None}, object(), 7, "Hello"]
)
def test_an_answer_that_tells_no_usage_is_refused_in_words(
    manager: BudgetManager, user: str, answer: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"no usage can be read.*nothing was booked.*not a stream"):
        manager.update_cost(user, answer)
    assert manager.get_current_cost(user) == 0.0


def test_an_unknown_model_is_never_booked_at_nothing(manager: BudgetManager, user: str, guard: Guard) -> None:
    with pytest.raises(UnknownModelError, match=r"'home-made', so nothing was booked.*register_price\('home"):
        manager.update_cost(user, completion(model="home-made"))
    with pytest.raises(UnknownModelError, match=r"'home-made', so the cost of the call cannot be projected"):
        manager.projected_cost("home-made", MESSAGES, user)
    assert manager.get_current_cost(user) == 0.0
    guard.register_price("home-made", input=1, output=2)
    assert manager.update_cost(user, completion(model="home-made"))["user"]["current_cost"] == 0.0012


def test_an_unknown_model_costs_nothing_by_the_users_word(
    manager: BudgetManager, user: str, guard: Guard
) -> None:
    guard.configure(unknown_model="allow")
    assert manager.update_cost(user, completion(model="home-made"))["user"]["current_cost"] == 0.0
    assert manager.projected_cost("home-made", MESSAGES, user) == 0.0


def test_an_answer_without_a_model_is_refused(manager: BudgetManager, user: str) -> None:
    with pytest.raises(ConfigurationError, match="names no model: pass model= too"):
        manager.update_cost(user, completion(model=None))


def test_a_store_that_fails_is_said_and_nothing_is_booked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    manager = BudgetManager("app", guard=Guard(store=f"disk://{tmp_path / 'file'}"))
    with pytest.raises(StoreError):
        manager.update_cost("1234", completion())


# Projections


def test_a_projection_is_the_current_cost_and_all_that_the_request_says(
    manager: BudgetManager, user: str
) -> None:
    plain = manager.projected_cost(model=MODEL, messages=MESSAGES, user=user)
    capped = manager.projected_cost(MODEL, MESSAGES, user, max_tokens=10)
    assert 0 < capped < plain
    assert manager.projected_cost(MODEL, MESSAGES, user, max_completion_tokens=10) == capped
    assert manager.projected_cost(MODEL, MESSAGES, user, max_tokens=10, n=3) == pytest.approx(
        capped + 20 * 0.6e-6
    )
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    assert manager.projected_cost(MODEL, MESSAGES, user, max_tokens=10, tools=[tool]) > capped
    manager.update_cost(user, completion())
    assert manager.projected_cost(MODEL, MESSAGES, user, max_tokens=10) == pytest.approx(COST + capped)


@pytest.mark.parametrize(
    "messages",
    [
        "Hey, how's it going?",
        [{"role": "user", "content": [{"type": "text", "text": "Hey"}]}],
        [{"role": "assistant", "content": None, "tool_calls": []}],
    ],
)
def test_a_projection_takes_every_kind_of_content(manager: BudgetManager, user: str, messages: Any) -> None:
    assert manager.projected_cost(MODEL, messages, user) > 1_024 * 0.6e-6


def test_a_projection_of_texts_to_embed_has_no_output(manager: BudgetManager, user: str) -> None:
    assert 0 < manager.projected_cost("text-embedding-3-small", ["Hello", "there"], user) < 2e-6


def test_a_projection_books_and_holds_nothing(manager: BudgetManager, user: str, guard: Guard) -> None:
    manager.projected_cost(MODEL, MESSAGES, user)
    assert (guard.balance(user).spent_nanos, guard.balance(user).held_nanos) == (0, 0)


# Who else pays, and who has paid already


def test_project_run_and_process_are_charged_like_any_call(
    manager: BudgetManager, user: str, guard: Guard
) -> None:
    guard.set_budget(100)
    with guard.budget(1) as run:
        manager.update_cost(user, completion())
        assert run.spent == guard.balance().spent == guard.balance(user).spent
    assert guard.balance().spent_nanos == COST_NANOS
    assert guard.current_cost() == COST


def test_an_update_is_announced_and_recorded_without_any_text(
    manager: BudgetManager, user: str, guard: Guard
) -> None:
    seen: list[budgetguard.Event] = []
    guard.on(seen.append)
    manager.update_cost(user=user, model=MODEL, input_text="a secret", output_text="another secret")
    manager.create_budget(COST, user)
    manager.update_cost(user, completion(id="chatcmpl-1"))
    assert [type(event).__name__ for event in seen] == ["Settled", "Settled", *["ThresholdCrossed"] * 3]
    posted = list(guard.calls())
    assert [call.outcome for call in posted] == ["posted", "posted"]
    assert {call.endpoint for call in posted} == {"update_cost"}
    assert posted[-1].request_id == "chatcmpl-1" or posted[0].request_id == "chatcmpl-1"
    assert "secret" not in repr(posted) + repr(seen)


def test_what_a_guarded_client_has_charged_is_not_booked_again(
    manager: BudgetManager, user: str, guard: Guard, server: OpenAIServer
) -> None:
    with guard.wrap(OpenAI(base_url=server.base_url, api_key="test")) as client, budget_user(user):
        chat = client.chat.completions.create(model=MODEL, messages=MESSAGES)
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
        vectors = client.embeddings.create(model="text-embedding-3-small", input="Hello")
        stream = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        last = list(stream)[-1]
    charged = manager.get_current_cost(user)
    answers: list[Any] = [chat, chat.model_dump(), json.loads(chat.to_json()), raw.parse(), vectors, last]
    for answer in answers * 2:
        assert manager.update_cost(user, answer)["user"]["current_cost"] == charged


def test_what_a_guarded_function_has_charged_is_not_booked_again(
    manager: BudgetManager, user: str, guard: Guard
) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL, **more: Any) -> Any:
        return completion(**more)

    with budget_user(user):
        without_id, with_id = ask(MESSAGES), ask(MESSAGES, id="chatcmpl-1")
    for answer in (without_id, with_id, dict(with_id)):
        assert manager.update_cost(user, answer)["user"]["current_cost"] == 2 * COST
    assert manager.update_cost(user, completion())["user"]["current_cost"] == pytest.approx(3 * COST)


def test_an_answer_charged_to_one_user_is_booked_to_another(
    manager: BudgetManager, user: str, guard: Guard
) -> None:
    @guard.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion(id="chatcmpl-1")

    manager.create_budget(10, "5678")
    with budget_user(user):
        answer = ask(MESSAGES)
    assert manager.update_cost("5678", answer)["user"]["current_cost"] == COST
    other = BudgetManager("other", guard=guard)
    other.create_budget(10, user)
    assert other.update_cost(user, answer)["user"]["current_cost"] == COST
    assert manager.get_current_cost(user) == COST


def test_an_answer_that_no_guard_charged_is_booked_each_time(manager: BudgetManager, user: str) -> None:
    answer = completion(id="chatcmpl-1")
    manager.update_cost(user, answer)
    assert manager.update_cost(user, answer)["user"]["current_cost"] == 2 * COST


def test_guards_on_one_store_know_what_each_other_charged(tmp_path: Path, clock: FakeClock) -> None:
    settings: dict[str, Any] = {"store": f"disk://{tmp_path}", "project": "app", "clock": clock}
    mine, theirs = Guard(**settings), Guard(**settings)
    theirs.manager().create_budget(10, "1234")

    @mine.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    with budget_user("1234"):
        answer = ask(MESSAGES)
    assert theirs.manager().update_cost("1234", answer)["user"]["current_cost"] == COST
    mine.close()
    theirs.close()


def test_guards_in_memory_know_nothing_of_each_other(clock: FakeClock) -> None:
    mine, theirs = (Guard(store="memory://", project="app", clock=clock) for _ in range(2))
    for guard in (mine, theirs):
        guard.manager().create_budget(10, "1234")

    @mine.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion(id="chatcmpl-1")

    with budget_user("1234"):
        answer = ask(MESSAGES)
    assert theirs.manager().update_cost("1234", answer)["user"]["current_cost"] == COST
