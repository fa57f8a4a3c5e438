"""The command line's root: its commands, and errors as one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import takewhile
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from budgetguard.cli import options
from budgetguard.errors import BudgetGuardError, ConfigurationError, UnknownUserError

# typer brought click along until 0.26 and has its own copy since; this base is the same in both.
_InputError: type[Exception] = typer.BadParameter.__mro__[2]

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "demo": ("demo", "See calls projected, held and settled, until a user is refused."),
    "run": ("running", "Run a program under a budget, without editing it."),
    "projects": ("listing", "List the projects of a store that have a budget."),
    "users": ("listing", "List users: limit, spent, held, available, when it resets."),
    "budgets": ("listing", "List all other budgets: of teams, models, customers, any labels; of requests."),
    "show": ("listing", "Show one budget in full, to the last digit."),
    "holds": ("listing", "List the calls under way, of one user or of all."),
    "create": ("budgets", "Make a budget, or change one and keep what is spent."),
    "grant": ("raising", "Raise a budget's limit until some time, when that ends by itself."),
    "top-up": ("raising", "Add to a prepaid budget, which never resets; make it if there is none."),
    "member": ("raising", "Keep labels with a user, such as a team, or show them."),
    "reset": ("budgets", "Set what a budget has spent in this window to nothing."),
    "delete": ("budgets", "Forget a budget."),
    "audit": ("auditing", "Tell who changed which budget, how, when and why."),
    "calls": ("calling", "List calls that were made: when, whose, of what labels, at what cost."),
    "report": ("spending", "Add up what calls have cost."),
    "prices": ("prices", "Show what models cost, and fetch the newest price list."),
    "import-litellm": ("stores", "Take over the users of LiteLLM's user_cost.json."),
    "migrate": ("stores", "Make the tables and functions of a postgresql:// store, or update them."),
    "copy": ("stores", "Move a project to another store."),
    "spool": ("spooling", "List the settlements that wait on this machine for a store."),
    "deliver": ("spooling", "Send settlements that wait for a store to the one where the project is now."),
    "verify": ("stores", "Add every balance up again from the records of calls."),
    "serve": ("serving", "Serve budgets over HTTP."),
    "keys": ("keys", "Make, list and revoke the keys of the hosted service."),
    "alerts": ("alerting", "Try out and list the addresses that alerts go to."),
    "mcp": ("mcp", "Answer an agent's questions about its budget, over MCP."),
}
"""The module that has each command, and what `budgetguard --help` says of it.

A command is the function, or the Typer of several functions, that the module has under the command's name.
"""

_OF_A_PROGRAM: Final = {"run": {"allow_interspersed_args": False}}
"""Settings of the command after whose first argument all options are another program's."""


class Commands(TyperGroup):
    """The commands. Errors become one line of text, or one JSON object with `--json`, on standard error.

    The module of a command is imported when the command is asked for: to import all of them takes longer than
    `--help` should.
    """

    def list_commands(self, context: Any) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, context: Any, name: str) -> Any:
        """Return a command, or None."""
        # After an unknown name all names are needed: one of them may have been meant.
        for wanted in [name] if name in COMMANDS else COMMANDS:
            if wanted not in self.commands:
                self.commands[wanted] = _load(wanted)
        return super().get_command(context, name)

    def format_commands(self, context: Any, formatter: Any) -> None:
        """Write what each command does."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # ids in a script that the terminal has not
        try:
            code = super().main(given, *rest, **options)
        except BudgetGuardError as error:
            from budgetguard.cli.session import error_object

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


app = options.new_typer(cls=Commands)


@app.callback(invoke_without_command=True)
def budgetguard(
    context: typer.Context,
    store: options.Store = None,
    project: options.Project = None,
    version: Annotated[bool, options.flag("Show the version and exit.", "--version")] = False,
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


def _load(name: str) -> Any:
    found = getattr(import_module(f"budgetguard.cli.{COMMANDS[name][0]}"), name.replace("-", "_"))
    if not isinstance(found, typer.Typer):
        function, found = found, options.new_typer()
        found.command(name, context_settings=_OF_A_PROGRAM.get(name))(function)
    return typer.main.get_command(found)


def _tell_usage(error: Any, args: Sequence[str]) -> None:
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if context is not None:
        sentence = message if message.endswith("?") else f"{message.rstrip('.')}."
        message = f"{sentence} Try `{context.command_path} --help`."
    _tell(message, {"error": "UsageError", "message": message}, args)


def _tell(message: str, value: dict[str, Any], args: Sequence[str]) -> None:
    from budgetguard.cli.session import tell, write_json

    # What follows `--` are the arguments of another program.
    if "--json" in takewhile(lambda argument: argument != "--", args):
        write_json(value, stderr=True)
    else:
        tell(message)
