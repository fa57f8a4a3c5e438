"""Alerts to test with, and what takes them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from budgetguard.alerts.alert import Alert
from budgetguard.alerts.wording import Message
from budgetguard.testing.clock import DEFAULT_START

HOUR = 3_600_000


def threshold(percent: int = 80, **changes: Any) -> Alert:
    """Return an alert of user 1234, who has spent this much of $10."""
    values: dict[str, Any] = {
        "kind": "threshold",
        "at": DEFAULT_START,
        "project": "my-app",
        "account": "user:1234",
        "who": "user '1234'",
        "percent": percent,
        "limit": 10_000_000_000,
        "spent": percent * 100_000_000,
        "starts": DEFAULT_START,
        "resets": DEFAULT_START + 31 * 24 * HOUR,
        "user": "1234",
        "model": "gpt-4o-mini",
    }
    return Alert(**{**values, **changes})


def refusal(**changes: Any) -> Alert:
    """Return an alert that a call of user 1234 was refused."""
    return threshold(
        **{"kind": "refused", "percent": 0, "spent": 9_500_000_000, "cost": 600_000_000, **changes}
    )


@dataclass(slots=True)
class Box:
    """A receiver that keeps messages, answers with what it was told to, and may be stuck.

    Attributes:
        problems: what the next messages are answered with; taken when nothing is left.
        stuck: not set while `send` shall not return.
    """

    shown: str = "Box (box://…)"
    problems: list[str] = field(default_factory=list)
    taken: list[Message] = field(default_factory=list)
    tries: int = 0
    stuck: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.stuck.set()

    def send(self, message: Message) -> str:
        self.tries += 1
        assert self.stuck.wait(60)
        problem = self.problems.pop(0) if self.problems else ""
        if not problem:
            self.taken.append(message)
        return problem

    @property
    def titles(self) -> list[str]:
        return [one.title for one in self.taken]
