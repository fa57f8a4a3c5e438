"""`projects`, `users`, `budgets`, `show`, `holds`: the commands that show balances and holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

from budgetguard.cli import options
from budgetguard.cli.budget_tables import budgets_table
from budgetguard.cli.display import pattern_matches, zone_name
from budgetguard.cli.session import CommandSession, balance_object, find, known, session, whose
from budgetguard.cli.tables import details, holds_table, projects_table, users_table
from budgetguard.cli.which import one_user, which
from budgetguard.cli.words import budget_in_words, is_for_each
from budgetguard.core.accounts import PROCESS, PROJECT, RUN, USD, USER, Balance
from budgetguard.core.holds import HoldRecord
from budgetguard.core.labels import named_by
from budgetguard.core.money import format_usd, to_usd
from budgetguard.core.windows import Milliseconds
from budgetguard.core.wording import count, printable
from budgetguard.engine.forecasting import foreseen

_TABLE_ROWS = 100


def projects(store: options.Store = None, json: options.Json = False) -> None:
    """List the projects of a store that have a budget.

    With --json one object a line; `balance` is null where the project as a whole has no budget.

    \b
    Example:
      budgetguard projects --store disk:///var/lib/app/budgets
    """
    with session(store, json=json) as here:
        rows = [(name, here.guard.in_project(name)) for name in here.guard.projects()]
        balances = [(name, find(guard, None)) for name, guard in rows]
        for _, guard in rows:
            guard.close()
        if json:
            for name, balance in balances:
                here.write({"project": name, "balance": None if balance is None else balance.to_dict()})
            return
        if balances:
            here.console.print(projects_table(balances, here.timezone))
        of = printable(here.guard.engine.place)
        here.say(f"{count(len(balances), 'project')} in {of}." if balances else f"No budgets in {of}.")


def users(
    match: Annotated[
        str | None, options.option("TEXT", "Only ids with this in them, or a pattern: 'team-*'.")
    ] = None,
    limit: Annotated[
        int | None,
        options.option("N", f"At most so many; 0 is all. By default {_TABLE_ROWS}, all with --json.", min=0),
    ] = None,
    forecast: options.Forecasts = None,
    timezone: options.Timezone = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """List users: limit, spent, held, available, when it resets.

    In order of their ids, and with what they are on course for where records say. With --json one object a
    line, written as they are read; with its forecast only if --forecast is given.

    \b
    Examples:
      budgetguard users --match 'team-*'
      budgetguard users --json | jq -r .user
    """
    with session(store, project, json=json, timezone=timezone) as here:
        found = _matching(here.guard.balances(), match)
        if json:
            for balance in islice(found, limit or None):
                if forecast:
                    _ = balance.forecast
                here.write(balance_object(here.guard, balance))
            return
        most = _TABLE_ROWS if limit is None else limit
        rows = list(islice(found, most + 1 if most else None))
        more = bool(most) and len(rows) > most
        _show_users(here, rows[:most] if most else rows, match, more=more, forecast=forecast is not False)


def budgets(
    match: Annotated[
        str | None, options.option("TEXT", "Only those with this in their words, or a pattern: 'team *'.")
    ] = None,
    limit: Annotated[
        int | None,
        options.option("N", f"At most so many; 0 is all. By default {_TABLE_ROWS}, all with --json.", min=0),
    ] = None,
    everything: Annotated[
        bool, options.flag("Also those that `users` lists, and those of runs and processes.", "--all")
    ] = False,
    timezone: options.Timezone = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """List all other budgets: of teams, models, customers, any labels; of requests.

    Those `each` something come first; they are made for each value with its first call. Users' own budgets of
    USD are in `users`. With --json one object a line.

    \b
    Examples:
      budgetguard budgets
      budgetguard budgets --match 'team *' --json
    """
    with session(store, project, json=json, timezone=timezone) as here:
        most = limit if limit is not None else None if json else _TABLE_ROWS
        found: list[Balance] = []
        shown, users = 0, 0
        for balance in here.guard.budgets():
            kind = balance.account.partition(":")[0]
            of_labels = named_by(balance.account) is not None and kind != USER
            users += kind == USER
            if not (of_labels or kind == PROJECT or (everything and kind in (USER, RUN, PROCESS))):
                continue
            if match is not None and not pattern_matches(budget_in_words(balance.account), match):
                continue
            shown += 1
            if most and shown > most:
                continue
            if json:
                here.write(balance_object(here.guard, balance))
            else:
                found.append(balance)
        if not json:
            _show_budgets(here, found, shown, 0 if everything else users)


def _show_budgets(here: CommandSession, rows: list[Balance], found: int, users: int) -> None:
    of = printable(here.place)
    of_users = f" {count(users, 'user')} more in `budgetguard users`." if users else ""
    if not rows:
        none = f"No such budgets in {of}. Make one: budgetguard create --label team=red 100"
        here.say(f"{none}.{of_users}" if of_users else none)
        return
    here.console.print(budgets_table(rows, here.console, here.timezone))
    shown = f"{count(len(rows), 'budget')} of {of}"
    if found > len(rows):
        shown = f"The first {shown}, which has {found:,}; more with --limit or --match"
    here.say(f"{shown}. Times are {zone_name(here.timezone)}.{of_users}")


def show(
    user: options.User = None,
    user_option: options.UserOption = None,
    label: options.Labels = None,
    each: options.Each = None,
    project_budget: options.ProjectBudget = False,
    unit: options.UnitOption = USD,
    rolling: options.Rolling = None,
    name: options.Name = None,
    forecast: options.Forecasts = None,
    timezone: options.Timezone = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """Show one budget in full, to the last digit.

    With a forecast from the records of calls: what will have been spent when it resets, and when the limit
    is reached.

    \b
    Examples:
      budgetguard show alice
      budgetguard show --project-budget --json
      budgetguard show --label team=red --unit requests
    """
    target = which(
        "show",
        one_user(user, user_option),
        project_budget=project_budget,
        labels=label,
        each=each,
        unit=unit,
        rolling=rolling,
        name=name,
    )
    with session(store, project, json=json, timezone=timezone) as here:
        balance = target.known(here)
        made = None
        if forecast is not False and not is_for_each(balance.account):
            made = foreseen(lambda: here.guard.store, balance, here.guard.engine.now()).forecast
        if json:
            here.write(balance_object(here.guard, balance))
        else:
            here.console.print(details(balance, here.guard.project, here.console, here.timezone, made))


def holds(
    user: options.User = None,
    timezone: options.Timezone = None,
    store: options.Store = None,
    project: options.Project = None,
    json: options.Json = False,
) -> None:
    """List the calls under way, of one user or of all.

    With --json one object a line.

    \b
    Example:
      budgetguard holds alice
    """
    with session(store, project, json=json, timezone=timezone) as here:
        if user is not None:
            known(here, whose(user, False, "holds"))
        found = here.guard.holds(user)
        if json:
            for hold in found:
                here.write(hold_object(here, hold))
            return
        rows = list(found)
        if not rows:
            here.say(f"No calls are under way in {printable(here.place)}.")
            return
        now: Milliseconds = here.guard.engine.now()
        here.console.print(holds_table(rows, now, here.console, here.timezone))
        total = format_usd(sum(hold.amount_nanos for hold in rows))
        here.say(f"{count(len(rows), 'call')} under way, {total} held. Times are {zone_name(here.timezone)}.")


def hold_object(here: CommandSession, hold: HoldRecord) -> dict[str, Any]:
    """Return an open hold as `--json` shows it."""
    return {
        "project": here.guard.project,
        "id": hold.id,
        "user": hold.user,
        "accounts": list(hold.accounts),
        "model": hold.model,
        "endpoint": hold.endpoint,
        "amount": format(hold.amount, "f"),
        "on_expiry": format(to_usd(hold.on_expiry_nanos), "f"),
        "created_at": hold.created_at.isoformat(),
        "expires_at": hold.expires_at.isoformat(),
        "tags": list(hold.tags),
        "labels": dict(hold.labels),
        "units": {unit: counts[0] for unit, counts in hold.units.items()},
    }


def _matching(balances: Iterator[Balance], match: str | None) -> Iterator[Balance]:
    for balance in balances:
        if match is None or pattern_matches(balance.account.removeprefix(f"{USER}:"), match):
            yield balance


def _show_users(
    here: CommandSession, rows: list[Balance], match: str | None, *, more: bool, forecast: bool
) -> None:
    whole = find(here.guard, None) if match is None else None
    if rows:
        forecasts = [row.forecast for row in rows] if forecast else []
        here.console.print(users_table(rows, here.console, here.timezone, forecasts))
        shown = f"{count(len(rows), 'user')} of {printable(here.place)}"
        if more:
            shown = f"The first {shown}; more with --limit or --match"
        here.say(f"{shown}. Times are {zone_name(here.timezone)}.")
    elif match is not None:
        here.say(f"No user of {printable(here.place)} matches {printable(match)}.")
    else:
        here.say(f"No users in {printable(here.place)}. Make one: budgetguard create USER 10")
    if whole is not None:
        limit = ", no limit" if whole.limit_nanos is None else f" of {format_usd(whole.limit_nanos)}"
        here.say(f"The project as a whole: {format_usd(whole.spent_nanos)} spent{limit}.")
