"""Cohere's own SDK, over a real socket: every way, what is refused, and what its retries lose."""

from __future__ import annotations

import inspect
import json
from typing import Any

import cohere
import httpx
import pytest
from cohere.core.http_client import HttpClient

from budgetguard.errors import BudgetExceededError, ConfigurationError, UnknownEndpointError
from budgetguard.providers.cohere.endpoints import TABLE
from budgetguard.providers.sdks import check, wrap

from .books import sdk_books
from .cohere_server import CHAT, MESSAGES, cohere_api, v1, v2, ways
from .server import Answer, Arrived
from .ways import STREAM, Way, check_booked, check_refused, check_unnoticed, made, of_ways

WAYS = tuple(ways())
STREAMED = [way for way in WAYS if way.column == STREAM and way.row != "Generate"]
ASKED: dict[str, Any] = {"model": "command-a-03-2025", "messages": MESSAGES, "max_tokens": 20}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@of_ways(WAYS)
def test_booked_as_billed(way: Way) -> None:
    check_booked(way, cohere_api, "cohere")


@of_ways(WAYS)
def test_refused_unsent(way: Way) -> None:
    assert len(check_refused(way, cohere_api, "cohere").of("Projected")) == 1


@of_ways(WAYS)
def test_unnoticed(way: Way) -> None:
    check_unnoticed(way, cohere_api, "cohere")


class Sent(BaseException):
    """A method came to the request that it makes."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(method, path)
        self.method, self.path = method, path


def paid(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the paths of the priced requests that the SDK's methods make."""

    def sent(_self: Any, path: str, *, method: str, **_: Any) -> None:
        raise Sent(method, path)

    monkeypatch.setattr(HttpClient, "request", sent)
    monkeypatch.setattr(HttpClient, "stream", sent)
    found = set()
    for client in (v1("https://api.cohere.com"), v2("https://api.cohere.com")):
        with client:
            parts = [client, *(one for one in vars(type(client)).values() if not callable(one))]
            for name in ("batches", "connectors", "datasets", "embed_jobs", "finetuning", "models", "v2"):
                parts.append(getattr(client, name, None))
            for part in parts:
                found |= {path for path in map(path_of, methods_of(part)) if path is not None}
    return found


def methods_of(part: Any) -> list[Any]:
    kept = inspect.getmembers(part, callable) if part is not None else []
    return [method for name, method in kept if not name.startswith("_")]


def path_of(method: Any) -> str | None:
    """Return the path of the priced request that a method makes, None if it makes none."""
    try:
        parameters = inspect.signature(method).parameters.values()
        wanted = {
            one.name: ["x"] if one.name in ("texts", "documents", "inputs", "examples") else "x"
            for one in parameters
            if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        }
        answer = method(**wanted)
        list(answer) if inspect.isgenerator(answer) else None
    except Sent as sent:
        try:
            row = TABLE.endpoint_of(sent.method, sent.path, base_url="https://api.cohere.com")
        except UnknownEndpointError:
            return None
        return None if row is None else row.name
    except Exception:
        return None
    return None


def test_every_method_that_costs_money_has_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    found = paid(monkeypatch)
    assert {"chat", "embed", "rerank"} <= found
    tried = {way.row.partition(" ")[0].lower() for way in WAYS}
    # Summaries are asked for and answered as generated texts are.
    assert found <= {*tried, "summarize"}


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda url: v1(url).classify(model="x", inputs=["a"]), "/classify is billed by the classification"),
        (
            lambda url: v1(url).embed_jobs.create(model="x", dataset_id="d", input_type="clustering"),
            "/embed-jobs runs many requests",
        ),
    ],
)
def test_what_cannot_be_priced_is_refused_by_name(ask: Any, said: str) -> None:
    with sdk_books(cohere_api, "cohere") as books:
        with pytest.raises(UnknownEndpointError, match=said):
            ask(books.server.url)
        assert books.sent == 0


def test_counting_tokens_is_free() -> None:
    with sdk_books(cohere_api, "cohere") as books, v1(books.server.url) as sdk:
        sdk.tokenize(text="Hello", model="command-a-03-2025", offline=False)
        sdk.detokenize(tokens=[1], model="command-a-03-2025", offline=False)
        sdk.models.list()
        assert (books.spent, books.sent) == (0, 3)


def test_texts_that_are_embedded_in_batches_are_each_booked_to_who_asked() -> None:
    with sdk_books(cohere_api, "cohere") as books, v1(books.server.url) as sdk:
        sdk.embed(model="embed-v4.0", texts=["x"] * 200, input_type="search_query")
        assert (books.spent, books.held, books.sent) == (3 * 480, 0, 3)


def test_images_that_are_embedded_are_projected_and_booked_as_such() -> None:
    def answer(_: Arrived) -> Answer:
        meta = {"billed_units": {"image_tokens": 100, "input_tokens": 0}}
        return Answer({"id": "e", "embeddings": {"float": [[0.1]]}, "meta": meta})

    with sdk_books(answer, "cohere") as books, v2(books.server.url) as sdk:
        sdk.embed(
            model="embed-v4.0",
            images=["data:image/png;base64,AA"],
            input_type="image",
            embedding_types=["float"],
        )
        (projected,) = books.of("Projected")
        assert books.spent == 100 * 470
        assert projected.usage.units["input_image_tokens"] > 1_000


def test_a_long_ranking_is_projected_at_its_searches() -> None:
    with sdk_books(cohere_api, "cohere") as books, v2(books.server.url) as sdk:
        sdk.rerank(model="rerank-v3.5", query="x", documents=["word " * 900] * 120)
        (projected,) = books.of("Projected")
        # Each document counts as two of 500 tokens.
        assert projected.usage.units == {"rerank_searches": 3}


def test_one_client_is_wrapped_with_all_its_parts() -> None:
    with sdk_books(cohere_api, "cohere", patched=False) as books, v2(books.server.url) as ours:
        wrap(ours, books.engine)
        with v2(books.server.url) as other:
            for sdk in (ours, other):
                sdk.chat(**ASKED)
        assert (books.spent, books.sent) == (CHAT, 2)


@of_ways(STREAMED)
def test_a_stream_that_is_left_or_cut_is_booked_by_what_was_seen(way: Way) -> None:
    with sdk_books(cohere_api, "cohere") as books:
        pieces = way.make(books.server.url)
        next(pieces)
        pieces.close()
        assert books.held == 0
        assert 0 < books.spent <= CHAT
    with sdk_books(lambda arrived: cut(cohere_api(arrived)), "cohere") as books:
        with pytest.raises(httpx.RemoteProtocolError):
            made(way, books.server.url)
        assert books.held == 0
        assert 0 < books.spent < CHAT


def cut(answer: Answer) -> Answer:
    return Answer(answer.body, headers=answer.headers, cut=2)


def test_answers_that_are_errors_cost_nothing_and_their_retries_are_one_call() -> None:
    said = iter([Answer({}, status=500, headers={"retry-after-ms": "1"})] * 2)
    with (
        sdk_books(lambda arrived: next(said, None) or cohere_api(arrived), "cohere") as books,
        v2(books.server.url) as sdk,
    ):
        sdk.chat(**ASKED, request_options={"max_retries": 2})
        assert (books.spent, books.held, books.sent) == (CHAT, 0, 3)
        assert len(books.of("Projected")) == 1
    with sdk_books(lambda _: Answer({"message": "no"}, status=422), "cohere") as books:
        with v2(books.server.url) as sdk, pytest.raises(Exception, match="422"):
            sdk.chat(**ASKED)
        with v2(books.server.url) as sdk, pytest.raises(Exception, match="422"):
            list(sdk.chat_stream(**ASKED))
        assert (books.spent, books.held, books.sent) == (0, 0, 2)


class Losing(httpx.HTTPTransport):
    """Send every request, and lose the first answer."""

    lost = False

    def handle_request(self, request: Any) -> Any:
        response = super().handle_request(request)
        if self.lost:
            return response
        self.lost = True
        response.close()
        raise httpx.RemoteProtocolError("the connection is gone", request=request)


@pytest.mark.skipif(
    "retry_remote_protocol_errors" not in inspect.getsource(HttpClient.request), reason="it does not retry"
)
def test_a_try_that_is_lost_is_booked_beside_the_one_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from cohere.core import http_client

    monkeypatch.setattr(http_client.time, "sleep", lambda _seconds: None)
    with (
        sdk_books(cohere_api, "cohere") as books,
        httpx.Client(transport=Losing()) as http,
    ):
        sdk = cohere.ClientV2(api_key="test", base_url=books.server.url, httpx_client=http)
        sdk.chat(**ASKED, request_options={"max_retries": 2, "retry_remote_protocol_errors": True})
        (projected,) = books.of("Projected")
        assert books.sent == 2
        assert (books.spent, books.held) == (CHAT + int(projected.cost * 10**9), 0)


def test_a_cap_is_written_into_what_is_sent() -> None:
    with sdk_books(cohere_api, "cohere", strict=True) as books, v2(books.server.url) as sdk:
        books.limit(2_000_000)
        sdk.chat(model="command-a-03-2025", messages=MESSAGES)
        assert 0 < books.server.requests[0].body["max_tokens"] < 200
        assert (books.spent, books.held) == (CHAT, 0)


def test_what_the_user_adds_to_the_body_is_projected() -> None:
    with sdk_books(cohere_api, "cohere") as books, v2(books.server.url) as sdk:
        more = {"max_tokens": 1_000}
        sdk.chat(
            model="command-a-03-2025",
            messages=MESSAGES,
            request_options={"additional_body_parameters": more},
        )
        (projected,) = books.of("Projected")
        assert projected.output_cap == 1_000
        assert books.server.requests[0].body["max_tokens"] == 1_000


def test_clients_of_other_clouds_are_refused() -> None:
    pytest.importorskip("boto3")
    with sdk_books(cohere_api, "cohere") as books:
        keys = {"aws_access_key": "x", "aws_secret_key": "y", "aws_region": "us-east-1"}
        with pytest.raises(UnknownEndpointError, match="boto3's bedrock-runtime"):
            cohere.BedrockClientV2(**keys).chat(model="cohere.command-r-v1:0", messages=MESSAGES)
        assert books.sent == 0


def test_a_thread_of_many_is_refused_where_the_money_ends() -> None:
    with sdk_books(cohere_api, "cohere") as books, v1(books.server.url) as sdk:
        books.limit(500)
        with pytest.raises(BudgetExceededError):
            sdk.embed(model="embed-v4.0", texts=["a longer text"] * 2_000, input_type="search_query")
        assert books.spent + books.held <= 500


def test_check_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    from budgetguard.providers import methods

    assert not {one.sdk: one.guarded for one in check()}["cohere"]
    with sdk_books(cohere_api, "cohere"):
        assert {one.sdk: one.guarded for one in check()}["cohere"]
    for version in ("5.13.12", "8.0.0"):
        monkeypatch.setattr(methods.metadata, "version", lambda _name, version=version: version)
        with (
            pytest.raises(ConfigurationError, match=f"cohere {version} is not one"),
            sdk_books(cohere_api, "cohere"),
        ):
            pass


def test_a_body_that_is_no_json_is_told() -> None:
    with sdk_books(cohere_api, "cohere") as books, v2(books.server.url) as sdk:
        wire = sdk._client_wrapper.httpx_client
        with pytest.raises(ConfigurationError, match="cannot be read to price it"):
            wire.request("v2/chat", method="POST", content=json.dumps(ASKED).encode())
        assert books.sent == 0
