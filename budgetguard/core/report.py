"""Reports: records of calls added up by user, model, day, endpoint and tag.

Pure: no clock, no store, no money as float.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from fnmatch import fnmatchcase
from itertools import product
from typing import Any, Final, Literal, TypeAlias, get_args

from budgetguard.core.holds import HoldRecord
from budgetguard.core.money import Nanos, to_usd
from budgetguard.errors import ConfigurationError

Dimension: TypeAlias = Literal["user", "model", "day", "endpoint", "tag"]
DIMENSIONS: Final[tuple[str, ...]] = get_args(Dimension)

TOLD: Final = "forecast.told"
"""The endpoint of records that are no calls: marks that a window's forecast has been told."""


@dataclass(slots=True)
class Totals:
    """Sums over some calls.

    Attributes:
        calls: calls that were made and have ended, expired ones among them. What was imported from
            elsewhere is spent, but no call.
        open: calls under way.
        voided: holds given back, whose calls did no work.
        expiries: those of `calls` that expired: their outcome is unknown.
        input_tokens: tokens in, as the provider reported them.
        output_tokens: tokens out, likewise.
        spent: Nanos booked.
        held: Nanos set aside for the calls under way.
    """

    calls: int = 0
    open: int = 0
    voided: int = 0
    expiries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    spent: Nanos = 0
    held: Nanos = 0

    def add(self, record: HoldRecord) -> None:
        """Count one record."""
        if record.state == "held":
            self.open += 1
            self.held += record.amount_nanos
            return
        if record.state == "voided":
            self.voided += 1
            return
        self.calls += not _is_imported(record)
        self.expiries += record.state == "expired"
        self.spent += record.cost_nanos
        self.input_tokens += record.usage.input_tokens
        self.output_tokens += record.usage.output_tokens

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, money as USD text with no digit lost."""
        return {
            "calls": self.calls,
            "open": self.open,
            "voided": self.voided,
            "expiries": self.expiries,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "spent": format(to_usd(self.spent), "f"),
            "held": format(to_usd(self.held), "f"),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """Calls added up.

    Attributes:
        by: what the rows are of.
        rows: one key (a value for each of `by`; None for no user, no tag and an unknown day) and its totals
            each: days in order, and what cost most first. A call of several tags is in the row of each.
        total: all of them together, each call once.
    """

    by: tuple[Dimension, ...]
    rows: tuple[tuple[tuple[str | None, ...], Totals], ...]
    total: Totals

    def labels(self, key: tuple[str | None, ...]) -> tuple[str, ...]:
        """Return a row's key for people."""
        missing = {"day": "(imported)", "user": "(no user)", "tag": "(no tag)"}
        pairs = zip(self.by, key, strict=True)
        return tuple(missing.get(name, "") if value is None else value for name, value in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: `by`, `rows` (each with its key's values by name), `total`."""
        return {
            "by": list(self.by),
            "rows": [
                {**dict(zip(self.by, key, strict=True)), **totals.to_dict()} for key, totals in self.rows
            ],
            "total": self.total.to_dict(),
        }


@dataclass(slots=True)
class _Sums:
    rows: dict[tuple[str | None, ...], Totals] = field(default_factory=dict)
    total: Totals = field(default_factory=Totals)


def summarize(
    records: Iterable[HoldRecord], by: Sequence[Dimension] = ("user",), *, zone: tzinfo | None = None
) -> Report:
    """Add up records, reading them once and keeping only the sums.

    Args:
        records: such as `guard.calls(since)`.
        by: one or several of `DIMENSIONS`; none makes one total.
        zone: whose days; None is this machine's. A call belongs to the day on which it was made.

    Raises:
        ConfigurationError: an unknown dimension, or one that is named twice.
    """
    for dimension in by:
        if dimension not in DIMENSIONS:
            raise ConfigurationError(f"a report is by {', '.join(DIMENSIONS)}, not by {dimension!r}")
    if len(set(by)) < len(by):
        raise ConfigurationError(f"a report names each of its dimensions once, not {', '.join(by)}")
    sums = _Sums()
    for record in records:
        if record.endpoint == TOLD:
            continue
        for key in product(*(_values(record, dimension, zone) for dimension in by)):
            totals = sums.rows.get(key)
            if totals is None:
                totals = sums.rows[key] = Totals()
            totals.add(record)
        sums.total.add(record)
    return Report(tuple(by), tuple(sorted(sums.rows.items(), key=lambda row: _order(by, *row))), sums.total)


def matching(
    records: Iterable[HoldRecord],
    *,
    users: Sequence[str] = (),
    models: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> Iterator[HoldRecord]:
    """Yield the records of any of these users, any of these models and any of these tags; empty is all.

    Args:
        users: ids, taken literally.
        models: names, or patterns such as `gpt-4o*`.
        tags: taken literally.
    """
    for record in records:
        if users and record.user not in users:
            continue
        if models and not any(record.model == one or fnmatchcase(record.model, one) for one in models):
            continue
        if tags and not set(tags).intersection(record.tags):
            continue
        yield record


def _values(record: HoldRecord, dimension: Dimension, zone: tzinfo | None) -> Sequence[str | None]:
    if dimension == "user":
        return (record.user,)
    if dimension == "model":
        return (record.model,)
    if dimension == "endpoint":
        return (record.endpoint,)
    if dimension == "tag":
        return record.tags or (None,)
    if _is_imported(record):
        return (None,)
    return (record.created_at.astimezone(zone).date().isoformat(),)


def _is_imported(record: HoldRecord) -> bool:
    # Spend that another program recorded without its time is booked at 0.
    return record.created_ms == 0


def _order(by: Sequence[Dimension], key: tuple[str | None, ...], totals: Totals) -> tuple[Any, ...]:
    day = (key[by.index("day")] or "") if "day" in by else ""
    return day, -totals.spent, -totals.held, tuple((value is None, value or "") for value in key)
