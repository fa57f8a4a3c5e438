"""Whether a request's address lies under one that is declared to cost nothing. In doubt it does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import unquote, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
# What URLs are written in. A backslash, a space or a letter beyond ASCII is read differently by different
# programs, so nothing is told of an address that has one.
_PLAIN: Final = re.compile(r"[!-\[\]-~]+")
_NETLOC: Final = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*))(?::(?P<port>\d{0,5}))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Hold where a request goes, in the one form that compares.

    Attributes:
        scheme: `http` or `https`.
        host: in small letters; an IPv6 address in its shortest form.
        port: the scheme's own where none is written.
        path: its segments.
    """

    scheme: str
    host: str
    port: int
    path: tuple[str, ...]

    @classmethod
    def of(cls, url: str) -> Address | None:
        """Read a URL; None if it is no plain one.

        With a user name, a path that leads back (`..`) or an escaped slash it is none: such addresses look
        like others than they are.
        """
        if _PLAIN.fullmatch(url) is None:
            return None
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        found = _NETLOC.fullmatch(parts.netloc.lower())
        if parts.scheme not in _PORTS or found is None:
            return None
        host = found["name"] or _shortest(found["six"])
        segments = tuple(unquote(one) for one in parts.path.split("/") if one)
        if host is None or any(one in (".", "..") or "/" in one or "\\" in one for one in segments):
            return None
        return cls(parts.scheme, host, int(found["port"] or _PORTS[parts.scheme]), segments)

    def covers(self, other: Address) -> bool:
        """Whether the other one is this or lies below it, whole path segments taken."""
        same = (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
        return same and other.path[: len(self.path)] == self.path


def _shortest(address: str) -> str | None:
    try:
        return str(IPv6Address(address))
    except AddressValueError:
        return None
