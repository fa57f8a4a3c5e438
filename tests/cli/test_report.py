"""Reports add up records exactly, whatever their order, and look at nothing else."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from budgetguard.core.holds import HoldRecord, HoldState
from budgetguard.core.report import matching, summarize
from budgetguard.core.usage import Usage
from budgetguard.errors import ConfigurationError

NOON = round(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp() * 1000)


def record(
    user: str | None = "alice",
    cost: int = 0,
    *,
    model: str = "m",
    state: HoldState = "settled",
    amount: int = 0,
    created: int = NOON,
    tokens: tuple[int, int] = (0, 0),
) -> HoldRecord:
    return HoldRecord(
        id="h",
        state=state,
        accounts=(),
        amount_nanos=amount,
        on_expiry_nanos=0,
        cost_nanos=cost,
        created_ms=created,
        expires_ms=created + 1,
        ended_ms=None,
        user=user,
        model=model,
        endpoint="chat",
        outcome=None,
        request_id=None,
        usage=Usage.of(input_tokens=tokens[0], output_tokens=tokens[1]),
    )


def test_each_state_counts_where_it_belongs() -> None:
    total = summarize(
        [
            record(cost=5, amount=9, tokens=(3, 2)),
            record(cost=7, amount=7, state="expired"),
            record(amount=11, state="held"),
            record(amount=13, state="voided"),
        ]
    ).total
    assert (total.calls, total.expiries, total.open, total.voided) == (2, 1, 1, 1)
    assert (total.spent, total.held) == (12, 11)
    assert (total.input_tokens, total.output_tokens) == (3, 2)


def test_rows_add_up_to_the_total_and_do_not_depend_on_order() -> None:
    chance = random.Random(1)
    records = [
        record(chance.choice("abc"), chance.randrange(10**12), model=chance.choice("xy"), tokens=(1, 2))
        for _ in range(500)
    ]
    report = summarize(records, ("user", "model"))
    booked = sum(record.cost_nanos for record in records)
    assert sum(totals.spent for _, totals in report.rows) == report.total.spent == booked
    assert len(report.rows) == 6
    assert summarize(reversed(records), ("user", "model")) == report


def test_money_beyond_the_precision_of_floats_is_exact() -> None:
    total = summarize([record(cost=2**53 - 1), record(cost=1), record(cost=1)]).total
    assert total.spent == 2**53 + 1
    assert total.to_dict()["spent"] == "9007199.254740993"


def test_what_cost_most_comes_first_within_days_in_order() -> None:
    day = 86_400_000
    records = [
        record("cheap", 1, created=NOON),
        record("dear", 9, created=NOON),
        record("late", 99, created=NOON + day),
    ]
    by_user = summarize(records)
    assert [key for key, _ in by_user.rows] == [("late",), ("dear",), ("cheap",)]
    by_day = summarize(records, ("user", "day"), zone=UTC)
    assert [key for key, _ in by_day.rows] == [
        ("dear", "2026-11-01"),
        ("cheap", "2026-11-01"),
        ("late", "2026-11-02"),
    ]


def test_a_day_is_the_zones() -> None:
    midnight = round(datetime(2026, 11, 2, tzinfo=ZoneInfo("Asia/Tokyo")).timestamp() * 1000)
    records = [record(cost=1, created=midnight - 1), record(cost=2, created=midnight)]
    in_tokyo = summarize(records, ("day",), zone=ZoneInfo("Asia/Tokyo"))
    assert [(key, totals.spent) for key, totals in in_tokyo.rows] == [
        (("2026-11-01",), 1),
        (("2026-11-02",), 2),
    ]
    assert [key for key, _ in summarize(records, ("day",), zone=UTC).rows] == [("2026-11-01",)]


def test_nobody_and_no_day_are_kept_apart_from_names() -> None:
    report = summarize([record(None, 1), record("", 2), record("a", 4, created=0)], ("user", "day"), zone=UTC)
    assert {key: totals.spent for key, totals in report.rows} == {
        (None, "2026-11-01"): 1,
        ("", "2026-11-01"): 2,
        ("a", None): 4,
    }
    assert report.labels((None, None)) == ("(no user)", "(imported)")
    assert report.total.calls == 2, "what was imported is spent, but was no call of ours"


def test_no_dimension_makes_the_total_alone() -> None:
    report = summarize([record(cost=1), record("bob", 2)], ())
    assert [(key, totals.spent) for key, totals in report.rows] == [((), 3)]


def test_users_are_taken_literally_and_models_as_patterns() -> None:
    records = [record("a*", model="gpt-4o"), record("ab", model="gpt-4o-mini"), record(None, model="o3")]
    assert [one.user for one in matching(records, users=["a*"])] == ["a*"]
    assert [one.model for one in matching(records, models=["gpt-*"])] == ["gpt-4o", "gpt-4o-mini"]
    assert [one.model for one in matching(records, models=["gpt-4o", "o3"])] == ["gpt-4o", "o3"]
    assert list(matching(records)) == records


@pytest.mark.parametrize(
    "by", [("Colour",), ("unit",), ("",), ("user", "user"), tuple(f"label_{n}" for n in range(9))]
)
def test_a_dimension_that_is_none_is_refused(by: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'Colour'|'unit'|''|once|at most 8"):
        summarize([], by)
