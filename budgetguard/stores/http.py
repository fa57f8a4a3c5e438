"""HTTP over one connection: requests and answers, each bounded in time as a whole.

The standard library reads HTTP. Client libraries with pools of their own bound each step of an exchange and
not the whole, and take four times as long for one.
"""

from __future__ import annotations

import json
import select
import selectors
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


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """What a server answered.

    Attributes:
        status: of HTTP.
        value: the body as JSON values; None if it is none.
        retry_after: seconds after which it wants to be asked again; 0 if it does not say.
        location: the address that it redirects to.
    """

    status: int
    value: Any
    retry_after: float = 0.0
    location: str = field(default="", repr=False)


class HTTPConnection:
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

    def send(self, method: str, request: bytes, deadline: float) -> HTTPResponse:
        """Send a request, and read the head of its answer.

        Args:
            method: such as `POST`.
            request: head and body, see `pack`.
            deadline: when to give up (time.monotonic()).

        Raises:
            OSError: the connection broke, or the deadline has passed.
            HTTPException: what came is no HTTP.
        """
        self.reusable = False
        self._deadline = deadline
        self._socket.settimeout(left(deadline))
        self._socket.sendall(request)
        if _QUICK_ACK is not None:
            # A server that sends head and body apart would wait 40 ms for the first to be acknowledged.
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        response = HTTPResponse(cast(socket.socket, self), method=method)  # all it wants is `makefile`
        response.begin()
        return response

    def exchange(self, method: str, request: bytes, deadline: float) -> HTTPAnswer:
        """Send a request, and read its answer to the end; arguments and errors are those of `send`."""
        response = self.send(method, request, deadline)
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
        return HTTPAnswer(
            response.status,
            value,
            retry_after=float(after) if after.isascii() and after.isdecimal() else 0.0,
            location=response.headers.get("location", ""),
        )

    def makefile(self, _mode: str) -> BufferedReader:
        """Return what reads the answer."""
        return BufferedReader(_DeadlineReader(self._socket, self._deadline))

    def is_stale(self) -> bool:
        """Return whether something came that nobody asked for: mostly, that the other side has hung up."""
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


class _DeadlineReader(RawIOBase):
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
    """Return the seconds that are left until a deadline (time.monotonic()).

    Raises:
        TimeoutError: none are.
    """
    seconds = deadline - time.monotonic()
    if seconds < _SHORTEST_WAIT:
        raise TimeoutError("no answer in time")
    return seconds


def pack(method: str, target: str, head: str, content: bytes | None) -> bytes:
    """Return a request as it is sent.

    Args:
        method: such as `POST`.
        target: path and query, percent-encoded.
        head: the headers, as lines, but for the length.
        content: the body; None is none.
    """
    length = "" if content is None else f"Content-Length: {len(content)}\r\n"
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n{length}\r\n".encode("ascii") + (content or b"")


def connect(host: str, port: int, deadline: float, tls: ssl.SSLContext | None = None) -> HTTPConnection:
    """Return a connection to a server, made by a deadline (time.monotonic()).

    Raises:
        OSError: there is no such host, nobody answers there, or TLS failed.
    """
    sock = _socket_to(host, port, deadline)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            sock.setblocking(False)
            sock = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            _shake_hands(sock, deadline)
    except BaseException:
        sock.close()
        raise
    return HTTPConnection(sock)


def _shake_hands(sock: ssl.SSLSocket, deadline: float) -> None:
    """Set up TLS: a timeout of the socket would bound each of the steps and not the whole."""
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            wanted = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            wanted = selectors.EVENT_WRITE
        with selectors.DefaultSelector() as selector:
            selector.register(sock, wanted)
            selector.select(left(deadline))


def _socket_to(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of a host that takes it in time."""
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
