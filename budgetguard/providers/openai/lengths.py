"""How long a recording lasts, from its file, and how many tokens a second of sound has.

WAV is read here. Other formats are read by tinytag if it is installed (the extra `audio`); without it, and
where a file does not tell, the length is bounded by the size.
"""

from __future__ import annotations

import io
import math
import os
import struct
from importlib import import_module
from typing import BinaryIO, Final

from budgetguard.events import logger

# Bytes a second: speech at 6 kbit/s, the least that Opus is used at, and 192 kHz stereo in 24 bits.
LEAST_BYTE_RATE: Final = 750
MOST_BYTE_RATE: Final = 1_152_000
# Tokens a second of what a model hears, and of what it speaks, as OpenAI documents them
# (https://developers.openai.com/api/docs/guides/realtime-costs): one for 100 ms, and one for 50 ms.
HEARD_A_SECOND: Final = 10
SPOKEN_A_SECOND: Final = 20
_UNKNOWN_SIZE: Final = 0xFFFFFFFF
_MOST_CHUNKS: Final = 64


class Beginning(io.BytesIO):
    """A file of which only the beginning is there; its end is where the whole file's is.

    Args:
        head: the beginning.
        size: bytes of the whole file.
    """

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__(head)
        self._size = size

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_END:
            return super().seek(max(0, self._size + offset))
        return super().seek(offset, whence)


def recording_seconds(file: BinaryIO, size: int, name: str = "") -> float | None:
    """Return how long a recording lasts as its file says it, in seconds; None if it does not say.

    A length that would need more bytes than there are is not believed.

    Args:
        file: open for reading; left anywhere.
        size: bytes.
        name: the file's name, whose ending helps to tell its format.
    """
    claimed = _wav_seconds(file, size)
    if claimed is None:
        claimed = _tinytag_seconds(file, name)
    if claimed is None or not math.isfinite(claimed) or claimed <= 0 or claimed < size / MOST_BYTE_RATE:
        return None
    # Quotients that are whole but for the last bit are whole.
    return round(claimed, 6)


def most_seconds(file: BinaryIO, size: int, name: str = "") -> int:
    """Return the seconds that a recording lasts at most, rounded up: what it says, else what it can hold."""
    seconds = recording_seconds(file, size, name)
    return math.ceil(size / LEAST_BYTE_RATE if seconds is None else seconds)


def _wav_seconds(file: BinaryIO, size: int) -> float | None:
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        return None
    byte_rate = 0
    at = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        kind, length = struct.unpack("<4sI", chunk)
        if kind == b"fmt ":
            fields = file.read(16)
            if len(fields) < 16:
                return None
            (byte_rate,) = struct.unpack_from("<I", fields, 8)
        elif kind == b"data":
            left = size - at - 8
            # A header that was written before the sound says 0 or the most that it can.
            data = left if length in (0, _UNKNOWN_SIZE) else min(length, left)
            return data / byte_rate if byte_rate else None
        at += 8 + length + length % 2
    return None


def _tinytag_seconds(file: BinaryIO, name: str) -> float | None:
    try:
        tinytag = import_module("tinytag")
    except ImportError:
        return None
    file.seek(0, os.SEEK_SET)
    try:
        found = tinytag.TinyTag.get(filename=name or None, file_obj=file, tags=False).duration
    except (tinytag.TinyTagException, OSError, ValueError):
        logger.debug("budgetguard: tinytag cannot read the length of a recording", exc_info=True)
        return None
    return float(found) if isinstance(found, int | float) else None
