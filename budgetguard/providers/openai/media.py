"""Sound and files that are put before OpenAI's models, counted.

The formulas are the documented ones, corrected by what 1 680 real requests were billed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from budgetguard.providers.json import field, mapping
from budgetguard.providers.openai.lengths import HEARD_A_SECOND
from budgetguard.tokens.documents import MAX_BYTES, read_pdf
from budgetguard.tokens.images import image_tokens
from budgetguard.tokens.office import read_office
from budgetguard.tokens.text import count_text, encoding_for

# Compressed speech is hardly ever under 16 kbit/s.
_LEAST_AUDIO_BYTE_RATE: Final = 2_000
# Of files that cannot be read here; text has about 4 bytes a token.
_BYTES_PER_FILE_TOKEN: Final = 4
# Of text in a PDF: half of what plain text has, since its spaces are often gaps and no characters.
_BYTES_PER_PDF_TOKEN: Final = 2
# An image of a page: chat bills about 213 beside its text, whatever the model.
CHAT_PAGE: Final = 256
RESPONSES_PAGE: Final = 24
"""Responses bill no image of a page, unless pages are drawn in detail."""
# The summary that is shown of a spreadsheet, beside its cells.
_SHEETS: Final = 48
_SPREADSHEET: Final = b"xl/workbook"
_PDF: Final = "JVBERi"
# A zip archive, in which text has about a byte a token.
_ARCHIVE: Final = "UEsDB"
# Pages are drawn in detail where asked, and by default from gpt-5.6 on; letter paper at 200 dots an inch:
# https://developers.openai.com/api/docs/guides/file-inputs
_DRAWS_PAGES_IN_DETAIL: Final = re.compile(r"gpt-(5\.[6-9]|[6-9])")
_PAGE_SIZE: Final = (1_700, 2_200)
UNSEEN_AUDIO_TOKENS: Final = 1_200
"""Of sound that is not here: two minutes."""


def audio_tokens(part: Mapping[str, Any]) -> int:
    """Return the audio tokens of an `input_audio` part: 10 a second of a WAV, a bound for the rest."""
    data = field(mapping(field(part, "input_audio") or {}), "data")
    if not isinstance(data, str | bytes):
        return UNSEEN_AUDIO_TOKENS
    size = len(data) * 3 // 4
    rate = _wav_byte_rate(data)
    return -(-size * HEARD_A_SECOND // (rate or _LEAST_AUDIO_BYTE_RATE))


def _wav_byte_rate(data: str | bytes) -> int | None:
    try:
        head = base64.b64decode(data[:64])
    except (binascii.Error, ValueError):
        return None
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return None
    rate = int.from_bytes(head[28:32], "little")
    # 8 bits at 8 kHz is the least that is recorded, 32 bits of stereo at 192 kHz the most: a header
    # that says otherwise is not believed.
    return rate if 8_000 <= rate <= 1_536_000 else None


def file_tokens(file: Mapping[str, Any], model: str, page: int = CHAT_PAGE) -> int:
    """Return a bound on what a file is billed as, if it is here: 0 if it is named by its id or URL.

    A PDF is billed for its text, and for an image of each page; an office file for its text. Of what cannot
    be scanned, every byte counts as a token where it is an archive, and a quarter of its bytes else.

    Args:
        file: the part of the request, with `file_data`.
        model: the model's bare name.
        page: tokens of an image of a page that is not drawn in detail.
    """
    data = field(file, "file_data")
    if not isinstance(data, str | bytes):
        return 0
    coded = data[data.find(",", 0, 256) + 1 :] if isinstance(data, str) else ""
    size = len(data) * 3 // 4
    tokens = None
    if coded.startswith((_PDF, _ARCHIVE)) and size <= MAX_BYTES:
        try:
            raw = base64.b64decode(coded)
        except (binascii.Error, ValueError):
            raw = b""
        tokens = _pdf_tokens(raw, file, model, page) if coded.startswith(_PDF) else _office_tokens(raw, model)
    if tokens is not None:
        return tokens
    return size // (1 if coded.startswith(_ARCHIVE) else _BYTES_PER_FILE_TOKEN) + 1


def _pdf_tokens(data: bytes, file: Mapping[str, Any], model: str, page: int) -> int | None:
    document = read_pdf(data)
    if document is None:
        return None
    detail = field(file, "detail")
    if detail == "high" or (detail != "low" and _DRAWS_PAGES_IN_DETAIL.match(model)):
        page = max(page, image_tokens(None, "high", model, _PAGE_SIZE))
    return document.pages * page + -(-document.text // _BYTES_PER_PDF_TOKEN)


def _office_tokens(data: bytes, model: str) -> int | None:
    text = read_office(data)
    if text is None:
        return None
    return count_text(text, encoding_for(model)) + (_SHEETS if _SPREADSHEET in data else 0)
