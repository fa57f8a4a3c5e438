"""Speech, transcriptions and translations are booked as billed, and the files they upload stay whole."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.provider_call import Answered
from budgetguard.errors import BudgetExceededError, ConfigurationError, UnknownModelError
from budgetguard.providers.body import WholeReader
from budgetguard.providers.lengths import LEAST_BYTE_RATE, most_seconds, recording_seconds
from budgetguard.providers.openai.audio import read_speech
from budgetguard.providers.request import look_into, with_files
from budgetguard.testing._media import silence
from tests.adapters.books import Books
from tests.adapters.media import billed_usd, check, media, o200k, open_media

TEXT = "Good morning to the people in the room: the budget is here, and it holds."
SOUND = silence(8.4)  # 9 seconds, as they are billed


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    with open_media(tmp_path) as opened:
        yield opened


# --- speech ---

SPEECH: Any = {"input": TEXT, "voice": "alloy"}


def test_slow_speech_is_projected_longer(books: Books) -> None:
    media(books).spoken_seconds = 12
    with books.client() as client:
        client.audio.speech.create(**SPEECH, model="gpt-4o-mini-tts", speed=0.5)
    check(books, billed_usd(books.server), estimated=True)  # measured: speech in one piece reports nothing
    (projected,) = books.of("Projected")
    assert projected.usage.output_tokens > 240  # which is more than this text has at normal speed


def test_speech_whose_length_nobody_can_read_is_booked_as_projected(books: Books) -> None:
    with books.client() as client:
        client.audio.speech.create(**SPEECH, model="gpt-4o-mini-tts", response_format="pcm")
    (settled,), (projected,) = books.of("Settled"), books.of("Projected")
    assert (settled.cost, settled.estimated) == (projected.cost, True)
    assert books.held == 0


@pytest.mark.parametrize(("model", "estimated"), [("gpt-4o-mini-tts", True), ("tts-1", False)])
def test_speech_that_is_measured_is_an_estimate_where_its_length_is_billed(
    books: Books, model: str, estimated: bool
) -> None:
    with books.client() as client:
        client.audio.speech.create(**SPEECH, model=model)
    check(books, billed_usd(books.server), estimated=estimated)


def test_of_a_long_recording_only_the_beginning_is_kept_and_its_length_read(books: Books) -> None:
    long = silence(300)
    kept: list[bytes] = []

    def read(answer: bytes) -> Reported:
        kept.append(answer)
        return read_speech(answer)

    watch = WholeReader(read, most=4_096)
    for at in range(0, len(long), 1_000):
        assert watch.feed(long[at : at + 1_000]) == long[at : at + 1_000]
    watch.end()
    outcome = watch.outcome(None)
    assert isinstance(outcome, Answered)
    assert outcome.reported.usage == Usage.of(output_tokens=6_000, output_audio_tokens=6_000)
    assert [len(one) for one in kept] == [4_096]

    media(books).spoken_seconds = 120  # 1.9 MB, more than a client's call keeps
    with (
        books.client() as client,
        client.audio.speech.with_streaming_response.create(**SPEECH, model="gpt-4o-mini-tts") as response,
    ):
        assert sum(len(part) for part in response.iter_bytes()) > 1_900_000
    (settled,) = books.of("Settled")
    assert settled.usage.units["output_audio_tokens"] == 2_400


def test_speech_of_an_unknown_model_is_refused_unsent(books: Books) -> None:
    with books.client() as client, pytest.raises(UnknownModelError, match="tts-9"):
        client.audio.speech.create(**SPEECH, model="tts-9")
    assert media(books).count() == 0


@pytest.mark.parametrize("more", [{"input": 5}, {"speed": "fast"}, {"speed": 0}, {"speed": True}])
def test_bad_speech_is_refused_unsent(books: Books, more: Any) -> None:
    with books.client() as client, pytest.raises(ConfigurationError):
        client.post("/audio/speech", body={**SPEECH, "model": "gpt-4o-mini-tts", **more}, cast_to=object)
    assert media(books).count() == 0


# --- transcription ---


def opened_wav(folder: Path) -> Any:
    path = folder / "sound.wav"
    path.write_bytes(SOUND)
    return path


FILES: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda folder: SOUND,
    "a name and bytes": lambda folder: ("sound.wav", SOUND),
    "a name, bytes and a type": lambda folder: ("sound.wav", SOUND, "audio/wav"),
    "a path": opened_wav,
    "an open file": lambda folder: opened_wav(folder).open("rb"),
    "an open file, half read": lambda folder: _half_read(opened_wav(folder).open("rb")),
    "an unbuffered file": lambda folder: opened_wav(folder).open("rb", buffering=0),
    "a BytesIO": lambda folder: _half_read(io.BytesIO(SOUND)),
    "a spooled file": lambda folder: _spooled(),
    "a name and an open file": lambda folder: ("sound.wav", opened_wav(folder).open("rb"), "audio/wav"),
}


def _spooled() -> Any:
    # In memory: on disk its name, which is sent, would be a descriptor's number.
    file = tempfile.SpooledTemporaryFile(max_size=1 << 30)  # noqa: SIM115 - its test closes it
    file.write(SOUND)
    return file


def _half_read(file: Any) -> Any:
    file.seek(len(SOUND) // 2)
    return file


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"])
def test_a_file_is_booked_and_arrives_as_if_nobody_had_looked(
    books: Books, tmp_path: Path, kind: str, model: str
) -> None:
    file = FILES[kind](tmp_path)
    opened = file[1] if isinstance(file, tuple) else file
    with books.client() as client:
        answer = client.audio.transcriptions.create(file=file, model=model)
    if hasattr(opened, "close"):
        opened.close()
    assert answer.text == media(books).transcript
    (sent,) = media(books).uploads[0]
    assert (sent.field, sent.content) == ("file", SOUND)
    check(books, billed_usd(books.server))


@pytest.mark.parametrize("kind", FILES)
def test_a_guarded_form_is_on_the_wire_as_an_unguarded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def sent(folder: Path, *, guarded: bool) -> Any:
        folder.mkdir()
        with open_media(folder) as books, books.client() as client:
            file = FILES[kind](folder)
            if not guarded:
                from tests.adapters.clients import unpatch

                unpatch()
            client.audio.transcriptions.create(
                file=file, model="whisper-1", prompt="Names: Ann, Bob", timestamp_granularities=["word"]
            )
            for one in (file[1] if isinstance(file, tuple) else file,):
                if hasattr(one, "close"):
                    one.close()
            (record,) = media(books).requests
            return media(books).uploads, dict(record.body)

    assert sent(tmp_path / "guarded", guarded=True) == sent(tmp_path / "unguarded", guarded=False)


def test_looking_into_a_file_leaves_it_where_it_stood(tmp_path: Path) -> None:
    with opened_wav(tmp_path).open("rb") as file:
        file.seek(1_234)
        body = with_files({"model": "whisper-1"}, [("file", file)])
        assert look_into(body.files[0][1], most_seconds) == 9  # type: ignore[attr-defined]  # a Form
        assert file.tell() == 1_234


def test_a_refused_file_stays_where_it_stood(tmp_path: Path) -> None:
    file = io.BytesIO(SOUND)
    file.seek(100)
    with open_media(tmp_path, usd=0.00001) as poor, poor.client() as client:
        for _ in range(5):
            with pytest.raises(BudgetExceededError):
                client.audio.transcriptions.create(file=file, model="whisper-1")
    assert file.tell() == 100
    assert media(poor).count() == 0
    assert (poor.spent, poor.held) == (0, 0)


TRANSCRIPTION: Any = {"file": ("sound.wav", SOUND), "model": "gpt-4o-transcribe"}
WHISPER: Any = {"file": ("sound.wav", SOUND), "model": "whisper-1"}


def test_a_transcript_that_looks_like_a_report_is_text(books: Books) -> None:
    media(books).transcript = '{"text": "", "usage": {"type": "duration", "seconds": 0.1}}'
    with books.client() as client:
        client.audio.transcriptions.create(**WHISPER, response_format="text")
    check(books, billed_usd(books.server), estimated=True)


def test_an_abandoned_transcription_costs_its_input_and_what_was_seen(books: Books) -> None:
    media(books).gate = threading.Event()
    with books.client() as client:
        with client.audio.transcriptions.create(**TRANSCRIPTION, stream=True) as stream:
            first: Any = next(iter(stream))
        media(books).gate.set()
    (projected,), (settled,) = books.of("Projected"), books.of("Settled")
    units = dict(projected.usage.units) | {"output_tokens": o200k(first.delta)}
    assert (settled.outcome, settled.usage.units, settled.estimated) == ("abandoned", units, True)
    assert books.held == 0
    assert books.spent == books.engine.prices.rates("gpt-4o-transcribe").cost(Usage(units))


# --- files that tell nothing ---


class Pipe(io.RawIOBase):
    """A file that can only be read forwards, once."""

    def __init__(self) -> None:
        self._left = io.BytesIO(SOUND)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._left.readinto(buffer)

    @property
    def consumed(self) -> int:
        return self._left.tell()


def test_a_file_that_cannot_be_read_twice_is_refused_untouched(books: Books) -> None:
    pipe = Pipe()
    with books.client() as client, pytest.raises(ConfigurationError, match="pass bytes"):
        client.audio.transcriptions.create(file=pipe, model="whisper-1")
    assert pipe.consumed == 0
    assert media(books).count() == 0


def test_a_call_without_a_file_is_refused_unsent(books: Books) -> None:
    with books.client() as client, pytest.raises(ConfigurationError, match="uploads no file"):
        client.post("/audio/transcriptions", body={"model": "whisper-1", "url": "x"}, cast_to=object)
    assert media(books).count() == 0


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("words")
    with path.open() as file, pytest.raises(ConfigurationError, match="'rb'"):
        look_into(file, most_seconds)


def _flac(seconds: int) -> bytes:
    rate, samples = 8_000, 8_000 * seconds
    packed = (rate << 44) | (0 << 41) | (15 << 36) | samples
    info = struct.pack(">HH", 4_096, 4_096) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info + bytes(8_000)


def _mp3(seconds: int) -> bytes:
    # MPEG 1 layer III, 128 kbit/s, 48 kHz, mono: frames of 384 bytes and 24 ms.
    return (b"\xff\xfb\x94\xc4" + bytes(380)) * (seconds * 1_000 // 24)


def _m4a(seconds: int) -> bytes:
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content) + 8) + kind + content

    header = struct.pack(">IIIII", 0, 0, 0, 1_000, seconds * 1_000) + bytes(80)
    return box(b"ftyp", b"M4A \0\0\0\0") + box(b"moov", box(b"mvhd", header)) + box(b"mdat", bytes(8_000))


@pytest.mark.parametrize(("name", "make"), [("a.flac", _flac), ("a.mp3", _mp3), ("a.m4a", _m4a)])
def test_other_formats_are_read_by_tinytag(name: str, make: Callable[[int], bytes]) -> None:
    pytest.importorskip("tinytag")
    data = make(12)
    assert recording_seconds(io.BytesIO(data), len(data), name) == pytest.approx(12, abs=0.05)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x1a\x45\xdf\xa3" + os.urandom(9_000), os.urandom(9_000), b"RIFF1234WAVE"],
    ids=["nothing", "a Matroska header", "noise", "a WAV header"],
)
def test_what_does_not_tell_its_length_is_bounded_by_its_size(data: bytes) -> None:
    assert recording_seconds(io.BytesIO(data), len(data), "a.webm") is None
    assert most_seconds(io.BytesIO(data), len(data), "a.webm") == -(-len(data) // LEAST_BYTE_RATE)


def test_without_tinytag_other_formats_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tinytag", None)
    data = _flac(12)
    assert most_seconds(io.BytesIO(data), len(data), "a.flac") == -(-len(data) // LEAST_BYTE_RATE)
    assert most_seconds(io.BytesIO(SOUND), len(SOUND)) == 9


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, len(SOUND) * 2])
def test_a_wav_whose_header_was_written_before_its_sound_is_as_long_as_its_bytes(length: int) -> None:
    data = SOUND[:40] + struct.pack("<I", length) + SOUND[44:]
    assert recording_seconds(io.BytesIO(data), len(data)) == 8.4


def test_a_header_that_claims_less_than_the_bytes_allow_is_not_believed() -> None:
    byte_rate = struct.pack("<I", 4_000_000_000)
    data = SOUND[:28] + byte_rate + SOUND[32:]
    assert recording_seconds(io.BytesIO(data), len(data)) is None


def test_words_are_counted_as_the_provider_counts_them(books: Books) -> None:
    with books.client() as client:
        client.audio.speech.create(**SPEECH, model="gpt-4o-mini-tts", instructions="Whisper.")
    assert media(books).billed[0]["input_tokens"] == o200k(TEXT) + o200k("Whisper.")


def test_a_closed_upload_is_called_closed(tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(b"RIFF")
    with sound.open("rb") as file:
        pass
    with pytest.raises(ConfigurationError, match=r"BufferedReader to upload is closed.* open it anew"):
        look_into(file, lambda content, _size, _name: content.read())
