"""`audit`: who changed which budget, how, when and why."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from csv import writer
from datetime import tzinfo
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from budgetguard.cli import options
from budgetguard.cli.display import joined, when, zone_name
from budgetguard.cli.session import session
from budgetguard.cli.spending import no_formula
from budgetguard.cli.tables import Column, listing, text_column
from budgetguard.cli.words import budget_in_words, rules_in_words
from budgetguard.core.accounts import USD, Unit, unit_of
from budgetguard.core.money import to_nanos
from budgetguard.core.rules import Rules, read_rules
from budgetguard.core.trail import Change
from budgetguard.core.windows import moment, to_datetime
from budgetguard.core.wording import count, format_amount, printable
from budgetguard.errors import ConfigurationError

_ACTIONS: Final = {
    "set_budget": "Set",
    "grant": "Raised",
    "top_up": "Topped up",
    "reset": "Reset",
    "delete": "Deleted",
    "set_member": "Labelled",
}
_RULES: Final = frozenset(Rules.__dataclass_fields__)


def audit(
    since: Annotated[
        str | None, options.option("WHEN", "Changes from then on: 7d, 2026-11-01 or 2026-11-01T14:30.")
    ] = None,
    timezone: options.Timezone = None,
    store: options.Store = None,
    project: options.Project = None,
    csv: options.Csv = False,
    json: options.Json = False,
) -> None:
    """Tell who changed which budget, how, when and why.

    Oldest first. With --json one change a line.

    \b
    Examples:
      budgetguard audit --since 30d
      budgetguard audit --csv > changes.csv
    """
    if csv and json:
        raise ConfigurationError("--csv and --json are two ways to write one list: choose one")
    with session(store, project, json=json, timezone=timezone) as here:
        now = to_datetime(here.guard.engine.now())
        first = None if since is None else moment(since, now, here.timezone, name="--since")
        changes = here.guard.audit(first)
        if json:
            for change in changes:
                here.write({"project": here.guard.project, **change.to_dict()})
        elif csv:
            _write_csv(changes, here.timezone)
        else:
            rows = [_cells(change, here.timezone) for change in changes]
            if not rows:
                span = "" if first is None else f" since {when(first, here.timezone)}"
                here.say(f"No budget was changed{span} in {printable(here.place)}.")
                return
            names = [Column("When", "left"), *map(text_column, ("Who", "Did", "Budget of", "What", "Why"))]
            here.console.print(listing(names, rows, here.console))
            here.say(
                f"{count(len(rows), 'change')} in {printable(here.place)}. "
                f"Times are {zone_name(here.timezone)}."
            )


def _write_csv(changes: Iterable[Change], zone: tzinfo | None) -> None:
    rows = writer(sys.stdout, lineterminator="\n")
    rows.writerow(("at", "by", "key", "action", "account", "budget", "what", "reason"))
    for one in changes:
        budget, what = budget_in_words(one.account), change_in_words(one, zone)
        cells = (one.by, one.key, one.action, one.account, budget, what, one.reason)
        rows.writerow((one.at.isoformat(), *map(no_formula, cells)))


def _cells(change: Change, zone: tzinfo | None) -> tuple[str, ...]:
    who = change.by + (f" (key {change.key})" if change.key else "")
    return (
        when(change.at, zone),
        printable(who),
        printable(_ACTIONS.get(change.action, change.action)),
        budget_in_words(change.account) if change.account else "",
        change_in_words(change, zone),
        printable(change.reason),
    )


def change_in_words(change: Change, zone: tzinfo | None) -> str:
    """Return what was changed: `$10.00, monthly`, `$5.00 until 2026-12-01 12:00`, `team 'red'`."""
    details, unit = dict(change.details), unit_of(change.account)
    said: list[str] = []
    if change.action == "set_budget":
        said.append(_amount(details.pop("limit"), unit) if "limit" in details else "no limit")
        rolling = details.pop("rolling", False)
        if (duration := details.pop("duration", None)) is not None:
            said.append(f"rolling {duration}" if rolling else str(duration))
        if "rollover" in details:
            said.append(f"rolls over {_amount(details.pop('rollover'), unit)} at most")
        said.append(_rules(details))
    if "amount" in details:
        until = details.pop("until", None)
        ends = f" until {when(to_datetime(until), zone)}" if isinstance(until, int) else ""
        said.append(_amount(details.pop("amount"), unit) + ends)
    if isinstance(labels := details.get("labels"), dict):
        del details["labels"]
        said.append(", ".join(f"{name} {value!r}" for name, value in labels.items()) or "no labels")
    # A service's client may have written anything.
    said += (f"{name} {value}" for name, value in details.items())
    return printable(joined(said))


def _amount(text: Any, unit: Unit) -> str:
    with suppress(InvalidOperation, ValueError, TypeError, ConfigurationError):
        amount = Decimal(str(text))
        return format_amount(to_nanos(amount) if unit == USD else int(amount), unit)
    return str(text)


def _rules(details: dict[str, Any]) -> str:
    """Take what are rules out of the details of a change, and return them in words."""
    from json import dumps

    said = {name: details[name] for name in details.keys() & _RULES}
    try:
        words = rules_in_words(read_rules(dumps(said) if said else ""))
    except ConfigurationError:
        return ""
    for name in said:
        del details[name]
    return words
