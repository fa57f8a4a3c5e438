"""A program under `budgetguard run` cannot tell, but for its budget."""

from __future__ import annotations

import ast
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from budgetguard import launch as launch_package
from budgetguard.providers.sdks import SDKS, UNGUARDED

from .programs import BUDGETGUARD, Launcher, enough_for

PYTHON = "python"
ENOUGH = ("--max-budget", "1")


@pytest.mark.parametrize("code", [0, 1, 3, 7, 255])
def test_the_status_is_the_programs(launch: Launcher, code: int) -> None:
    assert launch.run(*ENOUGH, "--", PYTHON, "-c", f"raise SystemExit({code})").code == code


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_status_of_a_program_that_a_signal_ended_is_128_and_its_number(
    launch: Launcher, number: signal.Signals
) -> None:
    command = f"import os; os.kill(os.getpid(), {int(number)})"
    assert launch.run(*ENOUGH, "--", PYTHON, "-c", command).code == 128 + number


@pytest.mark.full
def test_a_failing_program_that_was_refused_keeps_its_status(launch: Launcher) -> None:
    ended = launch.run("--max-budget", "0", "--", "sh", "-c", f"python {launch.agent()} 1; exit 7")
    assert (ended.made, ended.code) == (0, 7)


@pytest.mark.full
def test_a_program_that_dies_of_a_refusal_says_so_and_fails(launch: Launcher) -> None:
    launch.agent()
    ended = launch.run("--max-budget", "0", "--", PYTHON, "-c", "import agent; agent.call()")
    assert ended.code == 1
    assert "BudgetExceededError" in ended.err
    assert "1 call refused by the run's budget" in ended.err.splitlines()[-1]


def test_streams_arguments_and_open_files_are_the_programs(launch: Launcher) -> None:
    launch.write("extra", "extra\n")
    with (launch.folder / "extra").open() as extra:
        file = extra.fileno()
        script = f'read line; echo "got $line $1"; echo err >&2; cat /dev/fd/{file}'
        command = ["sh", "-c", script, "sh", "--json"]
        with launch.start(*ENOUGH, "--", *command, stdin=subprocess.PIPE, pass_fds=(file,)) as program:
            out, err = program.communicate("hello\n", timeout=60)
    assert (program.returncode, out) == (0, "got hello --json\nextra\n")
    assert err.splitlines()[0] == "err"
    assert err.splitlines()[1].startswith("budgetguard: $0.00 spent on 0 calls")


CATCHES = """
import signal, sys, time
got = []
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(one, lambda number, frame: got.append(number))
print("ready", flush=True)
while not got:
    time.sleep(0.01)
time.sleep(0.3)
print(*got, flush=True)
sys.exit(5)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_reaches_the_program_once_and_it_ends_as_it_likes(
    launch: Launcher, number: signal.Signals
) -> None:
    launch.write("program.py", CATCHES)
    with launch.start(*ENOUGH, "--", PYTHON, "program.py") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.send_signal(number)
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (5, f"{int(number)}\n"), err
    assert "spent on 0 calls" in err


@pytest.mark.full
def test_ctrl_c_at_a_terminal_reaches_the_program_once(launch: Launcher) -> None:
    launch.write("program.py", CATCHES)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(launch.folder)
        os.execvpe(
            sys.executable,
            [*BUDGETGUARD, "run", *ENOUGH, "--", PYTHON, "program.py"],
            launch.environ,
        )
    seen = _until(terminal, b"ready")
    os.write(terminal, b"\x03")
    seen += _until(terminal, b"spent on 0 calls")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5
    lines = seen.replace(b"^C", b"").decode().splitlines()
    assert lines[lines.index("ready") + 1 :][0] == "2"


def _until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 1024)
    return seen


@pytest.mark.full
def test_a_program_that_ignores_sigint_may_go_on_ignoring_it(launch: Launcher) -> None:
    command = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    with launch.start(
        *ENOUGH, "--", PYTHON, "-c", command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    ) as program:
        assert program.communicate(timeout=60)[0] == "True\n"


@pytest.mark.full
def test_no_signal_is_blocked_or_ignored_that_was_not(launch: Launcher) -> None:
    command = (
        "import signal\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "import subprocess\n"
        "print(subprocess.run('exec yes | head -1', shell=True, capture_output=True, text=True))"
    )
    under = launch.run(*ENOUGH, "--", PYTHON, "-c", command)
    assert under.out == launch.command([sys.executable, "-c", command], {}).out


def test_the_budget_binds_even_if_the_starter_is_killed(launch: Launcher, temporary: Path) -> None:
    launch.agent()
    launch.write(
        "program.py",
        "import sys\nfrom agent import calls\nprint('ready', flush=True)\nsys.stdin.readline()\ncalls(4)\n",
    )
    with launch.start(
        "--max-budget", enough_for(2), "--", PYTHON, "program.py", stdin=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "ready\n"
        program.kill()
        program.wait()
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "made 2\n"
    (left,) = temporary.glob("budgetguard-run-*")  # nobody was there to remove it
    shutil.rmtree(left)


@pytest.mark.full
def test_a_call_under_way_when_the_program_is_killed_is_said_to_be_held(launch: Launcher) -> None:
    program = """
import os
import openai
import budgetguard
from budgetguard import events
from agent import call

budgetguard.on(lambda event: os.kill(os.getpid(), 9), events.Held)
call()
"""
    launch.agent()
    launch.write("program.py", program)
    ended = launch.run("--max-budget", "1", "--", PYTHON, "program.py")
    assert ended.code == 128 + signal.SIGKILL
    assert "held for 1 call without an end" in ended.err


@pytest.mark.full
def test_refusals_of_killed_processes_count(launch: Launcher) -> None:
    launch.agent()
    command = f"{PYTHON} -c 'import agent, os; agent.calls(1); os.kill(os.getpid(), 9)'; true"
    ended = launch.run("--max-budget", "0", "--", "sh", "-c", command)
    assert ended.code == 3
    assert "1 call refused" in ended.err


@pytest.mark.full
def test_what_takes_long_is_not_cut_off(launch: Launcher) -> None:
    begun = time.monotonic()
    assert launch.run(*ENOUGH, "--", "sleep", "1").code == 0
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize("ending", ["0", "7"])
@pytest.mark.parametrize("broken", ["2>&-", "2>/dev/full", "store", "summary"])
def test_the_status_is_the_program_s_whatever_becomes_of_our_output(
    broken: str, ending: str, launch: Launcher, store: str
) -> None:
    folder = store.removeprefix("disk://")
    options = "--max-budget 1 --summary-json sums/summary.json"
    does = {"store": f"rm -rf {folder}; touch {folder}; ", "summary": "rm -rf sums; "}.get(broken, "")
    (launch.folder / "sums").mkdir()
    launch.write("program.sh", f"{does}exit {ending}\n")
    run = " ".join(shlex.quote(part) for part in BUDGETGUARD)
    command = f"{run} run {options} -- sh program.sh {broken if broken.startswith('2') else ''}"
    assert launch.command(["sh", "-c", command], {}).code == int(ending)


@pytest.mark.full
def test_a_pipe_that_nobody_reads_does_not_change_the_status(launch: Launcher) -> None:
    reading, writing = os.pipe()
    command = ("--", "sh", "-c", "read line; exit 7")
    program = launch.start(*ENOUGH, *command, stdin=subprocess.PIPE, stderr=writing)
    os.close(reading)
    os.close(writing)
    program.communicate("go\n", timeout=60)
    assert program.returncode == 7


@pytest.mark.full
def test_what_was_imported_and_is_not_guarded_is_said(launch: Launcher) -> None:
    launch.write("ai21/__init__.py", "")
    launch.write("replicate.py", "")
    # One that is only tried, and one in a process that is killed.
    child = (
        "try:\n    import dashscope\nexcept ImportError:\n    import replicate, os, json.tool\nos._exit(0)"
    )
    launch.write("child.py", child)
    launch.write("program.py", "import subprocess, sys, ai21\nsubprocess.run([sys.executable, 'child.py'])")
    ended = launch.run("--max-budget", "1", "--summary-json", "summary.json", "--", "python", "program.py")
    assert ended.err == (
        "budgetguard: no guarded call was made, $1.00 of $1.00 left, ai21 and replicate were imported and "
        "are not guarded: what is spent there is not counted\n"
    )
    assert launch.summary()["unguarded"] == ["ai21", "replicate"]
    ended = launch.python("import budgetguard.auto, replicate", BUDGETGUARD_MAX_BUDGET="1")
    assert (
        "no guarded call was made, $1.00 of $1.00 left, replicate was imported and is not guarded"
        in ended.err
    )


def test_both_lists_of_unguarded_sdks_are_the_same() -> None:
    text = (Path(launch_package.__file__).parent / "onpath" / "_budgetguard_run.py").read_text()
    (listed,) = re.findall(r"^_unguarded = (\[.*?\])", text, re.DOTALL | re.MULTILINE)
    assert ast.literal_eval(listed) == list(UNGUARDED)


def test_the_guarded_sdks_are_those_of_the_table() -> None:
    text = (Path(launch_package.__file__).parent / "onpath" / "_budgetguard_run.py").read_text()
    (listed,) = re.findall(r"^_GUARDED = (\(.*?\))", text, re.DOTALL | re.MULTILINE)
    assert list(ast.literal_eval(listed)) == [patch.sdk.package for patch in SDKS.values()]
