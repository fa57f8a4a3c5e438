"""Events are read however the network cuts them, and only what we asked for is taken out."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.provider_call import Abandoned, Answered, Unknown
from budgetguard.providers.accumulators import StreamTally
from budgetguard.providers.answers import reported
from budgetguard.providers.body import EventReader, WholeReader
from budgetguard.tokens.text import count_text

USAGE = {"prompt_tokens": 9, "completion_tokens": 4}
ANSWERED = Answered(Reported(Usage.of(input_tokens=9, output_tokens=4), "gpt-4o", None, "c"))


def event(chunk: object, end: str, space: str = " ") -> bytes:
    data = chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return f"data:{space}{data}{end}{end}".encode()


def chunk(content: str | None = None, **more: Any) -> dict[str, Any]:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return {"id": "c", "model": "gpt-4o", "choices": choices, **more}


def body(end: str, *, usage: bool, last: str = "[DONE]") -> bytes:
    """A stream with text that looks like what is cut, with or without what `include_usage` adds."""
    nothing: dict[str, Any] = {"usage": None} if usage else {}
    texts = ["Grüße 😀", 'a,"usage":null', "data: [DONE]\n\ndata: {}", " end"]
    parts = [f": a comment{end}{end}".encode()]
    parts += [event(chunk(text, **nothing), end) for text in texts]
    parts += [event(chunk(usage=USAGE), end)] if usage else []
    return b"".join([*parts, event(last, end, space="")])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(marks)]


def watch(**options: Any) -> EventReader:
    return EventReader(StreamTally("gpt-4o"), **{"hide_usage": True, **options})


def through(one: EventReader | WholeReader, parts: list[bytes]) -> bytes:
    return b"".join([*(one.feed(part) for part in parts), one.end()])


cuts = st.lists(st.integers(0, 2000), max_size=40)
ends = st.sampled_from(["\n", "\r\n", "\r"])


@given(cuts, ends)
@example([458], "\r\n")  # between the last two characters of an event whose next is taken out
def test_what_we_asked_for_is_taken_out_and_nothing_else(cuts: list[int], end: str) -> None:
    one = watch()
    assert through(one, pieces(body(end, usage=True), cuts)) == body(end, usage=False)
    assert one.outcome(None) == ANSWERED


@given(cuts, ends)
def test_what_the_caller_asked_for_is_handed_on_as_it_comes(cuts: list[int], end: str) -> None:
    one = watch(hide_usage=False)
    for part in pieces(body(end, usage=True), cuts):
        assert one.feed(part) == part
    assert one.end() == b""
    assert one.outcome(None) == ANSWERED


def test_a_stream_cut_off_anywhere_costs_what_was_seen() -> None:
    words = ["Hello", " there", " you"]
    events = [event(chunk(word, usage=None), "\n") for word in words]
    data = b"".join(events)
    for cut in range(len(data)):
        whole = sum(len(b"".join(events[: number + 1])) <= cut for number in range(3))
        (one := watch()).feed(data[:cut])
        seen = count_text("".join(words[:whole]), "o200k_base")
        assert one.outcome(ConnectionError()) == Abandoned(seen)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_read_byte_by_byte_is_over_at_done(end: str) -> None:
    one, out = watch(), b""
    data = body(end, usage=True)
    for at in range(len(data)):
        over = one.over
        out += one.feed(data[at : at + 1])
        assert not over or at >= len(data) - 1
    assert one.over
    assert out + one.end() == body(end, usage=False)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_cut_in_two_anywhere_is_whole(end: str) -> None:
    data, wanted = body(end, usage=True), body(end, usage=False)
    for cut in range(len(data)):
        assert through(watch(), [data[:cut], data[cut:]]) == wanted


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_an_event_is_handed_on_as_soon_as_it_is_whole(end: str) -> None:
    one, first = watch(), event(chunk("Hi"), end)
    assert one.feed(first) == first


def test_a_last_event_without_an_empty_line_counts() -> None:
    data = event(chunk("Hi", usage=None), "\n") + event(chunk(usage=USAGE), "\n").rstrip()
    one = watch()
    assert through(one, [data]) == event(chunk("Hi"), "\n")
    assert one.outcome(None) == ANSWERED


def test_data_in_several_lines_is_one_event() -> None:
    lines = json.dumps(chunk(usage=USAGE), indent=1).splitlines()
    data = "".join(f"data: {line}\n" for line in lines) + "\n"
    one = watch()
    assert through(one, [data.encode()]) == b""
    assert one.outcome(None) == ANSWERED


def test_usage_beside_text_is_not_taken_out() -> None:
    data = event(chunk("Hi", usage=USAGE), "\n")
    one = watch()
    assert through(one, [data]) == data
    assert one.outcome(None) == ANSWERED


def test_what_is_not_json_is_handed_on() -> None:
    data = b'event: ping\n\ndata: {"cut\n\ndata: 7\n\n: comment\n\n'
    assert through(watch(), [data]) == data


def test_an_error_in_the_stream_ends_it_at_what_was_seen() -> None:
    one = watch()
    one.feed(event(chunk("Hello"), "\n") + event({"error": {"message": "overloaded"}}, "\n"))
    assert one.outcome(None) == Abandoned(1)


def test_a_whole_stream_without_usage_tells_what_was_seen() -> None:
    one = watch()
    through(one, [event(chunk("Hello"), "\n"), event("[DONE]", "\n")])
    assert one.outcome(None) == Answered(Reported(usage=None, seen=1))


def deflated(data: bytes, bits: int) -> bytes:
    coder = zlib.compressobj(wbits=bits)
    return coder.compress(data) + coder.flush()


CODED = {
    "gzip": (gzip.compress, gzip.decompress),
    "GZIP": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
}


@pytest.mark.parametrize("encoding", CODED)
@pytest.mark.parametrize("hide", [True, False])
@given(cuts=cuts)
def test_a_compressed_stream_is_read_and_stays_compressed(encoding: str, hide: bool, cuts: list[int]) -> None:
    pack, unpack = CODED[encoding]
    one = watch(hide_usage=hide, encoding=encoding)
    out = through(one, pieces(pack(body("\n", usage=True)), cuts))
    assert unpack(out) == body("\n", usage=not hide)
    assert one.outcome(None) == ANSWERED


def test_deflate_without_its_header_is_read_as_well() -> None:
    one = watch(encoding="deflate")
    out = through(one, [deflated(body("\n", usage=True), -15)])
    assert zlib.decompress(out, -15) == body("\n", usage=False)
    assert one.outcome(None) == ANSWERED


@given(cuts)
def test_a_body_in_one_piece_is_read_when_it_is_whole(cuts: list[int]) -> None:
    data = json.dumps(chunk("Hi", usage=USAGE)).encode()
    one = WholeReader(reported)
    assert through(one, pieces(data, cuts)) == data
    assert one.outcome(None) == ANSWERED


def test_a_body_that_is_not_read_to_its_end_was_answered_and_one_that_breaks_nobody_knows() -> None:
    one = WholeReader(reported)
    one.feed(b'{"usage"')
    assert one.outcome(None) == Answered(Reported(usage=None))
    assert one.outcome(ConnectionError()) == Unknown("the answer broke off: ConnectionError")
