"""A folder with a small disk store, and what tests of such stores do with it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

from budgetguard.core.holds import Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.stores import Store, open_store
from budgetguard.stores.sqlite import DiskStore


def opened(folder: Path, options: str = "", project: str = "p") -> Store:
    return open_store(f"disk://{folder}{options}", project=project)


def make_hold(amount: int = 10) -> Hold:
    now = system_clock()
    charge = Charge("user:1", required=True)
    return Hold(new_hold_id(now), (charge,), amount, amount, 600_000, now, "1", "m", "chat")


def spend(store: Store, cost: int) -> None:
    hold = make_hold(cost)
    assert isinstance(store.reserve(hold), Granted)
    store.settle(hold, Settlement(cost))


def spent(store: Store) -> int:
    balance = store.read("user:1")
    assert balance is not None
    return balance.spent_nanos


def connection(store: Store) -> sqlite3.Connection:
    assert isinstance(store, DiskStore)
    assert store._file is not None
    return store._file.connection


def in_a_process(code: str, *args: object) -> str:
    """Run code in a Python of its own, warnings being errors, and return what it printed."""
    program = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code), *map(str, args)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout.strip()


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
