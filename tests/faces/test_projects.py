"""Which project: the first that a program names; and errors that say in which project a budget is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from budgetguard import BudgetManager, ConfigurationError, Guard, UnknownUserError
from tests.guarded_calls import HELLO, completion

COMMAND = [sys.executable, "-c", "from budgetguard.cli import main; main()"]


def ask(guard: Guard, user: str) -> None:
    @guard.budgeted(user=user)
    def answer(messages: object, model: str = "gpt-4o-mini") -> object:
        return completion()

    answer(HELLO)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"disk://{tmp_path}/books"


def test_the_first_manager_names_the_project_of_a_guard_that_names_none(store: str) -> None:
    guard = Guard(store=store)
    BudgetManager("shop", guard=guard).create_budget(1, "anna")
    ask(guard, "anna")
    assert guard.project == "shop"
    assert guard.balance("anna").spent > 0
    other = BudgetManager("other", guard=guard)
    assert (other.get_users(), guard.project) == ([], "shop")
    guard.close()


@pytest.mark.parametrize("use", ["balances", "set_budget", "call"])
def test_a_manager_that_comes_too_late_to_name_it_is_an_error_and_not_a_budget_that_limits_nothing(
    store: str, use: str
) -> None:
    guard = Guard(store=store)
    if use == "balances":
        list(guard.balances())
    elif use == "set_budget":
        guard.set_budget(5)
    else:
        guard.set_budget(5, user="anna")
        ask(guard, "anna")
    with pytest.raises(ConfigurationError, match=r"comes too late.*configure\(project='shop'\)"):
        BudgetManager("shop", guard=guard)
    assert BudgetManager("default", guard=guard).project_name == "default"
    guard.configure(project="default")  # both are meant
    BudgetManager("shop", guard=guard).create_budget(1, "anna")
    assert list(guard.projects()) == (["shop"] if use == "balances" else ["default", "shop"])
    guard.close()


def test_a_hosted_manager_names_no_project_too_late(store: str) -> None:
    guard = Guard(store=store)
    guard.set_budget(5)
    manager = BudgetManager("shop", "hosted", "http://127.0.0.1:9", guard=guard)
    assert manager.project_name == "shop"
    guard.close()


@pytest.mark.parametrize("way", ["call", "balance", "reset"])
def test_who_has_no_budget_here_is_told_where_there_is_one(store: str, way: str) -> None:
    for project in ("shop", "lab"):
        Guard(store=store, project=project).set_budget(1, user="anna")
    guard = Guard(store=store)
    ways: dict[str, Callable[[], object]] = {
        "call": lambda: ask(guard, "anna"),
        "balance": lambda: guard.balance("anna"),
        "reset": lambda: guard.reset("anna"),
    }
    with pytest.raises(UnknownUserError) as refused:
        ways[way]()
    text = str(refused.value)
    assert "in the projects 'lab', 'shop'" in text
    assert "BUDGETGUARD_PROJECT=lab" in text
    with pytest.raises(UnknownUserError, match=r"create_budget\(total_budget=10, user='ben'\)"):
        guard.balance("ben")
    guard.close()


def run(store: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words, "--store", store], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.full
def test_the_command_lists_projects_and_says_where_a_user_is(store: str) -> None:
    Guard(store=store, project="shop").set_budget(1, user="anna")
    Guard(store=store, project="lab").set_budget(250, duration="monthly")
    listed = run(store, "projects")
    assert listed.returncode == 0, listed.stderr
    lab, shop = listed.stdout.splitlines()[2:4]
    assert lab.split()[:3] == ["lab", "$250.00", "$0.00"]
    assert shop.split() == ["shop"]
    as_json = [json.loads(line) for line in run(store, "projects", "--json").stdout.splitlines()]
    assert [one["project"] for one in as_json] == ["lab", "shop"]
    assert (as_json[0]["balance"]["limit"], as_json[1]["balance"]) == ("250.00", None)
    shown = run(store, "show", "anna")
    assert shown.returncode == 2
    assert "'default'" in shown.stderr
    assert "add --project shop" in shown.stderr
    started = subprocess.run(
        [*COMMAND, "run", "--user", "anna", "--store", store, "--", "python", "-c", "print('started')"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (started.returncode, started.stdout) == (2, "")
    assert "add --project shop" in started.stderr


def test_the_services_own_projects_are_not_listed(store: str) -> None:
    Guard(store=store, project="shop").set_budget(1, user="anna")
    made = run(store, "keys", "create", "shop")
    assert made.returncode == 0, made.stderr
    assert list(Guard(store=store).projects()) == ["shop"]
