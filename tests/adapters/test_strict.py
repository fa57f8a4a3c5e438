"""Strict mode: what is sent carries a cap that the budget affords, so that nothing can be overspent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetExceededError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.decorator import budgeted
from budgetguard.providers.hidden_input import input_reserve
from budgetguard.tokens.models import output_limit
from tests.adapters.books import MESSAGES, MODEL, STORES, USER, Books, open_books
from tests.projecting import project_chat
from tests.provider.server import OpenAIServer, Reply

ENDLESS = Reply(completion_tokens=1_000_000, chunks=3)
CHAT = {"model": MODEL, "messages": MESSAGES}
FLOOR = 16


def cost_with_cap(cap: int, body: Any = CHAT) -> int:
    capped = {**body, "max_completion_tokens": cap}
    return project_chat(capped, body["model"], PriceBook().rates(body["model"])).cost


@pytest.fixture(params=STORES)
def strict(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Books]:
    """Books in strict mode, beside a server whose answers are as long as their cap lets them be."""
    with (
        OpenAIServer(ENDLESS) as server,
        open_books(server, request.param, tmp_path, strict=True) as books,
    ):
        yield books


def sent_caps(books: Books, name: str = "max_completion_tokens") -> list[int | None]:
    return [record.body.get(name) for record in books.server.requests]


def test_the_cap_is_all_that_the_budget_affords_and_no_more(strict: Books) -> None:
    strict.limit(cost_with_cap(100))
    with strict.client() as client:
        client.chat.completions.create(**CHAT)
    assert sent_caps(strict) == [100]
    strict.check()
    assert 0 < strict.spent <= cost_with_cap(100)


def test_where_there_is_money_enough_the_cap_is_what_the_model_can_write(strict: Books) -> None:
    with strict.client() as client:
        client.chat.completions.create(**CHAT)
    assert sent_caps(strict) == [output_limit(MODEL, 0)] == [16_384]
    strict.check()


def test_below_the_floor_a_call_is_refused_unsent_and_the_refusal_names_the_floor_s_cost(
    strict: Books,
) -> None:
    strict.limit(cost_with_cap(FLOOR) - 1)
    with strict.client() as client, pytest.raises(BudgetExceededError) as refused:
        client.chat.completions.create(**CHAT)
    assert refused.value.projected_cost == strict.of("Refused")[-1].cost
    assert strict.server.requests == []
    assert (strict.spent, strict.held, strict.names().count("Refused")) == (0, 0, 1)
    strict.limit(cost_with_cap(FLOOR))
    with strict.client() as client:
        client.chat.completions.create(**CHAT)
    assert sent_caps(strict) == [FLOOR]


def test_the_account_that_has_least_decides(strict: Books) -> None:
    strict.engine.process.limit = cost_with_cap(40)
    strict.limit(cost_with_cap(70))
    with strict.client() as client:
        client.chat.completions.create(**CHAT)
    assert sent_caps(strict) == [40]


@pytest.mark.parametrize("own", [{"max_completion_tokens": 30}, {"max_tokens": 30}])
def test_a_cap_of_the_caller_s_own_is_kept_and_refused_if_it_does_not_fit(
    strict: Books, own: dict[str, int]
) -> None:
    strict.limit(cost_with_cap(30))
    with strict.client() as client:
        client.chat.completions.create(**CHAT, **own)
        assert {**strict.server.requests[0].body, **own} == strict.server.requests[0].body
        strict.limit(strict.spent + cost_with_cap(29))
        with pytest.raises(BudgetExceededError):
            client.chat.completions.create(**CHAT, **own)
    assert len(strict.server.requests) == 1


def test_each_of_several_choices_gets_its_part(strict: Books) -> None:
    body: Any = {**CHAT, "n": 4}
    strict.limit(cost_with_cap(50, body))
    with strict.client() as client:
        client.chat.completions.create(**body)
    assert sent_caps(strict) == [50]
    strict.check()


def test_a_stream_is_capped_too_and_the_caller_s_body_is_left_alone(strict: Books) -> None:
    body: Any = {**CHAT, "stream": True}
    before = dict(body)
    strict.limit(cost_with_cap(60))
    with strict.client() as client:
        list(client.chat.completions.create(**body))
        assert sent_caps(strict) == [60]
        strict.limit(strict.spent + cost_with_cap(50))
        client.post("/chat/completions", body=CHAT, cast_to=object)
    assert sent_caps(strict) == [60, 50]
    assert (body, CHAT) == (before, {"model": MODEL, "messages": MESSAGES})
    strict.check()


def test_responses_are_capped_by_their_own_parameter(strict: Books) -> None:
    strict.limit(30_000)
    with strict.client() as client:
        client.responses.create(model=MODEL, input="Say hello.")
    (cap,) = sent_caps(strict, "max_output_tokens")
    assert cap is not None
    assert FLOOR < cap < 100
    assert 0 < strict.spent <= 30_000
    assert strict.held == 0


async def test_async_clients_are_capped_as_well(strict: Books) -> None:
    strict.limit(cost_with_cap(80))
    async with strict.aclient() as client:
        await client.chat.completions.create(**CHAT)
    assert sent_caps(strict) == [80]
    strict.check()


def test_calls_side_by_side_share_what_there_is_and_never_more(strict: Books) -> None:
    limit = cost_with_cap(2_000)
    strict.limit(limit)

    def call(_: int) -> bool:
        with strict.client(max_retries=0) as client, budget_user(USER):
            try:
                client.chat.completions.create(**CHAT)
            except BudgetExceededError:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(call, range(24)))
    assert any(made)
    assert strict.spent == strict.billed <= limit
    assert strict.held == 0


def test_the_projection_that_holds_says_the_cap(strict: Books) -> None:
    strict.limit(cost_with_cap(100))
    with strict.client() as client:
        client.chat.completions.create(**CHAT)
    first, last = strict.of("Projected")
    assert (first.output_cap, last.output_cap, first.hold_id == last.hold_id) == (16_384, 100, True)
    assert last.cost == strict.of("Held")[0].amount


def test_settings_narrow_the_cap(tmp_path: Path) -> None:
    with (
        OpenAIServer(ENDLESS) as server,
        open_books(server, "memory", tmp_path, strict=True, strict_floor=50, strict_ceiling=200) as books,
        books.client() as client,
    ):
        client.chat.completions.create(**CHAT)
        assert sent_caps(books) == [200]
        books.limit(books.spent + cost_with_cap(49))
        with pytest.raises(BudgetExceededError):
            client.chat.completions.create(**CHAT)


def test_answers_that_a_written_cap_cut_teach_nothing(tmp_path: Path) -> None:
    with (
        OpenAIServer(ENDLESS) as server,
        open_books(server, "memory", tmp_path, strict=True, strict_ceiling=20) as books,
        books.client() as client,
    ):
        client.chat.completions.create(**CHAT)
        assert books.engine.store.observations(MODEL) == {}


def test_a_guarded_function_is_given_the_cap_if_it_has_the_parameter(tmp_path: Path) -> None:
    seen: list[Any] = []
    answer = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}

    with (
        OpenAIServer() as server,
        open_books(server, "memory", tmp_path, strict=True) as books,
    ):

        @budgeted(lambda: books.engine, None, model=MODEL)
        def capped(messages: Any, max_tokens: int | None = None) -> Any:
            seen.append(max_tokens)
            return answer

        @budgeted(lambda: books.engine, None, model=MODEL)
        def plain(messages: Any) -> Any:
            return answer

        books.limit(cost_with_cap(90))
        capped(MESSAGES)
        with pytest.raises(BudgetExceededError):
            plain(MESSAGES)  # nothing can cap it, so it is projected as ever
        capped(MESSAGES, 7)
    assert seen[0] == 90
    assert seen[1] == 7


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=300)
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Look something up — ☂.",
            "parameters": {"type": "object", "properties": {"what": {"type": "string", "enum": ["a", "b"]}}},
        },
    }
]


@pytest.fixture(scope="module")
def endless() -> Iterator[OpenAIServer]:
    with OpenAIServer(ENDLESS) as server:
        yield server


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(0, 60_000),
    calls=st.lists(
        st.tuples(TEXTS, st.integers(1, 3), st.booleans(), st.sampled_from(("chat", "stream", "responses"))),
        min_size=1,
        max_size=5,
    ),
)
def test_nothing_is_overspent_whatever_the_budget_the_prompts_and_the_answers(
    endless: OpenAIServer, tmp_path: Path, limit: int, calls: list[tuple[str, int, bool, str]]
) -> None:
    with open_books(endless, "memory", tmp_path, strict=True) as books, books.client() as client:
        books.limit(limit)
        for prompt, n, tools, kind in calls:
            messages: Any = [{"role": "user", "content": prompt}]
            more: Any = {"tools": TOOLS} if tools and kind != "responses" else {}
            try:
                if kind == "responses":
                    client.responses.create(model=MODEL, input=prompt or "-")  # it refuses empty ones
                elif kind == "chat":
                    client.chat.completions.create(model=MODEL, messages=messages, n=n, **more)
                else:
                    list(client.chat.completions.create(model=MODEL, messages=messages, stream=True, **more))
            except BudgetExceededError:
                pass
            assert books.spent <= limit
            assert books.held == 0


def test_without_strict_mode_an_answer_may_overspend(tmp_path: Path) -> None:
    with (
        OpenAIServer(ENDLESS) as server,
        open_books(server, "memory", tmp_path) as books,
        books.client() as client,
    ):
        limit = cost_with_cap(2_000)
        books.limit(limit)
        client.chat.completions.create(**CHAT)
        assert books.spent > limit


def test_input_is_bounded_by_bytes_only_where_its_tokens_cannot_be_counted() -> None:
    plain = {"model": MODEL, "messages": MESSAGES}
    assert input_reserve(plain, MODEL) == 0
    assert input_reserve({**plain, "tools": TOOLS}, MODEL) > len(str(TOOLS[0]["function"]["description"]))
    text = "☂" * 100
    assert input_reserve({"messages": [{"role": "user", "content": text}]}, "llama-3") > 300
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    assert input_reserve({"messages": [{"role": "user", "content": [picture]}]}, "llama-3") < 200


@pytest.mark.parametrize(
    ("model", "shown", "limit"),
    [
        ("gpt-4o-mini", 0, 16_384),
        ("gpt-4.1-nano", 0, 32_768),
        ("ft:gpt-4o-mini:me", 0, 16_384),
        ("openai/gpt-5-mini", 0, 128_000),
        ("gpt-5-chat-latest", 0, 16_384),
        ("gpt-4", 0, 4_096),
        ("gpt-4-0613", 8_000, 192),
        ("gpt-5.1-codex-mini", 390_000, 10_000),
        ("gpt-5.2-2025-12-11", 0, 128_000),
        ("gpt-5.3-chat-latest", 0, 16_384),
        ("gpt-5.4-nano", 390_000, 10_000),
        ("gpt-5.4-pro", 500_000, 128_000),
        ("gpt-5.5-2026-04-23", 500_000, 128_000),
        ("gpt-5.6-sol", 990_000, 10_000),
        ("codex-mini-latest", 0, 100_000),
        ("gpt-4o-2024-05-13", 0, 4_096),
        ("gpt-4o-search-preview", 0, 16_384),
        ("gpt-4o-mini-realtime-preview", 0, 4_096),
        ("gpt-audio-mini", 0, 16_384),
        ("o1-preview", 0, 32_768),
        ("gpt-6", 0, 4_096),
        ("gpt-4", 9_000, 1),
        ("o3", 0, 100_000),
        ("llama-3", 0, 4_096),
    ],
)
def test_a_ceiling_is_what_the_model_can_write_beside_the_input(model: str, shown: int, limit: int) -> None:
    assert output_limit(model, shown) == limit
