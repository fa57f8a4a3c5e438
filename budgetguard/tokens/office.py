"""Read the text of office files: of documents and presentations all, of spreadsheets the first rows.

That is what OpenAI puts in front of the model, and no pictures:
https://developers.openai.com/api/docs/guides/file-inputs. The files are zip archives of XML, in which text is
compressed, so their size says little. They are scanned, not understood, within limits that none can exceed.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from html import unescape
from typing import Final

# Bytes that the parts which are read may unfold to, in all; XML is mostly tags.
_MAX_UNFOLDED: Final = 64 * 1_024 * 1_024
_MAX_PARTS: Final = 10_000
# Characters: more than any model reads, which a spreadsheet can name by a few of its own.
_MAX_TEXT: Final = 4 * 1_024 * 1_024
_PIECE: Final = 262_144
# Rows of a sheet that the model is shown.
_ROWS: Final = 1_000

_WRITTEN: Final = re.compile(
    r"word/(document|footnotes|endnotes|comments|header\d*|footer\d*)\.xml"
    r"|ppt/(slides/slide|notesSlides/notesSlide|comments/comment)\d+\.xml|content\.xml"
)
_SHEET: Final = re.compile(r"xl/worksheets/sheet\d+\.xml")
_SHARED: Final = "xl/sharedStrings.xml"
_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# Of WordprocessingML, DrawingML and OpenDocument, whatever their prefixes are. No expression looks for an end
# that may be missing: it would do so again at each of many beginnings.
_LINE_END: Final = re.compile(
    r"</(?:\w++:)?+(?:p|h|table-cell)>|<(?:\w++:)?+(?:tab|br|cr|line-break)\b[^<>]*+>"
)
_TAG: Final = re.compile(r"<[^<>]*+>?")
_STRING: Final = re.compile(r"<(?:\w++:)?+si\b[^<>]*+>")
_CELLS: Final = re.compile(r"<(?:\w++:)?+(row|c|v|t)\b([^<>]*+)>([^<]*+)")
_IS_SHARED: Final = re.compile(r"""\bt\s*=\s*["']s["']""")


def read_office(data: bytes) -> str | None:
    """Return the text of a .docx, .pptx, .xlsx, .odt, .odp or .ods file.

    None for anything else, for one that is encrypted or damaged, and one that unfolds to more than is
    reasonable.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _Office(archive).text()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, LookupError):
        # What zipfile raises of files that are no archive, or one that is damaged, encrypted or too new.
        return None


class _Office:
    """The parts of one archive."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left = _MAX_UNFOLDED

    def text(self) -> str | None:
        """Return the text of all parts that have some; None if there is no such part, or too much of it."""
        names = self._archive.namelist()
        if len(names) > _MAX_PARTS:
            return None
        written = [name for name in names if _WRITTEN.fullmatch(name)]
        sheets = [name for name in names if _SHEET.fullmatch(name)]
        if not written and not sheets:
            return None
        found = [_words(self._part(name)) for name in written]
        if sheets:
            strings = self._strings(names)
            for name in sheets:
                found += _cells(self._part(name, _ROWS), strings)
        return "\n".join(found) if sum(map(len, found)) <= _MAX_TEXT else None

    def _strings(self, names: list[str]) -> list[str]:
        """Return the texts that cells name by their number."""
        if _SHARED not in names:
            return []
        return [_words(one) for one in _STRING.split(self._part(_SHARED))[1:]]

    def _part(self, name: str, rows: int | None = None) -> str:
        """Return a part's XML: all of it, or what has more than so many rows."""
        info = self._archive.getinfo(name)
        if info.compress_type not in _COMPRESSIONS:
            raise ValueError(f"{name} is compressed in a way that office files are not")
        pieces = []
        with self._archive.open(info) as part:
            while (rows is None or rows >= 0) and (piece := part.read(_PIECE)):
                pieces.append(piece)
                self._left -= len(piece)
                if self._left < 0:
                    raise ValueError(f"{name} unfolds to more than is read")
                if rows is not None:
                    rows -= piece.count(b"<row")
        return b"".join(pieces).decode("utf-8", "replace")


def _words(xml: str) -> str:
    """Return what stands between tags, a line for each paragraph."""
    return unescape(_TAG.sub("", _LINE_END.sub("\n", xml))).strip()


def _cells(xml: str, strings: list[str]) -> list[str]:
    """Return the values in the cells of a sheet's first rows; no more of them once they are too long."""
    found: list[str] = []
    rows = length = 0
    is_shared = False
    for name, attributes, text in _CELLS.findall(xml):
        if name == "row":
            rows += 1
        elif name == "c":
            is_shared = _IS_SHARED.search(attributes) is not None
        else:
            value = strings[int(text)] if is_shared else unescape(text)
            found.append(value)
            length += len(value)
        if rows > _ROWS or length > _MAX_TEXT:
            break
    return found
