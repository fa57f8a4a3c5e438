"""Speech, transcription and translation: billed by characters, seconds or tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.json import count, field
from budgetguard.providers.lengths import Beginning, most_seconds, recording_seconds
from budgetguard.providers.measures import text, tokens
from budgetguard.providers.request import files_of, look_into
from budgetguard.tokens.requests import given
from budgetguard.tokens.text import count_text, encoding_for

# As OpenAI documents: a token is 100 ms of what is heard and 50 ms of what is spoken
# (https://developers.openai.com/api/docs/guides/realtime-costs).
_HEARD_A_SECOND: Final = 10
_SPOKEN_A_SECOND: Final = 20
# Spoken tokens of one token of text: 5.8 in a published measurement of 4 096 characters of English.
_SPOKEN_A_TOKEN: Final = 8
_SPOKEN_LEAST: Final = 40
_SLOWEST: Final = 0.25
# Speech has about 4 tokens of text a second.
_WRITTEN_A_SECOND: Final = 6
_WRITTEN_LEAST: Final = 64
# Bytes of audio to a spoken token in the formats with the most tokens to the byte that are in common use.
_BYTES_A_TOKEN: Final = 1_000


def project_speech(body: Mapping[str, Any], model: str, rates: Rates, _learned: int | None) -> Projection:
    """Project a text that is read aloud, by its characters or by tokens.

    Raises:
        ConfigurationError: bad `input`, `instructions` or `speed`.
        UnknownModelError: there is a price for neither.
    """
    measured = read_aloud(body, model)
    if rates.prices("input_characters"):
        return projected(model, rates, {"input_characters": measured["input_characters"]}, {})
    speed = given(body, "speed")
    if speed is not None and (isinstance(speed, bool) or not isinstance(speed, int | float) or speed <= 0):
        raise ConfigurationError(f"speed must be a number from 0.25 to 4, not {speed!r}")
    slowness = 1 / max(_SLOWEST, min(1.0, speed or 1.0))
    words = tokens(text(body, "input"), model)
    spoken = math.ceil(words * _SPOKEN_A_TOKEN * slowness) + _SPOKEN_LEAST
    return projected(
        model,
        rates,
        {"input_tokens": with_margin(measured["input_tokens"])},
        {"output_tokens": spoken, "output_audio_tokens": spoken},
    )


def read_aloud(body: Mapping[str, Any], model: str | None = None) -> Mapping[str, int]:
    """Return the measures of a text that is read aloud; the model is billed by one of them."""
    model = model or str(given(body, "model"))
    words = text(body, "input")
    told = tokens(words, model) + tokens(text(body, "instructions"), model)
    return {"input_characters": len(words), "input_tokens": told}


def read_speech(answer: object) -> Reported:
    """Read what speech was billed: from its events, else from how long it lasts.

    Raw samples (`pcm`) and what nothing here can read say nothing, so that the projection stands in.
    """
    if not isinstance(answer, bytes | bytearray):
        return Reported(usage=None)
    data = bytes(answer)
    size: int = getattr(answer, "size", len(data))
    if data[:6].startswith((b"data:", b"event:")):
        tally = SpeechTally()
        for event in _events(data):
            tally.feed(event)
        return tally.reported or Reported(usage=None)
    seconds = recording_seconds(Beginning(data, size), size)
    if seconds is None:
        return Reported(usage=None)
    spoken = math.ceil(round(seconds * _SPOKEN_A_SECOND, 6))
    units = {"output_tokens": spoken, "output_audio_tokens": spoken}
    return Reported(Usage.of(**units), measured=frozenset(units))


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


class SpeechTally:
    """Add up what a stream of speech has said so far.

    Args:
        model: the model that was asked for.
    """

    part: Final = "output_audio_tokens"

    def __init__(self, model: str = "") -> None:
        self._usage: Usage | None = None
        self._bytes = 0

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""
        return _reported(self._usage, self.seen_tokens, self.part)

    def feed(self, chunk: object) -> None:
        """Take one event."""
        audio = field(chunk, "audio")
        if isinstance(audio, str):
            self._bytes += len(audio) * 3 // 4
        usage = field(chunk, "usage")
        spoken = count(field(usage, "output_tokens"))
        if spoken is not None:
            heard = count(field(usage, "input_tokens")) or 0
            told = Usage.of(input_tokens=heard, output_tokens=spoken, output_audio_tokens=spoken)
            self._usage = told if self._usage is None else self._usage.merged(told)

    def seen_tokens(self) -> int:
        """Estimate the spoken tokens seen so far."""
        return -(-self._bytes // _BYTES_A_TOKEN)


def project_transcription(
    body: Mapping[str, Any], model: str, rates: Rates, _learned: int | None
) -> Projection:
    """Project a transcription or translation by the length of the file that it uploads.

    Raises:
        ConfigurationError: there is no file, or its length cannot be read.
        UnknownModelError: there is a price for neither seconds nor tokens.
    """
    files = files_of(body, "file")
    if not files:
        raise ConfigurationError(
            "this call uploads no file, so the length of what it transcribes is unknown and it cannot be "
            "priced; pass file=open(path, 'rb')"
        )
    seconds = sum(look_into(file, most_seconds) for file in files)
    if rates.prices("input_audio_seconds"):
        return projected(model, rates, {"input_audio_seconds": seconds}, {})
    heard = seconds * _HEARD_A_SECOND
    told = tokens(text(body, "prompt"), model)
    return projected(
        model,
        rates,
        {"input_tokens": with_margin(heard + told), "input_audio_tokens": with_margin(heard)},
        {"output_tokens": max(_WRITTEN_LEAST, seconds * _WRITTEN_A_SECOND)},
    )


def read_transcription(answer: object) -> Reported:
    """Read what a transcription reports: tokens or seconds. A transcript in plain text reports nothing."""
    if isinstance(answer, bytes | bytearray):
        try:
            answer = json.loads(answer)
        except ValueError:
            return Reported(usage=None)
    if isinstance(answer, str):
        return Reported(usage=None)
    written = field(answer, "text")
    words = written if isinstance(written, str) else ""
    return _reported(_transcribed(field(answer, "usage")), lambda: tokens(words, "")) or Reported(usage=None)


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


class TranscriptionTally:
    """Add up what a streamed transcription has said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def __init__(self, model: str = "") -> None:
        self._encoding = encoding_for(model)
        self._usage: Usage | None = None
        self._seen = 0

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""
        return _reported(self._usage, self.seen_tokens)

    def feed(self, chunk: object) -> None:
        """Take one event."""
        delta = field(chunk, "delta")
        if isinstance(delta, str):
            self._seen += count_text(delta, self._encoding)
        told = _transcribed(field(chunk, "usage"))
        if told is not None:
            self._usage = told if self._usage is None else self._usage.merged(told)

    def seen_tokens(self) -> int:
        """Count the output tokens seen so far."""
        return self._seen
