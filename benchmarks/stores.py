"""What the disk store costs, against the least that a durable budget can cost on this machine.

    python benchmarks/stores.py [--calls 2000] [--users 1 1000 100000]

A call is one reserve and one settle, over one user who exists and one project that does not. The
floor is two conditional UPDATEs in raw sqlite3, one commit each, with the same durability (WAL,
synchronous=NORMAL). All run in turns, in short slices, and the median of the slices is printed:
processor time, which other programs of a busy machine disturb less than the clock on the wall, and
wall time beside it.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from budgetguard.accounts import Budget
from budgetguard.holds import Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.rows import new_account
from budgetguard.stores import open_store
from budgetguard.stores.disk import DiskStore
from budgetguard.usage import Usage
from budgetguard.windows import system_clock

SLICES = 40
LIMIT = 10**15


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--users", type=int, nargs="+", default=[1, 1_000, 100_000])
    arguments = parser.parse_args()
    print(f"{'users':>8} {'clock':>6} {'floor':>9} {'memory':>9} {'disk':>9} {'disk/floor':>11}")
    for users in arguments.users:
        with tempfile.TemporaryDirectory() as folder:
            measured = _measure(Path(folder), users, arguments.calls)
        for clock, (floor, memory, disk) in zip(("cpu", "wall"), measured, strict=True):
            costs = " ".join(f"{cost:>6.1f} us" for cost in (floor, memory, disk))
            print(f"{users:>8,} {clock:>6} {costs} {disk / floor:>11.2f}")


def _measure(folder: Path, users: int, calls: int) -> list[list[float]]:
    dice = random.Random(1)
    with closing(_raw(folder / "floor.db", users)) as con:
        memory = open_store("memory://", project="p")
        disk = open_store(f"disk://{folder}/store", project="p")
        assert isinstance(disk, DiskStore)
        row = new_account(Budget(LIMIT), system_clock())
        with disk._transaction() as rows:
            for user in range(users):
                rows.save_account(f"user:{user}", row)
        for user in range(users):
            memory.set_budget(f"user:{user}", Budget(LIMIT))

        def floor_call() -> None:
            key = f"user:{dice.randrange(users)}"
            reserve = "UPDATE b SET held = held + 1000 WHERE k = ? AND spent + held + 1000 <= lim"
            assert con.execute(reserve, (key,)).rowcount == 1
            con.execute("UPDATE b SET held = held - 1000, spent = spent + 500 WHERE k = ?", (key,))

        def memory_call() -> None:
            hold = _hold(dice.randrange(users))
            assert isinstance(memory.reserve(hold), Granted)
            memory.settle(hold, _SETTLEMENT)

        def disk_call() -> None:
            hold = _hold(dice.randrange(users))
            assert isinstance(disk.reserve(hold), Granted)
            disk.settle(hold, _SETTLEMENT)

        slices = [_slices(call, calls // SLICES) for call in (floor_call, memory_call, disk_call)]
        found = [[next(one) for one in slices] for _ in range(SLICES)]
        disk.close()
    return [
        [statistics.median(times[clock] for times in of_one) for of_one in zip(*found, strict=True)]
        for clock in (0, 1)
    ]


def _slices(call: Callable[[], None], calls: int) -> Iterator[tuple[float, float]]:
    """Yield microseconds a call: processor time and wall time."""
    while True:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(calls):
            call()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        yield cpu / calls * 1e6, wall / calls * 1e6


_SETTLEMENT = Settlement(500, usage=Usage.of(input_tokens=300, output_tokens=50), thresholds=(80, 100))


def _hold(user: int) -> Hold:
    now = system_clock()
    charges = (Charge(f"user:{user}", required=True), Charge("project:p"))
    return Hold(new_hold_id(now), charges, 1_000, 1_000, 60_000, now, str(user), "gpt-4o-mini", "chat")


def _raw(path: Path, users: int) -> sqlite3.Connection:
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("PRAGMA synchronous = NORMAL")
    con.execute("CREATE TABLE b (k TEXT PRIMARY KEY, lim INTEGER, spent INTEGER, held INTEGER)")
    con.execute("BEGIN")
    con.executemany("INSERT INTO b VALUES (?, ?, 0, 0)", ((f"user:{n}", LIMIT) for n in range(users)))
    con.execute("COMMIT")
    return con


if __name__ == "__main__":
    main()
