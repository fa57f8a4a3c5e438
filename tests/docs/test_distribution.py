"""The name to install is `budgetguard-ai`: on PyPI, plain `budgetguard` is somebody else's package."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from .pages import ROOT, name

TEXTS = (".py", ".md", ".toml", ".ini", ".yaml", ".yml", ".service", ".txt", ".cfg", ".sh", ".pth", "")
FOLDERS = ("budgetguard", "docs", "examples", "benchmarks", "tests", ".ci")
INSTALLS = re.compile(
    r"\b(?:pip[x3]?|uv|uvx|poetry|pdm|conda|rye|hatch)\b[^\n#;&|]*?\b(?:install|add|run|download|--with|--from)\b"
    r"(?P<what>[^\n#;&|)]*)"
    r"|\buvx\s+(?P<tool>\S+)"
)
# The name of a distribution, neither a module, a path, an option's value nor a word of prose.
PLAIN = re.compile(r"(?<![\w./:@=-])budgetguard(?![\w-]|\.\w|/)")
EXTRAS = re.compile(r"(?<![\w./-])budgetguard\[\w")
# What is installed for other people's tests beside the contract of stores: a server of chats, and a clock.
FOR_TESTS = {"__init__", "clock", "openai_server"}


def wrong_lines(text: str) -> Iterator[str]:
    for line in text.replace("\\n", "\n").splitlines():
        found = INSTALLS.search(line)
        asked = "" if found is None else found["what"] or found["tool"] or ""
        if EXTRAS.search(line) or PLAIN.search(asked):
            yield line.strip()


def texts() -> list[Path]:
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(
        p for p in files if p.suffix in TEXTS and p != Path(__file__) and "__pycache__" not in p.parts
    )


def test_no_text_and_no_error_tells_anybody_to_install_a_strangers_package() -> None:
    wrong = {name(path): list(wrong_lines(path.read_text("utf-8", errors="replace"))) for path in texts()}
    assert {path: lines for path, lines in wrong.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "$ pip install budgetguard",
        "pip install -U 'budgetguard'",
        "python -m pip install --quiet budgetguard==0.1",
        "needs redis: pip install 'budgetguard[redis]'",
        '  "budgetguard[cli]",',
        "uv add budgetguard",
        "uvx budgetguard demo",
        "pipx run budgetguard",
    ],
)
def test_the_ways_to_say_it_wrong_are_seen(line: str) -> None:
    assert list(wrong_lines(line)) == [line.strip()]


@pytest.mark.parametrize(
    "line",
    [
        "$ pip install 'budgetguard-ai[cli]'",
        "pip install . && budgetguard demo",
        "$ python3 -m venv .venv && .venv/bin/pip install --quiet '.[cli]' && .venv/bin/budgetguard demo",
        "ExecStart=/opt/budgetguard/bin/budgetguard serve",
        "# python3 -m venv /opt/budgetguard && /opt/budgetguard/bin/pip install 'budgetguard-ai[server]'",
    ],
)
def test_what_is_right_is_let_be(line: str) -> None:
    assert list(wrong_lines(line)) == []


def test_the_project_is_called_so_and_its_command_and_import_are_budgetguard() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == "budgetguard-ai"
    assert set(project["scripts"]) == {"budgetguard"}
    installed = distribution("budgetguard-ai")
    assert "budgetguard" in {
        entry.name for entry in installed.entry_points if entry.group == "console_scripts"
    }


def test_the_readme_says_which_is_which() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "budgetguard-ai" in readme
    assert re.search(r"`budgetguard`[^.]*PyPI[^.]*somebody else", " ".join(readme.split()))


def test_the_wheel_is_the_package_without_any_fake_of_a_provider(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        texts = {Path(name): opened.read(name) for name in opened.namelist()}
    tops = {path.parts[0] for path in texts if not path.parts[0].endswith(".dist-info")}
    assert tops == {"budgetguard", "_budgetguard_start.py", "budgetguard_run.pth"}
    own = {path.relative_to(ROOT) for path in (ROOT / "budgetguard").rglob("*.py")}
    assert {path for path in own if path.parts[1:3] != ("launch", "installed")} <= set(texts)
    testing = {path.stem for path in texts if path.parts[:2] == ("budgetguard", "testing")}
    assert testing >= FOR_TESTS
    assert {name for name in testing if "contract" not in name} == FOR_TESTS
    uses_tests = re.compile(rb"^\s*(from|import) tests\b", re.MULTILINE)
    assert [str(path) for path, text in texts.items() if uses_tests.search(text)] == []
