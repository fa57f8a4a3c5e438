"""What the URLs of stores say: which folder or server, as whom, and how long to wait."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os.path import expandvars
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, unquote, urlencode

from budgetguard.errors import ConfigurationError
from budgetguard.stores.urls import TEXT, YES_OR_NO, URLParts, matching, seconds_from, shown_word

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that a verb may take, connecting and trying again included, before it raises StoreError."""
DEFAULT_LOCK_TIMEOUT: Final = 60.0
"""Seconds that a verb on disk waits for other threads and processes before it raises StoreError."""
DEFAULT_SCHEMA: Final = "budgetguard"
DEFAULT_POOL: Final = 10
KEY_VARIABLE: Final = "BUDGETGUARD_API_KEY"

_PLAIN: Final = ("redis", "rediss", "valkey", "valkeys")
REDIS_SCHEMES: Final = (
    *_PLAIN,
    *(f"{name}+{kind}" for kind in ("sentinel", "cluster") for name in _PLAIN),
    "redis+unix",
    "valkey+unix",
)
POSTGRES_SCHEMES: Final = ("postgresql", "postgres")
SERVICE_SCHEMES: Final = ("https", "http")

_PORTS: Final = {"https": 443, "http": 80, "redis": 6_379, "sentinel": 26_379}
_SENTINEL_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]+")  # what Sentinel itself takes
# What a header may hold without being read as something else; a key has no spaces besides.
_VISIBLE: Final = frozenset(map(chr, range(0x21, 0x7F)))

RedisKind: TypeAlias = Literal["server", "sentinel", "cluster", "unix"]

_DISK_OPTIONS: Final = {"timeout": seconds_from(0)}
_REDIS_OPTIONS: Final = {
    "timeout": seconds_from(0.001),
    "sentinel_username": TEXT,
    "sentinel_password": TEXT,
    "ssl_ca_certs": TEXT,
    "ssl_certfile": TEXT,
    "ssl_keyfile": TEXT,
    "ssl_check_hostname": YES_OR_NO,
    "ssl_verify": YES_OR_NO,
}
_POSTGRES_OPTIONS: Final = {
    "timeout": seconds_from(0.1, "a number of seconds, at least 0.1"),
    "schema": matching(
        "(?!pg_)[a-z_][a-z0-9_]{0,62}", "small letters, digits and _, at most 63, and not begin with pg_", str
    ),
    "prepare": matching("[01]", "0 or 1", "1".__eq__),
    "pool": matching("[1-9][0-9]{0,3}", "a number of connections", int),
}
_SERVICE_OPTIONS: Final = {"timeout": seconds_from(0.001), "ssl_ca_certs": TEXT}


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """A Redis or Valkey server.

    Attributes:
        kind: one server, its Sentinels, nodes of a cluster, or a socket on this machine.
        hosts: names and ports, in the order of the URL; of Sentinels where there are some.
        service: the name by which Sentinels know the master.
        path: the socket's file.
        options: of TLS, as redis-py calls them; empty without TLS.
        timeout: seconds that a verb may take.
    """

    kind: RedisKind
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


@dataclass(frozen=True, slots=True)
class PostgresTarget:
    """A PostgreSQL database.

    Attributes:
        parameters: how to connect, as libpq calls it: host, port, dbname, user, password and the like.
        schema: where the tables and functions are.
        timeout: seconds that a verb may take.
        prepare: keep prepared statements and settings in the session. A pooler that hands a session to
            another client after each transaction cannot have that.
        pool: connections that one process opens at most.
    """

    parameters: dict[str, Any] = field(repr=False)
    schema: str = DEFAULT_SCHEMA
    timeout: float = DEFAULT_TIMEOUT
    prepare: bool = True
    pool: int = DEFAULT_POOL

    def __str__(self) -> str:
        known = self.parameters
        where = known.get("host") or known.get("hostaddr") or "the local socket"
        port = f":{known['port']}" if "port" in known else ""
        return f"{where}{port}, database {known.get('dbname') or known.get('user') or 'by default'!s}"


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """A hosted service.

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


def disk_target(url: str) -> tuple[Path, float]:
    """Return the folder that a `disk://` URL names, absolute, and how long to wait for its lock (seconds).

    Raises:
        ConfigurationError: no folder, or an option that disk:// does not take.
    """
    parts = URLParts.of_folder(url)
    text = parts.path
    if not text.strip("/"):
        raise parts.error("it names no folder: write disk:///var/lib/app/budgets or disk://~/budgets")
    timeout = parts.options(_DISK_OPTIONS).get("timeout", DEFAULT_LOCK_TIMEOUT)
    if (unset := re.search(r"\$(\w+|\{[^}]*\})", expandvars(text))) is not None:
        raise parts.error(
            f"there is no variable {unset[0]} in the environment: set it, or write the folder out"
        )
    try:
        folder = Path(expandvars(text)).expanduser().absolute()
    except RuntimeError as error:  # ~name of nobody, or no home at all
        raise parts.error(f"{error}; write an absolute folder") from error
    if "\0" in text:
        raise parts.error("a folder's name cannot hold a NUL character")
    return folder, timeout


def redis_target(url: str) -> RedisTarget:
    """Read the URL of a Redis or Valkey store.

    Args:
        url: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`; with `rediss` over TLS; `valkey` and `valkeys`
            mean the same. `redis+sentinel://HOST,HOST/SERVICE[/DATABASE]`, `redis+cluster://HOST,HOST`,
            `redis+unix:///path/of.sock`. Options: `timeout=SECONDS`, `ssl_ca_certs=FILE`,
            `ssl_certfile=FILE`, `ssl_keyfile=FILE`, `ssl_verify=no`, `ssl_check_hostname=no`,
            `sentinel_username=`, `sentinel_password=`.

    Raises:
        ConfigurationError: anything else; its text shows no password.
    """
    parts = URLParts.of(url, "a user or password")
    base, _, way = parts.scheme.partition("+")
    tls = base in ("rediss", "valkeys")
    given = parts.options(_REDIS_OPTIONS, tls=tls, secure="rediss:// or valkeys://")
    username, password = parts.credentials()
    timeout = given.pop("timeout", DEFAULT_TIMEOUT)
    if way == "unix":
        if parts.listed or not parts.path:
            raise parts.error(f"it names no socket: write {base}+unix:///path/of.sock")
        path = unquote(f"/{parts.path}")
        return RedisTarget("unix", path=path, username=username, password=password, timeout=timeout)
    kind: RedisKind = "sentinel" if way == "sentinel" else "cluster" if way == "cluster" else "server"
    hosts = parts.hosts(_PORTS["sentinel" if kind == "sentinel" else "redis"])
    if kind == "server" and len(hosts) > 1:
        raise parts.error(f"it names several hosts: write {base}+sentinel:// or {base}+cluster://")
    steps = [unquote(step) for step in parts.path.split("/") if step]
    service = ""
    if kind == "sentinel":
        if not steps:
            raise parts.error(f"it names no service: write {base}+sentinel://HOST,HOST/SERVICE")
        service = steps.pop(0)
        if not _SENTINEL_SERVICE.fullmatch(service):  # what stands there may be an option, and secret
            raise parts.error(f"{shown_word(service)} names no service: write letters, digits, . - or _")
    if len(steps) > 1 or not all(re.fullmatch("[0-9]{1,6}", step) for step in steps):
        raise parts.error(f"{shown_word('/'.join(steps))} is no database: write its number, such as 0")
    database = int(steps[0]) if steps else 0
    if kind == "cluster" and database:
        raise parts.error("a cluster has database 0 only: leave it out")
    return RedisTarget(
        kind,
        hosts,
        service,
        database=database,
        username=username,
        password=password,
        sentinel_username=given.pop("sentinel_username", None),
        sentinel_password=given.pop("sentinel_password", None),
        tls=tls,
        options=tuple(given.items()),
        timeout=timeout,
    )


def postgres_target(url: str) -> PostgresTarget:
    """Read the URL of a PostgreSQL store.

    Args:
        url: `postgresql://[USER[:PASSWORD]@][HOST[:PORT]][/DATABASE]` and options: `timeout=SECONDS`,
            `schema=NAME`, `prepare=0`, `pool=CONNECTIONS`, and those of libpq, such as `sslmode=verify-full`.

    Raises:
        ConfigurationError: anything else; its text shows no password.
    """
    import psycopg  # only who uses such a store has it
    from psycopg.conninfo import conninfo_to_dict

    write = "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    parts = URLParts.of(url, "a user or password", at_in_options=True)
    if parts.userinfo.count("@"):
        raise parts.error(f"it has an @ in the wrong place: {write}, with %40 for @ in a name or a password")
    parts.refuse_options_in_path("the database's name")
    others = urlencode([pair for pair in parts.pairs if pair[0] not in _POSTGRES_OPTIONS], quote_via=quote)
    address = url.partition("?")[0]
    try:
        parameters = conninfo_to_dict(f"{address}?{others}" if others else address)
    except psycopg.Error as error:
        # Without its cause and without its words: they repeat parts of the URL.
        known = "parameter" not in str(error)
        raise parts.error(
            f"it has {'a mistake' if known else 'an option that neither budgetguard nor libpq has'}: {write} "
            "(%, /, : and @ in a password are written %25, %2F, %3A and %40); options are "
            f"{', '.join(_POSTGRES_OPTIONS)} and those of libpq"
        ) from None
    if not re.fullmatch("[0-9]*(?:,[0-9]*)*", str(parameters.get("port", ""))):
        raise parts.error(f"it has a port that is no number: {write}")
    return PostgresTarget(parameters, **parts.options(_POSTGRES_OPTIONS, others=True))


def service_target(url: str, headers: Mapping[str, str] | None = None) -> ServiceTarget:
    """Read the URL of a hosted service.

    Args:
        url: `https://[KEY@]HOST[:PORT][/PREFIX]`; `http` without TLS. Without a key in it, that of the
            variable `BUDGETGUARD_API_KEY` is sent, if there is one. Options: `timeout=SECONDS`,
            `ssl_ca_certs=FILE`.
        headers: sent in place of the key and of all that would be sent by itself.

    Raises:
        ConfigurationError: anything else; its text shows no key.
    """
    parts = URLParts.of(url, "a key")
    if "#" in url:
        raise parts.error("a # has no place in it: write %23")
    try:
        ((host, port),) = parts.hosts(_PORTS[parts.scheme])
    except (KeyError, ValueError):  # ConfigurationError is one
        raise parts.error(
            "it is no address of a service: write https://HOST or https://HOST:PORT/PREFIX, "
            "with IPv6 in brackets"
        ) from None
    parts.refuse_options_in_path("its path")
    try:
        host = host.lower() if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise parts.error("its host is none") from None
    path = quote(parts.path.rstrip("/"), safe="/%")
    beside = f", and its key before an @ or in {KEY_VARIABLE}"
    given = parts.options(_SERVICE_OPTIONS, tls=parts.scheme == "https", secure="https://", beside=beside)
    return ServiceTarget(
        scheme=parts.scheme,
        host=host,
        port=port,
        path=f"/{path}" if path else "",
        headers=_headers(headers, parts),
        **given,
    )


def _headers(given: Mapping[str, str] | None, parts: URLParts) -> tuple[tuple[str, str], ...]:
    always = ("Content-Type", "application/json")
    if given is None:
        username, password = parts.credentials()
        key = password or username or os.environ.get(KEY_VARIABLE, "").strip()
        if not _VISIBLE.issuperset(key):
            raise ConfigurationError(
                f"the key for {parts.shown!r} has characters that no key has: "
                "copy it again from where it was made"
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
