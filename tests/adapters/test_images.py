"""Images are booked as billed: by the image, by size and quality, or by tokens; and refused unsent."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing.book import PriceBook
from budgetguard.providers.openai.images import image_tokens, project_images
from budgetguard.providers.request import with_files
from tests.adapters.books import Books
from tests.adapters.media import IMAGE_PRICES, billed_usd, check, media, o200k, open_media
from tests.adapters.pictures import png

PROMPT = "A cat that counts coins on a marble table."


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    with open_media(tmp_path) as opened:
        yield opened


# --- by the image ---


@pytest.mark.parametrize(
    ("more", "usd"),
    [
        ({"model": "dall-e-2", "size": "256x256"}, "0.016"),
        ({"model": "dall-e-2", "size": "512x512", "n": 3}, "0.054"),
        ({"model": "dall-e-2"}, "0.02"),
        ({"model": "dall-e-3"}, "0.04"),
        ({"model": "dall-e-3", "size": "1792x1024"}, "0.08"),
        ({"model": "dall-e-3", "size": "1024x1792", "quality": "hd"}, "0.12"),
        ({"model": "dall-e-3", "quality": "hd"}, "0.08"),
        ({"model": "dall-e-3", "quality": openai.omit, "size": openai.NOT_GIVEN}, "0.04"),
    ],
)
def test_an_image_costs_what_its_size_and_quality_do(books: Books, more: Any, usd: str) -> None:
    with books.client() as client:
        client.images.generate(prompt=PROMPT, **more)
    assert media(books).billed[0]["images"] == more.get("n", 1)
    check(books, usd)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"model": "dall-e-3", "size": "4096x4096"}, "images_standard_4096x4096"),
        ({"model": "dall-e-3", "quality": "auto"}, "images_auto_1024x1024"),
        ({"model": "dall-e-9"}, "dall-e-9"),
        ({}, "names no model"),
    ],
)
def test_an_image_without_a_price_is_refused_unsent(books: Books, more: Any, named: str) -> None:
    with books.client() as client, pytest.raises(UnknownModelError, match=named):
        client.images.generate(prompt=PROMPT, **more)
    assert media(books).count() == 0
    assert (books.spent, books.held) == (0, 0)


def test_a_price_by_the_image_can_be_set_for_any_model(books: Books) -> None:
    books.engine.prices.register("dall-e-of-ours", images=0.01, images_2048x2048=0.03)
    with books.client() as client:
        asked: Any = {"prompt": PROMPT, "model": "dall-e-of-ours", "size": "2048x2048", "n": 2}
        client.images.generate(**asked)
        client.images.generate(prompt=PROMPT, model="dall-e-of-ours", quality="hd")
    assert (books.spent, books.held) == (70_000_000, 0)


# --- by tokens ---


@pytest.mark.parametrize("model", IMAGE_PRICES)
@pytest.mark.parametrize("n", [1, 3])
def test_an_image_in_tokens_costs_what_its_answer_reports(books: Books, model: str, n: int) -> None:
    media(books).thought_tokens = 112 if model == "gpt-image-1.5" else 0
    media(books).image_tokens = 439 if model == "gpt-image-2.5-flare" else 1_056
    with books.client() as client:
        client.images.generate(prompt=PROMPT, model=model, size="1024x1024", quality="medium", n=n)
    check(books, billed_usd(books.server))


BODY: Any = {"prompt": PROMPT, "model": "gpt-image-1.5", "size": "1024x1024", "quality": "medium"}


def test_a_refusal_by_the_provider_costs_nothing(books: Books) -> None:
    media(books).status = 400
    with books.client() as client, pytest.raises(openai.BadRequestError):
        client.images.generate(**BODY)
    assert (books.spent, books.held) == (0, 0)


# --- uploads ---


def test_an_edit_is_booked_and_its_files_arrive_untouched(books: Books) -> None:
    data, mask = png(1_024, 768), png(64, 64)
    opened = io.BytesIO(data)
    opened.seek(7)
    with books.client() as client:
        client.images.edit(
            image=[opened, ("second.png", data, "image/png")],
            mask=mask,
            prompt=PROMPT,
            model="gpt-image-1",
            size="1024x1024",
            quality="medium",
        )
    sent = media(books).uploads[0]
    assert [(one.field, one.content) for one in sent] == [
        ("image[]", data),
        ("image[]", data),
        ("mask", mask),
    ]
    check(books, billed_usd(books.server))


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("call", ["edit", "create_variation"])
def test_edits_and_variations_by_the_image_cost_what_images_do(books: Books, call: str) -> None:
    more = {"prompt": PROMPT} if call == "edit" else {}
    with books.client() as client:
        getattr(client.images, call)(image=png(512, 512), model="dall-e-2", size="512x512", n=2, **more)
    check(books, "0.036")


def test_images_that_are_looked_at_cost_more_input(books: Books) -> None:
    rates = PriceBook().rates("gpt-image-1")

    def seen(file: bytes, **more: Any) -> int:
        body = with_files({"prompt": PROMPT, **more}, [("image", file)])
        return project_images(body, "gpt-image-1", rates, None).usage.units["input_image_tokens"]

    square, wide, unknown = png(1_024, 1_024), png(1_536, 1_024), b"no image"
    assert seen(square) < seen(wide) < seen(unknown)
    assert seen(square, input_fidelity="high") - seen(square) == pytest.approx(4_160, rel=0.06)
    assert seen(wide, input_fidelity="high") - seen(wide) == pytest.approx(6_240, rel=0.06)


# --- projections ---


@pytest.mark.parametrize(
    ("model", "quality", "size", "tokens"),
    [
        ("gpt-image-1", "low", "1024x1024", 272),
        ("gpt-image-1.5", "medium", "1024x1536", 1_584),
        ("gpt-image-1", "high", "1536x1024", 6_208),
        ("gpt-image-1", None, None, 6_240),
        # As the calculator of OpenAI's guide answers.
        ("gpt-image-2", "high", "1024x1024", 7_024),
        ("gpt-image-2", "high", "1536x1024", 5_488),
        ("gpt-image-2", "high", "1792x1024", 5_063),
        ("gpt-image-2", "high", "3584x2048", 12_329),
        ("gpt-image-2-2026-04-21", "high", "1024x1024", 7_024),
        ("gpt-image-2.5-sunburst", "max", "1024x1024", 7_024),
        ("gpt-image-2.5-sunburst", "high", "1024x1024", 1_756),
    ],
)
def test_the_tokens_of_an_image_follow_from_size_and_quality(
    model: str, quality: str | None, size: str | None, tokens: int
) -> None:
    assert image_tokens({"quality": quality, "size": size}, model) == tokens


@pytest.mark.parametrize("model", ["gpt-image-1", "gpt-image-1-mini", "gpt-image-2", "gpt-image-2.5-flare"])
def test_what_is_left_to_the_model_is_projected_at_the_most(model: str) -> None:
    sizes = ["1024x1024", "1536x1024", "1024x1536"]
    if model.startswith("gpt-image-2"):
        sizes += ["3840x2160", "2880x2880", "2560x1440"]
    free = image_tokens({}, model)
    for quality in ("low", "medium", "high"):
        assert all(image_tokens({"quality": quality, "size": size}, model) <= free for size in sizes)


def test_images_of_a_gif_are_projected_frame_by_frame() -> None:
    rates = PriceBook().rates("gpt-image-2")
    body = {"prompt": PROMPT, "size": "1024x1024", "quality": "low"}
    one = project_images(body, "gpt-image-2", rates, None)
    many = project_images({**body, "output_format": "gif", "frame_count": 5}, "gpt-image-2", rates, None)
    assert many.output_tokens == 5 * one.output_tokens
    assert one.input_tokens >= o200k(PROMPT)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"n": 0}, "n must be"),
        ({"n": "many"}, "n must be"),
        ({"size": "large"}, "large"),
        ({"size": "0x16"}, "0x16"),
        ({"quality": {"not": "a word"}}, "quality"),
        ({"partial_images": -1}, "partial_images"),
        ({"output_format": "svg"}, "second model"),
        ({"prompt": 5}, "prompt"),
    ],
)
def test_a_request_that_cannot_be_priced_is_refused_by_name(books: Books, more: Any, named: str) -> None:
    with books.client() as client, pytest.raises(ConfigurationError, match=named):
        client.post("/images/generations", body={**BODY, **more}, cast_to=object)
    assert media(books).count() == 0
    assert books.held == 0


def test_the_picture_is_the_caller_s(books: Books) -> None:
    with books.client() as client:
        answer = client.images.generate(**BODY)
    assert answer.data is not None
    assert base64.b64decode(answer.data[0].b64_json or "") == b"an image"


def test_an_abandoned_stream_of_images_costs_its_input_and_the_pictures_seen(books: Books) -> None:
    media(books).gate = threading.Event()
    with books.client() as client:
        with client.images.generate(**BODY, stream=True, partial_images=2) as stream:
            assert next(iter(stream)).type == "image_generation.partial_image"
        media(books).gate.set()
    (projected,), (settled,) = books.of("Projected"), books.of("Settled")
    units = {"input_tokens": projected.usage.input_tokens, "output_tokens": 100, "output_image_tokens": 100}
    assert (settled.outcome, settled.usage.units, settled.estimated) == ("abandoned", units, True)
    assert books.held == 0
    # 100 tokens of a partial picture at the price of pictures, $32 a million, and not at that of text.
    assert books.spent == projected.usage.input_tokens * 5_000 + 100 * 32_000
