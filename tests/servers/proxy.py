"""A TCP proxy that a test can cut, stall, or put TLS in front of."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading


class Proxy:
    """Pass bytes on to a port of this machine, until told otherwise.

    Args:
        target: that port.
        tls: speaks TLS to whoever connects.
        address: where it listens; `0.0.0.0` for other hosts, too.

    Attributes:
        port: where it listens.
        stalled: while cleared, the server's answers wait.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None, *, address: str = "127.0.0.1") -> None:
        self._target = target
        self._tls = tls
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self.flowing = threading.Event()
        self.flowing.set()
        self.answers_to_drop = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.flowing.set()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._tls is not None:
                    near = self._tls.wrap_socket(near, server_side=True)
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            self._pairs.append((near, far))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if answers:
                    self.flowing.wait()
                    if self.answers_to_drop:
                        self.answers_to_drop -= 1
                        break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            if end is source:
                end.close()
