"""`grant`, `top-up`, `member`: raises of budgets, and what is kept with users."""

from __future__ import annotations

from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Annotated, Any

from budgetguard.cli import options
from budgetguard.cli.budgets import user_and_amount
from budgetguard.cli.display import when, zone_name
from budgetguard.cli.session import balance_object, session, who
from budgetguard.cli.which import read_labels, which
from budgetguard.cli.words import amount_or_none, parse_amount
from budgetguard.core.accounts import USD, Balance, Unit, check_id, unit_of
from budgetguard.core.windows import duration_ms, point_in_time, to_datetime
from budgetguard.core.wording import format_amount, printable
from budgetguard.engine.budgets import Budgets
from budgetguard.errors import ConfigurationError

Amount = Annotated[str | None, options.argument("AMOUNT", "USD such as 5, or a number of --unit.")]


def grant(
    user: options.User = None,
    amount: Amount = None,
    user_option: options.UserOption = None,
    label: options.Labels = None,
    project_budget: options.ProjectBudget = False,
    unit: options.UnitOption = USD,
    rolling: options.Rolling = None,
    name: options.Name = None,
    expires: Annotated[
        str | None,
        options.option("WHEN", "When it ends: 2d from now, 2026-12-01, or 2026-12-01T14:30. Needed."),
    ] = None,
    by: options.By = None,
    reason: options.Reason = None,
    timezone: options.Timezone = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Raise a budget's limit until some time, when that ends by itself.

    \b
    Examples:
      budgetguard grant 5 --user alice --expires 2d --reason launch
      budgetguard grant 100 --label team=red --unit requests --expires 1h
    """
    scoped = bool(label or project_budget)
    whom, text = user_and_amount("grant", "AMOUNT", (user, amount), user_option, scoped, project_budget)
    target = which(
        "grant",
        whom,
        project_budget=project_budget,
        labels=label,
        unit=unit,
        rolling=rolling,
        name=name,
    )
    with session(store, project, json=json, timezone=timezone) as here:
        account = target.account(here)
        more = parse_amount(text, unit_of(account), name="AMOUNT")
        if expires is None:
            raise ConfigurationError(
                "a grant needs an end, such as --expires 2d: to raise a limit for good set a higher one with "
                "`budgetguard create`, or add to a prepaid budget with `budgetguard top-up`"
            )
        _check_limited(target.known(here), "grant")
        ends = _end(expires, here.timezone)
        budgets = Budgets(here.guard.engine)
        after = budgets.grant(account, more, expires=ends, by=by, reason=reason or "") or target.missing(here)
        newest = after.grants[-1] if after.grants else None
        until = None if newest is None or newest.until_ms is None else to_datetime(newest.until_ms)
        here.answer(
            {
                "action": "granted",
                "amount": _exact(more, after),
                "until": None if until is None else until.isoformat(),
                **balance_object(here.guard, after),
            },
            f"Raised the budget of {who(after)} in {printable(here.place)} by {_written(more, after.unit)} "
            f"until {when(until, here.timezone)} {zone_name(here.timezone)}: {_standing(after)}.",
        )


def top_up(
    user: options.User = None,
    amount: Amount = None,
    user_option: options.UserOption = None,
    label: options.Labels = None,
    project_budget: options.ProjectBudget = False,
    unit: options.UnitOption = USD,
    name: options.Name = None,
    by: options.By = None,
    reason: options.Reason = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Add to a prepaid budget, which never resets; make it if there is none.

    \b
    Examples:
      budgetguard top-up alice 20 --reason 'invoice 4711'
      budgetguard top-up 50 --label customer=acme
    """
    scoped = bool(label or project_budget)
    whom, text = user_and_amount("top-up", "AMOUNT", (user, amount), user_option, scoped, project_budget)
    target = which("top-up", whom, project_budget=project_budget, labels=label, unit=unit, name=name)
    with session(store, project, json=json, may_make=True) as here:
        account = target.account(here)
        more = parse_amount(text, unit_of(account), name="AMOUNT")
        before = target.find(here)
        if before is not None:
            _check_limited(before, "top-up")
        if before is not None and before.duration is not None:
            raise ConfigurationError(
                f"the budget of {who(before)} has a limit for each window ({before.duration}), and what is "
                "topped up would come again in each: raise it for a while with `budgetguard grant`, or set a "
                "higher limit with `budgetguard create`"
            )
        after = Budgets(here.guard.engine).top_up(account, more, by=by, reason=reason or "")
        here.answer(
            {"action": "topped up", "amount": _exact(more, after), **balance_object(here.guard, after)},
            f"Added {_written(more, after.unit)} to the budget of {who(after)} in {printable(here.place)}: "
            f"{_standing(after)}.",
        )


def member(
    user: Annotated[str, options.argument("USER", "The user's id.")],
    labels: Annotated[
        list[str] | None,
        options.argument("LABEL=VALUE", "Labels to keep, such as team=red; team= takes one away."),
    ] = None,
    by: options.By = None,
    reason: options.Reason = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Keep labels with a user, such as a team, or show them.

    The user's calls carry them without saying so, and are charged to the budgets for them.

    \b
    Examples:
      budgetguard member alice team=red feature=search
      budgetguard member alice
      budgetguard member alice team=
    """
    account = check_id(user, name="USER")
    changes = read_labels(labels or (), "a label", may_be_empty=True)
    with session(store, project, json=json) as here:
        budgets = Budgets(here.guard.engine)
        if changes:
            wanted = {name: value or None for name, value in changes.items()}
            _check_names(wanted)
            kept = budgets.set_member(account, wanted, by=by, reason=reason or "")
        else:
            here.guard.balance(account)
            kept = budgets.member(account)
        value: dict[str, Any] = {
            "action": "changed" if changes else "none",
            "project": here.guard.project,
            "user": account,
            "labels": dict(kept),
        }
        said = printable(", ".join(f"{name} {text!r}" for name, text in sorted(kept.items())))
        now = "now has" if changes else "has"
        here.answer(value, f"{printable(account)} {now} {said or 'no labels'}.")


def _check_names(labels: dict[str, str | None]) -> None:
    from budgetguard.core.labels import check_label

    for name in labels:
        check_label(name)


def _check_limited(balance: Balance, command: str) -> None:
    if balance.limit_nanos is None:
        raise ConfigurationError(
            f"the budget of {who(balance)} has no limit, so there is nothing to raise with `budgetguard "
            f"{command}`: set one with `budgetguard create`"
        )


def _end(text: str, zone: tzinfo | None) -> str | datetime:
    try:
        duration_ms(text)
        return text
    except ConfigurationError:
        pass
    try:
        return point_in_time(text, zone)
    except ValueError:
        raise ConfigurationError(
            "--expires must be a span from now such as 2d or 12h, a date such as 2026-12-01, or a time such "
            f"as 2026-12-01T14:30, not {text!r}"
        ) from None


def _exact(amount: Decimal | int, balance: Balance) -> str:
    from budgetguard.core.money import to_nanos

    return format(balance.quantity(to_nanos(amount) if balance.unit == USD else int(amount)), "f")


def _written(amount: Decimal | int, unit: Unit) -> str:
    from budgetguard.core.money import to_nanos

    return format_amount(to_nanos(amount) if unit == USD else int(amount), unit)


def _standing(balance: Balance) -> str:
    limit = amount_or_none(balance.limit_nanos, balance.unit)
    left = amount_or_none(balance.available_nanos, balance.unit)
    return f"{limit} in all, {left} left"
