"""End what a run of the tests has started, and delete what it has made, also if the run is killed.

A run has one folder for everything temporary. The folder is also the mark of the run's processes: they
inherit a variable that names it, or are started with a path in it. A watchdog, which is a process of its own,
waits for the run's process to end, however it does; then it kills what bears the mark and deletes the folder.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

# Not BUDGETGUARD_*: tests take those out of the environments of programs.
_VARIABLE: Final = "TESTS_OF_BUDGETGUARD"
# Bytes that a run may need, with some to spare.
_ROOM: Final = 4 * 2**30
_UNDO: Final = "undo"
_PATIENCE: Final = 20.0


def _in_memory() -> str | None:
    """Return a folder in memory, if there is one with room: stores and servers sync their files all the time.

    What tests kill are processes, never the machine. A TMPDIR that is set has the last word.
    """
    folder = "/dev/shm"
    if "TMPDIR" in os.environ:
        return None
    try:
        found = os.statvfs(folder)
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    usable = os.access(folder, os.W_OK) and not found.f_flag & os.ST_NOEXEC
    return folder if usable and min(found.f_bavail * found.f_frsize, free) >= _ROOM else None


def watch_over_this_process() -> Path:
    """Start a watchdog over this process, and return the run's folder.

    From now on `tempfile` makes files and folders there, in processes that are started from here, too.
    """
    before = dict(os.environ)
    folder = Path(tempfile.mkdtemp(prefix="bg-tests-", dir=_in_memory()))
    # PostgreSQL runs as somebody else if we are root, in a folder below.
    folder.chmod(0o711)
    (folder / _UNDO).mkdir()
    os.environ[_VARIABLE] = os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    watchdog = subprocess.Popen(
        [sys.executable, "-I", __file__, str(folder), str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=before,
        start_new_session=True,  # Ctrl-C is for the run
    )
    # Registered first, so called last: what the run's own ends leave behind is the watchdog's.
    atexit.register(_wait_for, watchdog, os.getpid())
    return folder


def undo_at_the_end(*command: str) -> Path:
    """Have a command run at the end of the run, unless the returned file is deleted before.

    For what is neither a process nor a file.
    """
    note = Path(os.environ[_VARIABLE], _UNDO, uuid.uuid4().hex)
    note.write_text(json.dumps(command))
    return note


def _wait_for(watchdog: subprocess.Popen[bytes], run: int) -> None:
    if os.getpid() != run:
        return  # a forked child
    # To close the pipe is not enough while a forked child has it, too.
    watchdog.communicate(b"end")


def _main(folder: Path, run: int) -> None:
    # A forked child has the pipe, too, which then does not end with the run.
    watched = [sys.stdin.fileno()]
    with suppress(AttributeError, OSError):
        watched.append(os.pidfd_open(run))
    select.select(watched, [], [])
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up and (left := list(_processes_of(folder, run))):
        for process in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    for note in (folder / _UNDO).iterdir():
        with suppress(OSError, ValueError):
            subprocess.run(json.loads(note.read_text()), capture_output=True, check=False)
    while time.monotonic() < give_up and folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def _processes_of(folder: Path, run: int) -> Iterator[int]:
    """Yield the processes of the run, as far as /proc tells."""
    name, proc = os.fsencode(folder), Path("/proc")
    if not proc.joinpath("self/environ").exists():
        return  # not Linux
    pipe = proc.joinpath("self/fd/0").readlink()
    for entry in proc.glob("[0-9]*"):
        if int(entry.name) in (run, os.getpid()):
            continue
        with suppress(OSError):
            is_dead = entry.joinpath("stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            told = entry.joinpath("environ").read_bytes() + b"\0" + entry.joinpath("cmdline").read_bytes()
            # Valkey writes its title over both. A forked child has those of the run, and its pipe.
            is_ours = name in told or any(
                file == pipe or file.is_relative_to(folder) for file in _open_files(entry)
            )
            if is_ours and not is_dead:
                yield int(entry.name)


def _open_files(process: Path) -> Iterator[Path]:
    for link in (process / "cwd", *process.joinpath("fd").iterdir()):
        with suppress(OSError):
            yield link.readlink()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
