"""Connections: how many one process keeps, and how long one may stay silent.

A connection costs a file descriptor before it has sent a key. So there are fewer of them than descriptors; a
request's head must come within seconds, and an answer must be taken within a minute. Where all places are
taken, a new connection replaces the one that has been silent for longest, at the address with the most silent
ones. A connection whose request the service is working on stays; one that waits for its client, to send the
rest of its body or to take its answer, is dropped last.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from typing import Any, Final, Literal, Protocol, TypeAlias

from uvicorn.protocols.http.auto import AutoHTTPProtocol

MOST: Final = "BUDGETGUARD_SERVE_CONNECTIONS"
"""The variable with the number of connections that one process keeps."""

BACKLOG: Final = 128
"""Connections that the kernel accepts ahead, before one can be dropped for another."""

State: TypeAlias = Literal["mute", "idle", "slow", "busy"]
"""No request yet; between two requests; waiting for the client within one; being answered."""

_DROPPABLE: Final[tuple[State, ...]] = ("mute", "idle", "slow")
_HEAD_S: Final = 10.0
_TAKING_S: Final = 60.0
_UNLIMITED: Final = 10_000
_LOG_EVERY_S: Final = 60.0
_log = logging.getLogger("budgetguard.server")


class _Seldom(logging.Filter):
    """A filter that passes each warning once a minute: strangers may cause as many as they like."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING or not isinstance(record.msg, str):
            return True
        now = time.monotonic()
        if now - self._said.get(record.msg, float("-inf")) < _LOG_EVERY_S:
            return False
        self._said[record.msg] = now  # the texts are a few: what varies stands in their arguments
        return True


logging.getLogger("uvicorn.error").addFilter(_Seldom())


class Droppable(Protocol):
    """A connection that can be ended."""

    def drop(self) -> None:
        """End the connection at once."""


class Connections:
    """All connections of the process, and which of them can be dropped for another.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        # The connections of each state that can be dropped, by address, the oldest first.
        self._silent: dict[State, dict[str, OrderedDict[Droppable, None]]] = {one: {} for one in _DROPPABLE}
        self._logged = float("-inf")

    def add(self, one: Droppable, address: str) -> bool:
        """Add a new connection, dropping another if need be; return whether there is a place for it."""
        if self._count >= self._most:
            self._say()
            if not any(self._drop(self._silent[state]) for state in _DROPPABLE):
                return False
        self._count += 1
        self.note(one, address, "mute")
        return True

    def note(self, one: Droppable, address: str, state: State) -> None:
        """Set the state of a connection."""
        for among in self._silent.values():
            _take(among, one, address)
        if state != "busy":
            self._silent[state].setdefault(address, OrderedDict())[one] = None

    def remove(self, one: Droppable, address: str) -> None:
        """Remove a connection that was added and has ended."""
        self.note(one, address, "busy")
        self._count -= 1

    def _drop(self, among: dict[str, OrderedDict[Droppable, None]]) -> bool:
        if not among:
            return False
        address = max(among, key=lambda name: len(among[name]))
        next(iter(among[address])).drop()
        return True

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            _log.warning(
                "all %d connections are in use: silent ones are closed for new ones",
                self._most,
            )


class GuardedProtocol(AutoHTTPProtocol):  # type: ignore[valid-type, misc]  # httptools or h11
    """uvicorn's HTTP, for a connection that is one of `Connections`."""

    _timer: asyncio.TimerHandle | None = None
    _address = ""
    _is_kept = False
    _state: State = "mute"
    _is_taking = True

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Keep the connection if there is a place."""
        super().connection_made(transport)
        # Else an answer, sent in two parts, may wait 40 ms for the client to acknowledge the first. asyncio
        # sees to that itself, but not for the sockets that uvicorn makes for several workers.
        with suppress(OSError, TypeError):  # uvloop's sockets take no options: it has set this one
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._is_kept = _connections().add(self, self._address)
        if self._is_kept:
            self._timer = self.loop.call_later(_HEAD_S, self.drop)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the connection's place."""
        self._leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, and limit the time for the rest of a request's head."""
        super().data_received(data)
        self._look()
        if self._state in ("mute", "idle") and self._timer is None:
            self._timer = self.loop.call_later(_HEAD_S, self.drop)

    def on_response_complete(self) -> None:
        """Mark the connection as idle, unless another request waits on it."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """Wait for the client to take its answer, for a limited time."""
        super().pause_writing()
        self._is_taking = False
        self._look()
        self._stop_timer()
        self._timer = self.loop.call_later(_TAKING_S, self.drop)

    def resume_writing(self) -> None:
        """Go on: the client has taken its answer."""
        super().resume_writing()
        self._is_taking = True
        self._stop_timer()
        self._look()

    def drop(self) -> None:
        """End the connection at once, whatever part of a request it has sent."""
        self._leave()
        self.transport.abort()

    def _look(self) -> None:
        cycle: Any = self.cycle
        state: State = "busy"
        if cycle is None:
            state = "mute"
        elif not self._is_taking:
            state = "slow"
        elif cycle.response_complete:
            state = "idle"
        elif cycle.more_body:
            state = "slow"
        if state in ("busy", "slow") and self._is_taking:
            self._stop_timer()
        if state != self._state and self._is_kept:
            self._state = state
            _connections().note(self, self._address, state)

    def _leave(self) -> None:
        self._stop_timer()
        if self._is_kept:
            self._is_kept = False
            _connections().remove(self, self._address)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@cache
def _connections() -> Connections:
    return Connections(int(os.environ.get(MOST) or most_connections()))


def most_connections() -> int:
    """Return how many connections this process can keep: half its descriptors, as stores take some, too."""
    try:
        import resource
    except ImportError:  # Windows counts otherwise
        return _UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _UNLIMITED
    return max(1, min(_UNLIMITED, soft // 2))


def _take(among: dict[str, OrderedDict[Droppable, None]], one: Droppable, address: str) -> None:
    here = among.get(address)
    if here is not None and one in here:
        del here[one]
        if not here:
            del among[address]
