"""Windows: the spans over which budgets count, derived from a budget and a clock.

A window never depends on a job that must run: window k of a budget is the span from its anchor plus
k durations to its anchor plus k + 1 durations. Seconds, minutes and hours are elapsed time; days,
weeks, months and years are counted on the wall clock of the budget's time zone, so a daily window
stays at midnight through a change to summer time, and a month is a month. Months are counted from
the anchor, not from the last window, so one that begins on the 31st comes back to the 31st.

Instants are milliseconds since 1970-01-01 UTC, as ints.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from budgetguard.errors import ConfigurationError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Milliseconds: TypeAlias = int
Clock: TypeAlias = Callable[[], Milliseconds]
Align: TypeAlias = Literal["created", "calendar"]

Unit: TypeAlias = Literal["s", "m", "h", "d", "w", "mo", "y"]

_NAMED: Final[dict[str, tuple[int, Unit]]] = {
    "hourly": (1, "h"),
    "daily": (1, "d"),
    "weekly": (1, "w"),
    "monthly": (1, "mo"),
    "yearly": (1, "y"),
}
_COUNTED = re.compile(r"([1-9][0-9]{0,8})(s|mo|m|h|d|w|y)")
_ELAPSED_MS: Final[dict[str, int]] = {"s": 1_000, "m": 60_000, "h": 3_600_000}
_ON_THE_CALENDAR: Final = ("d", "w", "mo", "y")
_ROUGH_SECONDS: Final[dict[str, float]] = {
    "s": 1,
    "m": 60,
    "h": 3_600,
    "d": 86_400,
    "w": 604_800,
    "mo": 2_629_746,
    "y": 31_556_952,
}
_LONGEST_SECONDS = 100 * 31_556_952


@dataclass(frozen=True, slots=True)
class Window:
    """A span: `start` inclusive, `end` exclusive or None for a budget that never resets."""

    start: Milliseconds
    end: Milliseconds | None


# What a datetime can say: from the year 1 to the year 9999.
_FIRST: Final = -62_135_596_800_000
_LAST: Final = 253_402_300_799_999


def to_datetime(instant: Milliseconds) -> datetime:
    """Convert an instant to an aware UTC datetime, the nearest that there is."""
    return datetime.fromtimestamp(min(max(instant, _FIRST), _LAST) / 1000, UTC)


def to_milliseconds(instant: datetime, *, name: str) -> Milliseconds:
    """Convert a datetime (naive: UTC) to an instant.

    Raises:
        ConfigurationError: it is no datetime.
    """
    if not isinstance(instant, datetime):
        raise ConfigurationError(f"{name} must be a datetime, not {instant!r} ({type(instant).__name__})")
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


@lru_cache(maxsize=256)
def parse_duration(text: str) -> tuple[int, Unit]:
    """Read a duration as a count and a unit.

    Args:
        text: `hourly`, `daily`, `weekly`, `monthly`, `yearly`, or a count and a unit: `30s`, `15m`,
            `12h`, `7d`, `2w`, `1mo`, `1y`.

    Raises:
        ConfigurationError: anything else, or longer than 100 years.
    """
    if isinstance(text, str):
        if text in _NAMED:
            return _NAMED[text]
        if match := _COUNTED.fullmatch(text):
            count, unit = int(match[1]), match[2]
            if count * _ROUGH_SECONDS[unit] <= _LONGEST_SECONDS:
                return count, unit  # type: ignore[return-value]  # the pattern admits only units
    raise ConfigurationError(
        f"unknown duration {text!r}: use hourly, daily, weekly, monthly or yearly, "
        'or a count and a unit (s, m, h, d, w, mo, y; at most 100 years) such as "30s", "7d" or "1mo"'
    )


def duration_ms(text: str) -> Milliseconds:
    """Return how long a duration is, a month taken as a twelfth of an average year.

    Raises:
        ConfigurationError: an unknown duration.
    """
    count, unit = parse_duration(text)
    return round(count * _ROUGH_SECONDS[unit] * 1000)


@lru_cache(maxsize=64)
def zone(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name.

    Raises:
        ConfigurationError: no such zone on this machine.
    """
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError):
        raise ConfigurationError(
            f"unknown time zone {name!r}: use an IANA name such as UTC or Europe/Berlin "
            "(where the system has no zone data, install the tzdata package)"
        ) from None


def window_at(duration: str | None, anchor: Milliseconds, timezone: str, instant: Milliseconds) -> Window:
    """Return the window that contains an instant.

    Args:
        duration: see `parse_duration`; None is one window without an end.
        anchor: where window 0 starts. A later anchor than `instant` counts windows backwards.
        timezone: IANA name; matters to days and longer.
        instant: the instant to contain.

    Raises:
        ConfigurationError: an unknown duration or time zone.
    """
    if duration is None:
        return Window(min(anchor, instant), None)
    return _numbered(duration, anchor, timezone, instant)[1]


def windows_between(
    duration: str, anchor: Milliseconds, timezone: str, earlier: Milliseconds, later: Milliseconds
) -> int:
    """Return how many windows begin after that of one instant, up to that of a later one.

    Raises:
        ConfigurationError: an unknown duration or time zone.
    """
    return _numbered(duration, anchor, timezone, later)[0] - _numbered(duration, anchor, timezone, earlier)[0]


def _numbered(
    duration: str, anchor: Milliseconds, timezone: str, instant: Milliseconds
) -> tuple[int, Window]:
    """Return the window that contains an instant, and its number, counted from the anchor's."""
    count, unit = parse_duration(duration)
    if unit in _ELAPSED_MS:
        step = count * _ELAPSED_MS[unit]
        index = (instant - anchor) // step
        start = anchor + index * step
        return index, Window(start, start + step)
    # The wall clock's reading alone: of two equal readings (summer time ends) window 0 starts at the
    # one that the anchor is, the others at the first.
    origin = _wall(anchor, timezone)

    def boundary(index: int) -> Milliseconds:
        return _boundary(origin, index, count, unit, timezone) if index else anchor

    index = int((instant - anchor) / (count * _ROUGH_SECONDS[unit] * 1000))
    # The rough index is off by at most a few steps; walk to the exact one.
    while boundary(index) > instant:
        index -= 1
    while (end := boundary(index + 1)) <= instant:
        index += 1
    return index, Window(boundary(index), end)


_PARTS: Final = 60
"""Parts of a rolling window: what was spent in one falls out of the window together."""


def falls_out(duration: str, now: Milliseconds) -> Milliseconds:
    """Return when what is spent now falls out of a rolling window: a duration after its part's end.

    Never earlier than a duration from now, so that no span of that length has more than the limit.
    """
    whole = duration_ms(duration)
    part = max(1, whole // _PARTS)
    return (now // part + 1) * part + whole


def calendar_start(duration: str | None, timezone: str, instant: Milliseconds) -> Milliseconds:
    """Return the start of the calendar unit (hour, day, Monday's week, month, year) around an instant.

    A day on which clocks go forward at midnight begins at 01:00, and windows counted from there would begin
    at 01:00 ever after. So for such a day it is the midnight one duration before, or the next before that.

    Raises:
        ConfigurationError: an unknown duration or time zone.
    """
    if duration is None:
        return instant
    count, unit = parse_duration(duration)
    local = _wall(instant, timezone).replace(microsecond=0)
    if unit == "s":
        return instant - instant % 1000
    local = local.replace(second=0)
    if unit != "m":
        local = local.replace(minute=0)
    if unit in _ON_THE_CALENDAR:
        local = local.replace(hour=0, fold=0)
    if unit == "w":
        local -= timedelta(days=local.weekday())
    if unit in ("mo", "y"):
        local = local.replace(day=1)
    if unit == "y":
        local = local.replace(month=1)
    start, index = _epoch_ms(local, timezone), 0
    while unit in _ON_THE_CALENDAR and _wall(start, timezone) != _moved(local, index, count, unit):
        index -= 1
        start = _boundary(local, index, count, unit, timezone)
    return start


def _boundary(origin: datetime, index: int, count: int, unit: Unit, timezone: str) -> Milliseconds:
    return _epoch_ms(_moved(origin, index, count, unit), timezone)


def _moved(origin: datetime, index: int, count: int, unit: Unit) -> datetime:
    """Return the wall clock's reading so many durations of days or longer after another."""
    steps = index * count
    if unit in ("d", "w"):
        return origin + timedelta(days=steps * (7 if unit == "w" else 1))
    months = origin.year * 12 + origin.month - 1 + steps * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    day = min(origin.day, monthrange(year, month + 1)[1])
    return origin.replace(year=year, month=month + 1, day=day)


def _wall(instant: Milliseconds, timezone: str) -> datetime:
    """Return what a wall clock reads at an instant, without a zone."""
    return datetime.fromtimestamp(instant / 1000, zone(timezone)).replace(tzinfo=None, fold=0)


def _epoch_ms(local: datetime, timezone: str) -> Milliseconds:
    return round(local.replace(tzinfo=zone(timezone)).timestamp() * 1000)


def moment(text: str, now: datetime, zone: tzinfo | None, *, name: str) -> datetime:
    """Read a point in time.

    Args:
        text: a span before now (`7d`, `12h`), a date, or a date and time; with or without an offset.
        now: the present, aware.
        zone: whose dates; None is local time.
        name: what the value is, for the error's text.

    Raises:
        ConfigurationError: anything else.
    """
    try:
        return now - timedelta(milliseconds=duration_ms(text))
    except (ConfigurationError, OverflowError):
        pass
    try:
        return point_in_time(text, zone)
    except ValueError:
        raise ConfigurationError(
            f"{name} must be a span before now such as 7d or 12h, a date such as 2026-11-01, "
            f"or a time such as 2026-11-01T14:30, not {text!r}"
        ) from None


def point_in_time(text: str, zone: tzinfo | None) -> datetime:
    """Read a date, or a date and time, with or without an offset.

    Args:
        text: such as `2026-11-01` or `2026-11-01T14:30`.
        zone: whose time it is where it has no offset; None is local time.

    Raises:
        ValueError: it is none, or lies beyond what a clock can show.
    """
    given = datetime.fromisoformat(text)
    if given.tzinfo is not None:
        return given
    try:
        return given.astimezone() if zone is None else given.replace(tzinfo=zone)
    except (OverflowError, OSError) as error:
        raise ValueError(text) from error
