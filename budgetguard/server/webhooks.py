"""Webhooks: one POST of one event, signed as the Standard Webhooks specification says.

https://github.com/standard-webhooks/standard-webhooks: what is signed is `id.timestamp.body`, with
HMAC-SHA256, so a receiver can use that project's library for its language, or ten lines of its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import SplitResult, urlsplit

from budgetguard.errors import ConfigurationError

_PREFIX: Final = "whsec_"
_SHORTEST: Final = 16
_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """The address of a webhook, and the secret that signs events; neither is shown: an address may be secret.

    Attributes:
        url: `http://` or `https://`.
        secret: at least 16 characters; after `whsec_` it is base64, else it is used as it is.

    Raises:
        ConfigurationError: a bad URL or secret.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        _place(self.url)
        _key(self.secret)

    @property
    def host(self) -> str:
        """The host of the address, which may be shown."""
        return _place(self.url).hostname or ""

    def post(self, ident: str, body: bytes, at: int) -> int:
        """Send one event; return the status of the answer. Redirects are not followed.

        Args:
            ident: of the event, the same each time it is sent.
            body: JSON.
            at: seconds since 1970.

        Raises:
            OSError: no answer came.
            HTTPException: what came is no HTTP.
        """
        place = _place(self.url)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "budgetguard",
            "webhook-id": ident,
            "webhook-timestamp": str(at),
            "webhook-signature": sign(self.secret, ident, at, body),
        }
        assert place.hostname is not None
        connection = HTTPConnection(place.hostname, place.port)
        connection.sock = _connected(place)
        # The socket's timeout counts from each byte of the answer: this timer limits all of it.
        overdue = threading.Event()
        watch = threading.Timer(_TIMEOUT_S, _end, (connection.sock, overdue))
        watch.daemon = True
        watch.start()
        try:
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            target = (place.path or "/") + (f"?{place.query}" if place.query else "")
            connection.request("POST", target, body, headers)
            status: int = connection.getresponse().status
        except NO_ANSWER:
            if not overdue.is_set():
                raise
        finally:
            watch.cancel()
            connection.close()
        if overdue.is_set():  # a part of an answer may look like a whole one
            raise TimeoutError(f"the answer did not end within {_TIMEOUT_S:g} s")
        return status


NO_ANSWER: Final = (OSError, HTTPException)
"""What `post` raises."""


def _connected(place: SplitResult) -> socket.socket:
    assert place.hostname is not None
    port = place.port or (443 if place.scheme == "https" else 80)
    plain = socket.create_connection((place.hostname, port), timeout=_TIMEOUT_S)
    if place.scheme != "https":
        return plain
    try:
        context = ssl.create_default_context()
        return context.wrap_socket(plain, server_hostname=place.hostname, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise


def _end(connection: socket.socket, overdue: threading.Event) -> None:
    overdue.set()
    with suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it, which closing does not


def sign(secret: str, ident: str, at: int, body: bytes) -> str:
    """Return the header `webhook-signature`.

    Raises:
        ConfigurationError: a bad secret.
    """
    signed = b".".join((ident.encode("ascii"), str(at).encode("ascii"), body))
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode("ascii")


def _key(secret: str) -> bytes:
    if len(secret) < _SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigurationError(
            f"the webhook's secret must be at least {_SHORTEST} printable ASCII characters without spaces: "
            "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )
    if not secret.startswith(_PREFIX):
        return secret.encode("ascii")
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ConfigurationError(f"the webhook's secret must be base64 after {_PREFIX!r}") from None


def _place(url: str) -> SplitResult:
    try:
        place = urlsplit(url)
        _ = place.port
    except ValueError:
        place = urlsplit("")
    fit = place.scheme in ("http", "https") and place.hostname and "@" not in place.netloc
    if not fit or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(
            "the webhook must be an address such as https://alerts.example.com/budgets, without credentials "
            "and percent-encoded where it is not ASCII"
        )
    return place
