"""The spool on bad days: a store that came back empty, and files that are none of ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from budgetguard import Guard
from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.engine.spool import Spool, deliver, drop_unknown, waiting
from budgetguard.stores import open_store
from tests.guarded_calls import AsItIs

COST = 700


def hold_of(user: str = "user:1") -> Hold:
    now = time.time_ns() // 10**6
    charges = (Charge(user, required=True),)
    return Hold(new_hold_id(now), charges, 1_000, 1_000, 600_000, now, user="1", model="m", endpoint="chat")


class Place:
    """A store on disk, and its spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"disk://{folder}/store"
        self.spool = Spool(folder / "spool", self.url, "p")

    def guard(self) -> contextlib.closing[Guard]:
        return contextlib.closing(Guard(store=self.url, project="p", spool=str(self.folder / "spool")))

    def with_budget(self) -> None:
        with contextlib.closing(open_store(self.url, project="p")) as store:
            store.set_budget("user:1", Budget(10**9))

    def spent(self) -> int:
        with self.guard() as guard:
            guard.balance("1")
            guard.flush()
            return guard.balance("1").spent_nanos


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_an_empty_store_does_not_know_is_kept_until_it_is_restored(place: Place) -> None:
    place.with_budget()
    hold = hold_of()
    with contextlib.closing(open_store(place.url, project="p")) as store:
        store.reserve(hold)
    place.spool.put(hold, Settlement(COST))
    shutil.copytree(place.folder / "store", place.folder / "backup")
    shutil.rmtree(place.folder / "store")
    for _ in range(2):
        with place.guard() as guard:
            list(guard.store.list())
            guard.flush()
        assert [(one.settlements, one.unknown) for one in waiting(place.folder / "spool")] == [(1, 1)]
    shutil.rmtree(place.folder / "store")
    shutil.copytree(place.folder / "backup", place.folder / "store")
    assert place.spent() == COST
    assert list(place.spool.waiting()) == []


def test_a_call_whose_account_went_meanwhile_is_kept_too(place: Place) -> None:
    place.with_budget()
    hold = hold_of()
    with place.guard() as guard:
        guard.engine.reserve(hold, AsItIs(hold))
        guard.engine.settle(replace(hold_of(), charges=(Charge("user:2", required=True),)), Settlement(COST))
        guard.engine.settle(hold, Settlement(COST))
        assert [one.unknown for one in place.spool.waiting()] == [True]
        guard.set_budget(1, user="2")
        guard.flush()
        assert guard.balance("2").spent_nanos == COST
    assert list(place.spool.waiting()) == []


def test_a_call_that_the_project_alone_paid_for_is_kept_where_the_store_has_lost_the_project(
    place: Place,
) -> None:
    project = replace(hold_of(), charges=(Charge("project:p"),))
    with place.guard() as guard:
        guard.store.set_budget("project:p", Budget(10**9))
        assert isinstance(guard.engine.reserve(project, AsItIs(project)), Granted)
        with contextlib.closing(sqlite3.connect(place.folder / "store" / "cache.db")) as con, con:
            con.execute("DELETE FROM accounts")
            con.execute("DELETE FROM hold")
        guard.engine.settle(project, Settlement(COST))
        assert [one.unknown for one in place.spool.waiting()] == [True]
        guard.store.set_budget("project:p", Budget(10**9))
        guard.flush()
        found = guard.store.read("project:p")
        assert found is not None
        assert found.spent_nanos == COST
    assert list(place.spool.waiting()) == []


def test_a_call_that_nothing_limits_is_not_kept(place: Place) -> None:
    nobody = replace(hold_of(), charges=(Charge("project:p"),))
    with place.guard() as guard:
        guard.engine.settle(nobody, Settlement(COST))
    assert list(place.spool.waiting()) == []


def test_deliver_and_drop_keep_to_what_a_person_says(place: Place) -> None:
    place.spool.put(hold_of(), Settlement(COST))
    with contextlib.closing(open_store("memory://", project="p")) as target:
        done = deliver(place.folder / "spool", place.url, target)
        assert (done.settlements, done.unknown) == (0, ("user:1",))
        assert [one.unknown for one in place.spool.waiting()] == [True]
        place.spool.put(hold_of(), Settlement(COST))
        assert drop_unknown(place.folder / "spool") == 1
        assert [one.unknown for one in place.spool.waiting()] == [False]


def _text(text: str | bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(text.encode() if isinstance(text, str) else text), None)[1]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_text("[" * 100_000), id="nested"),
        pytest.param(_text(b"\xff\xfe{}"), id="no text"),
        pytest.param(_text(""), id="empty"),
        pytest.param(_text("9" * 10_000), id="a huge number"),
        pytest.param(_text('{"hold": [], "settlement": 3}'), id="other types"),
        pytest.param(_text('{"hold": {"id": 7}, "settlement": {"cost": 1e999}}'), id="no hold"),
        pytest.param(_text("null"), id="null"),
        pytest.param(_text(b" " * 2_000_000), id="too long"),
        pytest.param(lambda path: path.mkdir(), id="a folder"),
        pytest.param(lambda path: path.symlink_to(path), id="a link to itself"),
        pytest.param(lambda path: os.mkfifo(path), id="a pipe"),
    ],
)
def test_what_cannot_be_read_stops_nothing_else_and_is_told_of(
    place: Place, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    place.with_budget()
    place.spool.put(hold_of(), Settlement(COST))
    make(place.spool.folder / f"{'0' * 32}.json")
    assert place.spent() == COST
    assert "0000.json" in caplog.text or "0000.bad" in caplog.text
    left = [path.name for path in place.spool.folder.iterdir() if path.name.startswith("0000")]
    assert len(left) == 1, "it is kept"


def test_a_spool_that_cannot_be_listed_stops_no_call(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.with_budget()
    place.spool.put(hold_of(), Settlement(COST))
    real = Path.iterdir

    def refuse(path: Path) -> object:
        if path == place.spool.folder:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    with monkeypatch.context() as patched:  # root may list every folder
        patched.setattr(Path, "iterdir", refuse)
        assert place.spent() == 0
        assert "cannot be listed" in caplog.text
    assert place.spent() == COST
