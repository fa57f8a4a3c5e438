"""A provider's bill, by UTC day: what was charged, for which model or item, and for how many units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from budgetguard.core.money import MAX_SUM, NANOS_PER_USD, Nanos
from budgetguard.errors import BillError

OPENAI: Final = "openai"
ANTHROPIC: Final = "anthropic"

# Items that are tools, by the names that rows show.
WEB_SEARCH: Final = "web search"
FILE_SEARCH: Final = "file search"
CODE: Final = "code execution"
IMAGE_TOOL: Final = "image generation tool"
OTHER_TOOL: Final = "other tools"
TOOLS: Final = frozenset({WEB_SEARCH, FILE_SEARCH, CODE, IMAGE_TOOL, OTHER_TOOL})

_EXACT: Final = Context(prec=60)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BillLine:
    """One amount of a bill.

    Attributes:
        day: the UTC day.
        amount: Nanos; negative for a credit.
        model: as the bill names it; None for what belongs to no model.
        item: what is charged beside tokens, such as `web search`, or as the bill names it; empty for a model.
        unit: the unit that is counted, as it is priced: of `input_tokens` those that are neither cached nor
            sound or pictures. None where the bill does not say.
        quantity: how many; None where the bill does not say.
        tier: the service tier, such as `batch`; None for the standard one.
        slack: Nanos by which the amount may have been rounded, up or down.
    """

    day: date
    amount: Nanos
    model: str | None = None
    item: str = ""
    unit: str | None = None
    quantity: int | None = None
    tier: str | None = None
    slack: Nanos = 0

    @property
    def is_whole(self) -> bool:
        """Whether this is a whole day's amount: the bill names neither models nor items."""
        return self.model is None and not self.item


@dataclass(frozen=True, slots=True)
class Bill:
    """What one provider charged, for whole UTC days.

    Attributes:
        provider: genai-prices' id of the provider, such as `openai`.
        since: the first day.
        until: the day after the last one.
        lines: the amounts.
        requests: requests by day and model, as far as the provider counts them.
        source: where the bill is from, for people.
        notes: what people should know of it.
    """

    provider: str
    since: date
    until: date
    lines: tuple[BillLine, ...]
    requests: Mapping[tuple[date, str], int] = field(default_factory=dict)
    source: str = ""
    notes: tuple[str, ...] = ()

    def within(self, since: date, until: date) -> Bill:
        """Return the part of a bill that is of these days."""
        lines = tuple(line for line in self.lines if since <= line.day < until)
        requests = {key: n for key, n in self.requests.items() if since <= key[0] < until}
        return replace(self, since=since, until=until, lines=lines, requests=requests)


def bill_of(
    provider: str,
    lines: Iterable[BillLine],
    *,
    source: str,
    since: date | None = None,
    until: date | None = None,
    requests: Mapping[tuple[date, str], int] | None = None,
    notes: Iterable[str] = (),
) -> Bill:
    """Make a bill; its days are by default those from its first line's to its last's.

    Raises:
        BillError: there is no line, and no day either.
    """
    found = tuple(lines)
    days = [line.day for line in found]
    if since is None or until is None:
        if not days:
            raise BillError(f"{source} has no amount in it, so there is nothing to compare with")
        since = min(days) if since is None else since
        until = max(days) + _DAY if until is None else until
    made = Bill(provider, since, until, found, dict(requests or {}), source, tuple(notes))
    return made.within(since, until)


def line_nanos(usd: Decimal, *, where: str) -> Nanos:
    """Convert USD of a bill, which may be negative and have any number of digits, to the nearest Nano.

    Raises:
        BillError: not finite, or too large to be an amount of money.
    """
    if not usd.is_finite() or abs(usd) > MAX_SUM // NANOS_PER_USD:
        raise BillError(f"{where} has the amount {usd}, which is no amount of USD")
    nanos = _EXACT.multiply(usd, Decimal(NANOS_PER_USD))
    return int(nanos.to_integral_value(rounding=ROUND_HALF_EVEN))


def utc_day(seconds: float) -> date:
    """Return the UTC day of a time in seconds since 1970.

    Raises:
        ValueError: no such time.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC).date()
    except (OverflowError, OSError) as error:
        raise ValueError(f"{seconds} is no time") from error


def tool_named(text: str) -> str | None:
    """Return the tool that the name of an item is of, or None."""
    name = text.lower().replace("_", " ")
    if "web search" in name or "web searches" in name:
        return WEB_SEARCH
    if "file search" in name and "storage" not in name:
        return FILE_SEARCH
    if "code interpreter" in name or "code execution" in name or name.startswith("container"):
        return CODE
    return None
