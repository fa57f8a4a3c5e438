"""Reconcile: bills and the records of a guard's calls, or of several guards', compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from budgetguard.billing.bill import Bill
from budgetguard.billing.booked import BookedRecords
from budgetguard.billing.compare import compare, left_out
from budgetguard.billing.files import one_bill_each, read_bills
from budgetguard.billing.names import ModelNames
from budgetguard.billing.result import Reconciliation, added_up, check_grouping, total_of
from budgetguard.core.holds import HoldRecord
from budgetguard.core.windows import duration_ms, to_datetime
from budgetguard.errors import ConfigurationError

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

# Calls that began so long before the bill's first day may be billed on it: a batch takes a day.
_BEFORE: Final = timedelta(days=1)


def reconcile(
    engine: Engine,
    bills: Iterable[Bill | str | Path],
    *,
    by: Sequence[str] = ("day", "model"),
    since: date | None = None,
    until: date | None = None,
) -> Reconciliation:
    """Compare bills, or files that have some, with what an engine's project booked; see `Guard.reconcile`."""
    grouping = check_grouping(by)
    found = all_bills(bills, names_of(engine))
    return reconcile_bills(engine, found, partial(records_of, engine), by=grouping, since=since, until=until)


def reconcile_bills(
    engine: Engine,
    bills: Sequence[Bill],
    records: Callable[[date, date], Iterable[HoldRecord]],
    *,
    by: Sequence[str] = ("day", "model"),
    since: date | None = None,
    until: date | None = None,
) -> Reconciliation:
    """Compare bills with what was booked.

    Args:
        engine: whose prices and names count.
        bills: of providers that differ.
        records: the records of the calls that a bill of these days may have; see `records_of`.
        by: what rows are of; see `GROUPINGS`.
        since: the first UTC day; by default the bills'.
        until: the day after the last one; by default the bills'.

    Raises:
        ConfigurationError: days that are in no bill, a bad grouping.
        StoreError: the store failed.
    """
    grouping = check_grouping(by)
    names = names_of(engine)
    first, last = _days(bills, since, until)
    found = [bill.within(max(first, bill.since), min(last, bill.until)) for bill in bills]
    found = [bill for bill in found if bill.since < bill.until]
    booked = BookedRecords(names, engine.prices)
    for bill in found:
        booked.draws(names.billed(bill.provider, line.model) for line in bill.lines if line.model is not None)
    booked.add_all(records(first, last))
    rows = compare(found, booked)
    return Reconciliation(
        since=first,
        until=last,
        by=grouping,
        rows=added_up(rows, grouping),
        total=total_of(rows),
        left_out=left_out(found, booked),
        sources=tuple(dict.fromkeys(bill.source for bill in found)),
        notes=tuple(_notes(engine, found, first, last)),
    )


def names_of(engine: Engine) -> ModelNames:
    """Return the names of models by an engine's price list and `model_map`."""
    return ModelNames(engine.prices.list.snapshot(), engine.settings.model_of)


def records_of(engine: Engine, since: date, until: date) -> Iterator[HoldRecord]:
    """Yield the records of the calls that a bill of these days may have."""
    return engine.store.calls(_milliseconds(since - _BEFORE), _milliseconds(until))


def all_bills(bills: Iterable[Bill | str | Path], names: ModelNames) -> list[Bill]:
    """Return bills, files read, one of each provider.

    Raises:
        ConfigurationError: none, something else, or a file that is none.
    """
    found: list[Bill] = []
    for one in bills:
        if isinstance(one, Bill):
            found.append(one)
        elif isinstance(one, str | Path):
            found += read_bills(one, names)
        else:
            raise ConfigurationError(
                f"a bill is what openai_bill() or anthropic_bill() fetched, or a file's path, not {one!r}"
            )
    if not found:
        raise ConfigurationError(
            "which bill? Give what openai_bill() or anthropic_bill() fetched, or the path of a file"
        )
    return one_bill_each(found)


def _days(bills: Sequence[Bill], since: date | None, until: date | None) -> tuple[date, date]:
    for name, day in (("since", since), ("until", until)):
        if day is not None and (not isinstance(day, date) or isinstance(day, datetime)):
            raise ConfigurationError(f"{name} must be a UTC day, a datetime.date, not {day!r}")
    begin, end = min(bill.since for bill in bills), max(bill.until for bill in bills)
    first, last = since or begin, until or end
    if first >= last:
        raise ConfigurationError(f"since {first} is not before until {last}")
    if last <= begin or first >= end:
        raise ConfigurationError(
            f"the bill begins on {begin} and ends with {end - timedelta(days=1)}, so none of the days from "
            f"{first} to {last - timedelta(days=1)} is in it"
        )
    return max(first, begin), min(last, end)


def _notes(engine: Engine, bills: Sequence[Bill], first: date, last: date) -> Iterator[str]:
    for bill in bills:
        yield from bill.notes
    now = to_datetime(engine.now()).astimezone(UTC)
    if last > now.date():
        yield f"{now.date()} is not over: providers bill some hours later, and calls are still being made"
    kept = now - timedelta(milliseconds=duration_ms(engine.settings.retention))
    if first < kept.date():
        yield (
            f"records of calls are kept for {engine.settings.retention} (BUDGETGUARD_RETENTION), so what was "
            f"booked before {kept.date()} may be missing"
        )


def _milliseconds(day: date) -> Any:
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000
