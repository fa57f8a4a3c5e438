"""Extra prices of Google's models, which genai-prices lacks: images, videos, storage in caches, maps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Final

from budgetguard.pricing.extra_row import OCTOBER, ExtraPrice, usd

_PAGE: Final = "https://ai.google.dev/gemini-api/docs/pricing"
_VERTEX: Final = "https://cloud.google.com/vertex-ai/generative-ai/pricing"
_AUTUMN: Final = date(2025, 10, 31)
_RESOLUTIONS: Final = ("720x1280", "1080x1920", "2160x3840")


def _video(*prices: str) -> Mapping[str, Decimal]:
    """Return the prices of a second, in USD: at 720p, 1080p and 4K, as far as there are any."""
    priced = zip(_RESOLUTIONS, prices, strict=False)
    return {f"video_seconds_{size}": Decimal(price) for size, price in priced}


GOOGLE_PRICES: Final = (
    # An image. Those of Imagen 3 cost 0.03 at the Developer API, and 0.04 at Vertex.
    ExtraPrice(
        r"imagen-4\.0-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?",
        usd(images="0.04"),
        _AUTUMN,
        _PAGE,
        provider="google",
    ),
    ExtraPrice(
        r"imagen-4\.0-fast-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?",
        usd(images="0.02"),
        _AUTUMN,
        _PAGE,
        provider="google",
    ),
    ExtraPrice(
        r"imagen-4\.0-ultra-generate(?:-preview)?(?:-\d\d-\d\d)?(?:-001)?",
        usd(images="0.06"),
        _AUTUMN,
        _PAGE,
        provider="google",
    ),
    ExtraPrice(r"imagen-3\.0-generate-00[12]", usd(images="0.04"), _AUTUMN, _VERTEX, provider="google"),
    ExtraPrice(r"imagen-3\.0-fast-generate-001", usd(images="0.02"), _AUTUMN, _VERTEX, provider="google"),
    ExtraPrice(
        r"virtual-try-on(?:-preview)?(?:-\d\d-\d\d|-001)?",
        usd(images="0.06"),
        OCTOBER,
        _VERTEX,
        provider="google",
    ),
    # A second of video, sound included; the figures of Vertex where they are the higher.
    ExtraPrice(
        r"veo-3\.1-generate-(?:preview|001)",
        _video("0.40", "0.40", "0.60"),
        OCTOBER,
        _PAGE,
        provider="google",
    ),
    ExtraPrice(
        r"veo-3\.1-fast-generate-(?:preview|001)",
        _video("0.10", "0.12", "0.30"),
        OCTOBER,
        _PAGE,
        provider="google",
    ),
    ExtraPrice(
        r"veo-3\.1-lite-generate-(?:preview|001)", _video("0.05", "0.08"), OCTOBER, _PAGE, provider="google"
    ),
    ExtraPrice(
        r"veo-3\.0-generate-(?:preview|001)", _video("0.40", "0.40"), OCTOBER, _VERTEX, provider="google"
    ),
    ExtraPrice(
        r"veo-3\.0-fast-generate-(?:preview|001)", _video("0.10", "0.12"), OCTOBER, _VERTEX, provider="google"
    ),
    ExtraPrice(r"veo-2\.0-generate-001", _video("0.50"), OCTOBER, _VERTEX, provider="google"),
    # Texts that Vertex embeds, by characters.
    ExtraPrice(
        "text-embedding-00[45]|text-multilingual-embedding-002",
        usd(input_mchars="0.025"),
        OCTOBER,
        _VERTEX,
        provider="google",
    ),
    # A million tokens that are kept for an hour; for Gemini 3.6 to 3.8 Flash half until the end of 2026.
    ExtraPrice(
        r"gemini-2\.5-pro.*|gemini-3(?:\.1)?-pro(?!-image).*|gemini-pro-latest",
        usd(cache_mtok_hours="4.50"),
        OCTOBER,
        _PAGE,
        provider="google",
        tool=True,
    ),
    ExtraPrice(
        r"gemini-2\.[05]-flash.*|gemini-3(?:\.[1-9])?-flash.*|gemini-flash(?:-lite)?-latest",
        usd(cache_mtok_hours="1.00"),
        OCTOBER,
        _PAGE,
        provider="google",
        tool=True,
    ),
    # An answer that Google Maps was searched for; from Gemini 3 on, a search.
    ExtraPrice(
        r"gemini-2\..*", usd(tool_uses_google_maps="0.025"), OCTOBER, _PAGE, provider="google", tool=True
    ),
    ExtraPrice(
        r"gemini-(?!1|2\.).*",
        usd(tool_uses_google_maps="0.014"),
        OCTOBER,
        _PAGE,
        provider="google",
        tool=True,
    ),
)
