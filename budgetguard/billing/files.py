"""Bills that were saved: pages of both APIs as JSON, the CSV exports of both consoles, and a CSV of our own.

The columns of OpenAI's export (start_time, amount_value, amount_currency, quantity, line_item, ...) and of
Anthropic's (usage_date_utc, model, token_type, cost_usd, list_price_usd, ...) are those of exports that
programs on GitHub read, of 2025 and 2026: neither is documented.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from io import StringIO
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final

from budgetguard.billing import anthropic, openai
from budgetguard.billing.bill import (
    ANTHROPIC,
    CODE,
    OPENAI,
    WEB_SEARCH,
    Bill,
    BillLine,
    bill_of,
    line_nanos,
    tool_named,
    utc_day,
)
from budgetguard.billing.names import ModelNames
from budgetguard.errors import ConfigurationError

_MOST_BYTES: Final = 256 * 1_024 * 1_024
# Anthropic's console exports cents.
_CENT: Final = Decimal("0.01")
_TOKEN_TYPES: Final[Mapping[str, str]] = {
    "input_no_cache": "input_tokens",
    "input_cache_read": "cache_read_tokens",
    "input_cache_write_5m": "cache_write_5m_tokens",
    "input_cache_write_1h": "cache_write_1h_tokens",
    "output": "output_tokens",
}
_HOW: Final = (
    "Save pages of /v1/organization/costs (grouped by line_item) or /v1/organizations/cost_report (grouped "
    "by description) as they come, export costs as CSV in the console, or write a CSV with the columns "
    "date,model,usd"
)


@dataclass(slots=True)
class _Found:
    """What a file has of one provider's bill."""

    lines: list[BillLine] = field(default_factory=list)
    costs: list[anthropic.CostItem] = field(default_factory=list)
    used: anthropic.UsedTokens = field(default_factory=anthropic.UsedTokens)
    requests: dict[tuple[date, str], int] = field(default_factory=dict)


def read_bills(path: str | Path, names: ModelNames) -> list[Bill]:
    """Read a file that has a bill, or several providers' bills.

    Args:
        path: the file.
        names: whose a model is, where the file does not say.

    Raises:
        ConfigurationError: there is no such file, it is no bill, or only a part of one.
        BillError: an amount that is none.
    """
    where = Path(path).expanduser()
    try:
        with where.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where} is no text in UTF-8, so it is no bill. {_HOW}") from None
    except OSError as error:
        raise ConfigurationError(f"{where} cannot be read: {error.strerror or error}") from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"{where} is larger than {_MOST_BYTES // 1_048_576} MiB: split it by months")
    found: dict[str, _Found] = {}
    if text.lstrip()[:1] in ("{", "["):
        _read_json(text, where, found)
    else:
        _read_csv(text, where, found, names)
    return [_bill(provider, one, where) for provider, one in sorted(found.items())]


def _bill(provider: str, found: _Found, where: Path) -> Bill:
    lines = [*found.lines, *anthropic.with_tokens(found.costs, found.used)]
    if not lines:
        raise ConfigurationError(f"{where} counts usage of {provider} and has no costs. {_HOW}")
    notes = (anthropic.PRIORITY_NOTE,) if found.used.priority else ()
    return bill_of(provider, lines, source=str(where), requests=found.requests, notes=notes)


# Pages of the APIs


def _read_json(text: str, where: Path, found: dict[str, _Found]) -> None:
    more: dict[str, bool] = {}
    for page in _pages(text, where):
        kind = _add_page(page, where, found)
        if kind is not None:
            more[kind] = bool(page.get("has_more"))
    for kind, has_more in more.items():
        if has_more:
            raise ConfigurationError(
                f"{where} has only the first pages of {kind} (has_more is true on the last of them): fetch "
                "the others with page=<next_page>, and append them to the file"
            )
    if not found:
        raise ConfigurationError(f"{where} has no page with a result. {_HOW}")


def _pages(text: str, where: Path) -> Iterator[dict[str, Any]]:
    """Yield the pages of a file: one, a list of them, or one after another."""
    decoder = json.JSONDecoder(parse_float=Decimal)
    at, end = 0, len(text)
    while at < end:
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"{where} is no JSON: {error}") from None
        while at < end and text[at].isspace():
            at += 1
        for page in value if isinstance(value, list) else [value]:
            if not isinstance(page, dict) or not isinstance(page.get("data"), list):
                raise ConfigurationError(f"{where} has JSON that is no page of a report. {_HOW}")
            yield page


def _add_page(page: dict[str, Any], where: Path, found: dict[str, _Found]) -> str | None:
    """Add a page to what was found, and return which report it is of; None if it is empty."""
    buckets = page["data"]
    first = next((one for bucket in buckets for one in _results(bucket)), None)
    if any(isinstance(bucket, Mapping) and "start_time" in bucket for bucket in buckets):
        one = found.setdefault(OPENAI, _Found()) if first is not None else _Found()
        kind = "" if first is None else str(first.get("object", ""))
        if kind.startswith(openai.USAGE):
            openai.add_requests(one.requests, page)
            return kind
        lines = list(openai.cost_lines(page))
        one.lines += lines
        return openai.COSTS
    if any(isinstance(bucket, Mapping) and "starting_at" in bucket for bucket in buckets):
        one = found.setdefault(ANTHROPIC, _Found()) if first is not None else _Found()
        if first is not None and "amount" not in first:
            anthropic.add_tokens(one.used, page)
            return "Anthropic's usage report"
        one.costs += anthropic.cost_lines(page)
        return "Anthropic's cost report"
    if buckets:
        raise ConfigurationError(f"{where} has a page whose buckets are no days of a report. {_HOW}")
    return None


def _results(bucket: object) -> Sequence[Mapping[str, Any]]:
    results = bucket.get("results") if isinstance(bucket, Mapping) else None
    return [one for one in results if isinstance(one, Mapping)] if isinstance(results, list) else []


# CSV


def _read_csv(text: str, where: Path, found: dict[str, _Found], names: ModelNames) -> None:
    head = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    rows = csv.reader(StringIO(text), delimiter=delimiter, strict=True)
    try:
        columns = [name.strip().lower() for name in next(rows, [])]
        reader = _reader_of(columns, names)
        if reader is None:
            shown = ", ".join(columns)[:200] or "none"
            raise ConfigurationError(f"{where} has columns that no bill has: {shown}. {_HOW}")
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(columns):
                raise ConfigurationError(
                    f"{where}, line {rows.line_num}: {len(row)} cells under {len(columns)} columns"
                )
            cells = dict(zip(columns, map(str.strip, row), strict=True))
            for provider, line in reader(cells, f"{where}, line {rows.line_num}"):
                found.setdefault(provider, _Found()).lines.append(line)
    except csv.Error as error:
        raise ConfigurationError(f"{where}, line {rows.line_num}: {error}") from None
    if not found:
        raise ConfigurationError(f"{where} has no line with an amount. {_HOW}")


def _reader_of(
    columns: Sequence[str], names: ModelNames
) -> Callable[[dict[str, str], str], Iterator[tuple[str, BillLine]]] | None:
    have = set(columns)
    if have >= {"amount_value", "amount_currency"} and have & {"start_time", "start_time_iso"}:
        return _openai_row
    if have >= {"usage_date_utc", "cost_usd"}:
        return _anthropic_row
    if have >= {"date", "usd"}:
        return lambda cells, where: _own_row(cells, where, names)
    return None


def _openai_row(cells: dict[str, str], where: str) -> Iterator[tuple[str, BillLine]]:
    if not cells["amount_value"]:
        return  # a day without costs
    seconds = cells.get("start_time", "")
    try:
        day = utc_day(int(seconds)) if seconds else datetime.fromisoformat(cells["start_time_iso"]).date()
    except ValueError:
        raise ConfigurationError(f"{where}: {seconds or cells['start_time_iso']!r} is no day") from None
    yield (
        OPENAI,
        openai.cost_line(
            day,
            _number(cells["amount_value"], where),
            cells["amount_currency"].lower() or "usd",
            cells.get("line_item"),
            cells.get("quantity") or None,
            cells.get("quantity_unit"),
        ),
    )


def _anthropic_row(cells: dict[str, str], where: str) -> Iterator[tuple[str, BillLine]]:
    usd = _number(cells["cost_usd"] or "0", where)
    model, kind = cells.get("model", ""), cells.get("token_type", "")
    described = f"{cells.get('cost_type', '')} {cells.get('usage_type', '')} {kind} {model}"
    tool = tool_named(described)
    tier = "batch" if "batch" in cells.get("usage_type", "").lower() else None
    digits = usd.as_tuple().exponent
    slack = line_nanos(_CENT / 2, where=where) if isinstance(digits, int) and digits >= -2 else 0
    nanos = line_nanos(usd, where=where)
    day = _day(cells["usage_date_utc"], where)
    if tool is not None or not model or cells.get("cost_type", "token") not in ("", "token", "tokens"):
        item = tool or cells.get("cost_type") or model
        yield ANTHROPIC, BillLine(day, nanos, item=item, slack=slack)
    else:
        unit = _TOKEN_TYPES.get(kind)
        yield ANTHROPIC, BillLine(day, nanos, model=model, unit=unit, tier=tier, slack=slack)


def _own_row(cells: dict[str, str], where: str, names: ModelNames) -> Iterator[tuple[str, BillLine]]:
    model, item = cells.get("model", ""), cells.get("item", "")
    provider = cells.get("provider", "").lower()
    if not provider:
        if not model:
            raise ConfigurationError(
                f"{where}: whose amount is it? Give it a model, or a column `provider` such as openai"
            )
        provider = names.called(model)[0]
    nanos = line_nanos(_number(cells["usd"], where), where=where)
    item = tool_named(item) or item
    if item in (WEB_SEARCH, CODE):
        model = ""
    yield provider, BillLine(_day(cells["date"], where), nanos, model=model or None, item=item)


def _day(text: str, where: str) -> date:
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        raise ConfigurationError(f"{where}: {text!r} is no day such as 2026-11-01") from None


def _number(text: str, where: str) -> Decimal:
    try:
        value = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ConfigurationError(f"{where}: {text!r} is no number of USD such as 12.34")
    return value


def one_bill_each(bills: Sequence[Bill]) -> list[Bill]:
    """Return bills of providers that differ: those of one provider's days that follow each other joined.

    Raises:
        ConfigurationError: two have the same day of the same provider, which would count twice.
    """
    made: list[Bill] = []
    by_provider = sorted(bills, key=lambda bill: (bill.provider, bill.since))
    for provider, group in groupby(by_provider, key=lambda bill: bill.provider):
        parts = list(group)
        for before, after in pairwise(parts):
            if after.since < before.until:
                raise ConfigurationError(
                    f"{before.source} and {after.source} both have {provider}'s bill of {after.since}: give "
                    "each day once"
                )
        made.append(
            Bill(
                provider,
                parts[0].since,
                parts[-1].until,
                tuple(line for part in parts for line in part.lines),
                {key: n for part in parts for key, n in part.requests.items()},
                ", ".join(dict.fromkeys(part.source for part in parts)),
                tuple(dict.fromkeys(note for part in parts for note in part.notes)),
            )
        )
    return made
