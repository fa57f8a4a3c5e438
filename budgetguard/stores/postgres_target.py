"""The URLs of PostgreSQL stores: which database, as whom, and how long to wait for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from budgetguard.errors import ConfigurationError
from budgetguard.stores.urls import shown_url, shown_word

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as missing:
    raise ConfigurationError(
        f"postgresql:// needs psycopg: pip install 'budgetguard-ai[postgres]' ({missing})"
    ) from missing

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that a verb may take, connecting and trying again included, before it raises StoreError."""
DEFAULT_SCHEMA: Final = "budgetguard"
DEFAULT_POOL: Final = 10

_OURS: Final = ("timeout", "schema", "prepare", "pool")
_SCHEMA = re.compile("[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Target:
    """Hold what a URL says.

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


def parse_url(url: str) -> Target:
    """Read the URL of a PostgreSQL store.

    Args:
        url: `postgresql://[USER[:PASSWORD]@][HOST[:PORT]][/DATABASE]` and options: `timeout=SECONDS`,
            `schema=NAME`, `prepare=0`, `pool=CONNECTIONS`, and those of libpq, such as `sslmode=verify-full`.

    Raises:
        ConfigurationError: anything else; its text shows no password.
    """
    shown = shown_url(url)
    address, _, query = url.partition("?")
    authority, _, path = address.partition("://")[2].partition("/")
    if "@" in path or authority.count("@") > 1:
        raise ConfigurationError(
            f"store {shown!r} has an @ in the wrong place: write "
            "postgresql://USER:PASSWORD@HOST/DATABASE, with %2F and %40 for / and @ in a name or a password"
        )
    if ";" in path or "=" in path:
        raise ConfigurationError(
            f"store {shown!r} has options in the database's name: they come after a question mark, with & "
            "between them; in a name, ; and = are written %3B and %3D"
        )
    given = parse_qsl(query, keep_blank_values=True)
    own = {name: value for name, value in given if name in _OURS}
    rest = urlencode([pair for pair in given if pair[0] not in _OURS], quote_via=quote)
    try:
        parameters = conninfo_to_dict(f"{address}?{rest}" if rest else address)
    except psycopg.Error as error:
        # Without its cause and without its words: they repeat parts of the URL.
        hint = " (%, /, : and @ in a password are written %25, %2F, %3A and %40)"
        kind = (
            "an option that neither budgetguard nor libpq has" if "parameter" in str(error) else "a mistake"
        )
        raise ConfigurationError(
            f"store {shown!r} has {kind}: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE{hint}; "
            f"options are {', '.join(_OURS)} and those of libpq"
        ) from None
    if not re.fullmatch("[0-9]*(?:,[0-9]*)*", str(parameters.get("port", ""))):
        raise ConfigurationError(
            f"store {shown!r} has a port that is no number: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        )
    schema = own.get("schema", DEFAULT_SCHEMA)
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise ConfigurationError(
            f"store {shown!r}: schema must be small letters, digits and _, at most 63, not "
            f"{shown_word(schema)}"
        )
    prepare = own.get("prepare", "1")
    if prepare not in ("0", "1"):
        raise ConfigurationError(f"store {shown!r}: prepare must be 0 or 1, not {shown_word(prepare)}")
    pool = own.get("pool", str(DEFAULT_POOL))
    if not re.fullmatch("[1-9][0-9]{0,3}", pool):
        raise ConfigurationError(
            f"store {shown!r}: pool must be a number of connections, not {shown_word(pool)}"
        )
    return Target(parameters, schema, _seconds(own, shown), prepare == "1", int(pool))


def _seconds(own: dict[str, str], shown: str) -> float:
    value = own.get("timeout", str(DEFAULT_TIMEOUT))
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0.1 <= seconds < 1e6:
        raise ConfigurationError(
            f"store {shown!r}: timeout must be a number of seconds, at least 0.1, not {shown_word(value)}"
        )
    return seconds
