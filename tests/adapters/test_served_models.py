"""What an answer cost: the model that served it, all parts of its usage, fees, and the provider's bill."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Any

import openai
import pytest

from budgetguard import BudgetExceededError, Guard, UnknownModelError
from budgetguard.core.usage import Reported, Usage
from budgetguard.events import Projected
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.answers import reported
from tests.adapters.books import HTTP, USER

OPENAI = "https://api.openai.com/v1"
OPENROUTER = "https://openrouter.ai/api/v1"
PERPLEXITY = "https://api.perplexity.ai"
XAI = "https://api.x.ai/v1"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai/"
DEEPSEEK = "https://api.deepseek.com"
LOCAL = "http://gateway.test/v1"
THOUSAND = {"prompt_tokens": 1_000, "completion_tokens": 1_000, "total_tokens": 2_000}
MESSAGES: Any = [{"role": "user", "content": "hello"}]


def answer(model: str, usage: dict[str, Any] | None = None) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": THOUSAND if usage is None else usage,
    }


def chunks(model: str, usage: dict[str, Any]) -> list[dict[str, Any]]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model}
    text = {"index": 0, "delta": {"content": "hi"}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [{**head, "choices": [text]}, {**head, "choices": [end]}, {**head, "choices": [], "usage": usage}]


def response(model: str, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": model,
        "output": [],
        "usage": usage,
    }


class Place:
    """A guarded client at any address, which answers what it is told to."""

    def __init__(self, **settings: Any) -> None:
        self.guard = Guard(store="memory://", **settings)
        self.guard.set_budget(1_000, user=USER)
        self.projections: list[Projected] = []
        self.guard.on(self.projections.append, Projected)
        self.sent = 0

    def client(self, url: str, reply: Callable[[], Any], **more: Any) -> Any:
        def serve(_request: Any) -> Any:
            self.sent += 1
            said = reply()
            if not isinstance(said, list):
                return HTTP.Response(200, json=said)
            lines = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in said)
            return HTTP.Response(
                200, headers={"content-type": "text/event-stream"}, content=iter([lines, b"data: [DONE]\n\n"])
            )

        http = HTTP.Client(transport=HTTP.MockTransport(serve))
        client = openai.OpenAI(base_url=url, api_key="k", http_client=http, max_retries=0)
        return self.guard.wrap(client, **more)

    def chat(self, url: str, model: str, reply: Any, **request: Any) -> Decimal:
        """Ask, and return what was booked for it, in USD."""
        before = self.guard.balance(USER).spent
        client = self.client(url, lambda: reply)
        with self.guard.budget_user(USER), client:
            got = client.chat.completions.create(
                model=model, messages=MESSAGES, stream=isinstance(reply, list), **request
            )
            for _ in got if isinstance(reply, list) else ():
                pass
        return self.guard.balance(USER).spent - before

    @property
    def projected(self) -> Decimal:
        return self.projections[-1].cost


@pytest.fixture
def place() -> Iterator[Place]:
    here = Place()
    yield here
    here.guard.close()


# --- another model answers ---


@pytest.mark.parametrize(
    ("url", "asked", "served", "usd"),
    [
        (OPENAI, "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "0.00075"),
        (OPENAI, "gpt-4o-mini", "gpt-4-0613", "0.09"),
        (OPENAI, "gpt-4", "gpt-4o-mini", "0.00075"),
        (OPENAI, "gpt-4o", "gpt-4o-2024-05-13", "0.02"),
        (XAI, "grok-3-mini", "grok-4.3", "0.00375"),
        (GEMINI, "gemini-2.5-flash", "models/gemini-2.5-pro", "0.01125"),
        (LOCAL, "gpt-4o-mini", "openai/gpt-4o-mini", "0.00075"),
        (LOCAL, "gpt-4o-mini", "claude-sonnet-4-20250514", "0.018"),
        (LOCAL, "gpt-4o-mini", "Qwen/Qwen3-something-of-ours", "0.00075"),
        (OPENAI, "gpt-4o-mini", "gpt-99-nobody-knows", "0.00075"),
        (OPENAI, "ft:gpt-4o-mini-2024-07-18:acme::id", "gpt-4o-mini-2024-07-18", "0.0015"),
        (OPENROUTER, "openai/gpt-4o-mini", "anthropic/claude-sonnet-4", "0.018"),
    ],
)
def test_an_answer_costs_what_the_model_costs_that_it_names(
    place: Place, url: str, asked: str, served: str, usd: str
) -> None:
    assert place.chat(url, asked, answer(served)) == Decimal(usd)
    assert place.chat(url, asked, chunks(served, THOUSAND)) == Decimal(usd)


def test_a_stream_that_is_left_costs_what_the_model_costs_that_it_names(place: Place) -> None:
    def left(served: str) -> Decimal:
        before = place.guard.balance(USER).spent
        client = place.client(OPENAI, lambda: chunks(served, THOUSAND))
        with (
            place.guard.budget_user(USER),
            client,
            client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True) as stream,
        ):
            next(stream)
        return place.guard.balance(USER).spent - before

    assert left("gpt-4-0613") > 50 * left("gpt-4o-mini-2024-07-18") > 0


def test_a_router_s_deployment_costs_what_its_answer_names(place: Place) -> None:
    azure = "https://mine.openai.azure.com/openai/v1/"
    place.guard.configure(model_map={"model-router": "gpt-4.1-nano", "gpt-5": "gpt-4.1-nano"})
    assert place.chat(azure, "model-router", answer("gpt-5-2025-08-07")) == Decimal("0.01125")
    assert place.chat(azure, "model-router", answer("gpt-4.1-nano-2025-04-14")) == Decimal("0.0005")
    # The deployment's own name, given back, names no other model.
    assert place.chat(azure, "gpt-5", answer("gpt-5")) == Decimal("0.0005")


def test_the_user_s_price_stands_whatever_answers(place: Place) -> None:
    place.guard.register_price("mine", input=1, output=1)
    assert place.chat(LOCAL, "mine", answer("gpt-4o")) == Decimal("0.002")
    place.guard.register_price("gpt-4o-mini", input=2, output=2)
    assert place.chat(OPENAI, "gpt-4o-mini", answer("gpt-4o-mini-2024-07-18")) == Decimal("0.004")
    # Of what answers instead of a listed model, too, the user's price comes first.
    place.guard.register_price("gpt-4o", input=3, output=3)
    assert place.chat(OPENAI, "gpt-4.1", answer("gpt-4o-2024-08-06")) == Decimal("0.006")


def test_a_free_address_stays_free(place: Place) -> None:
    place.guard.configure(free_base_urls=[LOCAL])
    assert place.chat(LOCAL, "anything", answer("gpt-4o", {**THOUSAND, "cost": 3})) == 0


def test_units_that_the_user_added_stay_with_the_same_model_under_a_date(place: Place) -> None:
    place.guard.register_price("gpt-4o-mini", requests_kcount=1_000)
    assert place.chat(OPENAI, "gpt-4o-mini", answer("gpt-4o-mini-2024-07-18")) == Decimal("1.00075")


def test_a_decorated_function_and_a_response_are_priced_by_their_answers(place: Place) -> None:
    @place.guard.budgeted
    def ask(messages: Any, model: str = "gpt-4o-mini") -> Any:
        return answer("gpt-4o")

    used = {"input_tokens": 1_000, "output_tokens": 1_000, "total_tokens": 2_000}
    client = place.client(OPENAI, lambda: response("gpt-4o-2024-08-06", used))
    with place.guard.budget_user(USER), client:
        ask(MESSAGES)
        assert place.guard.balance(USER).spent == Decimal("0.0125")
        client.responses.create(model="gpt-4o-mini", input="hello")
    assert place.guard.balance(USER).spent == Decimal("0.025")


def test_a_price_registered_meanwhile_does_not_count_for_a_call_under_way(place: Place) -> None:
    def reply() -> Any:
        place.guard.register_price("gpt-4o", input=100, output=100)
        return answer("gpt-4o")

    with place.guard.budget_user(USER), place.client(OPENAI, reply) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert place.guard.balance(USER).spent == Decimal("0.0125")


# --- the dearest that may answer ---

MODELS = ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4"]


def test_a_call_is_held_at_the_dearest_model_that_may_answer(place: Place) -> None:
    dear = {**THOUSAND, "prompt_tokens": 30, "total_tokens": 1_030, "cost": 0.01509}
    more = {"max_tokens": 1_000, "extra_body": {"models": MODELS}}
    assert place.chat(OPENROUTER, MODELS[0], answer(MODELS[1], dear), **more) == Decimal("0.01509")
    assert place.projected >= Decimal("0.01509")
    place.chat(OPENROUTER, MODELS[0], answer(MODELS[0]), max_tokens=1_000)
    assert place.projected < Decimal("0.001")


def test_a_free_model_that_may_be_replaced_needs_the_money(place: Place) -> None:
    place.guard.set_budget(0, user="poor")
    free = "meta-llama/llama-3.3-70b-instruct:free"
    with place.guard.budget_user("poor"), place.client(OPENROUTER, lambda: answer(free)) as client:
        client.chat.completions.create(model=free, messages=MESSAGES)
        with pytest.raises(BudgetExceededError):
            client.chat.completions.create(
                model=free, messages=MESSAGES, extra_body={"models": ["openai/gpt-4o"]}
            )
    assert place.sent == 1


def test_a_model_without_a_price_among_them_refuses(place: Place) -> None:
    with pytest.raises(UnknownModelError, match="nobody/knows"):
        place.chat(OPENROUTER, MODELS[0], answer(MODELS[0]), extra_body={"models": ["nobody/knows"]})
    assert place.sent == 0


def test_a_cap_is_written_that_the_dearest_model_keeps(place: Place) -> None:
    place.guard.configure(strict=True)
    place.guard.set_budget(Decimal("0.01"), user="poor")
    sent: list[dict[str, Any]] = []

    def serve(request: Any) -> Any:
        sent.append(json.loads(request.content))
        return HTTP.Response(200, json=answer(MODELS[1]))

    http = HTTP.Client(transport=HTTP.MockTransport(serve))
    client = place.guard.wrap(openai.OpenAI(base_url=OPENROUTER, api_key="k", http_client=http))
    with place.guard.budget_user("poor"), client:
        client.chat.completions.create(model=MODELS[0], messages=MESSAGES, extra_body={"models": MODELS})
    assert 0 < sent[0]["max_tokens"] * 15 <= 10_000


def test_fallbacks_of_a_function_are_held_for(place: Place) -> None:
    @place.guard.budgeted
    def ask(messages: Any, model: str = "gpt-4o-mini", fallbacks: Any = (), max_tokens: int = 100) -> Any:
        return answer("gpt-4", {"prompt_tokens": 10, "completion_tokens": 100, "total_tokens": 110})

    with place.guard.budget_user(USER):
        ask(MESSAGES, fallbacks=["gpt-4", "no-such-model"])
    assert place.projected >= place.guard.balance(USER).spent == Decimal("0.0063")


def test_what_a_function_writes_into_the_request_is_held_for(place: Place) -> None:
    @place.guard.budgeted(provider="openrouter")
    def ask(messages: Any, model: str = MODELS[0], extra_body: Any = None, tools: Any = None) -> Any:
        return answer(model, {**THOUSAND, "cost": 0.02})

    with place.guard.budget_user(USER):
        ask(MESSAGES)
        plain = place.projected
        ask(MESSAGES, extra_body={"models": MODELS})
        assert place.projected > 10 * plain
        for more in (
            {"extra_body": {"plugins": [{"id": "web"}]}},
            {"tools": [{"type": "openrouter:web_search"}]},
        ):
            ask(MESSAGES, **more)
            assert place.projected > plain + Decimal("0.02")


# --- what the provider says it billed ---


@pytest.mark.parametrize(
    ("url", "model", "usage", "usd"),
    [
        (OPENROUTER, "openai/gpt-4o-mini", {"cost": 0.02075}, "0.02075"),
        (OPENROUTER, "openai/gpt-4o-mini", {"cost": 0.0000000001}, "0.000000001"),
        (OPENROUTER, "openai/gpt-4o-mini", {"cost": 0}, "0.00075"),
        (OPENROUTER, "openai/gpt-4o-mini", {"cost": -1}, "0.00075"),
        (OPENROUTER, "openai/gpt-4o-mini", {"cost": "much"}, "0.00075"),
        (OPENROUTER, "openai/gpt-4o-mini", {"cost": True}, "0.00075"),
        (OPENROUTER, "openai/gpt-4o-mini", {"cost": 1e300}, "0.00075"),
        (
            OPENROUTER,
            "openai/gpt-4o-mini",
            {"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}},
            "0.0021",
        ),
        (
            OPENROUTER,
            "openai/gpt-4o-mini",
            {"cost": 0.002, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.002}},
            "0.002",
        ),
        (OPENROUTER, "meta-llama/llama-3.3-70b-instruct:free", {"cost": 0}, "0"),
        (PERPLEXITY, "sonar", {"cost": {"total_cost": 0.00507}}, "0.00507"),
        (XAI, "grok-4.3", {"cost_in_usd_ticks": 9_243_501}, "0.000924351"),
        # Anybody may write such a field.
        (LOCAL, "gpt-4o-mini", {"cost": 5}, "0.00075"),
        (OPENAI, "gpt-4o-mini", {"cost_in_usd_ticks": 1}, "0.00075"),
    ],
)
def test_what_a_provider_says_it_billed_is_booked(
    place: Place, url: str, model: str, usage: dict[str, Any], usd: str
) -> None:
    said = {**THOUSAND, **usage}
    assert place.chat(url, model, answer(model, said)) == Decimal(usd)
    assert place.chat(url, model, chunks(model, said)) == Decimal(usd)


def test_a_price_of_the_user_s_gives_way_to_the_bill_but_free_is_free(place: Place) -> None:
    said = answer("openai/gpt-new", {**THOUSAND, "cost": 0.5})
    place.guard.register_price("openai/gpt-new", input=1, output=1)
    assert place.chat(OPENROUTER, "openai/gpt-new", said) == Decimal("0.5")
    place.guard.register_price("openai/gpt-new", input=0, output=0)
    assert place.chat(OPENROUTER, "openai/gpt-new", said) == 0


def test_a_model_that_may_be_unknown_costs_what_its_answer_tells(place: Place) -> None:
    place.guard.configure(unknown_model="allow")
    auto = "openrouter/auto"
    assert place.chat(OPENROUTER, auto, answer("nobody/knows", {**THOUSAND, "cost": 0.3})) == Decimal("0.3")
    assert place.chat(OPENROUTER, auto, answer("nobody/knows")) == 0
    assert place.chat(LOCAL, "of-mine", answer("of-mine", {**THOUSAND, "cost": 3})) == 0


def test_a_function_that_says_whom_it_calls_is_billed_likewise(place: Place) -> None:
    @place.guard.budgeted(provider="openrouter")
    def ask(messages: Any, model: str = "openai/gpt-4o-mini") -> Any:
        return answer(model, {**THOUSAND, "cost": 0.25})

    with place.guard.budget_user(USER):
        ask(MESSAGES)
    assert place.guard.balance(USER).spent == Decimal("0.25")


# --- parts that the totals leave out ---


def details(read: dict[str, int] | None = None, written: dict[str, int] | None = None) -> dict[str, Any]:
    return {"prompt_tokens_details": read or {}, "completion_tokens_details": written or {}}


def counts(prompt: int, completion: int, total: int | None, **more: Any) -> dict[str, Any]:
    sums = {} if total is None else {"total_tokens": total}
    return {"prompt_tokens": prompt, "completion_tokens": completion, **sums, **more}


@pytest.mark.parametrize(
    ("usage", "read", "written", "cached"),
    [
        pytest.param(counts(12, 5, 17), 12, 5, 0, id="nothing outside"),
        pytest.param(
            counts(12, 1015, 2962, **details(written={"reasoning_tokens": 1935})), 12, 2950, 0, id="thought"
        ),
        pytest.param(
            counts(12, 2000, 2512, **details(written={"reasoning_tokens": 500})),
            12,
            2500,
            0,
            id="less thought",
        ),
        pytest.param(counts(20, 198, 623), 20, 603, 0, id="only the sum shows it"),
        pytest.param(
            counts(21, 0, 81, **details(written={"reasoning_tokens": 60})), 21, 60, 0, id="all of it thought"
        ),
        pytest.param(
            counts(12, 10, None, **details(written={"reasoning_tokens": 90})), 12, 100, 0, id="no sum"
        ),
        # Another way of counting the same tokens: OpenRouter's own count beside its provider's.
        pytest.param(
            counts(43, 10, 53, **details(written={"reasoning_tokens": 11})), 43, 10, 0, id="the sum denies it"
        ),
        pytest.param(
            counts(900, 10, 1910, **details({"cached_tokens": 1000})), 1900, 10, 1000, id="cached beside"
        ),
        pytest.param(
            counts(900, 10, 1410, **details({"cached_tokens": 500})), 1400, 10, 500, id="less cached beside"
        ),
        pytest.param(
            counts(900, 10, 910, **details({"cached_tokens": 1000})),
            1900,
            10,
            1000,
            id="cached, no sum of it",
        ),
        pytest.param(
            counts(900, 10, 1420, **details({"cached_tokens": 500}, {"reasoning_tokens": 10})),
            900,
            520,
            500,
            id="more than is cached",
        ),
        pytest.param(
            counts(11, 15, 401, **details({"audio_tokens": 375, "cached_tokens": 9})), 386, 15, 9, id="heard"
        ),
        # A last chunk that leaves out what an earlier one has said.
        pytest.param(counts(0, 50, 60), 10, 50, 0, id="no prompt"),
        pytest.param(
            counts(100, 10, 110, prompt_cache_hit_tokens=90, prompt_cache_miss_tokens=10),
            100,
            10,
            90,
            id="DeepSeek",
        ),
        pytest.param(counts(100, 10, 110, cached_tokens=90), 100, 10, 90, id="Moonshot, Together"),
        pytest.param(counts(100, 10, 110, num_cached_tokens=90), 100, 10, 90, id="Mistral"),
        pytest.param(
            counts(100, 10, 110, cache_read_input_tokens=90, **details({"cached_tokens": 90})),
            100,
            10,
            90,
            id="a proxy of Anthropic's",
        ),
    ],
)
def test_parts_are_counted_once_wherever_they_stand(
    usage: dict[str, Any], read: int, written: int, cached: int
) -> None:
    found = reported({"usage": usage}).usage
    assert found is not None
    assert (found.input_tokens, found.output_tokens) == (read, written)
    assert found.units.get("cache_read_tokens", 0) == cached


def test_groq_s_streams_say_it_elsewhere() -> None:
    assert reported({"x_groq": {"id": "r", "usage": counts(7, 3, 10)}}).usage == Usage.of(
        input_tokens=7, output_tokens=3
    )


@pytest.mark.parametrize(("hour", "usd"), [(12, "0.009011"), (20, "0.0045055")])
def test_a_cache_that_was_hit_is_cheaper(
    place: Place, monkeypatch: pytest.MonkeyPatch, hour: int, usd: str
) -> None:
    # DeepSeek asks half from 16:30 to 0:30 UTC.
    class Fixed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Fixed:
            return cls(2026, 11, 27, hour, tzinfo=tz)

    monkeypatch.setattr("budgetguard.pricing.book.datetime", Fixed)
    usage = counts(100_000, 10, 100_010, prompt_cache_hit_tokens=90_000, prompt_cache_miss_tokens=10_000)
    assert place.chat(DEEPSEEK, "deepseek-chat", answer("deepseek-chat", usage)) == Decimal(usd)


# --- fees ---

RESEARCH = {**THOUSAND, "citation_tokens": 50_000, "num_search_queries": 20, "reasoning_tokens": 100_000}


def test_research_is_held_for_and_booked_without_a_bill_too(place: Place) -> None:
    model = "sonar-deep-research"
    assert place.chat(PERPLEXITY, model, answer(model, RESEARCH)) == Decimal("0.51")
    assert place.projected >= Decimal("0.51")


@pytest.mark.parametrize(
    ("used", "usd"),
    [({"num_sources_used": 20}, "0.50375"), ({"num_sources_used": 0}, "0.00375"), ({}, "0.50375")],
)
def test_live_search_is_billed_by_the_source(place: Place, used: dict[str, int], usd: str) -> None:
    said = answer("grok-3", {**THOUSAND, **used})
    search = {"search_parameters": {"mode": "on"}}
    assert place.chat(XAI, "grok-3", said, extra_body=search) == Decimal(usd)
    assert place.projected >= Decimal("0.50375")
    off = {"search_parameters": {"mode": "off"}}
    place.chat(XAI, "grok-3", answer("grok-3"), extra_body=off, max_tokens=10)
    assert place.projected < Decimal("0.01")


@pytest.mark.parametrize(
    ("model", "request_"),
    [
        ("openai/gpt-4o-mini", {"extra_body": {"plugins": [{"id": "web"}]}}),
        ("openai/gpt-4o-mini", {"tools": [{"type": "openrouter:web_search"}]}),
        ("openai/gpt-4o-mini", {"web_search_options": {}}),
        ("openai/gpt-4o-mini:online", {}),
        ("meta-llama/llama-3.3-70b-instruct:free:online", {}),
    ],
)
def test_a_search_at_openrouter_is_held_for(place: Place, model: str, request_: dict[str, Any]) -> None:
    said = answer(model, {**THOUSAND, "cost": 0.02075})
    assert place.chat(OPENROUTER, model, said, max_tokens=10, **request_) == Decimal("0.02075")
    assert place.projected >= Decimal("0.02075")


@pytest.mark.parametrize(
    ("url", "model", "request_", "unit"),
    [
        (
            OPENROUTER,
            "openai/gpt-4o-mini",
            {"extra_body": {"plugins": [{"id": "oracle"}]}},
            "tool_uses_oracle",
        ),
        (
            OPENROUTER,
            "openai/gpt-4o-mini",
            {"tools": [{"type": "openrouter:advisor"}]},
            "tool_uses_openrouter_advisor",
        ),
        (
            "https://api.groq.com/openai/v1",
            "openai/gpt-oss-120b",
            {"tools": [{"type": "browser_search"}]},
            "tool_uses_browser_search",
        ),
        (GEMINI, "gemini-2.5-flash", {"tools": [{"google_search": {}}]}, "tool_uses_google_search"),
        (
            PERPLEXITY,
            "sonar-pro",
            {"web_search_options": {"search_type": "pro"}},
            "tool_uses_pro_search",
        ),
    ],
)
def test_what_has_no_price_is_refused_by_its_name_until_it_has_one(
    place: Place, url: str, model: str, request_: dict[str, Any], unit: str
) -> None:
    with pytest.raises(UnknownModelError, match=f"{unit}=<USD>"):
        place.chat(url, model, answer(model), **request_)
    assert place.sent == 0
    place.guard.register_price(model, **{unit: 1})
    booked = place.chat(url, model, answer(model), **request_)
    assert 1 < booked < 2
    assert place.projected > 1


def test_a_search_of_perplexity_s_is_in_its_fee(place: Place) -> None:
    said = answer("sonar", {**THOUSAND, "cost": {"total_cost": 0.014}})
    options: Any = {"search_context_size": "high"}
    assert place.chat(PERPLEXITY, "sonar", said, web_search_options=options) == Decimal("0.014")


@pytest.mark.parametrize("host", ["eu", "us", "jp"])
@pytest.mark.parametrize(
    ("model", "usd"),
    [
        ("gpt-5.4", "0.01925"),
        ("gpt-5.4-2026-03-05", "0.01925"),
        ("gpt-5.4-mini", "0.005775"),
        ("gpt-5.2", "0.01575"),
        ("gpt-4o-mini", "0.00075"),
        ("o4-mini", "0.0055"),
    ],
)
def test_a_region_costs_a_tenth_more_for_newer_models(place: Place, host: str, model: str, usd: str) -> None:
    assert place.chat(f"https://{host}.api.openai.com/v1", model, answer(model), max_tokens=1_000) == Decimal(
        usd
    )
    regional = place.projected
    place.chat(OPENAI, model, answer(model), max_tokens=1_000)
    assert regional == place.projected if "5.4" not in model else regional > place.projected


def test_a_region_s_fees_and_the_user_s_prices_are_as_they_are_listed(place: Place) -> None:
    region = "https://eu.api.openai.com/v1"
    rates = PriceBook().rates("gpt-5.4", base_url=region)
    assert rates.cost(Usage.of(web_searches=1)) == 10_000_000
    place.guard.register_price("gpt-5.4", input=1, output=1)
    assert place.chat(region, "gpt-5.4", answer("gpt-5.4")) == Decimal("0.002")


# --- caches that cost to write ---


def test_a_cold_prompt_is_held_at_what_writing_it_costs() -> None:
    place = Place()
    prompt = "The quick brown fox jumps over the lazy dog. " * 400
    cold = counts(4_010, 10, 4_020, **details({"cache_write_tokens": 4_010}))
    barrier = threading.Barrier(3)

    def reply() -> Any:
        barrier.wait(30)
        return answer("gpt-5.6-sol", cold)

    def ask() -> None:
        with place.guard.budget_user("five"), place.client(OPENAI, reply) as client:
            try:
                client.chat.completions.create(
                    model="gpt-5.6-sol",
                    messages=[{"role": "user", "content": prompt}],
                    max_completion_tokens=10,
                )
            except BudgetExceededError:
                refused.append(1)

    refused: list[int] = []
    one = PriceBook().rates("gpt-5.6-sol").cost(Usage({"input_tokens": 4_010, "cache_write_tokens": 4_010}))
    limit = Decimal(one * 37) / 10 / 10**9
    place.guard.set_budget(limit, user="five")
    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 2
    assert place.guard.balance("five").spent <= limit


@pytest.mark.parametrize(
    ("model", "mark", "factor"),
    [
        ("claude-sonnet-4-5", None, "1"),
        ("claude-sonnet-4-5", {"type": "ephemeral"}, "1.25"),
        ("gpt-5.6-sol", None, "1.25"),
        ("gpt-4o-mini", None, "1"),
    ],
)
def test_only_what_is_written_into_a_cache_is_held_as_such(
    place: Place, model: str, mark: Any, factor: str
) -> None:
    part = {"type": "text", "text": "hello", **({} if mark is None else {"cache_control": mark})}
    provider = "anthropic" if model.startswith("claude") else "openai"

    @place.guard.budgeted(provider=provider)
    def ask(messages: Any, model: str = model, max_tokens: int = 0) -> Any:
        return answer(model, counts(10, 0, 10))

    with place.guard.budget_user(USER):
        ask([{"role": "user", "content": [part]}])
    read = place.projections[-1].usage
    rates = PriceBook().rates(model, provider=provider)
    assert place.projected == Decimal(rates.cost(read)) * Decimal(factor) / 10**9


def test_a_given_up_stream_of_a_cold_prompt_costs_what_writing_it_costs(place: Place) -> None:
    from tests.projecting import project_chat

    rates = PriceBook().rates("gpt-5.6-sol")
    projection = project_chat({"messages": MESSAGES, "max_tokens": 10}, "gpt-5.6-sol", rates)
    assert rates.cost(projection.abandoned(10)) == projection.cost


# --- rates by themselves ---


def test_rates_of_another_model_are_of_the_same_instant_and_list() -> None:
    book = PriceBook()
    book.register("gpt-4.1", input=5, output=5, valid_from=datetime(2030, 1, 1, tzinfo=UTC))
    rates = book.rates("gpt-4o-mini", at=datetime(2026, 11, 1, tzinfo=UTC))
    later = book.rates("gpt-4o-mini", at=datetime(2031, 1, 1, tzinfo=UTC))
    used = Reported(Usage.of(input_tokens=1_000_000), "gpt-4.1")
    assert (rates.cost_of(used), later.cost_of(used)) == (2_000_000_000, 5_000_000_000)
    assert rates.served_as("gpt-4o-mini-2024-07-18") is rates
    assert rates.with_tier("flex").cost_of(used) == 2_000_000_000
    assert Rates.free("x", "free").served_as("gpt-4o").cost(Usage.of(input_tokens=5)) == 0
