"""A provider on this machine, and the command that runs programs against it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from budgetguard.guard import Guard
from tests.provider.server import OpenAIServer, Reply

from .programs import Launcher, clean_environment


@pytest.fixture
def provider() -> Iterator[OpenAIServer]:
    """Bills every call what `programs.COST` says."""
    with OpenAIServer(Reply(prompt_tokens=8, completion_tokens=100)) as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"disk://{tmp_path / 'budgets'}"


@pytest.fixture
def guard(store: str) -> Iterator[Guard]:
    made = Guard(store=store, project="default")
    yield made
    made.close()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files, of a path short enough for sockets in it. Runs leave nothing there."""
    with tempfile.TemporaryDirectory(prefix="bg") as folder:
        yield Path(folder)
        assert not list(Path(folder).glob("budgetguard-*"))


@pytest.fixture
def launch(tmp_path: Path, temporary: Path, store: str, provider: OpenAIServer) -> Launcher:
    home = tmp_path / "home"
    home.mkdir()
    environ = {
        **clean_environment(),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "BUDGETGUARD_STORE": store,
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API_KEY": "not-a-key",
    }
    return Launcher(tmp_path, environ)
