"""Servers for the tests of the Redis store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.servers.valkey import ValkeyServer, shared_valkey

Start = Callable[..., ValkeyServer]


@pytest.fixture
def server() -> ValkeyServer:
    """Return an empty server that other tests use too: stop, fill or configure another."""
    with shared_valkey().client() as client:
        client.flushall()
    return shared_valkey()


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    """Return a client of that server's, to look at what is stored."""
    with server.client() as client:
        yield client


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return how to start a server of the test's own."""
    started: list[ValkeyServer] = []

    def start(*options: str, name: str = "", sentinel: tuple[str, ...] = ()) -> ValkeyServer:
        folder = tmp_path / (name or f"server{len(started)}")
        started.append(ValkeyServer(folder, *options, sentinel=sentinel))
        return started[-1]

    yield start
    for server in started:
        server.kill()
