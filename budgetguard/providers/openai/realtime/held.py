"""The calls of a realtime session that money is held for: a response under way, and what may come unasked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from budgetguard.core.windows import duration_ms
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.engine import Engine
from budgetguard.engine.outcomes import NotCharged
from budgetguard.engine.provider_call import ProviderCall
from budgetguard.engine.threads import surroundings, within
from budgetguard.providers.openai.realtime.calls import ResponseCall
from budgetguard.providers.openai.realtime.conversation import audio_ms, spoken_tokens
from budgetguard.providers.openai.realtime.state import SessionState
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
    def request(self) -> ResponseCall:
        """What was asked for."""
        request = self.call.request
        assert isinstance(request, ResponseCall)
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


class Opener:
    """Who pays for what nobody asked for: the user who is current where this is made.

    Args:
        engine: whose books.
        state: the session.
    """

    def __init__(self, engine: Engine, state: SessionState) -> None:
        self.engine = engine
        self._state = state
        self._opened_in = surroundings()

    def call(self, request: Callable[[], ProviderCall]) -> GuardedCall:
        """Return a call that whoever opened the session pays."""
        call: GuardedCall = within(self._opened_in, lambda: GuardedCall(self.engine, request()))
        return call

    def keep(self, call: GuardedCall, keep: Callable[[], None]) -> None:
        """Run `keep` with the state's lock held; void the reserved call if the session is over."""
        with self._state.lock:
            if not self._state.over:
                keep()
                return
        call.finish(NotCharged("the session is over"))


class HeldAhead:
    """One call held in advance, with room for the sound that it will be about.

    Args:
        opener: who pays.
        room: milliseconds of sound that wait -> those to hold for.
        request: milliseconds of sound -> the call.
    """

    def __init__(
        self, opener: Opener, room: Callable[[int], int], request: Callable[[int], ProviderCall]
    ) -> None:
        self._opener = opener
        self._room = room
        self._request = request
        self._held: GuardedCall | None = None
        self._held_ms = 0
        self._renew_at = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return self._held is None

    def is_short(self, waiting_ms: int) -> bool:
        """Whether nothing is held, too little for sound that waits, or what soon expires."""
        late = self._opener.engine.now() >= self._renew_at
        return self._held is None or late or waiting_ms > self._held_ms

    def hold(self, waiting_ms: int) -> None:
        """Reserve for sound that waits and some more, in place of what is held.

        Raises:
            BudgetGuardError: refused; what was held stays.
        """
        room = self._room(waiting_ms)
        call = self._opener.call(lambda: self._request(room))
        call.reserve()
        engine = self._opener.engine
        former: GuardedCall | None = None

        def keep() -> None:
            nonlocal former
            former, self._held = self._held, call
            self._held_ms = room
            self._renew_at = engine.now() + duration_ms(engine.settings.hold_ttl) // 2

        self._opener.keep(call, keep)
        if former is not None:
            former.finish(NotCharged("another hold stands for it"))

    def take(self) -> GuardedCall | None:
        """Return what is held, for its taker to finish; called with the state's lock held."""
        taken, self._held = self._held, None
        return taken
