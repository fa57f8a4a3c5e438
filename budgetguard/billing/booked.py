"""What was booked, by UTC day and model: records of calls, added up for the comparison with a bill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Final, Literal, TypeAlias

from budgetguard.billing.bill import CODE, FILE_SEARCH, IMAGE_TOOL, OTHER_TOOL, WEB_SEARCH
from budgetguard.billing.names import ModelNames
from budgetguard.core.holds import HoldRecord
from budgetguard.core.money import Nanos, to_usd
from budgetguard.core.usage import Usage
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.extra_units import drawn_unit

Uncertain: TypeAlias = Literal["expired", "open", "estimated"]
UNCERTAIN: Final[tuple[Uncertain, ...]] = ("expired", "estimated", "open")

_EPOCH: Final = date(1970, 1, 1).toordinal()
_DAY: Final[Milliseconds] = 86_400_000
_NOON: Final = time(12, tzinfo=UTC)
_MANY_REQUESTS: Final = ("batches", "realtime")
_DRAWN: Final = "drawn_tokens"
_MILLION: Final = 1_000_000
# A unit that is priced by itself, and the unit whose price counts if it has none.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "cache_audio_read_tokens": ("cache_read_tokens", "input_audio_tokens"),
    "cache_image_read_tokens": ("cache_read_tokens", "input_image_tokens"),
    "cache_write_1h_tokens": ("cache_write_tokens",),
    "cache_write_5m_tokens": ("cache_write_tokens",),
}
_OF_INPUT: Final = (
    "cache_read_tokens",
    "cache_write_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "input_video_tokens",
)
_OF_OUTPUT: Final = ("output_audio_tokens", "output_image_tokens", "output_video_tokens")
_USUAL: Final = frozenset({"input_tokens", "cache_read_tokens", "output_tokens", "output_reasoning_tokens"})
_NO_PRICE_OF_THEIR_OWN: Final = ("_text_tokens", "_reasoning_tokens", "_tool_tokens", "_citation_tokens")


@dataclass(slots=True)
class Guessed:
    """Calls whose cost nobody knows yet, or ever.

    Attributes:
        calls: how many.
        booked: Nanos booked for them.
        most: Nanos that they cost at most, as they were held.
    """

    calls: int = 0
    booked: Nanos = 0
    most: Nanos = 0

    def add(self, booked: Nanos, most: Nanos) -> None:
        """Add a call."""
        self.calls += 1
        self.booked += booked
        self.most += max(most, booked)

    def join(self, other: Guessed) -> None:
        """Add others."""
        self.calls += other.calls
        self.booked += other.booked
        self.most += other.most


@dataclass(slots=True)
class BookedCalls:
    """The calls of one day and model, or of one tool.

    Attributes:
        known: Nanos booked for calls whose usage is known.
        calls: how many of those there are.
        units: what they used, by the unit that it is priced as.
        countable: whether `units` are all that they used.
        batched: whether some of them are many requests of the provider's.
        guessed: the others, by why their cost is not known.
        later: Nanos booked for calls that ended on another day than they began, by that day.
    """

    known: Nanos = 0
    calls: int = 0
    units: dict[str, int] = field(default_factory=dict)
    countable: bool = True
    batched: bool = False
    guessed: dict[Uncertain, Guessed] = field(default_factory=dict)
    later: dict[date, Nanos] = field(default_factory=dict)

    @property
    def booked(self) -> Nanos:
        """Nanos booked for all of them."""
        return self.known + sum(one.booked for one in self.guessed.values())

    def guess(self, why: Uncertain) -> Guessed:
        """Return the calls whose cost is uncertain for this reason."""
        return self.guessed.setdefault(why, Guessed())


@dataclass(frozen=True, slots=True)
class BookedKey:
    """What calls are added up by.

    Attributes:
        provider: genai-prices' id, or `other`.
        day: the UTC day on which the call was made.
        model: its one name; None for a tool.
        item: the tool; empty for a model.
    """

    provider: str
    day: date
    model: str | None
    item: str = ""


Rate: TypeAlias = Callable[[str, str, date, str], "Fraction | None"]
"""Nanos for one of a unit: (provider, model, day, unit) -> the listed price, None if there is none."""


class BookedRecords:
    """Records added up. Each is read once, and none is kept."""

    def __init__(self, names: ModelNames, prices: PriceBook) -> None:
        self.rows: dict[BookedKey, BookedCalls] = {}
        self.names = names
        self._prices = prices
        self._drawing: dict[str, str] = {}
        # One name for several need not be one that a price list knows.
        self._called: dict[tuple[str, str], str] = {}
        self._rates: dict[tuple[str, str, date, str], Fraction | None] = {}

    def draws(self, models: Iterable[str]) -> None:
        """Note models that a tool may draw with, which are billed by their own names."""
        self._drawing = {drawn_unit(model): model for model in models}

    def add_all(self, records: Iterable[HoldRecord]) -> None:
        """Add records, such as `guard.calls(...)`."""
        for record in records:
            self.add(record)

    def add(self, record: HoldRecord) -> None:
        """Add a record. Calls that did no work, and spend without a time, are in no bill's day."""
        if record.state == "voided" or record.created_ms == 0:
            return
        provider, model = self.names.called(record.model)
        # A plain name does not tell where it was asked for; the record of the call does.
        provider = record.labels.get("provider", provider)
        day = _day(record.created_ms)
        row = self._row(BookedKey(provider, day, model))
        self._called.setdefault((provider, model), record.model)
        row.batched = row.batched or record.endpoint.startswith(_MANY_REQUESTS)
        why = uncertainty(record)
        if why is not None:
            row.guess(why).add(record.cost_nanos, record.amount_nanos)
        else:
            row.calls += 1
            row.known += record.cost_nanos - self._add_tools(record, provider, day)
            _add_units(row, record.usage)
        ended = record.ended_ms
        if ended is not None and why != "expired" and (last := _day(ended)) != day:
            row.later[last] = row.later.get(last, 0) + record.cost_nanos

    def rate(self, provider: str, model: str, day: date, unit: str) -> Fraction | None:
        """Return the listed price of one of a unit in Nanos, or None; see `Rate`."""
        key = (provider, model, day, unit)
        if key not in self._rates:
            self._rates[key] = self._listed(*key)
        return self._rates[key]

    def _listed(self, provider: str, model: str, day: date, unit: str) -> Fraction | None:
        units = {unit: _MILLION}
        if unit.startswith(("input_", "cache_")) and unit.endswith("_tokens"):
            units.update(dict.fromkeys((*_PARTS.get(unit, ()), "input_tokens"), _MILLION))
        elif unit.startswith("output_"):
            units["output_tokens"] = _MILLION
        named = self._called.get((provider, model), model)
        try:
            rates = self._prices.rates(named, provider=provider, at=datetime.combine(day, _NOON))
            return Fraction(rates.cost(Usage(units)), _MILLION)
        except UnknownModelError:
            return None

    def _row(self, key: BookedKey) -> BookedCalls:
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = BookedCalls()
        return row

    def _add_tools(self, record: HoldRecord, provider: str, day: date) -> Nanos:
        """Add what a call's tools were booked at to the rows in which bills have them; return how much."""
        moved = 0
        for unit, n in record.usage.units.items():
            tool = _tool_of(unit)
            if tool is None or not n:
                continue
            try:
                rates = self._prices.rates(record.model, provider=provider, at=record.created_at)
                cost = min(rates.cost(Usage({unit: n})), record.cost_nanos - moved)
            except UnknownModelError:
                continue
            drawn = self._drawing.get(unit) if tool == IMAGE_TOOL else None
            key = BookedKey(provider, day, drawn, "" if drawn else tool)
            row = self._row(key)
            row.known += cost
            row.calls += drawn is None
            if drawn is not None:
                row.units["output_image_tokens"] = row.units.get("output_image_tokens", 0) + n
            moved += cost
        return moved


def uncertainty(record: HoldRecord) -> Uncertain | None:
    """Return why nobody knows what a call cost, or None where its provider said what it used."""
    if record.state == "held":
        return "open"
    if record.state == "expired":
        return "expired"
    if record.outcome in ("abandoned", "unknown"):
        return "estimated"
    # What was booked by a program's own word (`posted`) is no guess.
    return (
        "estimated" if record.cost_nanos and not record.usage.units and record.outcome != "posted" else None
    )


def priced_units(usage: Usage) -> tuple[dict[str, int], bool]:
    """Return a usage by the units that bills count, each counted once, and whether that is all of it.

    Bills count an input token as cached, as sound, as a picture or as none of these; usages count totals and
    parts of them.
    """
    given = usage.units
    if given.keys() <= _USUAL:  # nearly always
        cached = given.get("cache_read_tokens", 0)
        usual = {
            "input_tokens": given.get("input_tokens", 0) - cached,
            "cache_read_tokens": cached,
            "output_tokens": given.get("output_tokens", 0),
        }
        return {unit: n for unit, n in usual.items() if n > 0}, True
    counts = {unit: given[unit] for unit in (*_PARTS, *_OF_INPUT, *_OF_OUTPUT) if given.get(unit)}
    written = sum(counts.get(unit, 0) for unit in ("cache_write_1h_tokens", "cache_write_5m_tokens"))
    if written > counts.get("cache_write_tokens", 0):
        counts["cache_write_tokens"] = written
    for total, parts in (("input_tokens", _OF_INPUT), ("output_tokens", _OF_OUTPUT)):
        counts[total] = given.get(total, 0) - sum(counts.get(part, 0) for part in parts)
    for part in ("cache_audio_read_tokens", "cache_image_read_tokens"):
        if n := counts.get(part, 0):
            # Counted in both of what it is a part of, so subtracted from the total twice.
            counts["input_tokens"] += n
            for whole in _PARTS[part]:
                counts[whole] = counts.get(whole, 0) - n
    counts["cache_write_tokens"] = counts.get("cache_write_tokens", 0) - written
    others = (
        unit
        for unit, n in given.items()
        if n and unit not in counts and not unit.endswith(_NO_PRICE_OF_THEIR_OWN) and _tool_of(unit) is None
    )
    countable = not any(unit not in ("requests", "input_tokens", "output_tokens") for unit in others)
    return {unit: n for unit, n in counts.items() if n > 0}, countable


def _add_units(row: BookedCalls, usage: Usage) -> None:
    units, countable = priced_units(usage)
    row.countable = row.countable and countable and bool(units)
    for unit, n in units.items():
        row.units[unit] = row.units.get(unit, 0) + n


def _day(at: Milliseconds) -> date:
    """Return the UTC day of a time."""
    return date.fromordinal(_EPOCH + at // _DAY)


@cache
def _tool_of(unit: str) -> str | None:
    if unit in ("web_searches", "web_search_previews"):
        return WEB_SEARCH
    if unit == "storage_searches":
        return FILE_SEARCH
    if unit.startswith("container_sessions") or unit == "code_executions":
        return CODE
    if unit.startswith(_DRAWN):
        return IMAGE_TOOL
    return OTHER_TOOL if unit.startswith("tool_uses") else None


def usd_text(nanos: Nanos) -> str:
    """Return Nanos as USD text with no digit lost, of either sign."""
    return format(to_usd(nanos), "f")


def percent(part: Nanos, whole: Nanos) -> Decimal | None:
    """Return a part in percent of a whole, to two digits; None of nothing."""
    if not whole:
        return None
    return (Decimal(part) * 100 / Decimal(abs(whole))).quantize(Decimal("0.01"))
