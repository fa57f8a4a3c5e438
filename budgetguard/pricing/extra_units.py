"""Units that genai-prices lacks: images, seconds of video, containers, hosted tools, storage in caches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


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
_DATED: Final = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
_COUNTED: Final = (
    ExtraUnit("web_search_previews", "web_search_previews_kcount", 1_000, {"family": "web_search_previews"}),
    # Read by xAI's live search; found by OpenRouter's web plugin.
    ExtraUnit("search_sources", "search_sources_kcount", 1_000, {"family": "search_sources"}),
    ExtraUnit("search_results", "search_results_kcount", 1_000, {"family": "search_results"}),
    # Tokens that a cache keeps, by the hour.
    ExtraUnit("cache_token_hours", "cache_mtok_hours", 1_000_000, {"family": "cache_token_hours"}),
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
    "cache_mtok_hours",
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
    bare = _DATED.sub("", model.lower())
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
