"""A running service of each test's own, on a free port of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .services import Service, running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service on a disk store, which lets nobody in without a key: see `Service.key`."""
    with running(f"disk://{tmp_path / 'budgets'}") as made:
        made.key()  # from the first key on, nobody is let in without one
        yield made


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Service]:
    """A service without any key, for this machine only."""
    with running(f"disk://{tmp_path / 'budgets'}") as made:
        yield made
