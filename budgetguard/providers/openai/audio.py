"""Speech, transcription and translation: billed by characters, seconds or tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.body import UsageAccumulator
from budgetguard.providers.json import count, field, text, words
from budgetguard.providers.openai.lengths import (
    HEARD_A_SECOND,
    SPOKEN_A_SECOND,
    Beginning,
    most_seconds,
    recording_seconds,
)
from budgetguard.providers.request import files_of, look_into
from budgetguard.tokens.text import count_text, encoding_for

# Spoken tokens of one token of text: 5.8 in a published measurement of 4 096 characters of English.
_SPOKEN_A_TOKEN: Final = 8
_SPOKEN_LEAST: Final = 40
_SLOWEST: Final = 0.25
# Speech has about 4 tokens of text a second.
_WRITTEN_A_SECOND: Final = 6
_WRITTEN_LEAST: Final = 64
# Bytes of audio to a spoken token in the formats with the most tokens to the byte that are in common use.
_BYTES_A_TOKEN: Final = 1_000


class SpeechEndpoint(Endpoint):
    """Texts that are read aloud."""

    streams = True

    def project(self, asked: Asked) -> Projection:
        """Project a text that is read aloud, by its characters or by tokens.

        Raises:
            ConfigurationError: bad `input`, `instructions` or `speed`.
            UnknownModelError: there is a price for neither.
        """
        body, model, rates = asked.body, asked.model, asked.rates
        measured = _measures(body, model)
        if rates.prices("input_characters"):
            return projected(model, rates, {"input_characters": measured["input_characters"]}, {})
        speed = field(body, "speed")
        if speed is not None and (
            isinstance(speed, bool) or not isinstance(speed, int | float) or speed <= 0
        ):
            raise ConfigurationError(f"speed must be a number from 0.25 to 4, not {speed!r}")
        slowness = 1 / max(_SLOWEST, min(1.0, speed or 1.0))
        told = _tokens(words(body, "input"), model)
        spoken = math.ceil(told * _SPOKEN_A_TOKEN * slowness) + _SPOKEN_LEAST
        return projected(
            model,
            rates,
            {"input_tokens": with_margin(measured["input_tokens"])},
            {"output_tokens": spoken, "output_audio_tokens": spoken},
        )

    def unreported(self, body: Body) -> Mapping[str, int]:
        return _measures(body, str(field(body, "model")))

    def read(self, answer: object) -> Reported:
        """Read what speech was billed: from its events, else from how long it lasts.

        Raw samples (`pcm`) and what nothing here can read say nothing, so that the projection stands in.
        """
        if not isinstance(answer, bytes | bytearray):
            return Reported(usage=None)
        data = bytes(answer)
        size: int = getattr(answer, "size", len(data))
        if data[:6].startswith((b"data:", b"event:")):
            heard = SpeechAccumulator()
            for event in _events(data):
                heard.feed(event)
            return heard.reported or Reported(usage=None)
        seconds = recording_seconds(Beginning(data, size), size)
        if seconds is None:
            return Reported(usage=None)
        spoken = math.ceil(round(seconds * SPOKEN_A_SECOND, 6))
        units = {"output_tokens": spoken, "output_audio_tokens": spoken}
        return Reported(Usage.of(**units), measured=frozenset(units))

    def accumulator(self, model: str) -> SpeechAccumulator:
        return SpeechAccumulator()


class SoundAccumulator(UsageAccumulator):
    """What a stream of speech, or of a transcript, has said so far."""

    def __init__(self) -> None:
        self._usage: Usage | None = None

    @property
    def reported(self) -> Reported | None:
        return _reported(self._usage, self.seen_tokens, self.part)

    def _merge(self, told: Usage | None) -> None:
        if told is not None:
            self._usage = told if self._usage is None else self._usage.merged(told)


class SpeechAccumulator(SoundAccumulator):
    """What a stream of speech has said so far."""

    part = "output_audio_tokens"

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def feed(self, chunk: object) -> None:
        audio = field(chunk, "audio")
        if isinstance(audio, str):
            self._bytes += len(audio) * 3 // 4
        usage = field(chunk, "usage")
        spoken = count(field(usage, "output_tokens"))
        if spoken is not None:
            heard = count(field(usage, "input_tokens")) or 0
            self._merge(Usage.of(input_tokens=heard, output_tokens=spoken, output_audio_tokens=spoken))

    def seen_tokens(self) -> int:
        """Estimate the spoken tokens seen so far."""
        return -(-self._bytes // _BYTES_A_TOKEN)


class TranscriptionsEndpoint(Endpoint):
    """Transcriptions and translations of recordings."""

    def __init__(self, name: str, path: str, *, streams: bool) -> None:
        super().__init__(name, path)
        self.streams = streams

    def project(self, asked: Asked) -> Projection:
        """Project a transcription or translation by the length of the file that it uploads.

        Raises:
            ConfigurationError: there is no file, or its length cannot be read.
            UnknownModelError: there is a price for neither seconds nor tokens.
        """
        body, model, rates = asked.body, asked.model, asked.rates
        files = files_of(body, "file")
        if not files:
            raise ConfigurationError(
                "this call uploads no file, so the length of what it transcribes is unknown and it cannot be "
                "priced; pass file=open(path, 'rb')"
            )
        seconds = sum(look_into(file, most_seconds) for file in files)
        read, written = transcript_units(rates, seconds)
        if "input_tokens" in read:
            heard = read["input_tokens"]
            told = _tokens(words(body, "prompt"), model)
            read = {"input_tokens": with_margin(heard + told), "input_audio_tokens": with_margin(heard)}
        return projected(model, rates, read, written)

    def read(self, answer: object) -> Reported:
        return read_transcription(answer)

    def accumulator(self, model: str) -> TranscriptionAccumulator:
        return TranscriptionAccumulator(model)


def transcript_units(rates: Rates, seconds: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the units of input and of output that a transcript of so many seconds is billed by, at most."""
    if rates.prices("input_audio_seconds"):
        return {"input_audio_seconds": seconds}, {}
    heard = seconds * HEARD_A_SECOND
    written = max(_WRITTEN_LEAST, seconds * _WRITTEN_A_SECOND)
    return {"input_tokens": heard, "input_audio_tokens": heard}, {"output_tokens": written}


def read_transcription(answer: object) -> Reported:
    """Read what a transcription reports: tokens or seconds. A transcript in plain text reports nothing."""
    if isinstance(answer, bytes | bytearray):
        try:
            answer = json.loads(answer)
        except ValueError:
            return Reported(usage=None)
    if isinstance(answer, str):
        return Reported(usage=None)
    shown = text(field(answer, "text")) or ""
    return _reported(_transcribed(field(answer, "usage")), lambda: _tokens(shown, "")) or Reported(usage=None)


class TranscriptionAccumulator(SoundAccumulator):
    """What a streamed transcription has said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        super().__init__()
        self._encoding = encoding_for(model)
        self._seen = 0

    def feed(self, chunk: object) -> None:
        delta = field(chunk, "delta")
        if isinstance(delta, str):
            self._seen += count_text(delta, self._encoding)
        self._merge(_transcribed(field(chunk, "usage")))

    def seen_tokens(self) -> int:
        return self._seen


def _measures(body: Body, model: str) -> Mapping[str, int]:
    """Return the measures of a text that is read aloud; the model is billed by one of them."""
    aloud = words(body, "input")
    told = _tokens(aloud, model) + _tokens(words(body, "instructions"), model)
    return {"input_characters": len(aloud), "input_tokens": told}


def _tokens(shown: str, model: str) -> int:
    return count_text(shown, encoding_for(model))


def _events(data: bytes) -> Iterator[object]:
    for line in data.splitlines():
        if line.startswith(b"data:"):
            try:
                yield json.loads(line[5:])
            except ValueError:
                continue


def _reported(usage: Usage | None, seen: Callable[[], int], seen_as: str | None = None) -> Reported | None:
    """Return what was reported, with what is seen where no output is told; None if it is nothing at all."""
    if usage is None or not usage.units:
        return None
    if not usage.input_tokens and not usage.output_tokens:
        return Reported(usage)  # billed by another measure
    unsaid = frozenset(() if usage.input_tokens else {"input_tokens"})
    if usage.output_tokens or not (written := seen()):
        return Reported(usage, unsaid=unsaid)
    return Reported(usage, unsaid=unsaid, seen=written, seen_as=seen_as)


def _transcribed(usage: object) -> Usage | None:
    seconds = count(field(usage, "seconds"))
    if seconds is not None:
        return Usage.of(input_audio_seconds=seconds)
    heard, written = count(field(usage, "input_tokens")), count(field(usage, "output_tokens"))
    if heard is None and written is None:
        return None
    details = field(usage, "input_token_details") or field(usage, "input_tokens_details")
    return Usage.of(
        input_tokens=heard or 0,
        output_tokens=written or 0,
        input_audio_tokens=min(heard or 0, count(field(details, "audio_tokens")) or 0),
    )


SPEECH: Final = SpeechEndpoint("speech", "/audio/speech")
TRANSCRIPTIONS: Final = TranscriptionsEndpoint("transcriptions", "/audio/transcriptions", streams=True)
TRANSLATIONS: Final = TranscriptionsEndpoint("translations", "/audio/translations", streams=False)
