"""What the processes of the races run; a module of its own, because spawned processes import it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from budgetguard.core.accounts import Budget
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
