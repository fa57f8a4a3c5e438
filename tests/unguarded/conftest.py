from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from budgetguard import Guard
from budgetguard.engine.background import background
from budgetguard.engine.unguarded import watcher
from budgetguard.events import Event, Unguarded

from .server import CountingServer


@dataclass
class Watching:
    """A guard that knows some hosts as providers', and what it was told of them."""

    guard: Guard
    records: list[logging.LogRecord]
    events: list[Event] = field(default_factory=list)

    def relax(self) -> None:
        """Watch no more: servers of the tests are stopped by a connection to them."""
        self.guard.configure(unguarded="allow")

    @property
    def told(self) -> list[Unguarded]:
        return [event for event in self.events if isinstance(event, Unguarded)]

    @property
    def addresses(self) -> list[str]:
        return [event.address for event in self.told]

    @property
    def logged(self) -> list[str]:
        return [record.getMessage() for record in self.records if "guarded" in record.getMessage()]


Watch = Callable[..., Watching]


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer() as running:
        yield running


@pytest.fixture
def watch(caplog: pytest.LogCaptureFixture) -> Iterator[Watch]:
    """Make guards that watch, as their settings say, and that do nothing any more after the test."""
    made: list[Guard] = []
    caplog.set_level(logging.WARNING, "budgetguard")

    def watching(*hosts: str, **settings: Any) -> Watching:
        guard = Guard(store="memory://", user="u", provider_hosts=list(hosts), **settings)
        guard.set_budget(100, user="u")
        made.append(guard)
        found = Watching(guard, caplog.records)
        guard.on(found.events.append)
        return found

    yield watching
    background.finish()
    for guard in made:
        guard.configure(unguarded="allow")
        guard.unpatch()
        guard.close()
    watcher._told.clear()
    watcher._found.clear()
    watcher._others.clear()
