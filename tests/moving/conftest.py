"""Stores of every kind, on servers of their own where they need one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.servers.postgres import fresh_url, shared_server
from tests.servers.valkey import ValkeyServer

NewUrl: TypeAlias = Callable[[str], str]


@pytest.fixture(scope="session")
def valkeys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    yield server
    server.kill()


@pytest.fixture
def new_url(tmp_path: Path, valkeys: ValkeyServer) -> NewUrl:
    """Return a factory of URLs of empty stores, by scheme."""
    count = 0

    def new(scheme: str) -> str:
        nonlocal count
        count += 1
        if scheme == "disk":
            return f"disk://{tmp_path}/store{count}"
        if scheme == "postgresql":
            return fresh_url(shared_server())
        with valkeys.client() as client:
            client.execute_command("SELECT", str(count))
            client.flushdb()
        return f"{valkeys.url}/{count}"

    return new
