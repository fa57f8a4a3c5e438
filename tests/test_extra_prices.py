"""Extra prices fill in what genai-prices lacks: dated, sourced, and after every other price."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from genai_prices import types
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot

from budgetguard.core.usage import Reported, Usage
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.pricing import extra as extra_prices
from budgetguard.pricing.book import PriceBook, Rates
from budgetguard.pricing.extra import EXTRA_PRICES, ExtraPrice, drawn_unit, extra_unit
from budgetguard.pricing.lookup import PriceLists
from budgetguard.pricing.matching import listed_model, providers_known
from budgetguard.pricing.other_names import OTHER_NAMES, OtherName
from budgetguard.pricing.regions import UPLIFTS, Uplift
from budgetguard.pricing.said import Said
from budgetguard.pricing.tiers import TIER_FACTORS, TierFactor
from budgetguard.pricing.units import priced_unit, units_by_name, units_by_price_key


@pytest.fixture
def book() -> PriceBook:
    return PriceBook()


def usd(rates: Rates, **units: int) -> Decimal:
    return Decimal(rates.cost(Usage.of(**units))).scaleb(-9)


# --- the table ---


@pytest.mark.parametrize("row", EXTRA_PRICES, ids=lambda row: f"{row.models} {row.taken}")
def test_every_row_says_where_and_when_it_was_read(row: ExtraPrice) -> None:
    assert row.source.startswith("https://")
    assert date(2025, 1, 1) <= row.taken <= date(2026, 11, 23)
    assert row.prices
    assert all(priced_unit(key) is not None for key in row.prices)
    assert all(price > 0 for price in row.prices.values() if isinstance(price, Decimal))
    assert row.instead_of.keys() <= row.prices.keys()


def test_no_model_has_two_prices_of_a_unit() -> None:
    seen: set[tuple[str, str | None, str | None, str]] = set()
    for row in EXTRA_PRICES:
        for key in row.prices:
            assert (row.provider, row.models, row.tier, key) not in seen
            seen.add((row.provider, row.models, row.tier, key))


def test_our_units_have_names_of_their_own() -> None:
    for row in EXTRA_PRICES:
        for key in row.prices:
            unit = extra_prices.extra_unit_of_price_key(key)
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
    assert extra_unit(name) is None


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
        ("sora-2-pro-high-res", "video_seconds_1024x1792", 4, "2.00"),
        ("tts-1-1106", "input_characters", 1_000, "0.015"),
        ("tts-1-hd-1106", "input_characters", 1_000, "0.03"),
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


# --- prices that the list lacks, or has wrong ---

MILLION = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
THOUSAND = {"input_tokens": 1_000, "output_tokens": 1_000}
LONG = {"input_tokens": 272_001, "output_tokens": 1_000_000}


@pytest.mark.parametrize(
    ("model", "tier", "units", "cost"),
    [
        ("ft:gpt-4.1-2025-04-14:org::id", None, MILLION, "15"),
        ("ft:gpt-4.1-2025-04-14:org::id", "batch", MILLION, "7.5"),
        ("ft:gpt-4.1-mini-2025-04-14:org::id", None, MILLION, "4"),
        ("ft:gpt-4.1-nano-2025-04-14:org::id:ckpt-step-5", None, MILLION, "1"),
        ("ft:o4-mini-2025-04-16:org::id", None, MILLION, "20"),
        ("ft:o4-mini-2025-04-16:org::id", "batch", MILLION, "10"),
        ("ft:gpt-4o-2024-08-06:org::id", None, {**MILLION, "cache_read_tokens": 1_000_000}, "16.875"),
        ("gpt-4o-audio-preview-2025-06-03", None, {**MILLION, "input_audio_tokens": 1_000_000}, "50"),
        ("gpt-4o-mini-audio-preview", None, {**MILLION, "output_audio_tokens": 1_000_000}, "20.15"),
        ("gpt-4o-transcribe", None, {**MILLION, "input_audio_tokens": 1_000_000}, "12.5"),
        ("gpt-4o-transcribe-diarize", None, {"input_audio_tokens": 1_000_000}, "2.5"),
        ("gpt-4o-mini-transcribe-2025-12-15", None, {**MILLION, "input_audio_tokens": 1_000_000}, "6.25"),
        ("gpt-4o-mini-tts-2025-03-20", None, {"input_tokens": 1_000_000}, "0.6"),
        ("gpt-5-search-api-2025-10-14", None, MILLION, "11.25"),
        ("gpt-5.5-cyber-preview", None, MILLION, "87.5"),
        ("gpt-6-astra-law", None, THOUSAND, "0.06"),
        ("gpt-image-2.6-flare", None, {"output_image_tokens": 1_000_000}, "30"),
        ("gpt-image-2.6-sunburst", "batch", {"output_image_tokens": 1_000_000}, "15"),
        ("gpt-5.5-pro", "batch", {"input_tokens": 272_000}, "4.08"),
        ("gpt-5.5-pro", "batch", LONG, "143.16003"),
        ("gpt-5.5-pro", None, {"input_tokens": 272_001}, "16.32006"),
        ("gpt-5.6-cyber", None, LONG, "119.300025"),
        ("azure/gpt-5.4", "priority", LONG, "47.72001"),
        ("azure/gpt-5.5", "priority", LONG, "95.44002"),
        ("azure/gpt-5.5", "priority", THOUSAND, "0.0875"),
        ("azure/gpt-audio", None, {"input_audio_tokens": 1_000_000}, "40"),
        ("gpt-audio", None, {"input_audio_tokens": 1_000_000}, "32"),
        ("azure/gpt-image-1", None, {"output_image_tokens": 1_000_000}, "40"),
        ("aws/openai.gpt-5.5", None, LONG, "52.492011"),
        ("aws/openai.gpt-oss-120b", None, MILLION, "0.75"),
        ("aws/openai.gpt-oss-120b-1:0", None, MILLION, "0.75"),
        ("together/meta-llama/Llama-3.3-70B-Instruct-Turbo", None, MILLION, "2.08"),
        ("voyageai/rerank-2-lite", None, {"input_tokens": 1_000_000}, "0.02"),
        ("cohere/embed-english-v3.0", None, {"input_tokens": 1_000_000}, "0.1"),
        ("cohere/embed-v4.0", None, {"input_tokens": 1_000_000, "input_image_tokens": 1_000_000}, "0.47"),
        ("mistral/mistral-large-latest", None, MILLION, "2"),
        ("mistral/ministral-3b-latest", None, MILLION, "0.2"),
        ("mistral/magistral-medium-latest", None, {**MILLION, "cache_read_tokens": 1_000_000}, "7.65"),
        ("xai/grok-3-mini", None, THOUSAND, "0.00375"),
        ("x-ai/grok-4.20-reasoning-latest", None, THOUSAND, "0.00375"),
        ("google/gemini-2.0-flash-001", None, MILLION, "0.5"),
    ],
)
def test_what_the_list_lacks_or_has_wrong_costs_what_its_provider_says(
    book: PriceBook, model: str, tier: str | None, units: dict[str, int], cost: str
) -> None:
    assert usd(book.rates(model, tier=tier), **units) == Decimal(cost)


@pytest.mark.parametrize(
    ("provider", "model", "tier", "times"),
    [
        ("google", "gemini-2.5-pro", "priority", "1.8"),
        ("google", "gemini-2.5-pro", "flex", "0.5"),
        ("google", "gemini-3.5-flash", "batch", "0.5"),
        ("aws", "amazon.nova-pro-v1:0", "priority", "1.75"),
        ("aws", "amazon.nova-pro-v1:0", "flex", "0.5"),
        ("openai", "text-embedding-3-small", "batch", "0.5"),
    ],
)
def test_a_tier_that_the_list_lacks_costs_what_its_provider_says_of_all_models(
    book: PriceBook, provider: str, model: str, tier: str, times: str
) -> None:
    standard = book.rates(model, provider=provider)
    units = {"input_tokens": 100_000}
    assert usd(standard.with_tier(tier), **units) == usd(standard, **units) * Decimal(times)
    if tier == "priority":
        cached = {**units, "cache_read_tokens": 100_000}
        assert usd(standard.with_tier(tier), **cached) == usd(standard, **cached) * Decimal(times)


def test_what_is_read_from_a_cache_is_not_taken_to_be_cheaper_in_a_cheaper_tier(book: PriceBook) -> None:
    standard = book.rates("gemini-2.5-pro", provider="google")
    cached = {"input_tokens": 1_000, "cache_read_tokens": 1_000}
    assert usd(standard.with_tier("flex"), **cached) == usd(standard, **cached)


@pytest.mark.parametrize("row", [row for row in EXTRA_PRICES if row.instead_of], ids=lambda row: row.models)
def test_every_correction_is_still_needed(row: ExtraPrice) -> None:
    """One that is not may go: the list has been put right."""
    text = (row.models or "").partition("(?:")[0].replace("\\", "")
    name = {"meta-llama/": "meta-llama/Llama-3.3-70B-Instruct-Turbo"}.get(text, text)
    provider = row.provider
    snapshot = get_snapshot()
    listed = listed_model(snapshot, provider, name.lower())
    assert listed is not None, name
    lists = PriceLists(snapshot, {}, (), None, datetime.now(UTC))
    source = lists.source(provider, (name.lower(),), Said())
    assert source is not None
    (prices,) = source.price_sets(row.tier)
    for key, price in row.prices.items():
        assert prices[key] == price


def test_a_correction_gives_way_to_a_list_that_has_another_price() -> None:
    prices = types.ModelPrice(input_mtok=Decimal("2.5"), output_mtok=Decimal(10), input_audio_mtok=Decimal(4))
    model = types.ModelInfo("gpt-4o-transcribe", types.ClauseEquals("gpt-4o-transcribe"), prices=prices)
    provider = types.Provider("openai", "OpenAI", r"https://api\.openai\.com", models=[model])
    set_custom_snapshot(DataSnapshot([provider], from_auto_update=False))
    try:
        assert usd(PriceBook().rates("gpt-4o-transcribe"), input_audio_tokens=1_000_000) == 4
    finally:
        set_custom_snapshot(None)


def test_a_name_s_other_meaning_gives_way_to_a_list_that_has_it_at_another_model() -> None:
    def model(name: str, usd: int, *names: str) -> types.ModelInfo:
        price = types.ModelPrice(input_mtok=Decimal(usd), output_mtok=Decimal(usd))
        return types.ModelInfo(
            name, types.ClauseOr([types.ClauseEquals(one) for one in (name, *names)]), prices=price
        )

    models = [model("mistral-large-2512", 1), model("mistral-large-5", 7, "mistral-large-latest")]
    provider = types.Provider("mistral", "Mistral", r"https://api\.mistral\.ai", models=models)
    set_custom_snapshot(DataSnapshot([provider], from_auto_update=False))
    try:
        rates = PriceBook().rates("mistral-large-latest", provider="mistral")
    finally:
        set_custom_snapshot(None)
    assert usd(rates, input_tokens=1_000_000) == 7


@pytest.mark.parametrize("row", OTHER_NAMES, ids=lambda row: row.names)
def test_every_other_name_means_a_listed_model(row: OtherName) -> None:
    assert row.source.startswith("https://")
    assert date(2025, 1, 1) <= row.taken <= date(2026, 11, 23)
    listed = listed_model(get_snapshot(), row.provider, row.model)
    assert listed is not None
    assert row.model not in row.instead_of
    provider = next(one for one in get_snapshot().providers if one.id == row.provider)
    assert set(row.instead_of) <= {one.id for one in provider.models}


@pytest.mark.parametrize("row", [*UPLIFTS, *TIER_FACTORS], ids=lambda row: f"{row.provider} {row.factor}")
def test_every_factor_says_where_and_when_it_was_read(row: Uplift | TierFactor) -> None:
    assert row.source.startswith("https://")
    assert date(2025, 1, 1) <= row.taken <= date(2026, 11, 23)
    assert row.provider in providers_known()


# --- where it is called ---


@pytest.mark.parametrize(
    ("base_url", "model", "times"),
    [
        ("https://us.api.openai.com/v1", "gpt-5.4", "1.1"),
        ("https://eu.api.openai.com/v1", "gpt-6-sol", "1.1"),
        ("https://eu.api.openai.com/v1", "gpt-4o", "1"),
        ("https://us.api.x.ai/v1", "grok-4.6", "1.1"),
        ("https://us-east-1.api.x.ai/v1", "grok-4.6", "1"),
        ("https://api.eu.mistral.ai/v1", "mistral-small-latest", "1.1"),
        ("https://us-api.together.ai/v1", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "1.25"),
        ("https://us-east5-aiplatform.googleapis.com/v1", "claude-sonnet-4-5", "1.1"),
        ("https://aiplatform.eu.rep.googleapis.com/v1", "claude-opus-4-6", "1.1"),
        ("https://aiplatform.googleapis.com/v1", "claude-sonnet-4-5", "1"),
        ("https://us-east5-aiplatform.googleapis.com/v1", "claude-3-5-haiku", "1"),
        ("https://us-central1-aiplatform.googleapis.com/v1", "gemini-3.5-flash", "1.1"),
        ("https://us-central1-aiplatform.googleapis.com/v1", "gemini-2.5-flash", "1"),
        ("https://generativelanguage.googleapis.com/v1beta", "gemini-3.5-flash", "1"),
    ],
)
def test_a_region_s_address_has_its_surcharge(book: PriceBook, base_url: str, model: str, times: str) -> None:
    there = book.rates(model, base_url=base_url)
    elsewhere = book.rates(model, provider=there.provider)
    assert usd(there, **THOUSAND) == usd(elsewhere, **THOUSAND) * Decimal(times)


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.together.ai/v1", "together"),
        ("https://eu.openrouter.ai/api/v1", "openrouter"),
        ("https://bedrock-mantle.us-east-1.api.aws/openai/v1", "aws"),
        ("https://mine.openai.azure.us/openai/v1", "azure"),
        ("https://models.github.ai/inference", "github"),
        ("https://models.inference.ai.azure.com", "github"),
        ("https://eu-west-1.api.x.ai/v1", "x-ai"),
        ("https://api.x.ai.example.com/v1", None),
    ],
)
def test_an_address_that_the_list_lacks_is_known(
    book: PriceBook, base_url: str, provider: str | None
) -> None:
    assert book.provider_at(base_url) == provider


def test_models_at_github_cost_what_its_page_says_and_others_what_their_makers_ask(book: PriceBook) -> None:
    here = "https://models.github.ai/inference"
    assert usd(book.rates("deepseek/DeepSeek-R1", base_url=here), **MILLION) == Decimal("6.75")
    assert usd(book.rates("xai/grok-3", base_url=here), **MILLION) == 18
    nano = book.rates("openai/gpt-4.1-nano", base_url=here)
    assert (nano.provider, usd(nano, **MILLION)) == ("github", Decimal("0.5"))
    with pytest.raises(UnknownModelError):
        book.rates("nobody/gpt-9", base_url=here)


def test_a_router_s_model_that_its_list_lacks_costs_what_its_maker_asks_and_a_free_one_nothing(
    book: PriceBook,
) -> None:
    rates = book.rates("openai/text-embedding-3-small", provider="openrouter")
    assert (rates.provider, usd(rates, input_tokens=1_000_000)) == ("openrouter", Decimal("0.02"))
    assert rates.cost_of(Reported(Usage.of(input_tokens=5), billed=123)) == 123
    assert book.rates("nobody/knows-me:free", provider="openrouter").is_free
    for model in ("openrouter/auto", "nobody/knows-me"):
        with pytest.raises(UnknownModelError):
            book.rates(model, provider="openrouter")


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
    row = ExtraPrice(None, {"web_searches_kcount": Decimal(99), "input_mtok": Decimal(99)}, date(2026, 1, 1))
    monkeypatch.setattr(extra_prices, "EXTRA_PRICES", (row,))
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


def test_a_misspelled_name_of_a_common_price_comes_with_the_right_one(book: PriceBook) -> None:
    with pytest.raises(ConfigurationError, match="outptu is not a priced unit; did you mean output"):
        book.register("gpt-4o", outptu=3)


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
