"""What cannot be run is refused in one line, before anything is."""

from __future__ import annotations

import json

import pytest

from budgetguard.guard import Guard

from .programs import Launcher, enough_for

PRINTS = ("--", "sh", "-c", "echo started")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "run what? Write `budgetguard run --max-budget 5 -- python agent.py`"),
        (["--max-budget", "5"], 2, "run what?"),
        (["--max-budget", "5", "--"], 2, "run what?"),
        (["--max-budget", "-1", *PRINTS], 2, "max budget must not be negative, and -1 is"),
        (["--max-budget", "lots", *PRINTS], 2, "--max-budget must be a number of USD"),
        (["--max-budget", "nan", *PRINTS], 2, "max budget must be a finite number"),
        (["--max-budget", "1", "--user", "", *PRINTS], 2, "--user must not be empty"),
        (["--max-budget", "1", "--user", "nobody", *PRINTS], 2, "there is no store in"),
        (["--user", "u", "--default-budget", "x", *PRINTS], 2, "--default-budget must be a number of USD"),
        (["--user", "u", "--default-budget", "-2", *PRINTS], 2, "default_budget must not be negative"),
        (["--max-budget", "1", "--store", "memory://", *PRINTS], 2, "a memory:// store is empty"),
        (["--max-budget", "1", "--store", "nowhere", *PRINTS], 2, "is not a URL"),
        (["--max-budget", "1", "--summary-json", "no/such/file", *PRINTS], 2, "cannot write no/such/file"),
        (["--max-budget", "1", "--prices", "none.toml", *PRINTS], 2, "none.toml"),
        (["--max-budget", "1", "--prices", "here", *PRINTS], 2, "line 1"),
        (["--max-budget", "1", "--prices", "bad.toml", *PRINTS], 2, "input"),
        (["--max-budget", "1", "--budget", "2", *PRINTS], 2, "No such option"),
        (["--max-budget", "1", "--", "no-such-command"], 127, "there is no command 'no-such-command'"),
        (["--max-budget", "1", "--", "./here"], 126, "cannot run './here': Permission denied"),
    ],
)
def test_bad_input_is_one_clear_line(launch: Launcher, arguments: list[str], code: int, says: str) -> None:
    launch.write("here", "not executable")
    launch.write("bad.toml", '[[price]]\nmodel = "gpt-5"\ninput = "lots"\n')
    ended = launch.run(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1), ended.err
    assert says in ended.err


def test_a_user_without_a_budget_is_refused_before_the_program_starts(launch: Launcher, guard: Guard) -> None:
    guard.set_budget(1, user="alice")
    for limit in ((), ("--max-budget", "1")):
        ended = launch.run(*limit, "--user", "bob", *PRINTS)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert "user 'bob' has no budget" in ended.err


@pytest.mark.full
def test_a_run_that_nothing_limits_is_refused(launch: Launcher, guard: Guard) -> None:
    guard.set_budget(1, user="alice")
    ended = launch.run(*PRINTS)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "nothing limits this run" in ended.err
    guard.set_budget(None)
    assert launch.run(*PRINTS).code == 2
    assert launch.run(*PRINTS, BUDGETGUARD_MISSING_USER="allow").code == 0


@pytest.mark.full
@pytest.mark.parametrize("text", ["lots", "-1"])
def test_a_bad_variable_is_one_line_too(launch: Launcher, text: str) -> None:
    ended = launch.run(*PRINTS, BUDGETGUARD_MAX_BUDGET=text)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)


@pytest.mark.full
def test_the_variable_limits_where_the_option_does_not(launch: Launcher) -> None:
    agent = launch.agent()
    once = {"BUDGETGUARD_MAX_BUDGET": enough_for(1)}
    assert launch.run("--", "python", agent, "3", **once).made == 1
    assert launch.run("--max-budget", enough_for(2), "--", "python", agent, "3", **once).made == 2


def test_no_dashes_are_needed_before_the_command(launch: Launcher) -> None:
    ended = launch.run("--max-budget", "1", "python", "-c", "import sys; print(sys.argv[1:])", "--user", "x")
    assert (ended.code, ended.out) == (0, "['--user', 'x']\n")


@pytest.mark.full
def test_with_json_errors_and_the_summary_are_objects_on_standard_error(launch: Launcher) -> None:
    error = launch.run("--json", "--max-budget", "-1", *PRINTS)
    assert json.loads(error.err)["error"] == "ConfigurationError"
    plain = launch.run("--max-budget", "-1", *PRINTS, "--json")
    assert plain.err.startswith("Error: ")
    done = launch.run("--json", "--max-budget", "0.50", "--", "sh", "-c", "echo out; exit 4")
    summary = json.loads(done.err)
    assert done.out == "out\n"
    assert (summary["limit"], summary["left"], summary["program_status"]) == ("0.50", "0.50", 4)


@pytest.mark.full
def test_the_summary_is_one_line_by_model(launch: Launcher) -> None:
    launch.agent()
    program = """
from openai import OpenAI
for model in ("gpt-4o-mini", "gpt-4o", "gpt-4o-mini"):
    OpenAI().chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], max_completion_tokens=100
    )
"""
    launch.write("program.py", program)
    ended = launch.run("--max-budget", "0.50", "--", "python", "program.py")
    assert ended.code == 0
    assert ended.err == (
        "budgetguard: $0.0011424 spent on 3 calls (gpt-4o $0.00102, gpt-4o-mini $0.0001224), "
        "$0.4988576 of $0.50 left\n"
    )
