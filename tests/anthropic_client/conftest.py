from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import pytest

from budgetguard.config import Settings
from budgetguard.core.accounts import Budget
from budgetguard.engine.engine import Engine
from budgetguard.engine.surrounding import budget_user
from budgetguard.events import Event
from budgetguard.providers.sdks import SDKS

from .server import MessagesServer

USER = "1234"


@dataclass
class Books:
    """One user's books, beside the server that bills."""

    server: MessagesServer
    engine: Engine
    events: list[Event] = field(default_factory=list)

    def limit(self, nanos: int) -> None:
        self.engine.store.set_budget(f"user:{USER}", Budget(limit=nanos))

    @property
    def spent(self) -> int:
        return self._balance().spent_nanos

    @property
    def held(self) -> int:
        return self._balance().held_nanos

    def _balance(self) -> Any:
        balance = self.engine.store.read(f"user:{USER}")
        assert balance is not None
        return balance

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == kind]

    def client(self, **options: Any) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.server.base_url, api_key="test", **options)

    def aclient(self, **options: Any) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.server.base_url, api_key="test", **options)


@pytest.fixture
def patch() -> Iterator[Any]:
    yield SDKS["anthropic"]
    SDKS["anthropic"].unpatch()


@pytest.fixture
def open_books(patch: Any) -> Iterator[Any]:
    """Books for a server, with anthropic patched and $10 for the current user."""
    opened: list[Any] = []

    def open_(server: MessagesServer, *, patched: bool = True, **settings: Any) -> Books:
        engine = Engine(Settings(**{"store": "memory://", **settings}))
        books = Books(server.__enter__(), engine)
        engine.hooks.add(books.events.append, ())
        books.limit(10 * 10**9)
        if patched:
            patch.patch(engine)
        who = budget_user(USER)
        who.__enter__()
        opened.append((books, who))
        return books

    yield open_
    patch.unpatch()
    for books, who in reversed(opened):
        who.__exit__(None, None, None)
        books.server.__exit__()
        books.engine.store.close()
