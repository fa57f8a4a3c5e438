"""How much of a disk store a verb touches, since how long it takes proves nothing."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.rows import new_account
from budgetguard.stores import Store, open_store, sqlite_tables
from budgetguard.stores.sqlite import DiskStore
from budgetguard.testing.clock import FakeClock
from tests.bad_days.disk.opening import connection, make_hold, opened, spend

# Many users: how SQLite goes about it, since how long it takes proves nothing


# An INSERT looks for nothing, and of projects there are few.
STATEMENTS = {
    name: text
    for name, text in vars(sqlite_tables).items()
    if isinstance(text, str) and re.match(r"\s*(SELECT|UPDATE|DELETE) ", text) and "FROM project" not in text
}


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_every_statement_finds_its_rows_by_an_index(folder: Path, name: str) -> None:
    statement = STATEMENTS[name]
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        plan = con.execute(f"EXPLAIN QUERY PLAN {statement}", [0] * statement.count("?")).fetchall()
    steps = [step for *_, step in plan]
    assert any("SEARCH" in step for step in steps), steps
    assert not any("SCAN" in step or "TEMP B-TREE" in step for step in steps), steps


def count_steps(store: Store, verb: Callable[[], object]) -> int:
    """Return how many instructions SQLite's machine runs for a verb."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    con = connection(store)
    con.set_progress_handler(tick, 1)
    verb()
    con.set_progress_handler(None, 0)
    return ticks


def test_reserving_and_settling_touches_no_more_of_a_store_with_many_users(tmp_path: Path) -> None:
    def steps_of_a_call(users: int) -> int:
        store = opened(tmp_path / str(users))
        assert isinstance(store, DiskStore)
        row = new_account(Budget(10**9), 0)
        store._run(lambda rows: [rows.save_account(f"user:{i}", row) for i in range(users)])

        def verbs() -> None:
            spend(store, 1)
            assert store.read("user:1") is not None
            next(store.list("user"))

        verbs()
        steps = count_steps(store, verbs)
        store.close()
        return steps

    few, many = steps_of_a_call(1_000), steps_of_a_call(20_000)
    assert many < few * 1.05


@pytest.mark.parametrize(
    "verb",
    [
        lambda store: spend(store, 1),
        lambda store: store.reserve(make_hold(10**12)),
        lambda store: store.settle(make_hold(1), Settlement(1)),
        lambda store: store.settle(make_hold(1), Settlement(1, thresholds=(0,))),
        lambda store: store.read("user:1"),
        lambda store: store.reset("user:1"),
        lambda store: list(store.list()),
    ],
    ids=["reserve and settle", "refuse", "settle the unknown", "cross", "read", "reset", "list"],
)
def test_verbs_touch_no_more_of_an_account_with_many_open_holds(
    folder: Path, verb: Callable[[Store], object]
) -> None:
    store = opened(folder)
    store.set_budget("user:1", Budget(10**9))
    verb(store)
    few = count_steps(store, lambda: verb(store))
    for _ in range(1_000):
        assert isinstance(store.reserve(make_hold(1)), Granted)
    verb(store)
    assert count_steps(store, lambda: verb(store)) < few * 1.05
    balance = store.read("user:1")
    assert balance is not None
    assert balance.open_holds >= 1_000
    store.close()


def test_open_holds_are_searched_for_expired_ones_once_and_not_again_before_the_next_can_expire(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    store = open_store(f"disk://{tmp_path}", project="p", clock=clock)
    store.set_budget("user:1", Budget(1_000))

    def hold(amount: int, ttl: int) -> Hold:
        return Hold(new_hold_id(clock()), (Charge("user:1"),), amount, 1, ttl, clock(), "1", "m", "chat")

    first = hold(1, 1_000)
    store.reserve(first)
    store.settle(first, Settlement(1))
    for _ in range(300):
        store.reserve(hold(1, 600_000))
    clock.advance(2)  # when the first would have expired
    steps = [count_steps(store, lambda: store.reserve(hold(5_000, 1_000))) for _ in range(3)]
    assert steps[1] == steps[2] < steps[0] / 2
    store.close()
