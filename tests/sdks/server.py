"""A provider's server on loopback that answers as a test says, and counts what arrived."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Headers = Mapping[str, str]


@dataclass
class Arrived:
    """One request that reached the server."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any
    raw: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What a request is answered with.

    Attributes:
        body: JSON, or bytes as they are; of a stream, its pieces.
        status: HTTP's.
        headers: beside the length; the content type is JSON's unless they say.
        cut: after how many pieces the connection is cut; None for never. At 0 what is no stream is not
            begun.
        waits: nothing of it is sent before this is set.
    """

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Headers = field(default_factory=dict)
    cut: int | None = None
    waits: threading.Event | None = None


def sse(events: Iterable[Any], *, done: bool = False) -> list[bytes]:
    """Return server-sent events as pieces of a stream."""
    pieces = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return [*pieces, b"data: [DONE]\n\n"] if done else pieces


class CountingServer:
    """Answer requests, and keep them.

    Args:
        answer: what each request is answered with.
    """

    def __init__(self, answer: Callable[[Arrived], Answer]) -> None:
        self.answer = answer
        self.requests: list[Arrived] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> CountingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def take(self, arrived: Arrived) -> Answer:
        with self._lock:
            self.requests.append(arrived)
            return self.answer(arrived)


def _handler(server: CountingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                body = json.loads(raw) if raw else None
            except ValueError:
                body = None
            path, _, query = self.path.partition("?")
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.take(Arrived(self.command, path, query, headers, body, raw))
            if answer.waits is not None:
                answer.waits.wait(60)
            pieces = answer.body if isinstance(answer.body, list) and answer.body else None
            if pieces is not None and all(isinstance(one, bytes) for one in pieces):
                self._send_pieces(answer, pieces)
                return
            if answer.cut == 0:
                self.close_connection = True
                return
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            with contextlib.suppress(OSError):  # the client has left
                self._head(answer, {"content-type": "application/json", "content-length": str(len(data))})
                self.wfile.write(data)

        def _send_pieces(self, answer: Answer, pieces: list[bytes]) -> None:
            self._head(answer, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
            for number, piece in enumerate(pieces):
                if number == answer.cut:
                    self.close_connection = True
                    return
                try:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                except OSError:
                    return  # the client has left
            self.wfile.write(b"0\r\n\r\n")

        def _head(self, answer: Answer, headers: Headers) -> None:
            self.send_response(answer.status)
            for name, value in {**headers, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve

    return Handler
