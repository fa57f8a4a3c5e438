"""A video is booked when its job is taken on, by the second; polling and downloading it cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard.errors import (
    ConfigurationError,
    UnknownEndpointError,
    UnknownModelError,
)
from tests.adapters.books import Books
from tests.adapters.media import check, media, open_media

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Sora.*:DeprecationWarning"),
    pytest.mark.skipif(not hasattr(openai.OpenAI, "videos"), reason="this SDK makes no videos"),
]
PROMPT = "A cat walks over a table."


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    with open_media(tmp_path, usd=100) as opened:
        yield opened


@pytest.mark.parametrize(
    ("more", "usd"),
    [
        ({"model": "sora-2"}, "0.40"),
        ({"model": "sora-2", "seconds": "12", "size": "1280x720"}, "1.20"),
        ({"model": "sora-2-2025-12-08", "seconds": "8"}, "0.80"),
        ({"model": "sora-2-pro", "seconds": "8", "size": "720x1280"}, "2.40"),
        ({"model": "sora-2-pro", "seconds": "4", "size": "1792x1024"}, "2.00"),
        ({"model": "sora-2-pro", "seconds": "4", "size": "1920x1080"}, "2.80"),
    ],
)
def test_a_video_costs_its_seconds_at_its_resolution(books: Books, more: Any, usd: str) -> None:
    with books.client() as client:
        client.videos.create(prompt=PROMPT, **more)
    check(books, usd)


def test_polling_and_downloading_cost_nothing(books: Books) -> None:
    with books.client() as client:
        job = client.videos.create(prompt=PROMPT, model="sora-2")
        for _ in range(5):
            assert client.videos.retrieve(job.id).status == "completed"
        assert client.videos.download_content(job.id).content == b"a video"
    assert media(books).count() == 7
    check(books, "0.40")


def test_a_picture_to_begin_with_arrives_untouched(books: Books) -> None:
    with books.client() as client:
        client.videos.create(
            prompt=PROMPT, model="sora-2", input_reference=("a.png", b"\0\r\n--\xff", "image/png")
        )
    (sent,) = media(books).uploads[0]
    assert (sent.field, sent.content) == ("input_reference", b"\0\r\n--\xff")
    check(books, "0.40")


@pytest.mark.parametrize(
    ("more", "error", "named"),
    [
        ({"model": "sora-2", "size": "1920x1080"}, UnknownModelError, "video_seconds_1080x1920"),
        ({"model": "sora-3"}, UnknownModelError, "sora-3"),
        ({"model": "sora-2", "size": "wide"}, ConfigurationError, "wide"),
        ({"model": "sora-2", "seconds": "0"}, ConfigurationError, "seconds"),
        ({"model": "sora-2", "seconds": "soon"}, ConfigurationError, "soon"),
    ],
)
def test_what_has_no_price_is_refused_unsent(books: Books, more: Any, error: Any, named: str) -> None:
    with books.client() as client, pytest.raises(error, match=named):
        client.videos.create(prompt=PROMPT, **more)
    assert media(books).count() == 0


def test_a_price_by_the_second_can_be_set_for_any_model(books: Books) -> None:
    books.engine.prices.register("sora-of-ours", video_seconds=0.05)
    with books.client() as client:
        client.videos.create(prompt=PROMPT, model="sora-of-ours", size="1792x1024", seconds="8")
    check(books, "0.40")


@pytest.mark.parametrize("call", ["remix", "edit", "extend"])
def test_what_no_source_prices_is_refused_by_name(books: Books, call: str) -> None:
    more: dict[str, Any] = {
        "remix": {"video_id": "v"},
        "edit": {"video": b"a video"},
        "extend": {"video": b"a video", "seconds": "4"},
    }[call]
    with books.client() as client, pytest.raises(UnknownEndpointError, match="videos/"):
        getattr(client.videos, call)(prompt=PROMPT, **more)
    assert media(books).count() == 0
