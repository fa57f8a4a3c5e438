"""`calls`: the records of calls, one by one, with their labels."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from csv import DictWriter
from typing import Annotated, Any, Final

from budgetguard.cli import options
from budgetguard.cli.display import joined, money, when, zone_name
from budgetguard.cli.session import CommandSession, session
from budgetguard.cli.spending import no_formula
from budgetguard.cli.tables import Column, listing, text_column
from budgetguard.cli.which import several_labels
from budgetguard.cli.words import budget_in_words
from budgetguard.core.holds import HoldRecord
from budgetguard.core.report import matching
from budgetguard.core.windows import moment, to_datetime
from budgetguard.core.wording import count, printable
from budgetguard.errors import ConfigurationError

_TABLE_ROWS: Final = 100
_CSV: Final = (
    *("created_at", "state", "user", "model", "endpoint", "tags", "labels", "input_tokens"),
    *("output_tokens", "cost", "held", "shadowed", "id"),
)


def calls(
    since: options.Since = None,
    until: options.Until = None,
    user: options.OnlyUsers = None,
    model: options.OnlyModels = None,
    tag: options.OnlyTags = None,
    label: options.OnlyLabels = None,
    shadow: Annotated[
        bool, options.flag("Only those that a budget with --on-limit shadow would have refused.", "--shadow")
    ] = False,
    limit: Annotated[
        int | None,
        options.option(
            "N", f"The newest so many; 0 is all. By default {_TABLE_ROWS}, all with --json and --csv.", min=0
        ),
    ] = None,
    timezone: options.Timezone = None,
    store: options.Store = None,
    project: options.Project = None,
    csv: options.Csv = False,
    json: options.Json = False,
) -> None:
    """List calls that were made: when, whose, of what labels, at what cost.

    Oldest first, without what was said in them: no record has that. With --json one call a line.

    \b
    Examples:
      budgetguard calls --since 1d --label team=red
      budgetguard calls --shadow --csv
    """
    if csv and json:
        raise ConfigurationError("--csv and --json are two ways to write one list: choose one")
    with session(store, project, json=json, timezone=timezone) as here:
        now = to_datetime(here.guard.engine.now())
        first = None if since is None else moment(since, now, here.timezone, name="--since")
        last = None if until is None else moment(until, now, here.timezone, name="--until")
        if first is not None and last is not None and first >= last:
            raise ConfigurationError(f"--since {since} is not before --until {until}")
        records: Iterable[HoldRecord] = matching(
            here.guard.calls(first, last),
            users=user or (),
            models=model or (),
            tags=tag or (),
            labels=several_labels(label or (), "--label"),
        )
        if shadow:
            records = (one for one in records if one.shadowed)
        most = limit if limit is not None else None if csv or json else _TABLE_ROWS
        if most:
            records = deque(records, maxlen=most)
        if json:
            for record in records:
                here.write(call_object(here, record))
        elif csv:
            _write_csv(here, records)
        else:
            _show(here, list(records), most)


def call_object(here: CommandSession, record: HoldRecord) -> dict[str, Any]:
    """Return a call as `--json` shows it."""
    ended = record.ended_at
    return {
        "project": here.guard.project,
        "id": record.id,
        "state": record.state,
        "outcome": record.outcome,
        "user": record.user,
        "model": record.model,
        "endpoint": record.endpoint,
        "tags": list(record.tags),
        "labels": dict(record.labels),
        "accounts": list(record.accounts),
        "shadowed": list(record.shadowed),
        "input_tokens": record.usage.input_tokens,
        "output_tokens": record.usage.output_tokens,
        "cost": format(record.cost, "f"),
        "held": format(record.amount, "f") if record.state == "held" else "0.00",
        "created_at": record.created_at.isoformat(),
        "ended_at": None if ended is None else ended.isoformat(),
    }


def _write_csv(here: CommandSession, records: Iterable[HoldRecord]) -> None:
    writer = DictWriter(sys.stdout, _CSV, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for record in records:
        row = call_object(here, record)
        row["labels"] = joined(f"{name}={value}" for name, value in record.labels.items())
        row |= {name: joined(row[name]) for name in ("tags", "shadowed")}
        writer.writerow({name: no_formula(value) for name, value in row.items()})


def _show(here: CommandSession, rows: list[HoldRecord], most: int | None) -> None:
    if not rows:
        here.say(f"No such calls in {printable(here.place)}.")
        return
    cells = zip(
        [when(row.created_at, here.timezone) for row in rows],
        ["(no user)" if row.user is None else printable(row.user) for row in rows],
        [printable(row.model) for row in rows],
        [printable(joined(_said(row))) for row in rows],
        [f"{row.usage.input_tokens:,}" for row in rows],
        [f"{row.usage.output_tokens:,}" for row in rows],
        money([row.cost_nanos for row in rows]),
        [_state(row) for row in rows],
        strict=True,
    )
    columns = [
        Column("When", "left"),
        *map(text_column, ("User", "Model", "Labels")),
        *map(Column, ("Tokens in", "Tokens out", "Spent")),
        Column("State", "left", folds=True, is_fact=True),
    ]
    here.console.print(listing(columns, list(cells), here.console))
    shown = count(len(rows), "call")
    if most and len(rows) == most:
        shown = f"The newest {shown}; more with --limit"
    here.say(f"{shown} in {printable(here.place)}. Times are {zone_name(here.timezone)}.")


def _said(row: HoldRecord) -> Iterator[str]:
    yield from (f"{name} {value!r}" for name, value in row.labels.items())
    yield from (f"tag {tag!r}" for tag in row.tags)


def _state(row: HoldRecord) -> str:
    words = {"held": "under way", "settled": "", "voided": "given back"}
    refused = " and ".join(map(budget_in_words, row.shadowed))
    return joined((words.get(row.state, row.state), f"{refused} would have refused it" if refused else ""))
