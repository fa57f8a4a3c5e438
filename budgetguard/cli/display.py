"""Money, times and ids as people read them: aligned, short, and safe to print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from fnmatch import fnmatchcase

from rich.console import Console
from rich.text import Text

from budgetguard.core.accounts import USD, USER, Balance, Unit
from budgetguard.core.forecast import Forecast
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Milliseconds, to_datetime
from budgetguard.core.wording import count, format_amount, printable

_MOST_DIGITS = 6
_NEARLY = 0.8
NARROW = 64
"""Columns of a window below which the demo leaves out explanations."""


def account_label(account: str) -> str:
    """Return a user's id, or another account's full name."""
    return printable(account.removeprefix(f"{USER}:"))


def money(amounts: Sequence[Nanos | None], *, none: str = "no limit") -> list[str]:
    """Return a column of amounts, rounded to equally many decimals; `show` and JSON have every digit.

    There are 2 to 6 decimals, so that the smallest amount keeps two significant digits. An amount that is not
    zero is never shown as zero.
    """
    digits = max((_digits(amount) for amount in amounts if amount), default=2)
    return [none if amount is None else _rounded(amount, digits) for amount in amounts]


def _digits(amount: Nanos) -> int:
    whole, fraction = divmod(abs(amount), 10**9)
    decimals = f"{fraction:09d}"
    zeros = 0 if whole else len(decimals) - len(decimals.lstrip("0"))
    return min(max(len(decimals[: zeros + 2].rstrip("0")), 2), _MOST_DIGITS)


def _rounded(amount: Nanos, digits: int) -> str:
    step = 10 ** (9 - digits)
    if 0 < abs(amount) * 2 < step:
        return f"{'>-' if amount < 0 else '<'}${step / 10**9:.{digits}f}"
    whole, fraction = divmod((abs(amount) + step // 2) // step, 10**digits)
    return f"{'-' if amount < 0 else ''}${whole:,}.{fraction:0{digits}d}"


def when(instant: datetime | None, zone: tzinfo | None, *, never: str = "never") -> str:
    """Return a time to the minute, in a zone (None: local time)."""
    return never if instant is None else f"{instant.astimezone(zone):%Y-%m-%d %H:%M}"


def course(forecast: Forecast) -> str:
    """Return what will have been spent and its bounds, empty where that is not known."""
    amounts = (forecast.expected_nanos, forecast.low_nanos, forecast.high_nanos)
    if None in amounts:
        return ""
    expected, low, high = (_amount(one or 0, forecast.unit) for one in amounts)
    return f"{expected} ({low} to {high})"


def _amount(amount: Nanos, unit: Unit) -> str:
    return money([amount])[0] if unit == USD else format_amount(amount, unit)


def outlook(forecast: Forecast, zone: tzinfo | None) -> str:
    """Return a forecast as a sentence's middle; empty where there is nothing to foresee."""
    if forecast.limit_nanos is None and forecast.until_ms is None:
        return ""
    if forecast.reached_ms == forecast.at_ms:
        return joined((_on_course(forecast, zone), "the limit is reached"))
    if not forecast.is_known:
        if not forecast.calls:
            return "too few calls yet"
        return f"too little data ({count(forecast.calls, 'call')} in {_span(forecast.span_ms)})"
    return joined((_on_course(forecast, zone), _reached(forecast, zone)))


def _on_course(forecast: Forecast, zone: tzinfo | None) -> str:
    foreseen = course(forecast)
    if not foreseen or forecast.until_ms is None:
        return ""
    return f"on course for {foreseen} by {when(to_datetime(forecast.until_ms), zone)}"


def _reached(forecast: Forecast, zone: tzinfo | None) -> str:
    if forecast.limit_nanos is None:
        return ""
    earliest, latest = forecast.earliest, forecast.latest
    if forecast.limit_reached_at is not None:
        bounds = (
            "" if earliest is None else f"from {when(earliest, zone)}",
            "" if latest is None else f"to {when(latest, zone)}",
        )
        told = " ".join(one for one in bounds if one)
        return f"limit reached about {when(forecast.limit_reached_at, zone)}" + (f" ({told})" if told else "")
    if earliest is not None:
        return f"limit reached at the earliest {when(earliest, zone)}"
    return "" if forecast.until_ms is not None else "limit not reached in the time that can be foreseen"


def _span(milliseconds: Milliseconds) -> str:
    minutes = milliseconds // 60_000
    if minutes < 120:
        return count(minutes, "minute") if minutes else "under a minute"
    return count(minutes // 60, "hour") if minutes < 2_880 else count(minutes // 1_440, "day")


def zone_name(zone: tzinfo | None) -> str:
    """Return the name of the zone in which times are shown."""
    return str(zone) if zone is not None else f"local time ({datetime.now().astimezone():%Z})"


def share(balance: Balance) -> float | None:
    """Return the part of the limit that is spent, or None without a limit. For bars only."""
    limit = balance.limit_nanos
    if limit is None:
        return None
    return balance.spent_nanos / limit if limit else float(balance.spent_nanos > 0)


def bar(balance: Balance, width: int, console: Console) -> Text:
    """Draw a budget's gauge, and the percentage spent; nothing without a limit."""
    spent = share(balance)
    if spent is None:
        return Text("")
    drawn = gauge(spent, balance.held_nanos / (balance.limit_nanos or 1), width, console)
    return drawn.append(f" {percentage(spent):>4}" if width else percentage(spent))


def gauge(spent: float, held: float, width: int, console: Console) -> Text:
    """Draw what is spent (full), held (hatched) and available (empty) of a limit, given as parts of it."""
    full, hatched, empty = ("#", "+", ".") if console.options.ascii_only else ("█", "▒", "░")
    done = _cells(spent, width)
    under_way = min(_cells(held, width), width - done)
    color = "red" if spent >= 1 else "yellow" if spent >= _NEARLY else "green"
    return Text.assemble(
        (full * done, color),
        (hatched * under_way, "cyan"),
        (empty * (width - done - under_way), "bright_black"),
    )


def percentage(part: float) -> str:
    """Return a part of a limit as a percentage; 100% only if all of it is spent."""
    percent = round(part * 100)
    if part < 1 <= percent / 100:
        percent = 99
    return f"{percent}%" if percent <= 999 else ">999%"


def _cells(part: float, width: int) -> int:
    cells = int(part * width)
    return min(max(cells, 1 if part > 0 else 0), width)


def joined(parts: Iterable[str]) -> str:
    """Join the parts that are not empty with commas."""
    return ", ".join(part for part in parts if part)


def pattern_matches(text: str, pattern: str) -> bool:
    """Return whether a text contains a pattern, or matches it if that has `*`, `?` or `[`."""
    if any(ch in pattern for ch in "*?["):
        return fnmatchcase(text, pattern)
    return pattern in text
