"""How commands and their options are declared, and the options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from budgetguard.core.accounts import UNITS


def new_typer(**settings: Any) -> typer.Typer:
    """Return a Typer that writes plain text."""
    return typer.Typer(
        add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **settings
    )


def option(metavar: str, text: str, *names: str, **more: Any) -> Any:
    """Return an option with a value, for `Annotated`: its help shows no default.

    Args:
        metavar: what the help calls the value.
        text: what the help says of the option.
        names: such as `--from`; by default the parameter's own.
        more: further arguments of `typer.Option`.
    """
    return typer.Option(*names, metavar=metavar, help=text, show_default=False, **more)


def argument(metavar: str, text: str) -> Any:
    """Return an argument, for `Annotated`: its help shows no default."""
    return typer.Argument(metavar=metavar, help=text, show_default=False)


def flag(text: str, *names: str) -> Any:
    """Return an option without a value, for `Annotated`."""
    return typer.Option(*names, help=text)


User = Annotated[str | None, argument("USER", "The user's id.")]
ProjectBudget = Annotated[bool, flag("The whole project's budget, instead of a USER's.", "--project-budget")]
UserOption = Annotated[str | None, option("USER", "The same as USER.", "--user")]
Labels = Annotated[
    list[str] | None,
    option(
        "LABEL=VALUE",
        "For calls with this label, such as team=red or 'model=gpt-5*' (* is any text); repeatable.",
        *("--label", "-l"),
    ),
]
Each = Annotated[
    list[str] | None,
    option("LABEL", "For each value of a label, such as each customer; repeatable."),
]
UnitOption = Annotated[str, typer.Option("--unit", metavar="|".join(UNITS), help="What it counts.")]
Rolling = Annotated[
    str | None,
    option("SPAN", "What is spent counts for this long, such as 24h, instead of in windows."),
]
Name = Annotated[str | None, option("NAME", "Tells it from other budgets for the same calls.")]
By = Annotated[
    str | None, option("NAME", "Who makes the change, for `audit`. Else BUDGETGUARD_ACTOR, else you.")
]
Reason = Annotated[str | None, option("TEXT", "Why, for `audit`.")]
Since = Annotated[str | None, option("WHEN", "Calls made from: 7d, 2026-11-01 or 2026-11-01T14:30.")]
Until = Annotated[str | None, option("WHEN", "Calls made before: as --since.")]
OnlyUsers = Annotated[list[str] | None, option("USER", "Only this; repeatable.")]
OnlyModels = Annotated[list[str] | None, option("MODEL", "Only this, or 'gpt-4o*'; repeatable.")]
OnlyTags = Annotated[list[str] | None, option("TAG", "Only this; repeatable.")]
OnlyLabels = Annotated[
    list[str] | None,
    option("LABEL=VALUE", "Only this, such as team=red or 'team=r*'; repeatable.", *("--label", "-l")),
]
Csv = Annotated[bool, flag("Write CSV.", "--csv")]
Store = Annotated[
    str | None,
    option(
        "URL",
        "Where budgets are kept, such as disk:///var/lib/app/budgets. "
        "Else BUDGETGUARD_STORE, else disk://~/.budgetguard.",
    ),
]
Project = Annotated[str | None, option("NAME", "Whose budgets. Else BUDGETGUARD_PROJECT, else default.")]
Json = Annotated[bool, flag("Write JSON: UTC times, money as exact text.", "--json")]
Timezone = Annotated[str | None, option("ZONE", "Show times in this zone. Else local time.")]
Forecasts = Annotated[
    bool | None,
    flag("Whether to read the records of calls for a forecast.", "--forecast/--no-forecast"),
]
Yes = Annotated[bool, flag("Do not ask.", "--yes", "-y")]
