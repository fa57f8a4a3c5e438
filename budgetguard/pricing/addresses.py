"""URLs in a form that compares, to see whether a request goes to a server that costs nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final
from urllib.parse import quote, unquote, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
# A backslash, a space or a letter beyond ASCII is read differently by different programs, so an address that
# has one compares with none.
_PLAIN: Final = re.compile(r"[!-\[\]-~]+")
_NETLOC: Final = re.compile(
    r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*))(?::(?P<port>\d{0,5}))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request goes.

    Attributes:
        scheme: `http` or `https`.
        host: in lower case; an IPv6 address in its shortest form.
        port: the default of the scheme if the URL has none.
        path: its segments, unquoted.
    """

    scheme: str
    host: str
    port: int
    path: tuple[str, ...]

    @classmethod
    def of(cls, url: str) -> Address | None:
        """Return the address of a URL, or None if it can be read in more than one way.

        That is a URL with a user name, with `..` or with an escaped slash in its path.
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

    @property
    def url(self) -> str:
        """The address as a URL, in its plain form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{''.join(f'/{quote(one)}' for one in self.path)}"

    def covers(self, other: Address) -> bool:
        """Whether `other` is this address or below it, by whole path segments."""
        same = (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)
        return same and other.path[: len(self.path)] == self.path


def _shortest(address: str) -> str | None:
    try:
        return str(IPv6Address(address))
    except AddressValueError:
        return None
