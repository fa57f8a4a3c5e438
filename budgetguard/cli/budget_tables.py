"""The table of all budgets, whatever they count."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from rich.console import Console, RenderableType
from rich.text import Text

from budgetguard.cli.display import joined, money, when
from budgetguard.cli.tables import Cell, Column, listing, text_column
from budgetguard.cli.words import (
    amount_or_none,
    budget_in_words,
    is_for_each,
    raise_in_words,
    rules_in_words,
    rules_of,
)
from budgetguard.core.accounts import USD, Balance
from budgetguard.core.money import Nanos


def budgets_table(rows: Sequence[Balance], console: Console, zone: tzinfo | None) -> RenderableType:
    """Return a table of budgets; columns of what no budget has are left out."""
    each = [is_for_each(row.account) for row in rows]

    def amounts(values: Sequence[Nanos | None]) -> list[str]:
        of_usd = [one for row, one in zip(rows, values, strict=True) if row.unit == USD]
        dollars = iter(money(of_usd, none=""))
        return [
            next(dollars) if row.unit == USD else "" if one is None else f"{one:,}"
            for row, one in zip(rows, values, strict=True)
        ]

    def of_accounts(cells: Sequence[Cell]) -> list[Cell]:
        # A budget for each value has no account: nothing is spent on it, and it never resets.
        return ["" if is_each else cell for is_each, cell in zip(each, cells, strict=True)]

    left: list[Cell] = [
        Text(text, "red" if (row.available_nanos or 0) < 0 else "")
        for row, text in zip(rows, amounts([row.available_nanos for row in rows]), strict=True)
    ]
    limits = [
        text if row.unit == USD and text else amount_or_none(row.limit_nanos, row.unit)
        for row, text in zip(rows, amounts([row.limit_nanos for row in rows]), strict=True)
    ]
    columns: list[tuple[Column, Sequence[Cell]]] = [
        (text_column("Budget of"), [budget_in_words(row.account) for row in rows]),
        (Column("Limit"), limits),
        (Column("Window", "left"), ["" if row.rolling else row.duration or "" for row in rows]),
        (Column("Spent"), of_accounts(amounts([row.spent_nanos for row in rows]))),
        (Column("Held"), of_accounts(amounts([row.held_nanos for row in rows]))),
        (Column("Left"), of_accounts(left)),
        (Column("Resets", "left"), of_accounts([_resets(row, zone) for row in rows])),
        (Column("Besides", "left", folds=True, is_fact=True), [_besides(row, zone) for row in rows]),
    ]
    kept = [(column, cells) for column, cells in columns if any(map(str, cells))]
    return listing(
        [column for column, _ in kept], list(zip(*(cells for _, cells in kept), strict=True)), console
    )


def _resets(row: Balance, zone: tzinfo | None) -> str:
    return "bit by bit" if row.rolling else when(row.resets_at, zone)


def _besides(row: Balance, zone: tzinfo | None) -> str:
    raises = (f"raised by {raise_in_words(one, row.unit, zone)}" for one in row.grants)
    return joined((*raises, rules_in_words(rules_of(row))))
