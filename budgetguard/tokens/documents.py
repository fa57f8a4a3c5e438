"""Bound what a PDF is billed as: its text, and an image of each page.

OpenAI puts both in front of the model: https://developers.openai.com/api/docs/guides/pdf-files. Text and
pages are found by scanning, not by understanding the file, within limits that no file can make it exceed;
what cannot be scanned is left to the caller.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# OpenAI takes files of up to 50 MB.
MAX_BYTES: Final = 50 * 1_024 * 1_024
# Bytes that streams may unfold to, in all: 16 MB of page contents is thousands of pages of text.
_MAX_UNFOLDED: Final = 16 * 1_024 * 1_024
_MAX_STREAMS: Final = 50_000
# Between a stream and the `obj` that opens it.
_MAX_DICTIONARY: Final = 4_096
# A page that is named twice is two pages, and naming one takes at least `1 0 R `.
_LEAST_REFERENCE: Final = 6

_HEADER: Final = b"%PDF-"
_PAGE: Final = re.compile(rb"/Type\s*/Page(?![A-Za-z0-9])")
_COUNT: Final = re.compile(rb"/Count\s+(\d{1,9})(?!\d)")
_STREAM: Final = re.compile(rb"stream\r?\n")
_NO_TEXT: Final = re.compile(
    rb"/Subtype\s*/(Image|Type1C|CIDFontType0C|OpenType|XML)|/Length[123]\b|/Type\s*/(XRef|Metadata)|/FunctionType"
)
_OBJECTS: Final = re.compile(rb"/Type\s*/ObjStm")
_FILTER: Final = re.compile(rb"/Filter\s*(\[[^\]]*\]|/[A-Za-z0-9]+)")
_SHOWS_TEXT: Final = re.compile(rb"\bT[jJ]\b|['\"]\s")
# Without their ends: where one is missing, the search would begin again at each of many beginnings.
_STRING: Final = re.compile(rb"\(((?:[^\\()]++|\\.)*+)|<([0-9A-Fa-f\s]++)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CountedDocument:
    """What a PDF holds.

    Attributes:
        pages: how many pages it has, at most.
        text: bytes of the text that it shows, in whatever encoding its fonts have.
    """

    pages: int
    text: int


def read_pdf(data: bytes) -> CountedDocument | None:
    """Return the pages and the text of a PDF.

    None for anything else, for one that is encrypted, one without a page that can be seen, and one that
    unfolds to more than is reasonable.
    """
    if len(data) > MAX_BYTES or _HEADER not in data[:1_024] or b"/Encrypt" in data:
        return None
    pages = text = most = 0
    scan = _Scan(data)
    for part, holds_objects in scan.parts():
        if holds_objects:
            pages += len(_PAGE.findall(part))
            most = max([most, *map(int, _COUNT.findall(part))])
        elif _SHOWS_TEXT.search(part):
            text += sum(
                len(plain) if plain else len(digits) // 2
                for plain, digits in (found.groups(b"") for found in _STRING.finditer(part))
            )
    if scan.gave_up or not pages:
        return None
    return CountedDocument(max(pages, min(most, len(data) // _LEAST_REFERENCE)), text)


class _Scan:
    """Go through a file once, from stream to stream."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = _MAX_UNFOLDED
        self.gave_up = False

    def parts(self) -> Iterator[tuple[bytes, bool]]:
        """Yield what may hold text (False) or objects (True)."""
        data, at = self._data, 0
        for _ in range(_MAX_STREAMS):
            found = _STREAM.search(data, at)
            if found is None:
                yield data[at:], True
                return
            before = data[at : found.start()]
            yield before, True
            end = data.find(b"endstream", found.end())
            end = len(data) if end < 0 else end
            opens = before.rfind(b"obj", max(0, len(before) - _MAX_DICTIONARY))
            dictionary = before[max(opens, len(before) - _MAX_DICTIONARY, 0) :]
            if not _NO_TEXT.search(dictionary):
                inside = self._unfolded(data[found.end() : end], dictionary)
                if inside is None:
                    self.gave_up = True
                    return
                yield inside, _OBJECTS.search(dictionary) is not None
            at = end + len(b"endstream")
        self.gave_up = True

    def _unfolded(self, stream: bytes, dictionary: bytes) -> bytes | None:
        how = _FILTER.search(dictionary)
        if how is None:
            return stream
        if how[1].strip(b"[] \r\n") not in (b"/FlateDecode", b"/Fl"):
            return None
        unfolding = zlib.decompressobj()
        try:
            inside = unfolding.decompress(stream, self._left + 1)
        except zlib.error:
            return None
        self._left -= len(inside)
        return inside if self._left >= 0 else None
