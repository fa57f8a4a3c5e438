"""Services to test against: uvicorn over real sockets, in a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn

from budgetguard.core.process import system_clock
from budgetguard.core.windows import Clock
from budgetguard.server.app import create_app
from budgetguard.server.keys import KEYS_PROJECT, create_key, revoke_key
from budgetguard.server.options import Options
from budgetguard.stores.base import Store, open_store


@dataclass(slots=True)
class Service:
    """A running service.

    Attributes:
        url: where it listens, such as `http://127.0.0.1:40123`.
        store_url: the store that it is on.
    """

    url: str
    store_url: str
    _ids: dict[str, str] = field(default_factory=dict)

    def key(self, project: str = "p", role: str = "admin") -> str:
        """Make a key and return it; the service knows it when this returns."""
        store = self.open(KEYS_PROJECT)
        made, text = create_key(store, project, role)
        store.close()
        self._ids[text] = made.id
        return text

    def revoke(self, key: str) -> None:
        """Revoke a key; the service knows it when this returns."""
        store = self.open(KEYS_PROJECT)
        revoke_key(store, self._ids[key])
        store.close()

    def open(self, project: str = "p") -> Store:
        """Open the service's store beside it."""
        return open_store(self.store_url, project=project)

    def client(self, key: str | None = None, **options: Any) -> httpx2.Client:
        """Return a client with a key, on connections of its own."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30, **options)


class _Server(uvicorn.Server):
    """Looks every hundredth of a second whether it is to end, not every tenth: tests start hundreds."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)


@contextmanager
def running(
    store_url: str, *, clock: Clock = system_clock, port: int = 0, **options: Any
) -> Iterator[Service]:
    """Run a service in a thread until the block ends; it reads the keys anew for each request."""
    listening = socket.create_server(("127.0.0.1", port))
    app = create_app(Options(store=store_url, **{"fresh": 0.0, **options}), clock)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", ws="none")
    server = _Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    try:
        yield Service(f"http://127.0.0.1:{listening.getsockname()[1]}", store_url)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
        assert not thread.is_alive(), "the service did not stop"
