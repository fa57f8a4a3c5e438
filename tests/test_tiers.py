"""Every test is in one of two tiers: what each change must pass, and what a release must pass as well."""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tiers import ONE_IN

ROOT = Path(__file__).parents[1]
# Has tests of both.
SAMPLE = "tests/crash/test_kill.py"


def tier_of(command: str) -> str | None:
    """Return which marks a command asks for."""
    words = shlex.split(command)
    for chooses_otherwise in ("-k", "--deselect", "--ignore"):
        assert chooses_otherwise not in words
    return words[words.index("-m") + 1] if "-m" in words else None


def commands_of(environment: str) -> list[str]:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", "utf-8")
    return [line for line in tox[environment]["commands"].splitlines() if line]


def collected(*options: str) -> set[str]:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *options, SAMPLE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return {line for line in done.stdout.splitlines() if "::" in line}


def test_tox_runs_one_tier_and_tox_full_the_other() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]
    assert tier_of(options["addopts"]) == "not full"
    assert tier_of(commands_of("testenv")[-1]) is None
    marked, others = commands_of("testenv:full")
    assert tier_of(marked) == "full"
    for name in ("oldest", "beside", "recorders"):
        assert tier_of(commands_of(f"testenv:{name}")[0]) == ""
        assert name in others
    for name in ("frameworks", "frameworks-openai2"):
        assert tier_of(commands_of(f"testenv:{name}")[-1]) == ""
        assert f",{name}," in others
    assert all(f"py3{minor}" in others for minor in range(11, 16))


def test_each_test_of_which_some_cases_are_taken_exists() -> None:
    for name, step in ONE_IN.items():
        path, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / "tests" / path).read_text("utf-8"), name
        assert step > 1


@pytest.mark.full
def test_the_two_tiers_are_all_tests() -> None:
    every, change, release = collected("-m", ""), collected(), collected("-m", "full")
    assert change
    assert release
    assert not change & release
    assert change | release == every
