"""`create`, `reset`, `delete`: the commands that change budgets."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import typer

from budgetguard.cli import options
from budgetguard.cli.display import joined, when, zone_name
from budgetguard.cli.session import CommandSession, balance_object, confirm, find, known, session, who, whose
from budgetguard.core.accounts import Balance, check_id
from budgetguard.core.money import format_usd, parse_usd
from budgetguard.core.windows import Align
from budgetguard.core.wording import printable
from budgetguard.errors import ConfigurationError

NEVER = "never"
UNLIMITED = "unlimited"


def create(
    user: Annotated[
        str | None, options.argument("USER", "The user's id; none with --project-budget.")
    ] = None,
    limit: Annotated[
        str | None, options.argument("LIMIT", "USD such as 10 or 0.50, or `unlimited` to count only.")
    ] = None,
    duration: Annotated[
        str | None,
        options.option(
            "SPAN", "hourly, daily, weekly, monthly, yearly, or such as 30s, 12h, 7d, 1mo; or never."
        ),
    ] = None,
    timezone: Annotated[
        str | None, options.option("ZONE", "Whose days and months count, such as Europe/Berlin.")
    ] = None,
    align: Annotated[
        str,
        typer.Option(
            metavar="created|calendar",
            help="Windows start when the budget is made, or with the hour, day, Monday, month or year.",
        ),
    ] = "created",
    project_budget: options.ProjectBudget = False,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Make a budget, or change one and keep what is spent.

    In a budget that exists, what is not given stays as it is.

    \b
    Examples:
      budgetguard create alice 10
      budgetguard create alice 10 --duration monthly \\
          --timezone Europe/Berlin --align calendar
      budgetguard create --project-budget 500 --duration monthly
    """
    given = [one for one in (user, limit) if one is not None]
    account, amount = _user_and_limit(given, project_budget)
    usd = None if amount == UNLIMITED else parse_usd(amount, name="LIMIT")
    with session(store, project, json=json, may_make=True) as here:
        before = find(here.guard, account)
        after = here.guard.set_budget(
            usd,
            user=account,
            duration=_duration(duration, before),
            timezone=timezone or (before.timezone if before else None),
            align=cast(Align, align),
        )
        action = "created" if before is None else "changed"
        here.answer(
            {"action": action, **balance_object(here.guard, after)}, _told(action, here, before, after)
        )


def reset(
    user: options.User = None,
    project_budget: options.ProjectBudget = False,
    yes: options.Yes = False,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Set what a user has spent in this window to nothing.

    Calls under way stay held. Asks first, unless --yes.

    \b
    Example:
      budgetguard reset alice --yes
    """
    _ask_and_do("reset", whose(user, project_budget, "reset"), yes, store, project, json)


def delete(
    user: options.User = None,
    project_budget: options.ProjectBudget = False,
    yes: options.Yes = False,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Forget a user's budget.

    The records of calls stay, for reports. Asks first, unless --yes.

    \b
    Example:
      budgetguard delete alice --yes
    """
    _ask_and_do("deleted", whose(user, project_budget, "delete"), yes, store, project, json)


def _ask_and_do(
    action: Literal["reset", "deleted"],
    user: str | None,
    yes: bool,
    store: str | None,
    project: str | None,
    json: bool,
) -> None:
    with session(store, project, json=json) as here:
        before = known(here, user)
        name, spent = who(before), format_usd(before.spent_nanos)
        if not yes:
            what = f"Set the {spent} that {name} has spent back to nothing"
            confirm(f"{what}?" if action == "reset" else f"Delete the budget of {name} ({spent} spent)?")
        if action == "reset":
            after = here.guard.reset(user)
        else:
            here.guard.delete(user)
            after = before
        spent_before = before.to_dict()["spent"]
        here.answer(
            {"action": action, "spent_before": spent_before, **balance_object(here.guard, after)},
            f"{action.capitalize()} the budget of {name}, which had {spent} spent.",
        )


def _user_and_limit(given: list[str], project_budget: bool) -> tuple[str | None, str]:
    if len(given) != (1 if project_budget else 2):
        raise ConfigurationError(
            "whose budget, and how much? Write `budgetguard create USER LIMIT`, such as "
            "`budgetguard create alice 10`, or `budgetguard create --project-budget LIMIT`"
        )
    return None if project_budget else check_id(given[0], name="USER"), given[-1]


def _duration(given: str | None, before: Balance | None) -> str | None:
    if given is None:
        return before.duration if before else None
    return None if given == NEVER else given


def _told(action: str, here: CommandSession, before: Balance | None, after: Balance) -> str:
    limit = _limit(after)
    if before is not None and before.limit_nanos != after.limit_nanos:
        limit += f" (was {_limit(before)})"
    resets = "never resets"
    if after.resets_at is not None:
        next_one = f"{when(after.resets_at, here.timezone)} {zone_name(here.timezone)}"
        resets = f"{after.duration}, resets {next_one}"
    spent = "" if before is None else f"{format_usd(after.spent_nanos)} spent so far"
    facts = joined((limit, resets, spent))
    return f"{action.capitalize()} the budget of {who(after)} in {printable(here.place)}: {facts}."


def _limit(balance: Balance) -> str:
    return "no limit" if balance.limit_nanos is None else format_usd(balance.limit_nanos)
