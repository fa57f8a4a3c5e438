"""Pictures whose header is right, which is all that anybody here looks at."""

from __future__ import annotations

import struct


def png(width: int, height: int) -> bytes:
    """Return the beginning of a PNG of that size, and bytes that are no text."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height) + bytes(range(192, 256))
