"""All rows of the matrix. A row of the table of endpoints that is not here fails `test_complete`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import batches, chat, medias, realtime, responses, texts
from .case import CLIENTS, Case
from .ways import Way

CASES: Final[tuple[Case, ...]] = (
    chat.CASE,
    *responses.CASES,
    *texts.CASES,
    *medias.CASES,
    batches.CASE,
    realtime.CASE,
)


def cells(case: Case) -> dict[str, list[Way]]:
    """Return the ways of a case by column."""
    found: dict[str, list[Way]] = {}
    for way in case.ways:
        found.setdefault(way.column, []).append(way)
    return found


def all_ways() -> Iterator[tuple[Case, str, Way]]:
    """Yield every way of every case that this SDK has, with each client."""
    for case in CASES:
        for way in case.ways:
            if way.there:
                for client in CLIENTS:
                    yield case, client, way
