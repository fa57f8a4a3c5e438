"""Tokens of pictures, sound, films and documents in a request to Gemini, from above.

Google documents them at https://ai.google.dev/gemini-api/docs/tokens and .../media-resolution: 258 tokens for
an image of up to 384 pixels a side, and for each tile of a larger one; 32 tokens a second of sound; 258 a
frame and second of film; 258 a page of a document; from Gemini 3 on a number by `mediaResolution`. Recorded
requests agree but for sound (25 a second, on Gemini 2.5 alone 32) and Gemini 2.5's images (larger tiles).
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from budgetguard.providers.json import count, field
from budgetguard.providers.openai.lengths import LEAST_BYTE_RATE, Beginning, recording_seconds
from budgetguard.providers.shapes import either
from budgetguard.tokens.documents import MAX_BYTES, read_pdf
from budgetguard.tokens.images import image_size
from budgetguard.tokens.models import bare_name
from budgetguard.tokens.text import count_text, encoding_for

# Base64 that is looked into for what a picture or a recording says of itself.
_HEAD: Final = 1 << 18
_TILE: Final = 258
_SMALL: Final = 384
_TILE_SIDE: Final = 768
# No picture that was recorded had more; larger ones are scaled down.
_MOST_TILES: Final = 16
# Gemini 3 and later, by resolution: images, frames of films, pages of documents. Left open, they are billed
# as high, low and medium.
_LATER: Final[Mapping[str, tuple[int, int, int]]] = {
    "LOW": (280, 70, 280),
    "MEDIUM": (560, 70, 560),
    "HIGH": (1_120, 280, 1_120),
    "ULTRA_HIGH": (2_240, 280, 1_120),
}
_LATER_UNSAID: Final = (1_120, 70, 560)
# Before, only low is another number: 64 for an image and a frame.
_LOW: Final = 64
# A page of a document; at Vertex it is in tiles, sometimes.
_PAGE: Final = 258
_PAGE_IN_TILES: Final = 1_290
# The least that a film in common use has of bytes a second, sound included.
_LEAST_FILM_RATE: Final = 20_000
_BYTES_A_TOKEN: Final = 2
_BYTES_A_PAGE: Final = 2_000
# A file of which nothing is known but what it is, such as a page of the web or a film of YouTube's.
_UNSEEN: Final = 20_000
_UNSEEN_SECONDS: Final = 300

_THIRD: Final = re.compile(r"gemini-(?:[3-9]|\d\d|flash-latest|pro-latest|flash-lite-latest)|gemini-.*omni")
_SECOND_AND_A_HALF: Final = re.compile(r"gemini-2\.5")


@dataclass(frozen=True, slots=True)
class Medium:
    """What a picture, a recording, a film or a document is billed as.

    Attributes:
        kind: `images`, `audio`, `video`, `documents`, or `text` of a text in a file.
        tokens: all of it, from above.
        heard: those of its sound, which may cost more.
        seen: whether its content was there to be looked at.
    """

    kind: str
    tokens: int
    heard: int = 0
    seen: bool = True


def inline_medium(
    mime: object, data: object, model: str, resolution: str | None, film: object, *, vertex: bool = False
) -> Medium:
    """Return what a file inside a request is billed as.

    Args:
        mime: its type.
        data: its content in base64, or bytes.
        model: the model's name.
        resolution: `LOW`, `MEDIUM`, `HIGH`, `ULTRA_HIGH`, or None.
        film: `videoMetadata`.
        vertex: whether it goes to Vertex.
    """
    kind = _kind(mime)
    head = _content(data, _HEAD)
    size = _size(data)
    if kind == "images":
        return Medium(kind, _image(head, model, resolution))
    if kind == "audio":
        seconds = recording_seconds(Beginning(head, size), size)
        heard = _heard(size / LEAST_BYTE_RATE if seconds is None else seconds, model)
        return Medium(kind, heard, heard)
    if kind == "video":
        return _film(_content(data, None), size, model, resolution, film)
    if kind == "documents":
        return Medium(kind, _document(_content(data, None), size, _page(model, resolution, vertex)))
    words = _content(data, None).decode(errors="replace")
    # What it is called stands before it.
    return Medium("text", count_text(words, encoding_for(model)) + 4)


def named_medium(
    mime: object,
    model: str,
    resolution: str | None,
    film: object,
    *,
    size: int | None = None,
    seconds: float | None = None,
    vertex: bool = False,
) -> Medium:
    """Return what a file is billed as that a request only names.

    Args:
        mime: its type.
        model: the model's name.
        resolution: as `inline_medium` has it.
        film: `videoMetadata`.
        size: bytes, if that is known.
        seconds: how long it lasts, if that is known.
        vertex: whether it goes to Vertex.
    """
    kind = _kind(mime)
    known = size is not None or seconds is not None
    if kind == "images":
        return Medium(kind, _image(b"", model, resolution), seen=known)
    if kind == "audio":
        if seconds is None:
            seconds = _UNSEEN_SECONDS if size is None else size / LEAST_BYTE_RATE
        heard = _heard(seconds, model)
        return Medium(kind, heard, heard, seen=known)
    if kind == "video":
        if seconds is None:
            seconds = _UNSEEN_SECONDS if size is None else size / _LEAST_FILM_RATE
        frames = _frames(seconds, model, resolution, film)
        heard = _heard(_clipped(seconds, film), model)
        return Medium(kind, frames + heard, heard, seen=known)
    if size is None:
        return Medium(kind, _UNSEEN, seen=False)
    if kind == "documents":
        return Medium(kind, -(-size // _BYTES_A_PAGE) * _page(model, resolution, vertex))
    return Medium("text", size // _BYTES_A_TOKEN + 1)


def resolution_of(part: object, config: object) -> str | None:
    """Return the resolution that a part asks for, or else the request: `HIGH` of `MEDIA_RESOLUTION_HIGH`."""
    for holder in (part, config):
        asked = either(holder, "mediaResolution")
        level = asked if isinstance(asked, str) else field(asked, "level")
        if isinstance(level, str):
            found = level.upper().removeprefix("MEDIA_RESOLUTION_")
            return found if found in _LATER else None
    return None


def is_third(model: str) -> bool:
    """Whether a model is of Gemini 3 or later."""
    return _THIRD.match(bare_name(model)) is not None


def _kind(mime: object) -> str:
    named = str(mime or "").lower()
    if named.startswith("image/"):
        return "images"
    if named.startswith("audio/"):
        return "audio"
    if named.startswith("video/"):
        return "video"
    return "text" if named.startswith("text/") or named.endswith(("json", "xml")) else "documents"


def _size(data: object) -> int:
    if isinstance(data, str):
        return len(data) * 3 // 4
    return len(data) if isinstance(data, bytes | bytearray) else 0


def _content(data: object, most: int | None) -> bytes:
    if isinstance(data, bytes | bytearray):
        return bytes(data[:most])
    if not isinstance(data, str):
        return b""
    data = data if most is None else data[:most]
    data = data[: len(data) // 4 * 4] if most is not None else data + "=" * (-len(data) % 4)
    try:
        return base64.b64decode(data, altchars=b"-_" if "-" in data or "_" in data else None)
    except (binascii.Error, ValueError):
        return b""


def _image(head: bytes, model: str, resolution: str | None) -> int:
    name = bare_name(model)
    if is_third(model):
        return _LATER[resolution][0] if resolution else _LATER_UNSAID[0]
    if resolution == "LOW":
        return _LOW
    size = image_size(head) if head else None
    if size is None:
        return _MOST_TILES * _TILE
    if max(size) <= _SMALL:
        return _TILE
    side = _TILE_SIDE if _SECOND_AND_A_HALF.match(name) else max(256, min(_TILE_SIDE, int(min(size) / 1.5)))
    tiles = math.ceil(size[0] / side) * math.ceil(size[1] / side)
    # The whole picture is shown beside its tiles.
    return min(_MOST_TILES, tiles + 1 if tiles > 1 else 1) * _TILE


def _heard(seconds: float, model: str) -> int:
    rate = 32 if _SECOND_AND_A_HALF.match(bare_name(model)) else 25
    return math.ceil(math.ceil(seconds) * rate)


def _film(data: bytes, size: int, model: str, resolution: str | None, film: object) -> Medium:
    seconds = film_seconds(data)
    if seconds is None:
        seconds = size / _LEAST_FILM_RATE
    heard = _heard(_clipped(seconds, film), model)
    return Medium("video", _frames(seconds, model, resolution, film) + heard, heard)


def _frames(seconds: float, model: str, resolution: str | None, film: object) -> int:
    each = _LATER[resolution][1] if resolution else _LATER_UNSAID[1]
    if not is_third(model):
        each = _LOW if resolution == "LOW" else _TILE
    rate = field(film, "fps")
    a_second = float(rate) if isinstance(rate, int | float) and 0 < rate <= 60 else 1.0
    # Between two frames something is said of when they are: 2 or 3 tokens.
    return math.ceil(_clipped(seconds, film) * a_second + 1) * (each + 3)


def _clipped(seconds: float, film: object) -> float:
    start, end = _offset(either(film, "startOffset")), _offset(either(film, "endOffset"))
    last = seconds if end is None else min(seconds, end)
    return max(0.0, last - (start or 0.0))


def _offset(value: object) -> float | None:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)s", value) if isinstance(value, str) else None
    return float(found[1]) if found else None


def _page(model: str, resolution: str | None, vertex: bool) -> int:
    if is_third(model):
        return _LATER[resolution][2] if resolution else _LATER_UNSAID[2]
    return _PAGE_IN_TILES if vertex else _PAGE


def _document(data: bytes, size: int, page: int) -> int:
    read = read_pdf(data) if size <= MAX_BYTES else None
    pages = -(-size // _BYTES_A_PAGE) if read is None else read.pages
    return max(1, pages) * page


def film_seconds(data: bytes) -> float | None:
    """Return how long a film lasts, of one in MP4 or QuickTime; None of others."""
    file = io.BytesIO(data)
    movie = _box(file, 0, len(data), b"moov")
    header = None if movie is None else _box(file, *movie, b"mvhd")
    if header is None:
        return None
    file.seek(header[0])
    content = file.read(32)
    form = ">xxxxIIII" if content[:1] == b"\0" else ">xxxxQQIQ"
    if len(content) < struct.calcsize(form):
        return None
    *_, scale, length = struct.unpack_from(form, content)
    return length / scale if scale else None


def _box(file: io.BytesIO, at: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    """Return where a box's content begins and ends."""
    while at + 8 <= end:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            long = file.read(8)
            if len(long) < 8:
                return None
            (size,) = struct.unpack(">Q", long)
            head = 16
        size = end - at if size == 0 else size
        if size < head:
            return None
        if kind == wanted:
            return at + head, min(end, at + size)
        at += size
    return None


def file_size(answer: object) -> tuple[int | None, float | None]:
    """Return the bytes and the seconds that Google says of an uploaded file."""
    size = count(either(answer, "sizeBytes"))
    return size, _offset(either(either(answer, "videoMetadata"), "videoDuration"))
