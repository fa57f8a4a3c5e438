"""Realtime sessions: each response that the program asks for over the websocket is a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from tests.adapters.realtime_books import MODEL, TEXT_ONLY, billed_nanos, message
from tests.provider.realtime import RealtimeServer

from .case import Case
from .ways import CONNECT, Way, done, within

METHOD = "realtime.connect"
Ask = Callable[[Any], Awaitable[Any]]


async def _one_by_one(connection: Any) -> list[Any]:
    seen: list[Any] = []
    while not seen or seen[-1].type != "response.done":
        seen.append(await done(connection.recv()))
    return seen


async def _iterated(connection: Any) -> list[Any]:
    seen: list[Any] = []
    if hasattr(connection, "__aiter__"):
        async for event in connection:
            seen.append(event)
            if event.type == "response.done":
                break
        return seen
    for event in connection:
        seen.append(event)
        if event.type == "response.done":
            break
    return seen


async def _in_bytes(connection: Any) -> list[Any]:
    seen: list[Any] = []
    while not seen or seen[-1].type != "response.done":
        seen.append(connection.parse_event(await done(connection.recv_bytes())))
    return seen


def _way(name: str, read: Ask, session: Any = None, by_hand: Any = None) -> Way:
    async def make(client: Any) -> Any:
        async with within(client.realtime.connect(model=MODEL)) as connection:
            if session is not None:
                await done(connection.session.update(session=session))
            await done(connection.conversation.item.create(item=message()))
            if by_hand is None:
                await done(connection.response.create())
            else:
                await done(connection.send(by_hand))
            return type(connection), await read(connection)

    return Way(CONNECT, METHOD, name, make)


def _ways() -> Iterator[Way]:
    yield _way("spoken, one by one", _one_by_one)
    yield _way("spoken, iterated", _iterated)
    yield _way("spoken, in bytes", _in_bytes)
    yield _way("text", _one_by_one, TEXT_ONLY)
    yield _way("an event by hand", _one_by_one, by_hand={"type": "response.create"})


CASE = Case(
    (),
    "Realtime",
    RealtimeServer,
    billed_nanos,
    tuple(_ways()),
    sent=lambda server: server.count("response.create"),
    options=lambda url: {"websocket_base_url": url},
)
