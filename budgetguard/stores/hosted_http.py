"""HTTP/1.1 over one connection, each exchange bounded in time as a whole.

The standard library reads HTTP. Client libraries with pools of their own bound each step of an exchange and
not the whole, and take four times as long for one.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from typing import Any, Final, cast

_SHORTEST_WAIT: Final = 0.001
_LONGEST_ANSWER: Final = 64 * 1024 * 1024
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # where there is one: on Linux


class Unreached(OSError):
    """No connection came about, so nothing was sent; its cause says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold what a service answered.

    Attributes:
        status: of HTTP.
        value: the body as JSON values; None if it is none.
        retry_after: seconds after which it wants to be asked again, if it says so.
        location: where else it sends whoever asks.
    """

    status: int
    value: Any
    retry_after: float = 0.0
    location: str = field(default="", repr=False)


class Wire:
    """Exchange requests and answers over one connection, one after another.

    Attributes:
        reusable: whether another exchange may follow.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.reusable = True
        self._socket = sock
        # Few programs close their stores; an idle connection that is forgotten is nothing to warn of.
        self._hang_up = weakref.finalize(self, sock.close)
        self._deadline = 0.0

    def exchange(self, method: str, request: bytes, deadline: float) -> Answer:
        """Send a request, head and body, and read its answer to the end.

        Raises:
            OSError: the connection broke, or the deadline (of `time.monotonic`) has passed.
            HTTPException: what came is no HTTP.
        """
        self.reusable = False
        self._deadline = deadline
        self._socket.settimeout(left(deadline))
        self._socket.sendall(request)
        if _QUICK_ACK is not None:
            # A service that sends head and body apart would wait 40 ms for the first to be acknowledged.
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        response = HTTPResponse(cast(socket.socket, self), method=method)  # all it wants is `makefile`
        response.begin()
        if (response.length or 0) > _LONGEST_ANSWER:
            raise HTTPException(f"an answer of {response.length} bytes")
        # Without a length nothing but this bounds it; with one, only this tells that it was cut short.
        bounded = response.length is not None or response.chunked
        content = response.read() if response.length is not None else response.read(_LONGEST_ANSWER)
        self.reusable = not response.will_close and response.isclosed()
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            if response.status == 200 and not bounded:
                raise HTTPException("the answer was cut short") from None
            value = None
        after = response.headers.get("retry-after", "")
        return Answer(
            response.status,
            value,
            retry_after=float(after) if after.isascii() and after.isdecimal() else 0.0,
            location=response.headers.get("location", ""),
        )

    def makefile(self, _mode: str) -> BufferedReader:
        """Return what reads the answer."""
        return BufferedReader(_Reading(self._socket, self._deadline))

    def is_stale(self) -> bool:
        """Tell whether something came that nobody asked for: mostly, that the other side has hung up."""
        try:
            if not hasattr(select, "poll"):  # on Windows
                return bool(select.select([self._socket], [], [], 0)[0])
            # `select` takes no descriptors from 1024 on, which busy programs have.
            asked = select.poll()
            asked.register(self._socket, select.POLLIN)
            return bool(asked.poll(0))
        except (OSError, ValueError):  # closed
            return True

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self._hang_up()


class _Reading(RawIOBase):
    """Read a socket until a deadline, however slowly the bytes come."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(left(self._deadline))
        return self._socket.recv_into(buffer)


def left(deadline: float) -> float:
    """Return the seconds that are left.

    Raises:
        TimeoutError: none are.
    """
    seconds = deadline - time.monotonic()
    if seconds < _SHORTEST_WAIT:
        raise TimeoutError("no answer in time")
    return seconds


def connected(host: str, port: int, tls: ssl.SSLContext | None, deadline: float) -> Wire:
    """Connect to a host, at the first of its addresses that takes it.

    Raises:
        Unreached: none does, in time.
    """
    try:
        sock = _at_some_address(host, port, deadline)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                sock.settimeout(left(deadline))
                sock = tls.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise Unreached(str(error)) from error
    return Wire(sock)


def _at_some_address(host: str, port: int, deadline: float) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for place, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            # An address that takes nothing and says nothing must leave time for the others.
            sock.settimeout(left(deadline) / (len(found) - place))
            sock.connect(address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError) or place == len(found) - 1:
                raise
        else:
            return sock
    raise OSError(f"{host} has no address")
