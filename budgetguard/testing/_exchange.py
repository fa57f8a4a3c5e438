"""One request's way through the test server, in the order of acts that keeps its record true."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from budgetguard.testing._http import Connection
from budgetguard.testing._journal import Journal, RecordedRequest

EVENT_STREAM: Final = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
# How soon a waiting answer notices that its client has hung up or that the server stops: seconds.
POLL: Final = 0.05


class Exchange:
    """Carry one request to its end: pauses, bytes and records.

    A record is written before the bytes that tell the client the same, so that a test which has its
    answer finds the record complete; a send that fails takes `completed` back.
    """

    def __init__(
        self, connection: Connection, journal: Journal, record: RecordedRequest, stopping: threading.Event
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._stopping = stopping
        self.record = record

    def send(
        self, status: int, payload: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole answer: JSON, or bytes as they are.

        Raises:
            OSError: the client is gone.
        """
        if self._connection.gone():
            self.update(status=status)
            raise ConnectionAbortedError
        self.update(status=status, completed=True)
        data = payload if isinstance(payload, bytes) else to_json(payload)
        try:
            self._connection.send_response(status, self._headers(headers), data)
        except OSError:
            self.update(completed=False)
            raise

    def start_stream(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of an answer in server-sent events."""
        self._connection.start_stream(self._headers({**EVENT_STREAM, **(headers or {})}))

    def send_event(self, data: bytes, *, last: bool = False) -> None:
        """Send one event.

        Raises:
            OSError: the client is gone.
        """
        if not last and self._connection.gone():
            raise ConnectionAbortedError
        self._connection.send_chunk(data, last=last)

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ConnectionAbortedError: the client hung up meanwhile, or the server stops.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._stopping.wait(min(left, POLL))
            self.check()

    def check(self) -> None:
        """Check that there is still somebody to answer.

        Raises:
            ConnectionAbortedError: the client hung up, or the server stops.
        """
        if self._stopping.is_set() or self._connection.gone():
            raise ConnectionAbortedError

    def update(self, **values: Any) -> None:
        """Replace fields of the request's record."""
        self._journal.update(self.record.number, **values)

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        usual = {
            "content-type": "application/json",
            "x-request-id": f"req_{self.record.number:06d}",
            "openai-version": "2020-10-01",
            "openai-processing-ms": "1",
        }
        return {**usual, **(more or {})}


def to_json(payload: Mapping[str, Any]) -> bytes:
    """Write JSON as the API does: without spaces, in UTF-8."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()
