"""Tables that stay readable in the window that they are shown in: lists where it is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Literal, TypeAlias

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from budgetguard.accounts import USER, Balance
from budgetguard.cli.display import NARROW, account_label, bar, joined, money, printable, when, zone_name
from budgetguard.holds import HoldRecord
from budgetguard.money import format_usd
from budgetguard.report import Report, Totals
from budgetguard.windows import Milliseconds, to_datetime

_BAR = 10
_BAR_FROM = 96
"""Columns from which a table of users has room for a bar beside its numbers."""


Column: TypeAlias = tuple[str, Literal["left", "right"]]


def new_table(*columns: Column) -> Table:
    """Return a table with a line under its head, and text where numbers are not."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=justify == "right", overflow="fold")
    return table


def users_table(rows: Sequence[Balance], console: Console, zone: tzinfo | None) -> RenderableType:
    """Show how users stand."""
    limits = money([row.limit_nanos for row in rows])
    spent = money([row.spent_nanos for row in rows])
    held = money([row.held_nanos for row in rows])
    available = money([row.available_nanos for row in rows], none="")
    resets = [when(row.resets_at, zone) for row in rows]
    if console.width < NARROW:
        return Group(
            *(
                _entry(
                    account_label(row.account),
                    bar(row, _BAR, console),
                    f"{spent[at]} spent of {limits[at]}",
                    f"held {held[at]}" if row.held_nanos else "",
                    f"{available[at]} available" if available[at] else "",
                    f"resets {resets[at]}",
                )
                for at, row in enumerate(rows)
            )
        )
    with_bar = console.width >= _BAR_FROM
    table = new_table(
        ("User", "left"),
        ("Limit", "right"),
        ("Spent", "right"),
        ("Held", "right"),
        ("Available", "right"),
        ("Used", "left" if with_bar else "right"),
        ("Resets", "left"),
    )
    for at, row in enumerate(rows):
        over = row.available_nanos is not None and row.available_nanos <= 0
        table.add_row(
            account_label(row.account),
            limits[at],
            spent[at],
            held[at],
            Text(available[at], "red" if over else ""),
            bar(row, _BAR if with_bar else 0, console),
            resets[at],
        )
    return table


def details(balance: Balance, project: str, console: Console, zone: tzinfo | None) -> RenderableType:
    """Show one budget in full."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    kind = "User" if balance.account.startswith(f"{USER}:") else "Account"
    limit = "none" if balance.limit_nanos is None else format_usd(balance.limit_nanos)
    window = "never resets"
    if balance.resets_at is not None:
        window = f"{balance.duration} in {balance.timezone}"
    rows: list[tuple[str, RenderableType]] = [
        (kind, account_label(balance.account)),
        ("Project", printable(project)),
        ("Limit", limit),
        ("Spent", format_usd(balance.spent_nanos)),
        ("Held", f"{format_usd(balance.held_nanos)} for {balance.open_holds} calls under way"),
    ]
    if balance.available_nanos is not None:
        rows.append(("Available", format_usd(balance.available_nanos)))
        rows.append(("Used", bar(balance, 2 * _BAR, console)))
    rows.append(("Window", window))
    rows.append(("Began", f"{when(to_datetime(balance.starts_ms), zone)} {zone_name(zone)}"))
    if balance.resets_at is not None:
        rows.append(("Resets", f"{when(balance.resets_at, zone)} {zone_name(zone)}"))
    if balance.lapses:
        lapsed = f"{balance.lapses} calls that never reported, booked at {format_usd(balance.lapsed_nanos)}"
        rows.append(("Lapsed", lapsed))
    for at, (model, cost) in enumerate(sorted(balance.models.items(), key=lambda item: (-item[1], item[0]))):
        rows.append(("Models" if at == 0 else "", f"{format_usd(cost)} {printable(model)}"))
    for name, value in rows:
        table.add_row(name, value)
    return table


def holds_table(
    rows: Sequence[HoldRecord], now: Milliseconds, console: Console, zone: tzinfo | None
) -> RenderableType:
    """Show calls under way."""
    amounts = money([row.amount for row in rows])
    names = ["(no user)" if row.user is None else printable(row.user) for row in rows]
    ages = [f"{max(0, now - row.created) // 1000:,} s" for row in rows]
    lapses = [when(to_datetime(row.expires), zone) for row in rows]
    if console.width < NARROW:
        return Group(
            *(
                _entry(
                    names[at], amounts[at], printable(row.model), f"for {ages[at]}", f"lapses {lapses[at]}"
                )
                for at, row in enumerate(rows)
            )
        )
    table = new_table(
        ("User", "left"), ("Model", "left"), ("Held", "right"), ("For", "right"), ("Lapses", "left")
    )
    for at, row in enumerate(rows):
        table.add_row(names[at], printable(row.model), amounts[at], ages[at], lapses[at])
    return table


def report_table(report: Report, console: Console) -> RenderableType:
    """Show a report with its totals."""
    lines = [*report.rows, (("total",) + ("",) * (len(report.by) - 1), report.total)]
    spent = money([totals.spent for _, totals in lines])
    held = money([totals.held for _, totals in lines])
    with_held = report.total.open > 0
    if console.width < NARROW:
        return Group(
            *(
                _entry(
                    " / ".join(_label(value) for value in key if value != ""),
                    f"{spent[at]} spent",
                    f"{totals.calls:,} calls",
                    f"{totals.input_tokens:,} tokens in",
                    f"{totals.output_tokens:,} out",
                    f"{held[at]} held" if totals.open else "",
                )
                for at, (key, totals) in enumerate(lines)
            )
        )
    held_column: list[Column] = [("Held", "right")] if with_held else []
    table = new_table(
        *((name.capitalize(), "left") for name in report.by),
        ("Calls", "right"),
        ("Tokens in", "right"),
        ("Tokens out", "right"),
        ("Spent", "right"),
        *held_column,
    )
    for at, (key, totals) in enumerate(lines):
        last = at == len(lines) - 1
        if last:
            table.add_section()
        table.add_row(
            *(_label(value) for value in key),
            *_counts(totals),
            spent[at],
            *([held[at]] if with_held else []),
            style="bold" if last else None,
        )
    return table


def _counts(totals: Totals) -> tuple[str, str, str]:
    return f"{totals.calls:,}", f"{totals.input_tokens:,}", f"{totals.output_tokens:,}"


def _label(value: str | None) -> str:
    return "(no user)" if value is None else printable(value)


def _entry(name: str, *facts: str | Text) -> RenderableType:
    drawn = [fact for fact in facts if isinstance(fact, Text) and fact.plain]
    written = joined(fact for fact in facts if isinstance(fact, str))
    return Group(Text(name, "bold"), *(Text("  ") + one for one in drawn), Text(_indent(written)))


def _indent(text: str) -> str:
    return f"  {text}"
