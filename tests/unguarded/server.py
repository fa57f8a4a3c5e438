"""A server on loopback that stands for a provider's host, and counts what reaches it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from types import TracebackType
from typing import Self

_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{"ok": true}'


class CountingServer:
    """Answer every HTTP request with JSON, on connections that stay open, and CONNECT as a proxy would.

    Attributes:
        port: of 127.0.0.1.
        connections: how many were opened.
        received: the bytes that came, of all connections.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.received = b""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._open: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    @property
    def host(self) -> str:
        """Its address, as the setting `provider_hosts` has it."""
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/v1/models"

    @property
    def requests(self) -> int:
        return len(re.findall(rb" HTTP/1\.1\r\n", self.received))

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._acceptor.join(10)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection, so that the next request needs a new one."""
        with self._lock:
            opened, self._open = self._open, []
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        # Not woken by a connection to it: that would be looked at as well.
        self._listener.settimeout(0.05)
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(None)
            with self._lock:
                self.connections += 1
                self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        waiting = b""
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self.received += data
            waiting += data
            while b"\r\n\r\n" in waiting:
                head, _, waiting = waiting.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                more = int(length[1]) if length else 0
                while len(waiting) < more:
                    data = connection.recv(65536)
                    with self._lock:
                        self.received += data
                    waiting += data
                waiting = waiting[more:]
                is_tunnel = head.startswith(b"CONNECT")
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" if is_tunnel else _ANSWER)
