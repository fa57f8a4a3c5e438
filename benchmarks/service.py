"""Measure the guarded calls per second of a hosted service, beside those of its own `/healthz`.

    python benchmarks/service.py [--store disk postgres] [--clients 1 4 16] [--workers 1] [--seconds 3]

A call is one reserve and one settle through the `http://` store, of one of 1 000 users, from as many threads
as `clients` says in two processes (one thread in one process for 1). `/healthz` is asked by the same threads
over the same kind of connections, right before. p50 and p99 are milliseconds of a whole call, or of one
`/healthz`. `share` is requests a second of the calls (two each) beside those of `/healthz`. Service, store
and clients share this machine's processors.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.core.usage import Usage
from budgetguard.stores import open_store
from budgetguard.stores.hosted_link import HostedLink
from budgetguard.stores.targets import service_target

PROJECT = "service"
USERS = 1_000
HOUR = 3_600_000
_SETTLEMENT = Settlement(500, usage=Usage.of(input_tokens=300, output_tokens=50), thresholds=(80, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", nargs="+", choices=("disk", "postgres"), default=["disk", "postgres"])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--workers", type=int, default=1, help="of the service")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    given = parser.parse_args()
    healthz = f"{'healthz/s':>9} {'p50 ms':>7} {'p99 ms':>7}"
    print(f"{'store':<9} {'clients':>7} {healthz} {'calls/s':>8} {'p50 ms':>7} {'p99 ms':>7} {'share':>6}")
    for name in given.store:
        with _served(name, given.workers) as url:
            for clients in given.clients:
                empty = _measure(url, "healthz", clients, given.seconds)
                calls = _measure(url, "calls", clients, given.seconds)
                share = 2 * len(calls) / len(empty)
                figures = f"{_figures(empty, given.seconds, 9)} {_figures(calls, given.seconds, 8)}"
                print(f"{name:<9} {clients:>7} {figures} {share:>6.2f}", flush=True)


def _figures(times: list[float], seconds: float, width: int) -> str:
    cuts = statistics.quantiles(times, n=100)
    return f"{len(times) / seconds:>{width},.0f} {cuts[49] * 1e3:>7.2f} {cuts[98] * 1e3:>7.2f}"


@contextmanager
def _served(name: str, workers: int) -> Iterator[str]:
    sys.path.append(str(Path(__file__).parents[1]))  # where the tests keep their servers
    from tests.server.hosted_process import ServeProcess

    with tempfile.TemporaryDirectory() as folder, _store(name, Path(folder)) as store_url:
        beneath = open_store(store_url, project=PROJECT)
        for user in range(USERS):
            beneath.set_budget(f"user:{user}", Budget(10**15))
        beneath.close()
        service = ServeProcess(store_url, Path(folder) / "log", "--workers", str(workers))
        try:
            yield service.url
        finally:
            service.kill()


@contextmanager
def _store(name: str, folder: Path) -> Iterator[str]:
    if name == "disk":
        yield f"disk://{folder}/store"
        return
    from tests.servers.postgres import running

    with running(fsync=True) as server:
        yield server.url


def _measure(url: str, what: str, clients: int, seconds: float) -> list[float]:
    """Return what each request to /healthz, or each call, took (seconds), of all clients together."""
    spawn = multiprocessing.get_context("spawn")
    processes = min(clients, 2)
    pipes, children = [], []
    for number in range(processes):
        ours, theirs = spawn.Pipe()
        arguments = (url, what, clients // processes, seconds, number, theirs)
        children.append(spawn.Process(target=_work, args=arguments))
        children[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    times = [one for pipe in pipes for one in pipe.recv()]
    for child in children:
        child.join()
    return times


def _work(url: str, what: str, threads: int, seconds: float, number: int, pipe: Connection) -> None:
    url = f"{url}?timeout=60"
    do = _healthz(url) if what == "healthz" else _call(url)
    times: list[list[float]] = [[] for _ in range(threads)]

    def loop(mine: list[float], dice: random.Random) -> None:
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            do(dice.randrange(USERS))
            mine.append(time.perf_counter() - begun)

    do(0)
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


def _healthz(url: str) -> Callable[[int], None]:
    link = HostedLink(service_target(url))

    def do(_user: int) -> None:
        assert link.ask("GET", "/healthz").status == 200

    return do


def _call(url: str) -> Callable[[int], None]:
    store = open_store(url, project=PROJECT)

    def do(user: int) -> None:
        now = system_clock()
        charges = (Charge(f"user:{user}", required=True),)
        hold = Hold(new_hold_id(now), charges, 1_000, 1_000, HOUR, now, str(user), "gpt-4o-mini", "chat")
        assert isinstance(store.reserve(hold), Granted)
        assert isinstance(store.settle(hold, _SETTLEMENT), Booked)

    return do


if __name__ == "__main__":
    main()
