"""Every example runs on a machine without a key and without internet, and shows something."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import pages
from .running import environment, python, run

MOST_LINES = 60


@pytest.mark.full
@pytest.mark.parametrize("path", pages.EXAMPLES, ids=pages.name)
def test_an_example_runs_offline_shows_something_and_leaves_nothing_behind(
    path: Path, tmp_path: Path
) -> None:
    variables = environment(tmp_path)
    del variables["BUDGETGUARD_STORE"]
    done = run(python(path), tmp_path, variables)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.strip(), "it shows nothing"
    assert not done.stderr.strip(), done.stderr
    assert not list((tmp_path / "home").iterdir()), "it wrote to the home of who tried it"


@pytest.mark.parametrize("path", pages.EXAMPLES, ids=pages.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < MOST_LINES
