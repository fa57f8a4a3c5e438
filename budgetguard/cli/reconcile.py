"""`reconcile`: what was booked, compared with what providers billed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from csv import DictWriter
from datetime import UTC, date, timedelta
from typing import Annotated, Any

import typer

from budgetguard.billing.anthropic import BASE_URL as ANTHROPIC_URL
from budgetguard.billing.anthropic import anthropic_bill
from budgetguard.billing.bill import Bill
from budgetguard.billing.files import read_bills
from budgetguard.billing.openai import BASE_URL as OPENAI_URL
from budgetguard.billing.openai import openai_bill
from budgetguard.billing.reconciling import all_bills, names_of, reconcile_bills, records_of
from budgetguard.billing.result import (
    REASONS,
    Grouping,
    ReconciledRow,
    Reconciliation,
    Threshold,
    check_grouping,
)
from budgetguard.cli import options
from budgetguard.cli.display import joined, money
from budgetguard.cli.session import CommandSession, session, tell
from budgetguard.cli.spending import no_formula
from budgetguard.cli.tables import Cell, Column, listing, text_column
from budgetguard.core.holds import HoldRecord
from budgetguard.core.money import format_usd
from budgetguard.core.windows import moment, to_datetime
from budgetguard.core.wording import count, printable
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard

EXCEEDED = 1
_DAYS = 7
_MOST_SHOWN = 5


def reconcile(
    openai: Annotated[
        bool, options.flag("Fetch OpenAI's bill, with the key in OPENAI_ADMIN_KEY.", "--openai")
    ] = False,
    anthropic: Annotated[
        bool, options.flag("Fetch Anthropic's bill, with the key in ANTHROPIC_ADMIN_KEY.", "--anthropic")
    ] = False,
    file: Annotated[
        list[str] | None, options.option("FILE", "A saved bill, as JSON or CSV; repeatable.")
    ] = None,
    since: Annotated[
        str | None, options.option("DAY", "From this UTC day: 2026-11-01, or 30d for 30 days ago.")
    ] = None,
    until: Annotated[str | None, options.option("DAY", "To before this UTC day: as --since.")] = None,
    days: Annotated[
        int | None, options.option("N", f"The last N UTC days that are over. Else {_DAYS}, or the file's.")
    ] = None,
    by: Annotated[
        list[str] | None, options.option("day|model|provider", "Rows of these. Else day,model.")
    ] = None,
    threshold: Annotated[
        str | None, options.option("2%|5.00", "Exit with 1 if the difference is larger: a part, or USD.")
    ] = None,
    each: Annotated[bool, options.flag("The threshold is of each row, not of the total.", "--each")] = False,
    unexplained: Annotated[
        bool, options.flag("The threshold is of what no reason explains.", "--unexplained")
    ] = False,
    openai_project: Annotated[
        list[str] | None, options.option("ID", "Only this project's costs (proj_...); repeatable.")
    ] = None,
    anthropic_workspace: Annotated[
        list[str] | None,
        options.option("ID", "Only this workspace's costs (wrkspc_..., or default); repeatable."),
    ] = None,
    openai_url: Annotated[
        str, options.option("URL", f"Where OpenAI's API is. Else {OPENAI_URL}.")
    ] = OPENAI_URL,
    anthropic_url: Annotated[
        str, options.option("URL", f"Where Anthropic's API is. Else {ANTHROPIC_URL}.")
    ] = ANTHROPIC_URL,
    store: options.Store = None,
    project: options.Project = None,
    all_projects: Annotated[
        bool, options.flag("What all projects of the store booked, not one.", "--all-projects")
    ] = False,
    csv: Annotated[bool, options.flag("Write the rows as CSV, without the total.", "--csv")] = False,
    json: options.Json = False,
) -> None:
    """Compare what was booked with what providers billed.

    It says where the difference comes from, by UTC day and model, from the providers' cost APIs (an admin key
    is needed) or from a saved bill. The reasons and what stays unexplained add up to the difference. With
    --threshold the exit code is 1 where it is larger.

    \b
    Examples:
      budgetguard reconcile --openai --days 30
      budgetguard reconcile --openai --anthropic --since 2026-11-01 --until 2026-12-01 --by model
      budgetguard reconcile --file costs.json --threshold 2%
      budgetguard reconcile --file claude.csv --threshold 5.00 --each --unexplained --json
    """
    if csv and json:
        raise ConfigurationError("--csv and --json are two ways to write one result: choose one")
    if threshold is None and (each or unexplained):
        raise ConfigurationError("--each and --unexplained are of a threshold: add --threshold 2%, or 5.00")
    if not (openai or anthropic or file):
        raise ConfigurationError("which bill? Add --openai, --anthropic or --file FILE")
    _check_used(openai, openai_project, "--openai-project", "--openai")
    _check_used(anthropic, anthropic_workspace, "--anthropic-workspace", "--anthropic")
    grouping = check_grouping([one for name in by or ["day", "model"] for one in name.split(",")])
    most = None if threshold is None else Threshold.parse(threshold)
    with session(store, project, json=json) as here:
        first, last = _span(here.guard, since, until, days)
        names = names_of(here.guard.engine)
        bills: list[Bill] = [bill for path in file or () for bill in read_bills(path, names)]
        if openai or anthropic:
            today = _today(here.guard)
            begin, end = first or today - timedelta(days=_DAYS), last or today
            if begin >= end:
                raise ConfigurationError(f"there is no day from {begin} to before {end} (UTC)")
            if openai:
                bills.append(openai_bill(begin, end, projects=openai_project or (), base_url=openai_url))
            if anthropic:
                workspaces = anthropic_workspace or ()
                bills.append(anthropic_bill(begin, end, workspaces=workspaces, base_url=anthropic_url))
        made = reconcile_bills(
            here.guard.engine,
            all_bills(bills, names),
            lambda begin, end: _records(here.guard, begin, end, every=all_projects),
            by=grouping,
            since=first,
            until=last,
        )
        exceeding = () if most is None else made.exceeding(most, each=each, unexplained=unexplained)
        place = f"all projects of {here.guard.engine.place}" if all_projects else here.place
        verdict = _verdict(made, most, exceeding, each=each, unexplained=unexplained)
        if json:
            here.write(
                {
                    "project": None if all_projects else here.guard.project,
                    **made.to_dict(),
                    "threshold": None if most is None else str(most),
                    "exceeded": bool(exceeding),
                }
            )
        elif csv:
            _write_csv(made)
            if exceeding:
                tell(verdict)
        else:
            _show(here, made, place, verdict)
    if exceeding:
        raise typer.Exit(EXCEEDED)


def _check_used(chosen: bool, given: list[str] | None, name: str, needs: str) -> None:
    if given and not chosen:
        raise ConfigurationError(f"{name} says what is fetched, and nothing is: add {needs}")


def _today(guard: Guard) -> date:
    return to_datetime(guard.engine.now()).astimezone(UTC).date()


def _span(
    guard: Guard, since: str | None, until: str | None, days: int | None
) -> tuple[date | None, date | None]:
    """Return the first UTC day and the one after the last, None where nothing says it."""
    if days is not None:
        if since is not None or until is not None:
            raise ConfigurationError("--days says which days, and so do --since and --until: choose one")
        if days < 1:
            raise ConfigurationError(f"--days must be a number of days from 1, not {days}")
        today = _today(guard)
        try:
            return today - timedelta(days=days), today
        except OverflowError:
            raise ConfigurationError(f"--days {days} is before all calendars") from None
    first, last = (_day(guard, text, name) for text, name in ((since, "--since"), (until, "--until")))
    if first is not None and last is not None and first >= last:
        raise ConfigurationError(f"--since {since} is not before --until {until}")
    return first, last


def _day(guard: Guard, text: str | None, name: str) -> date | None:
    if text is None:
        return None
    now = to_datetime(guard.engine.now()).astimezone(UTC)
    found = moment(text, now, UTC, name=name).astimezone(UTC)
    if "T" in text.upper().rstrip("Z") and found.time().replace(tzinfo=None) != found.min.time():
        raise ConfigurationError(
            f"bills are by UTC days: {name} must be a day such as {found.date()}, not {text!r}"
        )
    return found.date()


def _records(guard: Guard, since: date, until: date, *, every: bool) -> Iterator[HoldRecord]:
    if not every:
        yield from records_of(guard.engine, since, until)
        return
    for name in dict.fromkeys((*guard.projects(), guard.project)):
        other = guard.beside(project=name)
        try:
            yield from records_of(other.engine, since, until)
        finally:
            other.close()


def _verdict(
    made: Reconciliation,
    most: Threshold | None,
    exceeding: Sequence[ReconciledRow],
    *,
    each: bool,
    unexplained: bool,
) -> str:
    """Return the sentence that says whether the threshold is exceeded."""
    if most is None:
        return ""
    what = "What is unexplained" if unexplained else "The difference"
    if not exceeding:
        return f"{what} is within the threshold of {most}{' in every row' if each else ''}."

    def told(row: ReconciledRow) -> str:
        return format_usd(row.unexplained if unexplained else row.difference)

    if not each:
        return f"{what}, {told(exceeding[0])}, exceeds the threshold of {most}."
    few = "; ".join(f"{_label(row, made.by) or 'total'} {told(row)}" for row in exceeding[:_MOST_SHOWN])
    more = len(exceeding) - _MOST_SHOWN
    tail = f" and {more} more" if more > 0 else ""
    return f"{what} exceeds the threshold of {most} in {count(len(exceeding), 'row')}: {few}{tail}."


def _label(row: ReconciledRow, by: Sequence[Grouping]) -> str:
    return " ".join(printable(str(getattr(row, name))) for name in by)


def _show(here: CommandSession, made: Reconciliation, place: str, verdict: str) -> None:
    if made.rows:
        here.console.print(_table(made, here))
    last = made.until - timedelta(days=1)
    span = f"on {made.since}" if last == made.since else f"from {made.since} to {last}"
    if not made.rows:
        here.say(f"Nothing was billed and nothing booked {span} (UTC) in {printable(place)}.")
    else:
        here.say(
            joined(
                (
                    f"Billed by {printable(', '.join(made.sources))} and booked in {printable(place)}, "
                    f"{span} (UTC)",
                    f"{count(made.total.open, 'call')} still under way" if made.total.open else "",
                )
            )
            + "."
        )
    for name, meaning in REASONS.items():
        if nanos := made.total.reasons.get(name, 0) or any(row.reasons.get(name) for row in made.rows):
            amount = format_usd(nanos) if nanos is not True else "$0.00 together"
            here.say(f"{name}, {amount}: {meaning}.")
    if made.total.unexplained:
        here.say(f"unexplained, {format_usd(made.total.unexplained)}: nothing in the data tells why.")
    for provider, nanos in made.left_out.items():
        here.say(
            f"Left out: {format_usd(nanos)} booked for {printable(provider)}, of which there is no bill."
        )
    for note in made.notes:
        here.say(f"Note: {printable(note)}.")
    if verdict:
        here.say(verdict)


def _table(made: Reconciliation, here: CommandSession) -> Any:
    lines = [*((_labels(row, made.by), row) for row in made.rows)]
    if len(lines) > 1 or not made.by:
        lines.append((["total", *[""] * (len(made.by) - 1)], made.total))
    billed, booked, differs = (
        money([getattr(row, name) for _, row in lines]) for name in ("billed", "booked", "difference")
    )
    columns = [
        *(text_column(name.capitalize()) for name in made.by or ("",)),
        *map(Column, ("Billed", "Booked", "Difference", "%")),
        Column("Why", "left", folds=True, names=False),
    ]
    rows: list[Sequence[Cell]] = [
        (
            *labels,
            billed[at],
            booked[at],
            differs[at],
            "" if row.percent is None else f"{row.percent:.1f}",
            _why(row),
        )
        for at, (labels, row) in enumerate(lines)
    ]
    return listing(columns, rows, here.console, totals=len(lines) > len(made.rows))


def _labels(row: ReconciledRow, by: Sequence[Grouping]) -> list[str]:
    return [printable(str(getattr(row, name))) for name in by]


def _why(row: ReconciledRow) -> str:
    """Return the reasons, what explains most first; unless there is only one, each with its amount."""
    found = [(name, nanos) for name, nanos in row.reasons.items() if nanos]
    if row.unexplained:
        found.append(("unexplained", row.unexplained))
    found.sort(key=lambda one: -abs(one[1]))
    if len(found) == 1:
        return found[0][0]
    return ", ".join(
        f"{name} {amount}" for (name, _), amount in zip(found, money([n for _, n in found]), strict=True)
    )


def _reason_column(name: str) -> str:
    """Return the column of a reason; those of calls that expired or are open have the plain names."""
    return f"reason_{name.replace(' ', '_')}"


def _write_csv(made: Reconciliation) -> None:
    fixed = [name for name in made.total.to_dict() if name not in ("reasons", "units")]
    writer = DictWriter(
        sys.stdout, [*made.by, *fixed, *map(_reason_column, REASONS)], restval="", lineterminator="\n"
    )
    writer.writeheader()
    for row in made.to_dict()["rows"]:
        del row["units"]
        reasons = {_reason_column(name): usd for name, usd in row.pop("reasons").items()}
        labels: dict[str, object] = {name: no_formula(row[name]) for name in made.by}
        writer.writerow({**row, **labels, **reasons})
