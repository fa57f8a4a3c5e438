"""Extra prices and units, which genai-prices lacks: a small dated table with the source of each row.

Every figure is from a public page of the provider, for OpenAI its price page, read in dated copies. What is
on no page is not here and is refused: a price is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

PRICE_PAGE: Final = "https://developers.openai.com/api/docs/pricing"


@dataclass(frozen=True, slots=True)
class ExtraUnit:
    """A priced unit, with the attributes that units of genai-prices have.

    Attributes:
        usage_key: its name in a `Usage`.
        price_key: its name in a price.
        per: how many of it a price is for.
        dimensions: its properties; a unit whose dimensions include those of another is a part of it.
    """

    usage_key: str
    price_key: str
    per: int
    dimensions: Mapping[str, str]


# genai-prices has: `web_searches` (calls of the web search tool), `storage_searches` (of file search),
# `input_characters` (read aloud), `input_audio_seconds` (transcribed).
_COUNTED: Final = (
    ExtraUnit("web_search_previews", "web_search_previews_kcount", 1_000, {"family": "web_search_previews"}),
    # Read by xAI's live search; found by OpenRouter's web plugin.
    ExtraUnit("search_sources", "search_sources_kcount", 1_000, {"family": "search_sources"}),
    ExtraUnit("search_results", "search_results_kcount", 1_000, {"family": "search_results"}),
)
# What the image generation tool draws, by image model, in letters that a keyword argument may have.
_DRAWN: Final = re.compile(r"drawn_tokens(?:_(?P<by>[a-z0-9_]+))?")
_DRAWN_PRICE: Final = "drawn_mtok"
# `images`, `images_<quality>_<width>x<height>`; `video_seconds`, `video_seconds_<width>x<height>` with the
# short side first; `container_sessions`, `container_sessions_<memory>` of 20 minutes each; `tool_uses`,
# `tool_uses_<tool>` of tools that run at the provider.
_GRADED: Final = re.compile(
    r"(?P<family>images)(?:_(?P<quality>[a-z]+))?(?:_(?P<size>\d{1,5}x\d{1,5}))?"
    r"|(?P<video>video_seconds)(?:_(?P<resolution>\d{1,5}x\d{1,5}))?"
    r"|(?P<container>container_sessions)(?:_(?P<memory>\d{1,4}g))?"
    r"|(?P<tool>tool_uses)(?:_(?P<kind>[a-z0-9_]+))?"
)

# Price keys to suggest for a misspelled one.
EXTRA_PRICE_KEYS: Final = (
    "images",
    "video_seconds",
    "container_sessions",
    "tool_uses",
    "web_search_previews_kcount",
    "search_sources_kcount",
    "search_results_kcount",
    _DRAWN_PRICE,
)


def extra_unit(name: str) -> ExtraUnit | None:
    """Return the extra unit with this name, or None. Prices of graded units are for one of them."""
    for unit in _COUNTED:
        if unit.usage_key == name:
            return unit
    if (drawn := _DRAWN.fullmatch(name)) is not None:
        by = {key: value for key, value in drawn.groupdict().items() if value is not None}
        price_key = _DRAWN_PRICE + name.removeprefix("drawn_tokens")
        return ExtraUnit(name, price_key, 1_000_000, {"family": "drawn_tokens", **by})
    found = _GRADED.fullmatch(name)
    if found is None:
        return None
    grades = {key: value for key, value in found.groupdict().items() if value is not None}
    family = next(grades.pop(key) for key in ("family", "video", "container", "tool") if key in grades)
    return ExtraUnit(name, name, 1, {"family": family, **grades})


def extra_unit_of_price_key(key: str) -> ExtraUnit | None:
    """Return the extra unit that a price key is for, or None."""
    for unit in _COUNTED:
        if unit.price_key == key:
            return unit
    if key.startswith(_DRAWN_PRICE):
        return extra_unit("drawn_tokens" + key.removeprefix(_DRAWN_PRICE))
    found = extra_unit(key)
    return found if found is not None and found.price_key == key else None


def drawn_unit(model: str) -> str:
    """Return the unit of the output tokens that the image generation tool draws with an image model."""
    bare = _DATE.sub("", model.lower())
    return "drawn_tokens_" + re.sub(r"[^a-z0-9]+", "_", bare).strip("_")


def less_graded(unit: ExtraUnit) -> tuple[str, ...]:
    """Return the units whose price counts if this one has none, the nearest first.

    For an image that is its size in any quality, then any image.
    """
    family = unit.dimensions["family"]
    if unit.usage_key == family or unit in _COUNTED:
        return ()
    size = unit.dimensions.get("size")
    if size is not None and "quality" in unit.dimensions:
        return f"{family}_{size}", family
    return (family,)


@dataclass(frozen=True, slots=True)
class ExtraPrice:
    """A row of the table: the prices of units of some models.

    Attributes:
        models: a regular expression for models' names in lower case without a date; None for every model that
            has a price.
        prices: USD by price key.
        taken: the date of the copy of the page, or the earliest that it can have.
        source: where it was read.
        provider: genai-prices' provider id.
        tool: whether these are fees of a hosted tool, which do not make a model priced.
    """

    models: str | None
    prices: Mapping[str, Decimal]
    taken: date
    source: str = PRICE_PAGE
    provider: str = "openai"
    tool: bool = False


def _usd(**prices: str) -> Mapping[str, Decimal]:
    return {key: Decimal(price) for key, price in prices.items()}


_FEBRUARY: Final = date(2026, 2, 7)
_SEPTEMBER: Final = date(2026, 9, 8)
_NOT_REASONING: Final = r"gpt-4(?:o|\.1|-turbo|\.5)?(?:-(?:mini|nano|preview))*|gpt-3\.5-turbo|chatgpt-4o"

EXTRA_PRICES: Final = (
    # Per image. OpenAI shut these down on 2026-05-12; other addresses still serve models of these names.
    ExtraPrice(
        "dall-e-2",
        _usd(
            images_standard_256x256="0.016",
            images_standard_512x512="0.018",
            images_standard_1024x1024="0.02",
        ),
        _FEBRUARY,
    ),
    ExtraPrice(
        "dall-e-3",
        _usd(
            images_standard_1024x1024="0.04",
            images_standard_1024x1792="0.08",
            images_standard_1792x1024="0.08",
            images_hd_1024x1024="0.08",
            images_hd_1024x1792="0.12",
            images_hd_1792x1024="0.12",
        ),
        _FEBRUARY,
    ),
    # genai-prices lists this price as their output price, but answers report image tokens separately.
    ExtraPrice("gpt-image-1", _usd(output_image_mtok="40"), _FEBRUARY),
    ExtraPrice("gpt-image-1-mini", _usd(output_image_mtok="8"), _FEBRUARY),
    ExtraPrice(r"gpt-image-2|gpt-image-2\.5-(?:sunburst|flare)", _usd(output_image_mtok="30"), _SEPTEMBER),
    # The same for speech, which is the only output of this model.
    ExtraPrice("gpt-4o-mini-tts", _usd(output_audio_mtok="12"), _FEBRUARY),
    # Per second of video. Shut down on 2026-09-24.
    ExtraPrice("sora-2", _usd(video_seconds_720x1280="0.10"), _FEBRUARY),
    ExtraPrice("sora-2-pro", _usd(video_seconds_720x1280="0.30", video_seconds_1024x1792="0.50"), _FEBRUARY),
    ExtraPrice("sora-2-pro", _usd(video_seconds_1080x1920="0.70"), _SEPTEMBER),
    # Per call of a hosted tool, besides the input tokens that it reads. This model uses the preview tool,
    # although its requests do not name it.
    ExtraPrice("gpt-4o-search-preview", _usd(web_searches_kcount="25"), _FEBRUARY, tool=True),
    ExtraPrice(_NOT_REASONING, _usd(web_search_previews_kcount="25"), _FEBRUARY, tool=True),
    ExtraPrice(r"o\d.*|gpt-[5-9].*", _usd(web_search_previews_kcount="10"), _FEBRUARY, tool=True),
    ExtraPrice(
        None,
        _usd(
            web_searches_kcount="10",
            storage_searches_kcount="2.50",
            container_sessions_1g="0.03",
            container_sessions_4g="0.12",
            container_sessions_16g="0.48",
            container_sessions_64g="1.92",
            drawn_mtok_gpt_image_1="40",
            drawn_mtok_gpt_image_1_mini="8",
            drawn_mtok_gpt_image_1_5="32",
            drawn_mtok_chatgpt_image_latest="32",
        ),
        _FEBRUARY,
        tool=True,
    ),
    ExtraPrice(
        None,
        _usd(
            drawn_mtok_gpt_image_2="30",
            drawn_mtok_gpt_image_2_5_sunburst="30",
            drawn_mtok_gpt_image_2_5_flare="30",
        ),
        _SEPTEMBER,
        tool=True,
    ),
    # Tools of other providers. A container for code execution costs $0.05 an hour. The least, 5 minutes, is
    # booked.
    ExtraPrice(
        None,
        _usd(container_sessions="0.0042"),
        date(2026, 2, 9),
        "https://platform.claude.com/docs/en/about-claude/pricing",
        provider="anthropic",
        tool=True,
    ),
    # Not listed by genai-prices: of limited availability, at the prices of the Fables of the same version.
    ExtraPrice(
        "claude-mythos-5",
        _usd(
            input_mtok="10",
            output_mtok="50",
            cache_write_mtok="12.5",
            cache_write_1h_mtok="20",
            cache_read_mtok="1",
            web_searches_kcount="10",
        ),
        date(2026, 9, 1),
        "https://platform.claude.com/docs/en/about-claude/pricing",
        provider="anthropic",
    ),
    ExtraPrice(
        "claude-mythos-5-1",
        _usd(
            input_mtok="10",
            output_mtok="50",
            cache_write_mtok="12.5",
            cache_write_1h_mtok="20",
            cache_read_mtok="0.25",
            web_searches_kcount="10",
        ),
        date(2026, 9, 1),
        "https://platform.claude.com/docs/en/about-claude/pricing",
        provider="anthropic",
    ),
    # The same in Microsoft Foundry. Searches on Google's Vertex: https://cloud.google.com/vertex-ai/generative-ai/
    # pricing, as LiteLLM's table has it.
    ExtraPrice(
        r"claude-.*",
        _usd(container_sessions="0.0042"),
        date(2026, 2, 9),
        "https://platform.claude.com/docs/en/about-claude/pricing",
        provider="azure",
        tool=True,
    ),
    ExtraPrice(
        r"claude-.*",
        _usd(web_searches_kcount="10"),
        date(2026, 11, 20),
        "https://cloud.google.com/vertex-ai/generative-ai/pricing",
        provider="google",
        tool=True,
    ),
    ExtraPrice(
        None,
        _usd(search_sources_kcount="25"),
        date(2025, 5, 22),
        "https://docs.x.ai/docs/guides/live-search",
        provider="x-ai",
        tool=True,
    ),
    ExtraPrice(
        None,
        _usd(
            web_searches_kcount="5",
            social_searches_kcount="5",
            code_executions_kcount="5",
            storage_searches_kcount="2.50",
        ),
        date(2026, 1, 12),
        "https://docs.x.ai/developers/pricing.md",
        provider="x-ai",
        tool=True,
    ),
    ExtraPrice(
        None,
        _usd(search_results_kcount="4"),
        date(2025, 12, 11),
        "https://openrouter.ai/docs/web-search",
        provider="openrouter",
        tool=True,
    ),
    ExtraPrice(
        None,
        _usd(input_document_kpages="2"),
        date(2025, 12, 11),
        "https://openrouter.ai/docs/features/multimodal/pdfs",
        provider="openrouter",
        tool=True,
    ),
)

# Half in a batch: https://platform.openai.com/docs/guides/batch ("50% cost discount compared to synchronous
# APIs"), and the models' own pages; all of Anthropic's models, by its page of prices. genai-prices lists the
# batch prices of other models.
_HALF_IN_BATCH: Final = re.compile(r"text-embedding-(?:3-small|3-large|ada-002)")

_DATE: Final = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")


def extra_prices(provider: str, names: Iterable[str]) -> tuple[dict[str, Decimal], bool]:
    """Return the extra prices of a model, and whether they make it priced: fees of hosted tools do not.

    Args:
        provider: genai-prices' provider id.
        names: the model's possible names, in lower case.
    """
    bare = {_DATE.sub("", name.removeprefix("ft:").partition(":")[0]) for name in names}
    found: dict[str, Decimal] = {}
    known = False
    for row in EXTRA_PRICES:
        if row.provider != provider:
            continue
        if row.models is None:
            found = {**row.prices, **found}
        elif any(re.fullmatch(row.models, name) for name in bare):
            found.update(row.prices)
            known = known or not row.tool
    return found, known


def is_half_in_batch(provider: str, names: Iterable[str]) -> bool:
    """Whether a model without listed batch prices costs half in a batch.

    Args:
        provider: genai-prices' id of the provider.
        names: the model's possible names, in lower case.
    """
    if provider == "anthropic":
        return True
    return provider == "openai" and any(_HALF_IN_BATCH.fullmatch(name) for name in names)
