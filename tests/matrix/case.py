"""One endpoint in the matrix: its ways, the server that answers them, and the bill to compare with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import openai

from budgetguard.errors import BudgetExceededError
from tests.adapters.books import Books, open_books
from tests.provider.server import OpenAIServer

from .ways import Way, finish

CLIENTS: Final = ("OpenAI", "AsyncOpenAI")
# USD: more than any of the calls costs, and less than any of them is projected at.
RICH: Final = 100
POOR: Final = 0.0000001
_NUMBERED: Final = re.compile(r"\b([a-z_]+[_-])\d{6}\b")


@dataclass(frozen=True, eq=False)
class Case:
    """Hold one row of the matrix.

    Attributes:
        rows: names of the rows of the table of endpoints (`PRICED`) that it proves.
        title: in the table of docs/openai.md.
        serve: makes a server that answers as the provider does, the same on every start.
        billed: prices the server's own log, with no code that reads answers: Nanos.
        ways: every way in which the SDK makes the call. Each makes one paid request.
        sent: how many paid requests arrived; by default all are. What is free may go out before a refusal.
        options: base URL of the server -> what brings a client there.
    """

    rows: tuple[str, ...]
    title: str
    serve: Callable[[], Any]
    billed: Callable[[Any], int]
    ways: tuple[Way, ...]
    sent: Callable[[Any], int] = OpenAIServer.count
    options: Callable[[str], Mapping[str, Any]] = lambda base_url: {"base_url": base_url}


@dataclass(frozen=True)
class Made:
    """Hold what came of a guarded call.

    Attributes:
        answers: what the caller got, of each try: values, or refusals.
        projected: before the calls, USD each.
        spent, held: by the books, Nanos.
        billed: by the server, Nanos, and for how many requests.
        sent: how many requests arrived.
        estimated: of each settled call, whether it went by the request.
    """

    answers: list[Any]
    projected: list[Decimal]
    spent: int
    held: int
    billed: tuple[int, int]
    sent: int
    estimated: list[bool]


def make(options: Mapping[str, Any], client: str, way: Way, times: int = 1) -> list[Any]:
    """Make a call so often in one way, with the named client; return answers and refusals."""
    if client == "AsyncOpenAI":
        return asyncio.run(_make_async(options, way, times))
    with openai.OpenAI(api_key="test", **options) as opened:
        found = []
        for _ in range(times):
            try:
                found.append(finish(way.make(opened)))
            except BudgetExceededError as refused:
                found.append(refused)
        return found


async def _make_async(options: Mapping[str, Any], way: Way, times: int) -> list[Any]:
    async with openai.AsyncOpenAI(api_key="test", **options) as opened:
        found: list[Any] = []
        for _ in range(times):
            try:
                found.append(await way.make(opened))
            except BudgetExceededError as refused:
                found.append(refused)
        return found


def guarded(
    case: Case,
    client: str,
    way: Way,
    *,
    store: str = "memory://",
    usd: float = RICH,
    times: int = 1,
) -> Made:
    """Make a call so often with openai patched and so much money, kept in this store.

    What goes around the guard to its server is refused: nothing that the guarded client sends may be.
    """
    with case.serve() as server, _open_books(server, store, usd) as books:
        answers = make(case.options(server.base_url), client, way, times)
        return Made(
            answers,
            [event.cost for event in books.of("Projected")],
            books.spent,
            books.held,
            (case.billed(server), len(server.billed)),
            case.sent(server),
            [event.estimated for event in books.of("Settled")],
        )


def _open_books(server: Any, store: str, usd: float) -> AbstractContextManager[Books]:
    hosts = (urlsplit(server.base_url).netloc,)
    return open_books(server, store, Path(), usd=usd, unguarded="block", provider_hosts=hosts)


@cache
def once_guarded(case: Case, client: str, way: Way) -> Made:
    """Make a call once, for all who look at what came of it."""
    return guarded(case, client, way)


def unguarded(case: Case, client: str, way: Way) -> list[Any]:
    """Make a call with nobody between."""
    with case.serve() as server:
        return make(case.options(server.base_url), client, way)


def seen(answers: list[Any]) -> str:
    """Write what a caller saw, such that what is equal for it is equal text.

    The server numbers its ids by requests, and a guard may make some of its own before a call (a batch's file
    is read): so ids count by the order in which they are seen.
    """
    ids: dict[str, str] = {}

    def renumbered(found: re.Match[str]) -> str:
        return ids.setdefault(found[0], f"{found[1]}<{len(ids)}>")

    return _NUMBERED.sub(renumbered, repr(plain(answers)))


def plain(value: Any) -> Any:
    """Write a value so that two of equal types and contents are equal: fields that are set, too."""
    if isinstance(value, openai.BaseModel):
        return (
            type(value),
            value.to_dict(exclude_unset=True, warnings=False),
            getattr(value, "_request_id", None),
        )
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if type(value).__module__.startswith(("openai.", "httpx")) and hasattr(value, "content"):
        return type(value), value.content
    return value
