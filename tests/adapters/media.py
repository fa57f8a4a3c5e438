"""What tests of images, audio and video share: a server that bills them, and books beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from budgetguard.counting.tokens import count_text
from budgetguard.testing._media import MediaServer
from tests.adapters.books import Books, open_books


def o200k(words: str) -> int:
    return count_text(words, "o200k_base")


def nanos(usd: str | Decimal) -> int:
    exact = Decimal(usd).scaleb(9)
    assert exact == int(exact), "the tests' prices are whole Nanos"
    return int(exact)


@contextmanager
def open_media(tmp_path: Path, *, usd: float = 10) -> Iterator[Books]:
    with (
        MediaServer(count_tokens=o200k) as server,
        open_books(server, "memory", tmp_path, usd=usd) as books,
    ):
        yield books


def media(books: Books) -> MediaServer:
    assert isinstance(books.server, MediaServer)
    return books.server


def check(books: Books, usd: str | Decimal, *, estimated: bool = False) -> None:
    """Assert that one call was booked at this price, and that nothing is held."""
    assert (books.spent, books.held) == (nanos(usd), 0)
    (settled,) = books.of("Settled")
    assert settled.estimated is estimated
    (projected,) = books.of("Projected")
    assert projected.cost >= settled.cost
