"""Moves between stores of different kinds: what is the same, what is refused, what is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Settlement
from budgetguard.core.rows import Export, Stored, StoredAccount, StoredHold
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores import open_store
from budgetguard.stores.base import public_url
from budgetguard.stores.transfer import Progress, move, undo
from budgetguard.stores.verifying import verify
from budgetguard.testing._contract_base import USER, budget, granted, hold, money, settled
from budgetguard.testing._contract_life import live
from budgetguard.testing._contract_transfer import MovableStore, exported, sorted_rows
from budgetguard.testing.clock import FakeClock

from .conftest import NewUrl

KINDS = ("disk", "redis", "postgresql")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


class Pair:
    """Two stores, of which the first has lived."""

    def __init__(self, old: str, new: str, clock: FakeClock) -> None:
        self.clock = clock
        self.source = cast(MovableStore, open_store(old, project="p", clock=clock))
        self.target = cast(MovableStore, open_store(new, project="p", clock=clock))
        live(self.source, clock)

    def close(self) -> None:
        self.source.close()
        self.target.close()


@pytest.fixture
def pair(new_url: NewUrl, clock: FakeClock) -> Iterator[Pair]:
    made = Pair(new_url("disk"), new_url("disk"), clock)
    yield made
    made.close()


@pytest.mark.parametrize("new", KINDS)
@pytest.mark.parametrize("old", KINDS)
def test_a_copy_has_every_row_whatever_the_two_stores_are(
    old: str, new: str, new_url: NewUrl, clock: FakeClock
) -> None:
    pair = Pair(new_url(old), new_url(new), clock)
    call = granted(pair.source, hold(clock, 5))
    before = sorted_rows(exported(pair.source))
    told: list[Progress] = []
    done = move(pair.source, pair.target, tell=told.append)
    assert done.action == "moved"
    assert sorted_rows(exported(pair.target)) == before
    assert verify(pair.target)
    assert (done.sums.accounts, done.sums.records) == (
        len(list(pair.target.list())),
        verify(pair.target).records,
    )
    money = [balance for balance in pair.source.list() if balance.unit == "usd"]
    assert done.sums.spent == sum(balance.spent_nanos for balance in money)
    assert done.sums.cost == sum(record.cost_nanos for record in pair.source.calls())
    assert {progress.step for progress in told} == {"copying", "comparing"}
    with pytest.raises(StoreError, match="has moved from"):
        settled(pair.source, call, 5)
    settled(pair.target, call, 5)
    pair.close()


def test_a_copy_that_was_finished_is_not_done_again(pair: Pair) -> None:
    move(pair.source, pair.target)
    settled(pair.target, granted(pair.target, hold(pair.clock, 5)), 5)
    before = sorted_rows(exported(pair.target))
    assert move(pair.source, pair.target).action == "none"
    assert sorted_rows(exported(pair.target)) == before


def test_a_copy_writes_over_nobody_elses_project(pair: Pair) -> None:
    budget(pair.target, 5, "user:theirs")
    with pytest.raises(ConfigurationError, match="has a project 'p' already, with account user:theirs"):
        move(pair.source, pair.target)
    assert [balance.account for balance in pair.target.list()] == ["user:theirs"]
    assert (pair.source.frozen(), pair.target.frozen()) == (None, None)


def test_a_copy_of_another_store_is_not_gone_on_with(pair: Pair, new_url: NewUrl) -> None:
    pair.target.freeze("copy of project 'p' of disk:///elsewhere")
    with pytest.raises(ConfigurationError, match="has a copy of project 'p' of disk:///elsewhere"):
        move(pair.source, pair.target)
    assert pair.source.frozen() is None


def test_a_project_is_copied_neither_to_itself_nor_from_where_it_is_no_more(
    pair: Pair, new_url: NewUrl
) -> None:
    with pytest.raises(ConfigurationError, match="to itself"):
        move(pair.source, pair.source)
    move(pair.source, pair.target)
    third = cast(MovableStore, open_store(new_url("disk"), project="p", clock=pair.clock))
    with pytest.raises(ConfigurationError, match="move it from there"):
        move(pair.source, third)
    third.close()


class Interrupted(Exception):
    """Stands for a killed program, a store that is away, a key that was pressed."""


class Fragile:
    """A store of which a verb fails once it has been asked so often."""

    def __init__(self, store: MovableStore, verb: str, after: int) -> None:
        self._store, self._verb, self._left = store, verb, after

    def __getattr__(self, name: str) -> Any:
        if name == self._verb:
            self._left -= 1
            if self._left < 0:
                raise Interrupted
        return getattr(self._store, name)


@pytest.mark.parametrize(
    ("verb", "after"),
    [("freeze", 0), ("restore", 0), ("restore", 1), ("export", 1), ("export", 2)],
)
def test_a_move_that_was_interrupted_can_be_repeated(pair: Pair, verb: str, after: int) -> None:
    fragile = cast(MovableStore, Fragile(pair.target, verb, after))
    with pytest.raises(Interrupted):
        move(pair.source, fragile)
    assert pair.source.frozen() is None
    # Meanwhile the project lives on where it is: calls, budgets, accounts that go.
    settled(pair.source, granted(pair.source, hold(pair.clock, 5)), 5)
    pair.source.delete("user:gone")
    budget(pair.source, 77, "user:later")
    assert move(pair.source, pair.target).action == "moved"
    assert sorted_rows(exported(pair.target)) == sorted_rows(exported(pair.source))
    assert money(pair.target, "user:later") == (77, 0, 0)


class Killed:
    """A store whose mover is killed once a verb has been asked so often: nothing more comes of it."""

    def __init__(self, store: MovableStore, verb: str, after: int, dead: list[str]) -> None:
        self._store, self._verb, self._left, self._dead = store, verb, after, dead

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if self._dead and callable(value):
            raise Interrupted
        if name == self._verb:
            self._left -= 1
            if self._left < 0:
                self._dead.append(name)
                raise Interrupted
        return value


KILLED_AT = [
    ("source", "freeze", 1),
    ("target", "freeze", 1),
    ("target", "restore", 0),
    ("target", "restore", 1),
]


@pytest.mark.parametrize(("at", "verb", "after"), KILLED_AT)
def test_a_move_that_was_killed_is_finished_when_it_is_repeated(
    pair: Pair, at: str, verb: str, after: int
) -> None:
    before = sorted_rows(exported(pair.source))
    kill(pair, at, verb, after)
    with pytest.raises(StoreError, match=r"being moved|has moved"):
        budget(pair.source, 5)
    with pytest.raises(StoreError, match="is an unfinished copy of project 'p'"):
        budget(pair.target, 5)
    assert move(pair.source, pair.target).action == "moved"
    assert sorted_rows(exported(pair.target)) == before
    whereto = f"moved to {public_url(pair.target.url)}"
    assert (pair.source.frozen(), pair.target.frozen()) == (whereto, None)


def test_a_move_that_was_killed_can_be_undone_and_made_again(pair: Pair) -> None:
    call = granted(pair.source, hold(pair.clock, 5))
    kill(pair, "target", "restore", 1)
    undo(pair.source)
    settled(pair.source, call, 5)
    pair.source.delete("user:gone")
    assert move(pair.source, pair.target).action == "moved"
    assert sorted_rows(exported(pair.target)) == sorted_rows(exported(pair.source))


def test_a_move_that_has_been_made_is_not_undone(pair: Pair) -> None:
    with pytest.raises(ConfigurationError, match="is in use: nothing to undo"):
        undo(pair.source)
    move(pair.source, pair.target)
    with pytest.raises(ConfigurationError, match=r"moved to .*: nothing to undo"):
        undo(pair.source)


def test_a_second_mover_writes_nothing_over_what_the_first_has_opened(pair: Pair) -> None:
    class Late:
        """A source that stands still while another mover finishes."""

        def export(self) -> Export:
            rows = list(pair.source.export().rows)
            move(pair.source, pair.target)
            settled(pair.target, granted(pair.target, hold(pair.clock, 5)), 5)
            return Export(0, iter(rows))

        def __getattr__(self, name: str) -> Any:
            return getattr(pair.source, name)

    with pytest.raises(StoreError, match="is in use"):
        move(cast(MovableStore, Late()), pair.target)
    assert pair.source.frozen() == f"moved to {public_url(pair.target.url)}"
    assert verify(pair.target)
    assert pair.target.frozen() is None


def kill(pair: Pair, at: str, verb: str, after: int) -> None:
    dead: list[str] = []
    stores = {
        name: Killed(store, verb if name == at else "", after, dead)
        for name, store in (("source", pair.source), ("target", pair.target))
    }
    with pytest.raises(Interrupted):
        move(cast(MovableStore, stores["source"]), cast(MovableStore, stores["target"]))


class Forgetful:
    """A store that loses a row of each copy: a comparison must find it."""

    def __init__(self, store: MovableStore, lose: str) -> None:
        self._store, self._lose = store, lose

    def export(self) -> Export:
        export = self._store.export()
        return Export(export.at, (changed(one, self._lose) for one in export.rows))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def changed(one: Stored, what: str) -> Stored:
    if what == "spent" and isinstance(one, StoredAccount) and one.name == USER and one.row is not None:
        one.row["spent"] += 1
    if what == "cost" and isinstance(one, StoredHold) and one.row["state"] == "expired":
        one.row["cost"] += 1
    return one


@pytest.mark.parametrize("what", ["spent", "cost"])
def test_a_copy_that_is_not_the_same_to_the_nano_leaves_the_project_where_it_is(
    pair: Pair, what: str
) -> None:
    told = "accounts that differ: user:1" if what == "spent" else "accounts that differ: none"
    with pytest.raises(StoreError, match=rf"is not the same: .*{told}\. Nothing has moved"):
        move(pair.source, cast(MovableStore, Forgetful(pair.target, what)))
    assert pair.source.frozen() is None
    settled(pair.source, granted(pair.source, hold(pair.clock, 5)), 5)
    with pytest.raises(StoreError, match="unfinished copy"):
        pair.target.settle(hold(pair.clock, 5), Settlement(5))


def test_what_retention_has_removed_from_one_of_the_stores_is_not_missed(
    new_url: NewUrl, clock: FakeClock
) -> None:
    source = cast(MovableStore, open_store(new_url("disk"), project="p", clock=clock, retention="30d"))
    target = cast(MovableStore, open_store(new_url("postgresql"), project="p", clock=clock, retention="7d"))
    source.set_budget(USER, Budget(None))
    settled(source, granted(source, hold(clock, 5)), 5)
    clock.advance(20 * 86_400)
    settled(source, granted(source, hold(clock, 5)), 5)
    done = move(source, target)
    assert (done.sums.records, done.sums.cost, done.sums.spent) == (1, 5, 10)
    source.close()
    target.close()
