"""Several processes on one store tell once; one that ends sends what is queued; one may be killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from budgetguard.testing.clock import FakeClock
from tests.guarded_calls import make_guard
from tests.server.receivers import receiving

from .test_sending import json_url, titles

ROOT = Path(__file__).parents[2]
PATIENCE = 120


@contextmanager
def program(store: str, url: str, what: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program until it is ready to do something."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.alerts._program", store, url, what],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            hear(process, "ready")
            yield process
        finally:
            process.kill()


def hear(process: subprocess.Popen[str], word: str) -> None:
    """Wait until a program says this."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


def tell(process: subprocess.Popen[str]) -> None:
    """Have a program go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A disk store, on which user u has $1."""
    url = f"disk://{tmp_path}/store"
    guard = make_guard(url, spool=None)
    guard.close()
    return url


def test_four_processes_at_once_tell_each_threshold_and_the_refusal_once(store: str) -> None:
    with receiving() as receiver, ExitStack() as stack:
        programs = [stack.enter_context(program(store, json_url(receiver), "spend")) for _ in range(4)]
        for step in range(2):
            for one in programs:
                tell(one)
            if step == 0:
                for one in programs:
                    hear(one, "spent")
        for one in programs:
            _, errors = one.communicate(timeout=PATIENCE)
            assert (one.returncode, errors) == (0, "")
        told = [one.event["title"] + one.event["message"] for one in receiver.taken]
        # What one process meets in the same moment is one message, so they are counted in the text.
        for percent in (50, 80, 100):
            said = [
                f"{percent} % of its limit",
                f"{percent} % and",
                f"and {percent} %",
                f"{percent} % reached",
            ]
            assert sum(any(part in one for part in said) for one in told) == 1, told
        assert sum("was refused (project" in one for one in told) == 1, told


def test_a_program_that_ends_at_once_sends_what_it_has_queued(store: str) -> None:
    with receiving(503) as receiver, program(store, json_url(receiver), "leave") as one:
        tell(one)
        _, errors = one.communicate(timeout=PATIENCE)
        assert (one.returncode, errors) == (0, "")
        assert titles(receiver) == ["User 'u' has reached 80 % of its limit (project p)"]


@pytest.mark.full
def test_a_program_ends_although_nobody_takes_its_alerts_and_says_so(store: str) -> None:
    with program(store, "json://user:hunter2@127.0.0.1:9/s3cret", "leave") as one:
        began = time.monotonic()
        tell(one)
        _, errors = one.communicate(timeout=PATIENCE)
        assert one.returncode == 0
        assert "an alert could not be sent to JSON (json://127.0.0.1:9/…) in 8 tries" in errors
        assert "hunter2" not in errors
        assert "s3cret" not in errors
        assert time.monotonic() - began < 60  # it waits for 5 seconds; a busy machine for longer


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_after_a_process_was_killed_the_others_tell_what_comes_next(store: str) -> None:
    with receiving() as receiver:
        with program(store, json_url(receiver), "wait") as one:
            tell(one)
            hear(one, "spent")
            one.send_signal(signal.SIGKILL)
            one.wait(PATIENCE)
        guard = make_guard(store, alerts=[json_url(receiver)], clock=FakeClock(int(time.time() * 1000)))
        with guard.call(model="round-model", input_tokens=100_000, max_output_tokens=0, user="u") as call:
            call.settle(
                {"usage": {"prompt_tokens": 100_000, "completion_tokens": 0, "total_tokens": 100_000}}
            )
        guard.flush()
        assert "User 'u' has reached 100 % of its limit (project p)" in titles(receiver)
        guard.close()
