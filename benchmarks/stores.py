"""Measure a store's reserve and settle against the fastest way that its engine has for the same.

    python benchmarks/stores.py [--engine disk] [--users 1 1000 100000] [--open 0] [--calls 4000]

A call is one reserve and one settle, over one user who exists and one project that does not; with
`--open N` that many holds of the same user stay open meanwhile. `benchmarks/engines` says what the floor
of each engine is. Store and floor run in turns, in short rounds. `median` is the median over the rounds
of store / floor, `min` the best round of the store over the best of the floor. Wall time is what a caller
waits; processor time is this process's alone, which other programs of a busy machine disturb less.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from dataclasses import dataclass

from engines import AMOUNT, COST, NAMES, Pair, Unavailable, engine

from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.core.usage import Usage

ROUNDS = 40
HOUR = 3_600_000

_SETTLEMENT = Settlement(COST, usage=Usage.of(input_tokens=300, output_tokens=50), thresholds=(80, 100))


@dataclass(frozen=True)
class Round:
    """Seconds that one round took: its floor, and the store's two verbs."""

    floor: float
    reserve: float
    settle: float
    floor_cpu: float
    store_cpu: float

    @property
    def store(self) -> float:
        return self.reserve + self.settle


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--calls", type=int, default=4_000, help="calls measured in all")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 1_000, 100_000])
    parser.add_argument("--open", type=int, nargs="+", default=[0], help="holds of the user that stay open")
    arguments = parser.parse_args()
    for name in arguments.engine:
        module = engine(name)
        print(f"{name}: the floor is {module.FLOOR}")
        print(
            f"{'users':>9} {'open':>7} {'floor':>9} {'reserve':>9} {'settle':>9}"
            f" {'median':>7} {'min':>7} {'cpu median':>11} {'cpu min':>8}"
        )
        for users in arguments.users:
            for left_open in arguments.open:
                try:
                    with module.opened(users) as pair:
                        rounds = _measure(pair, users, left_open, arguments.calls // ROUNDS)
                except Unavailable as reason:
                    print(f"left out: {reason}")
                    break
                print(_line(users, left_open, rounds, arguments.calls // ROUNDS))


def _measure(pair: Pair, users: int, left_open: int, calls: int) -> list[Round]:
    dice = random.Random(1)
    for _ in range(left_open):
        assert isinstance(pair.store.reserve(_hold(0)), Granted)
    among = 1 if left_open else users
    _round(pair, [dice.randrange(among) for _ in range(calls)])  # whatever happens once only
    return [_round(pair, [dice.randrange(among) for _ in range(calls)]) for _ in range(ROUNDS)]


def _round(pair: Pair, users: list[int]) -> Round:
    holds = [_hold(user) for user in users]
    store, clock = pair.store, time.perf_counter
    reserving = settling = 0.0
    cpu = time.process_time()
    for hold in holds:
        begun = clock()
        granted = store.reserve(hold)
        between = clock()
        settled = store.settle(hold, _SETTLEMENT)
        settling += clock() - between
        reserving += between - begun
        assert isinstance(granted, Granted)
        assert isinstance(settled, Booked)
    store_cpu = time.process_time() - cpu
    cpu, begun = time.process_time(), clock()
    for user in users:
        pair.floor(user)
    floor, floor_cpu = clock() - begun, time.process_time() - cpu
    return Round(floor, reserving, settling, floor_cpu, store_cpu)


def _line(users: int, left_open: int, rounds: list[Round], calls: int) -> str:
    def microseconds(times: list[float]) -> str:
        return f"{statistics.median(times) / calls * 1e6:>6.1f} us"

    floor, reserve, settle = ([getattr(r, name) for r in rounds] for name in ("floor", "reserve", "settle"))
    median = statistics.median(r.store / r.floor for r in rounds)
    cpu_median = statistics.median(r.store_cpu / r.floor_cpu for r in rounds)
    least = min(r.store for r in rounds) / min(floor)
    cpu_least = min(r.store_cpu for r in rounds) / min(r.floor_cpu for r in rounds)
    return (
        f"{users:>9,} {left_open:>7,} {microseconds(floor)} {microseconds(reserve)} {microseconds(settle)}"
        f" {median:>7.2f} {least:>7.2f} {cpu_median:>11.2f} {cpu_least:>8.2f}"
    )


def _hold(user: int) -> Hold:
    now = system_clock()
    charges = (Charge(f"user:{user}", required=True), Charge("project:p"))
    return Hold(new_hold_id(now), charges, AMOUNT, AMOUNT, HOUR, now, str(user), "gpt-4o-mini", "chat")


if __name__ == "__main__":
    main()
