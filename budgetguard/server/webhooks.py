"""Webhooks: one POST of one event, signed as the Standard Webhooks specification says.

https://github.com/standard-webhooks/standard-webhooks: what is signed is `id.timestamp.body`, with
HMAC-SHA256, so a receiver can use that project's library for its language, or ten lines of its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ssl
import time
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final
from urllib.parse import SplitResult, urlsplit

from budgetguard.errors import ConfigurationError
from budgetguard.server.keys import check_secret
from budgetguard.stores.http import connect, pack

_PREFIX: Final = "whsec_"
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
        head = [
            f"Host: {place.netloc}",
            "Content-Type: application/json",
            "User-Agent: budgetguard",
            f"webhook-id: {ident}",
            f"webhook-timestamp: {at}",
            f"webhook-signature: {sign(self.secret, ident, at, body)}",
            "Connection: close",
        ]
        target = (place.path or "/") + (f"?{place.query}" if place.query else "")
        request = pack("POST", target, "\r\n".join(head), body)
        deadline = time.monotonic() + _TIMEOUT_S
        is_tls = place.scheme == "https"
        tls = ssl.create_default_context() if is_tls else None
        connection = connect(self.host, place.port or (443 if is_tls else 80), deadline, tls)
        try:
            return connection.send("POST", request, deadline).status
        finally:
            connection.close()


NO_ANSWER: Final = (OSError, HTTPException)
"""What `post` raises."""


def sign(secret: str, ident: str, at: int, body: bytes) -> str:
    """Return the header `webhook-signature`.

    Raises:
        ConfigurationError: a bad secret.
    """
    signed = b".".join((ident.encode("ascii"), str(at).encode("ascii"), body))
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode("ascii")


def _key(secret: str) -> bytes:
    check_secret(secret, "the webhook's secret")
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
