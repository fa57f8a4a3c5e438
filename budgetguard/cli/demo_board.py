"""The demo's display: a line for each event, and a table of the users."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from budgetguard import events
from budgetguard.cli.demo_script import Person
from budgetguard.cli.display import NARROW, gauge
from budgetguard.cli.session import write_json
from budgetguard.cli.tables import Cell, Column, new_table, text_column
from budgetguard.core.accounts import USER

_WORDS = {
    events.Projected: ("projected", "bright_black"),
    events.Held: ("held", "cyan"),
    events.Settled: ("settled", "green"),
    events.Refused: ("REFUSED", "bold red"),
    events.Voided: ("voided", "yellow"),
    events.ThresholdCrossed: ("threshold", "yellow"),
}


def json_view() -> Callable[[events.Event], None]:
    """Return a display that writes each event as one line of JSON, from any thread."""
    lock = threading.Lock()

    def show(event: events.Event) -> None:
        with lock:
            write_json(event.to_dict())

    return show


@dataclass(slots=True)
class UserStanding:
    """A user's budget, as the events tell it (USD)."""

    limit: Decimal
    spent: Decimal = Decimal(0)
    held: Decimal = Decimal(0)
    calls: int = 0
    refused: int = 0


class BoardView:
    """A display that writes each event as a line; in a terminal with a table of the users below them."""

    def __init__(self, people: Sequence[Person], console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._users = {person.name: UserStanding(person.limit) for person in people}
        self._name_width = max(map(len, self._users))
        self._live = (
            Live(self._board(), console=console, refresh_per_second=12) if console.is_terminal else None
        )

    def __call__(self, event: events.Event) -> None:
        """Write it, and count it."""
        word = _WORDS.get(type(event))
        if word is None or event.user not in self._users:
            return
        if isinstance(event, events.ThresholdCrossed) and not event.account.startswith(f"{USER}:"):
            return
        with self._lock:
            self._count(event, self._users[event.user])
            self._console.print(self._line(event, event.user, *word))
            if self._live is not None:
                self._live.update(self._board())

    def __enter__(self) -> BoardView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _count(self, event: events.Event, user: UserStanding) -> None:
        if isinstance(event, events.Held):
            user.held += event.amount
        elif isinstance(event, events.Settled):
            user.held -= event.held
            user.spent += event.cost
            user.calls += 1
        elif isinstance(event, events.Voided):
            user.held -= event.held
        elif isinstance(event, events.Refused):
            user.refused += 1

    def _line(self, event: events.Event, user: str, word: str, style: str) -> Text:
        number = "   "
        if isinstance(event, events.CallEvent):
            number = f"#{self._numbers.setdefault(event.hold_id, len(self._numbers) + 1):<2}"
        amount, told = _amount_and_remark(event)
        line = Text(f"{user:<{self._name_width}} {number} ")
        line.append(f"{word:<9}", style)
        line.append(f" {amount:>9}")
        if self._console.width >= NARROW or isinstance(event, events.Refused):
            line.append(f"  {told}", style if isinstance(event, events.Refused) else "")
        return line

    def _board(self) -> Group:
        narrow = self._console.width < NARROW
        columns = [text_column("User"), *map(Column, ("Limit", "Spent", "Held"))]
        if not narrow:
            columns += [Column("Calls"), Column("Spent, held, available", "left")]
        rows: list[list[Cell]] = []
        for name, one in self._users.items():
            row: list[Cell] = [name, _plain(one.limit, 4), _plain(one.spent), _plain(one.held)]
            if not narrow:
                width = min(30, max(10, self._console.width - 54))
                drawn = gauge(float(one.spent / one.limit), float(one.held / one.limit), width, self._console)
                row += [f"{one.calls}", drawn.append(" refused" if one.refused else "", "bold red")]
            rows.append(row)
        return Group("", new_table(columns, rows))


def _amount_and_remark(event: events.Event) -> tuple[str, str]:
    if isinstance(event, events.Projected):
        cap = event.usage.output_tokens
        return _plain(event.cost), f"at most, for {event.usage.input_tokens} tokens in and up to {cap} out"
    if isinstance(event, events.Held):
        return _plain(event.amount), "set aside; now the call goes out"
    if isinstance(event, events.Settled):
        usage = event.usage
        tokens = (
            "no usage reported" if usage is None else f"{usage.input_tokens} in, {usage.output_tokens} out"
        )
        return _plain(event.cost), f"{tokens}; {_plain(event.held - event.cost)} given back"
    if isinstance(event, events.Refused):
        return _plain(event.cost), f"is more than the {_plain(event.available)} left: not called"
    if isinstance(event, events.Voided):
        return _plain(event.held), f"given back: {event.reason}"
    if isinstance(event, events.ThresholdCrossed):
        return f"{event.threshold}%", f"of {_plain(event.limit)} is spent"
    return "", ""


def _plain(usd: Decimal, digits: int = 6) -> str:
    return f"${usd:.{digits}f}"
