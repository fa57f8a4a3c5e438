"""A service that answers what a test tells it to, over a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from tests.provider.connection import Connection, HTTPRequest

Act = Callable[[Connection, HTTPRequest], None]


def answer(status: int, value: Any = None, **headers: str) -> Act:
    """Answer with a status and a JSON value."""

    def act(connection: Connection, _request: HTTPRequest) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.send_response(
            status, {"content-type": "application/json", **named}, json.dumps(value).encode()
        )

    return act


def raw(data: bytes) -> Act:
    """Answer with these bytes, and hang up."""

    def act(connection: Connection, _request: HTTPRequest) -> None:
        connection._socket.sendall(data)
        connection.abort()

    return act


class Scripted:
    """Answer each request with the next act; the last one again and again.

    Attributes:
        seen: every request, oldest first.
    """

    def __init__(self, *acts: Act) -> None:
        self.seen: list[HTTPRequest] = []
        self._acts = deque(acts)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[Connection] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._accepting.join()
        for connection in self._open:
            connection.abort()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(Connection(accepted))
            threading.Thread(target=self._serve, args=(self._open[-1],), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with contextlib.suppress(OSError):
            while (request := connection.read_request()) is not None:
                self.seen.append(request)
                act = self._acts.popleft() if len(self._acts) > 1 else self._acts[0]
                act(connection, request)
        connection.close()
