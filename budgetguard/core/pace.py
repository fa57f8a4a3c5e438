"""How an account spends: its history, its rhythm, its pace, and what they say of the time to come.

`forecast` explains the method and names its sources. Pure: no clock, no store.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from budgetguard.core.money import Nanos
from budgetguard.core.windows import Milliseconds, zone

if TYPE_CHECKING:
    from budgetguard.core.accounts import Balance
    from budgetguard.core.holds import HoldRecord

COVERAGE: Final = 80
"""Percent of the cases in which what is spent is meant to lie between the bounds."""

_SECOND: Final[Milliseconds] = 1_000
_HOUR: Final[Milliseconds] = 3_600_000
DAY: Final[Milliseconds] = 86_400_000
_STEPS: Final = (
    *(seconds * _SECOND for seconds in (1, 5, 15, 60, 300, 900, 1_800)),
    _HOUR,
    3 * _HOUR,
)
_LONGEST_PAST: Final = 90 * DAY
_PAST_OF_SHORT: Final = 28 * DAY
# A budget without a window is looked at as one of 30 days.
_NO_WINDOW: Final = 30 * DAY

# Of fewer calls or parts than these nothing is claimed.
FEWEST_CALLS: Final = 8
_FEWEST_PARTS: Final = 6

_PARTS: Final = 30
_FACTORS: Final = (0.05, 0.1, 0.2, 0.4, 0.7)
# How much of the weight of factors the past decides. The rest is even: a pace that changed a week ago has not
# shown in the past which factor follows it.
_TRUST: Final = 0.5
# Over so many parts a factor of 1 has half of the weight that a slow one has.
_FAST: Final = 10
# By how much of itself a level may drift in a day (standard deviation), whatever the records show.
_DRIFT: Final = 0.04
# Before the rhythm of the day is known, an hour may be busier or quieter than others by this much.
_UNKNOWN_RHYTHM: Final = 0.7
_DAYS_OF_RHYTHM: Final = 3
_DAYS_OF_WEEKDAYS: Final = 21
# Calls that each hour and weekday is taken to have had beforehand, so that chance makes no rhythm.
_EVEN_CALLS: Final = 5.0
# The amounts of an outlook, in order.
EXPECTED, LOW, HIGH = range(3)
_QUANTILE: Final = 1.2815515655446004  # the normal distribution's, of which 10 % are above


class History:
    """What an account has spent, added up by equal parts of time.

    Args:
        balance: whose; its window says how long the parts are, and how far back the past counts.
        now: until when.

    Attributes:
        since: the earliest time that counts.
    """

    __slots__ = ("_calls", "_cost", "_held", "_spent", "_unit", "first", "first_cost", "since", "step")

    def __init__(self, balance: Balance, now: Milliseconds) -> None:
        window = _NO_WINDOW if balance.resets_ms is None else max(balance.resets_ms - balance.starts_ms, 1)
        past = min(_LONGEST_PAST, max(3 * window, min(_PAST_OF_SHORT, 30 * window)))
        self.step = max((one for one in _STEPS if one * 24 <= window), default=_STEPS[0])
        self.since = max(now - past, balance.created_ms)
        self._unit = balance.unit
        self.first: Milliseconds | None = None
        self.first_cost: Nanos = 0
        self._spent: dict[int, Nanos] = {}
        self._calls: dict[int, int] = {}
        self._held: Nanos = 0
        self._cost: Nanos = 0

    def add(self, record: HoldRecord) -> None:
        """Count one record, in any order. It counts when it was booked."""
        ended, cost = record.ended_ms, record.cost_of(self._unit)
        # What was imported is dated 0: nobody knows when it was spent.
        if ended is None or not cost or record.created_ms == 0 or ended < self.since:
            return
        if self.first is None or ended < self.first:
            self.first, self.first_cost = ended, cost
        at = ended // self.step
        self._spent[at] = self._spent.get(at, 0) + cost
        self._calls[at] = self._calls.get(at, 0) + 1
        if record.state == "settled" and (held := record.held_of(self._unit)):
            self._held += held
            self._cost += cost

    def begin(self, since: Milliseconds) -> None:
        """Leave out what was booked before a time: the records of calls made earlier are not all here."""
        self.since = max(self.since, since)
        if self.first is None or self.first >= self.since:
            return
        self._spent = {at: cost for at, cost in self._spent.items() if at * self.step >= self.since}
        self._calls = {at: self._calls[at] for at in self._spent}
        self.first, self.first_cost = (
            (-(-self.since // self.step) * self.step, 0) if self._spent else (None, 0)
        )

    @property
    def calls(self) -> int:
        """How many calls count. The first one only tells when the account was first used."""
        return max(0, sum(self._calls.values()) - 1)

    @property
    def share_of_held(self) -> float:
        """The part of what is held that calls have cost."""
        return min(1.0, self._cost / self._held) if self._held else 1.0

    def parts(self, until: Milliseconds) -> Iterator[tuple[Milliseconds, Milliseconds, Nanos, int]]:
        """Yield the parts of time from the first call on: start, end, Nanos and calls."""
        if self.first is None:
            return
        begin = self.first // self.step
        for at in range(begin, until // self.step + 1):
            start, end = max(at * self.step, self.first), min((at + 1) * self.step, until)
            if start >= end:
                continue
            is_first = at == begin
            spent, calls = self._spent.get(at, 0), self._calls.get(at, 0)
            yield start, end, spent - is_first * self.first_cost, calls - is_first


class Rhythm:
    """How busy each stretch of time is; 1 is the average.

    Attributes:
        parts: of the past, in order: how busy (in average milliseconds) and Nanos.
        busy: their sum.
        calls: how many there were.
        span: of the past, milliseconds.
    """

    def __init__(self, history: History, timezone: str, now: Milliseconds) -> None:
        self.step = history.step
        self._slot = max(history.step, _HOUR)
        self._zone = timezone
        past = [
            (self._place(start), end - start, spent, count) for start, end, spent, count in history.parts(now)
        ]
        self.calls = sum(count for *_, count in past)
        self.span = sum(length for _, length, *_ in past)
        self._hours = self._weights([(hour, length, n) for (_, hour), length, _, n in past], _DAYS_OF_RHYTHM)
        self._weekdays = self._weights(
            [(weekday, length, n) for (weekday, _), length, _, n in past], _DAYS_OF_WEEKDAYS
        )
        weighed = [(length * self._weight(place), spent) for place, length, spent, _ in past]
        self.busy = sum(busy for busy, _ in weighed)
        self.parts = weighed

    def of(self, start: Milliseconds, end: Milliseconds) -> float:
        """Return how busy a stretch within one step is, in average milliseconds."""
        return (end - start) * self._weight(self._place(start))

    def _place(self, instant: Milliseconds) -> tuple[int, int]:
        return _place(self._zone, instant // self.step * self.step, self._slot // _HOUR)

    def _weight(self, place: tuple[int, int]) -> float:
        return self._weekdays.get(place[0], 1.0) * self._hours.get(place[1], 1.0)

    def _weights(self, past: list[tuple[int, Milliseconds, int]], days: int) -> dict[int, float]:
        if self.span < days * DAY:
            return {}
        calls: dict[int, float] = {}
        times: dict[int, Milliseconds] = {}
        for key, length, count in past:
            calls[key] = calls.get(key, 0) + count
            times[key] = times.get(key, 0) + length
        even = self.calls / self.span
        return {
            key: (calls[key] + _EVEN_CALLS) / (even * times[key] + _EVEN_CALLS) for key in times if times[key]
        }


@lru_cache(maxsize=16_384)
def _place(timezone: str, instant: Milliseconds, hours: int) -> tuple[int, int]:
    local = datetime.fromtimestamp(instant / 1000, zone(timezone))
    return local.weekday(), local.hour // hours


class Factor(NamedTuple):
    """One smoothing factor's view: the level it comes to, and the variance of one part around it."""

    weight: float
    factor: float
    level: float
    variance: float
    of_level: float

    def variance_of(self, parts: float) -> float:
        """Return the variance of the sum of so many parts to come."""
        further, a = max(parts - 1, 0.0), self.factor
        steps = parts * (1 + a * further + a * a * further * (2 * parts - 1) / 6)
        return self.variance * (steps + parts * parts * self.of_level)


class Pace(NamedTuple):
    """What an account spends in a part of time.

    Attributes:
        length: of a part, in average milliseconds.
        factors: the smoothing factors' views; their weights sum to 1.
        quantile: of Student's distribution, by how many parts there are.
    """

    length: float
    factors: tuple[Factor, ...]
    quantile: float

    def of(self, busy: float) -> tuple[float, float]:
        """Return the mean and variance of the spend of a time to come, by how busy it is."""
        parts = busy / self.length
        mean = parts * sum(one.weight * one.level for one in self.factors)
        variance = sum(
            one.weight * (one.variance_of(parts) + (parts * one.level - mean) ** 2) for one in self.factors
        )
        return mean, variance


def pace_of(rhythm: Rhythm, ahead: float) -> Pace | None:
    length = max(min(ahead, rhythm.busy / _PARTS), rhythm.busy / len(rhythm.parts))
    spent = _cut(rhythm.parts, length, 2 * _PARTS)
    if len(spent) < _FEWEST_PARTS or not any(spent):
        return None
    views = [_smoothed(spent, factor) for factor in _FACTORS]
    best = max(one.weight for one in views)
    weights = [math.exp(one.weight - best) for one in views]
    # The last few parts say less of a time to come that is many times as long.
    priors = [1 / (1 + factor * ahead / length / _FAST) for factor in _FACTORS]
    factors = tuple(
        one._replace(weight=_TRUST * weight / sum(weights) + (1 - _TRUST) * prior / sum(priors))
        for one, weight, prior in zip(views, weights, priors, strict=True)
    )
    return Pace(length, factors, student(len(spent) - 1))


def _cut(past: Sequence[tuple[float, Nanos]], length: float, most: int) -> list[float]:
    """Return the spend of the last parts of a length, oldest first."""
    cut: list[float] = []
    spent = filled = 0.0
    for busy, nanos in reversed(past):
        left = busy
        while left > 0:
            taken = min(left, length - filled)
            spent += nanos * taken / busy
            filled += taken
            left -= taken
            if filled >= length * (1 - 1e-9):
                cut.append(spent)
                spent = filled = 0.0
                if len(cut) == most:
                    return cut[::-1]
    return cut[::-1]


def _smoothed(spent: Sequence[float], factor: float) -> Factor:
    """Smooth by one factor; the level that it starts from is the one that fits best (least squares).

    The weight is the logarithm of the likelihood.
    """
    level, share = 0.0, 1.0
    errors: list[tuple[float, float]] = []
    for one in spent:
        errors.append((one - level, share))
        level += factor * (one - level)
        share *= 1 - factor
    shares = sum(part * part for _, part in errors)
    start = sum(error * part for error, part in errors) / shares
    squares = sum((error - start * part) ** 2 for error, part in errors)
    freedom = len(spent) - 1
    # Where all parts are alike (one call in each, say) there is still some doubt.
    squares = max(squares, 1e-6 * sum(one * one for one in spent))
    likelihood = -freedom / 2 * math.log(squares) - math.log(shares) / 2
    return Factor(
        likelihood, factor, max(level + start * share, 0.0), squares / freedom, share * share / shares
    )


class Outlook:
    """What will be spent within some time from now: expected, lower and upper bound, in Nanos."""

    def __init__(self, pace: Pace, rhythm: Rhythm, ahead: Ahead, held: Nanos, share: float) -> None:
        self._pace = pace
        self._rhythm = rhythm
        self._ahead = ahead
        self._held = held
        self._share = share
        self._unknown = max(0.0, 1 - rhythm.span / (_DAYS_OF_RHYTHM * DAY)) * _UNKNOWN_RHYTHM**2
        self._likely_calls = rhythm.calls / rhythm.busy

    def __call__(self, after: Milliseconds) -> tuple[float, float, float]:
        busy = self._ahead.busy_after(after)
        mean, variance = self._pace.of(busy)
        if mean <= 0:
            return self._held * self._share, 0.0, float(self._held)
        doubt = variance / (mean * mean) + _DRIFT**2 * (after / DAY) / 3
        doubt += self._unknown * min(1.0, after / _HOUR)
        width = math.sqrt(math.log1p(doubt))
        middle, far = mean * math.exp(-width * width / 2), math.exp(self._pace.quantile * width)
        # It may well be that no call comes at all.
        is_sure = math.exp(-self._likely_calls * busy) <= (100 - COVERAGE) / 200
        return (
            max(mean, self._held * self._share),
            middle / far if is_sure else 0.0,
            max(middle * far, float(self._held)),
        )


class Ahead:
    """The time to come, by how busy it will be.

    Attributes:
        busy: in all, in average milliseconds.
    """

    def __init__(self, rhythm: Rhythm, now: Milliseconds, until: Milliseconds) -> None:
        self._now = now
        self._times: list[Milliseconds] = [0]
        self._busy: list[float] = [0.0]
        start = now
        while start < until:
            end = min((start // rhythm.step + 1) * rhythm.step, until)
            self._busy.append(self._busy[-1] + rhythm.of(start, end))
            self._times.append(end - now)
            start = end
        self.busy = self._busy[-1]

    def busy_after(self, after: Milliseconds) -> float:
        """Return how busy the time from now on is."""
        at = bisect_left(self._times, after)
        if at == 0 or self._times[at] == after:
            return self._busy[at]
        share = (after - self._times[at - 1]) / (self._times[at] - self._times[at - 1])
        return self._busy[at - 1] + share * (self._busy[at] - self._busy[at - 1])

    def when(self, nanos: Nanos, outlook: Outlook, which: int) -> Milliseconds | None:
        """Return when so much will have been spent, by one amount of an outlook, None if not ahead."""
        low, high = 0, self._times[-1]
        if outlook(high)[which] < nanos:
            return None
        while high - low > _SECOND:
            middle = (low + high) // 2
            if outlook(middle)[which] < nanos:
                low = middle
            else:
                high = middle
        return self._now + high


def student(freedom: int) -> float:
    """Return Student's quantile of which 10 % are above (Abramowitz and Stegun 26.7.5)."""
    z, n = _QUANTILE, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
