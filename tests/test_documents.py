"""What a PDF in a request is projected at, honest or hostile."""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.tokens.documents import CountedDocument, read_pdf
from tests.projecting import chat_input_tokens, response_input_tokens

WORDS = b"(What it says on this page, in a line of some length.)"


def stream(inside: bytes, dictionary: bytes = b"") -> bytes:
    return b"9 0 obj <<" + dictionary + b">>\nstream\n" + inside + b"\nendstream endobj\n"


def flate(inside: bytes, dictionary: bytes = b"") -> bytes:
    return stream(zlib.compress(inside), b"/Filter /FlateDecode " + dictionary)


def page(text: bytes = WORDS) -> bytes:
    return b"3 0 obj << /Type /Page /Parent 2 0 R >> endobj\n" + flate(b"BT /F1 12 Tf " + text + b" Tj ET")


def pdf(*parts: bytes) -> bytes:
    return (
        b"%PDF-1.7\n2 0 obj << /Type /Pages >> endobj\n" + b"".join(parts) + b"trailer << /Size 4 >>\n%%EOF"
    )


def billed(data: bytes, model: str = "gpt-4o", **more: Any) -> int:
    """Return the tokens that a file in a Responses request counts."""
    coded = "data:application/pdf;base64," + base64.b64encode(data).decode()

    def tokens(*content: dict[str, Any]) -> int:
        return response_input_tokens({"input": [{"role": "user", "content": [*content]}]}, model)

    return tokens({"type": "input_file", "filename": "a.pdf", "file_data": coded, **more}) - tokens()


def test_pages_and_the_text_on_them_are_found() -> None:
    assert read_pdf(pdf(page(), page())) == CountedDocument(2, 2 * (len(WORDS) - 2))
    assert read_pdf(pdf(page(b"<0041004200430044>"))) == CountedDocument(1, 8)
    plain = b"3 0 obj << /Type/Page >> endobj\n" + stream(b"[(Wo) -120 (rd)] TJ")
    assert read_pdf(pdf(plain)) == CountedDocument(1, 4)


def test_pages_in_object_streams_are_found() -> None:
    inside = b"3 0 4 40 << /Type /Page >> << /Type /Page >> << /Type /Pages /Count 2 >>"
    assert read_pdf(pdf(flate(inside, b"/Type /ObjStm /N 3"))) == CountedDocument(2, 0)


def test_a_page_that_is_named_twice_counts_twice() -> None:
    twice = b"2 0 obj << /Type /Pages /Kids [3 0 R 3 0 R 3 0 R] /Count 3 >> endobj\n"
    assert read_pdf(pdf(twice, page())) == CountedDocument(3, len(WORDS) - 2)


def test_pictures_and_fonts_are_no_text() -> None:
    noise = b"(Tj Tj Tj Tj) Tj " * 50
    parts = [stream(noise, b"/Subtype /Image /Filter /DCTDecode"), flate(noise, b"/Length1 850")]
    assert read_pdf(pdf(page(), *parts)) == CountedDocument(1, len(WORDS) - 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no document",
        pdf(),
        pdf(page())[9:],
        pdf(page(), b"<< /Encrypt 5 0 R >>"),
        pdf(page(), stream(b"\x80\x0b`P", b"/Filter /LZWDecode")),
        pdf(page(), stream(b"no zlib", b"/Filter /FlateDecode")),
    ],
    ids=["empty", "other", "no page", "no header", "encrypted", "LZW", "broken"],
)
def test_what_cannot_be_scanned_costs_by_its_size(data: bytes) -> None:
    assert read_pdf(data) is None
    assert len(data) // 4 < billed(data) < len(data) // 4 + 12


HOSTILE: dict[str, Callable[[], bytes]] = {
    "bomb": lambda: pdf(page(), flate(bytes(100_000_000))),
    "many bombs": lambda: pdf(page(), *[flate(bytes(4_000_000))] * 20),
    "streams": lambda: pdf(page(), b"stream\nendstream " * 100_000),
    "openings": lambda: pdf(page(b"(" * 300_000)),
    "half strings": lambda: pdf(page(b"(a" * 150_000)),
    "escapes": lambda: pdf(page(b"(" + b"\\(" * 150_000)),
    "hex": lambda: pdf(page(b"<0" * 150_000)),
    "filters": lambda: pdf(page(), b"obj /Filter [" * 20_000, stream(b"")),
    "names": lambda: pdf(page(), b"/Type " * 100_000, b"/Type" + b" " * 300_000),
    "counts": lambda: pdf(page(), b"/Count 999999999 " * 1_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_file_takes_long_or_counts_without_bound(name: str) -> None:
    data = HOSTILE[name]()
    began = time.process_time()
    found = read_pdf(data)
    # A tenth of this on a slow machine; whatever searched a megabyte from each of its bytes would take hours.
    assert time.process_time() - began < 10
    assert found is None or found.pages + found.text <= 2 * len(data) + 400_000


@pytest.mark.parametrize("name", ["bomb", "many bombs"])
def test_what_unfolds_without_end_is_given_up(name: str) -> None:
    assert read_pdf(HOSTILE[name]()) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 300), st.integers(0, 300))
def test_no_damage_to_a_file_does_harm(noise: bytes, at: int, cut: int) -> None:
    whole = pdf(page(), page())
    damaged = whole[:at] + noise + whole[at + cut :]
    found = read_pdf(damaged)
    assert found is None or (found.pages > 0 and found.text >= 0)
    assert billed(damaged) >= 0


def test_a_page_costs_its_text_and_an_image() -> None:
    blank = billed(pdf(page(b"()")))
    assert blank == 24, "responses bill no image of a page"
    assert billed(pdf(page(b"()"), page(b"()"))) == 2 * blank
    assert billed(pdf(page())) == blank + -(-(len(WORDS) - 2) // 2)


def test_pages_in_detail_cost_what_large_images_do() -> None:
    blank = pdf(page(b"()"))
    assert billed(blank, detail="high") == 85 + 4 * 170
    assert billed(blank, "gpt-5.6") == billed(blank, "gpt-5.6", detail="high") == 3_000
    assert billed(blank, "gpt-5.6", detail="low") == billed(blank, "gpt-5.5") == 24


def test_a_heavy_picture_in_a_file_does_not_count_by_its_bytes() -> None:
    heavy = pdf(page(), stream(bytes(range(256)) * 2_000, b"/Subtype /Image /Filter /DCTDecode"))
    assert billed(heavy) < 300
    assert len(heavy) > 500_000


def test_a_chat_bills_an_image_of_each_page_beside() -> None:
    coded = "data:application/pdf;base64," + base64.b64encode(pdf(page())).decode()

    def tokens(*content: dict[str, Any]) -> int:
        return chat_input_tokens({"messages": [{"role": "user", "content": [*content]}]}, "gpt-4o")

    assert tokens({"type": "file", "file": {"file_data": coded}}) - tokens() == billed(pdf(page())) - 24 + 256
