"""The content encodings of answers: undone to be read, and done again for what is handed on."""

from __future__ import annotations

import zlib
from typing import Any, Final, Protocol

_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": zlib.MAX_WBITS}


class Coding(Protocol):
    """A content encoding: undone, and done again for what is handed on."""

    def decode(self, data: bytes) -> bytes:
        """Return bytes as they were before."""

    def encode(self, plain: bytes) -> bytes:
        """Return bytes as they are to be handed on."""

    def finish(self) -> bytes:
        """Return what ends them."""


class Undone:
    """A content encoding that is undone for good.

    Args:
        decoder: httpx's or httpx2's, for any encoding that it knows.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def decode(self, data: bytes) -> bytes:
        plain = self._decoder.decode(data)
        return plain if isinstance(plain, bytes) else b"".join(plain)

    def encode(self, plain: bytes) -> bytes:
        return plain

    def finish(self) -> bytes:
        return b""


def knows_coding(encoding: str) -> bool:
    """Whether an encoding, by its name, can be undone and done again."""
    return encoding.strip().lower() in ("", "identity", *_WINDOW_BITS)


def coding_named(encoding: str | Coding) -> Coding | None:
    """Return an encoding by its name, None for none; one that was found before as it is."""
    return ZlibCoding.named(encoding) if isinstance(encoding, str) else encoding


class ZlibCoding:
    """The content encodings gzip and deflate."""

    def __init__(self, window_bits: int) -> None:
        self._begun = False
        self._set(window_bits)

    def _set(self, window_bits: int) -> None:
        self._window_bits = window_bits
        self._decoder = zlib.decompressobj(window_bits)
        self._encoder = zlib.compressobj(wbits=window_bits)

    @classmethod
    def named(cls, encoding: str) -> ZlibCoding | None:
        bits = _WINDOW_BITS.get(encoding.strip().lower())
        return None if bits is None else cls(bits)

    def decode(self, data: bytes) -> bytes:
        try:
            plain = self._decoder.decompress(data)
        except zlib.error:
            if self._begun or self._window_bits != zlib.MAX_WBITS:
                raise
            # Some servers send `deflate` without the zlib header that the standard asks for.
            self._set(-zlib.MAX_WBITS)
            plain = self._decoder.decompress(data)
        self._begun = True
        return plain

    def encode(self, plain: bytes) -> bytes:
        # Flushed, so that an event which is here is not held back until the next one.
        return self._encoder.compress(plain) + self._encoder.flush(zlib.Z_SYNC_FLUSH) if plain else b""

    def finish(self) -> bytes:
        return self._encoder.flush()
