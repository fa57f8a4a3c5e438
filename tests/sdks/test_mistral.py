"""Mistral's own SDK, over a real socket: every way, what is refused, and what its retries lose."""

from __future__ import annotations

import inspect
from typing import Any

import httpx
import httpx2
import pytest
from mistralai.client import Mistral
from mistralai.client._hooks import HookContext
from mistralai.client.sdkconfiguration import SDKConfiguration
from mistralai.client.utils import BackoffStrategy, RetryConfig, get_default_logger

from budgetguard.errors import (
    BudgetExceededError,
    ConfigurationError,
    UnknownEndpointError,
    UnknownModelError,
)
from budgetguard.providers.mistral.endpoints import PRICED, TABLE
from budgetguard.providers.sdks import check, wrap

from .books import sdk_books
from .mistral_server import MESSAGES, client, mistral, ways
from .server import Answer, Arrived
from .ways import ASYNC, Way, check_booked, check_refused, check_unnoticed, made, of_ways

WAYS = tuple(ways())
CHAT = next(way for way in WAYS if way.method == "chat.complete")
STREAM = next(way for way in WAYS if way.method == "chat.stream")
_NOW = RetryConfig("backoff", BackoffStrategy(1, 1, 1.0, 10_000), retry_connection_errors=True)


@of_ways(WAYS)
def test_booked_as_billed(way: Way) -> None:
    check_booked(way, mistral, "mistral")


@of_ways(WAYS)
def test_refused_unsent(way: Way) -> None:
    assert len(check_refused(way, mistral, "mistral").of("Projected")) == 1


@of_ways(WAYS)
def test_unnoticed(way: Way) -> None:
    check_unnoticed(way, mistral, "mistral")


def test_a_parsed_answer_is_booked() -> None:
    import pydantic

    class Said(pydantic.BaseModel):
        text: str

    def answer(arrived: Arrived) -> Answer:
        found = mistral(arrived)
        found.body["choices"][0]["message"]["content"] = '{"text": "Hello"}'
        return found

    with sdk_books(answer, "mistral") as books:
        with client(books.server.url) as sdk:
            parsed = sdk.chat.parse(Said, model="mistral-small-latest", messages=MESSAGES, max_tokens=20)
        assert parsed.choices[0].message.parsed == Said(text="Hello")
        assert (books.spent, books.sent) == (CHAT.billed, 1)


class Sent(BaseException):
    """A method came to the request that it makes."""

    def __init__(self, request: Any) -> None:
        super().__init__(request.method)
        self.request = request


class Recording(httpx2.Client):
    """An HTTP client that goes as far as its requests."""

    def send(self, request: Any, **_: Any) -> Any:
        raise Sent(request)


def resources(thing: Any, name: str = "") -> Any:
    """Yield what a client is made of, with its dotted name."""
    for part in getattr(type(thing), "_sub_sdk_map", {}):
        below = getattr(thing, part)
        yield f"{name}{part}", below
        yield from resources(below, f"{name}{part}.")
    for part, below in vars(thing).items():
        if hasattr(below, "do_request") and not part.startswith(("_", "parent")):
            yield f"{name}{part}", below
            yield from resources(below, f"{name}{part}.")


ARGUMENTS: dict[str, Any] = {
    "document": {"type": "document_url", "document_url": "https://example.com/a.pdf"},
    "file": {"file_name": "a.wav", "content": b"x"},
    "inputs": "x",
    "messages": MESSAGES,
    "model": "mistral-small-latest",
}


def what_it_sends(method: Any) -> Any:
    """Return the request that a method makes, None if it makes none."""
    wanted = {
        one.name: ARGUMENTS.get(one.name, "x1")
        for one in inspect.signature(method).parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    }
    try:
        made = method(**wanted)
        if inspect.iscoroutine(made):
            made.close()
    except Sent as sent:
        return sent.request
    except Exception:
        return None
    return None


def paid() -> Any:
    """Yield each method of the SDK that sends what costs: its dotted name, and the name of its row."""
    with Mistral(api_key="test", client=Recording(), server_url="https://api.mistral.ai") as made:
        for name, resource in resources(made):
            for part, method in inspect.getmembers(resource, inspect.ismethod):
                if part.startswith(("_", "do_request")) or inspect.iscoroutinefunction(method):
                    continue
                request = what_it_sends(method)
                if request is None:
                    continue
                try:
                    row = TABLE.endpoint_of(
                        request.method, str(request.url), base_url="https://api.mistral.ai"
                    )
                except UnknownEndpointError:
                    continue
                if row is not None:
                    yield f"{name}.{part}", row.name


def test_every_method_that_costs_money_is_a_way_or_shares_the_row_of_one() -> None:
    found = dict(paid())
    assert {"chat.complete", "chat.stream", "fim.complete", "embeddings.create", "ocr.process"} <= set(found)
    assert set(found.values()) <= {row.name for row in PRICED}
    tried = {way.method.removesuffix("_async") for way in WAYS}
    apart = {name for name in found if name not in tried}
    # What these bill has no public price, or is read as OpenAI's; they are tried below.
    assert apart <= {
        "chat.parse",
        "chat.parse_stream",
        "audio.speech.complete",
        "classifiers.moderate",
        "classifiers.moderate_chat",
        "classifiers.classify",
        "classifiers.classify_chat",
        "responses.create",
        "responses.stream",
        "beta.responses.create",
    }


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda sdk: sdk.agents.complete(agent_id="ag_1", messages=MESSAGES),
            "/agents/completions runs an agent",
        ),
        (
            lambda sdk: sdk.agents.stream(agent_id="ag_1", messages=MESSAGES),
            "/agents/completions runs an agent",
        ),
        (
            lambda sdk: sdk.beta.conversations.start(inputs="x", model="mistral-small-latest"),
            "/conversations goes on by itself",
        ),
        (
            lambda sdk: sdk.batch.jobs.create(
                endpoint="/v1/chat/completions", model="mistral-small-latest", input_files=["f1"]
            ),
            "/batch/jobs runs many requests",
        ),
    ],
)
def test_what_cannot_be_priced_is_refused_by_name(ask: Any, said: str) -> None:
    with sdk_books(mistral, "mistral") as books:
        with client(books.server.url) as sdk, pytest.raises(UnknownEndpointError, match=said):
            ask(sdk)
        assert books.sent == 0


def test_what_has_no_price_is_refused_and_what_only_asks_is_free() -> None:
    with sdk_books(mistral, "mistral") as books, client(books.server.url) as sdk:
        with pytest.raises(UnknownModelError, match="register_price"):
            sdk.classifiers.moderate(model="mistral-moderation-x", inputs=["x"])
        assert books.sent == 0
        sdk.models.list()
        sdk.files.list()
        assert (books.spent, books.sent) == (0, 2)


def test_a_moderation_is_booked_at_a_registered_price() -> None:
    def answer(_: Arrived) -> Answer:
        usage = {"prompt_tokens": 10, "total_tokens": 10}
        return Answer({"id": "m", "model": "mine", "results": [], "usage": usage})

    with sdk_books(answer, "mistral") as books, client(books.server.url) as sdk:
        books.engine.prices.register("mine", input=1, output=0)
        sdk.classifiers.moderate(model="mine", inputs=["Hello there"])
        assert (books.spent, books.held) == (10_000, 0)


def test_one_client_is_wrapped_with_all_its_parts() -> None:
    with (
        sdk_books(mistral, "mistral", patched=False) as books,
        client(books.server.url) as ours,
        client(books.server.url) as other,
    ):
        ours.chat  # noqa: B018 - a part that is there before
        wrap(ours, books.engine)
        for sdk in (ours, other):
            sdk.chat.complete(model="mistral-small-latest", messages=MESSAGES, max_tokens=20)
            sdk.embeddings.create(model="mistral-embed", inputs="Hello")
        assert (books.spent, books.sent) == (CHAT.billed + 4_400, 4)


def test_a_stream_that_is_left_or_cut_is_booked_by_what_was_seen() -> None:
    with sdk_books(mistral, "mistral") as books:
        with (
            client(books.server.url) as sdk,
            sdk.chat.stream(model="mistral-small-latest", messages=MESSAGES, max_tokens=20) as stream,
        ):
            next(iter(stream))
        assert books.held == 0
        assert 0 < books.spent <= CHAT.billed
    with sdk_books(lambda arrived: Answer(mistral(arrived).body, cut=1), "mistral") as books:
        with pytest.raises((httpx.RemoteProtocolError, httpx2.RemoteProtocolError)):
            made(STREAM, books.server.url)
        assert books.held == 0
        assert 0 < books.spent < CHAT.billed


def test_an_answer_that_is_an_error_costs_nothing() -> None:
    with sdk_books(lambda _: Answer({"message": "no"}, status=422), "mistral") as books:
        for way in (CHAT, STREAM):
            with pytest.raises(Exception, match=r"422|no"):
                made(way, books.server.url)
        assert (books.spent, books.held, books.sent) == (0, 0, 2)


class Losing(httpx2.HTTPTransport):
    """Send every request, and lose the first answer."""

    lost = False

    def handle_request(self, request: Any) -> Any:
        response = super().handle_request(request)
        if self.lost:
            return response
        self.lost = True
        response.close()
        raise httpx2.ReadError("the connection is gone", request=request)


def test_tries_that_are_lost_are_booked_beside_the_one_that_answers() -> None:
    said = iter([None, Answer({}, status=500)])
    with (
        sdk_books(lambda arrived: next(said, None) or mistral(arrived), "mistral") as books,
        httpx2.Client(transport=Losing()) as http,
        Mistral(api_key="test", server_url=books.server.url, client=http) as sdk,
    ):
        sdk.chat.complete(model="mistral-small-latest", messages=MESSAGES, max_tokens=20, retries=_NOW)
        (projected,) = books.of("Projected")
        assert books.sent == 3
        assert (books.spent, books.held) == (CHAT.billed + int(projected.cost * 10**9), 0)


def test_a_cap_is_written_into_what_is_sent() -> None:
    with sdk_books(mistral, "mistral", strict=True) as books, client(books.server.url) as sdk:
        books.limit(100_000)
        sdk.chat.complete(model="mistral-small-latest", messages=MESSAGES)
        assert 0 < books.server.requests[0].body["max_tokens"] < 200
        assert (books.spent, books.held) == (CHAT.billed, 0)


def test_a_websocket_is_refused() -> None:
    realtime = pytest.importorskip("mistralai.extra.realtime.transcription")

    with sdk_books(mistral, "mistral") as books, client(books.server.url) as sdk:
        opened = realtime.RealtimeTranscription(sdk.sdk_configuration)
        with pytest.raises(UnknownEndpointError, match="opens a websocket"):
            made(Way("", ASYNC, "", lambda _: opened.connect("voxtral-mini-latest"), 0), books.server.url)
        assert books.sent == 0


def test_azure_is_guarded_at_its_prices() -> None:
    azure = pytest.importorskip("mistralai.azure.client")
    with (
        sdk_books(mistral, "mistral") as books,
        httpx2.Client() as http,
    ):
        sdk = azure.MistralAzure(api_key="test", server_url=books.server.url, client=http)
        books.engine.prices.register("azureai", provider="azure", input=1, output=1)
        sdk.chat.complete(messages=MESSAGES, max_tokens=20)
        assert (books.spent, books.held, books.sent) == (49_000, 0, 1)
        books.limit(100)
        with pytest.raises(BudgetExceededError):
            sdk.chat.complete(messages=MESSAGES, max_tokens=20)
        assert books.sent == 1


def hook_context(configuration: Any) -> HookContext:
    """Return one with whatever this version wants of it."""
    said = {"config": configuration, "base_url": "", "operation_id": "chat"}
    return HookContext(**{name: said.get(name) for name in inspect.signature(HookContext).parameters})


def test_vertex_is_refused() -> None:
    google = pytest.importorskip("mistralai.gcp.client.basesdk")
    base = google.BaseSDK(SDKConfiguration(None, False, None, False, get_default_logger()))
    with sdk_books(mistral, "mistral") as books:
        asked = httpx2.Request("POST", f"{books.server.url}/v1/models/mistral-small:rawPredict", json={})
        with pytest.raises(UnknownEndpointError, match="on Vertex AI"):
            base.do_request(hook_context(base.sdk_configuration), asked, lambda _: False)
        assert books.sent == 0


def test_check_tells_whether_it_is_guarded() -> None:
    said = {one.sdk: one for one in check()}
    assert not said["mistralai"].guarded
    with sdk_books(mistral, "mistral"):
        assert {one.sdk: one.guarded for one in check()}["mistralai"]


def test_a_version_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from budgetguard.providers import methods

    for version in ("1.4.9", "4.0.0"):
        monkeypatch.setattr(methods.metadata, "version", lambda _name, version=version: version)
        with (
            pytest.raises(ConfigurationError, match=f"mistralai {version} is not one"),
            sdk_books(mistral, "mistral"),
        ):
            pass
