"""Spending as it happens, invented from a seed: for the test and the benchmark of forecasts.

Calls come at random (Poisson), and cost what is mostly little and sometimes much (log-normal).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from budgetguard.core.accounts import Balance
from budgetguard.core.forecast import Forecast, History, forecast
from budgetguard.core.holds import HoldRecord
from budgetguard.core.windows import Milliseconds

HOUR: Final[Milliseconds] = 3_600_000
DAY: Final[Milliseconds] = 24 * HOUR
BEGIN: Final[Milliseconds] = 1_782_864_000_000  # 2026-07-01, UTC
ACCOUNT: Final = "user:1"


@dataclass(frozen=True, slots=True)
class Habit:
    """How an account spends.

    Attributes:
        spread: of a call's cost: the standard deviation of its logarithm.
        rhythm: busy by day and on weekdays, nearly idle at night and little on weekends.
        doubles: days in which the spend doubles; negative: halves; 0 is no trend.
        bursts: a few hours of eight times the calls, once in 8 days.
        wander: the level's logarithm wanders by this much a day (standard deviation).
        jump: the calls triple on one day of the last ten.
    """

    spread: float = 1.0
    rhythm: bool = False
    doubles: float = 0.0
    bursts: bool = False
    wander: float = 0.0
    jump: bool = False


HABITS: Final = {
    "steady": Habit(),
    "heavy tails": Habit(spread=1.8),
    "day and week": Habit(rhythm=True),
    "doubles in 60 days": Habit(doubles=60),
    "halves in 60 days": Habit(doubles=-60),
    "bursts": Habit(bursts=True),
    "wanders": Habit(wander=0.15),
    "a jump": Habit(jump=True),
    "rhythm, growth, bursts": Habit(rhythm=True, doubles=60, bursts=True),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """When a forecast is made.

    Attributes:
        past: milliseconds since the account's first possible call.
        rest: milliseconds until the window ends.
        window: of the budget, milliseconds.
        calls: an hour, on average.
    """

    past: Milliseconds
    rest: Milliseconds
    window: Milliseconds
    calls: float = 2.0


STAGES: Final = {
    "month, 20 of 30 days left, 90 known": Stage(90 * DAY, 20 * DAY, 30 * DAY),
    "month, 3 days left, 90 known": Stage(90 * DAY, 3 * DAY, 30 * DAY),
    "month, 16 days left, 14 known": Stage(14 * DAY, 16 * DAY, 30 * DAY),
    "month, 27 days left, 3 known": Stage(3 * DAY, 27 * DAY, 30 * DAY),
    "month, 10 days left, a call a day": Stage(60 * DAY, 10 * DAY, 30 * DAY, 0.05),
    "day, 10 hours left, 30 days known": Stage(30 * DAY, 10 * HOUR, DAY),
    "day, 4 hours left, 20 hours known": Stage(20 * HOUR, 4 * HOUR, DAY, 3.0),
}


def balance_of(stage: Stage, now: Milliseconds, *, spent: int = 0, limit: int | None = None) -> Balance:
    """Return a balance at such a stage."""
    ends = now + stage.rest
    return Balance(ACCOUNT, limit, spent, 0, "1mo", "UTC", ends - stage.window, ends, BEGIN, now)


def record_of(at: Milliseconds, cost: int, number: int = 0) -> HoldRecord:
    """Return the record of a call that was made and booked at a time."""
    return HoldRecord(
        f"{at:012x}{number:020x}", "settled", (ACCOUNT,), 2 * cost, cost, cost, at, at + DAY, at, "1", "m",
        "chat", "answered", None,
    )  # fmt: skip


def calls_of(
    habit: Habit, rng: random.Random, span: Milliseconds, now: Milliseconds, an_hour: float
) -> Iterator[tuple[Milliseconds, int]]:
    """Yield the time (milliseconds since the beginning) and cost (Nanos) of calls, in order."""
    level, burst = 0.0, 0
    jump = now - rng.random() * 10 * DAY if habit.jump else None
    offset = rng.randrange(168)
    for hour in range(span // HOUR):
        many = an_hour
        of_week = (offset + hour) % 168
        if habit.rhythm:
            many *= max(0.02, 1 + math.sin((of_week % 24 - 9) / 12 * math.pi))
            many *= 1.3 if of_week < 120 else 0.25
        if habit.doubles:
            many *= 2 ** ((hour * HOUR - now) / DAY / habit.doubles)
        if habit.wander:
            level = level * (1 - 1 / 480) + rng.gauss(0, habit.wander / math.sqrt(24))
            many *= math.exp(level)
        if habit.bursts:
            burst = burst - 1 if burst else rng.randrange(3, 12) * (rng.random() < 1 / 192)
            many *= 8 if burst else 1
        if jump is not None and hour * HOUR < jump:
            many /= 3
        for at in sorted(rng.random() for _ in range(_poisson(rng, many))):
            yield hour * HOUR + int(at * HOUR), max(1, round(rng.lognormvariate(16, habit.spread)))


def tried(habit: Habit, stage: Stage, rng: random.Random) -> tuple[Forecast, int]:
    """Return a forecast, and what was spent by the end after all (Nanos)."""
    now = BEGIN + stage.past
    history = History(balance_of(stage, now), now)
    rest = 0
    for number, (after, cost) in enumerate(
        calls_of(habit, rng, stage.past + stage.rest, stage.past, stage.calls)
    ):
        if after < stage.past:
            history.add(record_of(BEGIN + after, cost, number))
        else:
            rest += cost
    return forecast(balance_of(stage, now), history, now), rest


def _poisson(rng: random.Random, mean: float) -> int:
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    bound, many, product = math.exp(-mean), 0, rng.random()
    while product > bound:
        many += 1
        product *= rng.random()
    return many
