"""One realtime session: what it costs, told from its events as they pass in both directions.

Nothing here knows sockets. `outgoing` is asked before an event is sent, `incoming` told of each that came,
`over` of the end. What needs the store is handed back as work, for whoever can wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, Final

from budgetguard.adapters.fields import count, field, items, text
from budgetguard.adapters.realtime_calls import ResponseRequest, Tariff, TranscriptRequest, read_sizes
from budgetguard.adapters.realtime_config import SessionConfig, response_cap, speaks
from budgetguard.adapters.realtime_conversation import Conversation
from budgetguard.bookkeeping import Bookkeeper
from budgetguard.calls import Call
from budgetguard.context import current_user, surroundings, within
from budgetguard.counting.realtime import Size, audio_ms, spoken_tokens
from budgetguard.counting.requests import as_mapping
from budgetguard.counting.tokens import count_text, encoding_for
from budgetguard.errors import BudgetGuardError, UnknownModelError
from budgetguard.events import logger
from budgetguard.holds import new_hold_id
from budgetguard.request import NotCharged, Request
from budgetguard.windows import duration_ms

Job = Callable[[], None]

# What a hold made in advance has room for beyond the sound that was sent, in milliseconds; and a minute of
# sound is what a transcript is held for, unless more was sent.
_ROOM_MS: Final = 30_000
_TRANSCRIPT_SECONDS: Final = 60
_AUDIO_DELTAS: Final = frozenset({"response.output_audio.delta", "response.audio.delta"})
_OURS: Final = "budgetguard_"


@dataclass(eq=False, slots=True)
class _Response:
    """Hold a response under way, and what was seen of it."""

    call: Call
    audio_format: str
    ms: int = 0
    pieces: list[str] = attribute(default_factory=list)
    characters: int = 0

    def seen(self) -> tuple[int, int]:
        """Return its tokens so far: of text, and of sound."""
        request = self.call.request
        self.pieces = ["".join(self.pieces)]
        return count_text(self.pieces[0], encoding_for(request.model)), spoken_tokens(self.ms)


@dataclass(eq=False, slots=True)
class _Standing:
    """Hold a call that was reserved in advance: until when it lives, and for how much sound it is."""

    call: Call
    renew_at: int
    room_ms: int


@dataclass(eq=False, slots=True)
class Outgoing:
    """Say what must be done before an event is sent.

    Attributes:
        reserve: raises what refuses it.
        failed: called if it could not be sent.
        event: the event as it is to be sent, if not as it came.
    """

    reserve: Job
    failed: Job = lambda: None
    event: Mapping[str, Any] | None = None


class Session:
    """Keep the books of one session. Made where it is opened: whoever is current there pays.

    Args:
        keeper: whose books.
        model: the model that answers; None until the server says.
        tariff: whose prices count.

    Attributes:
        refusal: why the session may not go on, once that is so.
        ending: it is to be closed now.
    """

    def __init__(self, keeper: Bookkeeper, model: str | None, tariff: Tariff) -> None:
        self._keeper = keeper
        self._tariff = tariff
        self._opened_in = surroundings()
        self._lock = threading.Lock()
        self._over = False
        self._config = SessionConfig({} if model is None else {"model": model})
        self._changes: list[tuple[str, Mapping[str, Any]]] = []
        self._conversation = Conversation(model or "")
        self._asked: list[tuple[str, Call]] = []
        self._responses: dict[str, _Response] = {}
        self._standing: _Standing | None = None
        self._listening: _Standing | None = None
        self._transcripts: dict[str, tuple[Call, int]] = {}
        self._spoken_to = False
        self.refusal: BudgetGuardError | None = None
        self.ending = False

    @property
    def blocking(self) -> bool:
        """Whether its dealings with the store wait for I/O."""
        return self._keeper.blocking

    @property
    def stops(self) -> bool:
        """Whether a session without money stops at once, what it was saying included."""
        return self._keeper.settings.on_stream_exceeded == "stop"

    # What the program sends

    def outgoing(self, event: Mapping[str, Any]) -> Outgoing | None:
        """Return what must be done before this is sent; None if nothing must."""
        kind = event.get("type")
        with self._lock:
            if self._over:
                self._check()
                return None
            if kind == "response.create":
                return self._response_asked(event)
            if kind == "input_audio_buffer.append":
                return self._sound_sent(event)
            if kind in ("session.update", "transcription_session.update"):
                return self._session_changed(event, transcribes=kind == "transcription_session.update")
            if kind == "conversation.item.create":
                self._conversation.sent(event.get("item"), self._asked_config)
        return None

    def _response_asked(self, event: Mapping[str, Any]) -> Outgoing:
        asked = as_mapping(event.get("response"))
        ident, changed = self._named(event)
        call = self._call(lambda: self._response_request(asked))

        def reserve() -> None:
            self._check()
            call.reserve()
            self._keep(call, lambda: self._asked.append((ident, call)))

        def failed() -> None:
            with self._lock:
                known = self._taken(ident)
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
        ident = _OURS + new_hold_id(self._keeper.now())
        return ident, {**event, "event_id": ident}

    def _sound_sent(self, event: Mapping[str, Any]) -> Outgoing | None:
        audio = event.get("audio")
        length = audio_ms(len(audio), self._asked_config.audio_in) if isinstance(audio, str) else 0
        now = self._keeper.now()
        waiting = self._conversation.waiting_ms + length
        needs: list[Callable[[], None]] = []
        if self._answers_unasked() and _is_short(self._standing, now, waiting):
            needs.append(lambda: self._stand(waiting + _ROOM_MS))
        if self._transcriber() is not None and _is_short(self._listening, now, waiting):
            needs.append(lambda: self._listen(waiting))
        if not needs and self.refusal is None:
            self._sound_noted(length)
            return None

        def reserve() -> None:
            self._check()
            for need in needs:
                need()
            with self._lock:
                self._sound_noted(length)

        return Outgoing(reserve)

    def _sound_noted(self, length: int) -> None:
        self._spoken_to = True
        self._conversation.appended(length)

    def _session_changed(self, event: Mapping[str, Any], *, transcribes: bool) -> Outgoing:
        change = {**({"type": "transcription"} if transcribes else {}), **as_mapping(event.get("session"))}
        ident, changed = self._named(event)
        writer = self._asked_config.updated(change).transcribes_with

        def reserve() -> None:
            self._check()
            if writer is not None:
                self._check_price(writer)
            with self._lock:
                self._changes.append((ident, change))
                stands, waiting = self._needs_standing(), self._conversation.waiting_ms
            try:
                if stands:
                    self._stand(waiting + _ROOM_MS)
            except BudgetGuardError:
                failed()
                raise

        def failed() -> None:
            with self._lock:
                self._changes = [one for one in self._changes if one[0] != ident]

        return Outgoing(reserve, failed, changed)

    @property
    def _asked_config(self) -> SessionConfig:
        """What the session will be if the server takes every change that it has not spoken of yet."""
        config = self._config
        for _, change in self._changes:
            config = config.updated(change)
        return config

    # What the server sends

    def incoming(self, event: Mapping[str, Any]) -> tuple[Job | None, Mapping[str, Any] | None]:
        """Take note of an event; return the work that follows, and the event if it is to be changed."""
        kind = text(event.get("type")) or ""
        with self._lock:
            if self._over:
                return None, None
            if kind.endswith(".delta") and kind.startswith("response."):
                return self._seen(kind, event), None
            if kind == "error":
                return self._failed(event)
            taken = _INCOMING.get(kind)
            return (None if taken is None else taken(self, event)), None

    def _session_told(self, event: Mapping[str, Any]) -> Job | None:
        told = as_mapping(event.get("session"))
        if event["type"] in ("session.updated", "transcription_session.updated"):
            del self._changes[:1]
        if str(event["type"]).startswith("transcription_session"):
            told = {**told, "type": "transcription"}
        self._config = self._config.updated(told)
        if not self._conversation.model:
            self._conversation.model = self._config.model or ""
        if self._standing is not None and not self._answers_unasked():
            call, self._standing = self._standing.call, None
            return lambda: call.finish(NotCharged("the session makes no responses of its own any more"))
        return None

    def _item_told(self, event: Mapping[str, Any]) -> None:
        self._conversation.confirmed(event.get("item"))

    def _item_deleted(self, event: Mapping[str, Any]) -> None:
        self._conversation.deleted(event.get("item_id"))

    def _speech_told(self, event: Mapping[str, Any]) -> None:
        self._conversation.heard(event)

    def _cleared(self, event: Mapping[str, Any]) -> None:
        self._conversation.cleared()

    def _committed(self, event: Mapping[str, Any]) -> None:
        ident = text(event.get("item_id"))
        length = self._conversation.committed(ident)
        if self._listening is not None and ident is not None:
            self._transcripts[ident] = self._listening.call, length
            self._listening = None

    def _transcribed(self, event: Mapping[str, Any]) -> Job:
        ident = text(event.get("item_id")) or ""
        call, _ = self._transcripts.pop(ident, (None, 0))
        writer = self._transcriber() or ""
        if str(event["type"]).endswith(".failed"):
            return lambda: None if call is None else call.finish(NotCharged("the transcription failed"))

        def settle() -> None:
            known = call
            if known is None:
                known = self._own_call(lambda: TranscriptRequest(writer, self._tariff, seconds=1))
                known.owe()
            known.finish(known.request.ending(event))

        return settle

    def _began(self, event: Mapping[str, Any]) -> Job | None:
        response = as_mapping(event.get("response"))
        ident = text(response.get("id")) or ""
        self._conversation.began(ident)
        call = self._taken(None)
        if call is None and self._standing is not None:
            call, self._standing = self._standing.call, None
        if call is not None:
            self._responses[ident] = _Response(call, self._config.audio_out)
            return self._stand_again if self._needs_standing() else None

        def owe() -> None:
            # Nobody asked for it, and nothing is held: it is under way all the same.
            owed = self._own_call(lambda: self._response_request(response))
            error = owed.owe()
            kept = _Response(owed, self._config.audio_out)
            self._keep(owed, lambda: self._responses.__setitem__(ident, kept))
            if error is not None:
                self._refuse(error)
            elif self._needs_standing():
                self._stand_again()

        return owe

    def _seen(self, kind: str, event: Mapping[str, Any]) -> Job | None:
        response = self._responses.get(text(event.get("response_id")) or "")
        delta = event.get("delta")
        if response is None or not isinstance(delta, str):
            return None
        if kind in _AUDIO_DELTAS:
            response.ms += audio_ms(len(delta), response.audio_format)
        else:
            response.pieces.append(delta)
            response.characters += len(delta)
        call = response.call
        held = call.output_held
        if held is None or response.characters + spoken_tokens(response.ms) <= held:
            return None
        if (seen := sum(response.seen())) <= held:
            return None

        def extend() -> None:
            try:
                call.extend(seen)
            except BudgetGuardError as error:
                self._refuse(error)

        return extend

    def _ended(self, event: Mapping[str, Any]) -> Job | None:
        told = as_mapping(event.get("response"))
        ident = text(told.get("id")) or ""
        response = self._responses.pop(ident, None)
        apart = response is not None and _of_response(response.call.request).apart
        read, made = read_sizes(told)
        if told.get("conversation_id", "") is None:
            apart, made = True, Size()  # its output belongs to no conversation
        if apart:
            self._conversation.ended_apart(ident, made)
        elif read.total:
            self._conversation.ended(ident, read + made, self._config)
        if response is None:
            return None
        seen = response.seen()
        broken = told.get("usage") is None and (
            told.get("status") == "cancelled" or (told.get("status") == "failed" and any(seen))
        )

        def settle() -> None:
            request = _of_response(response.call.request)
            response.call.finish(request.broken_off(*seen) if broken else request.ending(told))
            if self.refusal is not None and not self.ending:
                self._go_on()

        return settle

    def _failed(self, event: Mapping[str, Any]) -> tuple[Job | None, Mapping[str, Any] | None]:
        error = as_mapping(event.get("error"))
        ident = text(error.get("event_id")) or ""
        shown = {**event, "error": {**error, "event_id": None}} if ident.startswith(_OURS) else None
        self._changes = [one for one in self._changes if one[0] != ident]
        call = self._taken(ident)
        if call is None:
            return None, shown
        return lambda: call.finish(NotCharged(f"refused: {text(error.get('code')) or 'error'}")), shown

    def _taken(self, ident: str | None) -> Call | None:
        """Return the response that was asked for under an id, or the first one, and wait for it no more."""
        for at, (known, call) in enumerate(self._asked):
            if ident is None or known == ident:
                del self._asked[at]
                return call
        return None

    # The end

    def over(self) -> None:
        """Book of what is still open what was seen; give back what was held in advance. Idempotent."""
        with self._lock:
            if self._over:
                return
            self._over = True
            asked, self._asked = [call for _, call in self._asked], []
            responses, self._responses = list(self._responses.values()), {}
            transcripts, self._transcripts = list(self._transcripts.values()), {}
            standing = [one.call for one in (self._standing, self._listening) if one is not None]
            self._standing = self._listening = None
        for call in asked:
            call.finish(_of_response(call.request).broken_off(0, 0))
        for response in responses:
            response.call.finish(_of_response(response.call.request).broken_off(*response.seen()))
        for call, length in transcripts:
            request = call.request
            assert isinstance(request, TranscriptRequest)
            call.finish(request.broken_off(length))
        for call in standing:
            call.finish(NotCharged("nothing was made of it"))

    # Holds

    def _call(self, request: Callable[[], Request]) -> Call:
        """Return a call that whoever is current pays, else whoever opened the session."""
        if current_user() is not None:
            return Call(self._keeper, request())
        return self._own_call(request)

    def _own_call(self, request: Callable[[], Request]) -> Call:
        """Return a call that nobody asked for: whoever opened the session pays."""
        call: Call = within(self._opened_in, lambda: Call(self._keeper, request()))
        return call

    def _keep(self, call: Call, keep: Job) -> None:
        with self._lock:
            if not self._over:
                keep()
                return
        call.finish(NotCharged("the session is over"))

    def _stand(self, room_ms: int) -> None:
        """Reserve for a response that the server may make of its own accord."""
        call = self._own_call(lambda: self._response_request({}, room_ms))
        call.reserve()
        self._replace("_standing", _Standing(call, self._renew_at(), room_ms))

    def _listen(self, waiting_ms: int) -> None:
        seconds = max(_TRANSCRIPT_SECONDS, -(-2 * waiting_ms // 1_000))
        writer = self._transcriber() or ""
        call = self._own_call(lambda: TranscriptRequest(writer, self._tariff, seconds=seconds))
        call.reserve()
        self._replace("_listening", _Standing(call, self._renew_at(), seconds * 1_000))

    def _replace(self, name: str, standing: _Standing) -> None:
        former: _Standing | None = None

        def keep() -> None:
            nonlocal former
            former = getattr(self, name)
            setattr(self, name, standing)

        self._keep(standing.call, keep)
        if former is not None:
            former.call.finish(NotCharged("another hold stands for it"))

    def _stand_again(self) -> None:
        """Reserve for the next response of the server's own, or let the session end with this one."""
        try:
            self._stand(self._conversation.waiting_ms + _ROOM_MS)
        except BudgetGuardError as error:
            self._refuse(error)
        else:
            self.refusal = None

    def _go_on(self) -> None:
        """See whether a session that was refused more has it now, or needs no more."""
        if self._needs_standing():
            self._stand_again()
        else:
            self.refusal = None

    def _refuse(self, error: BudgetGuardError) -> None:
        with self._lock:
            if self.refusal is None:
                self.refusal = error
                logger.warning("budgetguard: a realtime session ends: %s", error)
            self.ending = self.stops or not (self._responses or self._asked)

    def _check(self) -> None:
        if self.refusal is not None:
            raise copy(self.refusal)

    def _check_price(self, model: str) -> None:
        try:
            self._tariff.rates(self._keeper.prices, model)
        except UnknownModelError:
            if self._keeper.settings.unknown_model == "error":
                raise

    def _renew_at(self) -> int:
        return self._keeper.now() + duration_ms(self._keeper.settings.hold_ttl) // 2

    def _answers_unasked(self) -> bool:
        return self._config.answers_unasked or self._asked_config.answers_unasked

    def _needs_standing(self) -> bool:
        silent = self._config.answers_silence or self._asked_config.answers_silence
        tools = any(field(tool, "type") == "mcp" for tool in items(self._asked_config.tools))
        return self._standing is None and self._answers_unasked() and (self._spoken_to or silent or tools)

    def _transcriber(self) -> str | None:
        return self._asked_config.transcribes_with or self._config.transcribes_with

    def _response_request(self, asked: Mapping[str, Any], more_ms: int = 0) -> ResponseRequest:
        # What the session was asked to become may be refused: the dearer of both counts.
        configs = self._config, self._asked_config
        caps = [config.cap for config in configs]
        own = response_cap(asked)
        if own is not None or count(asked.get("max_output_tokens")) is not None:
            caps = [own]
        sizes = [self._conversation.size(config, asked, more_ms) for config in configs]
        return ResponseRequest(
            self._tariff.model_of(self._conversation.model or self._asked_config.model or ""),
            self._tariff,
            size=max(sizes, key=lambda size: size.total),
            cap=None if None in caps else max(cap for cap in caps if cap is not None),
            spoken=speaks(asked, any(config.speaks for config in configs)),
            apart=isinstance(asked.get("input"), list),
        )


_Taken = Callable[[Session, Mapping[str, Any]], "Job | None"]
_INCOMING: Final[Mapping[str, _Taken]] = {
    "session.created": Session._session_told,
    "session.updated": Session._session_told,
    "transcription_session.created": Session._session_told,
    "transcription_session.updated": Session._session_told,
    "conversation.item.created": Session._item_told,
    "conversation.item.added": Session._item_told,
    "conversation.item.deleted": Session._item_deleted,
    "input_audio_buffer.speech_started": Session._speech_told,
    "input_audio_buffer.speech_stopped": Session._speech_told,
    "input_audio_buffer.cleared": Session._cleared,
    "input_audio_buffer.committed": Session._committed,
    "conversation.item.input_audio_transcription.completed": Session._transcribed,
    "conversation.item.input_audio_transcription.failed": Session._transcribed,
    "response.created": Session._began,
    "response.done": Session._ended,
}


def _is_short(standing: _Standing | None, now: int, waiting_ms: int) -> bool:
    return standing is None or now >= standing.renew_at or waiting_ms > standing.room_ms


def _of_response(request: Request) -> ResponseRequest:
    assert isinstance(request, ResponseRequest)
    return request
