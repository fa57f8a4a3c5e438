"""BudgetManager answers as LiteLLM's does, and has none of its faults."""

from __future__ import annotations

import inspect
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import budgetguard
from budgetguard import BudgetManager, ConfigurationError, Guard, UnknownUserError
from budgetguard.testing.clock import FakeClock
from tests.manager.answers import COST, MESSAGES, MODEL, completion

SIGNATURES = {
    "__init__": ["project_name", "client_type", "api_base", "headers"],
    "create_budget": ["total_budget", "user", "duration", "created_at"],
    "projected_cost": ["model", "messages", "user"],
    "get_total_budget": ["user"],
    "update_cost": ["user", "completion_obj", "model", "input_text", "output_text"],
    "get_current_cost": ["user"],
    "get_model_cost": ["user"],
    "is_valid_user": ["user"],
    "get_users": [],
    "reset_cost": ["user"],
    "reset_on_duration": ["user"],
    "update_budget_all_users": [],
    "save_data": [],
}
NEEDS_A_USER = {
    "projected_cost": lambda manager: manager.projected_cost(MODEL, MESSAGES, "nobody"),
    "get_total_budget": lambda manager: manager.get_total_budget("nobody"),
    "update_cost": lambda manager: manager.update_cost("nobody", completion()),
    "get_current_cost": lambda manager: manager.get_current_cost("nobody"),
    "get_model_cost": lambda manager: manager.get_model_cost("nobody"),
    "reset_cost": lambda manager: manager.reset_cost("nobody"),
    "reset_on_duration": lambda manager: manager.reset_on_duration("nobody"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_litellms_names_and_order_and_ours_are_by_keyword_only(name: str) -> None:
    parameters = inspect.signature(getattr(BudgetManager, name)).parameters
    by_position = [
        one.name
        for one in parameters.values()
        if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"
    ]
    assert by_position == SIGNATURES[name]


@pytest.mark.parametrize("name", NEEDS_A_USER)
def test_a_user_without_a_budget_is_a_key_error_that_says_how_to_make_one(
    manager: BudgetManager, name: str
) -> None:
    with pytest.raises(KeyError, match=r"'nobody' has no budget in project 'app'.*create_budget") as caught:
        NEEDS_A_USER[name](manager)
    assert isinstance(caught.value, UnknownUserError)
    assert manager.get_users() == []


# What is created


def test_a_new_user_has_litellms_record(manager: BudgetManager, clock: FakeClock) -> None:
    assert manager.create_budget(total_budget=10, user="1234", duration="weekly") == {
        "total_budget": 10.0,
        "duration": 7,
        "created_at": clock() / 1000,
        "last_updated_at": clock() / 1000,
        "current_cost": 0.0,
        "model_cost": {},
    }
    assert manager.is_valid_user("1234") is True
    assert manager.get_users() == ["1234"]
    assert manager.get_total_budget("1234") == 10.0
    assert manager.get_current_cost("1234") == 0.0
    assert manager.get_model_cost("1234") == {}
    assert manager.save_data() == {"status": "success"}


def test_a_record_is_json_of_floats(manager: BudgetManager) -> None:
    manager.create_budget(Decimal("0.1"), "1234")
    record = manager.update_cost("1234", completion())["user"]
    assert json.loads(json.dumps(record)) == record
    assert (type(record["total_budget"]), type(record["current_cost"])) == (float, float)
    assert (record["total_budget"], record["model_cost"]) == (0.1, {MODEL: COST})


def test_a_record_is_a_copy_and_not_the_books(manager: BudgetManager) -> None:
    manager.create_budget(10, "1234")
    for record in (manager.update_cost("1234", completion())["user"], manager.reset_cost("1234")["user"]):
        record["current_cost"] = 99.0
        record["model_cost"]["gpt-4o"] = 99.0
    manager.get_model_cost("1234")["gpt-4o"] = 99.0
    manager.get_users().append("5678")
    assert (manager.get_current_cost("1234"), manager.get_model_cost("1234")) == (0.0, {})
    assert manager.get_users() == ["1234"]


@pytest.mark.parametrize(
    ("duration", "days"),
    [("daily", 1), ("weekly", 7), ("7d", 7), ("2w", 14), ("monthly", 31), ("1mo", 31), ("yearly", 365)],
)
def test_a_record_says_how_many_days_the_present_window_has(
    manager: BudgetManager, duration: str, days: int
) -> None:
    assert manager.create_budget(10, "1234", duration)["duration"] == days


@pytest.mark.parametrize("duration", ["hourly", "30s", "12h"])
def test_a_record_says_a_duration_that_is_no_number_of_days_as_text(
    manager: BudgetManager, duration: str
) -> None:
    assert manager.create_budget(10, "1234", duration)["duration"] == duration


def test_a_budget_without_a_duration_is_stored_and_never_resets(
    manager: BudgetManager, clock: FakeClock
) -> None:
    assert "duration" not in manager.create_budget(10, "1234")
    manager.update_cost("1234", completion())
    clock.advance(50 * 365 * 86_400)
    manager.reset_on_duration("1234")
    assert manager.get_current_cost("1234") == COST


def test_a_budget_that_only_counts_has_an_infinite_total(manager: BudgetManager, guard: Guard) -> None:
    guard.set_budget(None, user="1234")
    assert manager.get_total_budget("1234") == math.inf
    assert manager.get_current_cost("1234") <= manager.get_total_budget("1234")


def test_creating_a_user_again_changes_limit_and_window_and_keeps_the_spend(
    manager: BudgetManager, guard: Guard
) -> None:
    manager.create_budget(10, "1234", "daily")
    manager.update_cost("1234", completion())
    record = manager.create_budget(20, "1234", "monthly")
    assert (record["total_budget"], record["duration"]) == (20.0, 31)
    assert (record["current_cost"], record["model_cost"]) == (COST, {MODEL: COST})
    assert manager.create_budget(5, "1234")["current_cost"] == COST
    assert guard.balance("1234").resets_at is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"total_budget": -1}, "total_budget must not be negative, and -1 is"),
        ({"total_budget": math.nan}, "total_budget must be a finite number of USD, not nan"),
        ({"total_budget": math.inf}, "total_budget must be a finite number of USD, not inf"),
        ({"total_budget": "10"}, "total_budget must be a number of USD such as 10 or 0.5, not '10'"),
        ({"total_budget": None}, "total_budget must be a number of USD such as 10 or 0.5, not None"),
        ({"total_budget": True}, "total_budget must be a number of USD"),
        ({"total_budget": 1e12}, "total_budget must be at most"),
        ({"duration": "fortnightly"}, "unknown duration 'fortnightly': use hourly, daily"),
        ({"duration": ""}, "unknown duration ''"),
        ({"duration": 28}, 'duration must be text such as "monthly" or "28d", not 28'),
        ({"duration": ["daily"]}, "duration must be text"),
        ({"created_at": math.nan}, "created_at must be epoch seconds or a datetime, not nan"),
        ({"created_at": -1}, "created_at must be epoch seconds or a datetime, not -1"),
        ({"created_at": 1e18}, "created_at must be epoch seconds or a datetime"),
        ({"created_at": "today"}, "created_at must be epoch seconds or a datetime, not 'today'"),
        ({"timezone": "Mars/Olympus"}, "unknown time zone 'Mars/Olympus'"),
        ({"align": "sideways"}, "align must be 'created' or 'calendar', not 'sideways'"),
        ({"user": 12.5}, "user must be text, not 12.5"),
        ({"user": True}, "user must be text, not True"),
        ({"user": ""}, "user must not be empty"),
    ],
)
def test_a_bad_argument_is_named_and_changes_nothing(
    manager: BudgetManager, arguments: dict[str, Any], says: str
) -> None:
    before = manager.create_budget(10, "1234", "daily")
    with pytest.raises(ConfigurationError) as caught:
        manager.create_budget(**{"total_budget": 20, "user": "1234", "duration": "monthly", **arguments})
    assert says in str(caught.value)
    assert manager.get_users() == ["1234"]
    assert manager.update_cost("1234", completion(0, 0))["user"] == before


@pytest.mark.parametrize("user", [None, 1234, "", "no\nbody", "nobody"])
def test_what_cannot_be_a_user_or_is_none_is_not_valid(manager: BudgetManager, user: Any) -> None:
    assert manager.is_valid_user(user) is False


@pytest.mark.parametrize("user", [None, ""])
def test_no_user_is_never_the_projects_own_budget(manager: BudgetManager, guard: Guard, user: Any) -> None:
    guard.set_budget(100)
    for ask in (manager.get_total_budget, manager.get_current_cost, manager.reset_cost):
        with pytest.raises(ConfigurationError, match="user must"):
            ask(user)


def test_a_reset_is_stored(manager: BudgetManager, guard: Guard) -> None:
    manager.create_budget(10, "1234")
    manager.update_cost("1234", completion())
    record = manager.reset_cost("1234")["user"]
    assert (record["total_budget"], record["current_cost"], record["model_cost"]) == (10.0, 0.0, {})
    guard.close()
    assert BudgetManager("app", guard=guard).get_current_cost("1234") == 0.0


# Which project, which guard


def test_projects_share_no_users(guard: Guard) -> None:
    mine, theirs = BudgetManager("mine", guard=guard), BudgetManager("theirs", guard=guard)
    mine.create_budget(10, "1234")
    theirs.create_budget(20, "1234")
    mine.update_cost("1234", completion())
    assert (mine.get_total_budget("1234"), theirs.get_total_budget("1234")) == (10.0, 20.0)
    assert (mine.get_current_cost("1234"), theirs.get_current_cost("1234")) == (COST, 0.0)


def test_without_a_guard_it_is_the_default_guards_at_each_call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(budgetguard, "_guard", Guard(store="memory://"))
    manager = BudgetManager("app")
    assert budgetguard.default_guard().project == "app"
    manager.create_budget(10, "1234")
    assert list(budgetguard.default_guard().users()) == ["1234"]
    monkeypatch.setattr(budgetguard, "_guard", Guard(store="memory://"))
    assert manager.get_users() == []


@pytest.mark.parametrize("client_type", ["cloud", "", None])
def test_an_unknown_client_type_is_refused_at_once(client_type: Any) -> None:
    with pytest.raises(ConfigurationError, match="client_type must be 'local' or 'hosted', not"):
        BudgetManager("app", client_type)


@pytest.mark.parametrize("project", [None, "", 7])
def test_a_bad_project_name_is_refused_at_once(project: Any) -> None:
    with pytest.raises(ConfigurationError, match="project_name must"):
        BudgetManager(project)


# Windows


def test_windows_reset_by_themselves(manager: BudgetManager, clock: FakeClock) -> None:
    manager.create_budget(10, "1234", "hourly")
    manager.update_cost("1234", completion())
    clock.advance(3_599)
    assert manager.get_current_cost("1234") == COST
    clock.advance(1)
    assert (manager.get_current_cost("1234"), manager.get_model_cost("1234")) == (0.0, {})


@pytest.mark.parametrize(
    ("duration", "inside", "over"),
    [
        ("30s", "2026-01-31T12:00:29", "2026-01-31T12:00:30"),
        ("daily", "2026-02-01T11:59:59", "2026-02-01T12:00:00"),
        ("7d", "2026-02-07T11:59:59", "2026-02-07T12:00:00"),
        ("1mo", "2026-02-28T11:59:59", "2026-02-28T12:00:00"),
        ("monthly", "2026-02-28T11:59:59", "2026-02-28T12:00:00"),
        ("yearly", "2027-01-31T11:59:59", "2027-01-31T12:00:00"),
    ],
)
def test_a_window_ends_when_the_calendar_says_so(
    manager: BudgetManager, clock: FakeClock, duration: str, inside: str, over: str
) -> None:
    clock.set(_ms("2026-01-31T12:00:00"))
    manager.create_budget(10, "1234", duration)
    manager.update_cost("1234", completion())
    clock.set(_ms(inside))
    assert manager.get_current_cost("1234") == COST
    clock.set(_ms(over))
    assert manager.get_current_cost("1234") == 0.0


def test_created_at_is_where_windows_start(manager: BudgetManager, clock: FakeClock) -> None:
    noon = _ms("2026-01-01T12:00:00")
    for created_at in (noon / 1000, datetime.fromtimestamp(noon / 1000, UTC), datetime(2026, 1, 1, 12)):
        clock.set(_ms("2026-01-01T20:00:00"))
        user = repr(created_at)
        assert manager.create_budget(10, user, "daily", created_at)["created_at"] == noon / 1000
        manager.update_cost(user, completion())
        clock.set(_ms("2026-01-02T11:59:59"))
        assert manager.get_current_cost(user) == COST
        clock.set(_ms("2026-01-02T12:00:00"))
        assert manager.get_current_cost(user) == 0.0


def test_created_at_is_now_at_the_time_of_the_call(manager: BudgetManager, clock: FakeClock) -> None:
    clock.advance(86_400 * 40)
    assert manager.create_budget(10, "1234", "daily")["created_at"] == clock() / 1000


def test_windows_follow_a_time_zone_and_the_calendar(manager: BudgetManager, clock: FakeClock) -> None:
    clock.set(_ms("2026-03-15T09:00:00"))
    manager.create_budget(10, "1234", "monthly", timezone="Europe/Berlin", align="calendar")
    manager.update_cost("1234", completion())
    clock.set(_ms("2026-03-31T21:59:59"))  # summer time: April begins at 22:00 UTC
    assert manager.get_current_cost("1234") == COST
    clock.set(_ms("2026-03-31T22:00:00"))
    assert manager.get_current_cost("1234") == 0.0


def test_litellms_reset_methods_do_no_harm(manager: BudgetManager, clock: FakeClock) -> None:
    manager.create_budget(10, "daily", "daily")
    manager.create_budget(10, "never")
    for user in ("daily", "never"):
        manager.update_cost(user, completion())
        manager.reset_on_duration(user)
    manager.update_budget_all_users()
    assert [manager.get_current_cost(user) for user in ("daily", "never")] == [COST, COST]
    clock.advance(86_400)
    manager.update_budget_all_users()
    assert [manager.get_current_cost(user) for user in ("daily", "never")] == [0.0, COST]


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
