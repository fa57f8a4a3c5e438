"""`demo`: two users call a model, without a key and without a network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from budgetguard.cli import demo_script as scene
from budgetguard.cli import options
from budgetguard.cli.demo_board import BoardView, json_view
from budgetguard.cli.display import when, zone_name
from budgetguard.cli.session import confirm, new_console, write_json
from budgetguard.cli.tables import Column, new_table, text_column
from budgetguard.core.money import format_usd, to_usd
from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard

if TYPE_CHECKING:
    from openai import OpenAI

_LIVE_BUDGET = Decimal("0.01")


def demo(
    fast: Annotated[bool, options.flag("No pauses.", "--fast")] = False,
    live: Annotated[
        bool,
        options.flag("Call the real API with OPENAI_API_KEY, for at most $0.01. Asks first.", "--live"),
    ] = False,
    yes: options.Yes = False,
    store: Annotated[
        str | None, options.option("URL", "Keep the demo's budgets here. Else a folder that is removed.")
    ] = None,
    json: options.Json = False,
) -> None:
    """See calls projected, held and settled, until a user is refused.

    Needs no key and no network: the real openai client calls a server on this machine, which says at the
    end what it billed. Exits with 0 if the books equal the bills to the last digit. With --json every
    event is one object a line, and the summary is the last.

    \b
    Examples:
      budgetguard demo
      budgetguard demo --store disk://~/budgetguard-demo
    """
    if live and not os.environ.get("OPENAI_API_KEY"):
        raise ConfigurationError("--live calls the real API: set OPENAI_API_KEY, or leave --live out")
    if live and not yes:
        confirm(f"Call the real API, for at most {_LIVE_BUDGET} USD?")
    if live:
        script = scene.DemoScript(scene.LIVE, cap=60)
    else:
        script = scene.DemoScript(
            scene.LOCAL, cap=500, answer_after=0 if fast else 0.6, pause=0 if fast else 0.2
        )
    console = new_console()
    board = BoardView(script.people, console)
    bills = scene.Bills()
    with _guard(store) as guard, ExitStack() as stack:
        scene.open_budgets(guard, script, cap=_LIVE_BUDGET if live else None)
        if live:
            client = stack.enter_context(_real_client())
        else:
            client = stack.enter_context(scene.local_provider(script, bills))
        guard.wrap(client)
        if not json:
            _introduce(console, client, script)
        guard.on(json_view() if json else board)
        with nullcontext() if json else board:
            result = scene.play(guard, client, script, bills if live else None)
        stack.close()  # the server has billed everything now
        result.billed, result.calls = dict(bills.nanos), dict(bills.calls)
    if json:
        write_json(_summary_object(result))
    else:
        _summarize(console, result, live=live)
    if not (result.books_equal_bills and result.refusals):
        raise typer.Exit(1)


@contextmanager
def _guard(store: str | None) -> Iterator[Guard]:
    with ExitStack() as stack:
        if store is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="budgetguard-demo-"))
            store = f"disk://{folder}/budgets"
        guard = Guard(store=store, project=scene.PROJECT)
        stack.callback(guard.close)
        yield guard


@contextmanager
def _real_client() -> Iterator[OpenAI]:
    import openai

    with openai.OpenAI(max_retries=0) as client:
        yield client


def _introduce(console: Console, client: OpenAI, script: scene.DemoScript) -> None:
    console.print(f"The real openai client calls {scene.MODEL} at {client.base_url}", soft_wrap=True)
    budgets = " and ".join(f"{person.name} may spend ${person.limit}" for person in script.people)
    console.print(f"{budgets} a day. No call goes out without money for it.\n")


def _summary_object(result: scene.Result) -> dict[str, Any]:
    users = []
    for name, spent in result.spent.items():
        refusal = result.refusals.get(name)
        resets_at = None if refusal is None or refusal.resets_at is None else refusal.resets_at.isoformat()
        users.append(
            {
                "user": name,
                "calls": result.calls.get(name, 0),
                "spent": format(to_usd(spent), "f"),
                "billed": format(to_usd(result.billed.get(name, 0)), "f"),
                "refused": refusal is not None,
                "resets_at": resets_at,
            }
        )
    return {"event": "Summary", "users": users, "books_equal_bills": result.books_equal_bills}


def _summarize(console: Console, result: scene.Result, *, live: bool) -> None:
    rows = [
        (
            name,
            f"{result.calls.get(name, 0)}",
            format_usd(spent),
            format_usd(result.billed.get(name, 0)),
        )
        for name, spent in result.spent.items()
    ]
    books, bills = sum(result.spent.values()), sum(result.billed.values())
    rows.append(("total", f"{sum(result.calls.values())}", format_usd(books), format_usd(bills)))
    columns = [text_column("User"), *map(Column, ("Calls", "In the books", "Billed"))]
    console.print()
    console.print(new_table(columns, rows, totals=True))
    console.print()
    for name, refusal in result.refusals.items():
        console.print(
            f"{name} was refused: the next call might cost ${refusal.projected_cost:.6f}, and "
            f"${refusal.available:.6f} of ${refusal.max_budget:.4f} is left. That call was never made. "
            f"The budget resets {when(refusal.resets_at, None)} {zone_name(None)}."
        )
    if not result.refusals:
        console.print(Text("Nobody was refused, and somebody should have been.", "bold red"))
    biller = "the usage that the API reported" if live else "what the server billed"
    if result.books_equal_bills:
        console.print(Text(f"The books equal {biller}, to the last digit.", "bold green"))
    else:
        console.print(Text(f"The books do not equal {biller}.", "bold red"))
