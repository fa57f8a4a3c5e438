"""The URLs of hosted stores: which service, with which key, and how long to wait for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from budgetguard.errors import ConfigurationError
from budgetguard.stores.urls import shown_url, shown_word

SCHEMES: Final = ("https", "http")
KEY_VARIABLE: Final = "BUDGETGUARD_API_KEY"

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that a verb may take, connecting and trying again included, before it raises StoreError."""

_PORTS: Final = {"https": 443, "http": 80}
_OPTIONS: Final = ("timeout", "ssl_ca_certs")
# What a header may hold without being read as something else; a key has no spaces besides.
_VISIBLE: Final = frozenset(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Target:
    """Hold what a URL says.

    Attributes:
        scheme: `https` or `http`.
        host: its name or address, as sockets take it.
        path: what comes before the routes, without a slash at its end.
        headers: sent with every request; the key is in them.
        timeout: seconds that a verb may take.
        ssl_ca_certs: a file of certificate authorities, in place of the machine's.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: float = DEFAULT_TIMEOUT
    ssl_ca_certs: str | None = None

    @property
    def authority(self) -> str:
        """Return host and port, as the header `Host` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(url: str, headers: Mapping[str, str] | None = None) -> Target:
    """Read the URL of a hosted service.

    Args:
        url: `https://[KEY@]HOST[:PORT][/PREFIX]`; `http` without TLS. Without a key in it, that of the
            variable `BUDGETGUARD_API_KEY` is sent, if there is one. Options: `timeout=SECONDS`,
            `ssl_ca_certs=FILE`.
        headers: sent in place of the key and of all that would be sent by itself.

    Raises:
        ConfigurationError: anything else; its text shows no key.
    """
    scheme, _, rest = url.partition("://")
    shown = shown_url(url)
    if "@" in "".join(re.split("[/?#]", rest, maxsplit=1)[1:]):
        raise ConfigurationError(
            f"a store's {scheme}:// URL has a key with / or ? or # in it: write %2F, %3F or %23 for them"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if scheme not in SCHEMES or not host or port == 0:
        raise ConfigurationError(
            f"store {shown!r} is no address of a service: write https://HOST or https://HOST:PORT/PREFIX, "
            "with IPv6 in brackets"
        )
    if ";" in parts.path or "=" in parts.path:
        raise ConfigurationError(
            f"store {shown!r} has options in its path: they come after a question mark, the key before an @ "
            "(in a path, ; and = are written %3B and %3D)"
        )
    if parts.fragment:
        raise ConfigurationError(f"store {shown!r}: a # has no place in it: write %23")
    try:
        host.encode("ascii")
    except UnicodeEncodeError:
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise ConfigurationError(f"store {shown!r}: its host is none") from None
    timeout, ca_certs = _options(parts, shown)
    return Target(
        scheme=scheme,
        host=host,
        port=port or _PORTS[scheme],
        path=quote(parts.path.rstrip("/"), safe="/%"),
        headers=_headers(headers, parts, shown),
        timeout=timeout,
        ssl_ca_certs=ca_certs,
    )


def _options(parts: SplitResult, shown: str) -> tuple[float, str | None]:
    timeout, ca_certs = DEFAULT_TIMEOUT, None
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ConfigurationError(
                f"store {shown!r}: unknown option {shown_word(name)}; it takes "
                f"{', '.join(_OPTIONS)}, and its key before an @ or in {KEY_VARIABLE}"
            )
        if name == "timeout":
            timeout = _seconds(value, shown)
        elif parts.scheme != "https":
            raise ConfigurationError(f"store {shown!r}: {name} needs TLS: write https://")
        else:
            ca_certs = value
    return timeout, ca_certs


def _seconds(value: str, shown: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise ConfigurationError(
            f"store {shown!r}: timeout must be a number of seconds, not {shown_word(value)}"
        )
    return seconds


def _headers(given: Mapping[str, str] | None, parts: SplitResult, shown: str) -> tuple[tuple[str, str], ...]:
    always = ("Content-Type", "application/json")
    if given is None:
        key = unquote(parts.password or parts.username or "") or os.environ.get(KEY_VARIABLE, "").strip()
        if not _VISIBLE.issuperset(key):
            raise ConfigurationError(
                f"the key for {shown!r} has characters that no key has: copy it again from where it was made"
            )
        return (always, ("Authorization", f"Bearer {key}")) if key else (always,)
    found = [(name, value) for name, value in given.items() if _is_header(name, value)]
    if all(name.lower() != "content-type" for name, _ in found):
        found.append(always)
    return tuple(found)


def _is_header(name: object, value: object) -> bool:
    """Check a header; False for those that follow from the request itself."""
    if not isinstance(name, str) or not name or not _VISIBLE.difference(":").issuperset(name):
        raise ConfigurationError(f"headers are names and texts, and {name!r} is no name of one")
    if not isinstance(value, str) or not (_VISIBLE | {" ", "\t"}).issuperset(value):
        raise ConfigurationError(
            f"the header {name!r} must be text of visible ASCII characters ({type(value).__name__} given)"
        )
    return name.lower() not in ("host", "content-length", "transfer-encoding", "connection")
