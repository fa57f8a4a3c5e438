"""Runs a program in a process of its own, for these packages patch what all of a process shares."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.provider.server import OpenAIServer, Reply

Program = Callable[..., Any]


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    """An OpenAI on this machine; `provider.count()` says how many calls it answered."""
    with OpenAIServer(Reply(prompt_tokens=8, completion_tokens=100)) as server:
        yield server


@pytest.fixture
def program(tmp_path: Path, provider: OpenAIServer) -> Program:
    """Run a program's text and return what it printed, read as JSON. It has the provider, and no key."""

    def run(text: str, *command: str, expected: int = 0, **environ: str) -> Any:
        path = tmp_path / "program.py"
        path.write_text(text)
        kept = ("BUDGETGUARD_", "OPENAI_", "PYTHON")
        done = subprocess.run(
            [*(command or (sys.executable,)), str(path)],
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith(kept)},
                "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
                "BUDGETGUARD_STORE": "memory://",
                "OPENAI_BASE_URL": provider.base_url,
                "OPENAI_API_KEY": "not-a-key",
                **environ,
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == expected, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
