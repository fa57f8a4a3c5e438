"""The matrix lacks nothing: no row of the table of endpoints, and no method that the SDK has for one."""

from __future__ import annotations

import inspect
import io
from collections.abc import Generator, Iterator
from typing import Any

import openai
import pytest
from openai.resources.responses import Responses

from budgetguard.errors import UnknownEndpointError
from budgetguard.providers.openai.endpoints import PRICED, TABLE
from tests.sdk_methods import methods

from .case import CLIENTS
from .cases import CASES, all_ways
from .ways import CALL, COLUMNS, RAW, STREAM, STREAMING, Way, finish

BASE = "https://api.openai.com/v1/"
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


def paid_methods() -> Iterator[tuple[str, str, bool]]:
    """Yield each method of the SDK that makes a paid request: its name, its row, whether it streams."""
    for name, method, sent in methods(openai.OpenAI, BASE, _ARGUMENTS):
        try:
            row = TABLE.endpoint_of(sent.method, sent.url, base_url=BASE)
        except UnknownEndpointError:
            continue
        if row is not None:
            streams = "stream" in inspect.signature(method).parameters and row.streams
            yield name, row.name, streams


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
