"""Reports by labels and months, what shadow budgets would refuse, and the list of calls."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.core.holds import HoldRecord
from budgetguard.core.report import DIMENSIONS, Totals, matching, summarize, summarize_shadows
from budgetguard.core.usage import Usage
from budgetguard.guard import Guard

from .helpers import Command
from .test_label_budgets import call

NOON = round(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp() * 1000)
REQUESTS = "labels:@unit=requests&team=red"
CONCURRENT = "labels:@unit=concurrent&team=red"


def record(cost: int = 1, *, created: int = NOON, state: Any = "settled", **more: Any) -> HoldRecord:
    values: dict[str, Any] = {
        "id": "h",
        "state": state,
        "accounts": (),
        "amount_nanos": 2 * cost,
        "on_expiry_nanos": 0,
        "cost_nanos": cost if state in ("settled", "expired") else 0,
        "created_ms": created,
        "expires_ms": created + 1,
        "ended_ms": None,
        "user": "alice",
        "model": "m",
        "endpoint": "chat",
        "outcome": None,
        "request_id": None,
    }
    return HoldRecord(**{**values, **more})


names = st.sampled_from(["red", "blue", "=x", "a b", "Ω"])
records = st.lists(
    st.builds(
        record,
        st.integers(0, 2**53 - 1),
        created=st.integers(0, 3 * 10**12),
        state=st.sampled_from(["held", "settled", "voided", "expired"]),
        user=st.none() | names,
        model=names,
        labels=st.dictionaries(st.sampled_from(["team", "customer", "provider"]), names, max_size=3),
        tags=st.lists(names, max_size=3, unique=True).map(tuple),
        usage=st.builds(
            lambda read, wrote: Usage.of(input_tokens=read, output_tokens=wrote), *[st.integers(0, 10**6)] * 2
        ),
        shadowed=st.lists(st.sampled_from(["team:red", REQUESTS, CONCURRENT]), unique=True).map(tuple),
        units=st.just({}) | st.builds(lambda n: {"requests": (1, 1, n)}, st.integers(0, 1)),
    ),
    max_size=30,
)
dimensions = st.lists(
    st.sampled_from([*DIMENSIONS, "team", "customer", "feature"]), max_size=4, unique=True
).map(tuple)


def measures(totals: Totals) -> Counter[str]:
    return Counter({name: getattr(totals, name) for name in Totals.__dataclass_fields__})


@given(records, dimensions)
@settings(max_examples=150, deadline=None)
def test_rows_by_label_add_up_to_the_total_each_call_once(made: list[HoldRecord], by: Sequence[str]) -> None:
    report = summarize(made, by, zone=UTC)
    alone = Totals()
    for one in made:
        alone.add(one)
    assert report.total == alone, "each call is once in the total, whatever it is added up by"
    rows = sum((measures(totals) for _, totals in report.rows), Counter[str]())
    if "tag" not in by:
        assert rows == +measures(report.total)
    else:
        many = Totals()
        for one in made:
            for _ in one.tags or (None,):
                many.add(one)
        assert rows == +measures(many), "a call of several tags is in the row of each"
    assert len({key for key, _ in report.rows}) == len(report.rows)


@given(records, st.sampled_from(["team", "customer", "month", "provider", "user"]))
@settings(max_examples=100, deadline=None)
def test_a_row_is_what_its_own_calls_come_to(made: list[HoldRecord], by: str) -> None:
    for (value,), totals in summarize(made, (by,), zone=UTC).rows:
        alone = Totals()
        for one in made:
            month = None if one.created_ms == 0 else f"{one.created_at:%Y-%m}"
            mine = {"user": one.user, "month": month}.get(by, one.labels.get(by))
            if mine == value:
                alone.add(one)
        assert totals == alone


@given(records, st.sampled_from(["red", "=x", "Ω"]))
@settings(max_examples=100, deadline=None)
def test_matching_a_label_and_its_row_agree(made: list[HoldRecord], team: str) -> None:
    rows = dict(summarize(made, ("team",), zone=UTC).rows)
    chosen = summarize(matching(made, labels={"team": team}), (), zone=UTC).total
    assert rows.get((team,), Totals()) == chosen


@given(records)
@settings(max_examples=100, deadline=None)
def test_what_shadows_would_refuse_is_counted_by_account(made: list[HoldRecord]) -> None:
    report = summarize_shadows(made)
    hit = [one for one in made if one.shadowed and one.state != "voided"]
    assert report.calls == len(hit)
    assert report.spent == sum(one.amount_nanos if one.state == "held" else one.cost_nanos for one in hit)
    calls = {account: totals.calls for account, _, totals in report.rows}
    assert calls == {
        account: n
        for account in ("team:red", REQUESTS, CONCURRENT)
        if (n := sum(account in one.shadowed for one in hit))
    }
    by_user = summarize_shadows(made, ("user",)).rows
    split = Counter[str]()
    for account, _, totals in by_user:
        split[account] += totals.amount
    assert split == {account: totals.amount for account, _, totals in report.rows}


def test_months_are_the_zones_and_in_order() -> None:
    midnight = round(datetime(2026, 12, 1, tzinfo=ZoneInfo("Asia/Tokyo")).timestamp() * 1000)
    made = [record(9, created=midnight), record(1, created=midnight - 1), record(5, created=0)]
    assert [key for key, _ in summarize(made, ("month",), zone=ZoneInfo("Asia/Tokyo")).rows] == [
        (None,),
        ("2026-11",),
        ("2026-12",),
    ]
    assert [key for key, _ in summarize(made[:2], ("month",), zone=UTC).rows] == [("2026-11",)]
    both = summarize(made, ("day", "month"), zone=UTC)
    assert [key for key, _ in both.rows][1:] == [("2026-11-30", "2026-11")]
    assert both.labels((None, None)) == ("(imported)", "(imported)")


def test_labels_match_as_budgets_do() -> None:
    red, blue, none = record(labels={"team": "red"}), record(labels={"team": "blue*"}), record()
    made = [red, blue, none]
    assert list(matching(made, labels={"team": "r*"})) == [red]
    assert list(matching(made, labels={"team": ["red", r"blue\*"]})) == [red, blue]
    assert list(matching(made, labels={"team": "*"})) == [red, blue], "without the label nothing matches"
    assert list(matching(made, labels={"team": "red", "user": "alice"})) == [red]
    assert list(matching(made, labels={"day": "2026-11-01"})) == [], "no label of this name"
    assert list(matching(made, labels={})) == made


def spend(guard: Guard) -> None:
    """Make calls of two teams, one of them with a budget that lets through what it has no room for."""
    guard.set_budget(0.0001, team="red", on_limit="shadow")
    guard.set_budget(1, team="red", unit="requests", on_limit="shadow")
    guard.set_budget(1, user="alice")
    for model, labels in (
        ("gpt-4o", {"team": "red"}),
        ("gpt-4o-mini", {"team": "red", "customer": "=cmd()"}),
    ):
        call(guard, model, "alice", **labels)
    call(guard, "gpt-4o-mini", "alice", team="blue")
    call(guard, "gpt-4o-mini", "alice")


def test_a_chargeback_by_team_and_month(command: Command, guard: Guard) -> None:
    spend(guard)
    now = datetime.fromtimestamp(guard.engine.now() / 1000, UTC)
    month = f"{now:%Y-%m}"
    report = command("report", "--by", "team", "--month", month, "--timezone", "UTC", "--json").object
    assert [(row["team"], row["calls"]) for row in report["rows"]] == [("red", 2), ("blue", 1), (None, 1)]
    assert report["since"] == f"{month}-01T00:00:00+00:00"
    spread = command("report", "--by", "team,month", "--by", "provider", "--timezone", "UTC", "--csv").out
    rows = list(csv.DictReader(io.StringIO(spread)))
    assert [(row["team"], row["month"], row["provider"], row["calls"]) for row in rows] == [
        ("red", month, "openai", "2"),
        ("blue", month, "openai", "1"),
        ("", month, "openai", "1"),
    ]
    assert sum(Decimal(row["spent"]) for row in rows) == Decimal(report["total"]["spent"])
    assert "(no team)" in command("report", "--by", "team").out
    assert "No calls" in command("report", "--month", "2020-02").out
    only = command("report", "--label", "team=red", "--label", "customer=*", "--json").object
    assert only["total"]["calls"] == 1
    either = command("report", "-l", "team=red", "-l", "team=blue", "--json").object
    assert either["total"]["calls"] == 3


def test_a_label_that_no_call_has_is_told(command: Command, guard: Guard) -> None:
    spend(guard)
    assert "None of them has a label 'taem'" in command("report", "--by", "taem").out
    assert "None of them" not in command("report", "--by", "team").out


def test_shadow_tells_by_budget_what_would_have_been_refused(command: Command, guard: Guard) -> None:
    spend(guard)
    report = command("report", "--shadow", "--json").object
    assert [(row["account"], row["unit"], row["calls"]) for row in report["rows"]] == [
        (REQUESTS, "requests", 1),
        ("team:red", "usd", 2),
    ]
    assert [row["amount"] for row in report["rows"]] == ["1", report["total"]["spent"]]
    assert report["total"]["calls"] == 2, "a call that two budgets would refuse is one call"
    table = command("report", "--shadow").out
    assert re.search(r"^team 'red' \(requests\) +1 +1 request$", table.replace(" \n", "\n"), re.MULTILINE)
    assert "2 calls on record would have been refused" in table
    spread = command("report", "--shadow", "--by", "customer", "--csv").out
    rows = list(csv.DictReader(io.StringIO(spread)))
    assert {row["customer"] for row in rows} == {"'=cmd()", ""}
    assert sum(int(row["calls"]) for row in rows) == 3
    assert "would have been refused" in command("report", "--shadow", "--label", "team=blue").out
    assert command("report", "--shadow", "--label", "team=blue", "--csv").out.count("\n") == 1


def test_calls_lists_them_with_their_labels(command: Command, guard: Guard) -> None:
    spend(guard)
    rows = command("calls", "--json").objects
    assert [one["labels"].get("team") for one in rows] == ["red", "red", "blue", None]
    assert rows[0]["labels"]["provider"] == "openai"
    assert rows[0]["shadowed"] == ["team:red"]
    table = command("calls", "--label", "team=red", COLUMNS="250").out
    assert "team 'red', customer '=cmd()', provider 'openai'" in table
    assert "team 'red' would have refused it" in table
    assert "'blue'" not in table
    assert len(command("calls", "--shadow", "--json").objects) == 2
    newest = command("calls", "--limit", "1")
    assert "The newest 1 call" in newest.out
    assert "'" not in newest.out.splitlines()[2].replace("'openai'", "")
    spread = list(csv.DictReader(io.StringIO(command("calls", "--csv").out)))
    assert [row["labels"] for row in spread][1] == "team=red, customer==cmd(), provider=openai"
    assert [row["cost"] for row in spread] == [one["cost"] for one in rows]


@pytest.mark.parametrize("month", ["2026", "2026-13", "2026-1", "november", "2026-11-01", "0000-01", ""])
def test_a_month_that_is_none_is_refused(command: Command, guard: Guard, month: str) -> None:
    guard.set_budget(1)
    done = command("report", "--month", month)
    assert done.code == 2
    assert repr(month) in done.err
    assert "such as 2026-11" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--month", "2026-11", "--since", "7d"), "--month 2026-11"),
        (("--shadow", "--plot"), "choose one"),
        (("--by", "Team"), "'Team'"),
        (("--by", "limit"), "'limit'"),
        (("--by", "team,"), "''"),
        (("--label", "team"), "'team'"),
        (("--label", "Team=red"), "'Team'"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(
    command: Command, guard: Guard, arguments: tuple[str, ...], told: str
) -> None:
    guard.set_budget(1)
    done = command("report", *arguments)
    assert (done.code, done.out) == (2, "")
    assert told in done.err


def test_december_ends_with_the_year(command: Command, guard: Guard) -> None:
    spend(guard)
    assert command("report", "--month", "2026-12", "--timezone", "UTC", "--json").object["until"] == (
        "2027-01-01T00:00:00+00:00"
    )
    assert command("report", "--month", "9999-12").code == 2
