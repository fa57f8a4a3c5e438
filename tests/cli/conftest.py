"""A store of each test's own, and the command on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from budgetguard.guard import Guard

from .helpers import Command, Done, clean_environment, run_here


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "budgets"


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in this process, on a store of this test's own."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def on_store(*arguments: str, **environ: str) -> Done:
        return run_here(*arguments, **{"BUDGETGUARD_STORE": f"disk://{folder}", **environ})

    return on_store


@pytest.fixture
def guard(folder: Path) -> Iterator[Guard]:
    """A program's guard on the same store."""
    made = Guard(store=f"disk://{folder}", project="default")
    yield made
    made.close()
