"""However a program starts its Pythons, they all spend from one budget."""

from __future__ import annotations

import sys
from decimal import Decimal

import pytest

from budgetguard.guard import Guard
from budgetguard.testing.openai_server import OpenAIServer

from .programs import COST, Launcher, enough_for

TEN = enough_for(10)

FORKS = """
import os
from agent import calls

for _ in range(4):
    if os.fork() == 0:
        calls(6)
        raise SystemExit
for _ in range(4):
    os.wait()
"""

FORKS_AFTER_IMPORTING = FORKS.replace("import os\n", "import os\nimport openai\n")

MULTIPROCESSING = """
import multiprocessing
from agent import calls

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    processes = [context.Process(target=calls, args=(6,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
"""

SUBPROCESSES = """
import subprocess, sys

processes = [subprocess.Popen([sys.executable, "agent.py", "6"]) for _ in range(4)]
for process in processes:
    process.wait()
"""

THREADS = """
from concurrent.futures import ThreadPoolExecutor
from agent import calls

with ThreadPoolExecutor(4) as pool:
    list(pool.map(calls, [6] * 4))
"""

PYTHON = "python"


@pytest.mark.parametrize(
    ("program", "command"),
    [
        pytest.param(SUBPROCESSES, [PYTHON, "program.py"], id="subprocesses"),
        pytest.param(FORKS, [PYTHON, "program.py"], id="forks"),
        pytest.param(FORKS_AFTER_IMPORTING, [PYTHON, "program.py"], id="forks after importing openai"),
        pytest.param(MULTIPROCESSING.format(method="spawn"), [PYTHON, "program.py"], id="spawn"),
        pytest.param(MULTIPROCESSING.format(method="fork"), [PYTHON, "program.py"], id="fork"),
        pytest.param(MULTIPROCESSING.format(method="forkserver"), [PYTHON, "program.py"], id="forkserver"),
        pytest.param(THREADS, [PYTHON, "-m", "program"], id="threads of python -m"),
        pytest.param(
            "for i in 1 2 3 4; do python agent.py 6 & done; wait", ["sh", "program.py"], id="a shell's jobs"
        ),
        pytest.param(
            f"#!{sys.executable}\n{SUBPROCESSES}", ["env", "A=b", "./program.py"], id="a shebang behind env"
        ),
    ],
)
def test_four_processes_make_exactly_the_calls_that_the_budget_has_money_for(
    launch: Launcher, provider: OpenAIServer, guard: Guard, program: str, command: list[str]
) -> None:
    launch.agent()
    launch.write("program.py", program).chmod(0o755)
    ended = launch.run("--max-budget", TEN, "--summary-json", "summary.json", "--", *command)
    assert (ended.made, provider.count()) == (10, 10), ended.err
    assert ended.code == 3
    summary = launch.summary()
    assert Decimal(summary["spent"]) == COST * 10
    assert (summary["calls"], summary["refused"]) == (10, 14)
    assert [(row["model"], row["calls"]) for row in summary["models"]] == [("gpt-4o-mini", 10)]
    (balance,) = guard.store.list("run")
    assert (balance.spent, balance.held) == (COST * 10, 0)


def test_the_users_budget_counts_beside_that_of_the_run(launch: Launcher, guard: Guard) -> None:
    agent = launch.agent()
    guard.set_budget(Decimal(enough_for(3)), user="alice")
    ended = launch.run("--max-budget", TEN, "--user", "alice", "--", PYTHON, agent, "5")
    assert (ended.made, ended.code) == (3, 3)
    assert guard.balance("alice").spent == COST * 3
    assert "2 calls refused by user 'alice'" in ended.err


def test_without_a_budget_of_its_own_a_run_has_its_users(launch: Launcher, guard: Guard) -> None:
    agent = launch.agent()
    guard.set_budget(Decimal(enough_for(3)), user="alice")
    ended = launch.run("--", PYTHON, agent, "5", BUDGETGUARD_USER="alice")
    assert (ended.made, ended.code) == (3, 3)
    assert "user 'alice' has $0.0000306 left" in ended.err


def test_without_a_user_the_projects_budget_will_do(launch: Launcher, guard: Guard) -> None:
    agent = launch.agent()
    guard.set_budget(Decimal(enough_for(3)))
    ended = launch.run("--", PYTHON, agent, "5")
    assert (ended.made, ended.code) == (3, 3)


def test_a_default_budget_makes_the_user(launch: Launcher, guard: Guard) -> None:
    ended = launch.run("--user", "new", "--default-budget", TEN, "--", PYTHON, launch.agent(), "2")
    assert (ended.made, ended.code) == (2, 0)
    assert guard.balance("new").limit == Decimal(TEN)


def test_a_run_inside_a_run_spends_from_both(launch: Launcher, guard: Guard) -> None:
    agent = launch.agent()
    inner = [sys.executable, "-c", "from budgetguard.cli import main; main()", "run", "--max-budget", "1"]
    ended = launch.run("--max-budget", enough_for(3), "--", *inner, "--", PYTHON, agent, "5")
    assert ended.made == 3
    assert sorted(balance.spent for balance in guard.store.list("run")) == [COST * 3, COST * 3]
    inner_line, outer_line = ended.err.splitlines()
    assert "2 calls refused" in inner_line
    assert "2 calls refused" in outer_line


def test_two_runs_have_a_budget_each(launch: Launcher) -> None:
    agent = launch.agent()
    for _ in range(2):
        ended = launch.run("--max-budget", enough_for(2), "--", PYTHON, agent, "3")
        assert (ended.made, ended.code) == (2, 3)


def test_a_program_in_another_folder_and_home_finds_the_same_store(launch: Launcher) -> None:
    agent = launch.agent()
    command = f"mkdir elsewhere; cd elsewhere; HOME=/nowhere python {agent} 3"
    ended = launch.run(
        "--max-budget", enough_for(2), "--", "sh", "-c", command, BUDGETGUARD_STORE="disk://here"
    )
    assert (ended.made, ended.code) == (2, 3)
    assert (launch.folder / "here").exists()
    assert not list((launch.folder / "elsewhere").iterdir())


def test_a_program_that_sets_users_itself_is_charged_to_them_and_to_the_run(
    launch: Launcher, guard: Guard
) -> None:
    launch.agent()
    guard.set_budget(Decimal(enough_for(2)), user="alice")
    program = """
import budgetguard
from agent import calls

budgetguard.patch_openai()
with budgetguard.budget_user("alice"):
    calls(3)
calls(3)
"""
    launch.write("program.py", program)
    ended = launch.run("--max-budget", enough_for(4), "--", PYTHON, "program.py")
    assert (ended.made, ended.code) == (4, 3)
    assert "user 'alice' 1" in ended.err
    assert "the run's budget 1" in ended.err


def test_a_program_that_goes_to_another_project_is_refused_and_told_how_to_start_it(
    launch: Launcher, provider: OpenAIServer
) -> None:
    launch.agent()
    program = """
import budgetguard
from agent import call

manager = budgetguard.BudgetManager("my-app")
manager.create_budget(total_budget=10, user="alice")
with budgetguard.budget_user("alice"):
    call()
"""
    launch.write("program.py", program)
    ended = launch.run("--max-budget", "1", "--", PYTHON, "program.py")
    assert ended.code == 1
    assert "budgetguard run --project my-app" in ended.err
    assert provider.count() == 0
    assert launch.run("--project", "my-app", "--max-budget", "1", "--", PYTHON, "program.py").code == 0
    assert provider.count() == 1
