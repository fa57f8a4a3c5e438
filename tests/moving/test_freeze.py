"""Verbs that are under way while a project of a PostgreSQL store is frozen: none of them writes after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import psycopg
import pytest

from budgetguard.core.holds import VOID
from budgetguard.errors import StoreError
from budgetguard.stores import open_store
from budgetguard.testing._contract_base import budget, hold, money
from budgetguard.testing._contract_transfer import MovableStore
from budgetguard.testing.clock import FakeClock
from tests.servers.postgres import shared_server

from .conftest import NewUrl

Con = psycopg.Connection[Any]


@pytest.fixture
def store(new_url: NewUrl) -> Iterator[MovableStore]:
    store = cast(MovableStore, open_store(new_url("postgresql"), project="p", clock=FakeClock()))
    budget(store, 100)
    yield store
    store.close()


@pytest.fixture
def con(store: MovableStore) -> Iterator[Con]:
    """Connect as somebody whose verb is under way."""
    with psycopg.connect(shared_server().url) as con:
        con.execute(f"SET search_path TO {store.url.partition('schema=')[2]}".encode())
        con.commit()
        yield con


def begin(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Begin something that has to wait for a lock, and return once it waits."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except StoreError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    give_up = time.monotonic() + 20
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        while not con.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert thread.is_alive(), "it waited for nobody"
            assert time.monotonic() < give_up
            time.sleep(0.01)
    return thread, raised


@pytest.mark.parametrize("table", ["accounts", "holds"])
def test_a_project_is_frozen_only_when_no_verb_is_under_way(
    store: MovableStore, con: Con, table: str
) -> None:
    con.execute(f"DELETE FROM {table} WHERE project = 'nobodys'".encode())
    thread, raised = begin(lambda: store.freeze("moved to disk:///elsewhere"))
    assert store.frozen() is None
    con.commit()
    thread.join()
    assert raised == []
    assert store.frozen() == "moved to disk:///elsewhere"


@pytest.mark.parametrize("verb", ["reserve", "settle", "set_budget", "reset", "attach"])
def test_a_verb_that_began_before_its_project_was_frozen_writes_nothing_after_it(
    store: MovableStore, con: Con, verb: str
) -> None:
    clock = FakeClock()
    call = hold(clock, 5)
    store.reserve(call)
    con.execute("SELECT freeze('p', 'moved to disk:///elsewhere')")
    verbs: dict[str, Callable[[], object]] = {
        "reserve": lambda: store.reserve(hold(clock, 5)),
        "settle": lambda: store.settle(call, VOID),
        "set_budget": lambda: budget(store, 7),
        "reset": lambda: store.reset("user:1"),
        "attach": lambda: store.attach(call.id, "resp_1"),
    }
    thread, raised = begin(verbs[verb])
    con.commit()
    thread.join()
    (error,) = raised
    assert "has moved" in str(error)
    assert money(store) == (100, 0, 5)
    assert store.attached("resp_1") is None
