"""`import budgetguard.auto` does from inside what `budgetguard run` does from outside."""

from __future__ import annotations

import sys

import pytest

from budgetguard.guard import Guard
from tests.provider.server import OpenAIServer

from .programs import Launcher, enough_for

TWICE = {"BUDGETGUARD_MAX_BUDGET": enough_for(2)}


def test_calls_are_guarded_and_a_line_says_what_they_cost(launch: Launcher, provider: OpenAIServer) -> None:
    launch.agent()
    ended = launch.python("import budgetguard.auto\nfrom agent import calls\ncalls(3)", **TWICE)
    assert (ended.made, provider.count(), ended.code) == (2, 2, 0)
    assert ended.err == (
        "budgetguard: $0.0001224 spent on 2 calls (gpt-4o-mini $0.0001224), $0.0000306 of $0.000153 left, "
        "1 call refused by the run's budget\n"
    )


@pytest.mark.full
def test_an_openai_that_is_there_already_is_guarded_too(launch: Launcher, provider: OpenAIServer) -> None:
    launch.agent()
    program = (
        "import openai\nclient = openai.OpenAI()\nimport budgetguard.auto\nfrom agent import calls\ncalls(3)"
    )
    assert launch.python(program, **TWICE).made == provider.count() == 2


@pytest.mark.full
def test_processes_that_it_starts_share_its_budget(
    launch: Launcher, provider: OpenAIServer, guard: Guard
) -> None:
    launch.agent()
    program = """
import subprocess, sys
import budgetguard.auto
from agent import calls

calls(1)
subprocess.run([sys.executable, "agent.py", "3"])
subprocess.run([sys.executable, "-c", "import budgetguard.auto, agent; agent.calls(3)"])
"""
    ended = launch.python(program, **TWICE)
    assert (ended.made, provider.count()) == (2, 2)
    assert len(ended.err.splitlines()) == 1, "only who began the run tells of it"
    assert "5 calls refused" in ended.err
    assert len(list(guard.store.list("run"))) == 1


@pytest.mark.full
def test_forked_children_share_it_and_tell_nothing(launch: Launcher, provider: OpenAIServer) -> None:
    launch.agent()
    program = """
import os
import budgetguard.auto
from agent import calls

calls(1)
if os.fork() == 0:
    calls(3)
    raise SystemExit
os.wait()
"""
    ended = launch.python(program, **TWICE)
    assert (ended.made, provider.count()) == (2, 2)
    assert len(ended.err.splitlines()) == 1
    assert "2 calls refused" in ended.err


@pytest.mark.full
def test_a_stream_left_open_at_the_end_is_in_the_line(launch: Launcher) -> None:
    program = """
import budgetguard.auto
from openai import OpenAI

stream = OpenAI().chat.completions.create(
    model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=100, stream=True
)
next(iter(stream))
"""
    ended = launch.python(program, **TWICE)
    assert "spent on 1 call (gpt-4o-mini $" in ended.err


@pytest.mark.full
def test_under_a_run_it_leaves_the_telling_to_that(launch: Launcher, guard: Guard) -> None:
    launch.agent()
    launch.write("program.py", "import budgetguard.auto\nfrom agent import calls\ncalls(3)")
    ended = launch.run("--max-budget", enough_for(1), "--", "python", "program.py", **TWICE)
    assert (ended.made, ended.code) == (1, 3)
    assert len(ended.err.splitlines()) == 1
    assert len(list(guard.store.list("run"))) == 1


@pytest.mark.full
def test_a_program_can_end_with_the_status_of_its_run(launch: Launcher) -> None:
    launch.agent()
    program = """
import sys
import budgetguard.auto
from agent import calls

calls({times})
sys.exit(budgetguard.auto.outcome().status())
"""
    assert launch.python(program.format(times=2), **TWICE).code == 0
    assert launch.python(program.format(times=3), **TWICE).code == 3


@pytest.mark.full
def test_a_program_that_dies_of_a_refusal_fails(launch: Launcher) -> None:
    launch.agent()
    ended = launch.python(
        "import budgetguard.auto\nfrom agent import call\ncall()", BUDGETGUARD_MAX_BUDGET="0"
    )
    assert ended.code == 1
    assert "1 call refused" in ended.err.splitlines()[-1]


@pytest.mark.full
def test_memory_will_do_for_one_process(launch: Launcher, provider: OpenAIServer) -> None:
    launch.agent()
    program = "import budgetguard.auto\nfrom agent import calls\ncalls(3)"
    assert launch.python(program, **TWICE, BUDGETGUARD_STORE="memory://").made == provider.count() == 2


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "ConfigurationError: nothing limits this run"),
        ({"BUDGETGUARD_MAX_BUDGET": "much"}, "BUDGETGUARD_MAX_BUDGET must be a number of USD"),
        ({"BUDGETGUARD_MAX_BUDGET": "-1"}, "max budget must not be negative"),
        ({"BUDGETGUARD_USER": "nobody"}, "user 'nobody' has no budget"),
    ],
)
def test_what_cannot_be_limited_does_not_start(launch: Launcher, environ: dict[str, str], says: str) -> None:
    ended = launch.python("import budgetguard.auto\nprint('started')", **environ)
    assert (ended.code, ended.out) == (1, "")
    assert says in ended.err.splitlines()[-1]


def test_importing_the_package_does_not_begin_a_run(launch: Launcher) -> None:
    ended = launch.command([sys.executable, "-c", "import budgetguard"], TWICE)
    assert (ended.code, ended.err) == (0, "")
