"""`budgetguard migrate`, on a real PostgreSQL server and where there is nothing to migrate."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from tests.servers.postgres import fresh_url, shared_server

from .helpers import run


@pytest.fixture
def url() -> str:
    return fresh_url(shared_server())


def test_migrate_makes_the_schema_once_and_says_what_to_grant(url: str) -> None:
    first = run("migrate", "--store", url)
    assert (first.code, first.err) == (0, "")
    assert first.out.startswith(f"Made the schema of postgresql://127.0.0.1:{shared_server().port}/postgres")
    assert "GRANT USAGE ON SCHEMA" in first.out
    again = run("migrate", "--store", url, "--json")
    assert again.object["action"] == "none"
    assert again.object["before"] == again.object["after"] > 0
    assert "ROLE_NAME" in again.object["grants"]
    assert "Nothing to do" in run("migrate", "--store", url).out


def test_migrate_goes_on_from_the_version_that_it_finds(url: str) -> None:
    store = open_store(url, project="p")
    store.set_budget("user:1", Budget(100))
    store.close()
    schema = url.partition("schema=")[2]
    with psycopg.connect(shared_server().url) as con:
        # As an installation of long ago left it: without the last step.
        found = con.execute(f"DELETE FROM {schema}.versions WHERE version = 8 RETURNING version").fetchall()
        assert found == [(8,)]
        functions = ("instant", "moved_to", "retire", "restore")
        for function in (*functions, "export_holds", "export_accounts", "export_models"):
            con.execute(f"DROP FUNCTION {schema}.{function}")
    assert run("migrate", "--store", url).out.startswith("Migrated the schema of postgresql://")
    store = open_store(url, project="p")
    assert [balance.account for balance in store.list()] == ["user:1"]
    store.close()


def test_migrate_says_that_other_stores_need_nothing(tmp_path: Path) -> None:
    done = run("migrate", "--store", f"disk://{tmp_path}/store")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Nothing to do: disk://")
    assert run("migrate", "--store", f"disk://{tmp_path}/store", "--json").object["action"] == "none"


def test_a_server_that_is_away_is_one_line_without_the_password() -> None:
    done = run("migrate", "--store", "postgresql://u:top-secret@127.0.0.1:1/d")
    assert done.code == 1
    assert "is it running, and at that address" in done.err
    assert "secret" not in done.out + done.err
    assert done.err.count("\n") == 1
