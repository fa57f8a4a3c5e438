"""Tables, or lists where the window is too narrow for a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Literal, TypeAlias

from rich import box
from rich.bar import Bar
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from budgetguard.cli.display import account_label, bar, course, money, outlook, when, zone_name
from budgetguard.cli.words import (
    amount_or_none,
    at_the_limit,
    budget_in_words,
    is_for_each,
    models_in_words,
    raise_in_words,
    rules_of,
    window_in_words,
)
from budgetguard.core.accounts import PROCESS, PROJECT, RUN, USD, USER, Balance, unit_of
from budgetguard.core.forecast import Forecast
from budgetguard.core.holds import HoldRecord
from budgetguard.core.report import Report, ShadowReport, value_label
from budgetguard.core.rules import read_labels
from budgetguard.core.windows import Milliseconds, to_datetime
from budgetguard.core.wording import count, format_amount, printable

Cell: TypeAlias = str | Text

_BAR = 10
_FOLDED = 12
_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its head.
        justify: numbers go right.
        folds: whether long values may take several lines, down to a width that is still readable.
        is_fact: whether a column that folds does not name its row where there is a list.
    """

    name: str
    justify: Literal["left", "right"] = "right"
    folds: bool = False
    is_fact: bool = False


def text_column(name: str) -> Column:
    """Return a column of ids or names, which may be long."""
    return Column(name, "left", folds=True)


def new_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]] = (), *, totals: bool = False
) -> Table:
    """Return a table.

    Args:
        columns: from left to right.
        rows: their cells.
        totals: whether the last row is one of totals.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.name,
            justify=column.justify,
            no_wrap=not column.folds,
            overflow="fold",
        )
    for number, row in enumerate(rows):
        last = totals and number == len(rows) - 1
        if last:
            table.add_section()
        table.add_row(*row, style="bold" if last else None)
    return table


def listing(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], console: Console, *, totals: bool = False
) -> RenderableType:
    """Return a table, or a list of the same values where the window is too narrow for it."""
    if _fits(columns, rows, console):
        return new_table(columns, rows, totals=totals)
    return Group(*(_entry(columns, row) for row in rows))


def _entry(columns: Sequence[Column], row: Sequence[Cell]) -> RenderableType:
    cells = [(column, cell) for column, cell in zip(columns, row, strict=True) if cell]
    names = (cell for column, cell in cells if column.folds and not column.is_fact)
    name = Text(" / ").join(map(Text.assemble, names))
    name.stylize("bold")
    facts = Text(", ").join(
        Text.assemble(f"{column.name.lower()} ", cell)
        for column, cell in cells
        if not column.folds or column.is_fact
    )
    grid = Table.grid(padding=0)
    grid.add_row("  ", facts)
    return Group(name, grid)


def _fits(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], console: Console) -> bool:
    """Return whether a table fits the window, with columns that fold folded."""
    total = -1
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        width = max(map(_width, (column.name, *cells)))
        total += _GAP + (min(width, max(_FOLDED, len(column.name))) if column.folds else width)
    return total <= console.width


def projects_table(rows: Sequence[tuple[str, Balance | None]], zone: tzinfo | None) -> Table:
    """Return a table of projects and their own budgets; empty cells where a project has none."""
    own = [balance for _, balance in rows if balance is not None]
    limits = iter(money([balance.limit_nanos for balance in own]))
    spent = iter(money([balance.spent_nanos for balance in own]))
    held = iter(money([balance.held_nanos for balance in own]))
    cells: list[list[Cell]] = []
    for name, balance in rows:
        if balance is None:
            cells.append([printable(name), "", "", "", ""])
        else:
            resets = when(balance.resets_at, zone)
            cells.append([printable(name), next(limits), next(spent), next(held), resets])
    columns = [text_column("Project"), *map(Column, ("Limit", "Spent", "Held")), Column("Resets", "left")]
    return new_table(columns, cells)


def users_table(
    rows: Sequence[Balance], console: Console, zone: tzinfo | None, forecasts: Sequence[Forecast] = ()
) -> RenderableType:
    """Return a table of users' budgets, with bars and forecasts where there is room for them."""
    columns = [
        text_column("User"),
        *map(Column, ("Limit", "Spent", "Held", "Available")),
        *(Column(name, "left") for name in ("Used", "Resets")),
    ]
    available = [
        Text(text, "red" if (row.available_nanos or 0) < 0 else "")
        for row, text in zip(rows, money([row.available_nanos for row in rows], none=""), strict=True)
    ]

    def cells(width: int) -> list[tuple[Cell, ...]]:
        return list(
            zip(
                [account_label(row.account) for row in rows],
                money([row.limit_nanos for row in rows]),
                money([row.spent_nanos for row in rows]),
                money([row.held_nanos for row in rows]),
                available,
                [bar(row, width, console) for row in rows],
                [when(row.resets_at, zone) for row in rows],
                strict=True,
            )
        )

    ahead, foreseen = _forecast_columns(forecasts, zone)
    for width, more, added in ((_BAR, ahead, foreseen), (0, ahead, foreseen), (_BAR, [], [])):
        named = [*columns, *more]
        filled = [(*row, *new) for row, new in zip(cells(width), added or [()] * len(rows), strict=True)]
        if _fits(named, filled, console):
            return new_table(named, filled)
    return listing(columns, cells(0), console)


def _forecast_columns(
    forecasts: Sequence[Forecast], zone: tzinfo | None
) -> tuple[list[Column], list[tuple[Cell, ...]]]:
    """Return the columns of forecasts, those without any cell left out."""
    columns = [Column("On course for", "left"), Column("Limit reached", "left")]
    rows = [
        (
            Text(course(one), "red" if one.exceeds else ""),
            Text(when(one.limit_reached_at, zone, never=""), "red" if one.exceeds else ""),
        )
        for one in forecasts
    ]
    kept = [at for at in range(len(columns)) if any(row[at].plain for row in rows)]
    return [columns[at] for at in kept], [tuple(row[at] for at in kept) for row in rows] if kept else []


def details(
    balance: Balance,
    project: str,
    console: Console,
    zone: tzinfo | None,
    forecast: Forecast | None = None,
) -> RenderableType:
    """Return one budget in full."""
    kind, _, _ = balance.account.partition(":")
    unit, rules, each = balance.unit, rules_of(balance), is_for_each(balance.account)
    heading = "User" if kind == USER else "Account" if kind in (PROJECT, RUN, PROCESS) else "Budget of"
    label = budget_in_words(balance.account) if heading == "Budget of" else account_label(balance.account)
    under_way = f" for {count(balance.open_holds, 'call')} under way" if balance.open_holds else ""
    rows: list[tuple[str, Cell]] = [
        (heading, label),
        ("Project", printable(project)),
        ("Limit", amount_or_none(balance.limit_nanos, unit, "none")),
    ]
    for at, one in enumerate(balance.grants):
        rows.append(("" if at else "Raises", f"{raise_in_words(one, unit, zone)}, within the limit"))
    if each:
        rows.append(("Made", "for each, with its first call"))
    else:
        rows.append(("Spent", format_amount(balance.spent_nanos, unit)))
        rows.append(("Held", f"{format_amount(balance.held_nanos, unit)}{under_way}"))
    if balance.available_nanos is not None and not each:
        rows.append(("Available", format_amount(balance.available_nanos, unit)))
        rows.append(("Used", bar(balance, 2 * _BAR, console)))
    resets = None if balance.rolling or each else balance.resets_at
    window = f"{window_in_words(balance)} in {balance.timezone}" if balance.duration else "never resets"
    rows.append(("Window", f"rolling {balance.duration}" if balance.rolling else window))
    if balance.rollover_nanos:
        rows.append(("Rolls over", f"{format_amount(balance.rollover_nanos, unit)} at most"))
    if not each:
        rows.append(("Began", f"{when(to_datetime(balance.starts_ms), zone)} {zone_name(zone)}"))
    if resets is not None:
        rows.append(("Resets", f"{when(resets, zone)} {zone_name(zone)}"))
    if forecast is not None and (ahead := outlook(forecast, zone)):
        rows.append(("Forecast", ahead))
    if limit := at_the_limit(rules):
        rows.append(("At the limit", limit))
    rows.extend(models_in_words(rules))
    if kept := read_labels(balance.document.labels):
        rows.append(("Labels", printable(", ".join(f"{name} {value!r}" for name, value in kept.items()))))
    if balance.expiries:
        expired = f"{count(balance.expiries, 'call')} that never reported an end, booked at "
        rows.append(("Expired", expired + format_amount(balance.expired_nanos, unit)))
    models = sorted(balance.models.items(), key=lambda item: (-item[1], item[0]))
    for at, (model, cost) in enumerate(models):
        rows.append(("" if at else "Models", f"{format_amount(cost, unit)} {printable(model)}"))
    table = Table.grid(padding=(0, _GAP))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def holds_table(
    rows: Sequence[HoldRecord], now: Milliseconds, console: Console, zone: tzinfo | None
) -> RenderableType:
    """Return a table of the calls under way."""
    amounts = money([row.amount_nanos for row in rows])
    names = ["(no user)" if row.user is None else printable(row.user) for row in rows]
    models = [printable(row.model) for row in rows]
    ages = [f"{max(0, now - row.created_ms) // 1000:,} s" for row in rows]
    expire = [when(row.expires_at, zone) for row in rows]
    columns = [
        *map(text_column, ("User", "Model")),
        *map(Column, ("Held", "For")),
        Column("Expires", "left"),
    ]
    return listing(columns, list(zip(names, models, amounts, ages, expire, strict=True)), console)


def report_table(report: Report, console: Console) -> RenderableType:
    """Return a report as a table with totals."""
    lines = [*((report.labels(key), totals) for key, totals in report.rows)]
    lines.append((("total", *[""] * (len(report.by) - 1)), report.total))
    spent = money([totals.spent for _, totals in lines])
    held = money([totals.held for _, totals in lines])
    columns = [
        *(text_column(name.capitalize()) for name in report.by),
        *map(Column, ("Calls", "Tokens in", "Tokens out", "Spent")),
    ]
    cells: list[list[Cell]] = [
        [
            *map(printable, labels),
            f"{totals.calls:,}",
            f"{totals.input_tokens:,}",
            f"{totals.output_tokens:,}",
            spent[at],
        ]
        for at, (labels, totals) in enumerate(lines)
    ]
    if report.total.open:
        columns.append(Column("Held"))
        for at, row in enumerate(cells):
            row.append(held[at])
    return listing(columns, cells, console, totals=True)


def shadow_table(report: ShadowReport, console: Console) -> RenderableType:
    """Return a table of what shadow budgets would have refused."""
    dollars = iter(money([totals.amount for name, _, totals in report.rows if unit_of(name) == USD]))
    cells: list[list[Cell]] = []
    for account, key, totals in report.rows:
        unit = unit_of(account)
        amount = next(dollars) if unit == USD else format_amount(totals.amount, unit)
        labels = map(value_label, report.by, key)
        cells.append([budget_in_words(account), *map(printable, labels), f"{totals.calls:,}", amount])
    columns = [
        text_column("Budget of"),
        *(text_column(name.capitalize()) for name in report.by),
        Column("Would refuse"),
        Column("Amount"),
    ]
    return listing(columns, cells, console)


def report_plot(report: Report, console: Console) -> RenderableType:
    """Return a report as bars, one for what each row spent."""
    spent = money([totals.spent for _, totals in report.rows])
    most = max((totals.spent for _, totals in report.rows), default=0)
    table = Table.grid(padding=(0, 1), expand=console.is_terminal)
    table.add_column(no_wrap=False, overflow="fold", max_width=max(_FOLDED, console.width // 3))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1, min_width=_BAR)
    for (key, totals), amount in zip(report.rows, spent, strict=True):
        label = " / ".join(printable(one) for one in report.labels(key)) or "total"
        table.add_row(label, amount, Bar(most or 1, 0, totals.spent, color="green"))
    return table


def _width(cell: Cell) -> int:
    return cell_len(cell) if isinstance(cell, str) else cell.cell_len
