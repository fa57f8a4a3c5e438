"""Requests to a hosted service: over kept connections, bounded in time, sent again after an outage."""

from __future__ import annotations

import os
import random
import ssl
import time
from collections import deque
from functools import cached_property
from http.client import HTTPException
from typing import Final

from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores.hosted_errors import explain, explain_answer
from budgetguard.stores.hosted_http import Answer, Unreached, Wire, connected
from budgetguard.stores.hosted_target import Target
from budgetguard.stores.wire import to_json

_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 0.5
_DICE: Final = random.SystemRandom()
_KEPT_AT_MOST: Final = 64

_PASSING: Final = frozenset((408, 429, 500, 502, 503, 504))
"""Statuses of what passes by itself: a service that is starting, busy, or whose own store is away."""
_NOT_DONE: Final = frozenset((408, 429))
"""Those of a service that has not carried out what was asked."""


class Link:
    """Ask one service, from any thread.

    Args:
        target: where, with which headers, and for how long.

    Raises:
        ConfigurationError: its file of certificate authorities cannot be read.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._owner = os.getpid()
        self._idle: deque[Wire] = deque()
        lines = [f"Host: {target.authority}", "Accept: application/json"]
        lines += [f"{name}: {value}" for name, value in target.headers]
        self._head = "\r\n".join(lines)
        if target.ssl_ca_certs is not None:
            _ = self._tls

    def ask(self, method: str, path: str, body: object = None, *, repeat: bool = True) -> Answer:
        """Send a request and return its answer, whatever its status, unless it is one that passes by itself.

        Args:
            method: such as `POST`.
            path: from the first slash on, percent-encoded.
            body: JSON values; None sends none.
            repeat: whether it may arrive twice. If not, it is sent again only where it was not carried out.

        Raises:
            StoreError: no answer in time, or only that the service is not ready.
        """
        deadline = time.monotonic() + self.target.timeout
        request = self._pack(method, path, body)
        pause = 0.0
        while True:
            try:
                answer = self._ask_once(method, request, deadline, fresh=not repeat)
            except (OSError, HTTPException) as error:
                self.close()  # what is idle was made before whatever has happened
                arrived = not isinstance(error, Unreached)
                for_good = isinstance(error.__cause__, ssl.SSLCertVerificationError)
                if for_good or (arrived and not repeat) or time.monotonic() + pause >= deadline:
                    told = explain(error, self.target, unsure=arrived and not repeat)
                    raise StoreError(told) from error
            else:
                if answer.status not in _PASSING:
                    return answer
                pause = max(pause, _FIRST_PAUSE, answer.retry_after)
                again = repeat or answer.status in _NOT_DONE
                if not again or time.monotonic() + pause >= deadline:
                    raise StoreError(explain_answer(answer, self.target))
            time.sleep(pause)
            # The first time at once: the service may merely have closed what was idle for long.
            pause = min(pause * 2, _LONGEST_PAUSE) * _DICE.uniform(0.7, 1) if pause else _FIRST_PAUSE

    def close(self) -> None:
        """Let go of the connections that are not in use."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # another thread was faster
                return

    def _pack(self, method: str, path: str, body: object) -> bytes:
        content = b"" if body is None else to_json(body).encode("ascii")
        length = "" if body is None else f"Content-Length: {len(content)}\r\n"
        head = f"{method} {self.target.path}{path} HTTP/1.1\r\n{self._head}\r\n{length}\r\n"
        return head.encode("ascii") + content

    def _ask_once(self, method: str, request: bytes, deadline: float, *, fresh: bool) -> Answer:
        wire = (None if fresh else self._take()) or self._connect(deadline)
        try:
            answer = wire.exchange(method, request, deadline)
        except BaseException:
            wire.close()  # an interrupt too leaves an answer unread
            raise
        if wire.reusable and len(self._idle) < _KEPT_AT_MOST:
            self._idle.append(wire)
        else:
            wire.close()
        return answer

    def _take(self) -> Wire | None:
        if self._owner != os.getpid():
            # A child of a fork must not talk into its parent's connections.
            self._idle, self._owner = deque(), os.getpid()
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:
                return None
            if not wire.is_stale():
                return wire
            wire.close()

    def _connect(self, deadline: float) -> Wire:
        tls = self._tls if self.target.scheme == "https" else None
        return connected(self.target.host, self.target.port, tls, deadline)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.target.ssl_ca_certs)
        except OSError as error:
            raise ConfigurationError(
                f"store {str(self.target)!r}: ssl_ca_certs {self.target.ssl_ca_certs!r} cannot be read as a "
                f"file of certificates ({error})"
            ) from error
