"""A disk store in which something was spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from budgetguard.core.accounts import Budget
from tests.bad_days.disk.opening import opened, spend


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store in which user 1 has spent 5 of 1 000 Nanos."""
    folder = tmp_path / "store"
    store = opened(folder)
    store.set_budget("user:1", Budget(1_000))
    spend(store, 5)
    store.close()
    return folder
