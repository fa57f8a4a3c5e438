"""A project moves while programs make calls: every call is booked once, to the Nano."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.engine.spool import deliver
from budgetguard.stores import open_store
from budgetguard.stores.base import Store, Transfer, public_url
from budgetguard.stores.transfer import move
from budgetguard.stores.verifying import verify
from budgetguard.testing._contract_transfer import MovableStore

from ._writer import MOVED, USERS
from .conftest import NewUrl

WRITERS = 4
PATIENCE = 60.0


class Writers:
    """Programs that make calls, and what their calls were billed."""

    def __init__(self, spool: Path) -> None:
        self.billed: dict[str, int] = {}
        self._spool = spool
        self._running: list[tuple[subprocess.Popen[str], threading.Thread]] = []

    def start(self, url: str) -> None:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.moving._writer", url, str(self._spool)],
            stdout=subprocess.PIPE,
            text=True,
        )
        reader = threading.Thread(target=self._read, args=(program,))
        reader.start()
        self._running.append((program, reader))

    def _read(self, program: subprocess.Popen[str]) -> None:
        assert program.stdout is not None
        with program.stdout:
            for line in program.stdout:
                name, cost = line.split()
                self.billed[name] = int(cost)

    def wait_for_calls(self, more: int) -> None:
        wanted = len(self.billed) + more
        give_up = time.monotonic() + PATIENCE
        while len(self.billed) < wanted:
            assert time.monotonic() < give_up, "the programs make no calls"
            time.sleep(0.01)

    def wait_until_refused(self) -> None:
        """Wait until every program has ended by itself, because its store refused it."""
        for program, reader in self._running:
            assert program.wait(PATIENCE) == MOVED
            reader.join()
        self._running.clear()

    def kill(self) -> None:
        for program, reader in self._running:
            program.kill()
            program.wait()
            reader.join()
        self._running.clear()


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def writers(spool: Path) -> Iterator[Writers]:
    made = Writers(spool)
    yield made
    made.kill()


@contextmanager
def opened(url: str) -> Iterator[MovableStore]:
    store = open_store(url, project="p")
    assert isinstance(store, Transfer)
    yield cast(MovableStore, store)
    store.close()


@pytest.mark.full
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("disk", "postgresql"),
        pytest.param("disk", "redis", marks=pytest.mark.full),
        pytest.param("redis", "postgresql", marks=pytest.mark.full),
        pytest.param("postgresql", "disk", marks=pytest.mark.full),
    ],
)
def test_programs_that_write_through_a_move_have_every_call_booked_once(
    old: str, new: str, new_url: NewUrl, writers: Writers, spool: Path
) -> None:
    old_url, url = new_url(old), new_url(new)
    with opened(old_url) as source, opened(url) as target:
        for account in ("project:p", *(f"user:{name}" for name in USERS)):
            source.set_budget(account, Budget(10**12))
        for _ in range(WRITERS):
            writers.start(old_url)
        writers.wait_for_calls(100)
        done = move(source, target)
        assert (done.action, source.frozen(), target.frozen()) == (
            "moved",
            f"moved to {public_url(url)}",
            None,
        )
        writers.wait_until_refused()
        in_flight = list(spool.rglob("*.json"))
        assert in_flight, "no call was under way when the project moved: the test proves nothing"
        for _ in range(WRITERS):
            writers.start(url)
        writers.wait_for_calls(50)
        sent = deliver(spool, old_url, target)
        assert sent.settlements == len(in_flight) - 1  # one says which store it was
        assert (sent.repeated, sent.unknown) == (0, ())
        target.freeze("moved to memory://")  # so that these end, too
        writers.wait_until_refused()
        target.freeze(None)
        deliver(spool, url, target)
        check_booked_once(target, writers.billed)
        assert verify(source)
        assert verify(target)


@pytest.mark.full
def test_programs_that_are_killed_in_the_move_leave_nothing_but_holds_that_expire(
    new_url: NewUrl, writers: Writers, spool: Path
) -> None:
    old_url, url = new_url("disk"), new_url("postgresql")
    with opened(old_url) as source, opened(url) as target:
        for account in ("project:p", *(f"user:{name}" for name in USERS)):
            source.set_budget(account, Budget(10**12))
        for _ in range(WRITERS):
            writers.start(old_url)
        writers.wait_for_calls(100)
        mover = threading.Thread(target=move, args=(source, target))
        mover.start()
        writers.kill()
        mover.join()
        deliver(spool, old_url, target)
        booked = {one.request_id: one.cost_nanos for one in target.calls() if one.state == "settled"}
        lost = {name: cost for name, cost in writers.billed.items() if name not in booked}
        left = list(target.holds())
        assert len(lost) <= len(left) <= WRITERS * 2
        assert booked == {name: cost for name, cost in writers.billed.items() if name not in lost}
        assert all(hold.on_expiry_nanos >= min(lost.values(), default=0) for hold in left)
        assert verify(target)


def check_booked_once(store: Store, billed: dict[str, int]) -> None:
    booked = [(one.request_id, one.cost_nanos) for one in store.calls() if one.state == "settled"]
    assert sorted(booked) == sorted(billed.items())
    project = store.read("project:p")
    users = [store.read(f"user:{name}") for name in USERS]
    assert project is not None
    assert project.spent_nanos == sum(billed.values()) == sum(one.spent_nanos for one in users if one)
    assert (project.held_nanos, project.open_holds) == (0, 0)
