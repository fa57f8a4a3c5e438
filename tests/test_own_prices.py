"""Our own prices fill in what genai-prices lacks: dated, sourced, and after everybody else's word."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from budgetguard.core.usage import Usage
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing import extra as own_prices
from budgetguard.pricing.book import PriceBook, Rates
from budgetguard.pricing.extra import OWN_PRICES, OWN_PRICES_ELSEWHERE, OwnPrice, drawn_unit, own_unit
from budgetguard.pricing.rates import priced_unit, units_by_name, units_by_price_key


@pytest.fixture
def book() -> PriceBook:
    return PriceBook()


def usd(rates: Rates, **units: int) -> Decimal:
    return Decimal(rates.cost(Usage.of(**units))).scaleb(-9)


# --- the table ---


ALL = (*OWN_PRICES, *OWN_PRICES_ELSEWHERE)


@pytest.mark.parametrize("row", ALL, ids=lambda row: f"{row.models} {row.taken}")
def test_every_row_says_where_and_when_it_was_read(row: OwnPrice) -> None:
    assert row.source.startswith("https://")
    assert date(2025, 1, 1) <= row.taken <= date(2026, 11, 23)
    assert row.prices
    assert all(price > 0 and priced_unit(key) is not None for key, price in row.prices.items())


def test_no_model_has_two_prices_of_a_unit() -> None:
    seen: set[tuple[str, str | None, str]] = set()
    for row in ALL:
        for key in row.prices:
            assert (row.provider, row.models, key) not in seen
            seen.add((row.provider, row.models, key))


def test_our_units_have_names_of_their_own() -> None:
    for row in OWN_PRICES:
        for key in row.prices:
            unit = own_prices.own_unit_of_price_key(key)
            if unit is not None:
                assert unit.usage_key not in units_by_name()
                assert key not in units_by_price_key()


@pytest.mark.parametrize(
    "name",
    [
        "images_",
        "images_1024",
        "images_HD_1x1",
        "video_seconds_hd",
        "imagesx",
        "drawn_tokens_",
        "drawn_mtok",
        "",
    ],
)
def test_what_is_merely_like_a_unit_is_none(name: str) -> None:
    assert own_unit(name) is None


# --- figures ---


@pytest.mark.parametrize(
    ("model", "unit", "count", "cost"),
    [
        ("dall-e-2", "images_standard_512x512", 10, "0.18"),
        ("dall-e-3", "images_hd_1792x1024", 1, "0.12"),
        ("openai/dall-e-3", "images_standard_1024x1024", 1, "0.04"),
        ("sora-2", "video_seconds_720x1280", 12, "1.20"),
        ("sora-2-pro-2025-10-06", "video_seconds_1024x1792", 4, "2.00"),
        ("sora-2-pro", "video_seconds_1080x1920", 4, "2.80"),
        ("gpt-4o", "web_searches", 1, "0.01"),
        ("gpt-5-mini", "web_searches", 100, "1"),
        ("gpt-4o-search-preview-2025-03-11", "web_searches", 1, "0.025"),
        ("gpt-5-search-api", "web_searches", 1, "0.01"),
        ("gpt-4o", "web_search_previews", 1, "0.025"),
        ("gpt-4.1-mini-2025-04-14", "web_search_previews", 1, "0.025"),
        ("gpt-5", "web_search_previews", 1, "0.01"),
        ("o4-mini", "web_search_previews", 1, "0.01"),
        ("gpt-4o-mini", "storage_searches", 4, "0.01"),
        ("gpt-4o", "container_sessions_1g", 1, "0.03"),
        ("gpt-4o", "container_sessions_64g", 2, "3.84"),
        # genai-prices' own, beside ours.
        ("o3-deep-research", "web_searches", 1, "0.01"),
        ("whisper-1", "input_audio_seconds", 60, "0.006"),
        ("tts-1", "input_characters", 1_000, "0.015"),
        ("tts-1-hd", "input_characters", 1_000, "0.03"),
    ],
)
def test_a_unit_costs_what_the_price_page_says(
    book: PriceBook, model: str, unit: str, count: int, cost: str
) -> None:
    assert usd(book.rates(model), **{unit: count}) == Decimal(cost)


@pytest.mark.parametrize(
    ("model", "cost"),
    [("gpt-image-1", 40), ("gpt-image-1-mini", 8), ("gpt-image-1.5", 32), ("gpt-image-2", 30)],
)
def test_the_tokens_of_a_drawn_image_have_their_own_price(book: PriceBook, model: str, cost: int) -> None:
    drawn = {"output_tokens": 1_000_000, "output_image_tokens": 1_000_000}
    assert usd(book.rates(model), **drawn) == cost


# --- what is not there is refused ---


@pytest.mark.parametrize(
    ("model", "unit"),
    [
        ("dall-e-3", "images_standard_512x512"),
        ("dall-e-2", "images_hd_1024x1024"),
        ("sora-2", "video_seconds_1080x1920"),
        ("sora-2", "input_tokens"),
        ("gpt-4o", "images_standard_1024x1024"),
        ("anthropic/claude-sonnet-4-5", "storage_searches"),
        ("gpt-4o", "container_sessions_2g"),
    ],
)
def test_a_unit_that_nobody_prices_is_refused_by_name(book: PriceBook, model: str, unit: str) -> None:
    with pytest.raises(UnknownModelError, match=unit if unit != "input_tokens" else "input"):
        book.rates(model).cost(Usage.of(**{unit: 1}))


@pytest.mark.parametrize("model", ["dall-e-4", "dall-e-3-ultra", "sora-2-max", "gpt-99", "azure/dall-e-3"])
def test_a_tool_s_price_makes_no_model_known(book: PriceBook, model: str) -> None:
    with pytest.raises(UnknownModelError, match="no price is known"):
        book.rates(model)


# --- whose word counts ---


def test_the_user_s_word_comes_first(book: PriceBook) -> None:
    book.register("dall-e-3", images=0.01)
    rates = book.rates("dall-e-3")
    assert usd(rates, images_hd_1024x1024=1) == usd(rates, images_standard_9x9=1) == Decimal("0.01")


def test_the_user_s_word_for_one_size_leaves_the_others(book: PriceBook) -> None:
    book.register("dall-e-3", images_hd_1024x1024=0.05)
    rates = book.rates("dall-e-3")
    assert usd(rates, images_hd_1024x1024=1) == Decimal("0.05")
    assert usd(rates, images_standard_1024x1024=1) == Decimal("0.04")


def test_a_user_s_price_of_a_tool_comes_before_ours(book: PriceBook) -> None:
    book.register("gpt-4o", web_searches_kcount=7)
    assert usd(book.rates("gpt-4o"), web_searches=1_000) == 7
    assert usd(book.rates("gpt-4o"), storage_searches=1_000) == Decimal("2.5")


def test_the_list_comes_before_ours(book: PriceBook, monkeypatch: pytest.MonkeyPatch) -> None:
    row = OwnPrice(None, {"web_searches_kcount": Decimal(99), "input_mtok": Decimal(99)}, date(2026, 1, 1))
    monkeypatch.setattr(own_prices, "OWN_PRICES", (row,))
    rates = book.rates("o3-deep-research")
    assert usd(rates, web_searches=1_000) == 10
    assert usd(rates, input_tokens=1_000_000) == 10


def test_what_is_free_stays_free(book: PriceBook) -> None:
    book.register("local", input=0, output=0)
    for model in ("local", "omni-moderation-latest"):
        assert book.rates(model).is_free
        assert usd(book.rates(model), input_tokens=5, web_searches=5, images=5) == 0


def test_a_size_s_price_stands_for_every_quality_and_any_image_s_for_every_size(book: PriceBook) -> None:
    book.register("painter", images=0.01, images_512x512=0.02, images_hd_512x512=0.03)
    rates = book.rates("painter")
    assert usd(rates, images_hd_512x512=2) == Decimal("0.06")
    assert usd(rates, images_low_512x512=2) == Decimal("0.04")
    assert usd(rates, images_low_64x64=2) == Decimal("0.02")
    assert rates.prices("images_low_64x64")


def test_a_misspelled_unit_of_ours_is_named(book: PriceBook) -> None:
    with pytest.raises(ConfigurationError, match="did you mean video_seconds"):
        book.register("painter", video_second=1)


# --- one thing in two measures ---


def test_a_text_in_two_measures_is_billed_in_the_one_that_has_a_price(book: PriceBook) -> None:
    both = {"input_characters": 1_000_000, "input_tokens": 250_000}
    assert usd(book.rates("tts-1"), **both, output_tokens=5) == 15
    assert usd(book.rates("gpt-4o-mini-tts"), **both) == Decimal("0.15")


def test_an_image_in_two_measures_is_billed_in_the_one_that_has_a_price(book: PriceBook) -> None:
    image = {"images_standard_1024x1024": 1}
    drawn = {"output_tokens": 1_000_000, "output_image_tokens": 1_000_000}
    assert usd(book.rates("dall-e-3"), **image, **drawn) == Decimal("0.04")
    assert usd(book.rates("gpt-image-1"), **image, **drawn) == 40


def test_a_text_in_two_measures_without_a_price_is_refused(book: PriceBook) -> None:
    with pytest.raises(UnknownModelError):
        book.rates("dall-e-3").cost(Usage.of(input_characters=5, input_tokens=5))


@pytest.mark.parametrize(
    ("painter", "cost"),
    [
        ("gpt-image-1", 40),
        ("gpt-image-1-mini", 8),
        ("GPT-Image-1.5", 32),
        ("chatgpt-image-latest", 32),
        ("gpt-image-2", 30),
        ("gpt-image-2.5-flare", 30),
    ],
)
@pytest.mark.parametrize("model", ["gpt-5", "gpt-5.6-sol", "gpt-4o", "gpt-4.1-mini-2025-04-14", "o3"])
def test_what_the_image_tool_draws_costs_what_its_image_model_does(
    book: PriceBook, model: str, painter: str, cost: int
) -> None:
    drawn = {drawn_unit(painter): 1_000_000}
    assert usd(book.rates(model), **drawn) == cost
    if "latest" not in painter:
        image = {"output_tokens": 1_000_000, "output_image_tokens": 1_000_000}
        assert usd(book.rates(painter.lower()), **image) == cost
    assert drawn_unit(f"{painter}-2026-09-01") == drawn_unit(painter)
    with pytest.raises(UnknownModelError):
        book.rates(model, provider="azure").cost(Usage.of(**drawn))


def test_what_an_image_model_without_a_price_draws_is_refused_until_it_has_one(book: PriceBook) -> None:
    drawn = {drawn_unit("gpt-image-99"): 1_000_000}
    with pytest.raises(UnknownModelError, match=r"register_price\('gpt-5', drawn_mtok_gpt_image_99=<USD>\)"):
        book.rates("gpt-5").cost(Usage.of(**drawn))
    book.register("gpt-5", drawn_mtok_gpt_image_99=50)
    book.register("gpt-4o", drawn_mtok=60)
    assert usd(book.rates("gpt-5"), **drawn) == 50
    assert usd(book.rates("gpt-4o"), **drawn) == 60
    assert usd(book.rates("gpt-4o"), **{drawn_unit("gpt-image-1"): 1_000_000}) == 60
