"""Every Python of a run starts as it would without it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.provider.server import OpenAIServer

from .programs import Launcher, enough_for, environment

ENOUGH = ("--max-budget", "1")
PYTHON = "python"
SAYS = "import json, sys; print(json.dumps([sys.path, sorted(sys.modules)]))"


@pytest.mark.full
def test_other_customizations_run_and_are_what_is_imported(launch: Launcher) -> None:
    launch.write("site/sitecustomize.py", "import builtins\nbuiltins.site_ran = __file__\nvalue = 1\n")
    command = (
        "import sitecustomize as s; print(s.value, s.__file__ == site_ran, s.__spec__.origin == site_ran)"
    )
    ended = launch.run(*ENOUGH, "--", PYTHON, "-c", command, PYTHONPATH=str(launch.folder / "site"))
    assert (ended.code, ended.out) == (0, "1 True True\n")


@pytest.mark.full
def test_usercustomize_runs_too(launch: Launcher) -> None:
    launch.write("site/usercustomize.py", "import builtins\nbuiltins.user_ran = 'yes'\n")
    user_site = [sys.executable, "-c", "import site; print(site.ENABLE_USER_SITE)"]
    if launch.command(user_site, {}).out.strip() != "True":
        command = "import site; site.execusercustomize(); print(user_ran)"  # a venv has no user's site
    else:
        command = "print(user_ran)"
    ended = launch.run(*ENOUGH, "--", PYTHON, "-c", command, PYTHONPATH=str(launch.folder / "site"))
    assert (ended.code, ended.out) == (0, "yes\n")


@pytest.mark.full
def test_a_customization_that_fails_fails_as_it_does_without(launch: Launcher) -> None:
    launch.write("site/sitecustomize.py", "import not_there\n")
    paths = {"PYTHONPATH": str(launch.folder / "site")}
    alone = launch.command([PYTHON, "-c", "print(1)"], paths)
    ended = launch.run(*ENOUGH, "--", PYTHON, "-c", "print(1)", **paths)
    assert "not_there" in alone.err
    assert ended.err.startswith(alone.err)
    assert ended.out == "1\n"


@pytest.mark.full
def test_openai_is_guarded_even_if_a_customization_imports_it(
    launch: Launcher, provider: OpenAIServer
) -> None:
    launch.write("site/sitecustomize.py", "import openai\n")
    ended = launch.run(
        *("--max-budget", enough_for(1)),
        "--",
        PYTHON,
        launch.agent(),
        "2",
        PYTHONPATH=str(launch.folder / "site"),
    )
    assert (ended.made, provider.count(), ended.code) == (1, 1, 3)


@pytest.mark.full
def test_paths_and_modules_are_those_without(launch: Launcher) -> None:
    launch.write("program.py", SAYS)
    paths = {"PYTHONPATH": os.pathsep.join([str(launch.folder / "one"), str(launch.folder / "two")])}
    path, modules = json.loads(launch.command([PYTHON, "program.py"], paths).out)
    under_path, under_modules = json.loads(launch.run(*ENOUGH, "--", PYTHON, "program.py", **paths).out)
    assert under_path == path
    assert set(under_modules) - set(modules) <= {"sitecustomize", "_budgetguard_run", "_budgetguard_start"}
    assert not [name for name in under_modules if name.startswith(("budgetguard.", "openai", "wrapt"))]


@pytest.mark.full
def test_the_variable_keeps_what_was_on_the_path(launch: Launcher) -> None:
    command = "import os; print(os.environ['PYTHONPATH'].split(os.pathsep)[1:])"
    assert launch.run(*ENOUGH, "--", PYTHON, "-c", command, PYTHONPATH="/a:b").out == "['/a', 'b']\n"
    assert launch.run(*ENOUGH, "--", PYTHON, "-c", command).out == "[]\n"


@pytest.mark.full
def test_openai_looks_as_it_does_without(launch: Launcher) -> None:
    command = (
        "import openai, inspect, importlib.resources as r; "
        "print(openai.__spec__.loader, openai.__loader__ is openai.__spec__.loader, "
        "r.files('openai').joinpath('py.typed').is_file(), len(inspect.getsource(openai)))"
    )
    alone = launch.command([PYTHON, "-c", command], {}).out.split(" at ")[0]
    under = launch.run(*ENOUGH, "--", PYTHON, "-c", command).out
    assert alone in under
    assert "True True" in under


@pytest.mark.full
def test_a_program_without_openai_installed_gets_the_usual_error(launch: Launcher) -> None:
    command = (
        "import sys\nsys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "try:\n    import openai\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    assert launch.run(*ENOUGH, "--", PYTHON, "-c", command).out == "No module named 'openai'\n"


@pytest.mark.full
def test_openai_may_be_imported_by_many_threads_at_once(launch: Launcher) -> None:
    launch.agent()
    program = """
import threading
from agent import calls

threads = [threading.Thread(target=calls, args=(2,)) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    launch.write("program.py", program)
    ended = launch.run("--max-budget", enough_for(5), "--", PYTHON, "program.py")
    assert ended.made == 5


# Without pip, and without budgetguard and some of what it needs.
@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    return environment(folder, leave_out=("budgetguard", "wrapt", "diskcache", "genai_prices"))


@pytest.mark.full
def test_another_environment_of_the_same_python_is_guarded_with_ours(
    launch: Launcher, provider: OpenAIServer, bare_python: Path
) -> None:
    lacks = launch.command([str(bare_python), "-c", "import openai, budgetguard"], {})
    assert "No module named 'budgetguard'" in lacks.err
    ended = launch.run("--max-budget", enough_for(2), "--", str(bare_python), launch.agent(), "3")
    assert (ended.made, provider.count(), ended.code) == (2, 2, 3), ended.err


@pytest.mark.full
def test_a_python_that_cannot_be_guarded_cannot_import_openai(
    launch: Launcher, provider: OpenAIServer, bare_python: Path
) -> None:
    """Of another version than the one that runs `budgetguard run`, as far as it is told."""
    command = f"BUDGETGUARD_RUN_PYTHON=cpython-399 {bare_python} {launch.agent()} 1"
    ended = launch.run(*ENOUGH, "--", "sh", "-c", command)
    assert ended.code != 0
    assert provider.count() == 0
    assert ended.err.splitlines()[0].endswith("install budgetguard for it")
    assert launch.run(*ENOUGH, "--", str(bare_python), "-c", "print('fine')").out == "fine\n"


@pytest.mark.parametrize("options", ["-I", "-E", "-S", "-uI", "-Bm agent -I", "-X dev -I", "-W error -sE"])
def test_a_python_that_would_not_join_is_refused_at_the_start(
    launch: Launcher, bare_python: Path, options: str
) -> None:
    ended = launch.run(*ENOUGH, "--", str(bare_python), *options.split(), "-c", "print(1)")
    if " -I" in options and "-Bm" in options:
        assert "under no budget" not in ended.err  # that one is the module's
        return
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "under no budget" in ended.err or "be under no budget" in ended.err
