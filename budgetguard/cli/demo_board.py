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
        if event.user not in self._users:
            return
        if isinstance(event, events.ThresholdCrossed) and not event.account.startswith(f"{USER}:"):
            return
        with self._lock:
            line = self._line(event, event.user)
            if line is not None:
                self._console.print(line)
            if self._live is not None:
                self._live.update(self._board())

    def __enter__(self) -> BoardView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _line(self, event: events.Event, name: str) -> Text | None:
        """Count an event of a user, and return its line, if it is one that is shown."""
        user = self._users[name]
        match event:
            case events.Projected(cost=cost, usage=usage):
                shown = "projected", "bright_black", _plain(cost)
                remark = f"at most, for {usage.input_tokens} tokens in and up to {usage.output_tokens} out"
            case events.Held(amount=amount):
                user.held += amount
                shown = "held", "cyan", _plain(amount)
                remark = "set aside; now the call goes out"
            case events.Settled(cost=cost, held=held, usage=usage):
                user.held -= held
                user.spent += cost
                user.calls += 1
                shown = "settled", "green", _plain(cost)
                tokens = (
                    f"{usage.input_tokens} in, {usage.output_tokens} out" if usage else "no usage reported"
                )
                remark = f"{tokens}; {_plain(held - cost)} given back"
            case events.Refused(cost=cost, available=available):
                user.refused += 1
                shown = "REFUSED", "bold red", _plain(cost)
                remark = f"is more than the {_plain(available)} left: not called"
            case events.Voided(held=held, reason=reason):
                user.held -= held
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


def _plain(usd: Decimal, digits: int = 6) -> str:
    return f"${usd:.{digits}f}"
