from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.books import STORES, Books, open_books
from tests.provider.server import OpenAIServer


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def books(server: OpenAIServer, store: str, tmp_path: Path) -> Iterator[Books]:
    """Books on each embedded store, with openai patched and $10 for the current user."""
    with open_books(server, store, tmp_path) as opened:
        yield opened
