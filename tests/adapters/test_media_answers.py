"""Answers of images, audio and video are read whatever is in them: nulls, strings, fields of the future."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgetguard.core.usage import Reported, Usage
from budgetguard.providers.openai.audio import (
    SPEECH,
    TRANSCRIPTIONS,
)
from budgetguard.providers.openai.images import GENERATIONS, ImagesAccumulator
from budgetguard.providers.openai.lengths import most_seconds
from budgetguard.providers.openai.video import VIDEOS
from tests.provider.media import silence

READERS: list[Callable[[object], Reported]] = [
    row.read for row in (GENERATIONS, SPEECH, TRANSCRIPTIONS, VIDEOS)
]
STREAMED = (GENERATIONS, SPEECH, TRANSCRIPTIONS)

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    [
        "usage",
        "input_tokens",
        "output_tokens",
        "seconds",
        "size",
        "id",
        "status",
        "type",
        "data",
        "audio",
        "delta",
        "image_tokens",
        "audio_tokens",
        "input_tokens_details",
        "output_tokens_details",
        "input_token_details",
    ]
)
answers = st.recursive(junk, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12)


def sound(reported: Reported | None) -> bool:
    """Whether a report holds only what a price can be multiplied with."""
    if reported is None or reported.usage is None:
        return True
    return all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in reported.usage.units.values()
    )


@settings(deadline=None)
@given(answers)
def test_no_answer_is_too_strange_to_read(answer: Any) -> None:
    for read in READERS:
        assert sound(read(answer))
        assert sound(read(json.dumps(answer).encode()))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_too_strange_to_read(data: bytes) -> None:
    for read in READERS:
        assert sound(read(data))


@settings(deadline=None)
@given(st.lists(answers, max_size=4))
def test_no_event_is_too_strange_to_read(events: list[Any]) -> None:
    for row in STREAMED:
        tally = row.accumulator("gpt-4o")
        for event in events:
            tally.feed(event)
        assert sound(tally.reported)
        assert tally.seen_tokens() >= 0


HEADS = [
    b"",
    b"RIFF\0\0\0\0WAVEfmt ",
    b"ID3\x04\0",
    b"\xff\xfb\x90\x64",
    b"fLaC",
    b"OggS\0\2",
    b"\0\0\0\x18ftypM4A ",
]


@settings(deadline=None)
@given(
    st.sampled_from([*HEADS, silence(1)[:36]]),
    st.binary(max_size=400),
    st.sampled_from(["a.mp3", "a.wav", ""]),
)
def test_no_recording_is_too_strange_to_measure(head: bytes, rest: bytes, name: str) -> None:
    data = head + rest
    assert most_seconds(io.BytesIO(data), len(data), name) >= 0


@pytest.mark.parametrize(
    ("usage", "units"),
    [
        (
            {"input_tokens": 5, "output_tokens": 7},
            {"input_tokens": 5, "output_tokens": 7, "output_image_tokens": 7},
        ),
        (
            {
                "input_tokens": "5",
                "output_tokens": 7,
                "output_tokens_details": {"image_tokens": 4, "text_tokens": 3},
            },
            {"input_tokens": 5, "output_tokens": 7, "output_image_tokens": 4},
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "output_tokens_details": {"image_tokens": None, "text_tokens": 3},
            },
            {"input_tokens": 5, "output_tokens": 7, "output_image_tokens": 4},
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "output_tokens_details": {"image_tokens": 99},
                "new": [1],
            },
            {"input_tokens": 5, "output_tokens": 7, "output_image_tokens": 7},
        ),
    ],
)
def test_output_that_is_not_said_to_be_text_is_an_image(usage: Any, units: dict[str, int]) -> None:
    assert GENERATIONS.read({"data": [{}], "usage": usage}).usage == Usage(units)


@pytest.mark.parametrize(
    ("usage", "units"),
    [
        ({"type": "duration", "seconds": 8.2}, {"input_audio_seconds": 9}),
        ({"type": "duration", "seconds": "8"}, {"input_audio_seconds": 8}),
        ({"seconds": None, "input_tokens": 9, "output_tokens": None}, {"input_tokens": 9}),
        (
            {"input_tokens": 9, "output_tokens": 2, "input_token_details": {"audio_tokens": 99}},
            {"input_tokens": 9, "output_tokens": 2, "input_audio_tokens": 9},
        ),
    ],
)
def test_a_transcription_reports_seconds_or_tokens(usage: Any, units: dict[str, int]) -> None:
    assert TRANSCRIPTIONS.read({"text": "", "usage": usage}).usage == Usage(units)


@pytest.mark.parametrize(
    "usage", [None, {}, {"seconds": float("nan")}, {"seconds": -1}, {"seconds": True}, "5"]
)
def test_a_transcription_that_reports_nothing_is_booked_as_projected(usage: Any) -> None:
    assert TRANSCRIPTIONS.read({"text": "", "usage": usage}).usage is None


def test_a_job_that_failed_at_once_costs_nothing_and_one_that_tells_nothing_its_projection() -> None:
    job = {"id": "video_1", "seconds": "4", "size": "1280x720"}
    assert VIDEOS.read(job).usage == Usage({"video_seconds_720x1280": 4})
    assert VIDEOS.read({**job, "status": "failed"}).usage == Usage()
    assert VIDEOS.read({**job, "size": None}).usage is None
    assert VIDEOS.read(job).request_id == "video_1"


def test_images_of_one_stream_add_up() -> None:
    tally = ImagesAccumulator()
    done = {"type": "image_generation.completed", "usage": {"input_tokens": 5, "output_tokens": 100}}
    tally.feed({"type": "image_generation.partial_image"})
    assert (tally.reported, tally.seen_tokens()) == (None, 100)
    tally.feed(done)
    tally.feed(done)
    assert tally.reported == Reported(Usage.of(input_tokens=10, output_tokens=200, output_image_tokens=200))
