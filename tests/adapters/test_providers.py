"""Who is paid: OpenAI, Azure with its deployments, other providers by their address, or nobody at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import budgetguard
from budgetguard import Guard, UnknownModelError
from budgetguard.core.usage import Usage
from budgetguard.engine.context import budget_user
from budgetguard.pricing.book import PriceBook
from budgetguard.testing.openai_server import OpenAIServer
from tests.adapters.books import HTTP, MESSAGES, MODEL, USER, Books, keeper_on, open_books
from tests.adapters.clients import unpatch, wrap

CHAT: Any = {"messages": MESSAGES, "max_tokens": 50}
AZURE = "https://mine.openai.azure.com"


@pytest.fixture(autouse=True)
def _unpatched() -> Iterator[None]:
    yield
    unpatch()


class Redirected:
    """Let clients of any address speak to the test server, and note where they meant to go."""

    def __init__(self, server: OpenAIServer) -> None:
        self.meant: list[str] = []
        self._server = server

    def _redirect(self, request: Any) -> None:
        self.meant.append(str(request.url))
        path = re.sub(r"^/(openai/deployments/[^/]+|(api|openai)(/v1)?|v1)/", "/v1/", request.url.path)
        request.url = HTTP.URL(self._server.url + path)

    async def _redirect_async(self, request: Any) -> None:
        self._redirect(request)

    @property
    def client(self) -> Any:
        return HTTP.Client(event_hooks={"request": [self._redirect]})

    @property
    def aclient(self) -> Any:
        return HTTP.AsyncClient(event_hooks={"request": [self._redirect_async]})


@pytest.fixture
def redirected(server: OpenAIServer) -> Redirected:
    return Redirected(server)


def azure(redirected: Redirected, **options: Any) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(
        azure_endpoint=AZURE,
        api_version="2025-04-01",
        api_key="test",
        max_retries=0,
        http_client=redirected.client,
        **options,
    )


def cost(model: str, record: Any, **where: str) -> int:
    used = record.billed
    usage = Usage.of(input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"])
    return PriceBook().rates(model, **where).cost(usage)


@pytest.fixture
def books(server: OpenAIServer, tmp_path: Path) -> Iterator[Books]:
    with open_books(server, "memory", tmp_path, model_map={"chat-prod": "gpt-4o-mini"}) as opened:
        yield opened


def booked(books: Books) -> Any:
    (call,) = books.engine.store.calls(0, None)
    return call


# Azure


@pytest.mark.parametrize("options", [{}, {"azure_deployment": "chat-prod"}])
def test_a_deployment_is_booked_as_the_model_that_the_map_says(
    books: Books, redirected: Redirected, options: Any
) -> None:
    # A client of one deployment ignores the model that a call names; so do the books.
    asked = "gpt-4" if options else "chat-prod"
    with azure(redirected, **options) as client:
        client.chat.completions.create(model=asked, **CHAT)
    assert "/openai/deployments/chat-prod/chat/completions" in redirected.meant[0]
    assert booked(books).model == "gpt-4o-mini"
    assert books.spent == cost("gpt-4o-mini", books.server.requests[0], provider="azure")


async def test_a_deployment_of_an_async_client_is_booked_likewise(
    books: Books, redirected: Redirected
) -> None:
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=AZURE,
        azure_deployment="CHAT-prod",
        api_version="2025-04-01",
        api_key="test",
        http_client=redirected.aclient,
    ) as client:
        await client.chat.completions.create(model="anything", **CHAT)
    assert booked(books).model == "gpt-4o-mini"
    assert books.spent == cost("gpt-4o-mini", books.server.requests[0], provider="azure")


def test_the_newer_address_names_the_deployment_as_the_model(books: Books, redirected: Redirected) -> None:
    with openai.OpenAI(
        base_url=AZURE + "/openai/v1/", api_key="test", http_client=redirected.client
    ) as client:
        client.chat.completions.create(model="chat-prod", **CHAT)
    assert redirected.meant == [AZURE + "/openai/v1/chat/completions"]
    assert booked(books).model == "gpt-4o-mini"


def test_a_gateway_before_azure_is_priced_as_azure(server: OpenAIServer, tmp_path: Path) -> None:
    redirected = Redirected(server)
    with open_books(server, "memory", tmp_path) as books:
        books.engine.prices.register("gpt-4o-mini", provider="azure", input=1_000, output=1_000)
        with (
            openai.AzureOpenAI(
                azure_endpoint="https://gateway.example/team",
                azure_deployment="gpt-4o-mini",
                api_version="2025-04-01",
                api_key="test",
                http_client=redirected.client,
            ) as client,
            pytest.raises(openai.NotFoundError),
        ):  # the server knows no gateway's path
            client.chat.completions.create(model="x", **CHAT)
        (projected,) = books.of("Projected")
        assert projected.model == "gpt-4o-mini"
        assert projected.cost > 0.05  # by the price that is Azure's alone


def test_a_deployment_whose_name_is_a_model_needs_no_map(books: Books, redirected: Redirected) -> None:
    with azure(redirected) as client:
        client.chat.completions.create(model="gpt-4.1-nano", **CHAT)
    assert booked(books).model == "gpt-4.1-nano"


@pytest.mark.parametrize("asked", ["gpt-4o-mini", "nameless"])
def test_an_unknown_deployment_is_refused_with_its_name_and_the_remedy(
    books: Books, redirected: Redirected, asked: str
) -> None:
    # The model that the call names says nothing: the address decides what answers.
    with azure(redirected, azure_deployment="nameless") as client, pytest.raises(UnknownModelError) as error:
        client.chat.completions.create(model=asked, **CHAT)
    assert "'nameless' (azure)" in str(error.value)
    assert "configure(model_map={'nameless': 'gpt-4o-mini'})" in str(error.value)
    assert redirected.meant == []


def test_an_unknown_deployment_at_the_newer_address_is_refused_likewise(
    books: Books, redirected: Redirected
) -> None:
    with (
        openai.OpenAI(
            base_url=AZURE + "/openai/v1/", api_key="test", http_client=redirected.client
        ) as client,
        pytest.raises(UnknownModelError, match=r"model_map=\{'nameless': "),
    ):
        client.chat.completions.create(model="nameless", **CHAT)


def test_responses_of_a_deployment_client_are_booked_by_the_model_they_name(
    books: Books, redirected: Redirected
) -> None:
    # The SDK sends these past the deployment, so here the body does decide.
    with azure(redirected, azure_deployment="nameless") as client:
        client.responses.create(model="chat-prod", input="Hello", max_output_tokens=20)
    assert "/deployments/" not in redirected.meant[0]
    assert booked(books).model == "gpt-4o-mini"


def test_at_openai_s_own_address_a_name_is_the_model_s(server: OpenAIServer, tmp_path: Path) -> None:
    redirected = Redirected(server)
    with open_books(server, "memory", tmp_path, model_map={"gpt-4o": "gpt-4o-mini"}) as books:
        with openai.OpenAI(
            base_url="https://api.openai.com/v1", api_key="test", http_client=redirected.client
        ) as client:
            client.chat.completions.create(model="gpt-4o", **CHAT)
        assert booked(books).model == "gpt-4o"


def test_each_wrapped_client_may_have_a_map_of_its_own(server: OpenAIServer, tmp_path: Path) -> None:
    redirected = Redirected(server)
    engine = keeper_on("memory", tmp_path, missing_user="allow", model_map={"chat": "gpt-4o"})
    one = wrap(azure(redirected), engine, {"chat": "gpt-4o-mini"})
    other = wrap(azure(redirected), engine)
    with one, other:
        one.with_options(timeout=5).chat.completions.create(model="chat", **CHAT)
        other.chat.completions.create(model="chat", **CHAT)
    assert [call.model for call in engine.store.calls(0, None)] == ["gpt-4o-mini", "gpt-4o"]


def test_patching_takes_a_map_and_a_bad_one_patches_nothing(redirected: Redirected) -> None:
    guard = Guard(store="memory://", missing_user="allow")
    with pytest.raises(budgetguard.ConfigurationError, match="model_map has names and models"):
        guard.patch_openai(model_map={"chat": ""})
    guard.patch_openai(model_map={"chat": "gpt-4o-mini"})
    with azure(redirected) as client:
        client.chat.completions.create(model="chat", **CHAT)
    assert [call.model for call in guard.calls()] == ["gpt-4o-mini"]
    guard.unpatch_openai()


# Other providers


@pytest.mark.parametrize(
    ("base_url", "provider", "model"),
    [
        ("https://openrouter.ai/api/v1", "openrouter", "openai/gpt-4o-mini"),
        ("https://api.groq.com/openai/v1", "groq", "llama-3.1-8b-instant"),
        ("https://api.together.xyz/v1", "together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("https://api.deepseek.com/v1", "deepseek", "deepseek-chat"),
        ("https://api.mistral.ai/v1", "mistral", "mistral-small-latest"),
        ("https://API.Mistral.ai/v1", "mistral", "mistral-small-latest"),
    ],
)
def test_a_provider_is_known_by_its_address_and_its_price_counts(
    books: Books, redirected: Redirected, base_url: str, provider: str, model: str
) -> None:
    with openai.OpenAI(base_url=base_url, api_key="test", http_client=redirected.client) as client:
        client.chat.completions.create(model=model, **CHAT)
    assert books.spent == cost(model, books.server.requests[0], provider=provider) > 0


def test_a_host_that_only_begins_like_a_provider_s_is_none() -> None:
    book = PriceBook()
    for host in ("openrouter.ai.example", "openrouter.ai-free.example", "openrouter.ain"):
        with pytest.raises(UnknownModelError):
            book.rates("deepseek/deepseek-r1:free", base_url=f"https://{host}/api/v1")
    assert book.rates("deepseek/deepseek-r1:free", base_url="https://openrouter.ai/api/v1").is_free


# A server that costs nothing


@pytest.fixture
def free(server: OpenAIServer, tmp_path: Path) -> Iterator[Books]:
    with open_books(server, "memory", tmp_path, usd=0, free_base_urls=(server.base_url,)) as opened:
        yield opened


def test_a_free_server_s_calls_pass_on_an_empty_budget_and_are_in_the_books(free: Books) -> None:
    with free.client() as client:
        client.chat.completions.create(model="llama3.2:latest", **CHAT)
    call = booked(free)
    assert (call.model, call.cost, call.outcome) == ("llama3.2:latest", 0, "answered")
    used = free.server.requests[0].billed
    assert used is not None
    assert call.usage.input_tokens == used["prompt_tokens"] > 0
    assert (free.spent, free.held) == (0, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("user", [None, "nobody-knows-me"])
def test_a_free_call_needs_neither_user_nor_budget(
    server: OpenAIServer, tmp_path: Path, user: str | None, stream: bool
) -> None:
    engine = keeper_on("memory", tmp_path, free_base_urls=(server.base_url,))
    books = Books(engine, server)
    with wrap(books.client(), engine) as client:
        if user is None:
            answer: Any = client.chat.completions.create(model="llama3.2", stream=stream, **CHAT)
        else:
            with budget_user(user):
                answer = client.chat.completions.create(model="llama3.2", stream=stream, **CHAT)
        if stream:
            assert list(answer)
    call = booked(books)
    assert (call.model, call.cost, call.user, call.accounts) == ("llama3.2", 0, user, ())
    assert call.usage.output_tokens > 0


def test_a_free_server_s_unknown_endpoints_and_odd_requests_pass(free: Books) -> None:
    with free.client(max_retries=0) as client:
        with pytest.raises(openai.NotFoundError):
            client.post("/rerank", body={"query": "x"}, cast_to=object)
        for body in ({"model": "x", "prompt": "y", "size": "huge"}, [1, 2]):
            with pytest.raises(openai.APIStatusError):
                client.post("/images/generations", body=body, cast_to=object)
    assert free.server.count() == 3


def test_a_free_model_name_elsewhere_is_refused_and_told_how_to_declare_it(
    server: OpenAIServer, tmp_path: Path
) -> None:
    with open_books(server, "memory", tmp_path, free_base_urls=("http://127.0.0.1:1/v1",)) as books:
        with books.client() as client, pytest.raises(UnknownModelError) as error:
            client.chat.completions.create(model="llama3.2", **CHAT)
        assert f"configure(free_base_urls=['{server.base_url}'])" in str(error.value)
    assert server.count() == 0


def test_an_absolute_url_leaves_what_is_free(free: Books) -> None:
    with free.client() as client, pytest.raises(budgetguard.BudgetExceededError):
        client.post(
            "https://api.openai.com/v1/chat/completions", body={"model": MODEL, **CHAT}, cast_to=object
        )
    assert free.server.count() == 0
    assert USER in [event.user for event in free.of("Refused")]
