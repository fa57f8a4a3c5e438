"""A run of the tests leaves no process and no folder behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")

ROOT = Path(__file__).parents[1]
MARK = "running:"
# A run with everything that runs start: servers, a program, one without the run's variables, a forked child.
RUN = """
import os, subprocess, sys, time
from tests.servers.postgres import shared_server
from tests.servers.valkey import shared_valkey
from tests.watchdog import undo_at_the_end

def test_it_starts_servers_and_is_ended(tmp_path):
    undo_at_the_end(sys.executable, "-c", f"open({os.environ['UNDONE']!r}, 'w')")
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = [subprocess.Popen(sleep, start_new_session=True)]
    started += [subprocess.Popen([*sleep, str(tmp_path)], env={})]
    pids = [os.getpid(), shared_valkey().pid, shared_server().pid, *(each.pid for each in started)]
    if (child := os.fork()) == 0:
        time.sleep(600)
    print("\\nrunning:", *pids, child, flush=True)
    getattr(sys.modules[__name__], os.environ["THEN"])(started)

def hang(started):
    time.sleep(600)

def fail(started):
    raise AssertionError("as asked")
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the run under test makes its files, with a path short enough for sockets."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as somebody else if we are root
        yield folder


@contextmanager
def run_that(then: str, tmp_path: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    program = tmp_path / "test_run.py"
    program.write_text(RUN)
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "-s", str(program)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "THEN": then, "UNDONE": str(tmp_path / "undone")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            yield run
        finally:
            run.kill()


def pids_of(run: subprocess.Popen[str]) -> list[int]:
    assert run.stdout is not None
    said = []
    for line in run.stdout:
        said.append(line)
        if line.startswith(MARK):
            return [int(word) for word in line.removeprefix(MARK).split()]
    raise AssertionError("".join(said))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_gone(pids: list[int], folder: Path) -> None:
    give_up = time.monotonic() + 60
    while (left := [pid for pid in pids if is_running(pid)]) or list(folder.iterdir()):
        assert time.monotonic() < give_up, (left, list(folder.iterdir()))
        time.sleep(0.02)


@pytest.mark.full
@pytest.mark.parametrize(
    "how",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.full),
        pytest.param(signal.SIGINT, marks=pytest.mark.full),
    ],
    ids=lambda how: how.name,
)
def test_a_run_that_is_ended_from_outside_leaves_nothing(
    how: signal.Signals, tmp_path: Path, folder: Path
) -> None:
    with run_that("hang", tmp_path, folder) as run:
        pids = pids_of(run)
        assert all(map(is_running, pids))
        run.send_signal(how)
        run.wait(60)
        wait_until_gone(pids, folder)
    assert (tmp_path / "undone").exists()


@pytest.mark.full
def test_a_run_that_ends_by_itself_has_left_nothing_when_it_ends(tmp_path: Path, folder: Path) -> None:
    with run_that("fail", tmp_path, folder) as run:
        pids = pids_of(run)
        text, _ = run.communicate(timeout=60)
        assert "as asked" in text
        assert [pid for pid in pids if is_running(pid)] == []
        assert list(folder.iterdir()) == []
