"""`budgetguard migrate`, on a real PostgreSQL server and where there is nothing to migrate."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store, postgres_schema
from tests.servers.postgres import fresh_url, shared_server

from .helpers import run, run_here


@pytest.fixture
def url() -> str:
    return fresh_url(shared_server())


@pytest.mark.full
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


def test_migrate_goes_on_from_the_version_that_it_finds(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(url, project="p")
    store.set_budget("user:1", Budget(100))
    store.close()
    known = postgres_schema._versions()
    latest = max(known)
    later = {
        latest + 1: "CREATE TABLE @schema@.later (name text);",
        latest + 2: "ALTER TABLE @schema@.later ADD size bigint;",
    }
    monkeypatch.setattr(postgres_schema, "_versions", lambda: known | later)
    done = run_here("migrate", "--store", url, "--json").object
    assert (done["action"], done["before"], done["after"]) == ("migrated", latest, latest + 2)
    with psycopg.connect(shared_server().url) as con:
        con.execute(f"SELECT name, size FROM {url.partition('schema=')[2]}.later")
    store = open_store(url, project="p")
    assert [balance.account for balance in store.list()] == ["user:1"]
    store.close()


@pytest.mark.full
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
