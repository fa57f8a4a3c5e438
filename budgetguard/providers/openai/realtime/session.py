"""One realtime session: what it costs, told from its events as they pass in both directions.

Nothing here knows sockets. `outgoing` is asked before an event is sent, `incoming` told of each that came,
`over` of the end. What needs the store is handed back as work, for whoever can wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.core.holds import new_hold_id
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.context import current_user
from budgetguard.engine.engine import Engine
from budgetguard.engine.outcomes import NotCharged
from budgetguard.engine.provider_call import ProviderCall
from budgetguard.errors import BudgetGuardError, UnknownModelError
from budgetguard.events import logger
from budgetguard.providers.json import mapping, text
from budgetguard.providers.openai.realtime.calls import Tariff, TranscriptCall, read_sizes
from budgetguard.providers.openai.realtime.conversation import Size, audio_ms
from budgetguard.providers.openai.realtime.held import HeldAhead, Opener, ResponseUnderWay
from budgetguard.providers.openai.realtime.state import SessionState

Job = Callable[[], None]

# What the next response has room for beyond the sound that was sent; and a minute of sound is what the next
# transcript is held for, unless more was sent.
_ROOM_MS: Final = 30_000
_TRANSCRIPT_MS: Final = 60_000
_AUDIO_DELTAS: Final = frozenset({"response.output_audio.delta", "response.audio.delta"})
_OURS: Final = "budgetguard_"


@dataclass(eq=False, slots=True)
class Outgoing:
    """What must be done before an event is sent.

    Attributes:
        reserve: raises what refuses it.
        failed: called if it could not be sent.
        event: the event as it is to be sent, if not as it came.
    """

    reserve: Job
    failed: Job = lambda: None
    event: Mapping[str, Any] | None = None


class RealtimeSession:
    """The books of one session. The user who is current where it is made pays.

    Args:
        engine: whose books.
        model: the model that answers; None until the server says.
        tariff: whose prices count.

    Attributes:
        refusal: why the session may not go on, once that is so.
        is_ending: it is to be closed now.
    """

    def __init__(self, engine: Engine, model: str | None, tariff: Tariff) -> None:
        self._engine = engine
        self._tariff = tariff
        self._state = state = SessionState(model, tariff)
        self._opener = opener = Opener(engine, state)
        self._next_response = HeldAhead(
            opener, lambda waiting: waiting + _ROOM_MS, lambda ms: state.response({}, ms)
        )
        self._next_transcript = HeldAhead(
            opener, lambda waiting: max(_TRANSCRIPT_MS, 2 * waiting), state.transcript
        )
        # What is under way: responses by the event that asks for each, those begun by their ids, and by the
        # item transcripts, with the milliseconds of sound that each is of.
        self._asked: list[tuple[str, GuardedCall]] = []
        self._responses: dict[str, ResponseUnderWay] = {}
        self._transcripts: dict[str, tuple[GuardedCall, int]] = {}
        self.refusal: BudgetGuardError | None = None
        self.is_ending = False

    @property
    def blocking(self) -> bool:
        """Whether its dealings with the store wait for I/O."""
        return self._engine.blocking

    @property
    def stops(self) -> bool:
        """Whether a session without money stops at once, what it was saying included."""
        return self._engine.settings.on_stream_exceeded == "stop"

    # What the program sends

    def outgoing(self, event: Mapping[str, Any]) -> Outgoing | None:
        """Return what must be done before this is sent; None if nothing must."""
        kind = event.get("type")
        with self._state.lock:
            if self._state.over:
                self._check()
                return None
            if kind == "response.create":
                return self._response_asked(event)
            if kind == "input_audio_buffer.append":
                return self._sound_sent(event)
            if kind in ("session.update", "transcription_session.update"):
                return self._session_changed(event, transcribes=kind == "transcription_session.update")
            if kind == "conversation.item.create":
                self._state.conversation.sent(event.get("item"), self._state.asked_config)
        return None

    def _response_asked(self, event: Mapping[str, Any]) -> Outgoing:
        asked = mapping(event.get("response"))
        ident, changed = self._named(event)
        call = self._call(lambda: self._state.response(asked))

        def reserve() -> None:
            self._check()
            call.reserve()
            self._opener.keep(call, lambda: self._asked.append((ident, call)))

        def failed() -> None:
            with self._state.lock:
                known = self._take_asked(ident)
            if known is not None:
                known.finish(NotCharged("it was not sent"))

        return Outgoing(reserve, failed, changed)

    def _named(self, event: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
        """Return an event's id, and the event with one if it had none.

        By its id an error that the server answers with says what it refuses.
        """
        ident = text(event.get("event_id"))
        if ident is not None:
            return ident, None
        ident = _OURS + new_hold_id(self._engine.now())
        return ident, {**event, "event_id": ident}

    def _sound_sent(self, event: Mapping[str, Any]) -> Outgoing | None:
        state, audio = self._state, event.get("audio")
        length = audio_ms(len(audio), state.asked_config.audio_in) if isinstance(audio, str) else 0
        waiting = state.conversation.waiting_ms + length
        needs: list[HeldAhead] = []
        if state.answers_unasked and self._next_response.is_short(waiting):
            needs.append(self._next_response)
        if state.transcriber is not None and self._next_transcript.is_short(waiting):
            needs.append(self._next_transcript)
        if not needs and self.refusal is None:
            self._sound_noted(length)
            return None

        def reserve() -> None:
            self._check()
            for need in needs:
                need.hold(waiting)
            with self._state.lock:
                self._sound_noted(length)

        return Outgoing(reserve)

    def _sound_noted(self, length: int) -> None:
        self._state.spoken_to = True
        self._state.conversation.appended(length)

    def _session_changed(self, event: Mapping[str, Any], *, transcribes: bool) -> Outgoing:
        change = {**({"type": "transcription"} if transcribes else {}), **mapping(event.get("session"))}
        ident, changed = self._named(event)
        writer = self._state.asked_config.updated(change).transcribes_with

        def reserve() -> None:
            self._check()
            if writer is not None:
                self._check_price(writer)
            with self._state.lock:
                self._state.asked(ident, change)
                lacks, waiting = self._lacks_response, self._state.conversation.waiting_ms
            try:
                if lacks:
                    self._next_response.hold(waiting)
            except BudgetGuardError:
                failed()
                raise

        def failed() -> None:
            with self._state.lock:
                self._state.refused(ident)

        return Outgoing(reserve, failed, changed)

    # What the server sends

    def incoming(self, event: Mapping[str, Any]) -> tuple[Job | None, Mapping[str, Any] | None]:
        """Return the work that follows from an event, and the event if it is to be changed."""
        kind = text(event.get("type")) or ""
        with self._state.lock:
            if self._state.over:
                return None, None
            if kind.endswith(".delta") and kind.startswith("response."):
                return self._seen(kind, event), None
            if kind == "error":
                return self._failed(event)
            taken = _INCOMING.get(kind)
            return (None if taken is None else taken(self, event)), None

    def _session_told(self, event: Mapping[str, Any]) -> Job | None:
        told = mapping(event.get("session"))
        kind = str(event["type"])
        if kind.startswith("transcription_session"):
            told = {**told, "type": "transcription"}
        self._state.told(told, changed=kind.endswith(".updated"))
        if not self._state.answers_unasked and (call := self._next_response.take()) is not None:
            return lambda: call.finish(NotCharged("the session makes no responses of its own any more"))
        return None

    def _item_told(self, event: Mapping[str, Any]) -> None:
        self._state.conversation.confirmed(event.get("item"))

    def _item_deleted(self, event: Mapping[str, Any]) -> None:
        self._state.conversation.deleted(event.get("item_id"))

    def _speech_told(self, event: Mapping[str, Any]) -> None:
        self._state.conversation.heard(event)

    def _cleared(self, event: Mapping[str, Any]) -> None:
        self._state.conversation.cleared()

    def _committed(self, event: Mapping[str, Any]) -> None:
        ident = text(event.get("item_id"))
        length = self._state.conversation.committed(ident)
        if ident is None or ident in self._transcripts:
            return
        if (call := self._next_transcript.take()) is not None:
            self._transcripts[ident] = call, length

    def _transcribed(self, event: Mapping[str, Any]) -> Job:
        ident = text(event.get("item_id")) or ""
        call, _ = self._transcripts.pop(ident, (None, 0))
        if str(event["type"]).endswith(".failed"):
            return lambda: None if call is None else call.finish(NotCharged("the transcription failed"))

        def settle() -> None:
            known = call
            if known is None:
                known = self._opener.call(lambda: self._state.transcript(1_000))
                known.owe()
            known.finish(known.request.outcome(event))

        return settle

    def _began(self, event: Mapping[str, Any]) -> Job | None:
        response = mapping(event.get("response"))
        ident = text(response.get("id")) or ""
        if ident in self._responses:
            return None  # told twice: a second call would take the place of the first
        self._state.conversation.began(ident)
        call = self._take_asked() or self._next_response.take()
        if call is not None:
            self._responses[ident] = ResponseUnderWay(call, self._state.config.audio_out)
            return self._hold_next if self._lacks_response else None

        def owe() -> None:
            # Nobody asked for it, and nothing is held: it is under way all the same.
            owed = self._opener.call(lambda: self._state.response(response))
            error = owed.owe()
            begun = ResponseUnderWay(owed, self._state.config.audio_out)
            self._opener.keep(owed, lambda: self._responses.update({ident: begun}))
            if error is not None:
                self._refuse(error)
            elif self._lacks_response:
                self._hold_next()

        return owe

    def _seen(self, kind: str, event: Mapping[str, Any]) -> Job | None:
        response = self._responses.get(text(event.get("response_id")) or "")
        delta = event.get("delta")
        if response is None or not isinstance(delta, str):
            return None
        if kind in _AUDIO_DELTAS:
            response.heard(len(delta))
        else:
            response.wrote(delta)
        if (seen := response.seen_beyond_hold()) is None:
            return None

        def extend() -> None:
            try:
                response.call.extend(seen)
            except BudgetGuardError as error:
                self._refuse(error)

        return extend

    def _ended(self, event: Mapping[str, Any]) -> Job | None:
        told = mapping(event.get("response"))
        ident = text(told.get("id")) or ""
        response = self._responses.pop(ident, None)
        apart = response is not None and response.request.apart
        read, made = read_sizes(told)
        if told.get("conversation_id", "") is None:
            apart, made = True, Size()  # its output belongs to no conversation
        if apart:
            self._state.conversation.ended_apart(ident, made)
        elif read.total:
            self._state.conversation.ended(ident, read + made, self._state.config)
        if response is None:
            return None
        seen = response.seen()
        broken = told.get("usage") is None and (
            told.get("status") == "cancelled" or (told.get("status") == "failed" and any(seen))
        )

        def settle() -> None:
            request = response.request
            response.call.finish(request.broken_off(*seen) if broken else request.outcome(told))
            if self.refusal is not None and not self.is_ending:
                self._go_on()

        return settle

    def _failed(self, event: Mapping[str, Any]) -> tuple[Job | None, Mapping[str, Any] | None]:
        error = mapping(event.get("error"))
        ident = text(error.get("event_id")) or ""
        shown = {**event, "error": {**error, "event_id": None}} if ident.startswith(_OURS) else None
        self._state.refused(ident)
        call = self._take_asked(ident)
        if call is None:
            return None, shown
        return lambda: call.finish(NotCharged(f"refused: {text(error.get('code')) or 'error'}")), shown

    # The end

    def over(self) -> None:
        """Settle what is still open by what was seen of it, and void what was held in advance. Idempotent."""
        with self._state.lock:
            if self._state.over:
                return
            self._state.over = True
            # Of those that are only asked for, nothing was seen.
            responses = [ResponseUnderWay(call, "") for _, call in self._asked]
            responses += self._responses.values()
            transcripts = list(self._transcripts.values())
            self._asked, self._responses, self._transcripts = [], {}, {}
            held_ahead = [self._next_response.take(), self._next_transcript.take()]
        for response in responses:
            response.call.finish(response.request.broken_off(*response.seen()))
        for call, milliseconds in transcripts:
            request = call.request
            assert isinstance(request, TranscriptCall)
            call.finish(request.broken_off(milliseconds))
        for unused in held_ahead:
            if unused is not None:
                unused.finish(NotCharged("nothing was made of it"))

    # Holds

    def _take_asked(self, ident: str | None = None) -> GuardedCall | None:
        """Return the response that was asked for by an event, or the first one, and wait for it no more."""
        for at, (known, call) in enumerate(self._asked):
            if ident is None or known == ident:
                del self._asked[at]
                return call
        return None

    def _call(self, request: Callable[[], ProviderCall]) -> GuardedCall:
        """Return a call that whoever is current pays, else whoever opened the session."""
        if current_user() is not None:
            return GuardedCall(self._engine, request())
        return self._opener.call(request)

    @property
    def _lacks_response(self) -> bool:
        """Whether the server may make a response that nothing is held for."""
        return self._next_response.is_empty and self._state.may_answer_now

    def _hold_next(self) -> None:
        """Reserve for the next response of the server's own, or let the session end with this one."""
        try:
            self._next_response.hold(self._state.conversation.waiting_ms)
        except BudgetGuardError as error:
            self._refuse(error)
        else:
            self.refusal = None

    def _go_on(self) -> None:
        """Check whether a session that was refused has money now, or needs none."""
        if self._lacks_response:
            self._hold_next()
        else:
            self.refusal = None

    def _refuse(self, error: BudgetGuardError) -> None:
        with self._state.lock:
            if self.refusal is None:
                self.refusal = error
                logger.warning("budgetguard: a realtime session ends: %s", error)
            self.is_ending = self.stops or not (self._responses or self._asked)

    def _check(self) -> None:
        if self.refusal is not None:
            raise copy(self.refusal)

    def _check_price(self, model: str) -> None:
        try:
            self._tariff.rates(self._engine.prices, model)
        except UnknownModelError:
            if self._engine.settings.unknown_model == "error":
                raise


_Taken = Callable[[RealtimeSession, Mapping[str, Any]], "Job | None"]
_INCOMING: Final[Mapping[str, _Taken]] = {
    "session.created": RealtimeSession._session_told,
    "session.updated": RealtimeSession._session_told,
    "transcription_session.created": RealtimeSession._session_told,
    "transcription_session.updated": RealtimeSession._session_told,
    "conversation.item.created": RealtimeSession._item_told,
    "conversation.item.added": RealtimeSession._item_told,
    "conversation.item.deleted": RealtimeSession._item_deleted,
    "input_audio_buffer.speech_started": RealtimeSession._speech_told,
    "input_audio_buffer.speech_stopped": RealtimeSession._speech_told,
    "input_audio_buffer.cleared": RealtimeSession._cleared,
    "input_audio_buffer.committed": RealtimeSession._committed,
    "conversation.item.input_audio_transcription.completed": RealtimeSession._transcribed,
    "conversation.item.input_audio_transcription.failed": RealtimeSession._transcribed,
    "response.created": RealtimeSession._began,
    "response.done": RealtimeSession._ended,
}
