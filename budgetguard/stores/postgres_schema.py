"""The tables and functions of a PostgreSQL store: made by whoever comes first, migrated version by version.

A file in `sql/` is named VERSION_PLACE_SUBJECT.sql: those of one version make it of the one before, in order.
`every_version.sql` runs after each migration.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final, LiteralString

import psycopg
from psycopg import sql

from budgetguard.core.ledger import REMEMBERED
from budgetguard.core.money import MAX_NANOS, MAX_SUM
from budgetguard.core.usage import MOST_MODELS
from budgetguard.errors import StoreError
from budgetguard.stores.postgres_link import PostgresConnection
from budgetguard.stores.targets import PostgresTarget

_FOLDER: Final = files("budgetguard.stores") / "sql"


def ensure(con: PostgresConnection, target: PostgresTarget) -> None:
    """Make or migrate the schema unless it has this version.

    Raises:
        StoreError: it is newer, or this role may neither make nor use it.
    """
    if _version(con, target) != _latest():
        migrate(con, target)


def migrate(con: PostgresConnection, target: PostgresTarget) -> tuple[int, int]:
    """Make or migrate the schema, and return its version before and after; 0 is none.

    Raises:
        StoreError: it is newer, or this role may not make it.
    """
    before = 0
    try:
        with con.transaction():
            # Whatever others have made on this role's path, these names mean what the server has.
            con.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            con.execute("SET LOCAL check_function_bodies = off")  # others wait, and to check takes half of it
            name = f"budgetguard {target.schema}"
            con.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
            before = _version(con, target)
            if before > _latest():
                raise StoreError(
                    f"the schema {target.schema} at {target} has version {before}, and this budgetguard "
                    f"knows {_latest()}: use the budgetguard that made it (a newer one, or one from before "
                    "the first release), or name another schema with ?schema=; nothing was changed"
                )
            if before == 0:
                _begin(con, target)
            for version in range(before + 1, _latest() + 1):
                _run(con, target, _versions()[version])
                con.execute(_own("INSERT INTO {}.versions VALUES (%s, now())", target), [version])
            if before < _latest():
                _run(con, target, _sql("every_version.sql"))
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"cannot {'update' if before else 'make'} the schema {target.schema} at {target} to version "
            f"{_latest()}: this role may not. Run `budgetguard migrate --store postgresql://OWNER@...` as a "
            f"role that may, and let it say: {grants(target)} ({error})"
        ) from error
    return before, _latest()


def grants(target: PostgresTarget) -> str:
    """Return the SQL with which the owner lets another role use the store."""
    schema = f'"{target.schema}"'  # it may be a word of SQL, such as user
    return (
        f"GRANT USAGE ON SCHEMA {schema} TO ROLE_NAME; "
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO ROLE_NAME"
    )


def _begin(con: PostgresConnection, target: PostgresTarget) -> None:
    ((encoding,),) = con.execute("SHOW server_encoding").fetchall()
    if encoding != "UTF8":
        raise StoreError(
            f"cannot make the store at {target}: the database is encoded in {encoding}, which cannot hold "
            "every name: make one with createdb --encoding UTF8 --template template0"
        )
    there = con.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [target.schema]).fetchone()
    if there is None:  # IF NOT EXISTS would ask for the right to make it all the same
        con.execute(_own("CREATE SCHEMA {}", target))
    con.execute(
        _own("CREATE TABLE {}.versions (version integer PRIMARY KEY, since timestamptz NOT NULL)", target)
    )


def _version(con: PostgresConnection, target: PostgresTarget) -> int:
    # Not to_regclass: that answers from a cache which may not know yet what another session has just made.
    there = con.execute(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = 'versions'",
        [target.schema],
    ).fetchone()
    if there is None:
        return 0
    ((version,),) = con.execute(_own("SELECT coalesce(max(version), 0) FROM {}.versions", target)).fetchall()
    return int(version)


def _run(con: PostgresConnection, target: PostgresTarget, text: str) -> None:
    names = {
        "schema": f'"{target.schema}"',
        "max_nanos": MAX_NANOS,
        "max_sum": MAX_SUM,
        "most_models": MOST_MODELS,
        "remembered": REMEMBERED,
    }
    for name, value in names.items():
        text = text.replace(f"@{name}@", str(value))
    con.execute(text.encode(), prepare=False)


def _own(text: LiteralString, target: PostgresTarget) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier(target.schema))


def _latest() -> int:
    return max(_versions())


@cache
def _versions() -> dict[int, str]:
    """Return the SQL that makes each version of the one before."""
    found: dict[int, str] = {}
    for name in sorted(file.name for file in _FOLDER.iterdir()):
        if name[0].isdigit():
            version = int(name.partition("_")[0])
            found[version] = found.get(version, "") + _sql(name)
    return found


def _sql(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
