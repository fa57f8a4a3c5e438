"""Every path of the API is priced, free, or refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import openai
import pytest

from budgetguard.errors import UnknownEndpointError
from budgetguard.providers.base import Refused
from budgetguard.providers.openai.azure import deployment
from budgetguard.providers.openai.endpoints import FREE, PRICED, REFUSED, TABLE

BASE = "https://api.openai.com/v1/"


@pytest.mark.parametrize(
    "url",
    [
        "/chat/completions",
        "chat/completions",
        "/chat/completions/",
        "/chat/completions?beta=true#x",
        "/v1/chat/completions",
        "https://api.openai.com/v1/chat/completions",
        "https://elsewhere.example/v1/chat/completions?a=b",
        "/deployments/my-gpt/chat/completions",
        "https://one.azure.example/openai/deployments/my-gpt/chat/completions?api-version=1",
        "https://one.azure.example/openai/v1/chat/completions",
        "/files/../chat/completions",
        "/chat%2Fcompletions",
    ],
)
def test_chat_is_found_however_it_is_written(url: str) -> None:
    row = TABLE.endpoint_of("post", url, base_url=BASE)
    assert row is not None
    assert row.name == "chat"


@pytest.mark.parametrize(
    "url", ["//chat/completions", "//chat//completions", "//files/embeddings", "///chat/completions", "/a//b"]
)
def test_a_path_is_the_one_that_the_client_sends_to(url: str) -> None:
    client = openai.OpenAI(api_key="test", base_url=BASE)
    assert TABLE.path_of(url, BASE) == TABLE.path_of(str(client._prepare_url(url)), BASE)


def test_an_azure_deployment_is_read_from_the_path() -> None:
    assert deployment("/deployments/my-gpt/chat/completions") == "my-gpt"
    assert deployment("https://a.example/openai/deployments/my-gpt/embeddings") == "my-gpt"
    assert deployment("/chat/completions") is None


@pytest.mark.parametrize("method", ["GET", "get", "DELETE", "HEAD"])
def test_reading_and_deleting_is_free(method: str) -> None:
    for path in ("/made/up", "/chat/completions", "/unheard/of"):
        assert TABLE.endpoint_of(method, path, base_url=BASE) is None


@pytest.mark.parametrize(
    "path", ["/moderations", "/files", "/uploads/up_1/parts", "/batches/b_1/cancel", "/threads/t_1/messages"]
)
def test_what_costs_nothing_is_free(path: str) -> None:
    assert TABLE.endpoint_of("POST", path, base_url=BASE) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "path",
    [
        "/made/up",
        "/threads/t_1/runs/run_1/made_up",
        "/threads/runs/made_up",
        "/files/search",
        "/batches/batch_1",
        "/vector_stores",
        "/responses/resp_1",
        "/",
        "/files/x/y",
    ],
)
def test_everything_else_is_refused_by_name(method: str, path: str) -> None:
    with pytest.raises(UnknownEndpointError) as error:
        TABLE.endpoint_of(method, path, base_url=BASE)
    assert error.value.endpoint == f"{method} {path}"
    assert repr(path) in str(error.value)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.paths[0])
def test_what_is_known_to_cost_is_refused_with_the_reason(row: Refused) -> None:
    for path in row.paths:
        with pytest.raises(UnknownEndpointError, match=re.escape(row.why)):
            TABLE.endpoint_of("POST", path.replace("{}", "id_1"), base_url=BASE)


@pytest.mark.parametrize("pattern", ["/made/up", "made/up", "/made/{}", "/made/*", "/v1/made/{kind}"])
def test_the_user_may_allow_a_path(pattern: str) -> None:
    assert TABLE.endpoint_of("POST", "/made/up", base_url=BASE, allowed=[pattern]) is None
    for other in ("/made/up/more", "/made", "/made/"):
        with pytest.raises(UnknownEndpointError):
            TABLE.endpoint_of("POST", other, base_url=BASE, allowed=[pattern])


def test_what_has_a_price_is_charged_even_if_it_is_allowed() -> None:
    assert TABLE.endpoint_of("POST", "/embeddings", base_url=BASE, allowed=["/embeddings"]) is not None


@pytest.mark.skipif(
    openai.VERSION.startswith(("1.", "2.")), reason="the table has younger paths than this SDK"
)
def test_the_table_names_paths_of_the_sdk() -> None:
    """A row that no call ever meets would be a slip of the pen."""
    resources = Path(openai.__file__).parent / "resources"
    source = "\n".join(path.read_text() for path in resources.rglob("*.py"))
    known = {re.sub(r"\{\w+\}", "{}", path) for path in re.findall(r'"(/[\w/{}]+)[?"]', source)}
    refused = {path for row in REFUSED for path in row.paths}
    assert {row.path for row in PRICED} | set(FREE) | refused <= known


def test_a_path_is_plain_whatever_its_base() -> None:
    base = "https://gateway.example/team/openai/v1/"
    assert TABLE.path_of(base + "embeddings?x=1", base) == "/embeddings"
    assert TABLE.path_of("/embeddings", base) == "/embeddings"
