"""The matrix lacks nothing: no row of the table of endpoints, and no method that the SDK has for one."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Generator, Iterator
from typing import Any

import openai
import pytest
from openai.resources.responses import Responses

from budgetguard.errors import UnknownEndpointError
from budgetguard.providers.openai.endpoints import PRICED, TABLE

from .case import CLIENTS
from .cases import CASES, all_ways
from .ways import CALL, COLUMNS, RAW, STREAM, STREAMING, Way, finish

BASE = "https://api.openai.com/v1/"
# Faces of other resources, which lead to the same methods.
_NOT_RESOURCES = ("with_", "_")
# What a method is called with, where it needs or wants more than any text.
_ARGUMENTS: dict[str, Any] = {
    "messages": [{"role": "user", "content": "x"}],
    "file": ("a.wav", io.BytesIO(b"x")),
    "image": b"x",
    "model": "x",
    "input": "x",
}
# Endpoints that the oldest SDK has no methods for.
_YOUNGER = set() if hasattr(Responses, "compact") else {"compact", "videos"}


class Sent(BaseException):
    """A method came to the request that it makes."""

    def __init__(self, method: str, url: str) -> None:
        super().__init__(method, url)
        self.method = method
        self.url = url


class Recording(openai.OpenAI):
    """A client that goes as far as its requests."""

    def request(self, cast_to: Any, options: Any, **_: Any) -> Any:
        raise Sent(options.method, options.url)


def resources(thing: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the resources below a client, and their dotted names."""
    for part in dir(type(thing)):
        if part.startswith(_NOT_RESOURCES):
            continue
        found = inspect.getattr_static(type(thing), part)
        if type(found).__name__ != "cached_property":
            continue
        below = getattr(thing, part)
        if type(below).__module__.startswith("openai.resources"):
            yield f"{name}{part}", below
            yield from resources(below, f"{name}{part}.")


def what_it_sends(method: Any) -> Sent | None:
    """Return the first request of a method, or None if it makes none."""
    wanted = [
        parameter
        for parameter in inspect.signature(method).parameters.values()
        if (parameter.default is parameter.empty or parameter.name in _ARGUMENTS)
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    arguments = {one.name: _ARGUMENTS.get(one.name, "x") for one in wanted}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of methods that are deprecated, which cost what they did
        try:
            made = method(**arguments)
            if hasattr(made, "__enter__"):
                made.__enter__()
        except Sent as sent:
            return sent
        except Exception:
            return None
    return None


def paid_methods() -> Iterator[tuple[str, str, bool]]:
    """Yield each method of the SDK that makes a paid request: its name, its row, whether it streams."""
    with Recording(api_key="test", base_url=BASE) as client:
        for name, resource in resources(client):
            for part, _ in inspect.getmembers(type(resource), inspect.isfunction):
                if part.startswith("_"):
                    continue
                method = getattr(resource, part)
                sent = what_it_sends(method)
                if sent is None:
                    continue
                try:
                    row = TABLE.endpoint_of(sent.method, sent.url, base_url=BASE)
                except UnknownEndpointError:
                    continue
                if row is not None:
                    streams = "stream" in inspect.signature(method).parameters and row.tally is not None
                    yield f"{name}.{part}", row.name, streams


FOUND = list(paid_methods())


def test_every_priced_endpoint_has_a_row() -> None:
    """Whoever teaches an endpoint adds its case here; nothing else is needed."""
    assert {name for case in CASES for name in case.rows} == {row.name for row in PRICED}


@pytest.mark.parametrize(("method", "row", "streams"), FOUND, ids=[found[0] for found in FOUND])
def test_every_method_that_costs_money_is_in_the_matrix(method: str, row: str, streams: bool) -> None:
    # The beta resource of chat is the resource itself.
    names = {method, method.replace("beta.chat.", "chat."), method.replace("chat.", "beta.chat.")}
    ways = [way for case in CASES if row in case.rows for way in case.ways if way.method in names]
    columns = {way.column for way in ways}
    assert columns, f"{method} sends a paid request, and no way of {row!r} calls it"
    if CALL in columns:  # `responses.parse` takes `stream` too, and cannot read one
        assert {RAW, STREAMING, *([STREAM] if streams else [])} <= columns


@pytest.mark.parametrize("client", CLIENTS)
def test_the_matrix_has_both_clients(client: str) -> None:
    """What the SDK of now has; an older one has fewer methods."""
    titles = {case.title for case, found, _ in all_ways() if found == client}
    assert {"Chat", "Responses", "Embeddings", "Speech"} <= titles


def test_it_finds_what_the_sdk_has() -> None:
    """Else all of the above would hold of nothing."""
    found = {name: row for name, row, _ in FOUND}
    assert {row.name for row in PRICED} - set(found.values()) <= _YOUNGER
    assert found["chat.completions.create"] == found["chat.completions.stream"] == "chat"
    assert found["chat.completions.parse"] == "chat"
    assert found["responses.create"] == found["responses.parse"] == found["responses.stream"] == "responses"
    assert found["audio.transcriptions.create"] == "transcriptions"
    assert "moderations.create" not in found
    assert "models.list" not in found


def test_every_way_is_in_a_column_and_every_column_is_used() -> None:
    assert {way.column for case in CASES for way in case.ways} == set(COLUMNS)


def test_a_way_that_waits_for_a_sync_client_is_no_way() -> None:
    async def waits(_client: Any) -> None:
        await _Never()

    class _Never:
        def __await__(self) -> Generator[None, None, None]:
            yield None

    with pytest.raises(AssertionError, match="waited"):
        finish(Way(CALL, "x", "y", waits).make(None))
