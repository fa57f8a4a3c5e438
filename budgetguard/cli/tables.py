"""Tables where the window has room for them, and lists where it has not."""

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

from budgetguard.cli.display import account_label, bar, count, joined, money, printable, when, zone_name
from budgetguard.core.accounts import USER, Balance
from budgetguard.core.holds import HoldRecord
from budgetguard.core.money import format_usd
from budgetguard.core.report import Report
from budgetguard.core.windows import Milliseconds, to_datetime

Cell: TypeAlias = str | Text

_BAR = 10
_FOLDED = 12
_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """Describe a column.

    Attributes:
        name: its head.
        justify: numbers go right.
        folds: whether long values may go over several lines, down to a width that is still readable.
    """

    name: str
    justify: Literal["left", "right"] = "right"
    folds: bool = False


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


def fits(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], console: Console) -> bool:
    """Tell whether a table has room in the window, with what folds folded."""
    total = -1
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        width = max(map(_width, (column.name, *cells)))
        total += _GAP + (min(width, max(_FOLDED, len(column.name))) if column.folds else width)
    return total <= console.width


def projects_table(rows: Sequence[tuple[str, Balance | None]], zone: tzinfo | None) -> Table:
    """Show projects and how their own budgets stand, nothing where one has none."""
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


def users_table(rows: Sequence[Balance], console: Console, zone: tzinfo | None) -> RenderableType:
    """Show how users stand."""
    names = [account_label(row.account) for row in rows]
    limits = money([row.limit_nanos for row in rows])
    spent = money([row.spent_nanos for row in rows])
    held = money([row.held_nanos for row in rows])
    available = money([row.available_nanos for row in rows], none="")
    resets = [when(row.resets_at, zone) for row in rows]
    for width in (_BAR, 0):
        columns = [
            text_column("User"),
            *map(Column, ("Limit", "Spent", "Held", "Available")),
            Column("Used", "left" if width else "right"),
            Column("Resets", "left"),
        ]
        cells: list[list[Cell]] = [
            [
                names[at],
                limits[at],
                spent[at],
                held[at],
                Text(available[at], "red" if (row.available_nanos or 0) < 0 else ""),
                bar(row, width, console),
                resets[at],
            ]
            for at, row in enumerate(rows)
        ]
        if fits(columns, cells, console):
            return new_table(columns, cells)
    return Group(
        *(
            _entry(
                names[at],
                bar(row, _BAR, console),
                f"{spent[at]} spent" + (f" of {limits[at]}" if row.limit_nanos is not None else ", no limit"),
                f"{held[at]} held" if row.held_nanos else "",
                f"{available[at]} available" if available[at] else "",
                f"resets {resets[at]}" if row.resets_at else "never resets",
            )
            for at, row in enumerate(rows)
        )
    )


def details(balance: Balance, project: str, console: Console, zone: tzinfo | None) -> RenderableType:
    """Show one budget in full."""
    kind = "User" if balance.account.startswith(f"{USER}:") else "Account"
    limit = "none" if balance.limit_nanos is None else format_usd(balance.limit_nanos)
    under_way = f" for {count(balance.open_holds, 'call')} under way" if balance.open_holds else ""
    rows: list[tuple[str, Cell]] = [
        (kind, account_label(balance.account)),
        ("Project", printable(project)),
        ("Limit", limit),
        ("Spent", format_usd(balance.spent_nanos)),
        ("Held", f"{format_usd(balance.held_nanos)}{under_way}"),
    ]
    if balance.available_nanos is not None:
        rows.append(("Available", format_usd(balance.available_nanos)))
        rows.append(("Used", bar(balance, 2 * _BAR, console)))
    resets = balance.resets_at
    rows.append(("Window", "never resets" if resets is None else f"{balance.duration} in {balance.timezone}"))
    rows.append(("Began", f"{when(to_datetime(balance.starts_ms), zone)} {zone_name(zone)}"))
    if resets is not None:
        rows.append(("Resets", f"{when(resets, zone)} {zone_name(zone)}"))
    if balance.expiries:
        expired = f"{count(balance.expiries, 'call')} that never reported, booked at "
        rows.append(("Expired", expired + format_usd(balance.expired_nanos)))
    models = sorted(balance.models.items(), key=lambda item: (-item[1], item[0]))
    for at, (model, cost) in enumerate(models):
        rows.append(("" if at else "Models", f"{format_usd(cost)} {printable(model)}"))
    table = Table.grid(padding=(0, _GAP))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def holds_table(
    rows: Sequence[HoldRecord], now: Milliseconds, console: Console, zone: tzinfo | None
) -> RenderableType:
    """Show calls under way."""
    amounts = money([row.amount_nanos for row in rows])
    names = ["(no user)" if row.user is None else printable(row.user) for row in rows]
    models = [printable(row.model) for row in rows]
    ages = [f"{max(0, now - row.created_ms) // 1000:,} s" for row in rows]
    expire = [when(row.expires_at, zone) for row in rows]
    columns = [
        text_column("User"),
        text_column("Model"),
        Column("Held"),
        Column("For"),
        Column("Expires", "left"),
    ]
    cells = list(zip(names, models, amounts, ages, expire, strict=True))
    if fits(columns, cells, console):
        return new_table(columns, cells)
    return Group(
        *(
            _entry(name, f"{amount} held", model, f"for {age}", f"expires {at}")
            for name, model, amount, age, at in cells
        )
    )


def report_table(report: Report, console: Console) -> RenderableType:
    """Show a report with its totals."""
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
    if fits(columns, cells, console):
        return new_table(columns, cells, totals=True)
    return Group(
        *(
            _entry(
                " / ".join(printable(label) for label in labels if label),
                f"{spent[at]} spent",
                f"{held[at]} held" if totals.open else "",
                count(totals.calls, "call"),
                f"{totals.input_tokens:,} tokens in",
                f"{totals.output_tokens:,} out",
            )
            for at, (labels, totals) in enumerate(lines)
        )
    )


def report_plot(report: Report, console: Console) -> RenderableType:
    """Show what each row of a report spent as a bar, the longest for the most."""
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


def _entry(name: str, *facts: Cell) -> RenderableType:
    drawn = [Text("  ") + fact for fact in facts if isinstance(fact, Text) and fact.plain]
    written = joined(fact for fact in facts if isinstance(fact, str))
    grid = Table.grid(padding=0)
    grid.add_row("  ", written)
    return Group(Text(name, "bold"), *drawn, grid)
