"""The commands put together, and what becomes of their errors: one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from budgetguard.cli import (
    budgets,
    demo,
    importing,
    keys,
    listing,
    migrating,
    moving,
    options,
    running,
    serving,
    spending,
    spooling,
    verifying,
)
from budgetguard.cli.session import error_object, tell, write_json
from budgetguard.errors import BudgetGuardError, ConfigurationError, UnknownUserError

# typer brought click along until 0.26 and has its own copy since; this base is the same in both.
_InputError: type[Exception] = typer.BadParameter.__mro__[2]

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """Run a command, and turn errors into one line of text, or one JSON object with `--json`, on stderr."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # ids in a script that the terminal has not
        try:
            code = super().main(given, *rest, **options)
        except BudgetGuardError as error:
            bad_input = isinstance(error, ConfigurationError | UnknownUserError)
            _tell(error.message, error_object(error), given)
            sys.exit(BAD_INPUT if bad_input else FAILED)
        except _InputError as error:
            _tell_usage(error, given)
            sys.exit(BAD_INPUT)
        except typer.Abort:
            sys.stderr.write("\nInterrupted.\n")
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(cls=Commands, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
for module in (
    demo,
    running,
    listing,
    budgets,
    spending,
    importing,
    migrating,
    moving,
    spooling,
    verifying,
    serving,
    keys,
):
    module.register(app)


@app.callback(invoke_without_command=True)
def budgetguard(
    context: typer.Context,
    store: options.Store = None,
    project: options.Project = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Budgets for LLM calls: see what users may spend and have spent, and change it.

    Start with `budgetguard demo`: it needs no key and no network. `budgetguard run` puts a program under
    a budget without editing it.

    Every command takes --store URL and --project NAME (else BUDGETGUARD_STORE, BUDGETGUARD_PROJECT), and
    --json. The first two may stand before the command as well; after it they outrank that. Exit codes:
    0 done, 1 refused or the store failed, 2 bad input.
    """
    given = {name: value for name, value in (("store", store), ("project", project)) if value is not None}
    if context.invoked_subcommand is not None:
        context.default_map = {context.invoked_subcommand: given}
    if version:
        from importlib.metadata import version as installed

        sys.stdout.write(f"budgetguard {installed('budgetguard-ai')}\n")
    elif context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")


def _tell_usage(error: Any, args: Sequence[str]) -> None:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is not None:
        message = f"{message.rstrip('.')}. Try `{context.command_path} --help`."
    _tell(message, {"error": "UsageError", "message": message}, args)


def _tell(message: str, value: dict[str, Any], args: Sequence[str]) -> None:
    # What follows `--` are the arguments of another program.
    if "--json" in takewhile(lambda argument: argument != "--", args):
        write_json(value, stderr=True)
    else:
        tell(message)
