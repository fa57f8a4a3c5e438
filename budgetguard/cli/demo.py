"""`demo`: two users call a model, without a key and without a network."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from budgetguard import events
from budgetguard.cli import demo_script as scene
from budgetguard.cli import options
from budgetguard.cli.display import NARROW, when, zone_name
from budgetguard.cli.session import confirm, new_console, write_json
from budgetguard.cli.tables import Column, new_table, text_column, users_table
from budgetguard.core.accounts import USER
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
        board = None if json else BoardView([one.name for one in script.people], guard, console)
        guard.on(board or json_view())
        with board or nullcontext():
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


def json_view() -> Callable[[events.Event], None]:
    """Return a display that writes each event as one line of JSON, from any thread."""
    lock = threading.Lock()

    def show(event: events.Event) -> None:
        with lock:
            write_json(event.to_dict())

    return show


class BoardView:
    """A display that writes each event as a line; in a terminal with a table of the users below them.

    Args:
        names: the users.
        guard: keeps their budgets.
        console: where to write.
    """

    def __init__(self, names: Collection[str], guard: Guard, console: Console) -> None:
        self._names = names
        self._guard = guard
        self._console = console
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._name_width = max(map(len, names))
        self._live = (
            Live(console=console, get_renderable=self._board, refresh_per_second=12)
            if console.is_terminal
            else None
        )

    def __call__(self, event: events.Event) -> None:
        """Write it."""
        name = event.user
        if name is None or name not in self._names:
            return
        if isinstance(event, events.ThresholdCrossed) and not event.account.startswith(f"{USER}:"):
            return
        with self._lock:
            line = self._line(event, name)
            if line is not None:
                self._console.print(line)

    def __enter__(self) -> BoardView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _line(self, event: events.Event, name: str) -> Text | None:
        """Return the line of an event of a user, if it is one that is shown."""
        match event:
            case events.Projected(cost=cost, usage=usage):
                shown = "projected", "bright_black", _plain(cost)
                remark = f"at most, for {usage.input_tokens} tokens in and up to {usage.output_tokens} out"
            case events.Held(amount=amount):
                shown = "held", "cyan", _plain(amount)
                remark = "set aside; now the call goes out"
            case events.Settled(cost=cost, held=held, usage=usage):
                shown = "settled", "green", _plain(cost)
                tokens = (
                    f"{usage.input_tokens} in, {usage.output_tokens} out" if usage else "no usage reported"
                )
                remark = f"{tokens}; {_plain(held - cost)} given back"
            case events.Refused(cost=cost, available=available):
                shown = "REFUSED", "bold red", _plain(cost)
                remark = f"is more than the {_plain(available)} left: not called"
            case events.Voided(held=held, reason=reason):
                shown = "voided", "yellow", _plain(held)
                remark = f"given back: {reason}"
            case events.ThresholdCrossed(threshold=threshold, limit=limit):
                shown = "threshold", "yellow", f"{threshold}%"
                remark = f"of {_plain(limit)} is spent"
            case _:
                return None
        word, style, figure = shown
        number = "   "
        if isinstance(event, events.CallEvent):
            number = f"#{self._numbers.setdefault(event.hold_id, len(self._numbers) + 1):<2}"
        line = Text.assemble(f"{name:<{self._name_width}} {number} ", (f"{word:<9}", style), f" {figure:>9}")
        is_refused = isinstance(event, events.Refused)
        if self._console.width >= NARROW or is_refused:
            line.append(f"  {remark}", style if is_refused else "")
        return line

    def _board(self) -> RenderableType:
        return Group("", users_table(list(self._guard.balances()), self._console, None))


def _plain(usd: Decimal) -> str:
    return f"${usd:.6f}"
