"""`report`: what calls have cost, by user, model, day, endpoint and tag."""

from __future__ import annotations

import re
import sys
from csv import DictWriter
from datetime import UTC, datetime
from typing import Annotated, cast

from budgetguard.cli import options
from budgetguard.cli.display import joined, when, zone_name
from budgetguard.cli.session import CommandSession, session
from budgetguard.cli.tables import report_plot, report_table
from budgetguard.core.report import DIMENSIONS, Dimension, Report, matching, summarize
from budgetguard.core.windows import moment, to_datetime
from budgetguard.core.wording import printable
from budgetguard.errors import ConfigurationError

_FORMULA = re.compile(r"[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")


def report(
    by: Annotated[
        list[str] | None, options.option("|".join(DIMENSIONS), "Add up by this; repeatable.")
    ] = None,
    since: Annotated[
        str | None, options.option("WHEN", "Calls made from: 7d, 2026-11-01 or 2026-11-01T14:30.")
    ] = None,
    until: Annotated[str | None, options.option("WHEN", "Calls made before: as --since.")] = None,
    user: Annotated[list[str] | None, options.option("USER", "Only this; repeatable.")] = None,
    model: Annotated[
        list[str] | None, options.option("MODEL", "Only this, or 'gpt-4o*'; repeatable.")
    ] = None,
    tag: Annotated[list[str] | None, options.option("TAG", "Only this; repeatable.")] = None,
    timezone: Annotated[str | None, options.option("ZONE", "Whose days and dates. Else local time.")] = None,
    store: options.Store = None,
    project: options.Project = None,
    plot: Annotated[bool, options.flag("Draw what each row spent as a bar.", "--plot")] = False,
    csv: Annotated[bool, options.flag("Write the rows as CSV, without the total.", "--csv")] = False,
    json: options.Json = False,
) -> None:
    """Add up what calls have cost.

    It adds up calls, tokens and money by user, model, day, endpoint or tag, from the records of calls. A
    store keeps those for 90 days, or as BUDGETGUARD_RETENTION says, also of budgets that were reset or
    deleted.

    \b
    Examples:
      budgetguard report --since 7d
      budgetguard report --by day --by model --since 2026-11-01
      budgetguard report --by user --model 'gpt-4o*' --json
      budgetguard report --by day --plot --since 30d
      budgetguard report --by day,tag --csv
    """
    if plot + csv + json > 1:
        raise ConfigurationError("--plot, --csv and --json are three ways to write one report: choose one")
    dimensions = _dimensions(by or ["user"])
    with session(store, project, json=json, timezone=timezone) as here:
        now = to_datetime(here.guard.engine.now())
        first = None if since is None else moment(since, now, here.timezone, name="--since")
        last = None if until is None else moment(until, now, here.timezone, name="--until")
        if first is not None and last is not None and first >= last:
            raise ConfigurationError(f"--since {since} is not before --until {until}")
        records = matching(
            here.guard.calls(first, last), users=user or (), models=model or (), tags=tag or ()
        )
        made = summarize(records, dimensions, zone=here.timezone)
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
            _write_csv(made)
        else:
            _show(here, made, _span(here, first, last), plot=plot)


def _dimensions(names: list[str]) -> tuple[Dimension, ...]:
    split = [one for name in names for one in name.split(",")]
    for one in split:
        if one not in DIMENSIONS:
            raise ConfigurationError(f"--by is {', '.join(DIMENSIONS)} or several of them, not {one!r}")
    return tuple(cast(Dimension, one) for one in dict.fromkeys(split))


def _span(here: CommandSession, first: datetime | None, last: datetime | None) -> str:
    return joined(
        (
            "" if first is None else f"from {when(first, here.timezone)}",
            "" if last is None else f"to {when(last, here.timezone)}",
        )
    )


def _write_csv(made: Report) -> None:
    names = [*made.by, *made.total.to_dict()]
    writer = DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    for row in made.to_dict()["rows"]:
        writer.writerow(
            {name: no_formula(value) if name in made.by else value for name, value in row.items()}
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
    )
