"""Run a program as its reader would: another process, an empty home, and no network but loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_TIMEOUT: Final = 120.0

# Found by Python at start, in child processes too.
_SITE: Final = """
import sys


def refuse(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        if arguments[1][0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"no program of the documentation may connect to {arguments[1]}")
    if event == "socket.getaddrinfo" and arguments[0] not in (None, "127.0.0.1", "::1", "localhost"):
        raise RuntimeError(f"no program of the documentation may look up {arguments[0]!r}")


sys.addaudithook(refuse)
"""

_SHOWN = re.compile(r"(?P<indent> *)print\((?P<what>.*)\)  # -> (?P<text>.+)")

# What the lines that say what they print are turned into, on the same line.
_CHECK: Final = """
import atexit
import builtins
import fnmatch

_expected = {expected!r}
_unseen = set(_expected)


def _shows(line, *values):
    _unseen.discard(line)
    text = " ".join(map(str, values))
    print(text)
    wanted = _expected[line].replace("[", "[[]").replace("...", "*")
    if not fnmatch.fnmatchcase(text, wanted):
        raise AssertionError(f"line {{line}} prints {{text!r}}, and the page says {{_expected[line]!r}}")


def _report():
    if _unseen:
        import os
        print("never reached: lines", sorted(_unseen), file=__import__("sys").stderr, flush=True)
        os._exit(1)


builtins._shows = _shows
atexit.register(_report)
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the variables of a program at home in `folder`; nothing of ours is passed on but the path."""
    home, site = folder / "home", folder / "site"
    home.mkdir(exist_ok=True)
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE)
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "HOME": str(home),
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "COLUMNS": "120",
        "BUDGETGUARD_STORE": f"disk://{folder / 'budgets'}",
        **more,
    }


def run(
    command: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`."""
    return subprocess.run(
        command, cwd=folder, env=dict(variables), capture_output=True, text=True, timeout=_TIMEOUT
    )


def python(path: Path, *arguments: str) -> list[str]:
    """Return the command that runs a file, any warning an error."""
    return [sys.executable, "-W", "error", str(path), *arguments]


def checked(program: str, folder: Path) -> Path:
    """Write a program whose lines `print(...)  # -> text` fail where they print something else.

    `...` in the text stands for anything. A line that says what it prints must also be reached.
    """
    expected: dict[int, str] = {}
    lines = program.splitlines()
    for index, line in enumerate(lines):
        if found := _SHOWN.fullmatch(line):
            expected[index + 1] = found["text"]
            lines[index] = f"{found['indent']}_shows({index + 1}, {found['what']})"
    (folder / "checking.py").write_text(_CHECK.format(expected=expected))
    path = folder / "page.py"
    # The first line of a page is its title, so there is room for the import.
    assert not lines[0], "a page begins with its title"
    path.write_text("\n".join(["import checking", *lines[1:]]) + "\n")
    return path
