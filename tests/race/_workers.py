"""What the processes of the races run; a module of its own, because spawned processes import it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from budgetguard.core.accounts import Budget, Grant
from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.stores import open_store

TEN = Budget(1_000)


def make_hold(amount: int = 100, budget: Budget | None = None) -> Hold:
    now = system_clock()
    charge = Charge("user:1", required=True, budget=budget)
    return Hold(new_hold_id(now), (charge,), amount, amount, 600_000, now, "1", "m", "chat")


def ask_for_one_each(url: str, threads: int, gate: Barrier, answers: Queue[int]) -> None:
    """Open the store with all other processes at once, and reserve once from each thread."""
    gate.wait()
    store = open_store(url, project="p")
    inner = threading.Barrier(threads)

    def ask(_: int) -> bool:
        inner.wait()
        return isinstance(store.reserve(make_hold(budget=TEN)), Granted)

    with ThreadPoolExecutor(threads) as pool:
        answers.put(sum(pool.map(ask, range(threads))))
    store.close()


def reserve_and_settle(url: str, times: int, gate: Barrier, answers: Queue[int]) -> None:
    gate.wait()
    store = open_store(url, project="p")
    booked = 0
    for _ in range(times):
        hold = make_hold(3)
        assert isinstance(store.reserve(hold), Granted)
        answer = store.settle(hold, Settlement(1))
        assert isinstance(answer, Booked)
        booked += answer.booked
    answers.put(booked)
    store.close()


def cross_thresholds(url: str, times: int, gate: Barrier, answers: Queue[list[int]]) -> None:
    gate.wait()
    store = open_store(url, project="p")
    announced: list[int] = []
    for _ in range(times):
        hold = make_hold(0)
        store.reserve(hold)
        answer = store.settle(hold, Settlement(1, thresholds=(50, 80, 100)))
        assert isinstance(answer, Booked)
        announced += [crossing.threshold for crossing in answer.crossings]
    answers.put(announced)
    store.close()


REQUESTS = "labels:@unit=requests&user=1"
TOKENS = "labels:@unit=tokens&@rolling=1d&user=1"
ROLLING = "labels:@rolling=1d&user=1"
CONCURRENT = "labels:@unit=concurrent&user=1"
FIVE = {
    "user:1": Budget(2_000),
    REQUESTS: Budget(10, "1y"),
    TOKENS: Budget(139, "1d", rolling=True),
    ROLLING: Budget(1_100, "1d", rolling=True),
    CONCURRENT: Budget(50),
}
"""Accounts of which one admits ten calls and the others more."""


def make_hold_of_units(amount: int = 100, *accounts: str) -> Hold:
    """Make a hold of 100 Nanos, a request of 10 tokens, and a call under way; on all five by default."""
    now = system_clock()
    charges = tuple(Charge(name, required=True) for name in accounts or FIVE)
    units = {"requests": (1, 1), "tokens": (10, 10), "concurrent": (1, 0)}
    return Hold(new_hold_id(now), charges, amount, amount, 600_000, now, "1", "m", "chat", units=units)


def ask_five_accounts(url: str, threads: int, gate: Barrier, answers: Queue[int]) -> None:
    """Reserve once from each thread, on all five accounts."""
    gate.wait()
    store = open_store(url, project="p")
    inner = threading.Barrier(threads)

    def ask(_: int) -> bool:
        inner.wait()
        return isinstance(store.reserve(make_hold_of_units()), Granted)

    with ThreadPoolExecutor(threads) as pool:
        answers.put(sum(pool.map(ask, range(threads))))
    store.close()


def spend_rolling(url: str, threads: int, gate: Barrier, answers: Queue[int]) -> None:
    """Make calls on a rolling account from each thread until it refuses one, and tell how many were made."""
    gate.wait()
    store = open_store(url, project="p")

    def spend(_: int) -> int:
        made = 0
        while isinstance(store.reserve(hold := make_hold_of_units(10, ROLLING)), Granted):
            store.settle(hold, Settlement(10))
            made += 1
        return made

    with ThreadPoolExecutor(threads) as pool:
        answers.put(sum(pool.map(spend, range(threads))))
    store.close()


def raise_once(url: str, threads: int, gate: Barrier, answers: Queue[int]) -> None:
    """Send one raise for good, and one that ends, from each thread, and tell the greatest limit seen."""
    gate.wait()
    store = open_store(url, project="p")
    ends = system_clock() + 3_600_000

    def send(number: int) -> int:
        grant = Grant("for good", 50, None) if number % 2 else Grant("ends", 7, ends)
        balance = store.grant("user:1", grant)
        assert balance is not None
        return balance.limit_nanos or 0

    with ThreadPoolExecutor(threads) as pool:
        answers.put(max(pool.map(send, range(threads))))
    store.close()
