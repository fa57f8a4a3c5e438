"""The tables and functions of a PostgreSQL store: made once, by whoever comes first, and migrated in steps.

Each file in `sql/` is one step, and its number is the version that the schema has after it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString

import psycopg
from psycopg import sql

from budgetguard.errors import StoreError
from budgetguard.stores.postgres_link import PostgresConnection
from budgetguard.stores.targets import PostgresTarget


def ensure(con: PostgresConnection, target: PostgresTarget) -> None:
    """See to it that the schema is there and of this version.

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
    try:
        with con.transaction():
            # Whatever others have made on this role's path, the steps mean what the server has.
            con.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            name = f"budgetguard {target.schema}"
            con.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
            before = _version(con, target)
            if before > _latest():
                raise StoreError(
                    f"the schema {target.schema} at {target} has version {before}, and this budgetguard "
                    f"knows {_latest()} at most: install a newer one, or name another schema with ?schema="
                )
            if before == 0:
                _begin(con, target)
            for number, text in _steps():
                if number > before:
                    con.execute(text.replace("@schema@", f'"{target.schema}"').encode(), prepare=False)
                    con.execute(
                        _own("INSERT INTO {}.versions VALUES (%s, now()) ON CONFLICT DO NOTHING", target),
                        [number],
                    )
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreError(
            f"cannot make the schema {target.schema} at {target}: this role may not. Run `budgetguard "
            f"migrate --store postgresql://OWNER@...` as a role that may, and let it say: "
            f"{grants(target)} ({error})"
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
    found = con.execute(_own("SELECT version FROM {}.versions", target)).fetchall()
    versions = {version for (version,) in found}
    # A step that is missing below others is made as well, and those after it again.
    missing = [number for number, _ in _steps() if number not in versions]
    return min(missing) - 1 if missing else max(versions)


def _own(text: LiteralString, target: PostgresTarget) -> sql.Composed:
    return sql.SQL(text).format(sql.Identifier(target.schema))


def _latest() -> int:
    return _steps()[-1][0]


@cache
def _steps() -> tuple[tuple[int, str], ...]:
    found = (files("budgetguard.stores") / "sql").iterdir()
    steps = sorted(
        (file.name, file.read_text(encoding="utf-8")) for file in found if file.name.endswith(".sql")
    )
    return tuple((int(name.partition("_")[0]), text) for name, text in steps)
