"""Forecasts in `show`, `users` and `report`, read as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from budgetguard.core.process import system_clock
from budgetguard.guard import Guard

from .helpers import Command, book

DOLLAR = 10**9
HOUR = 3_600_000
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d"
FORECAST = re.compile(
    rf"on course for \$([\d.]+) \(\$([\d.]+) to \$([\d.]+)\) by {TIME}, "
    rf"limit reached about {TIME} \(from {TIME}( to {TIME})?\)"
)


@pytest.fixture
def spent(guard: Guard) -> Guard:
    """A guard of alice, who has spent a cent an hour for 10 days, and of bob, who has made three calls."""
    now = system_clock()
    ago = [10 * 24 * HOUR]
    past = Guard(store=guard.settings.store, project="default", clock=lambda: now - ago[0])
    for user in ("alice", "bob"):
        past.set_budget(3.5, user=user, duration="30d")
    while ago[0] > 0:
        book(past, "alice", DOLLAR // 100)
        ago[0] -= HOUR
    past.close()
    for _ in range(3):
        book(guard, "bob", DOLLAR // 100)
    return guard


def test_show_says_what_a_budget_is_on_course_for(command: Command, spent: Guard) -> None:
    shown = " ".join(command("show", "alice", COLUMNS="300").out.split())
    found = FORECAST.search(shown)
    assert found is not None, shown
    expected, low, high = map(float, found.groups()[:3])
    assert low < expected < high
    assert expected == pytest.approx(7.2, rel=0.05)
    made = command("show", "alice", "--json").object["forecast"]
    assert float(made["expected"]) == pytest.approx(expected, abs=0.01)
    assert (made["exceeds"], made["is_known"], made["calls"]) == (True, True, 239)
    times = [datetime.fromisoformat(made[name]) for name in ("at", "earliest", "limit_reached_at", "until")]
    assert times == sorted(times)
    assert times[0].tzinfo == UTC
    assert Decimal(made["low"]) <= Decimal(made["expected"]) <= Decimal(made["high"])


def test_show_says_that_there_is_too_little_data(command: Command, spent: Guard) -> None:
    assert "too little data (2 calls in under a minute)" in command("show", "bob").out
    assert command("show", "bob", "--json").object["forecast"]["expected"] is None
    assert "Forecast" not in command("show", "bob", "--no-forecast").out
    assert "forecast" not in command("show", "bob", "--no-forecast", "--json").object


def test_show_foresees_the_limit_of_a_budget_that_never_resets(command: Command, spent: Guard) -> None:
    spent.set_budget(3.5, user="alice")
    spent.set_budget(None, user="bob")
    shown = " ".join(command("show", "alice", COLUMNS="300").out.split())
    assert re.search(rf"Forecast limit reached about {TIME} \(from {TIME}( to {TIME})?\)", shown)
    assert "Forecast" not in command("show", "bob").out
    spent.set_budget(1, user="alice")
    assert "the limit is reached" in command("show", "alice").out
    spent.set_budget(1000, user="alice")
    assert "limit not reached in the time that can be foreseen" in command("show", "alice", COLUMNS="300").out


def test_users_shows_forecasts_where_there_is_room(command: Command, spent: Guard) -> None:
    wide = command("users", COLUMNS="160").out
    assert "On course for" in wide
    assert "Limit reached" in wide
    (alice,) = [line for line in wide.splitlines() if line.startswith("alice")]
    assert re.search(rf"\$7\.\d\d \(\$[\d.]+ to \$[\d.]+\) +{TIME}$", alice.rstrip())
    (bob,) = [line for line in wide.splitlines() if line.startswith("bob")]
    assert " to " not in bob
    assert "On course" not in command("users", COLUMNS="80").out
    assert "On course" not in command("users", "--no-forecast", COLUMNS="160").out
    for columns in (80, 100, 120, 160):
        lines = command("users", COLUMNS=str(columns)).out.splitlines()
        assert max(len(line) for line in lines if not line.endswith(".")) <= columns


def test_users_in_json_have_forecasts_if_that_is_asked(command: Command, spent: Guard) -> None:
    plain = command("users", "--json").objects
    assert [one["user"] for one in plain if "forecast" in one] == []
    full = command("users", "--json", "--forecast").objects
    assert [(one["user"], one["forecast"]["is_known"]) for one in full] == [("alice", True), ("bob", False)]


def test_users_without_any_forecast_have_no_column_of_it(command: Command, guard: Guard) -> None:
    guard.set_budget(1, user="alice", duration="monthly")
    assert "On course" not in command("users", COLUMNS="200").out


def test_a_report_of_the_month_ends_with_its_course(command: Command, spent: Guard) -> None:
    told = command("report", "--timezone", "UTC").out.splitlines()[-1]
    found = re.match(
        rf"This month: \$([\d.]+) spent, on course for \$([\d.]+) \(\$([\d.]+) to \$([\d.]+)\) by {TIME}\.",
        told,
    )
    assert found is not None, told
    sofar, expected, low, high = map(float, found.groups())
    assert sofar <= low <= expected <= high
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    since = command("report", "--json", "--since", month.isoformat()).object
    assert sofar == pytest.approx(float(since["total"]["spent"]), abs=0.011)
    for arguments in (["--json"], ["--csv"], ["--until", "1d"], ["--since", "1s"], ["--user", "bob"]):
        assert "This month" not in command("report", "--timezone", "UTC", *arguments).out
