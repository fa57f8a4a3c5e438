"""LiteLLM over real sockets: every way, once each; refusals past its retries, fallbacks and Router."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import subprocess
import sys
import time
from asyncio.selector_events import _SelectorSocketTransport
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import litellm
import openai
import pytest
from litellm import acompletion, completion  # before anything is patched
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from budgetguard.errors import (
    BudgetExceededError,
    ConfigurationError,
    UnknownEndpointError,
    UnknownModelError,
)
from budgetguard.providers.litellm.prices import listed_rates
from budgetguard.providers.litellm.sdk import LITELLM
from budgetguard.providers.litellm.target import LiteLLMTarget
from budgetguard.providers.sdks import check

from .books import SdkBooks, sdk_books
from .litellm_server import DEEPINFRA, MESSAGES, MINI, USAGE, providers, router, ways
from .server import Answer, Arrived
from .ways import (
    ASYNC,
    ASYNC_STREAM,
    CALL,
    STREAM,
    Way,
    check_booked,
    check_refused,
    check_unnoticed,
    made,
    of_ways,
)

# What other packages warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

WAYS = tuple(ways())
CHAT = {way.column: way for way in WAYS if way.row == "Chat: openai"}


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Let go of the connections that LiteLLM leaves open while its warnings are still its own."""
    yield
    GLOBAL_LOGGING_WORKER._queue = None  # what it would log once another loop runs
    for one in gc.get_objects():
        if type(one) is _SelectorSocketTransport and one._sock is not None:
            one._sock.close()
            one._sock = None  # its loop is closed, so that it cannot close itself
    gc.collect()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Leave no cache, retries or own providers to the next test, and no client of another server."""
    yield
    litellm.cache = None
    litellm.num_retries = None
    litellm.custom_provider_map = []
    litellm.in_memory_llm_clients_cache.flush_cache()


def ask(books: SdkBooks, **more: Any) -> dict[str, Any]:
    """Return the arguments of a chat with OpenAI at the books' server."""
    asked = {"model": "openai/gpt-4o-mini", "messages": MESSAGES, "max_tokens": 20}
    return {**asked, "api_base": f"{books.server.url}/v1", **more}


@of_ways(WAYS)
def test_booked_as_billed(way: Way) -> None:
    check_booked(way, providers, "litellm")


@of_ways(WAYS)
def test_refused_unsent_and_tried_once(way: Way) -> None:
    assert len(check_refused(way, providers, "litellm").of("Projected")) == 1


@of_ways(WAYS)
def test_unnoticed(way: Way) -> None:
    check_unnoticed(way, providers, "litellm")


@pytest.mark.parametrize(
    "way", [way for way in WAYS if "openai" in way.row or way.row in ("Router", "Embeddings")]
)
def test_over_a_patched_client_it_is_booked_once(way: Way) -> None:
    """The clients that it asks by are a part of its calls."""
    with sdk_books(providers, "litellm", "openai") as books:
        made(way, books.server.url)
        assert (books.spent, books.held, books.sent) == (way.billed, 0, 1)
        assert len(books.of("Projected")) == 1
        books.limit(100)
        with pytest.raises(BudgetExceededError):
            made(way, books.server.url)
        assert books.sent == 1


def test_what_was_imported_before_is_guarded() -> None:
    with sdk_books(providers, "litellm") as books:
        completion(**ask(books))
        asyncio.run(acompletion(**ask(books)))
        assert (books.spent, books.sent) == (2 * MINI, 2)
        books.limit(100)
        with pytest.raises(BudgetExceededError):
            completion(**ask(books))
    with sdk_books(providers, "litellm", patched=False) as books:
        completion(**ask(books))
        assert (books.spent, books.sent) == (0, 1)


REFUSED: dict[str, Callable[[SdkBooks], Any]] = {
    "retries": lambda books: completion(**ask(books, num_retries=3)),
    "async retries": lambda books: acompletion(**ask(books, num_retries=3)),
    "async stream with retries": lambda books: acompletion(**ask(books, num_retries=3, stream=True)),
    "fallbacks": lambda books: completion(**ask(books, fallbacks=["openai/gpt-4o"])),
    "async fallbacks": lambda books: acompletion(**ask(books, fallbacks=["openai/gpt-4o"])),
    "responses with retries": lambda books: litellm.responses(
        model="openai/gpt-4o-mini", input="x", num_retries=3, api_base=f"{books.server.url}/v1"
    ),
    "a router with fallbacks": lambda books: fallback_router(books.server.url).completion(
        model="mini", messages=MESSAGES
    ),
    "an async router with fallbacks": lambda books: fallback_router(books.server.url).acompletion(
        model="mini", messages=MESSAGES
    ),
    "a router's stream": lambda books: fallback_router(books.server.url).acompletion(
        model="mini", messages=MESSAGES, stream=True
    ),
    "a router's embeddings": lambda books: fallback_router(books.server.url).aembedding(
        model="mini", input=["x" * 9_000]
    ),
    "a router's responses": lambda books: fallback_router(books.server.url).aresponses(
        model="mini", input="x"
    ),
    "messages over chat": lambda books: litellm.anthropic_messages(
        model="openai/gpt-4o-mini", messages=MESSAGES, max_tokens=20, api_base=f"{books.server.url}/v1"
    ),
}


def fallback_router(url: str) -> Any:
    deployments = [
        {
            "model_name": name,
            "litellm_params": {"model": "openai/gpt-4o-mini", "api_base": f"{url}/v1", "api_key": "test"},
        }
        for name in ("mini", "other")
    ]
    return litellm.Router(model_list=deployments, num_retries=3, fallbacks=[{"mini": ["other"]}])


@pytest.mark.parametrize("sdks", [("litellm",), ("litellm", "openai")], ids=" and ".join)
@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_what_it_is_and_is_not_retried(name: str, sdks: tuple[str, ...]) -> None:
    with sdk_books(providers, *sdks) as books:
        books.limit(100)
        with pytest.raises(BudgetExceededError) as refused:
            made(Way("", ASYNC, "", lambda _: REFUSED[name](books), 0), books.server.url)
        assert type(refused.value) is BudgetExceededError
        assert (books.spent, books.held, books.sent) == (0, 0, 0)
        assert len(books.of("Projected")) <= 2


def test_a_router_is_refused_in_threads_and_tasks_of_the_programs_own() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with sdk_books(providers, "litellm") as books, ThreadPoolExecutor(2) as pool:
        books.limit(100)
        routed = router(books.server.url)
        jobs = [pool.submit(routed.completion, model="mini", messages=MESSAGES) for _ in range(3)]
        assert [type(job.exception()) for job in jobs] == [BudgetExceededError] * 3

        async def many() -> list[Any]:
            asked = [routed.acompletion(model="mini", messages=MESSAGES) for _ in range(3)]
            return await asyncio.gather(*asked, return_exceptions=True)

        assert [type(one) for one in asyncio.run(many())] == [BudgetExceededError] * 3
        assert books.sent == 0


def failing(times: int, answer: Answer) -> Callable[[Arrived], Answer]:
    """Return a provider that answers so often with something else first."""
    left = [answer] * times
    return lambda arrived: left.pop() if left else providers(arrived)


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "mistral/mistral-small-latest"])
@pytest.mark.parametrize("column", [CALL, ASYNC])
def test_retries_are_booked_once_and_errors_cost_nothing(model: str, column: str) -> None:
    asks = {CALL: completion, ASYNC: acompletion}[column]
    with sdk_books(failing(1, Answer({"error": {"message": "busy"}}, status=500)), "litellm") as books:
        way = Way("", column, "", lambda _: asks(**ask(books, model=model, num_retries=2)), 0)
        made(way, books.server.url)
        assert (books.spent, books.held, books.sent) == (MINI, 0, 2)
        assert [type(one).__name__ for one in books.events].count("Settled") == 1


@pytest.mark.parametrize("column", [CALL, ASYNC])
def test_a_router_falls_back_and_each_attempt_is_booked_as_it_ended(column: str) -> None:
    def answer(arrived: Arrived) -> Answer:
        if arrived.path.startswith("/bad"):
            return Answer({"error": {"message": "busy"}}, status=500)
        return providers(arrived)

    with sdk_books(answer, "litellm") as books:
        deployments = [
            {
                "model_name": name,
                "litellm_params": {
                    "model": "openai/gpt-4o-mini",
                    "api_base": f"{books.server.url}/{where}",
                    "api_key": "test",
                    "max_retries": 0,
                },
            }
            for name, where in (("mini", "bad"), ("other", "v1"))
        ]
        routed = litellm.Router(model_list=deployments, num_retries=1, fallbacks=[{"mini": ["other"]}])
        asks = {CALL: routed.completion, ASYNC: routed.acompletion}[column]
        way = Way("", column, "", lambda _: asks(model="mini", messages=MESSAGES, max_tokens=20), 0)
        made(way, books.server.url)
        assert books.server.requests[-1].path == "/v1/chat/completions"
        assert (books.spent, books.held) == (MINI, 0)
        assert len(books.of("Projected")) == books.sent


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "mistral/mistral-small-latest"])
@pytest.mark.parametrize("column", [CALL, ASYNC])
def test_a_connection_that_is_lost_may_have_cost_something(model: str, column: str) -> None:
    cut = Answer([b"{", b"}"], cut=1, headers={"content-type": "application/json"})
    with sdk_books(failing(9, cut), "litellm") as books:
        asks = {CALL: completion, ASYNC: acompletion}[column]
        way = Way("", column, "", lambda _: asks(**ask(books, model=model, max_retries=0)), 0)
        with pytest.raises(openai.APIError):
            made(way, books.server.url)
        (projected,) = books.of("Projected")
        assert books.held == 0
        assert books.spent == int(projected.cost * 10**9) * books.sent


def test_tries_that_openais_client_loses_are_booked_beside_the_one_that_answers() -> None:
    cut = Answer([b"{", b"}"], cut=1, headers={"content-type": "application/json"})
    with sdk_books(failing(1, cut), "litellm") as books:
        completion(**ask(books, max_retries=2))
        (projected,) = books.of("Projected")
        assert (books.spent, books.held, books.sent) == (MINI + int(projected.cost * 10**9), 0, 2)


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "mistral/mistral-small-latest"])
@pytest.mark.parametrize("column", [CALL, ASYNC])
def test_an_error_that_is_no_json_costs_nothing(model: str, column: str) -> None:
    page = Answer(b"<html>Bad Gateway</html>", status=502, headers={"content-type": "text/html"})
    with sdk_books(failing(9, page), "litellm") as books:
        asks = {CALL: completion, ASYNC: acompletion}[column]
        way = Way("", column, "", lambda _: asks(**ask(books, model=model, max_retries=0)), 0)
        with pytest.raises(openai.APIError):
            made(way, books.server.url)
        assert (books.spent, books.held, books.sent) == (0, 0, 1)


def test_nobody_there_costs_nothing() -> None:
    with sdk_books(providers, "litellm") as books:
        with pytest.raises(openai.APIError):
            completion(**{**ask(books), "api_base": "http://127.0.0.1:9/v1", "max_retries": 0})
        assert (books.spent, books.held) == (0, 0)


@pytest.mark.parametrize("status", [400, 401, 422, 429, 500])
@pytest.mark.parametrize("column", [CALL, ASYNC_STREAM])
def test_an_answer_that_is_an_error_costs_nothing(status: int, column: str) -> None:
    with sdk_books(failing(9, Answer({"error": {"message": "no"}}, status=status)), "litellm") as books:
        asks = {CALL: completion, ASYNC_STREAM: acompletion}[column]
        more = {"stream": True} if column == ASYNC_STREAM else {}
        way = Way("", column, "", lambda _: asks(**ask(books, max_retries=0, **more)), 0)
        with pytest.raises(Exception, match=r"(?i)litellm|no"):
            made(way, books.server.url)
        assert (books.spent, books.held) == (0, 0)


def test_an_answer_that_litellm_cannot_read_was_paid_for() -> None:
    with sdk_books(failing(1, Answer({"choices": [{"index": 0}], "usage": USAGE})), "litellm") as books:
        with pytest.raises(openai.APIError):
            completion(**ask(books, model="mistral/mistral-small-latest"))
        assert books.held == 0
        assert books.spent > 0


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
def test_a_stream_that_is_left_or_cut_is_booked_by_what_was_seen(model: str) -> None:
    whole = next(way.billed for way in WAYS if way.row == f"Chat: {model.partition('/')[0]}")
    where = "" if model.startswith("anthropic") else "/v1"

    def asked(books: SdkBooks) -> dict[str, Any]:
        return {**ask(books, model=model, stream=True), "api_base": books.server.url + where}

    def cut(arrived: Arrived) -> Answer:
        return Answer(providers(arrived).body, cut=3)

    async def leave(books: SdkBooks) -> None:
        stream = await acompletion(**asked(books))
        await anext(stream)
        await stream.aclose() if hasattr(stream, "aclose") else None

    with sdk_books(providers, "litellm") as books:
        stream = completion(**asked(books))
        next(stream)
        if hasattr(stream, "close"):
            stream.close()
        del stream
        let_go(books)
        assert 0 < books.spent <= whole
        before = books.spent
        asyncio.run(leave(books))
        let_go(books)
        assert before < books.spent <= 2 * whole
    with sdk_books(cut, "litellm") as books:
        with pytest.raises(Exception, match=r"(?i)litellm|peer"):
            list(completion(**asked(books)))
        assert books.held == 0
        assert 0 < books.spent <= whole


def let_go(books: SdkBooks) -> None:
    """Wait until nobody keeps a stream that was left: older ones cannot be closed, and a thread logs them."""
    for _ in range(200):
        gc.collect()
        if not books.held:
            return
        time.sleep(0.05)
    pytest.fail("the stream is still held")


def test_a_stream_is_what_the_caller_asked_for() -> None:
    with sdk_books(providers, "litellm") as books:
        stream = completion(**ask(books, stream=True))
        assert isinstance(stream, litellm.CustomStreamWrapper)
        assert all(getattr(chunk, "usage", None) is None for chunk in stream)
        options = {"stream_options": {"include_usage": True}}
        chunks = list(completion(**ask(books, stream=True, **options)))
        assert chunks[-1].usage.total_tokens == USAGE["total_tokens"]
        assert books.spent == 2 * MINI


def test_a_stream_of_which_nobody_reports_a_usage_is_counted() -> None:
    def answer(arrived: Arrived) -> Answer:
        found = providers(arrived)
        pieces = [piece for piece in found.body if b'"usage"' not in piece]
        return Answer(pieces)

    with sdk_books(answer, "litellm") as books:
        list(completion(**ask(books, stream=True)))
        (settled,) = books.of("Settled")
        assert settled.estimated
        assert books.held == 0
        assert MINI // 3 < books.spent < MINI


def test_mocked_and_cached_answers_cost_nothing() -> None:
    with sdk_books(providers, "litellm") as books:
        completion(**ask(books, mock_response="hi"))
        list(completion(**ask(books, mock_response="hi", stream=True)))
        assert (books.spent, books.sent) == (0, 0)
        litellm.cache = litellm.Cache(type="local")
        for _ in range(3):
            completion(**ask(books, caching=True))
        assert (books.spent, books.held, books.sent) == (MINI, 0, 1)


def test_prices_are_ours_then_the_calls_then_litellms() -> None:
    with sdk_books(providers, "litellm") as books:
        where = {"api_base": f"{books.server.url}/v1"}
        deepinfra = {"messages": MESSAGES, "model": "deepinfra/meta-llama/Llama-3.3-70B-Instruct", **where}
        completion(**deepinfra)
        assert books.spent == DEEPINFRA
        own = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
        completion(**{**deepinfra, **own})
        assert books.spent == DEEPINFRA + 44 * 1_000 + 5 * 2_000
        books.engine.prices.register("deepinfra/nobody/knows", input=1, output=1)
        completion(**{**deepinfra, "model": "deepinfra/nobody/knows"})
        assert books.spent == DEEPINFRA + 54_000 + 49_000
        with pytest.raises(UnknownModelError, match=r"'nobody/else' \(deepinfra\)"):
            completion(**{**deepinfra, "model": "deepinfra/nobody/else"})
        assert books.sent == 3


def test_litellms_table_is_read_with_its_steps_and_tiers() -> None:
    from budgetguard.core.usage import Usage

    rates = listed_rates(LiteLLMTarget("", "gemini-2.5-pro", "gemini", "", "gemini"))
    assert rates is not None
    table = litellm.model_cost["gemini/gemini-2.5-pro"]
    for tokens, suffix in ((100_000, ""), (300_000, "_above_200k_tokens")):
        expected = Decimal(repr(table[f"input_cost_per_token{suffix}"])) * tokens
        assert rates.cost(Usage.of(input_tokens=tokens)) == expected * 10**9
    assert listed_rates(LiteLLMTarget("", "no-such-model", "deepinfra", "", "deepinfra")) is None


def test_servers_of_the_programs_own_are_free_where_they_are_said_to_be() -> None:
    with sdk_books(providers, "litellm", free_base_urls=("http://127.0.0.1",)) as books:
        with pytest.raises(UnknownModelError, match="free_base_urls"):
            completion(model="hosted_vllm/mine", messages=MESSAGES, api_base=f"{books.server.url}/v1")
        assert books.sent == 0
    with sdk_books(providers, "litellm") as books:
        completion(model="ollama_chat/mine", messages=MESSAGES, api_base=books.server.url)
        assert [one.path for one in books.server.requests] == ["/api/chat"]
        assert books.spent == 0


def test_a_deployment_is_priced_by_the_model_that_a_name_stands_for() -> None:
    with sdk_books(providers, "litellm", model_map={"my-deployment": "gpt-4o-mini"}) as books:
        completion(model="azure/my-deployment", messages=MESSAGES, max_tokens=20, api_base=books.server.url)
        assert books.spent == MINI


def test_a_cap_is_written_into_what_is_sent() -> None:
    with sdk_books(providers, "litellm", strict=True) as books:
        books.limit(100_000)
        completion(**{**ask(books), "max_tokens": None})
        body = books.server.requests[0].body
        assert 0 < (body.get("max_completion_tokens") or body.get("max_tokens")) < 200
        assert (books.spent, books.held) == (MINI, 0)


def test_calls_of_the_programs_own_inside_are_booked_to_themselves() -> None:
    """What a provider of the program's own asks is no client of LiteLLM's."""
    from openai import OpenAI

    class Mine(litellm.CustomLLM):
        def completion(self, *_: Any, **__: Any) -> Any:
            with OpenAI(base_url=f"{books.server.url}/v1", api_key="test") as client:
                answer = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, max_tokens=20)
            return litellm.ModelResponse(**answer.model_dump())

    with sdk_books(providers, "litellm", "openai") as books:
        litellm.custom_provider_map = [{"provider": "mine", "custom_handler": Mine()}]
        litellm.completion(model="mine/x", messages=MESSAGES)
        assert (books.spent, books.held, books.sent) == (MINI, 0, 1)


@pytest.mark.parametrize(
    "name",
    [
        "create_batch",
        "acreate_batch",
        "create_fine_tuning_job",
        "run_thread",
        "video_generation",
        "avideo_generation",
        "search",
        "_arealtime",
        "generate_content",
        "agenerate_content",
    ],
)
def test_what_cannot_be_priced_is_refused_by_name(name: str) -> None:
    function = getattr(litellm, name, None)
    if function is None:
        pytest.skip("this version has none")
    wanted = {
        one.name: "x"
        for one in inspect.signature(function).parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    with sdk_books(providers, "litellm") as books:
        more = {"custom_llm_provider": "openai", "api_key": "test"}
        way = Way("", ASYNC, "", lambda _: function(**{**more, **wanted}), 0)
        with pytest.raises(UnknownEndpointError, match=r"CALL /litellm/\w+ .*was not sent"):
            made(way, books.server.url)
        assert books.sent == 0


# What asks, keeps or deletes, and runs nothing.
FREE = {
    *(
        "cancel_eval",
        "cancel_fine_tuning_job",
        "cancel_responses",
        "cancel_run",
        "create_agent",
        "create_eval",
    ),
    *("create_file", "create_skill", "delete_agent", "delete_container", "delete_eval", "delete_responses"),
    *("delete_run", "delete_sandbox", "delete_skill", "file_content", "file_delete", "file_list"),
    *(
        "file_retrieve",
        "get_agent",
        "get_eval",
        "get_responses",
        "get_run",
        "get_skill",
        "list_agent_versions",
    ),
    *("list_agents", "list_batches", "list_container_files", "list_containers", "list_evals"),
    *("list_input_items", "list_runs", "list_skills", "moderation", "retrieve_batch", "retrieve_container"),
    *("retrieve_fine_tuning_job", "upload_container_file", "vector_store_file_content"),
    *("vector_store_file_create", "vector_store_file_delete", "vector_store_file_list"),
    *("vector_store_file_retrieve", "vector_store_file_update", "video_content", "video_get_character"),
    *("video_list", "video_status"),
}


def test_every_function_that_litellm_decorates_is_guarded_refused_or_free() -> None:
    known = {method.name for method in LITELLM.methods} | FREE
    found = [
        name
        for name in dir(litellm)
        if inspect.isfunction(function := getattr(litellm, name, None))
        and function.__module__.startswith("litellm.")
        and hasattr(function, "__wrapped__")
    ]
    assert len(found) > 50
    assert [name for name in found if name not in known and name.removeprefix("a") not in known] == []


def test_check_versions_and_wrap() -> None:
    assert not {one.sdk: one.guarded for one in check()}["litellm"]
    with sdk_books(providers, "litellm"):
        assert {one.sdk: one.guarded for one in check()}["litellm"]
    code = completion.__code__
    assert code is completion.__code__
    assert "budgetguard" not in (completion.__kwdefaults__ or {})


def test_a_version_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from budgetguard.providers import methods

    for version in ("1.79.9", "2.0.0"):
        monkeypatch.setattr(methods.metadata, "version", lambda _name, version=version: version)
        with (
            pytest.raises(ConfigurationError, match=f"litellm {version} is not one"),
            sdk_books(providers, "litellm"),
        ):
            pass


PROGRAM = """
import json, sys
sys.path.insert(0, {root!r})
import budgetguard
budgetguard.patch()
import litellm
from tests.sdks.litellm_server import MESSAGES, providers
from tests.sdks.server import CountingServer
guard = budgetguard.default_guard()
guard.set_budget(1, user="u")
with CountingServer(providers) as server, budgetguard.budget_user("u"):
    asked = dict(model="openai/gpt-4o-mini", messages=MESSAGES, max_tokens=20, api_base=server.url + "/v1")
    litellm.completion(**asked)
    print(json.dumps([guard.balance("u").spent_nanos, len(server.requests)]))
"""


def test_it_is_guarded_when_it_is_imported_later() -> None:
    import tests

    (root,) = (path.removesuffix("/tests") for path in tests.__path__)
    program = PROGRAM.format(root=root)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "BUDGETGUARD_STORE": "memory://", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [MINI, 1]


@pytest.mark.parametrize("column", [CALL, STREAM, ASYNC, ASYNC_STREAM])
def test_it_calls_what_it_called_when_it_is_patched_no_more(column: str) -> None:
    with sdk_books(providers, "litellm"):
        pass
    with sdk_books(providers, "litellm", patched=False) as books:
        made(CHAT[column], books.server.url)
        assert (books.spent, books.sent) == (0, 1)


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4o"])
def test_a_cheaper_model_is_called_where_the_budget_names_one(model: str) -> None:
    from budgetguard import Guard, budget_user
    from budgetguard.testing.openai_server import OpenAIServer

    guard = Guard(store="memory://", project="p")
    guard.set_budget(0.00025, user="u", fallbacks={"gpt-4o": "gpt-4o-mini"})
    messages: Any = [{"role": "user", "content": "hi"}]
    with OpenAIServer("one two") as server:
        guard.patch_litellm()
        try:
            with budget_user("u"):
                litellm.completion(
                    model=model, messages=messages, max_tokens=100, api_base=server.base_url, api_key="x"
                )
        finally:
            guard.unpatch_litellm()
        (request,) = server.requests
    assert request.body["model"] == "gpt-4o-mini"
    (record,) = guard.calls()
    assert (record.model, record.state) == ("gpt-4o-mini", "settled")
