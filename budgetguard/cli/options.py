"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

User = Annotated[str | None, typer.Argument(metavar="USER", show_default=False, help="The user's id.")]
ProjectBudget = Annotated[
    bool,
    typer.Option("--project-budget", help="The whole project's budget, instead of a USER's."),
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        show_default=False,
        help="Where budgets are kept, such as disk:///var/lib/app/budgets. "
        "Else BUDGETGUARD_STORE, else disk://~/.budgetguard.",
    ),
]
Project = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", show_default=False, help="Whose budgets. Else BUDGETGUARD_PROJECT, else default."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON: UTC times, money as exact text.")]
Timezone = Annotated[
    str | None,
    typer.Option(metavar="ZONE", show_default=False, help="Show times in this zone. Else local time."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
