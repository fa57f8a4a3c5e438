"""Extra prices of Google's models, which genai-prices lacks: images, videos, storage in caches, maps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final, TypeAlias

Row: TypeAlias = tuple[str | None, Mapping[str, str], date, str, bool]
"""Models (as `ExtraPrice` has them), USD by price key, date, source, whether it is a tool's fee."""

_PAGE: Final = "https://ai.google.dev/gemini-api/docs/pricing"
_VERTEX: Final = "https://cloud.google.com/vertex-ai/generative-ai/pricing"
_AUTUMN: Final = date(2025, 10, 31)
_OCTOBER: Final = date(2026, 10, 19)
_720: Final = "video_seconds_720x1280"
_1080: Final = "video_seconds_1080x1920"
_4K: Final = "video_seconds_2160x3840"

GOOGLE_PRICES: Final[tuple[Row, ...]] = (
    # An image. Those of Imagen 3 cost 0.03 at the Developer API, and 0.04 at Vertex.
    (r"imagen-4\.0-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?", {"images": "0.04"}, _AUTUMN, _PAGE, False),
    (
        r"imagen-4\.0-fast-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?",
        {"images": "0.02"},
        _AUTUMN,
        _PAGE,
        False,
    ),
    (
        r"imagen-4\.0-ultra-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?",
        {"images": "0.06"},
        _AUTUMN,
        _PAGE,
        False,
    ),
    (r"imagen-3\.0-generate-00[12]", {"images": "0.04"}, _AUTUMN, _VERTEX, False),
    (r"imagen-3\.0-fast-generate-001", {"images": "0.02"}, _AUTUMN, _VERTEX, False),
    (r"virtual-try-on(?:-preview)?(?:-\d\d-\d\d|-001)?", {"images": "0.06"}, _OCTOBER, _VERTEX, False),
    # A second of video, sound included; the figures of Vertex where they are the higher.
    (
        r"veo-3\.1-generate-(?:preview|001)",
        {_720: "0.40", _1080: "0.40", _4K: "0.60"},
        _OCTOBER,
        _PAGE,
        False,
    ),
    (
        r"veo-3\.1-fast-generate-(?:preview|001)",
        {_720: "0.10", _1080: "0.12", _4K: "0.30"},
        _OCTOBER,
        _PAGE,
        False,
    ),
    (r"veo-3\.1-lite-generate-(?:preview|001)", {_720: "0.05", _1080: "0.08"}, _OCTOBER, _PAGE, False),
    (r"veo-3\.0-generate-(?:preview|001)", {_720: "0.40", _1080: "0.40"}, _OCTOBER, _VERTEX, False),
    (r"veo-3\.0-fast-generate-(?:preview|001)", {_720: "0.10", _1080: "0.12"}, _OCTOBER, _VERTEX, False),
    (r"veo-2\.0-generate-001", {_720: "0.50"}, _OCTOBER, _VERTEX, False),
    # Texts that Vertex embeds, by characters.
    (
        r"text-embedding-00[45]|text-multilingual-embedding-002",
        {"input_mchars": "0.025"},
        _OCTOBER,
        _VERTEX,
        False,
    ),
    # A million tokens that are kept for an hour; for Gemini 3.6 to 3.8 Flash half until the end of 2026.
    (
        r"gemini-2\.5-pro.*|gemini-3(?:\.1)?-pro(?!-image).*|gemini-pro-latest",
        {"cache_mtok_hours": "4.50"},
        _OCTOBER,
        _PAGE,
        True,
    ),
    (
        r"gemini-2\.[05]-flash.*|gemini-3(?:\.[1-9])?-flash.*|gemini-flash(?:-lite)?-latest",
        {"cache_mtok_hours": "1.00"},
        _OCTOBER,
        _PAGE,
        True,
    ),
    # An answer that Google Maps was searched for; from Gemini 3 on, a search.
    (r"gemini-2\..*", {"tool_uses_google_maps": "0.025"}, _OCTOBER, _PAGE, True),
    (r"gemini-(?!1|2\.).*", {"tool_uses_google_maps": "0.014"}, _OCTOBER, _PAGE, True),
)
