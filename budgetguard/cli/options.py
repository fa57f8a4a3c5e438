"""How commands and their options are declared, and the options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer


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
