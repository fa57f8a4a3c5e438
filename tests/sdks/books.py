"""One user's books beside a provider's server, for whichever SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from budgetguard.config import Settings
from budgetguard.core.accounts import Budget
from budgetguard.engine.engine import Engine
from budgetguard.engine.surrounding import budget_user
from budgetguard.events import Event
from budgetguard.providers.sdks import patch, unpatch

from .server import Answer, Arrived, CountingServer

USER = "1234"


@dataclass
class SdkBooks:
    """The books of a guard whose engine has an SDK patched, and a server that answers as the test says."""

    server: CountingServer
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

    @property
    def sent(self) -> int:
        return len(self.server.requests)

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == kind]

    def _balance(self) -> Any:
        balance = self.engine.store.read(f"user:{USER}")
        assert balance is not None
        return balance


@contextmanager
def sdk_books(
    answer: Callable[[Arrived], Answer], *sdks: str, patched: bool = True, **settings: Any
) -> Iterator[SdkBooks]:
    """Open books for a server, with these SDKs patched and $10 for the current user.

    What goes around the guard to the server is refused: nothing that a guarded client sends may be.
    """
    with CountingServer(answer) as server:
        if patched:
            host = urlsplit(server.url).netloc
            settings = {"unguarded": "block", "provider_hosts": (host,), **settings}
        engine = Engine(Settings(store="memory://", **settings))
        books = SdkBooks(server, engine)
        engine.hooks.add(books.events.append, ())
        books.limit(10_000_000_000)
        if patched:
            patch(engine, *sdks)
        try:
            with budget_user(USER):
                yield books
        finally:
            unpatch(*sdks)
            # It watches for as long as it lives, and another server may get the port.
            engine.configure(replace(engine.settings, unguarded="allow"))
            engine.close()
