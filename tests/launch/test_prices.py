"""A price file counts in all processes of a run, and a change of it from the next call on."""

from __future__ import annotations

from decimal import Decimal

import pytest

from budgetguard.guard import Guard

from .programs import Launcher

TOKENS = 108
"""8 in and 100 out, as the tests' provider bills each call."""

CHANGES = """
import json, os, subprocess, sys, time
from agent import calls

def costs(factor):
    again = f'[[price]]\\nmodel = "gpt-4o*"\\ninput = {factor}\\noutput = {factor}\\n'
    with open("mine.toml.new", "w") as file:
        file.write(again)
    os.replace("mine.toml.new", "mine.toml")

def child():
    os.makedirs("elsewhere", exist_ok=True)
    environ = {**os.environ, "HOME": os.path.abspath("elsewhere")}
    subprocess.run([sys.executable, "../agent.py", "1", "child"], cwd="elsewhere", env=environ, check=True)

calls(1)
child()
costs(2000)
calls(1)
child()
os.remove("mine.toml")
calls(1)
"""


def _cost(price: int) -> Decimal:
    return Decimal(price * TOKENS) / 1_000_000


@pytest.mark.full
def test_every_process_of_a_run_uses_the_price_file_as_it_is_now(launch: Launcher, guard: Guard) -> None:
    guard.set_budget(100, user="alice")
    launch.agent()
    launch.write("changes.py", CHANGES)
    launch.write("mine.toml", '[[price]]\nmodel = "gpt-4o*"\ninput = 1000\noutput = 1000\n')
    ended = launch.run(
        "--user",
        "alice",
        "--prices",
        "mine.toml",
        "--summary-json",
        "summary.json",
        "--",
        "python",
        "changes.py",
    )
    assert (ended.code, ended.made) == (0, 5), ended.err
    # The program's call and its child's at the first price, then each at the second; the file that is gone
    # leaves the last prices in force, and says so.
    spent = 2 * _cost(1000) + 3 * _cost(2000)
    assert Decimal(str(launch.summary()["spent"])) == spent
    assert guard.balance("alice").spent == spent
    assert ended.err.count("mine.toml") == 1
    assert "stay in force until it is put right: No such file" in ended.err


@pytest.mark.full
def test_the_variable_does_the_same(launch: Launcher, guard: Guard) -> None:
    guard.set_budget(100, user="alice")
    agent = launch.agent()
    launch.write("mine.toml", '[[price]]\nmodel = "gpt-4o-mini"\ninput = 1000\noutput = 1000\n')
    ended = launch.run("--user", "alice", "--", "python", agent, "1", BUDGETGUARD_PRICES="mine.toml")
    assert (ended.code, ended.made) == (0, 1), ended.err
    assert guard.balance("alice").spent == _cost(1000)
