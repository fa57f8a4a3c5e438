"""Bill images as tokens: by size and detail where the request shows them, by a bound where it does not."""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from dataclasses import dataclass
from typing import Any

from budgetguard.tokens.models import is_counted_exactly
from budgetguard.tokens.pictures import other_image_tokens

# Base64 characters of an image that are read for its size: nearly always the first kilobytes tell, but a
# JPEG's size can stand behind an embedded thumbnail.
_HEADERS = (4_096, 262_144)
_MAX_SIDE = 1 << 20
# By URL the size is unknown: a high-detail image is at most 8 tiles of 512 pixels (2 x 4), which is
# what remains after scaling into 2048 x 2048 with the shortest side at 768.
_MAX_TILES = 8
_MAX_PATCHES = 1_536
_MAX_PATCHES_NEWER = 2_500
_MAX_PATCHES_ORIGINAL = 10_000
_LOW_SIDE = 512

_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]+(?:;[a-z0-9=.+-]+)*;base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Pricing:
    """How a model bills images: a base and so much a tile, or so much a patch.

    Patches have a bound at detail `high`, and one at `auto`. Models whose bound is the newer one are shown
    an image of detail `low` in a square of 512 pixels; the others may not heed it.
    """

    base: int = 85
    tile: int = 170
    patch_factor: float | None = None
    high: int = _MAX_PATCHES
    auto: int = _MAX_PATCHES


# The first pattern that matches the model's name counts. Tokens per image and per tile, or per patch of
# 32 x 32 pixels, as real requests were billed, and where there were none as OpenAI documents them:
# https://developers.openai.com/api/docs/guides/images-vision, as of gpt-5.4. It gives gpt-5.2 to gpt-5.4 no
# factor; 1.2 is what the models around them were billed. From gpt-5.5 on `auto` is the original size.
_PRICING = (
    (re.compile(r"gpt-4o-mini"), _Pricing(2_833, 5_667)),
    (re.compile(r"gpt-4\.1-nano"), _Pricing(patch_factor=2.46)),
    (re.compile(r"gpt-4\.1-mini"), _Pricing(patch_factor=1.62)),
    (re.compile(r"o4-mini"), _Pricing(patch_factor=1.72)),
    (
        re.compile(r"gpt-(5\.[5-9]|[6-9]).*nano"),
        _Pricing(0, 0, 1.5, _MAX_PATCHES_NEWER, _MAX_PATCHES_ORIGINAL),
    ),
    (re.compile(r"gpt-(5\.[5-9]|[6-9])"), _Pricing(0, 0, 1.2, _MAX_PATCHES_NEWER, _MAX_PATCHES_ORIGINAL)),
    (re.compile(r"gpt-5\.4.*nano"), _Pricing(0, 0, 1.5, _MAX_PATCHES_NEWER, _MAX_PATCHES_NEWER)),
    (re.compile(r"gpt-5\.4"), _Pricing(0, 0, 1.2, _MAX_PATCHES_NEWER, _MAX_PATCHES_NEWER)),
    (re.compile(r"gpt-5.*-nano"), _Pricing(patch_factor=1.5)),
    (re.compile(r"gpt-5.*-mini|gpt-5\.[23]"), _Pricing(patch_factor=1.2)),
    (re.compile(r"gpt-5"), _Pricing(70, 140)),
    (re.compile(r"o1|o3"), _Pricing(75, 150)),
    (re.compile(r"computer-use"), _Pricing(65, 129)),
    (re.compile(r""), _Pricing()),
)


def image_tokens(url: Any, detail: Any, model: str, size: tuple[int, int] | None = None) -> int:
    """Return what an image in a message is billed as, in tokens.

    Args:
        url: the image's URL or data URL.
        detail: `low`, `high`, `auto`, `original` or None, as the request asks.
        model: the model's name, without a provider prefix.
        size: (width, height) in pixels, where it is known; else it is read from a data URL.
    """
    if size is None and isinstance(url, str):
        size = _size_of_data_url(url)
    if not is_counted_exactly(model):
        return other_image_tokens(model, size)
    pricing = next(pricing for pattern, pricing in _PRICING if pattern.match(model))
    if detail == "original":
        return math.ceil(_patches(size, _MAX_PATCHES_ORIGINAL) * (pricing.patch_factor or 1.0))
    if pricing.patch_factor is not None:
        if detail == "low" and pricing.high == _MAX_PATCHES_NEWER:
            return math.ceil(_patches(_fitted(size)) * pricing.patch_factor)
        most = pricing.high if detail == "high" else pricing.auto
        return math.ceil(_patches(size, most) * pricing.patch_factor)
    if detail == "low":
        return pricing.base
    return pricing.base + pricing.tile * _tiles(size)


def _tiles(size: tuple[int, int] | None) -> int:
    if size is None:
        return _MAX_TILES
    width, height = size
    fit = min(1.0, 2_048 / max(width, height))
    width, height = max(1, round(width * fit)), max(1, round(height * fit))
    shrink = min(1.0, 768 / min(width, height))
    return min(_MAX_TILES, math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512))


def _fitted(size: tuple[int, int] | None) -> tuple[int, int]:
    width, height = size or (_LOW_SIDE, _LOW_SIDE)
    fit = min(1.0, _LOW_SIDE / max(width, height))
    return math.ceil(width * fit), math.ceil(height * fit)


def _patches(size: tuple[int, int] | None, most: int = _MAX_PATCHES) -> int:
    if size is None:
        return most
    return min(most, math.ceil(size[0] / 32) * math.ceil(size[1] / 32))


def _size_of_data_url(url: str) -> tuple[int, int] | None:
    head = _DATA_URL.match(url[:256])
    if head is None:
        return None
    for length in _HEADERS:
        text = url[head.end() : head.end() + length]
        try:
            size = image_size(base64.b64decode(text[: len(text) // 4 * 4]))
        except (binascii.Error, ValueError):
            return None
        if size is not None:
            return size
    return None


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) in pixels from the header of a PNG, GIF, WebP or JPEG.

    None for anything else and for sizes that no image has, so that a forged header is never believed.
    """
    try:
        size = _png(data) or _gif(data) or _webp(data) or _jpeg(data)
    except (struct.error, IndexError):
        return None
    return _believable(size)


def _believable(size: tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None or not (0 < size[0] <= _MAX_SIDE and 0 < size[1] <= _MAX_SIDE):
        return None
    return size


def _png(data: bytes) -> tuple[int, int] | None:
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _gif(data: bytes) -> tuple[int, int] | None:
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        return None
    width, height = struct.unpack("<HH", data[6:10])
    return width, height


def _webp(data: bytes) -> tuple[int, int] | None:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack("<HH", data[26:30])
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack("<I", data[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        at += 2 + max(2, length)
    return None
