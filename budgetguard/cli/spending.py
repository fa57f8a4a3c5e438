"""`report`: what calls have cost, by user, model, day, month or any label; and what shadow budgets say."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from csv import DictWriter
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Annotated, Any

from budgetguard.cli import options
from budgetguard.cli.display import joined, money, outlook, when, zone_name
from budgetguard.cli.session import CommandSession, session
from budgetguard.cli.tables import report_plot, report_table, shadow_table
from budgetguard.cli.which import several_labels
from budgetguard.core.forecast import Month
from budgetguard.core.holds import HoldRecord
from budgetguard.core.money import format_usd
from budgetguard.core.report import (
    DIMENSIONS,
    Dimension,
    Report,
    ShadowReport,
    matching,
    summarize,
    summarize_shadows,
)
from budgetguard.core.windows import moment, to_datetime
from budgetguard.core.wording import count, printable
from budgetguard.errors import ConfigurationError

# Spreadsheets of some languages take the wide forms of these signs, too.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_SHADOW_MEASURES = ("unit", "calls", "amount")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def report(
    by: Annotated[
        list[str] | None,
        options.option("|".join((*DIMENSIONS, "LABEL")), "Add up by this, such as team; repeatable."),
    ] = None,
    month: Annotated[
        str | None, options.option("MONTH", "Calls made in this month, such as 2026-11.")
    ] = None,
    since: options.Since = None,
    until: options.Until = None,
    user: options.OnlyUsers = None,
    model: options.OnlyModels = None,
    tag: options.OnlyTags = None,
    label: options.OnlyLabels = None,
    shadow: Annotated[
        bool, options.flag("What budgets with --on-limit shadow would have refused.", "--shadow")
    ] = False,
    timezone: Annotated[str | None, options.option("ZONE", "Whose days and dates. Else local time.")] = None,
    store: options.Store = None,
    project: options.Project = None,
    plot: Annotated[bool, options.flag("Draw what each row spent as a bar.", "--plot")] = False,
    csv: Annotated[bool, options.flag("Write the rows as CSV, without the total.", "--csv")] = False,
    json: options.Json = False,
) -> None:
    """Add up what calls have cost.

    It adds up calls, tokens and money by user, model, day, month, endpoint, tag, provider or any label, from
    the records of calls. A store keeps those for 90 days, or as BUDGETGUARD_RETENTION says, also of budgets
    that were reset or deleted. A table of all of this month ends with what the month's calls are on
    course for.

    \b
    Examples:
      budgetguard report --since 7d
      budgetguard report --by day --by model --since 2026-11-01
      budgetguard report --by user --model 'gpt-4o*' --json
      budgetguard report --by day --plot --since 30d
      budgetguard report --by team --month 2026-11 --csv
      budgetguard report --by team,month --label 'customer=acme*'
      budgetguard report --shadow --since 7d
    """
    if plot + csv + json > 1:
        raise ConfigurationError("--plot, --csv and --json are three ways to write one report: choose one")
    if plot and shadow:
        raise ConfigurationError("--plot draws what was spent, and --shadow tells of budgets: choose one")
    if month is not None and (since is not None or until is not None):
        raise ConfigurationError(f"--month {month} is a span of its own: leave out --since and --until")
    dimensions = _dimensions(by or ([] if shadow else ["user"]))
    with session(store, project, json=json, timezone=timezone) as here:
        now = to_datetime(here.guard.engine.now())
        first = None if since is None else moment(since, now, here.timezone, name="--since")
        last = None if until is None else moment(until, now, here.timezone, name="--until")
        if month is not None:
            first, last = _month(month, here.timezone)
        if first is not None and last is not None and first >= last:
            raise ConfigurationError(f"--since {since} is not before --until {until}")
        chosen = partial(
            matching,
            users=user or (),
            models=model or (),
            tags=tag or (),
            labels=several_labels(label or (), "--label"),
        )
        records = chosen(here.guard.calls(first, last))
        made: Report | ShadowReport
        present: Month | None = None
        if shadow:
            made = summarize_shadows(records, dimensions, zone=here.timezone)
        else:
            made = summarize(records, dimensions, zone=here.timezone)
            if last is None and not csv and not json:
                present = _present_month(here, first, chosen)
        if json:
            here.write(
                {
                    "project": here.guard.project,
                    "since": None if first is None else first.astimezone(UTC).isoformat(),
                    "until": None if last is None else last.astimezone(UTC).isoformat(),
                    "timezone": None if timezone is None else timezone,
                    **made.to_dict(),
                }
            )
        elif csv:
            write_csv(made.to_dict())
        elif isinstance(made, ShadowReport):
            _show_shadows(here, made, _span(here, first, last))
        else:
            _show(here, made, _span(here, first, last), plot=plot)
            if present is not None and made.rows:
                _show_month(here, present)


def _present_month(
    here: CommandSession,
    first: datetime | None,
    chosen: Callable[[Iterable[HoldRecord]], Iterable[HoldRecord]],
) -> Month | None:
    """Return the present month of the chosen records; None if the report does not go back to its start."""
    zone = here.timezone
    name = here.guard.settings.timezone if zone is None else str(zone)
    found = Month(name, here.guard.engine.now())
    if first is not None and first > to_datetime(found.start):
        return None
    for record in chosen(here.guard.calls(to_datetime(found.since))):
        found.add(record)
    return found


def _show_month(here: CommandSession, month: Month) -> None:
    ahead = month.forecast()
    if ahead.is_known:
        here.say(f"This month: {money([month.spent])[0]} spent, {outlook(ahead, here.timezone)}.")


def _dimensions(names: list[str]) -> tuple[Dimension, ...]:
    return tuple(dict.fromkeys(one for name in names for one in name.split(",")))


def _month(text: str, zone: tzinfo | None) -> tuple[datetime, datetime]:
    """Return when a month begins and ends, by the clocks of a zone."""
    try:
        if not _MONTH.fullmatch(text):
            raise ValueError(text)
        year, month = map(int, text.split("-"))
        first = datetime(year, month, 1)
        last = datetime(year + month // 12, month % 12 + 1, 1)
        return (
            (first.astimezone(), last.astimezone())
            if zone is None
            else (first.replace(tzinfo=zone), last.replace(tzinfo=zone))
        )
    except (ValueError, OverflowError, OSError):
        raise ConfigurationError(f"--month must be a month such as 2026-11, not {text!r}") from None


def _span(here: CommandSession, first: datetime | None, last: datetime | None) -> str:
    return joined(
        (
            "" if first is None else f"from {when(first, here.timezone)}",
            "" if last is None else f"to {when(last, here.timezone)}",
        )
    )


def write_csv(made: dict[str, Any]) -> None:
    """Write the rows of a report, given as JSON values, as CSV."""
    measures = _SHADOW_MEASURES if made["by"][:1] == ["account"] else made["total"]
    writer = DictWriter(sys.stdout, [*made["by"], *measures], lineterminator="\n")
    writer.writeheader()
    for row in made["rows"]:
        writer.writerow(
            {name: no_formula(value) if name in made["by"] else value for name, value in row.items()}
        )


def no_formula(value: object) -> object:
    """Return a cell so that a spreadsheet reads it as text: names may begin like formulas, numbers too."""
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _show(here: CommandSession, made: Report, span: str, *, plot: bool) -> None:
    total = made.total
    if not made.rows:
        here.say(f"No calls {span + ' ' if span else ''}in {printable(here.place)}.")
        return
    here.console.print((report_plot if plot else report_table)(made, here.console))
    unknown = [
        name
        for at, name in enumerate(made.by)
        if name not in DIMENSIONS and all(key[at] is None for key, _ in made.rows)
    ]
    here.say(
        joined(
            (
                f"Calls {span or 'on record'} in {printable(here.place)}",
                f"{total.open:,} still under way" if total.open else "",
                f"{total.voided:,} given back without work" if total.voided else "",
                f"{total.expiries:,} expired" if total.expiries else "",
            )
        )
        + f". Times are {zone_name(here.timezone)}."
        + (f" None of them has a label {' or '.join(map(repr, unknown))}." if unknown else "")
    )


def _show_shadows(here: CommandSession, made: ShadowReport, span: str) -> None:
    if not made.rows:
        here.say(f"No call {span + ' ' if span else ''}would have been refused in {printable(here.place)}.")
        return
    here.console.print(shadow_table(made, here.console))
    here.say(
        f"{count(made.calls, 'call')} {span or 'on record'} would have been refused in "
        f"{printable(here.place)} by budgets that let them through (shadow); "
        f"they cost {format_usd(made.spent)}. Times are {zone_name(here.timezone)}."
    )
