"""The command starts everywhere: with and without its extra, and says what it can do."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

import budgetguard
from budgetguard.cli.app import COMMANDS

from .helpers import Command, run


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path) -> None:
    """All that is installed, but typer and rich."""
    packages = tmp_path / "packages"
    packages.mkdir()
    here = Path(budgetguard.__file__).parent
    for path in [*Path(sysconfig.get_path("purelib")).iterdir(), here]:
        known = path.name.lower().startswith(("typer", "rich", "_editable", "__editable"))
        if not known and not (packages / path.name).exists():
            (packages / path.name).symlink_to(path)
    script = f"import sys; sys.path[:0] = [{str(packages)!r}]; from budgetguard.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, "users"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "pip install 'budgetguard-ai[cli]'" in done.stderr


def test_importing_the_package_needs_neither_typer_nor_rich() -> None:
    script = (
        "import sys, budgetguard, budgetguard.cli; print([m for m in ('typer', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_installed_command_runs() -> None:
    done = run("--version")
    assert (done.code, done.out.strip()) == (0, f"budgetguard {version('budgetguard-ai')}")


def test_help_names_every_command(command: Command) -> None:
    bare, asked = command(), command("--help")
    assert bare.code == asked.code == 0
    assert bare.out.strip() == asked.out.strip()
    for name in COMMANDS:
        assert f"  {name} " in asked.out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_with_an_example(command: Command, name: str) -> None:
    done = command(name, "--help")
    assert done.code == 0
    if name in ("keys", "alerts"):  # they have commands of their own
        assert {"keys": "  create", "alerts": "  test"}[name] in done.out
        return
    assert f"  budgetguard {name}" in done.out
    assert "--json" in done.out or name in ("mcp", "serve")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_of_each_command_what_its_own_help_begins_with(command: Command, name: str) -> None:
    summary = COMMANDS[name][1]
    for asked in (command("--help"), command(name, "--help")):
        assert summary in " ".join(asked.out.split())


def test_help_imports_no_command() -> None:
    script = """
import sys
from budgetguard.cli.app import app
try:
    app(["--help"])
finally:
    print([name for name in ("rich", "pydantic", "budgetguard.cli.session") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_that_is_mistyped_is_guessed(command: Command) -> None:
    done = command("creat")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "'create'" in done.err


def test_errors_are_red_at_a_terminal_alone(command: Command) -> None:
    assert "\x1b" not in command("colour").err
    assert "\x1b[31m" in command("colour", FORCE_COLOR="1", TERM="xterm").err


@pytest.mark.full
def test_a_terminal_without_unicode_gets_ascii(folder: Path) -> None:
    environ = {"BUDGETGUARD_STORE": f"disk://{folder}", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert run("create", "Ольга", "10", **environ).code == 0
    for arguments in (["users"], ["show", "Ольга"], ["users", "--json"], ["show", "Петр"]):
        done = run(*arguments, **environ)
        assert done.out.isascii()
        assert done.err.isascii()
        assert "\\u041e" in done.out + done.err or "\\u041f" in done.err


def test_store_and_project_may_stand_before_the_command(command: Command, folder: Path) -> None:
    here = ("--store", f"disk://{folder}-other", "--project", "p")
    assert command(*here, "create", "alice", "10", "--json").object["project"] == "p"
    before, after = command(*here, "users", "--json"), command("users", *here, "--json")
    assert before.code == after.code == 0
    assert before.objects == after.objects
    assert [balance["user"] for balance in before.objects] == ["alice"]
    assert not folder.exists()


def test_what_stands_after_the_command_outranks_what_stands_before(command: Command, folder: Path) -> None:
    for name in ("one", "two"):
        command("create", name, "10", "--store", f"disk://{folder}-{name}", "--project", name)
    done = command(
        *("--store", f"disk://{folder}-one", "--project", "one"),
        *("users", "--store", f"disk://{folder}-two", "--project", "two", "--json"),
    )
    assert [balance["user"] for balance in done.objects] == ["two"]


def test_what_stands_before_the_command_outranks_the_variables(command: Command, folder: Path) -> None:
    command("create", "alice", "10", "--project", "p")
    done = command("--project", "p", "users", "--json", BUDGETGUARD_PROJECT="other")
    assert [balance["user"] for balance in done.objects] == ["alice"]


def test_a_folder_that_is_not_there_is_named_as_the_store_would_open_it(command: Command) -> None:
    done = command("users", "--store", "disk://no/such/folder?timeout=5")
    assert done.code == 2
    assert f"there is no store in {Path('no/such/folder').absolute()}:" in done.err


@pytest.mark.parametrize("url", ["disk://", "disk://x?timeout=soon"])
def test_a_bad_folder_is_refused_as_the_store_would(command: Command, url: str) -> None:
    done = command("--store", url, "users")
    assert (done.code, done.err.count("\n")) == (2, 1)
