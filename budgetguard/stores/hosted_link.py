"""Requests to a hosted service: over kept connections, bounded in time, sent again after an outage."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cached_property
from http.client import HTTPException
from typing import Any, Final

from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores import remedies
from budgetguard.stores.http import HTTPAnswer, HTTPConnection, connect, pack
from budgetguard.stores.link import ServerLink
from budgetguard.stores.targets import KEY_VARIABLE, ServiceTarget
from budgetguard.stores.wire import to_json

_LONGEST_QUOTE: Final = 300
_PAUSE: Final = 0.02

_PASSING: Final = frozenset((408, 429, 500, 502, 503, 504))
"""Statuses of what passes by itself: a service that is starting, busy, or whose own store is away."""
_NOT_DONE: Final = frozenset((408, 429))
"""Those of a service that has not carried out what was asked."""

_REMEDIES: Final = {
    401: f"it wants a key that it knows: set {KEY_VARIABLE}, or write https://KEY@HOST, or name it in the "
    "headers that a manager is given; who runs the service makes keys with `budgetguard keys`",
    403: "the key may not do that: it is of another project, or its role is too low (calls and budgets need "
    "spend, resets and deletions admin); who runs the service makes keys with `budgetguard keys`",
    404: "no such service is at that address: check host, port and path; `budgetguard serve` starts one",
    409: "this project keeps as much there as it may: delete what is not needed, or have its limits raised",
    413: "it takes no request of that size; nothing was changed",
    422: "it does not take what was asked; nothing was changed. If the text does not say why, upgrade both",
    429: "it has too much to do, or this key has: try again, or raise its limit; nothing was changed",
    503: "it cannot use its own store, or is starting: see its log, and try again",
}


class UnreachedError(OSError):
    """No connection was made, so nothing was sent; the cause says why."""


class _BusyError(Exception):
    """A service answered that it cannot answer now."""

    def __init__(self, answer: HTTPAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class HostedLink(ServerLink[HTTPConnection]):
    """Send requests to one service, from any thread.

    Args:
        target: where, with which headers, and for how long.

    Raises:
        ConfigurationError: its file of certificate authorities cannot be read.
    """

    def __init__(self, target: ServiceTarget) -> None:
        self.target = target
        lines = [f"Host: {target.authority}", "Accept: application/json"]
        lines += [f"{name}: {value}" for name, value in target.headers]
        self._head = "\r\n".join(lines)
        if target.ssl_ca_certs is not None:
            _ = self._tls
        super().__init__(target.timeout)

    def ask(self, method: str, path: str, body: object = None, *, repeat: bool = True) -> HTTPAnswer:
        """Send a request and return its answer, whatever its status, unless it is one that passes by itself.

        Args:
            method: such as `POST`.
            path: from the first slash on, percent-encoded.
            body: JSON values; None sends none.
            repeat: whether it may arrive twice. If not, it is sent again only where it was not carried out.

        Raises:
            StoreError: no answer in time, or only that the service is not ready.
        """
        deadline = self.deadline()
        content = None if body is None else to_json(body).encode("ascii")
        request = pack(method, self.target.path + path, self._head, content)

        def attempt(connection: HTTPConnection) -> HTTPAnswer:
            try:
                answer = connection.exchange(method, request, deadline)
            except (OSError, HTTPException) as error:
                if repeat:
                    raise
                text = self._explained(error).rstrip(".")
                raise StoreError(
                    f"{text}. It may have been carried out all the same: look before you send it again."
                ) from error
            if answer.status not in _PASSING:
                return answer
            if repeat or answer.status in _NOT_DONE:
                raise _BusyError(answer)
            raise StoreError(self.explain_answer(answer))

        try:
            return self._repeat(attempt, deadline, fresh=not repeat)
        except (OSError, HTTPException) as error:
            raise StoreError(self._explained(error)) from error
        except _BusyError as error:
            raise StoreError(self.explain_answer(error.answer)) from None

    def explain_answer(self, answer: HTTPAnswer, wrong: str = "", *, protocol: str = "") -> str:
        """Return the text of a StoreError for an answer that is not the one asked for. It shows no key.

        Args:
            answer: what came.
            wrong: what cannot be read in it.
            protocol: what was asked in, other than budgetguard's own.
        """
        status = answer.status
        if 300 <= status < 400:
            remedy = f"it sends whoever asks to {answer.location.partition('?')[0]}: name that address itself"
        elif protocol and (status < 300 or status in (404, 405)):
            remedy = f"what answers there does not speak {protocol}: check the address"
        elif status < 300:
            remedy = (
                "its answer is not that of a budget service of this version: "
                "check the address, and upgrade both"
            )
        else:
            remedy = _REMEDIES.get(status, "see its log")
        said = wrong or _message(answer.value)
        return f"cannot use the service at {self.target}: {remedy} (HTTP {status}{said and f': {said}'})"

    def _explained(self, error: Exception) -> str:
        return remedies.explain(error, self.target, self.target.timeout, remedies.HTTP)

    def _take(self) -> HTTPConnection | None:
        while (connection := super()._take()) is not None and connection.is_stale():
            connection.close()
        return connection

    def _connect(self, deadline: float) -> HTTPConnection:
        target = self.target
        try:
            tls = self._tls if target.scheme == "https" else None
            return connect(target.host, target.port, deadline, tls)
        except OSError as error:
            raise UnreachedError(f"{type(error).__name__}: {error}") from error

    def _disconnect(self, connection: HTTPConnection) -> None:
        connection.close()

    def _is_in_order(self, connection: HTTPConnection, error: BaseException | None) -> bool:
        return connection.reusable

    def _retry_after(self, error: Exception, connection: HTTPConnection | None) -> float | None:
        if isinstance(error, _BusyError):
            return max(_PAUSE, error.answer.retry_after)
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            return None
        return 0.0 if isinstance(error, OSError | HTTPException) else None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.target.ssl_ca_certs)
        except OSError as error:
            raise ConfigurationError(
                f"store {str(self.target)!r}: ssl_ca_certs {self.target.ssl_ca_certs!r} cannot be read as a "
                f"file of certificates ({error})"
            ) from error


def _message(value: Any) -> str:
    """Return the message of a service's error, shortened; empty if there is none."""
    message = value.get("message") if isinstance(value, Mapping) else None
    if not isinstance(message, str):
        return ""
    text = " ".join(message.split())
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
