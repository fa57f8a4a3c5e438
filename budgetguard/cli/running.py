"""`run`: a command, and all that it starts, under one budget."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from budgetguard.cli import options
from budgetguard.cli.session import session, tell, write_json
from budgetguard.config import MAX_BUDGET, max_budget_of_environment
from budgetguard.core.accounts import check_id
from budgetguard.core.money import parse_usd, to_nanos
from budgetguard.errors import ConfigurationError
from budgetguard.launch.process import run_command
from budgetguard.launch.run import SharedRun, joins_unasked

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127
_PYTHON = re.compile(r"(python|pypy)[\d.]*(\.exe)?")
_WITH_VALUE = "WX"  # options of Python that take a value


def run(
    command: Annotated[list[str] | None, options.argument("-- COMMAND [ARGUMENT]...", "What to run.")] = None,
    max_budget: Annotated[
        str | None,
        options.option(
            "USD",
            "What the program and all processes that it starts may spend. Else BUDGETGUARD_MAX_BUDGET, "
            "else the user's budget.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        options.option("USER", "Who pays where the program does not say. Else BUDGETGUARD_USER."),
    ] = None,
    default_budget: Annotated[
        str | None,
        options.option("USD", "Make a budget of this for users without one."),
    ] = None,
    prices: Annotated[
        str | None, options.option("FILE", "A price file, in TOML. Else BUDGETGUARD_PRICES.")
    ] = None,
    strict_network: Annotated[
        bool,
        options.flag(
            "Refuse connections to model providers that no guarded call makes, instead of telling of them.",
            "--strict-network",
        ),
    ] = False,
    summary_json: Annotated[
        Path | None, options.option("FILE", "Write the summary there, as a JSON object.")
    ] = None,
    store: options.Store = None,
    project: options.Project = None,
    json: Annotated[
        bool, options.flag("Write the summary to standard error as JSON, not as text.", "--json")
    ] = False,
) -> None:
    """Run a program under a budget, without editing it.

    Calls of openai's and anthropic's clients are guarded, in it and in every Python that it starts: together
    they spend at most the budget. Its output, exit status and signals pass through; at the end, standard
    error says what was spent, and which providers were called by other ways. A program that ends with 0
    although calls were refused ends with 3.

    \b
    Examples:
      budgetguard run --max-budget 5 -- python agent.py
      budgetguard run --user alice --max-budget 0.50 -- make report
    """
    if not command:
        raise ConfigurationError("run what? Write `budgetguard run --max-budget 5 -- python agent.py`")
    _check_python(command)
    if max_budget is None:
        limit = max_budget_of_environment()
    else:
        limit = to_nanos(parse_usd(max_budget, name="--max-budget"), name="max budget")
    changes: dict[str, Any] = {}
    if user is not None:
        changes["user"] = check_id(user, name="--user")
    if default_budget is not None:
        changes["default_budget"] = parse_usd(default_budget, name="--default-budget")
    if prices is not None:
        changes["prices"] = prices
    if strict_network:
        changes["unguarded"] = "block"
    if summary_json is not None:
        _check_writable(summary_json)
    # A store that is not there yet is made, unless the run needs a user of it.
    may_make = default_budget is not None or (limit is not None and user is None)
    code: int | None = None
    status: int | None = None
    try:
        with session(store, project, json=json, may_make=may_make) as here:
            here.guard.configure(**changes)
            shared = SharedRun(here.guard, limit)
            try:
                here.guard.close()  # no connection is open while the program runs, which may be for days
                environ = {**os.environ, **shared.variables()}
                environ.pop(
                    MAX_BUDGET, None
                )  # the run has this limit; it would be one for each process as well
                try:
                    code = run_command(command, environ)
                except OSError as error:
                    raise typer.Exit(_tell_start(command[0], error)) from None
                status, summary = _summarize(shared, code, json)
                if summary_json is not None:
                    _keep(summary_json, summary)
            finally:
                shared.close()
    except Exception as error:
        if code is None:
            raise
        # The program has run, so its status is passed on, whatever failed on our side.
        text = str(error) or type(error).__name__
        _try_to_write(lambda: tell(text))
    raise typer.Exit(code if status is None else status)


def _summarize(shared: SharedRun, code: int, json: bool) -> tuple[int, dict[str, Any]]:
    outcome = shared.outcome()
    status = outcome.status(code)
    summary = {**outcome.to_dict(), "program_status": code, "status": status}
    if json:
        _try_to_write(lambda: write_json(summary, stderr=True))
    else:
        _try_to_write(lambda: sys.stderr.write(f"{outcome}\n"))
    return status, summary


def _try_to_write(say: Callable[[], object]) -> None:
    """Write to standard error, which may be closed, full, a broken pipe, or missing."""
    try:
        say()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # Else Python tries to write the rest at its end, and ends with 120.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lasts


def _keep(file: Path, summary: dict[str, Any]) -> None:
    try:
        file.write_text(dumps(summary) + "\n", encoding="ascii")
    except OSError as error:
        text = f"cannot write {file}: {error.strerror}"
        _try_to_write(lambda: tell(text))


def _check_python(command: list[str]) -> None:
    """Refuse a Python with options that keep it from joining the run."""
    if not _PYTHON.fullmatch(Path(command[0]).name):
        return
    fatal = "S" if joins_unasked(command[0]) else "IES"
    arguments = iter(command[1:])
    for argument in arguments:
        if not argument.startswith("-") or argument in ("-", "--") or argument[:2] in ("-c", "-m"):
            return
        letters = re.match(r"-([a-zA-Z]*)", argument)
        given = "" if letters is None else re.split(f"[{_WITH_VALUE}cm]", letters[1])[0]
        for letter in fatal:
            if letter in given:
                raise ConfigurationError(
                    f"Python with -{letter} does not import what a run puts on its path, so its calls would "
                    f"be under no budget: leave -{letter} out, or have the program import budgetguard.auto"
                )
        if argument[-1] in _WITH_VALUE and argument[1:] == given + argument[-1]:
            next(arguments, None)  # its value


def _check_writable(file: Path) -> None:
    try:
        file.open("a").close()
    except OSError as error:
        raise ConfigurationError(f"--summary-json: cannot write {file}: {error.strerror}") from error


def _tell_start(name: str, error: OSError) -> int:
    if isinstance(error, FileNotFoundError):
        text, code = f"there is no command {name!r}, or no interpreter that it names", _NOT_FOUND
    else:
        text, code = f"cannot run {name!r}: {error.strerror}", _NOT_EXECUTABLE
    tell(text)
    return code
