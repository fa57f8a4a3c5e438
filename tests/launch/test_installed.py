"""A Python that budgetguard is installed for joins a run even if its `PYTHONPATH` does not say so."""

from __future__ import annotations

import json
import shutil
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

import budgetguard
from tests.provider.server import OpenAIServer

from .programs import BUDGETGUARD, Launcher, enough_for, environment, site_packages

ROOT = Path(__file__).parents[2]
IN_WHEEL: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "targets"
]["wheel"]["force-include"]
SHOWS = "import sys; print(sorted(name for name in sys.modules if 'budgetguard' in name))"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python with budgetguard as a wheel puts it there."""
    made = environment(tmp_path_factory.mktemp("installed"), leave_out=("budgetguard",))
    target = site_packages(made)
    (target / "budgetguard").symlink_to(Path(budgetguard.__file__).parent)
    for source, name in IN_WHEEL.items():
        shutil.copy(ROOT / source, target / name)
    return made


@pytest.mark.full
def test_a_python_whose_path_was_replaced_or_is_ignored_spends_from_the_run(
    launch: Launcher, provider: OpenAIServer, python: Path
) -> None:
    agent = launch.agent()
    ways = (
        f"PYTHONPATH=src {python}",
        f"PYTHONPATH= {python}",
        f"env -u PYTHONPATH {python}",
        f"{python} -E",
        f"{python} -I",
    )
    command = "\n".join(f"{way} {agent} 3" for way in ways)
    ended = launch.run("--max-budget", enough_for(4), "--", "sh", "-c", command)
    assert ended.out.split("\n")[:-1] == ["made 3", "made 1", "made 0", "made 0", "made 0"], ended.err
    assert (provider.count(), ended.code) == (4, 3)


@pytest.mark.full
def test_a_python_whose_path_is_whole_joins_once(
    launch: Launcher, provider: OpenAIServer, python: Path
) -> None:
    command = "import agent, sys; agent.calls(2); print(sum('_Finder' in str(one) for one in sys.meta_path))"
    launch.agent()
    ended = launch.run("--max-budget", enough_for(1), "--", str(python), "-c", command)
    assert (ended.out, provider.count()) == ("made 1\n1\n", 1), ended.err


def test_outside_of_a_run_nothing_of_it_is_imported(launch: Launcher, python: Path) -> None:
    assert launch.command([str(python), "-c", SHOWS], {}).out == "[]\n"


@pytest.mark.full
def test_in_a_run_no_more_is_imported_than_what_waits_for_openai(launch: Launcher, python: Path) -> None:
    ended = launch.run("--max-budget", "1", "--", "env", "-u", "PYTHONPATH", str(python), "-c", SHOWS)
    assert ended.out == "['_budgetguard_run', '_budgetguard_start']\n"


@pytest.mark.full
def test_a_python_that_joins_unasked_may_be_told_to_ignore_its_path(launch: Launcher, python: Path) -> None:
    agent = launch.agent()
    command = [str(python), *BUDGETGUARD[1:], "run", "--max-budget", enough_for(1), "--"]
    ended = launch.command([*command, str(python), "-I", agent, "3"], {})
    assert (ended.made, ended.code) == (1, 3), ended.err
    refused = launch.command([*command, str(python), "-IS", agent, "3"], {})
    assert (refused.made, refused.code) == (0, 2)
    assert "-S" in refused.err


@pytest.mark.full
def test_a_python_that_ignores_its_variables_is_not_told_by_them_where_code_is(
    launch: Launcher, provider: OpenAIServer, tmp_path: Path
) -> None:
    """Of what it needs, wrapt is elsewhere only, where the variables lead: they do without -I."""
    lacking = environment(tmp_path / "lacking", leave_out=("budgetguard", "wrapt"))
    target = site_packages(lacking)
    (target / "budgetguard").symlink_to(Path(budgetguard.__file__).parent)
    for source, name in IN_WHEEL.items():
        shutil.copy(ROOT / source, target / name)
    agent = launch.agent()
    isolated = launch.run("--max-budget", "1", "--", "sh", "-c", f"{lacking} -I {agent} 1")
    assert "No module named 'wrapt'" in isolated.err
    assert provider.count() == 0
    assert launch.run("--max-budget", "1", "--", str(lacking), agent, "1").made == 1


def _wheel() -> Distribution | None:
    found = distribution("budgetguard-ai")
    source = json.loads(found.read_text("direct_url.json") or "{}")
    return None if source.get("dir_info", {}).get("editable") else found


@pytest.mark.skipif(_wheel() is None, reason="what is installed here is the checkout itself")
def test_a_wheel_brings_what_it_takes_and_takes_it_away_again() -> None:
    installed = _wheel()
    assert installed is not None
    recorded = {str(file) for file in installed.files or ()}
    assert set(IN_WHEEL.values()) <= recorded
    assert {
        "budgetguard/launch/onpath/sitecustomize.py",
        "budgetguard/launch/onpath/_budgetguard_run.py",
    } <= recorded
