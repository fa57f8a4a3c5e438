"""What an office file in a request is projected at, honest or hostile."""

from __future__ import annotations

import base64
import io
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.tokens.office import read_office
from budgetguard.tokens.text import count_text, encoding_for
from tests.projecting import chat_input_tokens, response_input_tokens

MODEL = "gpt-4o"
PARAGRAPHS = [f"This is paragraph {number} of a report on money & budgets." for number in range(200)]
WORD = '<w:document xmlns:w="w"><w:body>{}</w:body></w:document>'


def archive(**parts: str | bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, inside in parts.items():
            zipped.writestr(name.replace("__", "/"), inside)
    return made.getvalue()


def docx(*paragraphs: str) -> bytes:
    escaped = [one.replace("&", "&amp;") for one in paragraphs]
    # Words are often cut in two by their formatting.
    runs = [f"<w:r><w:t>{one[:3]}</w:t></w:r><w:r><w:t>{one[3:]}</w:t></w:r>" for one in escaped]
    body = WORD.format("".join(f"<w:p>{run}</w:p>" for run in runs))
    picture = bytes(range(256)) * 4_000
    parts: dict[str, str | bytes] = {"word__document.xml": body, "word__styles.xml": body}
    return archive(**parts, word__media__image1_png=picture)


def xlsx(rows: int) -> bytes:
    row = (
        '<row r="1"><c t="s"><v>0</v></c><c><v>42.5</v></c><c t="inlineStr"><is><t>in line</t></is></c></row>'
    )
    sheet = f"<worksheet><sheetData>{row * rows}</sheetData></worksheet>"
    shared = "<sst><si><t>what many cells say</t></si><si><t>nowhere</t></si></sst>"
    return archive(**{"xl__worksheets__sheet1.xml": sheet, "xl__sharedStrings.xml": shared})


def billed(data: bytes) -> int:
    """Return the tokens that a file in a Responses request counts."""
    coded = "data:application/octet-stream;base64," + base64.b64encode(data).decode()

    def tokens(*content: dict[str, str]) -> int:
        return response_input_tokens({"input": [{"role": "user", "content": [*content]}]}, MODEL)

    return tokens({"type": "input_file", "filename": "a.docx", "file_data": coded}) - tokens()


def test_a_document_counts_its_text_and_neither_its_pictures_nor_its_markup() -> None:
    data = docx(*PARAGRAPHS)
    assert read_office(data) == "\n".join(PARAGRAPHS)
    assert billed(data) == count_text("\n".join(PARAGRAPHS), encoding_for(MODEL))


def test_a_chat_counts_it_too() -> None:
    file = {"file_data": "data:x;base64," + base64.b64encode(docx(*PARAGRAPHS)).decode()}
    chat = {"messages": [{"role": "user", "content": [{"type": "file", "file": file}]}]}
    assert chat_input_tokens(chat, MODEL) > count_text("\n".join(PARAGRAPHS), encoding_for(MODEL))


def test_text_that_compresses_well_counts_more_than_its_bytes() -> None:
    data = archive(**{"word__document.xml": WORD.format("<w:p><w:t>" + "money " * 50_000 + "</w:t></w:p>")})
    assert billed(data) >= 50_000 > len(data)


def test_slides_and_their_notes_and_open_documents_are_read() -> None:
    slide = "<p:sld><a:p><a:r><a:t>A slide.</a:t></a:r></a:p></p:sld>"
    note = "<p:notes><a:p><a:r><a:t>A note.</a:t></a:r></a:p></p:notes>"
    deck = archive(**{"ppt__slides__slide1.xml": slide, "ppt__notesSlides__notesSlide1.xml": note})
    assert read_office(deck) == "A slide.\nA note."
    text = "<office:text><text:h>Head</text:h><text:p>Body</text:p></office:text>"
    assert read_office(archive(**{"content.xml": text})) == "Head\nBody"


def test_a_sheet_counts_its_first_thousand_rows_each_cell_by_what_it_shows() -> None:
    assert read_office(xlsx(2)) == "\n".join(["what many cells say", "42.5", "in line"] * 2)
    assert read_office(xlsx(1_000)) == read_office(xlsx(5_000))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 and no archive",
        docx(*PARAGRAPHS)[:-40],
        archive(readme="nothing that is shown"),
        archive(**{"xl__worksheets__sheet1.xml": '<row><c t="s"><v>7</v></c></row>'}),
        archive(**{"xl__worksheets__sheet1.xml": '<row><c t="s"><v>-7</v></c></row>'}),
    ],
)
def test_an_archive_that_cannot_be_read_counts_a_token_a_byte(data: bytes) -> None:
    assert read_office(data) is None
    if data.startswith(b"PK"):
        assert len(data) <= billed(data) <= len(data) + 40  # the head of its URL counts, too


def test_one_that_unfolds_to_more_than_is_read_is_given_up() -> None:
    bomb = archive(**{"word__document.xml": b"<w:t>" + b" " * 80_000_000})
    assert len(bomb) < 100_000
    assert read_office(bomb) is None


def test_cells_that_name_a_long_text_again_and_again_are_given_up() -> None:
    shared = f"<sst><si><t>{'long ' * 200_000}</t></si></sst>"
    sheet = "<row>" + '<c t="s"><v>0</v></c>' * 100_000 + "</row>"
    data = archive(**{"xl__worksheets__sheet1.xml": sheet, "xl__sharedStrings.xml": shared})
    assert read_office(data) is None


@pytest.mark.parametrize(
    "piece", ["<", "<a", "<w:tab", "</w:p", "<c ", "<c t=", "<si", "<row><c", "a:", "&amp"]
)
def test_hostile_markup_takes_time_by_its_length(piece: str) -> None:
    def seconds(times: int) -> float:
        parts = dict.fromkeys(
            ("word__document.xml", "xl__worksheets__sheet1.xml", "xl__sharedStrings.xml"), piece * times
        )
        data = archive(**parts)
        began = time.process_time()
        read_office(data)
        return time.process_time() - began

    # Twenty times as much would take four hundred times as long if ends were looked for from each beginning.
    assert seconds(400_000) < 100 * max(seconds(20_000), 0.01)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.data())
def test_no_bytes_are_too_strange(noise: bytes, data: st.DataObject) -> None:
    whole = xlsx(2)
    at = data.draw(st.integers(0, len(whole)))
    assert isinstance(read_office(whole[:at] + noise + whole[at + len(noise) :]), str | None)
