"""Every store there is, one row each: contract, races, histories and crashes run on each of them.

A new store is one more row. `Row.serve(folder)` gives a place that nothing has used, with whatever server it
needs, until the block ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from budgetguard.core.process import system_clock
from budgetguard.core.windows import Clock
from budgetguard.stores import Store, open_store
from tests.server.services import running
from tests.servers.postgres import fresh_url, shared_server
from tests.servers.valkey import shared_valkey


class Place:
    """Where the stores of one test live.

    Attributes:
        url: what opens it, in other processes too if the store is shared.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._stack = ExitStack()

    def open(self, clock: Clock = system_clock, *, project: str = "p", retention: str = "90d") -> Store:
        """Open a store, which is closed with the place."""
        store = open_store(self.url, project=project, clock=clock, retention=retention)
        self._stack.callback(store.close)
        return store

    def beneath(self, store: Store, clock: Clock) -> Store:
        """Return the store whose rows can be added up: this one, or the one that its service is on."""
        return store

    def disturb(self) -> None:
        """Do what may happen to its server at any time."""

    def close(self) -> None:
        """Close all stores that were opened, and what ran for them."""
        self._stack.close()


class _OnValkey(Place):
    def disturb(self) -> None:
        with shared_valkey().client() as client:
            client.script_flush()


class _Hosted(Place):
    """Services on one folder: the clock and the retention are the service's, so each pair has its own."""

    def __init__(self, folder: Path) -> None:
        self._store_url = f"disk://{folder}/store"
        self._urls: dict[tuple[int, str], str] = {}
        super().__init__("")
        self.url = self._url(system_clock, "90d")

    def open(self, clock: Clock = system_clock, *, project: str = "p", retention: str = "90d") -> Store:
        url = self._url(clock, retention)
        store = open_store(url, project=project, clock=clock, retention=retention)
        self._stack.callback(store.close)
        return store

    def beneath(self, store: Store, clock: Clock) -> Store:
        inner = open_store(self._store_url, project=store.project, clock=clock)
        self._stack.callback(inner.close)
        return inner

    def _url(self, clock: Clock, retention: str) -> str:
        key = (id(clock), retention)
        if key not in self._urls:
            service = self._stack.enter_context(running(self._store_url, clock=clock, retention=retention))
            self._urls[key] = f"{service.url}?timeout=60"  # a busy machine is no failure
        return self._urls[key]


def _valkey(folder: Path) -> Place:
    server = shared_valkey()
    with server.client() as client:
        client.flushall()
    return _OnValkey(server.url)


@dataclass(frozen=True, slots=True)
class Row:
    """A store.

    Attributes:
        name: its name in test ids.
        place: makes a place for stores that nothing has used; a server that it needs is shared by all tests
            of this process.
        shared: other processes can open it.
        transfers: its rows can be exported, imported and added up.
        in_full: histories compare what it answers and shows with the memory store's to the last field.
        brisk: how many verbs a race makes of it, as a share of what the disk store is asked.
    """

    name: str
    place: Callable[[Path], Place]
    shared: bool = True
    transfers: bool = True
    in_full: bool = False
    brisk: float = 1.0

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Place]:
        """Make a place, and close it with all of its stores."""
        place = self.place(folder)
        try:
            yield place
        finally:
            place.close()


STORES: Final = (
    Row("memory", lambda folder: Place("memory://"), shared=False),
    Row("disk", lambda folder: Place(f"disk://{folder}/not/yet/there"), in_full=True),
    Row("redis", _valkey),
    # A busy machine is no failure: the first use of a schema makes all of its functions.
    Row("postgres", lambda folder: Place(f"{fresh_url(shared_server())}&timeout=60"), brisk=0.4),
    Row("hosted", _Hosted, transfers=False, in_full=True, brisk=0.2),
)
SHARED: Final = tuple(row for row in STORES if row.shared)
# What a service can be on.
SERVABLE: Final = tuple(row for row in SHARED if row.name != "hosted")


def on(rows: Iterable[Row]) -> pytest.MarkDecorator:
    """Run a test on each of these stores."""
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)
