"""One request's way through the test server: answers, streams, refusals, hang-ups."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.testing.openai_server import to_json
from tests.provider import shapes
from tests.provider.connection import Connection
from tests.provider.journal import Journal, RecordedRequest
from tests.provider.reply import EMBEDDINGS, MODERATIONS, Draft, Reply
from tests.provider.sse import Event

EVENT_STREAM: Final = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
# How soon a waiting answer notices that its client has hung up or that the server stops: seconds.
POLL: Final = 0.05


class Exchange:
    """One request's way to an answer of any endpoint, or to what can go wrong with one.

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

    def refuse(self, reply: Reply) -> None:
        """Answer with an error, which bills nothing.

        Raises:
            OSError: the client is gone, or the reply says to break off.
        """
        self.update(status=reply.status)
        self._pause(reply)
        if reply.drop_after is not None:
            raise ConnectionAbortedError
        body = shapes.error_body(reply.status, reply.text, code=reply.error_code)
        self.send(reply.status, body, {**shapes.error_headers(reply), **reply.headers})

    def answer(self, reply: Reply, planned: Draft, body: Mapping[str, Any]) -> None:
        """Answer in one piece, billed before any pause: the provider works on while nobody listens.

        Raises:
            OSError: the client is gone, or the reply says to break off.
        """
        if planned.path == MODERATIONS:
            payload = shapes.moderations(planned, body)
            self.update(status=200)
        else:
            embed = planned.path == EMBEDDINGS
            payload = shapes.embeddings(planned, body) if embed else shapes.answer(planned)
            self.update(status=200, billed=planned.bill())
        self._pause(reply)
        if reply.drop_after is None:
            self.send(200, payload, reply.headers)
            return
        if reply.drop_after > 0:
            data = to_json(payload)
            self._connection.send_response(200, self._headers(reply.headers), data, only=len(data) // 2)
        raise ConnectionAbortedError

    def stream(self, reply: Reply, planned: Draft, body: Mapping[str, Any]) -> None:
        """Answer in server-sent events, billed as far as they were sent.

        Raises:
            OSError: the client is gone, or the reply says to break off.
        """
        sent = [0] * planned.choices
        self.update(status=200, billed=planned.bill(sent))
        try:
            self._send_events(reply, planned, body, sent)
        except OSError:
            self.update(billed=planned.bill(sent), completed=False)
            raise

    def replay(self, events: Iterable[Event], start: int) -> None:
        """Send events of an answer that was billed before, from one of them on.

        Raises:
            OSError: the client is gone.
        """
        self.update(status=200, completed=True)
        self.start_stream()
        *most, last = list(events)[start:]
        for event in most:
            self._connection.send_chunk(event.data)
        self._connection.send_chunk(last.data, last=True)

    def _send_events(self, reply: Reply, planned: Draft, body: Mapping[str, Any], sent: list[int]) -> None:
        most = len(planned.pieces) * planned.choices
        pause = min(reply.pause_after, most)
        drop = most + 1 if reply.drop_after is None else min(reply.drop_after, most)

        def checkpoint() -> None:
            if sum(sent) == pause:
                self.update(billed=planned.bill(sent))
                self._pause(reply)
            if sum(sent) == drop:
                raise ConnectionAbortedError

        checkpoint()
        self.start_stream(reply.headers)
        *events, last = shapes.events(planned, body)
        for event in events:
            self.send_event(event.data)
            if event.choice is not None:
                sent[event.choice] += 1
                checkpoint()
        self.update(billed=planned.bill(), completed=True)
        self._connection.send_chunk(last.data, last=True)

    def _pause(self, reply: Reply) -> None:
        """Wait as the reply says.

        Raises:
            ConnectionAbortedError: the client hung up meanwhile, or the server stops.
        """
        self.pause(reply.delay)
        while reply.hang or (reply.gate is not None and not reply.gate.wait(POLL)):
            if reply.hang:
                self._stopping.wait(POLL)
            self.check()
