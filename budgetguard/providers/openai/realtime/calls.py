"""What a realtime session is billed for, call by call: its responses, and transcripts of what it hears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.outcomes import Abandoned, Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.engine.provider_call import LearnedCap, ProviderCall
from budgetguard.pricing.book import FREE_PROVIDER, PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.json import count, field, text
from budgetguard.providers.openai.audio import read_transcription, transcript_units
from budgetguard.providers.openai.realtime.conversation import Size

# The most that the API lets a cap be, and that the models of the first years write
# (https://developers.openai.com/api/docs/guides/realtime-costs): what a response without a cap is held for.
UNCAPPED: Final = 4_096


@dataclass(frozen=True, slots=True)
class Tariff:
    """Whose prices count for a client's sessions.

    Attributes:
        base_url: the client's.
        provider: genai-prices' id, where the address does not tell it.
        free: what is asked there costs nothing, by the user's word.
        model_of: the model that a name stands for, such as an Azure deployment's.
    """

    base_url: str
    provider: str | None = None
    free: bool = False
    model_of: Callable[[str], str] = str

    def rates(self, book: PriceBook, model: str) -> Rates:
        """Return what a model costs.

        Raises:
            UnknownModelError: nobody knows.
        """
        if self.free:
            return Rates.free(model, FREE_PROVIDER)
        return book.rates(model, provider=self.provider, base_url=self.base_url)


class ResponseCall(ProviderCall):
    """One response of a realtime session.

    Args:
        model: the session's.
        tariff: whose prices count.
        size: what it will read, as far as it is known.
        cap: its output tokens at most; None if nothing caps them.
        spoken: it speaks.
        apart: it reads something else than the session's conversation.
    """

    endpoint = "realtime"

    def __init__(
        self, model: str, tariff: Tariff, *, size: Size, cap: int | None, spoken: bool, apart: bool = False
    ) -> None:
        self.model = model
        self.apart = apart
        self.size = size
        self.cap = cap
        self.spoken = spoken
        self._tariff = tariff

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates = self._tariff.rates(book, self.model)
        cap = self.cap
        if cap is None:
            cap = learned_cap(self.model) or UNCAPPED
        size = self.size
        read = {
            "input_tokens": with_margin(size.total),
            "input_audio_tokens": -(-size.audio * 105 // 100),
            "input_image_tokens": size.image,
        }
        written = {"output_tokens": cap, "output_audio_tokens": cap if self.spoken else 0}
        return rates, projected(
            self.model, rates, read, written, cap_assumed=self.cap is None, output_cap=cap
        )

    def outcome(self, answer: Any) -> Outcome:
        said = read_response_done(answer)
        if said.usage is None and field(answer, "status") == "failed":
            return NotCharged("the response failed")
        return Answered(said)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        return Unknown(type(error).__name__)

    def broken_off(self, written: int, spoken: int) -> Outcome:
        """Return the outcome of a response that nobody saw the end of.

        Args:
            written: tokens of text that were seen.
            spoken: tokens of sound that were seen.
        """
        size = self.size
        usage = Usage.of(
            input_tokens=size.total,
            input_audio_tokens=size.audio,
            input_image_tokens=size.image,
            output_tokens=written + spoken,
            output_audio_tokens=spoken,
        )
        return Abandoned(written + spoken, usage)


class TranscriptCall(ProviderCall):
    """One transcript of what a realtime session hears.

    Args:
        model: the one that writes it.
        tariff: whose prices count.
        seconds: what it is held for.
    """

    endpoint = "realtime transcription"

    def __init__(self, model: str, tariff: Tariff, *, seconds: int) -> None:
        self.model = model
        self.seconds = seconds
        self._tariff = tariff
        self._rates: Rates | None = None

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        self._rates = rates = self._tariff.rates(book, self.model)
        read, written = transcript_units(rates, self.seconds)
        return rates, projected(self.model, rates, read, written)

    def outcome(self, answer: Any) -> Outcome:
        return Answered(replace(read_transcription(answer), request_id=text(field(answer, "item_id"))))

    def outcome_of_error(self, error: BaseException) -> Outcome:
        return Unknown(type(error).__name__)

    def broken_off(self, milliseconds: int) -> Outcome:
        """Return the outcome of a transcript that never came, of so many milliseconds of sound."""
        if self._rates is None:
            return Abandoned(0)
        read, written = transcript_units(self._rates, -(-milliseconds // 1_000))
        return Abandoned(0, Usage.of(**read, **written))


def read_response_done(response: object) -> Reported:
    """Read what a response was billed, from the `response` of its `response.done` event."""
    return Reported(
        _responded(field(response, "usage")),
        request_id=text(field(response, "id")),
    )


def _responded(usage: object) -> Usage | None:
    read, written = count(field(usage, "input_tokens")), count(field(usage, "output_tokens"))
    if read is None and written is None:
        return None
    details, out = field(usage, "input_token_details"), field(usage, "output_token_details")
    cached = field(details, "cached_tokens_details")
    return Usage.of(
        input_tokens=read or 0,
        input_audio_tokens=count(field(details, "audio_tokens")) or 0,
        input_image_tokens=count(field(details, "image_tokens")) or 0,
        cache_read_tokens=count(field(details, "cached_tokens")) or 0,
        cache_audio_read_tokens=count(field(cached, "audio_tokens")) or 0,
        cache_image_read_tokens=count(field(cached, "image_tokens")) or 0,
        output_tokens=written or 0,
        output_audio_tokens=count(field(out, "audio_tokens")) or 0,
    )


def read_sizes(response: object) -> tuple[Size, Size]:
    """Return what a response read and what it made; nothing where it does not say."""
    usage = _responded(field(response, "usage")) or Usage()
    units = usage.units
    heard, shown = units.get("input_audio_tokens", 0), units.get("input_image_tokens", 0)
    spoken = units.get("output_audio_tokens", 0)
    return (
        Size(max(0, usage.input_tokens - heard - shown), heard, shown),
        Size(max(0, usage.output_tokens - spoken), spoken),
    )
