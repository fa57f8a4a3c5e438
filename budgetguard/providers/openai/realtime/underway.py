"""The calls of a realtime session that are under way, and what was seen of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from budgetguard.engine.call import GuardedCall
from budgetguard.providers.openai.realtime.calls import ResponseRequest, TranscriptRequest
from budgetguard.providers.openai.realtime.sizes import audio_ms, spoken_tokens
from budgetguard.tokens.text import count_text, encoding_for


@dataclass(eq=False, slots=True)
class ResponseUnderWay:
    """A response that the server has begun, and what was seen of it.

    Attributes:
        call: its call.
        audio_format: of the sound that it is spoken in.
    """

    call: GuardedCall
    audio_format: str
    _ms: int = 0
    _pieces: list[str] = field(default_factory=list)
    _characters: int = 0

    @property
    def request(self) -> ResponseRequest:
        """What was asked for."""
        request = self.call.request
        assert isinstance(request, ResponseRequest)
        return request

    def heard(self, characters: int) -> None:
        """Add sound, of so many characters of base64."""
        self._ms += audio_ms(characters, self.audio_format)

    def wrote(self, piece: str) -> None:
        """Add text, or the words of what is spoken."""
        self._pieces.append(piece)
        self._characters += len(piece)

    def seen(self) -> tuple[int, int]:
        """Return its tokens so far: of text, and of sound."""
        self._pieces = ["".join(self._pieces)]
        return count_text(self._pieces[0], encoding_for(self.request.model)), spoken_tokens(self._ms)

    def seen_beyond_hold(self) -> int | None:
        """Return its tokens so far if they are more than is held for, else None."""
        held = self.call.output_held
        # A token is hardly ever shorter than a character.
        if held is None or self._characters + spoken_tokens(self._ms) <= held:
            return None
        seen = sum(self.seen())
        return seen if seen > held else None


class CallsUnderWay:
    """What is under way in one session. Used with the session's lock held."""

    def __init__(self) -> None:
        self._asked: list[tuple[str, GuardedCall]] = []
        self._responses: dict[str, ResponseUnderWay] = {}
        self._transcripts: dict[str, tuple[GuardedCall, int]] = {}

    @property
    def any_response(self) -> bool:
        """Whether a response is asked for or begun."""
        return bool(self._responses or self._asked)

    def asked(self, ident: str, call: GuardedCall) -> None:
        """Add a response that is asked for by an event of this id."""
        self._asked.append((ident, call))

    def take_asked(self, ident: str | None = None) -> GuardedCall | None:
        """Return the response that was asked for by an event, or the first one, and wait for it no more."""
        for at, (known, call) in enumerate(self._asked):
            if ident is None or known == ident:
                del self._asked[at]
                return call
        return None

    def began(self, ident: str, call: GuardedCall, audio_format: str) -> None:
        """Add a response that the server has begun."""
        self._responses[ident] = ResponseUnderWay(call, audio_format)

    def response(self, ident: str) -> ResponseUnderWay | None:
        """Return a response that was begun."""
        return self._responses.get(ident)

    def take_response(self, ident: str) -> ResponseUnderWay | None:
        """Return a response that was begun, and forget it."""
        return self._responses.pop(ident, None)

    def is_transcribed(self, ident: str) -> bool:
        """Whether an item gets a transcript."""
        return ident in self._transcripts

    def transcribes(self, ident: str, call: GuardedCall, milliseconds: int) -> None:
        """Add a transcript that an item gets, of so much sound."""
        self._transcripts[ident] = call, milliseconds

    def take_transcript(self, ident: str) -> GuardedCall | None:
        """Return the transcript of an item, and forget it."""
        call, _ = self._transcripts.pop(ident, (None, 0))
        return call

    def take_all(self) -> Callable[[], None]:
        """Forget everything, and return a function that settles each call by what was seen of it."""
        # Of those that are only asked for, nothing was.
        responses = [*(ResponseUnderWay(call, "") for _, call in self._asked), *self._responses.values()]
        transcripts = list(self._transcripts.values())
        self._asked, self._responses, self._transcripts = [], {}, {}

        def finish() -> None:
            for response in responses:
                response.call.finish(response.request.broken_off(*response.seen()))
            for call, milliseconds in transcripts:
                request = call.request
                assert isinstance(request, TranscriptRequest)
                call.finish(request.broken_off(milliseconds))

        return finish
