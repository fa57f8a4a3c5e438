"""Reports: records of calls added up by user, model, day, any label; and what shadow budgets would refuse.

Pure: no clock, no store, no money as float.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from fnmatch import fnmatchcase
from itertools import product, starmap
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from budgetguard.core.accounts import CONCURRENT, USD, Unit, unit_of
from budgetguard.core.holds import HoldRecord
from budgetguard.core.labels import check_label, matches
from budgetguard.core.money import Nanos, to_usd
from budgetguard.errors import ConfigurationError

Dimension: TypeAlias = str
"""One of `DIMENSIONS`, or the name of a label such as `team`."""
DIMENSIONS: Final[tuple[Dimension, ...]] = ("user", "model", "day", "month", "endpoint", "tag", "provider")
"""What every call has, or may have, without the program's labels."""
MOST_DIMENSIONS: Final = 8
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})

_SPANS: Final = {"month": 7, "day": 10}
"""Dimensions of time, the longer first, with how much of an ISO date they are."""


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
        rows: one key (a value for each of `by`; None for no user, no tag, no such label and an unknown day)
            and its totals each: months and days in order, and what cost most first. A call of several tags is
            in the row of each.
        total: all of them together, each call once.
    """

    by: tuple[Dimension, ...]
    rows: tuple[tuple[tuple[str | None, ...], Totals], ...]
    total: Totals

    def labels(self, key: tuple[str | None, ...]) -> tuple[str, ...]:
        """Return a row's key for people."""
        return tuple(starmap(value_label, zip(self.by, key, strict=True)))

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
        by: up to 8 of `DIMENSIONS` and names of labels, such as `("team", "month")`; none makes one total.
        zone: whose days and months; None is this machine's. A call belongs to the day on which it was made.

    Raises:
        ConfigurationError: a dimension that is none and cannot be a label's name, one that is named twice, or
            too many.
    """
    _check_dimensions(by)
    sums = _Sums()
    for record in records:
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
    labels: Mapping[str, str | Sequence[str]] = _NO_LABELS,
) -> Iterator[HoldRecord]:
    """Return the records of any of these users, any of these models and any of these tags; empty is all.

    Args:
        users: ids, taken literally.
        models: names, or patterns such as `gpt-4o*`.
        tags: taken literally.
        labels: by name one pattern or several, any of which is to match: `{"team": "red"}`, or
            `{"customer": ["acme*", "initech"]}`. As in a budget's labels `*` stands for any text; a call
            without the label never matches. `user`, `model`, `endpoint` and `tag` count as labels, too.

    Raises:
        ConfigurationError: a name that cannot be a label's.
    """
    wanted = {
        check_label(name): (one,) if isinstance(one, str) else tuple(one) for name, one in labels.items()
    }
    return _matching(records, users, models, tags, wanted)


def _matching(
    records: Iterable[HoldRecord],
    users: Sequence[str],
    models: Sequence[str],
    tags: Sequence[str],
    labels: Mapping[str, Sequence[str]],
) -> Iterator[HoldRecord]:
    for record in records:
        if users and record.user not in users:
            continue
        if models and not any(record.model == one or fnmatchcase(record.model, one) for one in models):
            continue
        if tags and not set(tags).intersection(record.tags):
            continue
        if all(_has(record, name, patterns) for name, patterns in labels.items()):
            yield record


def _has(record: HoldRecord, label: str, patterns: Sequence[str]) -> bool:
    # A program's own label may be called like a span of time, by which nothing is matched.
    values = (record.labels.get(label),) if label in _SPANS else _values(record, label, None)
    return any(matches(one, value) for value in values if value is not None for one in patterns)


@dataclass(slots=True)
class ShadowTotals:
    """What an account's shadow budget would have refused.

    Attributes:
        calls: calls that would have been refused, those under way among them. What was given back without
            work is left out.
        amount: what they have used of the account's unit: Nanos or a count that was booked, and what is set
            aside for those under way.
    """

    calls: int = 0
    amount: int = 0


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """Calls that budgets with `on_limit="shadow"` let through although there was no room for them.

    Attributes:
        by: what the rows are of, beside the account.
        rows: the account, a value for each of `by`, and the totals: in order of the accounts' names, then as
            in a report. A call that several accounts would have refused is in the rows of each.
        calls: all of these calls, each once.
        spent: what they have cost, Nanos, each once; with what is set aside for those under way.
    """

    by: tuple[Dimension, ...]
    rows: tuple[tuple[str, tuple[str | None, ...], ShadowTotals], ...]
    calls: int
    spent: Nanos

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: `by`, `rows` (amounts as text, USD or a count of `unit`), `total`."""
        return {
            "by": ["account", *self.by],
            "rows": [
                {
                    "account": account,
                    **dict(zip(self.by, key, strict=True)),
                    "unit": (unit := unit_of(account)),
                    "calls": totals.calls,
                    "amount": format(to_usd(totals.amount), "f") if unit == USD else str(totals.amount),
                }
                for account, key, totals in self.rows
            ],
            "total": {"calls": self.calls, "spent": format(to_usd(self.spent), "f")},
        }


def summarize_shadows(
    records: Iterable[HoldRecord], by: Sequence[Dimension] = (), *, zone: tzinfo | None = None
) -> ShadowReport:
    """Add up what shadow budgets would have refused, by account; reading records once.

    Args:
        records: such as `guard.calls(since)`; those of other calls are passed over.
        by: see `summarize`; by default by account alone.
        zone: likewise.

    Raises:
        ConfigurationError: see `summarize`.
    """
    _check_dimensions(by)
    sums: dict[tuple[str, tuple[str | None, ...]], ShadowTotals] = {}
    calls = spent = 0
    for record in records:
        if not record.shadowed or record.state == "voided":
            continue
        calls += 1
        spent += _used(record, USD)
        keys = tuple(product(*(_values(record, dimension, zone) for dimension in by)))
        for account, key in product(record.shadowed, keys):
            totals = sums.setdefault((account, key), ShadowTotals())
            totals.calls += 1
            totals.amount += _used(record, unit_of(account))

    def order(row: tuple[tuple[str, tuple[str | None, ...]], ShadowTotals]) -> tuple[Any, ...]:
        (account, key), totals = row
        return account, _times(by, key), -totals.amount, _named_last(key)

    rows = tuple((*key, totals) for key, totals in sorted(sums.items(), key=order))
    return ShadowReport(tuple(by), rows, calls, spent)


def value_label(dimension: Dimension, value: str | None) -> str:
    """Return a value of a row's key for people."""
    if value is not None:
        return value
    return "(imported)" if dimension in _SPANS else f"(no {dimension})"


def _used(record: HoldRecord, unit: Unit) -> int:
    # Of calls under way nothing is ever booked: each is one while it lasts.
    is_held = record.state == "held" or unit == CONCURRENT
    return record.held_of(unit) if is_held else record.cost_of(unit)


def _check_dimensions(by: Sequence[Dimension]) -> None:
    for dimension in by:
        if dimension not in DIMENSIONS:
            try:
                check_label(dimension)
            except ConfigurationError as error:
                known = ", ".join(DIMENSIONS)
                raise ConfigurationError(f"a report is by {known}, or a label: {error.message}") from None
    if len(set(by)) < len(by):
        raise ConfigurationError(f"a report names each of its dimensions once, not {', '.join(by)}")
    if len(by) > MOST_DIMENSIONS:
        raise ConfigurationError(f"a report is by at most {MOST_DIMENSIONS} dimensions, not {len(by)}")


def _values(record: HoldRecord, dimension: Dimension, zone: tzinfo | None) -> Sequence[str | None]:
    if dimension == "user":
        return (record.user,)
    if dimension == "model":
        return (record.model,)
    if dimension == "endpoint":
        return (record.endpoint,)
    if dimension == "tag":
        return record.tags or (None,)
    if (length := _SPANS.get(dimension)) is None:
        return (record.labels.get(dimension),)
    if _is_imported(record):
        return (None,)
    return (record.created_at.astimezone(zone).date().isoformat()[:length],)


def _is_imported(record: HoldRecord) -> bool:
    # Spend that another program recorded without its time is booked at 0.
    return record.created_ms == 0


def _order(by: Sequence[Dimension], key: tuple[str | None, ...], totals: Totals) -> tuple[Any, ...]:
    return _times(by, key), -totals.spent, -totals.held, _named_last(key)


def _times(by: Sequence[Dimension], key: tuple[str | None, ...]) -> tuple[str, ...]:
    return tuple(key[by.index(span)] or "" for span in _SPANS if span in by)


def _named_last(key: tuple[str | None, ...]) -> tuple[tuple[bool, str], ...]:
    return tuple((value is None, value or "") for value in key)
