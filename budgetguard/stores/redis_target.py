"""The URLs of Redis and Valkey stores: which servers, as whom, and how long to wait for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote

from budgetguard.errors import ConfigurationError
from budgetguard.stores.urls import shown_url, shown_word

Kind: TypeAlias = Literal["server", "sentinel", "cluster", "unix"]

_PLAIN: Final = ("redis", "rediss", "valkey", "valkeys")
SCHEMES: Final = (
    *_PLAIN,
    *(f"{name}+{kind}" for kind in ("sentinel", "cluster") for name in _PLAIN),
    "redis+unix",
    "valkey+unix",
)

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that a verb may take, connecting and trying again included, before it raises StoreError."""

_PORT: Final = 6_379
_SENTINEL_PORT: Final = 26_379
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_SWITCHES: Final = ("ssl_check_hostname", "ssl_verify")
_OPTIONS: Final = ("timeout", "sentinel_username", "sentinel_password", *_TLS_FILES, *_TLS_SWITCHES)
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]+")  # what Sentinel itself takes
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^:\[\]/,]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Target:
    """Hold what a URL says.

    Attributes:
        kind: one server, its Sentinels, nodes of a cluster, or a socket on this machine.
        hosts: names and ports, in the order of the URL; of Sentinels where there are some.
        service: the name by which Sentinels know the master.
        path: the socket's file.
        options: of TLS, as redis-py calls them; empty without TLS.
        timeout: seconds that a verb may take.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    path: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False
    options: tuple[tuple[str, str | bool], ...] = ()
    timeout: float = DEFAULT_TIMEOUT

    def __str__(self) -> str:
        if self.kind == "unix":
            return self.path
        where = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.service!r} of the Sentinels {where}" if self.kind == "sentinel" else where


def parse_url(url: str) -> Target:
    """Read the URL of a Redis or Valkey store.

    Args:
        url: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`; with `rediss` over TLS; `valkey` and `valkeys`
            say the same. `redis+sentinel://HOST,HOST/SERVICE[/DATABASE]`, `redis+cluster://HOST,HOST`,
            `redis+unix:///path/of.sock`. Options: `timeout=SECONDS`, `ssl_ca_certs=FILE`,
            `ssl_certfile=FILE`, `ssl_keyfile=FILE`, `ssl_verify=no`, `ssl_check_hostname=no`,
            `sentinel_username=`, `sentinel_password=`.

    Raises:
        ConfigurationError: anything else; its text shows no password.
    """
    scheme, _, rest = url.partition("://")
    if "@" in rest and "@" not in re.split("[/?]", rest, maxsplit=1)[0] and not scheme.endswith("+unix"):
        raise ConfigurationError(
            f"a store's {scheme}:// URL has a user or password with / or ? in it: write %2F or %3F for them"
        )
    shown = shown_url(url)
    base, _, way = scheme.partition("+")
    kind: Kind = "sentinel" if way == "sentinel" else "cluster" if way == "cluster" else "server"
    tls = base in ("rediss", "valkeys")
    address, _, query = rest.partition("?")
    timeout, given = _options(query, shown, tls=tls)
    tls_options = tuple((name, value) for name, value in given.items() if name.startswith("ssl_"))
    if way == "unix":
        userinfo, _, path = address.rpartition("@")
        if not path.startswith("/"):
            raise ConfigurationError(f"store {shown!r} names no socket: write {base}+unix:///path/of.sock")
        username, password = _credentials(userinfo)
        return Target("unix", path=unquote(path), username=username, password=password, timeout=timeout)
    authority, _, path = address.partition("/")
    userinfo, _, listed = authority.rpartition("@")
    username, password = _credentials(userinfo)
    hosts = tuple(_host(each, kind, shown) for each in listed.split(","))
    if kind == "server" and len(hosts) > 1:
        raise ConfigurationError(
            f"store {shown!r} names several hosts: write {base}+sentinel:// or {base}+cluster://"
        )
    parts = [unquote(part) for part in path.split("/") if part]
    service = ""
    if kind == "sentinel":
        if not parts:
            raise ConfigurationError(
                f"store {shown!r} names no service: write {base}+sentinel://HOST,HOST/SERVICE"
            )
        service = parts.pop(0)
        if not _SERVICE.fullmatch(service):  # what stands there may be an option, and secret
            raise ConfigurationError(
                f"store {shown!r}: {shown_word(service)} names no service: write letters, digits, . - or _"
            )
    return Target(
        kind,
        hosts,
        service,
        database=_database(parts, kind, shown),
        username=username,
        password=password,
        sentinel_username=_text(given.get("sentinel_username")),
        sentinel_password=_text(given.get("sentinel_password")),
        tls=tls,
        options=tls_options,
        timeout=timeout,
    )


def _options(query: str, shown: str, *, tls: bool) -> tuple[float, dict[str, str | bool]]:
    timeout = DEFAULT_TIMEOUT
    found: dict[str, str | bool] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ConfigurationError(
                f"store {shown!r}: unknown option {shown_word(name)}; it takes {', '.join(_OPTIONS)}"
            )
        if name == "timeout":
            timeout = _seconds(value, shown)
        elif name in _TLS_SWITCHES:
            if value not in ("yes", "no"):
                raise ConfigurationError(
                    f"store {shown!r}: {name} must be yes or no, not {shown_word(value)}"
                )
            found[name] = value == "yes"
        else:
            found[name] = value
    if not tls and any(name.startswith("ssl_") for name in found):
        raise ConfigurationError(f"store {shown!r}: ssl_ options need TLS: write rediss:// or valkeys://")
    return timeout, found


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


def _credentials(userinfo: str) -> tuple[str | None, str | None]:
    username, _, password = userinfo.partition(":")
    return unquote(username) or None, unquote(password) or None


def _host(text: str, kind: Kind, shown: str) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    if match is not None and match[2]:
        port = int(match[2])
    if match is None or not 0 < port < 65_536:
        raise ConfigurationError(
            f"store {shown!r}: {shown_word(text)} is no host: write HOST or HOST:PORT, with IPv6 in brackets"
        )
    return match[1].strip("[]"), port


def _database(parts: list[str], kind: Kind, shown: str) -> int:
    if not parts:
        return 0
    if len(parts) > 1 or not re.fullmatch("[0-9]{1,6}", parts[0]):
        raise ConfigurationError(
            f"store {shown!r}: {shown_word('/'.join(parts))} is no database: write its number, such as 0"
        )
    if kind == "cluster" and int(parts[0]):
        raise ConfigurationError(f"store {shown!r}: a cluster has database 0 only: leave it out")
    return int(parts[0])


def _text(value: str | bool | None) -> str | None:
    return value if isinstance(value, str) else None
