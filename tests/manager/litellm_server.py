"""A server of LiteLLM's hosted protocol as somebody may run one: it stores what it is sent, as it is sent."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

from tests.provider.connection import Connection, HTTPRequest


class LiteLLMServer:
    """Serve `/get_budget` and `/set_budget` on loopback until it is closed.

    Attributes:
        stored: project -> user_dict.
        seen: every request, oldest first.
        before: called with the path before each request is carried out.
        answer: status and body in place of what would be answered, by path.
    """

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.seen: list[HTTPRequest] = []
        self.before: Callable[[str], object] = lambda _: None
        self.answer: dict[str, tuple[int, bytes]] = {}
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: set[Connection] = set()
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
        for connection in list(self._open):
            connection.abort()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            connection = Connection(accepted)
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with contextlib.suppress(OSError):
            while (request := connection.read_request()) is not None:
                self.seen.append(request)
                self.before(request.target)
                status, body = self.answer.get(request.target) or self._carry_out(request)
                connection.send_response(status, {"content-type": "application/json"}, body)
        self._open.discard(connection)
        connection.close()

    def _carry_out(self, request: HTTPRequest) -> tuple[int, bytes]:
        if request.target not in ("/get_budget", "/set_budget"):
            return 404, b'{"detail": "Not Found"}'
        body = json.loads(request.body)
        project = body["project_name"]
        with self._lock:
            if request.target == "/set_budget":
                self.stored[project] = body["user_dict"]
                return 200, b'{"status": "success"}'
            if project not in self.stored:
                return 200, b'{"status": "error"}'
            return 200, json.dumps({"status": "success", "data": self.stored[project]}).encode()
