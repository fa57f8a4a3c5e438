"""What tests of images, audio and video share: a server that bills them, and books beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final

from budgetguard.tokens.text import count_text
from tests.adapters.books import Books, open_books
from tests.provider.journal import RecordedRequest
from tests.provider.media import MediaServer
from tests.provider.server import OpenAIServer


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


# USD per million tokens, by the price page: text in, image in, image out, text out.
IMAGE_PRICES: Final[Mapping[str, tuple[Decimal | int, ...]]] = {
    "gpt-image-1": (5, 10, 40, 40),
    "gpt-image-1-mini": (2, Decimal("2.5"), 8, 8),
    "gpt-image-1.5": (5, 8, 32, 10),
    "gpt-image-2": (5, 8, 30, 30),
    "gpt-image-2.5-flare": (5, 8, 30, 30),
}
# USD an image: by model, quality and size.
_AN_IMAGE: Final = {
    ("dall-e-2", "standard", "512x512"): Decimal("0.018"),
    ("dall-e-3", "standard", "1024x1024"): Decimal("0.04"),
}
# USD per million tokens: sound in, text in, text out.
_WRITTEN: Final = {
    "gpt-4o-transcribe": (Decimal("2.5"), Decimal("2.5"), 10),
    "gpt-4o-mini-transcribe": (Decimal("1.25"), Decimal("1.25"), 5),
}


def billed_usd(server: OpenAIServer) -> Decimal:
    """Price the server's own log by the figures of the price page, without our tables or readers."""
    return sum((_usd(record) for record in server.requests if record.billed is not None), Decimal(0))


def billed_nanos(server: OpenAIServer) -> int:
    """Price the server's own log: Nanos."""
    return nanos(billed_usd(server))


def _usd(record: RecordedRequest) -> Decimal:
    model, billed = str(record.model), record.billed or {}
    if "images" in billed:
        return _AN_IMAGE[model, billed["quality"], billed["size"]] * int(billed["images"])
    if "characters" in billed:
        return int(billed["characters"]) * Decimal({"tts-1": 15, "tts-1-hd": 30}[model]) / 1_000_000
    if "seconds" in billed:
        a_second = {"whisper-1": Decimal("0.006") / 60, "sora-2": Decimal("0.1")}
        return int(billed["seconds"]) * a_second[model]
    if model in IMAGE_PRICES:
        words, seen, drawn, thought = IMAGE_PRICES[model]
        told, made = billed["input_tokens_details"], billed["output_tokens_details"]
        total = told["text_tokens"] * words + told["image_tokens"] * seen
        total += made["image_tokens"] * drawn + made["text_tokens"] * thought
    elif model in _WRITTEN:
        heard, read, wrote = _WRITTEN[model]
        details = billed["input_token_details"]
        total = details["audio_tokens"] * heard + details["text_tokens"] * read
        total += billed["output_tokens"] * wrote
    else:
        assert model == "gpt-4o-mini-tts"
        total = billed["input_tokens"] * Decimal("0.6") + billed["output_tokens"] * 12
    return Decimal(total) / 1_000_000
