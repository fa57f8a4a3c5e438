"""Stores that projects share list all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from budgetguard.testing._contract_records import AWKWARD
from tests.servers.postgres import fresh_url, shared_server
from tests.servers.valkey import ValkeyServer


@pytest.fixture(params=["disk", "valkey", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "valkey":
        server = ValkeyServer(tmp_path)
        yield server.url
        server.kill()
    else:
        yield fresh_url(shared_server()) if request.param == "postgres" else f"disk://{tmp_path}/store"


def test_all_projects_that_have_a_budget_are_listed_in_order_or_those_of_one_account(url: str) -> None:
    for project in ("p", *AWKWARD):
        store = open_store(url, project=project)
        store.set_budget(f"user:{project}", Budget(100))
        store.set_budget("user:a", Budget(100))
        store.close()
    store = open_store(url, project="another, which has none")
    names = sorted(["p", *AWKWARD])
    assert list(store.projects()) == names
    assert list(store.projects("user:a")) == names
    for name in names:
        assert list(store.projects(f"user:{name}")) == [name]
    assert list(store.projects("user:*b")) == []
    store.close()
