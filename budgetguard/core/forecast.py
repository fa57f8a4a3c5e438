"""Forecasts: what an account will have spent at its window's end, and when its limit is reached.

Three steps, all from records of calls:

1. *Rhythm.* How many calls came at which hour of the day (after 3 days) and on which weekday (after 3 weeks)
   says how busy each stretch of time is. Time counts by that: a quiet night is short, a Monday is long.
2. *Level.* The past is cut into parts as busy as what remains of the window (at least a thirtieth of it
   each). Exponential smoothing of their spend by several factors, weighted half evenly and half by how well
   each would have foretold the parts, gives the level that is expected to go on.
3. *Bounds.* Each part's surprise gives the variance of what is to come, by the formula for the sum of several
   steps of simple exponential smoothing; a sum of that mean and variance is taken to be log-normal. The
   bounds are meant to hold in 80 % of the cases.

Sources: Hyndman, Koehler, Ord, Snyder, "Forecasting with Exponential Smoothing" (Springer 2008), chapter 6,
for the variance of a sum of h steps, s^2 h (1 + a(h-1) + a^2 (h-1)(2h-1)/6); with a = 0 and the uncertainty
of the level it is the interval for the mean of future observations of Hahn and Meeker, "Statistical
Intervals" (Wiley 1991), chapter 4. Fenton, "The Sum of Log-Normal Probability Distributions in Scatter
Transmission Systems" (IRE Transactions on Communications Systems 8, 1960), for the log-normal sum.
Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5, for the quantile of Student's
distribution. `benchmarks/forecast.py` measures how often the bounds hold.

Pure: no clock, no store. Floats are in the estimate only; nothing here is booked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from budgetguard.core.accounts import CONCURRENT, USD, Balance, Unit
from budgetguard.core.holds import HoldRecord
from budgetguard.core.money import MAX_SUM, Nanos, to_usd
from budgetguard.core.pace import (
    DAY,
    EXPECTED,
    FEWEST_CALLS,
    HIGH,
    LOW,
    Ahead,
    History,
    Outlook,
    Rhythm,
    pace_of,
)
from budgetguard.core.windows import Milliseconds, calendar_start, to_datetime, window_at

__all__ = ["Forecast", "History", "Month", "forecast"]

# How far ahead the limit of a budget without a window is looked for.
_FARTHEST: Final = 365 * DAY
# If the rest is longer than this many pasts, nothing is claimed.
_FARTHEST_PASTS: Final = 30


@dataclass(frozen=True, slots=True)
class Forecast:
    """What an account will have spent, and when its limit is reached.

    The properties are for people and callers (USD as Decimal, aware datetimes). Amounts are None where there
    is too little data, and where the budget has no window that ends.

    Attributes:
        at_ms: when this was made.
        until_ms: the window's end; None if it has none.
        limit_nanos: the limit; None if there is none.
        expected_nanos: what will have been spent by the window's end.
        low_nanos, high_nanos: its bounds, between which it lies in 80 % of the cases.
        reached_ms: when the limit is reached, as expected; None if not within the window, or, without a
            window, as far ahead as can be foreseen.
        earliest_ms, latest_ms: the bounds of that; None likewise, each for itself.
        calls: how many calls this rests on.
        span_ms: over how much time they were made.
        is_known: there was enough data.
        unit: what the account counts; amounts are of that, Nanos where it is USD.
    """

    at_ms: Milliseconds
    until_ms: Milliseconds | None
    limit_nanos: Nanos | None
    expected_nanos: Nanos | None = None
    low_nanos: Nanos | None = None
    high_nanos: Nanos | None = None
    reached_ms: Milliseconds | None = None
    earliest_ms: Milliseconds | None = None
    latest_ms: Milliseconds | None = None
    calls: int = 0
    span_ms: Milliseconds = 0
    is_known: bool = False
    unit: Unit = USD

    @property
    def expected(self) -> Decimal | None:
        """What will have been spent at the window's end, in USD (or a count)."""
        return self._quantity(self.expected_nanos)

    @property
    def low(self) -> Decimal | None:
        """The lower bound of `expected`."""
        return self._quantity(self.low_nanos)

    @property
    def high(self) -> Decimal | None:
        """The upper bound of `expected`."""
        return self._quantity(self.high_nanos)

    def _quantity(self, amount: Nanos | None) -> Decimal | None:
        if amount is None:
            return None
        return to_usd(amount) if self.unit == USD else Decimal(amount)

    @property
    def limit_reached_at(self) -> datetime | None:
        """When the limit is reached, as expected; None if it is not within the window."""
        return _datetime(self.reached_ms)

    @property
    def earliest(self) -> datetime | None:
        """When the limit is reached at the earliest; None if it hardly is within the window."""
        return _datetime(self.earliest_ms)

    @property
    def latest(self) -> datetime | None:
        """When the limit is reached at the latest; None if it may not be within the window."""
        return _datetime(self.latest_ms)

    @property
    def exceeds(self) -> bool:
        """Whether more than the limit is expected to be asked for within the window."""
        limit, expected = self.limit_nanos, self.expected_nanos
        return limit is not None and expected is not None and expected > limit

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: money as USD text, times in ISO format."""
        return {
            "at": to_datetime(self.at_ms).isoformat(),
            "until": _iso(self.until_ms),
            "is_known": self.is_known,
            "unit": self.unit,
            "expected": _text(self.expected),
            "low": _text(self.low),
            "high": _text(self.high),
            "exceeds": self.exceeds,
            "limit_reached_at": _iso(self.reached_ms),
            "earliest": _iso(self.earliest_ms),
            "latest": _iso(self.latest_ms),
            "calls": self.calls,
            "days": round(self.span_ms / DAY, 3),
        }


def forecast(balance: Balance, history: History, now: Milliseconds) -> Forecast:
    """Return what an account will have spent at its window's end, and when its limit is reached.

    Args:
        balance: as it stands now.
        history: of the account, from its present window and those before.
        now: the present.
    """
    until, limit = balance.resets_ms, balance.limit_nanos
    if balance.rolling or balance.unit == CONCURRENT:  # neither adds up to anything at some time
        return Forecast(now, None, None, unit=balance.unit)
    span = 0 if history.first is None else max(0, now - history.first)
    made = Forecast(now, until, limit, calls=history.calls, span_ms=span, unit=balance.unit)
    missing = None if limit is None else limit - balance.spent_nanos
    if missing is not None and missing <= 0:
        made = replace(made, reached_ms=now, earliest_ms=now, latest_ms=now)
    rest = _rest(balance, span, now)
    if made.calls < FEWEST_CALLS or not span or not 0 < rest <= _FARTHEST_PASTS * span:
        return made
    rhythm = Rhythm(history, balance.timezone, now)
    ahead = Ahead(rhythm, now, now + rest)
    if (pace := pace_of(rhythm, ahead.busy)) is None:
        return made
    outlook = Outlook(pace, rhythm, ahead, balance.held_nanos, history.share_of_held)
    if missing is not None and missing > 0:
        made = replace(
            made,
            reached_ms=ahead.when(missing, outlook, EXPECTED),
            earliest_ms=ahead.when(missing, outlook, HIGH),
            latest_ms=ahead.when(missing, outlook, LOW),
        )
    if until is None:
        return replace(made, is_known=True)
    expected, low, high = (_nanos(balance.spent_nanos + one) for one in outlook(rest))
    return replace(made, expected_nanos=expected, low_nanos=low, high_nanos=high, is_known=True)


def _rest(balance: Balance, span: Milliseconds, now: Milliseconds) -> Milliseconds:
    """Return how far ahead to look: to the window's end, else four times as far as records go back."""
    if balance.resets_ms is not None:
        return balance.resets_ms - now
    return min(_FARTHEST, 4 * span)


class Month:
    """The present calendar month of some records: what it has cost, and what it will.

    Args:
        timezone: IANA name: whose month, hours and weekdays.
        now: the present.

    Attributes:
        start: of the month.
        since: the earliest time of which records count; all since then are to be added.
        spent: Nanos that calls made in this month have cost.
    """

    def __init__(self, timezone: str, now: Milliseconds) -> None:
        self.start = calendar_start("monthly", timezone, now)
        end = window_at("monthly", self.start, timezone, now).end
        self._balance = Balance("report:month", None, 0, 0, "monthly", timezone, self.start, end, 0, now)
        self._now = now
        self._history = History(self._balance, now)
        self._held: Nanos = 0
        self.spent: Nanos = 0
        self.since = self._history.since

    def add(self, record: HoldRecord) -> None:
        """Count one record."""
        self._history.add(record)
        if record.created_ms >= self.start:
            self.spent += record.cost_nanos
            self._held += record.amount_nanos if record.state == "held" else 0

    def forecast(self) -> Forecast:
        """Return what calls will have cost at the month's end."""
        balance = replace(self._balance, spent_nanos=self.spent, held_nanos=self._held)
        return forecast(balance, self._history, self._now)


def _nanos(amount: float) -> Nanos:
    return min(round(amount), MAX_SUM) if math.isfinite(amount) else MAX_SUM


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount, "f")


def _datetime(instant: Milliseconds | None) -> datetime | None:
    return None if instant is None else to_datetime(instant)


def _iso(instant: Milliseconds | None) -> str | None:
    return None if instant is None else to_datetime(instant).isoformat()
