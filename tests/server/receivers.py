"""A receiver of webhooks: HTTP over a real socket, which answers as it is told to and remembers what came."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@dataclass(frozen=True, slots=True)
class Came:
    """Hold one request as it came."""

    headers: dict[str, str]
    body: bytes
    status: int

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def is_signed_with(self, secret: str) -> bool:
        """Verify as the Standard Webhooks specification says; written apart from what is tested."""
        key = base64.b64decode(secret[len("whsec_") :])
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return hmac.compare_digest(self.headers["webhook-signature"], f"v1,{expected}")


@dataclass(slots=True)
class Receiver:
    """What came, and what the next requests are answered with; 200 when nothing is left to say."""

    url: str
    answers: list[int] = field(default_factory=list)
    came: list[Came] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def taken(self) -> list[Came]:
        """What was answered with 200."""
        return [one for one in self.came if one.status == 200]

    def take(self, headers: dict[str, str], body: bytes) -> int:
        with self.changed:
            status = self.answers.pop(0) if self.answers else 200
            self.came.append(Came(headers, body, status))
            self.changed.notify_all()
            return status

    def wait_for(self, number: int, kind: str = "") -> list[dict[str, Any]]:
        """Return the first events of a kind that were taken, when there are so many."""
        deadline = time.monotonic() + 60
        with self.changed:
            while True:
                found = [one.event for one in self.taken if one.event["type"].startswith(kind)]
                if len(found) >= number:
                    return found
                assert self.changed.wait(deadline - time.monotonic()), f"only {self.came} came"


@contextmanager
def receiving(*answers: int) -> Iterator[Receiver]:
    """Receive on a free port until the block ends."""
    made = Receiver("", list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = made.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/hook/a-secret-path"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
