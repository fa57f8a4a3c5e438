"""However a program starts its Pythons, they all spend from one budget."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path

import pytest

from budgetguard.guard import Guard
from tests.provider.server import OpenAIServer

from .programs import COST, Launcher, enough_for

TEN = enough_for(10)

# Starts one child in each way, all of which run at once, and says of each what it made.
STARTS_EVERY_WAY = """
import multiprocessing, os, subprocess, sys, threading
from agent import calls

def fork():
    if (child := os.fork()) == 0:
        calls(6, "a fork")
        os._exit(0)
    return child

def method(name):
    process = multiprocessing.get_context(name).Process(target=calls, args=(6, name))
    process.start()
    return process

if __name__ == "__main__":
    forks = [fork()]
    started = [method(name) for name in ("fork", "forkserver", "spawn")]
    shell = "python agent.py 6 'a job of a shell' & python -m agent 6 'python -m' & wait"
    children = [
        subprocess.Popen([sys.executable, "agent.py", "6", "a subprocess"]),
        subprocess.Popen(["sh", "-c", shell]),
        subprocess.Popen(["env", "A=b", "./executable", "6", "a shebang behind env"]),
    ]
    import openai
    forks.append(fork())
    threads = [threading.Thread(target=calls, args=(3, "a thread")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for one in (*threads, *started):
        one.join()
    for child in children:
        child.wait()
    for child in forks:
        os.waitpid(child, 0)
"""
WAYS = (
    *("a fork", "a fork", "fork", "forkserver", "spawn", "a job of a shell", "python -m", "a subprocess"),
    *("a shebang behind env", "a thread", "a thread"),
)

PYTHON = "python"


@pytest.mark.full
def test_processes_started_in_every_way_make_together_the_calls_that_the_budget_has_money_for(
    launch: Launcher, provider: OpenAIServer, guard: Guard
) -> None:
    """Whichever did not share would make all of its calls, beside the ten of the others."""
    agent = Path(launch.agent()).read_text()
    launch.write("executable", f"#!{sys.executable}\n{agent}").chmod(0o755)
    launch.write("program.py", STARTS_EVERY_WAY)
    ended = launch.run(
        "--max-budget", TEN, "--summary-json", "summary.json", "--", PYTHON, "-W", "ignore", "program.py"
    )
    lines = [line.split(maxsplit=2) for line in ended.out.splitlines()]
    assert sorted(way for _, _, way in lines) == sorted(WAYS), ended.err
    assert (ended.made, provider.count()) == (10, 10), ended.out
    assert ended.code == 3
    summary = launch.summary()
    assert Decimal(summary["spent"]) == COST * 10
    assert (summary["calls"], summary["refused"]) == (10, 9 * 6 + 2 * 3 - 10)
    assert [(row["model"], row["calls"]) for row in summary["models"]] == [("gpt-4o-mini", 10)]
    (balance,) = guard.store.list("run")
    assert (balance.spent, balance.held) == (COST * 10, 0)


@pytest.mark.full
def test_the_users_budget_counts_beside_that_of_the_run(launch: Launcher, guard: Guard) -> None:
    agent = launch.agent()
    guard.set_budget(Decimal(enough_for(3)), user="alice")
    ended = launch.run("--max-budget", TEN, "--user", "alice", "--", PYTHON, agent, "5")
    assert (ended.made, ended.code) == (3, 3)
    assert guard.balance("alice").spent == COST * 3
    assert "2 calls refused by user 'alice'" in ended.err


@pytest.mark.full
def test_without_a_budget_of_its_own_a_run_has_its_users(launch: Launcher, guard: Guard) -> None:
    agent = launch.agent()
    guard.set_budget(Decimal(enough_for(3)), user="alice")
    ended = launch.run("--", PYTHON, agent, "5", BUDGETGUARD_USER="alice")
    assert (ended.made, ended.code) == (3, 3)
    assert "user 'alice' has $0.0000306 left" in ended.err


@pytest.mark.full
def test_without_a_user_the_projects_budget_will_do(launch: Launcher, guard: Guard) -> None:
    agent = launch.agent()
    guard.set_budget(Decimal(enough_for(3)))
    ended = launch.run("--", PYTHON, agent, "5")
    assert (ended.made, ended.code) == (3, 3)


@pytest.mark.full
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


@pytest.mark.full
def test_two_runs_have_a_budget_each(launch: Launcher) -> None:
    agent = launch.agent()
    for _ in range(2):
        ended = launch.run("--max-budget", enough_for(2), "--", PYTHON, agent, "3")
        assert (ended.made, ended.code) == (2, 3)


@pytest.mark.full
def test_a_program_in_another_folder_and_home_finds_the_same_store(launch: Launcher) -> None:
    agent = launch.agent()
    command = f"mkdir elsewhere; cd elsewhere; HOME=/nowhere python {agent} 3"
    ended = launch.run(
        "--max-budget", enough_for(2), "--", "sh", "-c", command, BUDGETGUARD_STORE="disk://here"
    )
    assert (ended.made, ended.code) == (2, 3)
    assert (launch.folder / "here").exists()
    assert not list((launch.folder / "elsewhere").iterdir())


@pytest.mark.full
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


@pytest.mark.full
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
