"""End what a run of the tests has started, and delete what it has left, also if the run is killed.

A run has one folder for everything temporary, which is also the mark of its processes: they inherit the
variable that names it. A watchdog waits for the run's process to end, however it does; then it kills what
bears the mark, or was forked from that process, and deletes the folder.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

# Not BUDGETGUARD_*: tests take those out of the environments of programs.
MARK: Final = "TESTS_OF_BUDGETGUARD"
_PATIENCE: Final = 20.0


class Watchdog:
    """A watchdog over this process, and the folder of this run.

    Attributes:
        folder: where `tempfile` makes files and folders from now on, in processes started here too.
    """

    def __init__(self) -> None:
        before = dict(os.environ)
        self.folder = Path(tempfile.mkdtemp(prefix="budgetguard-tests-"))
        # PostgreSQL runs as somebody else if we are root, in a folder below.
        self.folder.chmod(0o711)
        os.environ[MARK] = os.environ["TMPDIR"] = str(self.folder)
        tempfile.tempdir = None
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=before,
            start_new_session=True,  # Ctrl-C is for the run
        )

    def end_run(self) -> None:
        """End what still runs and delete the folder, as if this process had ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_PATIENCE)


def _watch(folder: Path, pid: int) -> None:
    pipe = str(Path("/proc/self/fd/0").readlink()) if Path("/proc/self/fd/0").exists() else ""
    # A forked child has the pipe too, so that its end does not tell of the run's.
    watched = [sys.stdin.fileno()]
    with suppress(AttributeError, OSError):
        watched.append(os.pidfd_open(pid))
    select.select(watched, [], [])
    give_up = time.monotonic() + _PATIENCE
    while (left := list(_of_the_run(folder, pipe))) and time.monotonic() < give_up:
        for process in left:
            if process != pid or (len(watched) == 2 and select.select(watched[1:], [], [], 0)[0]):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
        if left == [pid]:
            break
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


def _of_the_run(folder: Path, pipe: str) -> Iterator[int]:
    """Yield the processes that bear the run's mark or hold its end of the pipe."""
    mark = f"{MARK}={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (
                int(entry.name) == os.getpid()
                or entry.joinpath("stat").read_text().rpartition(")")[2][1] == "Z"
            ):
                continue
            variables = entry.joinpath("environ").read_bytes().split(b"\0")
            marked = any(one == mark or one.startswith(mark + b"/") for one in variables)
            if marked or (pipe and any(str(fd.readlink()) == pipe for fd in entry.joinpath("fd").iterdir())):
                yield int(entry.name)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]), int(sys.argv[2]))
