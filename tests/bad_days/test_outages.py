"""A store that is away when a call ends: nothing is lost, nothing counts twice, whoever dies meanwhile."""

from __future__ import annotations

import os
import pwd
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from budgetguard import Guard, events
from budgetguard.engine.spool import spools
from budgetguard.errors import ConfigurationError
from tests.guarded_calls import HELLO, MODEL, completion, make_guard

# A real outage of a disk store: somebody else sits on its lock for longer than it waits.
PROGRAM = """
import os, signal, sys
from tests.guarded_calls import *
from budgetguard import Guard
guard = make_guard(sys.argv[1], spool=sys.argv[2], user="u")
calls = int(sys.argv[3])
left = calls
@guard.budgeted
def ask(messages, model=MODEL):
    global left
    left -= 1
    print("called", flush=True)
    sys.stdin.readline()
    return completion()
for _ in range(calls):
    ask(HELLO)
print("ended", flush=True)
sys.stdin.readline()
if sys.argv[4] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


COST = 120_000


class Outage:
    """Lock the store's database from outside."""

    def __init__(self, folder: Path) -> None:
        self._con = sqlite3.connect(folder / "cache.db", isolation_level=None)
        self._con.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        self._con.execute("ROLLBACK")
        self._con.close()


@contextmanager
def outage(folder: Path) -> Iterator[None]:
    away = Outage(folder)
    try:
        yield
    finally:
        away.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def guard_of(folder: Path, spool: Path | None) -> Guard:
    return make_guard(f"disk://{folder}?timeout=0.05", spool=None if spool is None else str(spool), user="u")


def asker(guard: Guard) -> Callable[[object], object]:
    @guard.budgeted
    def ask(messages: object, model: str = MODEL) -> object:
        return completion()

    return ask


def files(spool: Path) -> list[Path]:
    return sorted(path for path in spool.rglob("*") if path.is_file() and path.name != "store.json")


@pytest.mark.full
@pytest.mark.parametrize("how", ["killed", "ended"])
def test_what_a_dead_process_could_not_book_is_booked_by_the_next_one(
    how: str, folder: Path, spool: Path
) -> None:
    with closing(guard_of(folder, spool)) as first:
        asker(first)(HELLO)
    command = [sys.executable, "-c", PROGRAM, f"disk://{folder}?timeout=0.05", str(spool), "1", how]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "called\n"
        away = Outage(folder)
        print(file=program.stdin, flush=True)
        assert program.stdout.readline() == "ended\n"
        assert len(files(spool)) == 1
        print(file=program.stdin, flush=True)
        assert program.wait(30) == (-signal.SIGKILL if how == "killed" else 0)
        away.end()
    seen: list[events.Settled] = []
    with closing(guard_of(folder, spool)) as next_one:
        next_one.on(seen.append, events.Settled)
        asker(next_one)(HELLO)
        next_one.flush()
        balance = next_one.balance("u")
        assert (balance.spent_nanos, balance.held_nanos) == (3 * COST, 0)
        assert [call.state for call in next_one.calls()] == ["settled"] * 3
    assert sorted(one.cost for one in seen) == [seen[0].cost] * 2
    assert files(spool) == []


def test_what_a_living_process_could_not_book_is_booked_when_the_store_is_back(
    folder: Path, spool: Path
) -> None:
    with closing(guard_of(folder, spool)) as guard:

        @guard.budgeted
        def ask(messages: object, model: str = MODEL) -> object:
            aways.append(Outage(folder))
            return completion()

        aways: list[Outage] = []
        ask(HELLO)
        assert len(files(spool)) == 1
        aways.pop().end()
        guard.flush()
        assert files(spool) == []
        assert guard.balance("u").spent_nanos == COST


def test_two_processes_that_deliver_the_same_settlement_book_it_once(folder: Path, spool: Path) -> None:
    with closing(guard_of(folder, spool)) as guard:
        asker(guard)(HELLO)
        with outage(folder), pytest.raises(Exception, match="lock"):
            asker(guard)(HELLO)
    left_behind(folder, spool)
    kept = [path.read_bytes() for path in files(spool)]
    with closing(guard_of(folder, spool)) as one:
        assert one.balance("u").held_nanos or one.balance("u").spent_nanos
        one.flush()
    for path, text in zip(written_again(spool, kept), kept, strict=True):
        assert path.read_bytes() == text
    with closing(guard_of(folder, spool)) as two:
        two.balance("u")
        two.flush()
        assert two.balance("u").spent_nanos == 2 * COST
    assert files(spool) == []


def left_behind(folder: Path, spool: Path) -> None:
    """Have a guard end a call during an outage, and forget it as a killed process does."""
    guard = guard_of(folder, spool)
    aways: list[Outage] = []

    @guard.budgeted
    def ask(messages: object, model: str = MODEL) -> object:
        aways.append(Outage(folder))
        return completion()

    ask(HELLO)
    guard.engine._outbox.unsent.clear()
    aways.pop().end()
    guard.close()


def written_again(spool: Path, texts: list[bytes]) -> list[Path]:
    from json import loads

    (about,) = spool.rglob("store.json")
    paths = []
    for text in texts:
        path = about.parent / f"{loads(text)['hold']['id']}.json"
        path.write_bytes(text)
        paths.append(path)
    return paths


def test_a_settlement_of_another_store_or_project_is_left_to_those(
    folder: Path, spool: Path, tmp_path: Path
) -> None:
    with closing(guard_of(folder, spool)) as guard:
        guard.set_budget(1, user="u")
    left_behind(folder, spool)
    for store, project in ((f"disk://{tmp_path}/other", "p"), (f"disk://{folder}", "q")):
        with closing(
            Guard(store=store, project=project, spool=str(spool), user="u", default_budget=1)
        ) as other:
            other.register_price(MODEL, input=1, output=2)
            asker(other)(HELLO)
            other.flush()
            assert other.balance("u").spent_nanos == COST
    (waiting,) = spools(spool)
    assert (waiting.url, waiting.project) == (f"disk://{folder}", "p")
    assert len(list(waiting.waiting())) == 1


def test_a_file_that_cannot_be_read_is_set_aside_and_the_others_are_delivered(
    folder: Path, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind(folder, spool)
    (good,) = files(spool)
    bad = good.with_name("00.json")
    bad.write_text('{"hold": {"id": "x"')
    with closing(guard_of(folder, spool)) as guard:
        guard.balance("u")
        guard.flush()
        assert guard.balance("u").spent_nanos == COST
    assert files(spool) == [bad.with_suffix(".bad")]
    assert "set aside" in caplog.text


def test_a_spool_is_private_and_holds_no_text_and_no_password(folder: Path, spool: Path) -> None:
    left_behind(folder, spool)
    (path,) = files(spool)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "Hello" not in path.read_text()


def test_who_has_no_home_needs_none_and_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a container whose user has no name."""

    def nobody(_: int) -> Any:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(ConfigurationError, match="write an absolute folder"):
        Guard().balance("u")
    guard = make_guard(f"disk://{folder}?timeout=0.05", user="u")
    aways: list[Outage] = []

    @guard.budgeted
    def ask(messages: object, model: str = MODEL) -> object:
        aways.append(Outage(folder))
        return completion()

    assert ask(HELLO) == completion()
    aways.pop().end()
    guard.flush()
    assert guard.balance("u").spent_nanos == COST
    assert "name an absolute folder" in caplog.text
    guard.close()


def test_without_a_spool_or_where_it_cannot_be_written_the_settlement_waits_in_memory(
    folder: Path, spool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool.write_text("a file")
    for where in (None, spool):
        guard = guard_of(folder, where)
        aways: list[Outage] = []

        @guard.budgeted
        def ask(messages: object, model: str = MODEL, aways: list[Outage] = aways) -> object:
            aways.append(Outage(folder))
            return completion()

        before = guard.balance("u").spent_nanos if where else 0
        ask(HELLO)
        aways.pop().end()
        guard.flush()
        assert guard.balance("u").spent_nanos == before + COST
        guard.close()
    assert "waits in memory only" in caplog.text


@pytest.mark.parametrize("wrong", ["", " ", 3, b"x", "\0", "a\0b"])
def test_a_spool_that_is_no_folder_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="spool must be a folder's name, or None"):
        Guard(store="memory://", spool=wrong)
