"""The package's clients for other clouds: guarded as Anthropic's own, at the prices of cloud and region."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import anthropic
import pytest

from budgetguard.config import changed
from budgetguard.errors import (
    BudgetExceededError,
    ConfigurationError,
    UnknownEndpointError,
    UnknownModelError,
)

from .methods import CLOUDS_COPY
from .server import MessagesServer, Reply

BODY: dict[str, Any] = {
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Say hello to everybody in the room."}],
}
AWS = {"aws_access_key": "key", "aws_secret_key": "secret", "aws_region": "us-east-1"}
VERTEX = {"project_id": "p", "access_token": "token"}

# Client -> how it is made, a model of its own, and Nanos a token of input and output there.
CLOUDS: dict[str, tuple[Mapping[str, Any], str, int, int]] = {
    "Bedrock": (AWS, "us.anthropic.claude-haiku-4-5-20251001-v1:0", 1_100, 5_500),
    "BedrockMantle": (
        {"api_key": "k", "aws_region": "us-east-1"},
        "anthropic.claude-opus-4-8",
        5_500,
        27_500,
    ),
    "Vertex": ({**VERTEX, "region": "us-east5"}, "claude-sonnet-4-5@20250929", 3_300, 16_500),
    "Foundry": ({"api_key": "k"}, "claude-sonnet-5", 2_000, 10_000),
    "AWS": ({"api_key": "k", "aws_region": "us-east-1", "workspace_id": "w"}, "claude-opus-5", 5_000, 25_000),
    "GoogleCloud": ({"project": "p", "workspace_id": "w", "skip_auth": True}, "claude-opus-5", 5_000, 25_000),
}


def has(cloud: str) -> bool:
    return hasattr(anthropic, f"Anthropic{cloud}")


every_cloud = pytest.mark.parametrize(
    "cloud",
    [
        pytest.param(one, marks=pytest.mark.skipif(not has(one), reason="not in this anthropic"))
        for one in CLOUDS
    ],
)


def made(books: Any, cloud: str, *, prefix: str = "", **more: Any) -> Any:
    kind = getattr(anthropic, f"{prefix}Anthropic{cloud}")
    return kind(**{**CLOUDS[cloud][0], **more}, base_url=books.server.base_url)


def cost(cloud: str) -> int:
    _, _, read, written = CLOUDS[cloud]
    return 20 * read + 9 * written


def _drained(stream: Any) -> list[Any]:
    with stream as events:
        return list(events)


def _helped(manager: Any) -> str:
    with manager as stream:
        text: str = stream.get_final_text()
        return text


def _raw(manager: Any) -> Any:
    with manager as response:
        return list(response.iter_bytes(11))


WAYS: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "create": lambda c, body: c.messages.create(**body),
    "stream=True": lambda c, body: _drained(c.messages.create(**body, stream=True)),
    "stream helper": lambda c, body: _helped(c.messages.stream(**body)),
    "raw": lambda c, body: c.messages.with_raw_response.create(**body).parse(),
    "streaming raw": lambda c, body: _raw(c.messages.with_streaming_response.create(**body)),
    "streaming raw stream": lambda c, body: _raw(
        c.messages.with_streaming_response.create(**body, stream=True)
    ),
    "beta": lambda c, body: c.beta.messages.create(**body),
    "beta stream": lambda c, body: _drained(c.beta.messages.create(**body, stream=True)),
    "copy": lambda c, body: (c.with_options(timeout=20) if CLOUDS_COPY else c).messages.create(**body),
}


@every_cloud
@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_booked_at_the_cloud_s_price_or_refused_unsent(
    cloud: str, way: str, open_books: Any
) -> None:
    books = open_books(MessagesServer())
    body = {**BODY, "model": CLOUDS[cloud][1]}
    with made(books, cloud) as client:
        WAYS[way](client, body)
        assert (books.spent, books.held, books.server.count()) == (cost(cloud), 0, 1)
        assert [event.model for event in books.of("Held")] == [body["model"]]
        books.limit(books.spent + 1)
        with pytest.raises(BudgetExceededError):
            WAYS[way](client, body)
    assert (books.spent, books.held, len(books.server.requests)) == (cost(cloud), 0, 1)


@every_cloud
async def test_each_async_client_is_booked_or_refused_unsent(cloud: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    body = {**BODY, "model": CLOUDS[cloud][1]}
    async with made(books, cloud, prefix="Async") as client:
        await client.messages.create(**body)
        async with await client.messages.create(**body, stream=True) as events:
            kinds = [event.type async for event in events]
        assert kinds[-1] == "message_stop"
        assert (books.spent, books.held, books.server.count()) == (2 * cost(cloud), 0, 2)
        books.limit(books.spent + 1)
        for more in ({}, {"stream": True}):
            with pytest.raises(BudgetExceededError):
                await client.messages.create(**body, **more)
    assert len(books.server.requests) == 2


@every_cloud
def test_one_client_of_a_cloud_can_be_wrapped(cloud: str, open_books: Any, patch: Any) -> None:
    books = open_books(MessagesServer(), patched=False)
    body = {**BODY, "model": CLOUDS[cloud][1]}
    with made(books, cloud) as other:
        client = patch.wrap(made(books, cloud), books.engine)
        other.messages.create(**body)
        assert books.spent == 0
        client.messages.create(**body)
        WAYS["copy"](client, body)
    assert (books.spent, books.held) == (2 * cost(cloud), 0)


BEDROCK_MODELS = {
    "global.anthropic.claude-haiku-4-5-20251001-v1:0": (1_000, 5_000),
    "eu.anthropic.claude-haiku-4-5-20251001-v1:0": (1_100, 5_500),
    "anthropic.claude-haiku-4-5-20251001-v1:0": (1_100, 5_500),
    "us.anthropic.claude-3-7-sonnet-20250219-v1:0": (3_000, 15_000),
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/"
    "global.anthropic.claude-haiku-4-5-20251001-v1:0": (1_000, 5_000),
}


@pytest.mark.parametrize("model", BEDROCK_MODELS)
def test_bedrock_s_regions_have_their_own_prices(model: str, open_books: Any) -> None:
    books = open_books(
        MessagesServer(Reply(more={"model": "claude-haiku-4-5-20251001"} if "arn" in model else {}))
    )
    read, written = BEDROCK_MODELS[model]
    with made(books, "Bedrock") as client:
        if "arn" in model:
            client.post(f"/model/{model.replace('/', '%2F')}/invoke", body=BODY, cast_to=object)
        else:
            client.messages.create(**BODY, model=model)
    assert (books.spent, books.held) == (20 * read + 9 * written, 0)


def test_a_profile_whose_model_only_its_owner_knows_is_refused_until_it_is_mapped(open_books: Any) -> None:
    books = open_books(MessagesServer(Reply(more={"model": "claude-haiku-4-5-20251001"})))
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    with made(books, "Bedrock") as client:
        with pytest.raises(UnknownModelError, match="application-inference-profile/abc"):
            client.messages.create(**BODY, model=arn)
        assert books.server.requests == []
        mapped = {arn: "us.anthropic.claude-haiku-4-5-20251001-v1:0"}
        books.engine.configure(changed(books.engine.settings, {"model_map": mapped}))
        client.messages.create(**BODY, model=arn)
    assert (books.spent, books.held) == (cost("Bedrock"), 0)


VERTEX_REGIONS = {
    "global": (3_000, 15_000),
    "europe-west1": (3_300, 16_500),
    "eu": (3_300, 16_500),
    "us": (3_300, 16_500),
}


@pytest.mark.parametrize("region", VERTEX_REGIONS)
def test_vertex_costs_more_in_a_region(region: str, open_books: Any) -> None:
    """Each client has its own, behind one gateway."""
    books = open_books(MessagesServer())
    read, written = VERTEX_REGIONS[region]
    with made(books, "Vertex") as other, made(books, "Vertex", region=region) as client:
        other.messages.create(**BODY, model="claude-sonnet-4-5@20250929")
        client.messages.create(**BODY, model="claude-sonnet-4-5@20250929")
        assert books.spent == cost("Vertex") + 20 * read + 9 * written
        # An older model costs the same everywhere.
        client.messages.create(**BODY, model="claude-opus-4-1@20250805")
    assert books.spent == cost("Vertex") + 20 * (read + 15_000) + 9 * (written + 75_000)


def test_searches_on_vertex_have_their_fee(open_books: Any) -> None:
    usage = {"input_tokens": 20, "output_tokens": 9, "server_tool_use": {"web_search_requests": 2}}
    books = open_books(MessagesServer(Reply(usage=usage)))
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    with made(books, "Vertex") as client:
        client.messages.create(**BODY, model="claude-sonnet-4-5@20250929", tools=[search])
    assert (books.spent, books.held) == (cost("Vertex") + 2 * 10_000_000, 0)


def test_the_model_that_served_is_priced_where_it_was_asked(open_books: Any) -> None:
    """Bedrock's answers name a model without its region."""
    books = open_books(MessagesServer(Reply(more={"model": "claude-opus-4-8"})))
    with made(books, "Bedrock") as client:
        client.messages.create(**BODY, model="global.anthropic.claude-haiku-4-5-20251001-v1:0")
        assert books.spent == 20 * 5_000 + 9 * 25_000
        client.messages.create(**BODY, model="us.anthropic.claude-haiku-4-5-20251001-v1:0")
    assert books.spent == 20 * 10_500 + 9 * 52_500


@pytest.mark.parametrize("cloud", ["Bedrock", "Vertex"])
def test_what_is_posted_to_a_cloud_s_own_address_is_guarded(cloud: str, open_books: Any) -> None:
    books = open_books(MessagesServer())
    model = CLOUDS[cloud][1]
    paths = {
        "Bedrock": (f"/model/{model}/invoke", f"/model/{model}/invoke-with-response-stream"),
        "Vertex": tuple(
            f"/projects/p/locations/us-east5/publishers/anthropic/models/{model}:{verb}"
            for verb in ("rawPredict", "streamRawPredict")
        ),
    }[cloud]
    with made(books, cloud) as client:
        client.post(paths[0], body=BODY, cast_to=object)
        kind = anthropic.Stream[anthropic.types.RawMessageStreamEvent]
        body = {**BODY, "stream": True}
        _drained(client.post(paths[1], body=body, cast_to=object, stream=True, stream_cls=kind))
        assert (books.spent, books.held) == (2 * cost(cloud), 0)
        with pytest.raises(UnknownEndpointError, match="may cost money"):
            client.post(
                paths[0].replace("invoke", "converse").replace("raw", "un"), body=BODY, cast_to=object
            )


def test_a_bedrock_stream_that_is_left_or_breaks_off_is_booked_by_what_was_seen(open_books: Any) -> None:
    usage = {"input_tokens": 20, "output_tokens": 500}
    long = Reply(text="word " * 500, usage=usage)
    books = open_books(MessagesServer([long, Reply(text="word " * 100, events=10)]))
    body = {**BODY, "max_tokens": 900, "model": CLOUDS["Bedrock"][1]}
    with made(books, "Bedrock") as client:
        with client.messages.create(**body, stream=True) as stream:
            for event in stream:
                if event.type == "content_block_delta":
                    break
        first = books.spent
        assert books.held == 0
        assert 20 * 1_100 < first < 20 * 1_100 + 500 * 5_500
        with pytest.raises(Exception, match=r"(?i)incomplete|peer closed"):
            _drained(client.messages.create(**body, stream=True))
    assert books.held == 0
    assert first + 20 * 1_100 <= books.spent < first + 20 * 1_100 + 100 * 5_500


def test_an_error_in_a_bedrock_stream_books_what_was_seen(open_books: Any) -> None:
    books = open_books(MessagesServer(Reply(error="overloaded_error")))
    with (
        made(books, "Bedrock") as client,
        contextlib.suppress(anthropic.APIError),
    ):  # older ones raise nothing
        _drained(client.messages.create(**BODY, model=CLOUDS["Bedrock"][1], stream=True))
    assert books.held == 0
    assert 20 * 1_100 <= books.spent <= cost("Bedrock")


def test_batches_that_a_cloud_does_not_have_cost_nothing(open_books: Any) -> None:
    books = open_books(MessagesServer())
    request = {"custom_id": "a", "params": {**BODY, "model": CLOUDS["Bedrock"][1]}}
    with made(books, "Bedrock") as client, pytest.raises(anthropic.AnthropicError, match="Batch API"):
        client.post("/v1/messages/batches", body={"requests": [request]}, cast_to=object)
    assert (books.server.requests, books.spent, books.held) == ([], 0, 0)


def test_a_cloud_that_nobody_here_has_heard_of_is_refused_by_name(open_books: Any, patch: Any) -> None:
    class AnthropicMoon(anthropic.Anthropic):
        __module__ = "anthropic.lib.moon"

    books = open_books(MessagesServer())
    with AnthropicMoon(base_url=books.server.base_url, api_key="k") as client:
        body = {**BODY, "model": "claude-sonnet-5"}
        with pytest.raises(UnknownEndpointError, match="POST /AnthropicMoon/messages sends to a cloud that"):
            client.messages.create(**body)
        with pytest.raises(ConfigurationError, match="AnthropicMoon cannot be wrapped"):
            patch.wrap(client, books.engine)
        assert books.server.requests == []
        allowed = changed(books.engine.settings, {"allow_endpoints": ["/AnthropicMoon/messages"]})
        books.engine.configure(allowed)
        client.messages.create(**body)
    assert (books.server.count(), books.spent) == (1, 0)
