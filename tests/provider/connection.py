"""Just enough HTTP/1.1 to serve a JSON API on loopback: keep-alive, chunked answers, hang-ups noticed."""

from __future__ import annotations

import contextlib
import http
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_MAX_LINE = 65_536
_MAX_HEADERS = 200
_MAX_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """Hold one request as it came: header names are in lower case, `target` still has its query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    close: bool


class Connection:
    """Speak HTTP/1.1 over one accepted socket; used by one thread, except `abort`."""

    def __init__(self, sock: socket.socket) -> None:
        # Without it the last small chunk of a stream waits for the peer's delayed ACK: 40 ms.
        # A client that has reset the connection already makes it fail; reading finds out soon enough.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._reader = sock.makefile("rb")

    def read_request(self) -> HTTPRequest | None:
        """Read the next request, or None when the peer has hung up or does not speak HTTP.

        Raises:
            OSError: the connection broke, or was aborted.
        """
        line = self._reader.readline(_MAX_LINE).decode("latin-1")
        words = line.split()
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return None
        method, target, version = words
        headers = self._read_headers()
        if headers is None:
            return None
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > _MAX_BODY:
            self.send_response(411 if "transfer-encoding" in headers else 413, {"connection": "close"}, b"")
            return None
        if headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = self._reader.read(int(length))
        if len(body) < int(length):
            return None
        wish = headers.get("connection", "close" if version == "HTTP/1.0" else "keep-alive")
        return HTTPRequest(method, target, headers, body, close=wish.lower() == "close")

    def _read_headers(self) -> dict[str, str] | None:
        headers: dict[str, str] = {}
        for _ in range(_MAX_HEADERS):
            line = self._reader.readline(_MAX_LINE)
            if not line.strip():
                return headers
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        return None

    def send_response(
        self, status: int, headers: Mapping[str, str], body: bytes, *, only: int | None = None
    ) -> None:
        """Send a whole answer, or with `only` no more than that many bytes of its body."""
        head = _head(status, {**headers, "content-length": str(len(body))})
        self._socket.sendall(head + (body if only is None else body[:only]))

    def start_stream(self, headers: Mapping[str, str]) -> None:
        """Send the head of an answer whose body comes in chunks."""
        self._socket.sendall(_head(200, {**headers, "transfer-encoding": "chunked"}))

    def send_chunk(self, data: bytes, *, last: bool = False) -> None:
        """Send one chunk, and with `last` the end of the body in the same packet."""
        end = b"0\r\n\r\n" if last else b""
        self._socket.sendall(b"%x\r\n%b\r\n%b" % (len(data), data, end))

    def gone(self) -> bool:
        """Tell whether the peer has hung up, without waiting and without taking anything in."""
        try:
            self._socket.setblocking(False)
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self._socket.setblocking(True)

    def abort(self) -> None:
        """Break the connection from another thread: whoever reads or writes it wakes up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self.abort()
        with contextlib.suppress(OSError):
            self._reader.close()
        self._socket.close()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
