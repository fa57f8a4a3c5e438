"""`guard.reconcile`: calls that a guard made, against bills that were fetched or saved."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import budgetguard
from budgetguard import ConfigurationError, Guard, UnguardedCallError
from budgetguard.billing import Bill, Threshold, anthropic_bill, openai_bill
from budgetguard.core.holds import Settlement, recorded_hold
from budgetguard.core.money import Nanos
from budgetguard.core.usage import Usage
from budgetguard.testing.clock import FakeClock
from tests.cli.helpers import book

from .conftest import at, day
from .server import (
    ANTHROPIC_KEY,
    OPENAI_KEY,
    BillingServer,
    claude_cost,
    claude_usage,
    openai_cost,
    openai_usage,
)

Call = Callable[..., Nanos]
HAIKU = "claude-haiku-4-5-20251001"


def fetched(bills: BillingServer, *, since: int = 5, until: int = 0) -> Bill:
    return openai_bill(day(since), day(until), key=OPENAI_KEY, base_url=bills.url)


def bill_mini(bills: BillingServer, ago: int, tokens_in: int, tokens_out: int, requests: int) -> None:
    """Bill gpt-4o-mini at its listed price."""
    name = "gpt-4o-mini-2024-07-18"
    bills.costs.setdefault(day(ago), []).extend(
        [
            openai_cost(f"{Decimal(tokens_in) * 150 / 10**9:f}", f"{name}, input", tokens_in),
            openai_cost(f"{Decimal(tokens_out) * 600 / 10**9:f}", f"{name}, output", tokens_out),
        ]
    )
    bills.usage.setdefault("completions", {}).setdefault(day(ago), []).append(openai_usage(name, requests))


def test_calls_and_the_bill_agree_to_the_nano(
    guard: Guard, clock: FakeClock, call: Call, bills: BillingServer
) -> None:
    for ago in (4, 3, 2):
        clock.set(at(ago))
        for _ in range(3):
            call("gpt-4o-mini", input_tokens=1_000, output_tokens=50)
        bill_mini(bills, ago, 3_000, 150, 3)
    found = guard.reconcile(fetched(bills))
    assert [(row.day, row.model, row.calls, row.requests, row.difference) for row in found.rows] == [
        (day(ago).isoformat(), "gpt-4o-mini", 3, 3, 0) for ago in (4, 3, 2)
    ]
    assert found.total.booked == 3 * (3_000 * 150 + 150 * 600)
    assert not any(found.total.reasons.values())
    assert found.exceeding("0%") == ()


def test_cached_and_written_tokens_searches_and_batches_of_claude_agree(
    guard: Guard, call: Call, bills: BillingServer
) -> None:
    call(
        "claude-haiku-4-5",
        input_tokens=1_500,
        cache_read_tokens=300,
        cache_write_tokens=200,
        cache_write_5m_tokens=150,
        cache_write_1h_tokens=50,
        output_tokens=80,
        web_searches=2,
    )
    # $1, $5, $0.10, $1.25 and $2 per million; $10 for 1 000 searches.
    bills.report[day(3)] = [
        claude_cost("0.1", HAIKU, "uncached_input_tokens"),
        claude_cost("0.003", HAIKU, "cache_read_input_tokens"),
        claude_cost("0.01875", HAIKU, "cache_creation.ephemeral_5m_input_tokens"),
        claude_cost("0.01", HAIKU, "cache_creation.ephemeral_1h_input_tokens"),
        claude_cost("0.04", HAIKU, "output_tokens"),
        claude_cost("2", None, None, cost_type="web_search"),
    ]
    bills.tokens[day(3)] = [
        claude_usage(
            HAIKU,
            uncached_input_tokens=1_000,
            cache_read_input_tokens=300,
            written_5m=150,
            written_1h=50,
            output_tokens=80,
        )
    ]
    bill = anthropic_bill(day(5), day(0), key=ANTHROPIC_KEY, base_url=bills.url)
    found = guard.reconcile(bill)
    assert {row.model: (row.billed, row.difference) for row in found.rows} == {
        "claude-haiku-4-5": (1_717_500, 0),
        "(web search)": (20_000_000, 0),
    }


def test_every_kind_of_call_gives_its_reason(
    guard: Guard, clock: FakeClock, call: Call, bills: BillingServer
) -> None:
    clock.set(at(4))
    held = 200_000
    book(guard, "u", held, end="open")
    clock.set(at(3))  # it has expired meanwhile
    call("gpt-4o-mini", input_tokens=1_000, output_tokens=100)
    with (
        pytest.raises(TimeoutError),
        guard.call(user="u", model="gpt-4o", input_tokens=1_000, max_output_tokens=100),
    ):
        raise TimeoutError
    bill_mini(bills, 3, 1_500, 100, 2)
    bills.costs[day(3)].append(openai_cost("0.5", "web search tool calls", 50))
    bills.costs[day(2)] = [openai_cost("-10", "credit")]
    found = guard.reconcile(fetched(bills))
    by = {(row.day, row.model): row for row in found.rows}
    expired = by[day(4).isoformat(), "gpt-4o-mini"]
    assert (expired.booked, dict(expired.reasons), expired.expired) == (held, {"expired": -held}, 1)
    assert by[day(3).isoformat(), "gpt-4o-mini"].reasons == {"unbooked": 500 * 150}
    lost = by[day(3).isoformat(), "gpt-4o"]
    assert (dict(lost.reasons), lost.estimated) == ({"estimated": -lost.booked}, 1)
    assert by[day(3).isoformat(), "(web search)"].reasons == {"tools": 500_000_000}
    assert by[day(2).isoformat(), "(credit)"].reasons == {"no model": -10_000_000_000}
    total = found.total
    assert sum(total.reasons.values()) + total.unexplained == total.difference
    # It comes to an end after all, on the day on which as much is billed beyond the other call.
    (hold,) = (recorded_hold(one) for one in guard.calls() if one.state == "expired")
    guard.store.settle(hold, Settlement(150_600, usage=Usage.of(input_tokens=1_000, output_tokens=1)))
    again = guard.reconcile(fetched(bills))
    late = next(row for row in again.rows if row.day == day(4).isoformat())
    assert (late.expired, late.calls, dict(late.reasons)) == (
        0,
        1,
        {"midnight": -75_000, "unbilled": -75_600},
    )


def test_a_call_that_began_before_the_bill_explains_what_is_billed_after_midnight(
    guard: Guard, clock: FakeClock, bills: BillingServer
) -> None:
    clock.set(at(4, 23, 59))
    book(guard, "u", 150_000, end="open")
    clock.set(at(3, 0, 1))
    (hold,) = (recorded_hold(one) for one in guard.calls())
    guard.store.settle(hold, Settlement(150_000, usage=Usage.of(input_tokens=1_000)))
    bill_mini(bills, 3, 1_000, 0, 1)
    found = guard.reconcile(fetched(bills, since=3))
    assert (found.total.booked, found.total.reasons) == (0, {"midnight": 150_000})


def test_calls_of_providers_without_a_bill_are_left_out_and_told(
    guard: Guard, call: Call, bills: BillingServer
) -> None:
    mini, claude = call("gpt-4o-mini", input_tokens=100), call("claude-haiku-4-5", input_tokens=100)
    azure = call("azure/gpt-4o-mini", input_tokens=100)
    bill_mini(bills, 3, 100, 0, 1)
    found = guard.reconcile(fetched(bills))
    assert (found.total.booked, found.total.difference) == (mini, 0)
    assert found.left_out == {"anthropic": claude, "azure": azure}
    assert found.to_dict()["left_out"] == {"anthropic": "0.0001", "azure": "0.000015"}


def test_a_deployment_is_the_model_that_model_map_says(
    guard: Guard, call: Call, bills: BillingServer
) -> None:
    guard.configure(model_map={"cheap": "gpt-4o-mini"})
    call("cheap", input_tokens=100)
    bill_mini(bills, 3, 100, 0, 1)
    assert guard.reconcile(fetched(bills)).total.difference == 0


def test_files_and_bills_together_and_rows_by_anything(
    guard: Guard, clock: FakeClock, call: Call, bills: BillingServer, tmp_path: Path
) -> None:
    for ago in (4, 3):
        clock.set(at(ago))
        call("gpt-4o-mini", input_tokens=1_000, output_tokens=0)
        call("claude-haiku-4-5", input_tokens=1_000, output_tokens=0)
        bill_mini(bills, ago, 1_000, 0, 1)
    path = tmp_path / "claude.csv"
    path.write_text(f"date,model,usd\n{day(4)},Claude Haiku 4.5,0.001\n{day(3)},Claude Haiku 4.5,0.002\n")
    found = guard.reconcile(fetched(bills), str(path), by=["provider"])
    assert [(row.provider, row.day, row.model, row.difference) for row in found.rows] == [
        ("anthropic", None, None, 1_000_000),
        ("openai", None, None, 0),
    ]
    assert guard.reconcile(fetched(bills), path, by=()).rows == (found.total,)
    # Only the days that are asked for.
    one = guard.reconcile(fetched(bills), path, since=day(4), until=day(3))
    assert {row.day for row in one.rows} == {day(4).isoformat()}
    assert one.total.difference == 0
    assert (one.since, one.until) == (day(4), day(3))


def test_the_value_is_json_ready_with_no_digit_lost(guard: Guard, call: Call, bills: BillingServer) -> None:
    call("gpt-4o-mini", input_tokens=1_000, output_tokens=1)
    bill_mini(bills, 3, 3_000, 1, 2)
    found = json.loads(json.dumps(guard.reconcile(fetched(bills)).to_dict()))
    assert found["rows"] == [
        {
            "day": day(3).isoformat(),
            "model": "gpt-4o-mini",
            "billed": "0.0004506",
            "booked": "0.0001506",
            "difference": "0.0003",
            "percent": "66.58",
            "reasons": {"unbooked": "0.0003"},
            "unexplained": "0.00",
            "calls": 1,
            "expired": 0,
            "estimated": 0,
            "open": 0,
            "requests": 2,
            "units": {
                "input_tokens": {"billed": 3_000, "booked": 1_000},
                "output_tokens": {"billed": 1, "booked": 1},
            },
        }
    ]
    assert found["by"] == ["day", "model"]
    assert found["total"]["difference"] == "0.0003"


def test_thresholds_are_of_the_total_of_rows_or_of_what_is_unexplained(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text(f"date,model,usd\n{day(3)},gpt-4o,100\n{day(2)},gpt-4o,-98\n")
    found = guard.reconcile(path)
    assert found.total.difference == 2_000_000_000
    assert found.exceeding("2.00") == ()
    assert found.exceeding("1.99") == (found.total,)
    assert len(found.exceeding("50", each=True)) == 2
    assert found.exceeding("100%") == ()
    assert found.exceeding(Threshold(percent=Decimal("99.9"))) == (found.total,)
    assert found.exceeding("0", unexplained=True) == ()


@pytest.mark.parametrize("text", ["", "x", "-1", "-2%", "nan%", "inf", "2 percent", "%"])
def test_a_bad_threshold_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        Threshold.parse(text)


def test_any_difference_is_more_than_a_part_of_nothing() -> None:
    assert Threshold.parse("2%").is_exceeded_by(-1, 0)
    assert not Threshold.parse("2%").is_exceeded_by(0, 0)


def test_days_that_are_not_over_or_no_longer_on_record_are_told(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    path.write_text(f"date,model,usd\n{day(200)},gpt-4o,1\n{day(0)},gpt-4o,1\n")
    guard.configure(clock=lambda: at(0))
    over, kept = guard.reconcile(path).notes
    assert "is not over" in over
    assert "kept for 90d" in kept


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"by": ["user"]}, "rows are by provider, day, model"),
        ({"by": ["day", "day"]}, "once"),
        ({"since": day(9), "until": day(8)}, "none of the days"),
        ({"since": day(1), "until": day(1)}, "is not before"),
        ({"since": "2026-11-01"}, "a datetime.date"),
    ],
)
def test_bad_arguments_are_refused_by_name(
    guard: Guard, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    path = tmp_path / "bill.csv"
    path.write_text(f"date,model,usd\n{day(3)},gpt-4o,1\n")
    with pytest.raises(ConfigurationError, match=told):
        guard.reconcile(path, **change)


def test_no_bill_and_something_else_are_refused(guard: Guard) -> None:
    with pytest.raises(ConfigurationError, match="which bill"):
        guard.reconcile()
    with pytest.raises(ConfigurationError, match="not 7"):
        guard.reconcile(7)  # type: ignore[arg-type]


def test_the_module_has_the_same_on_the_default_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgetguard, "_guard", Guard(store="memory://", project="p"))
    path = tmp_path / "bill.csv"
    path.write_text(f"date,model,usd\n{day(3)},gpt-4o,1\n")
    assert budgetguard.reconcile(path).total.reasons == {"unbooked": 1_000_000_000}


def test_bills_are_fetched_where_nothing_may_go_around_the_guard(bills: BillingServer) -> None:
    guard = Guard(store="memory://", unguarded="block", provider_hosts=(urlsplit(bills.url).netloc,))
    guard.patch("openai")
    try:
        with pytest.raises(UnguardedCallError):
            urllib.request.urlopen(bills.url)
        assert fetched(bills).lines == ()
    finally:
        guard.configure(unguarded="allow")
        guard.unpatch("openai")
