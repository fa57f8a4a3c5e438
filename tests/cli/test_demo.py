"""The demo runs the real client against a real server, and its books equal the bills."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from budgetguard.testing.openai_server import OpenAIServer, Reply

ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("BUDGETGUARD_", "OPENAI_"))}
PLAIN = {**ENVIRON, "PYTHONIOENCODING": "utf-8"}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from budgetguard.cli import main; main()", *arguments],
        env={**PLAIN, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        encoding="utf-8",
    )


def test_demo_tells_each_step_and_ends_with_equal_books() -> None:
    done = run("demo", "--fast", COLUMNS="100")
    assert done.returncode == 0, done.stderr
    for word in ("projected", "held", "settled", "REFUSED", "bob was refused", "The books equal"):
        assert word in done.stdout
    assert "\x1b" not in done.stdout, "what is no terminal gets no escape sequences"
    assert done.stderr == ""
