"""`create`, `reset`, `delete`: the commands that change budgets."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from budgetguard.cli import options
from budgetguard.cli.display import joined, when, zone_name
from budgetguard.cli.session import CommandSession, balance_object, confirm, session, who
from budgetguard.cli.terms import terms
from budgetguard.cli.which import Which, one_user, which
from budgetguard.cli.words import (
    amount_or_none,
    budget_in_words,
    is_for_each,
    own_limit,
    parse_amount,
    rules_in_words,
    rules_of,
)
from budgetguard.core.accounts import CONCURRENT, USD, Balance, unit_of
from budgetguard.core.rules import ON_LIMIT
from budgetguard.core.wording import format_amount, printable
from budgetguard.engine.budgets import Budgets
from budgetguard.errors import ConfigurationError

UNLIMITED = "unlimited"


def create(
    user: Annotated[
        str | None, options.argument("USER", "The user's id; none with --label, --each or --project-budget.")
    ] = None,
    limit: Annotated[
        str | None,
        options.argument("LIMIT", "USD such as 10 or 0.50, or a number of --unit; `unlimited` only counts."),
    ] = None,
    user_option: options.UserOption = None,
    label: options.Labels = None,
    each: options.Each = None,
    project_budget: options.ProjectBudget = False,
    unit: options.UnitOption = USD,
    duration: Annotated[
        str | None,
        options.option(
            "SPAN", "hourly, daily, weekly, monthly, yearly, or such as 30s, 12h, 7d, 1mo; or never."
        ),
    ] = None,
    rolling: options.Rolling = None,
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
    rollover: Annotated[
        str | None,
        options.option("AMOUNT", "What a window leaves unused is added to the next, at most this; or none."),
    ] = None,
    name: options.Name = None,
    on_limit: Annotated[
        str | None,
        options.option(
            "|".join(ON_LIMIT), "What becomes of calls without room: shadow lets them through, and tells."
        ),
    ] = None,
    wait: Annotated[
        str | None, options.option("SPAN", "With `--on-limit wait`: for how long at most, such as 30s.")
    ] = None,
    fallback: Annotated[
        list[str] | None,
        options.option(
            "MODEL=OTHER", "A model to take where there is no room for another; repeatable; or none."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        options.option("MODEL", "Only these models, such as 'gpt-5*'; repeatable; or none."),
    ] = None,
    forbid: Annotated[
        list[str] | None, options.option("MODEL", "Not these models, likewise; repeatable; or none.")
    ] = None,
    max_call_cost: Annotated[
        str | None, options.option("USD", "What one call may cost at most; or none.")
    ] = None,
    by: options.By = None,
    reason: options.Reason = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Make a budget, or change one and keep what is spent.

    For a user, for calls with some labels, for both together, or for the whole project. In a budget that
    exists, what is not given stays as it is; raises that `grant` gave stay, too.

    \b
    Examples:
      budgetguard create alice 10
      budgetguard create alice 10 --duration monthly \\
          --timezone Europe/Berlin --align calendar
      budgetguard create --project-budget 500 --duration monthly
      budgetguard create --label team=red 100 --duration monthly \\
          --fallback gpt-5=gpt-5-mini
      budgetguard create --each customer 60 --unit requests --duration 1m
    """
    whom, amount = user_and_amount(
        "create", "LIMIT", (user, limit), user_option, bool(label or each or project_budget), project_budget
    )
    target = which(
        "create",
        whom,
        project_budget=project_budget,
        labels=label,
        each=each,
        unit=unit,
        rolling=rolling,
        name=name,
    )
    with session(store, project, json=json, may_make=True) as here:
        account = target.account(here)
        counted = unit_of(account)
        most = None if amount == UNLIMITED else parse_amount(amount, counted, name="LIMIT")
        before = target.find(here)
        wanted = terms(
            before,
            counted,
            duration=duration,
            timezone=timezone,
            align=align,
            rolling=rolling,
            rollover=rollover,
            on_limit=on_limit,
            wait=wait,
            fallback=fallback,
            allow=allow,
            forbid=forbid,
            max_call_cost=max_call_cost,
        )
        after = Budgets(here.guard.engine).set(account, most, wanted, by=by, reason=reason or "")
        action = "created" if before is None else "changed"
        here.answer(
            {"action": action, **balance_object(here.guard, after)}, _told(action, here, before, after)
        )


def reset(
    user: options.User = None,
    user_option: options.UserOption = None,
    label: options.Labels = None,
    project_budget: options.ProjectBudget = False,
    unit: options.UnitOption = USD,
    rolling: options.Rolling = None,
    name: options.Name = None,
    yes: options.Yes = False,
    by: options.By = None,
    reason: options.Reason = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Set what a budget has spent in this window to nothing.

    Calls under way stay held. Asks first, unless --yes.

    \b
    Examples:
      budgetguard reset alice --yes
      budgetguard reset --label team=red --unit requests
    """
    target = which(
        "reset",
        one_user(user, user_option),
        project_budget=project_budget,
        labels=label,
        unit=unit,
        rolling=rolling,
        name=name,
    )
    with session(store, project, json=json) as here:
        if is_for_each(account := target.account(here)):
            raise ConfigurationError(
                f"a budget of {budget_in_words(account)} has spent nothing itself: reset one of those that "
                "it made, such as --label customer=acme"
            )
        before = _asked(here, target, yes, "reset")
        after = Budgets(here.guard.engine).reset(account, by=by, reason=reason or "")
        _answer(here, "reset", before, after or target.missing(here))


def delete(
    user: options.User = None,
    user_option: options.UserOption = None,
    label: options.Labels = None,
    each: options.Each = None,
    project_budget: options.ProjectBudget = False,
    unit: options.UnitOption = USD,
    rolling: options.Rolling = None,
    name: options.Name = None,
    yes: options.Yes = False,
    by: options.By = None,
    reason: options.Reason = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Forget a budget.

    One of --each goes with all that it has made. The records of calls stay, for reports. Asks first, unless
    --yes.

    \b
    Examples:
      budgetguard delete alice --yes
      budgetguard delete --each customer
    """
    target = which(
        "delete",
        one_user(user, user_option),
        project_budget=project_budget,
        labels=label,
        each=each,
        unit=unit,
        rolling=rolling,
        name=name,
    )
    with session(store, project, json=json) as here:
        before = _asked(here, target, yes, "deleted")
        if not Budgets(here.guard.engine).delete(target.account(here), by=by, reason=reason or ""):
            target.missing(here)
        _answer(here, "deleted", before, before)


def user_and_amount(
    command: str,
    noun: str,
    given: tuple[str | None, str | None],
    user_option: str | None,
    is_scoped: bool,
    project_budget: bool = False,
) -> tuple[str | None, str]:
    """Return the user and the amount of a command that takes `[USER] AMOUNT`.

    Args:
        command: its name, for the error's text.
        noun: what the amount is called.
        given: the two arguments.
        user_option: the user, by option.
        is_scoped: whether options say whose budget it is, so that no user is needed.
        project_budget: whether it is the project's, so that no user may be given.

    Raises:
        ConfigurationError: one of them is missing, or too many.
    """
    said = [one for one in given if one is not None]
    if len(said) == 1 and (user_option is not None or is_scoped):
        return user_option, said[0]
    if len(said) == 2 and user_option is None and not project_budget:
        return said[0], said[1]
    raise ConfigurationError(
        f"whose budget, and how much? Write `budgetguard {command} USER {noun}`, such as `budgetguard "
        f"{command} alice 10`, or `budgetguard {command} --label team=red {noun}`, or `budgetguard {command} "
        f"--project-budget {noun}`"
    )


def _asked(here: CommandSession, target: Which, yes: bool, action: Literal["reset", "deleted"]) -> Balance:
    """Return how a budget stands before it is changed for good, having asked whether to."""
    before = target.known(here)
    name, spent = who(before), format_amount(before.spent_nanos, before.unit)
    if not yes and action == "reset":
        confirm(f"Set the {spent} that {name} has spent back to nothing?")
    elif not yes:
        made = " and of all that it has made" if is_for_each(before.account) else f" ({spent} spent)"
        confirm(f"Delete the budget of {name}{made}?")
    return before


def _answer(
    here: CommandSession, action: Literal["reset", "deleted"], before: Balance, after: Balance
) -> None:
    spent = format_amount(before.spent_nanos, before.unit)
    had = ", with all that it had made" if is_for_each(before.account) else f", which had {spent} spent"
    here.answer(
        {
            "action": action,
            "spent_before": before.to_dict()["spent"],
            **balance_object(here.guard, after),
        },
        f"{action.capitalize()} the budget of {who(before)}{had}.",
    )


def _told(action: str, here: CommandSession, before: Balance | None, after: Balance) -> str:
    limit, own = amount_or_none(own_limit(after), after.unit), None if before is None else own_limit(before)
    if before is not None and own != own_limit(after):
        limit += f" (was {amount_or_none(own, after.unit)})"
    raised = "" if not after.grants else f"{format_amount(after.limit_nanos or 0, after.unit)} with raises"
    spent = "" if before is None else f"{format_amount(after.spent_nanos, after.unit)} spent so far"
    if is_for_each(after.account):
        spent = "made for each with its first call"
    facts = joined((limit, raised, _resets(here, after), rules_in_words(rules_of(after)), spent))
    return f"{action.capitalize()} the budget of {who(after)} in {printable(here.place)}: {facts}."


def _resets(here: CommandSession, balance: Balance) -> str:
    if balance.rolling:
        return f"rolling over {balance.duration}"
    if balance.resets_at is None or is_for_each(balance.account):
        return balance.duration or ("" if balance.unit == CONCURRENT else "never resets")
    return f"{balance.duration}, resets {when(balance.resets_at, here.timezone)} {zone_name(here.timezone)}"
