"""Requests to a hosted service: over kept connections, bounded in time, sent again after an outage.

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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from typing import Any, Final, cast

from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores import remedies
from budgetguard.stores.link import ServerLink
from budgetguard.stores.targets import KEY_VARIABLE, ServiceTarget
from budgetguard.stores.wire import to_json

_SHORTEST_WAIT: Final = 0.001
_LONGEST_ANSWER: Final = 64 * 1024 * 1024
_LONGEST_QUOTE: Final = 300
_PAUSE: Final = 0.02
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # where there is one: on Linux

_PASSING: Final = frozenset((408, 429, 500, 502, 503, 504))
"""Statuses of what passes by itself: a service that is starting, busy, or whose own store is away."""
_NOT_DONE: Final = frozenset((408, 429))
"""Those of a service that has not carried out what was asked."""

_REMEDIES: Final = {
    401: f"it wants a key that it knows: set {KEY_VARIABLE}, or write https://KEY@HOST, or name it in the "
    "headers that a manager is given; who runs the service makes keys with `budgetguard keys`",
    403: "the key may not do that: it is of another project, or its role is too low (calls and budgets need "
    "spend, resets and deletions admin); who runs the service makes keys with `budgetguard keys`",
    404: "no such service is at that address: check host, port and path; `budgetguard serve` starts one",
    409: "this project keeps as much there as it may: delete what is not needed, or have its limits raised",
    413: "it takes no request of that size; nothing was changed",
    422: "it does not take what was asked; nothing was changed. If the text does not say why, upgrade both",
    429: "it has too much to do, or this key has: try again, or raise its limit; nothing was changed",
    503: "it cannot use its own store, or is starting: see its log, and try again",
}


class UnreachedError(OSError):
    """No connection was made, so nothing was sent; the cause says why."""


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """What a service answered.

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


class _BusyError(Exception):
    """A service answered that it cannot answer now."""

    def __init__(self, answer: ServiceAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


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

    def exchange(self, method: str, request: bytes, deadline: float) -> ServiceAnswer:
        """Send a request, head and body, and read its answer to the end.

        Raises:
            OSError: the connection broke, or the deadline (of `time.monotonic`) has passed.
            HTTPException: what came is no HTTP.
        """
        self.reusable = False
        self._deadline = deadline
        self._socket.settimeout(_left(deadline))
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
        return ServiceAnswer(
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
        self._socket.settimeout(_left(self._deadline))
        return self._socket.recv_into(buffer)


class HostedLink(ServerLink[HTTPConnection]):
    """Send requests to one service, from any thread.

    Args:
        target: where, with which headers, and for how long.

    Raises:
        ConfigurationError: its file of certificate authorities cannot be read.
    """

    def __init__(self, target: ServiceTarget) -> None:
        self.target = target
        lines = [f"Host: {target.authority}", "Accept: application/json"]
        lines += [f"{name}: {value}" for name, value in target.headers]
        self._head = "\r\n".join(lines)
        if target.ssl_ca_certs is not None:
            _ = self._tls
        super().__init__(target.timeout)

    def ask(self, method: str, path: str, body: object = None, *, repeat: bool = True) -> ServiceAnswer:
        """Send a request and return its answer, whatever its status, unless it is one that passes by itself.

        Args:
            method: such as `POST`.
            path: from the first slash on, percent-encoded.
            body: JSON values; None sends none.
            repeat: whether it may arrive twice. If not, it is sent again only where it was not carried out.

        Raises:
            StoreError: no answer in time, or only that the service is not ready.
        """
        deadline = self.deadline()
        request = self._pack(method, path, body)

        def attempt(connection: HTTPConnection) -> ServiceAnswer:
            try:
                answer = connection.exchange(method, request, deadline)
            except (OSError, HTTPException) as error:
                if repeat:
                    raise
                text = self._explained(error).rstrip(".")
                raise StoreError(
                    f"{text}. It may have been carried out all the same: look before you send it again."
                ) from error
            if answer.status not in _PASSING:
                return answer
            if repeat or answer.status in _NOT_DONE:
                raise _BusyError(answer)
            raise StoreError(self.explain_answer(answer))

        try:
            return self._repeat(attempt, deadline, fresh=not repeat)
        except (OSError, HTTPException) as error:
            raise StoreError(self._explained(error)) from error
        except _BusyError as error:
            raise StoreError(self.explain_answer(error.answer)) from None

    def explain_answer(self, answer: ServiceAnswer, wrong: str = "", *, protocol: str = "") -> str:
        """Return the text of a StoreError for an answer that is not the one asked for. It shows no key.

        Args:
            answer: what came.
            wrong: what cannot be read in it.
            protocol: what was asked in, other than budgetguard's own.
        """
        status = answer.status
        if 300 <= status < 400:
            remedy = f"it sends whoever asks to {answer.location.partition('?')[0]}: name that address itself"
        elif protocol and (status < 300 or status in (404, 405)):
            remedy = f"what answers there does not speak {protocol}: check the address"
        elif status < 300:
            remedy = (
                "its answer is not that of a budget service of this version: "
                "check the address, and upgrade both"
            )
        else:
            remedy = _REMEDIES.get(status, "see its log")
        said = wrong or _message(answer.value)
        return f"cannot use the service at {self.target}: {remedy} (HTTP {status}{said and f': {said}'})"

    def _explained(self, error: Exception) -> str:
        return remedies.explain(error, self.target, self.target.timeout, remedies.HTTP)

    def _pack(self, method: str, path: str, body: object) -> bytes:
        content = b"" if body is None else to_json(body).encode("ascii")
        length = "" if body is None else f"Content-Length: {len(content)}\r\n"
        head = f"{method} {self.target.path}{path} HTTP/1.1\r\n{self._head}\r\n{length}\r\n"
        return head.encode("ascii") + content

    def _take(self) -> HTTPConnection | None:
        while (connection := super()._take()) is not None and connection.is_stale():
            connection.close()
        return connection

    def _connect(self, deadline: float) -> HTTPConnection:
        target = self.target
        try:
            sock = _socket_to(target.host, target.port, deadline)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if target.scheme == "https":
                    sock.settimeout(_left(deadline))
                    sock = self._tls.wrap_socket(sock, server_hostname=target.host)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise UnreachedError(f"{type(error).__name__}: {error}") from error
        return HTTPConnection(sock)

    def _disconnect(self, connection: HTTPConnection) -> None:
        connection.close()

    def _is_in_order(self, connection: HTTPConnection, error: BaseException | None) -> bool:
        return connection.reusable

    def _retry_after(self, error: Exception, connection: HTTPConnection | None) -> float | None:
        if isinstance(error, _BusyError):
            return max(_PAUSE, error.answer.retry_after)
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            return None
        return 0.0 if isinstance(error, OSError | HTTPException) else None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.target.ssl_ca_certs)
        except OSError as error:
            raise ConfigurationError(
                f"store {str(self.target)!r}: ssl_ca_certs {self.target.ssl_ca_certs!r} cannot be read as a "
                f"file of certificates ({error})"
            ) from error


def _left(deadline: float) -> float:
    """Return the seconds that are left.

    Raises:
        TimeoutError: none are.
    """
    seconds = deadline - time.monotonic()
    if seconds < _SHORTEST_WAIT:
        raise TimeoutError("no answer in time")
    return seconds


def _socket_to(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of a host that takes it in time."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for place, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            # An address that takes nothing and says nothing must leave time for the others.
            sock.settimeout(_left(deadline) / (len(found) - place))
            sock.connect(address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError) or place == len(found) - 1:
                raise
        else:
            return sock
    raise OSError(f"{host} has no address")


def _message(value: Any) -> str:
    """Return the message of a service's error, shortened; empty if there is none."""
    message = value.get("message") if isinstance(value, Mapping) else None
    if not isinstance(message, str):
        return ""
    text = " ".join(message.split())
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
