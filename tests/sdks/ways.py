"""Ways of making one paid call with an SDK, and what is proved of each: booked, refused, unnoticed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

import pytest

from budgetguard.errors import BudgetExceededError

from .books import SdkBooks, sdk_books
from .server import Answer, Arrived, CountingServer

CALL, STREAM, ASYNC, ASYNC_STREAM = "call", "stream", "async", "async stream"
COLUMNS = (CALL, STREAM, ASYNC, ASYNC_STREAM)
Serve = Callable[[Arrived], Answer]


@dataclass(frozen=True, eq=False)
class Way:
    """One way of making one paid call, to its end.

    Attributes:
        row: what is asked, as the table of docs/other-clients.md has it.
        column: how: one of `COLUMNS`.
        method: of the client, such as `chat.complete`.
        make: address of a server -> the answer, what can be awaited for it, or the iterator of its pieces.
        billed: Nanos that the server's answer bills, counted by hand.
        sent: how many requests it makes, all of which are paid.
    """

    row: str
    column: str
    method: str
    make: Callable[[str], Any]
    billed: int
    sent: int = 1

    @property
    def id(self) -> str:
        return f"{self.row} | {self.column} | {self.method}"


def asking(column: str, client: Callable[[str], Any], ask: Callable[[Any], Any]) -> Callable[[str], Any]:
    """Return a way's `make`, which opens a client, asks it, and closes what it has opened.

    Args:
        column: the way's.
        client: address -> a client, which is a context manager, sync or async as the way is.
        ask: client -> its answer, or what yields its pieces; where async, what can be awaited for those.
    """

    def call(url: str) -> Any:
        with client(url) as opened:
            return ask(opened)

    def stream(url: str) -> Iterator[Any]:
        with client(url) as opened, _entered(ask(opened)) as pieces:
            yield from pieces

    async def acall(url: str) -> Any:
        async with client(url) as opened:
            return await ask(opened)

    async def astream(url: str) -> Any:
        async with client(url) as opened:
            asked = ask(opened)
            async with _aentered(await asked if inspect.isawaitable(asked) else asked) as pieces:
                async for piece in pieces:
                    yield piece

    return {CALL: call, STREAM: stream, ASYNC: acall, ASYNC_STREAM: astream}[column]


def _entered(stream: Any) -> Any:
    return stream if hasattr(stream, "__enter__") else closing(stream)


def _aentered(stream: Any) -> Any:
    return stream if hasattr(stream, "__aenter__") else aclosing(stream)


def of_ways(ways: Iterable[Way]) -> pytest.MarkDecorator:
    """Return the parameters of a test of each way."""
    return pytest.mark.parametrize("way", [pytest.param(way, id=way.id) for way in ways])


def made(way: Way, url: str) -> Any:
    """Make the call, and return what came of it: a stream as the list of its pieces."""
    if way.column not in (ASYNC, ASYNC_STREAM):
        answer = way.make(url)
        return list(answer) if way.column == STREAM else answer

    async def run() -> Any:
        answer = way.make(url)
        answer = await answer if inspect.isawaitable(answer) else answer
        return [piece async for piece in answer] if way.column == ASYNC_STREAM else answer

    return asyncio.run(run())


def seen(value: Any) -> Any:
    """Write what a caller saw, such that what is equal for it is equal."""
    if hasattr(value, "model_dump"):
        return type(value), seen(value.model_dump())
    if isinstance(value, list) and value and all(isinstance(one, bytes) for one in value):
        return b"".join(value)  # the network cuts it as it likes
    if isinstance(value, list | tuple):
        return [seen(one) for one in value]
    if isinstance(value, dict):
        return {name: seen(one) for name, one in value.items() if name not in _OF_THE_MOMENT}
    return getattr(value, "content", value)


_OF_THE_MOMENT = {"completed_at", "created", "created_at", "id", "item_id", "response_ms"}


def check_booked(way: Way, serve: Serve, sdk: str) -> None:
    """Check that a call is booked as its answer bills, once, and was projected at no less."""
    with sdk_books(serve, sdk) as books:
        made(way, books.server.url)
        assert (books.spent, books.held, books.sent) == (way.billed, 0, way.sent)
        projected = [event.cost for event in books.of("Projected")]
        assert sum(projected) * 10**9 >= way.billed


def check_refused(way: Way, serve: Serve, sdk: str) -> SdkBooks:
    """Check that a call that the money is not there for is refused as such, at once, and sends nothing."""
    with sdk_books(serve, sdk) as books:
        books.limit(100)
        with pytest.raises(BudgetExceededError):
            made(way, books.server.url)
        assert (books.spent, books.held, books.sent) == (0, 0, 0)
        return books


def check_unnoticed(way: Way, serve: Serve, sdk: str) -> None:
    """Check that a call answers what it answers with nobody between."""
    with CountingServer(serve) as server:
        alone = seen(made(way, server.url))
    with sdk_books(serve, sdk) as books:
        assert seen(made(way, books.server.url)) == alone


def rows(ways: Iterable[Way]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the table: what is asked, and in which columns of `COLUMNS` it is proved."""
    found: dict[str, set[str]] = {}
    for way in ways:
        found.setdefault(way.row, set()).add(way.column)
    for row, columns in found.items():
        yield row, [column for column in COLUMNS if column in columns]
