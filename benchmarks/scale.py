"""Measure where each store stops scaling: calls per second of 1 to 8 processes, on one account and on many.

    python benchmarks/scale.py [--store disk redis postgres] [--processes 1 2 4 8] [--threads 1] [--seconds 3]

A call is one reserve and one settle of a user with a budget, straight on the store, as fast as a process can:
what a fleet of guards comes to at most. `one` has all calls pay from one user, `many` from 10 000 users in
turn. `share` is the speed beside that of one process in the same mode of the same run; p50 and p99 are
milliseconds of a whole call. Servers run on this machine and take their part of its processors, and so
do the processes that call: the figures say how a store behaves under load, not what a server can do alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.core.usage import Usage
from budgetguard.stores import open_store

PROJECT = "scale"
USERS = 10_000
LIMIT = 10**15
HOUR = 3_600_000
STORES = ("disk", "redis", "postgres")
_SETTLEMENT = Settlement(500, usage=Usage.of(input_tokens=300, output_tokens=50), thresholds=(80, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, default=1, help="in each process")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    given = parser.parse_args()
    figures = f"{'calls/s':>9} {'share':>6} {'p50 ms':>8} {'p99 ms':>8}"
    print(f"{'store':<9} {'account':<7} {'processes':>9} {figures}")
    for name in given.store:
        with _served(name) as url:
            _make_users(url)
            for mode, users in (("one", 1), ("many", USERS)):
                alone = 0.0
                for processes in given.processes:
                    times = _measure(url, users, processes, given.threads, given.seconds)
                    speed = len(times) / given.seconds
                    alone = alone or speed
                    p50, p99 = statistics.quantiles(times, n=100)[49], statistics.quantiles(times, n=100)[98]
                    print(
                        f"{name:<9} {mode:<7} {processes:>9} {speed:>9,.0f} {speed / alone:>6.2f}"
                        f" {p50 * 1e3:>8.2f} {p99 * 1e3:>8.2f}",
                        flush=True,
                    )


@contextmanager
def _served(name: str) -> Iterator[str]:
    sys.path.append(str(Path(__file__).parents[1]))  # where the tests keep their servers
    if name == "disk":
        with tempfile.TemporaryDirectory() as folder:
            yield f"disk://{folder}/store"
    elif name == "redis":
        from tests.servers.valkey import ValkeyServer

        with tempfile.TemporaryDirectory() as folder:
            server = ValkeyServer(Path(folder))
            try:
                yield server.url
            finally:
                server.kill()
    else:
        from tests.servers.postgres import running

        with running(fsync=True) as postgres:
            yield postgres.url


def _make_users(url: str) -> None:
    store = open_store(url, project=PROJECT)
    for user in range(USERS):
        store.set_budget(f"user:{user}", Budget(LIMIT))
    store.close()


def _measure(url: str, users: int, processes: int, threads: int, seconds: float) -> list[float]:
    """Return what each call took (seconds), of all processes together."""
    spawn = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for number in range(processes):
        ours, theirs = spawn.Pipe()
        child = spawn.Process(target=_work, args=(url, users, threads, seconds, number, theirs))
        child.start()
        pipes.append(ours)
        children.append(child)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    times = [one for pipe in pipes for one in pipe.recv()]
    for child in children:
        child.join()
    return times


def _work(url: str, users: int, threads: int, seconds: float, number: int, pipe: Connection) -> None:
    store = open_store(url, project=PROJECT)
    times: list[list[float]] = [[] for _ in range(threads)]

    def call(user: int) -> None:
        now = system_clock()
        charges = (Charge(f"user:{user}", required=True),)
        hold = Hold(new_hold_id(now), charges, 1_000, 1_000, HOUR, now, str(user), "gpt-4o-mini", "chat")
        assert isinstance(store.reserve(hold), Granted)
        assert isinstance(store.settle(hold, _SETTLEMENT), Booked)

    def loop(mine: list[float], dice: random.Random) -> None:
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            call(dice.randrange(users))
            mine.append(time.perf_counter() - begun)

    call(0)  # opens the store
    pipe.send("ready")
    pipe.recv()
    workers = [
        threading.Thread(target=loop, args=(mine, random.Random(number * 1_000 + at)))
        for at, mine in enumerate(times)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    pipe.send([one for mine in times for one in mine])
    store.close()


if __name__ == "__main__":
    main()
