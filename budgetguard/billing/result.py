"""What a comparison found: rows, reasons, totals, and whether they exceed a threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias, get_args

from budgetguard.billing.booked import percent, usd_text
from budgetguard.core.money import Nanos, format_usd, parse_usd, to_nanos
from budgetguard.errors import ConfigurationError

EXPIRED: Final = "expired"
OPEN: Final = "open"
ESTIMATED: Final = "estimated"
UNBOOKED: Final = "unbooked"
UNBILLED: Final = "unbilled"
TOKENS: Final = "tokens"
PRICE: Final = "price"
TIER: Final = "tier"
TOOL: Final = "tools"
NO_MODEL: Final = "no model"
ALIAS: Final = "alias"
MIDNIGHT: Final = "midnight"
ROUNDING: Final = "rounding"

REASONS: Final[Mapping[str, str]] = {
    UNBOOKED: "billed and never booked: other programs or keys, or calls that go around the guard",
    UNBILLED: "booked and not billed: another provider, organisation or key, or not billed yet",
    EXPIRED: "calls that expired, so that nobody knows what they cost",
    ESTIMATED: "calls booked at an estimate: abandoned, lost, or answered without usage",
    OPEN: "calls under way, which are not booked yet",
    TOKENS: "more or fewer tokens billed than booked",
    PRICE: "the tokens agree and their price does not",
    TIER: "a service tier with a price of its own: batch, flex, priority",
    TOOL: "tools billed beside tokens: searches, code",
    NO_MODEL: "credits, storage and others that belong to no model",
    ALIAS: "called by one name and billed by another, with the same tokens",
    MIDNIGHT: "calls that began on one day and ended on another",
    ROUNDING: "each call rounded up to a billionth of a dollar, and amounts that the bill rounds",
}
"""Each reason, and what it means. The order is the one in which they are shown."""

Grouping: TypeAlias = Literal["provider", "day", "model"]
GROUPINGS: Final[tuple[str, ...]] = get_args(Grouping)


@dataclass(frozen=True, slots=True)
class ReconciledRow:
    """What was billed and what was booked, of one day and model or of several.

    Attributes:
        provider: genai-prices' id; None where rows of several are added up.
        day: the UTC day; None likewise.
        model: its name; what is no model's is in brackets; None likewise.
        billed: Nanos.
        booked: Nanos.
        calls: calls that were made and have ended.
        expired: those of `calls` that expired.
        estimated: those of `calls` that are booked at an estimate.
        open: calls under way.
        requests: as the provider counts them; None if it does not.
        reasons: Nanos by reason, see `REASONS`.
        unexplained: Nanos that no reason explains. With the reasons they are the difference.
        units: billed and booked counts by unit, where the bill counts tokens. `input_tokens` are those that
            are neither cached nor sound or pictures; calls of uncertain cost are not in them.
    """

    provider: str | None
    day: str | None
    model: str | None
    billed: Nanos = 0
    booked: Nanos = 0
    calls: int = 0
    expired: int = 0
    estimated: int = 0
    open: int = 0
    requests: int | None = None
    reasons: Mapping[str, Nanos] = field(default_factory=dict)
    unexplained: Nanos = 0
    units: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def difference(self) -> Nanos:
        """Nanos billed beyond what was booked; negative if less was."""
        return self.billed - self.booked

    @property
    def percent(self) -> Decimal | None:
        """The difference in percent of what was billed; None if that is nothing."""
        return percent(self.difference, self.billed)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, money as USD text with no digit lost."""
        return {
            "billed": usd_text(self.billed),
            "booked": usd_text(self.booked),
            "difference": usd_text(self.difference),
            "percent": None if self.percent is None else str(self.percent),
            "reasons": {name: usd_text(self.reasons[name]) for name in REASONS if self.reasons.get(name)},
            "unexplained": usd_text(self.unexplained),
            "calls": self.calls,
            "expired": self.expired,
            "estimated": self.estimated,
            "open": self.open,
            "requests": self.requests,
            "units": {
                unit: {"billed": billed, "booked": booked} for unit, (billed, booked) in self.units.items()
            },
        }


@dataclass(frozen=True, slots=True)
class Threshold:
    """How large a difference may be.

    Attributes:
        usd: Nanos; None where it is a part.
        percent: of what was billed; None where it is an amount.
    """

    usd: Nanos | None = None
    percent: Decimal | None = None

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read `2%` or `5.00` (USD).

        Raises:
            ConfigurationError: neither, or negative.
        """
        if text.strip().endswith("%"):
            part = parse_usd(text.strip().removesuffix("%"), name="the threshold")
            if not part.is_finite() or part < 0:
                raise ConfigurationError(f"the threshold must be 0% or more, not {text!r}")
            return cls(percent=part)
        try:
            return cls(usd=to_nanos(parse_usd(text, name="the threshold"), name="the threshold"))
        except ConfigurationError:
            raise ConfigurationError(
                f"the threshold must be a part such as 2% or USD such as 5.00, not {text!r}"
            ) from None

    def __str__(self) -> str:
        return f"{self.percent:f}%" if self.percent is not None else format_usd(self.usd or 0)

    def is_exceeded_by(self, difference: Nanos, billed: Nanos) -> bool:
        """Whether a difference (Nanos, of either sign) is larger. Any is larger than a part of nothing."""
        if self.percent is None:
            return abs(difference) > (self.usd or 0)
        return abs(difference) * 100 > self.percent * abs(billed)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was billed, compared with what was booked.

    Attributes:
        since: the first UTC day.
        until: the day after the last one.
        by: what rows are of.
        rows: in order of their days, then what differs most first.
        total: all of them together.
        left_out: Nanos booked for providers of which there is no bill, by provider.
        sources: where the bills are from.
        notes: what people should know of it.
    """

    since: date
    until: date
    by: tuple[Grouping, ...]
    rows: tuple[ReconciledRow, ...]
    total: ReconciledRow
    left_out: Mapping[str, Nanos] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def exceeding(
        self, threshold: Threshold | str, *, each: bool = False, unexplained: bool = False
    ) -> tuple[ReconciledRow, ...]:
        """Return what exceeds a threshold: the total, or rows; nothing if all is well.

        Args:
            threshold: such as `2%` or `5.00`, or a `Threshold`.
            each: each row counts by itself, not the total.
            unexplained: only what no reason explains counts, not the whole difference.

        Raises:
            ConfigurationError: a bad threshold.
        """
        most = Threshold.parse(threshold) if isinstance(threshold, str) else threshold
        return tuple(
            row
            for row in (self.rows if each else (self.total,))
            if most.is_exceeded_by(row.unexplained if unexplained else row.difference, row.billed)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: `since`, `until`, `by`, `rows`, `total` and others."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "by": list(self.by),
            "rows": [
                {**{name: getattr(row, name) for name in self.by}, **row.to_dict()} for row in self.rows
            ],
            "total": self.total.to_dict(),
            "left_out": {provider: usd_text(nanos) for provider, nanos in self.left_out.items()},
            "sources": list(self.sources),
            "notes": list(self.notes),
        }


def check_grouping(by: Sequence[str]) -> tuple[Grouping, ...]:
    """Return what rows are to be of.

    Raises:
        ConfigurationError: it is not known, or named twice.
    """
    for one in by:
        if one not in GROUPINGS:
            raise ConfigurationError(f"rows are by {', '.join(GROUPINGS)} or several of them, not by {one!r}")
    if len(set(by)) < len(by):
        raise ConfigurationError(f"rows are by each of {', '.join(GROUPINGS)} once, not {', '.join(by)}")
    return tuple(by)  # type: ignore[arg-type]


def added_up(rows: Iterable[ReconciledRow], by: Sequence[Grouping]) -> tuple[ReconciledRow, ...]:
    """Return rows added up: days in order, and what differs most first."""
    sums: dict[tuple[str | None, ...], ReconciledRow] = {}
    for row in rows:
        key = tuple(getattr(row, name) for name in by)
        have = sums.get(key)
        sums[key] = _only(row, by) if have is None else _plus(have, row)
    order = sorted(sums.values(), key=lambda row: (row.day or "", -abs(row.difference), -row.billed))
    return tuple(order)


def total_of(rows: Iterable[ReconciledRow]) -> ReconciledRow:
    """Return all rows added up."""
    found = added_up(rows, ())
    return found[0] if found else ReconciledRow(None, None, None)


def _only(row: ReconciledRow, by: Sequence[Grouping]) -> ReconciledRow:
    return replace(
        row,
        provider=row.provider if "provider" in by else None,
        day=row.day if "day" in by else None,
        model=row.model if "model" in by else None,
    )


def _plus(one: ReconciledRow, other: ReconciledRow) -> ReconciledRow:
    reasons = dict(one.reasons)
    for name, nanos in other.reasons.items():
        reasons[name] = reasons.get(name, 0) + nanos
    units = dict(one.units)
    for unit, (billed, booked) in other.units.items():
        have = units.get(unit, (0, 0))
        units[unit] = have[0] + billed, have[1] + booked
    # A tool has no requests of its own, and takes nothing from what is known of others.
    counts = [n for n in (one.requests, other.requests) if n is not None]
    return replace(
        one,
        billed=one.billed + other.billed,
        booked=one.booked + other.booked,
        calls=one.calls + other.calls,
        expired=one.expired + other.expired,
        estimated=one.estimated + other.estimated,
        open=one.open + other.open,
        requests=sum(counts) if counts else None,
        reasons=reasons,
        unexplained=one.unexplained + other.unexplained,
        units=units,
    )
