"""LiteLLM's `user_cost.json` is taken over whole, once, or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from budgetguard import BudgetManager, ConfigurationError, Guard, StoreError
from budgetguard.core.holds import Hold, Settlement
from budgetguard.litellm.importing import import_user_cost
from budgetguard.testing.clock import FakeClock
from tests.manager.answers import COST, completion

DAY = 86_400
NOW = 1_767_225_600  # the FakeClock's, in seconds

RECORDS: dict[str, Any] = {
    "anna": {
        "total_budget": 10,
        "duration": 28,
        "created_at": NOW - 300 * DAY,
        "last_updated_at": NOW - 5 * DAY,
        "current_cost": 1.25,
        "model_cost": {"gpt-4o": 1.0, "gpt-4o-mini": 0.25},
    },
    "bert": {"total_budget": 0.5},
    "carl": {
        "total_budget": 3.5,
        "duration": 7,
        "created_at": NOW - 100 * DAY,
        "last_updated_at": NOW - 8 * DAY,
        "current_cost": 3.4,
        "model_cost": {"gpt-4o": 3.4},
    },
    "dora": {"total_budget": 2.0, "current_cost": 0.75, "model_cost": {"gpt-4o": 0.5}},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "user_cost.json"
    path.write_text(json.dumps(RECORDS))
    return path


def state(manager: BudgetManager) -> dict[str, Any]:
    return {
        user: (manager.get_total_budget(user), manager.get_current_cost(user), manager.get_model_cost(user))
        for user in manager.get_users()
    }


def test_limits_spend_and_models_are_kept(manager: BudgetManager, file: Path) -> None:
    done = manager.import_litellm(file)
    assert state(manager) == {
        "anna": (10.0, 1.25, {"gpt-4o": 1.0, "gpt-4o-mini": 0.25}),
        "bert": (0.5, 0.0, {}),
        "carl": (3.5, 0.0, {}),
        "dora": (2.0, 0.75, {"gpt-4o": 0.5, "unknown": 0.25}),
    }
    assert (done.created, done.existing, done.over) == (("anna", "bert", "carl", "dora"), (), ("carl",))
    assert str(done) == (
        "4 users imported, $2.00 spent; 1 user with nothing spent, because the window of that spend is over"
    )


def test_a_window_goes_on_where_it_stood(manager: BudgetManager, file: Path, clock: FakeClock) -> None:
    manager.import_litellm(file)
    clock.advance(23 * DAY - 1)
    assert manager.get_current_cost("anna") == 1.25
    clock.advance(1)
    assert manager.get_current_cost("anna") == 0.0
    assert manager.get_current_cost("dora") == 0.75


@pytest.mark.parametrize(
    ("days", "plain", "calendar"),
    [
        (1, "1d", "daily"),
        (7, "7d", "weekly"),
        (28, "28d", "monthly"),
        (365, "365d", "yearly"),
        (30, "30d", "30d"),
    ],
)
def test_days_stay_days_unless_the_calendar_is_asked_for(
    guard: Guard, tmp_path: Path, days: int, plain: str, calendar: str
) -> None:
    path = tmp_path / "user_cost.json"
    path.write_text(json.dumps({"anna": {"total_budget": 1, "duration": days, "last_updated_at": NOW}}))
    import_user_cost(guard, path)
    assert guard.balance("anna").duration == plain
    import_user_cost(guard.in_project("other"), path, calendar=True)
    assert guard.in_project("other").balance("anna").duration == calendar


def test_twice_is_once_and_what_was_spent_since_stays(manager: BudgetManager, file: Path) -> None:
    manager.import_litellm(file)
    manager.update_cost("anna", completion())
    manager.create_budget(99, "bert")
    before = state(manager)
    again = manager.import_litellm(file)
    assert state(manager) == before
    assert before["anna"][1] == 1.25 + COST
    assert (again.created, again.existing, again.spent) == ((), ("anna", "bert", "carl", "dora"), 0)
    assert str(again) == "0 users imported, $0.00 spent; 4 users left alone, having a budget here already"


def test_a_file_that_has_changed_since_adds_nothing_to_users_who_are_here(
    manager: BudgetManager, file: Path
) -> None:
    manager.import_litellm(file)
    before = state(manager)
    changed = json.loads(file.read_text())
    changed["anna"]["current_cost"] = 5.0
    changed["anna"]["model_cost"]["gpt-5"] = 3.75
    changed["emil"] = {"total_budget": 1}
    file.write_text(json.dumps(changed))
    assert manager.import_litellm(file).created == ("emil",)
    assert state(manager) == before | {"emil": (1.0, 0.0, {})}


@pytest.mark.full
def test_it_stays_once_when_records_of_calls_are_long_gone(
    manager: BudgetManager, guard: Guard, file: Path, clock: FakeClock
) -> None:
    manager.import_litellm(file)
    clock.advance(200 * DAY)
    for _ in range(1_100):  # enough verbs for any store to sweep what is over
        guard.set_budget(1, user="bert")
    assert list(guard.calls()) == []
    manager.import_litellm(file)
    assert manager.get_current_cost("dora") == 0.75


def test_a_user_who_was_here_before_is_left_alone(manager: BudgetManager, file: Path) -> None:
    manager.create_budget(42, "anna", "daily")
    done = manager.import_litellm(file)
    assert done.existing == ("anna",)
    assert state(manager)["anna"] == (42.0, 0.0, {})


def test_a_user_who_was_deleted_since_is_not_brought_back(
    manager: BudgetManager, guard: Guard, file: Path
) -> None:
    manager.import_litellm(file)
    guard.delete("anna")
    done = manager.import_litellm(file)
    assert done.deleted == ("anna",)
    assert not manager.is_valid_user("anna")
    assert "1 user not made again, deleted here after an earlier import" in str(done)


def test_what_a_crash_interrupted_is_finished_and_not_doubled(
    guard: Guard, manager: BudgetManager, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settled = guard.store, 0
    real = store.settle

    def settle(hold: Hold, settlement: Settlement) -> Any:
        nonlocal settled
        settled += 1
        if settled == 2:
            raise StoreError("the power went")
        return real(hold, settlement)

    with monkeypatch.context() as patched:
        patched.setattr(store, "settle", settle)
        with pytest.raises(StoreError):
            manager.import_litellm(file)
    assert manager.get_current_cost("anna") == 1.0
    manager.import_litellm(file)
    assert state(manager)["anna"] == (10.0, 1.25, {"gpt-4o": 1.0, "gpt-4o-mini": 0.25})


def test_what_others_spent_before_does_not_count_against_project_and_process(
    manager: BudgetManager, guard: Guard, file: Path
) -> None:
    guard.set_budget(1)
    guard.max_budget = 1
    manager.import_litellm(file)
    assert (guard.balance().spent_nanos, guard.current_cost()) == (0, 0.0)


def test_the_models_add_up_to_the_total_to_the_last_nano(manager: BudgetManager, tmp_path: Path) -> None:
    path = tmp_path / "user_cost.json"
    costs = {"a": 0.1234567894, "b": 0.1234567894, "c": 0.1234567894}
    record = {"total_budget": 1, "current_cost": sum(costs.values()), "model_cost": costs}
    path.write_text(json.dumps({"anna": record}))
    manager.import_litellm(path)
    assert manager.get_current_cost("anna") == 0.370370368
    assert set(manager.get_model_cost("anna")) == {"a", "b", "c"}


@dataclass
class Bad:
    text: str
    says: str


def _bad(**changes: Any) -> str:
    return json.dumps({**RECORDS, "anna": {**RECORDS["anna"], **changes}})


@pytest.mark.parametrize(
    "bad",
    [
        Bad(json.dumps(RECORDS)[:-40], "is no complete JSON"),
        Bad("", "is no complete JSON"),
        Bad("\udcff", "is no complete JSON"),
        Bad("[]", "is no user_cost.json of LiteLLM: it should hold an object of users, and holds list"),
        Bad('{"name": "my-app", "version": 3}', "user 'name': it has no total_budget"),
        Bad(json.dumps({**RECORDS, "x": {"total": 3}}), "1 of its 5 records"),
        Bad(_bad(total_budget=-3), "user 'anna': total_budget must not be negative, and -3 is"),
        Bad(_bad(total_budget=float("nan")), "user 'anna': total_budget must be a finite number"),
        Bad(_bad(total_budget="10"), "user 'anna': total_budget must be a number of USD"),
        Bad(_bad(current_cost=-1), "user 'anna': current_cost must not be negative"),
        Bad(_bad(current_cost="much"), "user 'anna': current_cost must be a number"),
        Bad(_bad(model_cost={"gpt-4o": None}), "user 'anna': model_cost of gpt-4o must be a number"),
        Bad(_bad(model_cost=[1]), "user 'anna': model_cost must be an object of models, not [1]"),
        Bad(_bad(duration=0), "user 'anna': duration must be a whole number of days, not 0"),
        Bad(_bad(duration=1.5), "user 'anna': duration must be a whole number of days, not 1.5"),
        Bad(_bad(duration=float("inf")), "user 'anna': duration must be a whole number of days, not inf"),
        Bad(_bad(duration="monthly"), "user 'anna': duration must be a whole number of days, not 'monthly'"),
        Bad(_bad(duration=10**6), "user 'anna': duration must be a whole number of days, not 1000000"),
        Bad(_bad(last_updated_at="now"), "user 'anna': last_updated_at must be epoch seconds, not 'now'"),
        Bad(_bad(created_at=1e300), "user 'anna': created_at must be epoch seconds, not 1e+300"),
        Bad(json.dumps({**RECORDS, "": {"total_budget": 1}}), "user '': user must not be empty"),
    ],
    ids=lambda bad: bad.says[:40],
)
def test_a_file_with_one_fault_changes_nothing_and_the_fault_is_named(
    manager: BudgetManager, tmp_path: Path, bad: Bad
) -> None:
    path = tmp_path / "user_cost.json"
    path.write_bytes(bad.text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError) as caught:
        manager.import_litellm(path)
    assert bad.says in str(caught.value)
    assert str(path) in str(caught.value)
    assert manager.get_users() == []


def test_many_faults_are_counted_and_some_are_shown(manager: BudgetManager, tmp_path: Path) -> None:
    path = tmp_path / "user_cost.json"
    path.write_text(json.dumps({f"user-{n}": {"total_budget": -1} for n in range(9)}))
    with pytest.raises(ConfigurationError) as caught:
        manager.import_litellm(path)
    lines = str(caught.value).splitlines()
    assert "9 of its 9 records" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "user 'user-0'",
        "user 'user-1'",
        "user 'user-2'",
        "user 'user-3'",
        "user 'user-4'",
        "and 4 more",
    ]


def test_a_file_that_is_not_there_or_is_a_folder_is_said(manager: BudgetManager, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*give the path of LiteLLM's user_cost"):
        manager.import_litellm(tmp_path / "user_cost.json")
    with pytest.raises(ConfigurationError, match="cannot read"):
        manager.import_litellm(tmp_path)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_is_by_default_where_litellm_writes_it(
    manager: BudgetManager, file: Path, elsewhere: Path
) -> None:
    assert file.parent == elsewhere
    assert len(manager.import_litellm().created) == 4
