"""What tests of the client compare: the books of a guard, and what the server says that it billed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import _base_client

from budgetguard.config import Settings, changed
from budgetguard.core.accounts import Budget
from budgetguard.core.money import NANOS_PER_USD
from budgetguard.core.usage import Usage
from budgetguard.engine.engine import Engine
from budgetguard.engine.surrounding import budget_user
from budgetguard.events import Event
from budgetguard.pricing.book import PriceBook
from tests.adapters.clients import patch, unpatch
from tests.provider.server import OpenAIServer

# The HTTP library of this SDK: httpx, or httpx2 since openai 3.
HTTP: Any = getattr(_base_client, "httpx2", None) or vars(_base_client)["httpx"]
MODEL = "gpt-4o-mini"
MESSAGES: Any = [{"role": "user", "content": "Say hello to the people in the room."}]
USER = "1234"
STORES: Any = ("memory", pytest.param("disk", marks=pytest.mark.full))


def keeper_on(store: str, folder: Path, **settings: Any) -> Engine:
    """Return an engine on `memory`, on `disk` in this folder, or on the store of a URL."""
    urls = {"memory": "memory://", "disk": f"disk://{folder / 'books'}"}
    return Engine(Settings(store=urls.get(store, store), **settings))


def billed_nanos(server: OpenAIServer) -> int:
    """Price the server's own log, without any code that reads answers."""
    prices, total = PriceBook(), 0
    for record in server.requests:
        if record.billed is None:
            continue
        used = record.billed
        units = {"input_tokens": used["prompt_tokens"], "output_tokens": used.get("completion_tokens", 0)}
        units["cache_read_tokens"] = (used.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        assert record.model is not None
        total += prices.rates(record.model).cost(Usage(units))
    return total


@dataclass
class Books:
    """One user's books under an engine, beside the server that bills."""

    engine: Engine
    server: OpenAIServer
    events: list[Event] = field(default_factory=list)
    clients: list[openai.OpenAI] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine.hooks.add(self.events.append, ())

    def limit(self, nanos: int) -> None:
        self.engine.store.set_budget(f"user:{USER}", Budget(limit=nanos))

    @property
    def spent(self) -> int:
        balance = self.engine.store.read(f"user:{USER}")
        assert balance is not None
        return balance.spent_nanos

    @property
    def held(self) -> int:
        balance = self.engine.store.read(f"user:{USER}")
        assert balance is not None
        return balance.held_nanos

    @property
    def billed(self) -> int:
        return billed_nanos(self.server)

    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == kind]

    def client(self, **options: Any) -> openai.OpenAI:
        client = openai.OpenAI(base_url=self.server.base_url, api_key="test", **options)
        # Closed in the end: left to the garbage collector, their sockets are at times collected first.
        self.clients.append(client)
        return client

    def aclient(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.server.base_url, api_key="test", **options)

    def check(self) -> None:
        """Assert that the books are what was billed, and that nothing is held."""
        assert (self.spent, self.held) == (self.billed, 0)


@contextmanager
def open_books(
    server: OpenAIServer, store: str, folder: Path, *, usd: float = 10, **settings: Any
) -> Iterator[Books]:
    """Patch openai for an engine whose user 1234 has `usd`, and be that user inside."""
    engine = keeper_on(store, folder, **settings)
    books = Books(engine, server)
    books.limit(int(usd * NANOS_PER_USD))
    patch(engine)
    try:
        with budget_user(USER):
            yield books
    finally:
        unpatch()
        # A server is stopped by a connection to it, which no guarded call makes.
        engine.configure(changed(engine.settings, {"unguarded": "allow"}))
        for client in books.clients:
            client.close()
        engine.store.close()
