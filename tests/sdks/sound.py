"""A recording of silence."""

from __future__ import annotations

import io
import wave

SECONDS = 3


def recording() -> bytes:
    """Return a recording of so many seconds."""
    written = io.BytesIO()
    with wave.open(written, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(b"\0\0" * 8_000 * SECONDS)
    return written.getvalue()
