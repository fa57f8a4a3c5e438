"""Records and bills made by hand, for the comparison alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from itertools import count
from typing import Any

from budgetguard.billing.bill import OPENAI, Bill, BillLine
from budgetguard.billing.booked import BookedRecords
from budgetguard.billing.compare import compare
from budgetguard.billing.names import ModelNames
from budgetguard.billing.result import ReconciledRow, total_of
from budgetguard.core.holds import HoldRecord
from budgetguard.core.usage import Usage
from budgetguard.pricing.book import PriceBook

PRICES = PriceBook()
MONDAY = date(2026, 11, 2)
DAY = timedelta(days=1)
MODEL = "gpt-4o-mini"
# USD per million, of gpt-4o-mini: a token in, cached and out, in Nanos.
INPUT, CACHED, OUTPUT = 150, 75, 600
_numbers = count(1)


def record(
    cost: int = 0,
    *,
    day: date = MONDAY,
    ended: date | None = None,
    model: str = MODEL,
    state: Any = "settled",
    outcome: str | None = "answered",
    held: int | None = None,
    endpoint: str = "chat",
    **units: int,
) -> HoldRecord:
    """Return a record of a call at noon, `cost` and `held` in Nanos."""
    made, end = (int(datetime.combine(one, time(12), UTC).timestamp()) * 1_000 for one in (day, ended or day))
    amount = cost if held is None else held
    is_open = state == "held"
    return HoldRecord(
        id=f"{next(_numbers):032x}",
        state=state,
        accounts=("user:u",),
        amount_nanos=amount,
        on_expiry_nanos=amount,
        cost_nanos=0 if is_open else cost,
        created_ms=made,
        expires_ms=made + 900_000,
        ended_ms=None if is_open else end + 1_000,
        user="u",
        model=model,
        endpoint=endpoint,
        outcome=None if is_open else outcome,
        request_id=None,
        usage=Usage.of(**units),
    )


def answered(tokens_in: int, tokens_out: int, *, cached: int = 0, **more: Any) -> HoldRecord:
    """Return a record of an answer of gpt-4o-mini at its listed price."""
    cost = (tokens_in - cached) * INPUT + cached * CACHED + tokens_out * OUTPUT
    units = {"input_tokens": tokens_in, "output_tokens": tokens_out, "cache_read_tokens": cached}
    return record(cost, **units, **more)


def lines(
    tokens_in: int, tokens_out: int, *, cached: int = 0, day: date = MONDAY, **more: Any
) -> list[BillLine]:
    """Return the lines of a bill for gpt-4o-mini at its listed price, those that count nothing left out."""
    found = (
        ("input_tokens", tokens_in - cached, INPUT),
        ("cache_read_tokens", cached, CACHED),
        ("output_tokens", tokens_out, OUTPUT),
    )
    name = "gpt-4o-mini-2024-07-18"
    return [BillLine(day, n * each, name, "", unit, n, **more) for unit, n, each in found if n]


def bill(*made: BillLine, requests: int | None = None, days: int = 1, provider: str = OPENAI) -> Bill:
    """Return a bill of days from Monday on."""
    asked = {} if requests is None else {(MONDAY, "gpt-4o-mini-2024-07-18"): requests}
    return Bill(provider, MONDAY, MONDAY + days * DAY, made, asked, "a bill")


def rows(given: Bill, records: Iterable[HoldRecord]) -> tuple[ReconciledRow, ...]:
    """Compare, and check what always holds."""
    names = ModelNames(PRICES.list.snapshot())
    booked = BookedRecords(names, PRICES)
    booked.draws(names.billed(given.provider, line.model) for line in given.lines if line.model is not None)
    booked.add_all(records)
    found = compare([given], booked)
    for row in found:
        check(row)
    return found


def total(given: Bill, records: Iterable[HoldRecord]) -> ReconciledRow:
    """Compare, and add all rows up."""
    made = total_of(rows(given, records))
    check(made)
    return made


def check(row: ReconciledRow) -> None:
    """Check that reasons and what is unexplained are the difference, to the Nano."""
    assert sum(row.reasons.values()) + row.unexplained == row.difference == row.billed - row.booked
