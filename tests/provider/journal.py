"""The server's own record of what it was asked and what it billed: the truth that tests compare with."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request that reached the server.

    Attributes:
        number: 1 for the first request, in order of arrival.
        method: such as `POST`.
        path: such as `/v1/chat/completions`, without a query.
        model: the model that the request named, or None.
        body: the request's JSON object; empty if it had none.
        headers: the request's headers, names in lower case.
        streamed: the request asked for a stream.
        status: the HTTP status decided on, or None as long as there is none.
        billed: the usage that the provider charges for, in the shape that the endpoint reports it, or
            None for a request that costs nothing. It is charged whether or not the answer says so.
        completed: the whole answer was handed to the network.
    """

    number: int
    method: str
    path: str
    model: str | None
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    streamed: bool
    status: int | None = None
    billed: Mapping[str, Any] | None = None
    completed: bool = False


class Journal:
    """The records, and threads that wait for them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._records: list[RecordedRequest] = []
        self._in_flight = 0

    def arrive(
        self, method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> RecordedRequest:
        """Record a request before anything is done about it."""
        model = body.get("model")
        with self._changed:
            record = RecordedRequest(
                number=len(self._records) + 1,
                method=method,
                path=path,
                model=model if isinstance(model, str) else None,
                body=body,
                headers=headers,
                streamed=body.get("stream") is True,
            )
            self._records.append(record)
            self._in_flight += 1
            self._changed.notify_all()
        return record

    def update(self, number: int, **values: Any) -> None:
        """Replace fields of a record."""
        with self._changed:
            self._records[number - 1] = replace(self._records[number - 1], **values)

    def leave(self) -> None:
        """Note that the server is done with a request, however it went."""
        with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def snapshot(self) -> list[RecordedRequest]:
        """Return the records as they are now."""
        with self._changed:
            return list(self._records)

    def count(self, path: str | None = None) -> int:
        """Count the requests that have arrived, of one path or of all."""
        with self._changed:
            return self._count(path)

    def in_flight(self) -> int:
        """Count the requests that the server is not done with."""
        with self._changed:
            return self._in_flight

    def wait_count(self, count: int, path: str | None, timeout: float) -> bool:
        """Wait until so many requests have arrived; False if `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count(path) >= count, timeout)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no request is in flight; False if `timeout` seconds were not enough."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_flight == 0, timeout)

    def _count(self, path: str | None) -> int:
        return sum(path is None or record.path == path for record in self._records)
