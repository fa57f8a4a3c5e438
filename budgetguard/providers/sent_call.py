"""A request that an SDK's method sends, and the ways in which its answer comes back."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from budgetguard.core.usage import Reported
from budgetguard.engine.context import innermost_call
from budgetguard.engine.outcomes import NotCharged, Outcome, Unknown
from budgetguard.errors import BudgetExceededError, BudgetGuardError
from budgetguard.providers.answers import http_response
from budgetguard.providers.base import HttpCall
from budgetguard.providers.bedrock.event_stream import FrameReader, is_frames
from budgetguard.providers.body import BodyReader, EventReader, LineReader, WholeReader, outcome_of_events
from budgetguard.providers.coding import Coding
from budgetguard.providers.failures import was_never_sent
from budgetguard.providers.iterators import GuardedAsyncGenerator, GuardedGenerator
from budgetguard.providers.json import parsed
from budgetguard.providers.streams import coding_of, follow, is_event_stream, is_read, read_before

if TYPE_CHECKING:
    from budgetguard.engine.call import GuardedCall

_SOUND_KEPT: Final = 1_048_576


class FollowedCall(HttpCall):
    """A request whose answer may be an HTTP response that is still to be read.

    Attributes:
        streams: the answer was asked for as a stream.
    """

    streams = False
    _hide_usage = False

    def _follow(self, response: Any, call: GuardedCall) -> Outcome | None:
        """Have an unread response finish the call; return the outcome of one that was read already, if it is
        a stream: nobody else reads those."""
        if not is_read(response):
            follow(response, self._reader_of(response), call)
            return None
        if self.streams or is_event_stream(response) or is_frames(response):
            return read_before(response, self._reader_of(response, encoding=""))
        return None

    def _reader_of(self, response: Any, encoding: str | Coding | None = None) -> BodyReader:
        sound = response.headers.get("content-type", "").strip().lower().startswith("audio/")
        events = is_event_stream(response)
        # Servers name the kind of a stream as they like; what was asked for as one, the body itself decides.
        follows_events = events or (self.streams and not sound)
        if encoding is None:
            encoding = coding_of(response, changes=follows_events and self._hide_usage)
        if self._endpoint.streams and is_frames(response):
            return FrameReader(
                self._endpoint.accumulator(self.model), encoding=encoding, complete=self._complete
            )
        if self._endpoint.streams and not events and _is_lines(response):
            return LineReader(
                self._endpoint.accumulator(self.model), encoding=encoding, complete=self._complete
            )
        if self._endpoint.streams and follows_events:
            return EventReader(
                self._endpoint.accumulator(self.model),
                complete=self._complete,
                hide_usage=self._hide_usage,
                encoding=encoding,
                read=None if events else self._read,
            )
        # A recording's length is read from its beginning.
        return WholeReader(self._read, encoding=encoding, most=_SOUND_KEPT if sound else None)

    def _read(self, answer: object) -> Reported | NotCharged:
        if not hasattr(answer, "usage") and (response := http_response(answer)) is not None:
            answer = getattr(response, "_content", None)
        return super()._read(answer)


def _is_lines(response: Any) -> bool:
    """Whether a response says that it is a stream of JSON, a line for each event."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in ("application/stream+json", "application/x-ndjson", "application/jsonl")


class SentCall(FollowedCall):
    """A request that a method of an SDK sends which openai's generator has not made.

    The method returns the answer whole, as an HTTP response that is still to be read, or as a generator of
    its pieces.

    Args:
        content: an answer, or a piece of one -> the JSON, mapping or object that is read.
        rewrite: has the method send another body; None where it cannot, so that no cap is written.
        args: see `HttpCall`.

    Attributes:
        sender: the object whose method sends it.
        covers: the package whose own clients' requests are a part of it, "" if none are: it reads what they
            cost from its answer.
    """

    sender: object = None
    covers: str = ""

    def __init__(
        self,
        *args: Any,
        content: Callable[[Any], object] = lambda answer: answer,
        rewrite: Callable[[Mapping[str, Any]], None] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self._content = content
        self._rewrite = rewrite
        self._ended: Outcome | None = None
        self._failed: BaseException | None = None

    @property
    def takes_cap(self) -> bool:
        return self._rewrite is not None and super().takes_cap

    @property
    def takes_model(self) -> bool:
        return self._rewrite is not None and super().takes_model

    def _write(self, name: str, value: object) -> None:
        super()._write(name, value)
        if self._rewrite is not None:
            self._rewrite(self._sent.body)

    def note_failed_try(self, error: BaseException | None) -> None:
        """Count a try that was sent and never answered, after which the SDK may try again.

        Args:
            error: what it raised; None if it was answered, with an error, which costs nothing.
        """
        if error is not None and not was_never_sent(error):
            self.lost_tries += 1
            self._failed = error

    def outcome(self, answer: Any) -> Outcome:
        return self._ended or self._outcome_of(self._content(answer))

    def outcome_of_error(self, error: BaseException) -> Outcome:
        outcome = outcome_of_sdk_error(error)
        if error is self._failed and isinstance(outcome, Unknown):
            self.lost_tries -= 1  # it is this one
            self._failed = None
        return outcome

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        response = http_response(answer)
        if response is not None:
            self._failed = None
            if response.status_code >= _FIRST_ERROR:
                self._ended = NotCharged(f"HTTP {response.status_code}")
                return None
            unread = not is_read(response)
            self._ended = self._follow(response, call)
            return answer if unread else None
        if inspect.isgenerator(answer):
            return GuardedGenerator(call, lambda: answer, self.reader(), begun=True)
        if inspect.isasyncgen(answer):
            return GuardedAsyncGenerator(call, lambda: answer, self.reader(), begun=True)
        return None

    def reader(self) -> PieceReader:
        """Return what reads the cost from the pieces of the answer."""
        return PieceReader(self)

    def piece(self, item: Any) -> object:
        """Return what is to be read of a piece of the answer."""
        return parsed(self._content(item))


def is_covered(package: str) -> bool:
    """Whether a request of an SDK is a part of the call that we are inside, which pays for it.

    It is where the package sends it that the call is of; not where the program does, which that has called.

    Args:
        package: the SDK's, whose functions stand between.
    """
    call = innermost_call()
    covers = getattr(call.request, "covers", "") if call is not None and not call.is_over else ""
    if not covers:
        return False
    between = {"budgetguard", "wrapt", package.partition(".")[0]}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__")).partition(".")[0]
        if name not in between:
            return name == covers
        frame = frame.f_back
    return False


class PieceReader:
    """What the pieces of an endpoint's streamed answer tell of its cost; see `iterators.Reader`.

    Args:
        request: the call.
    """

    def __init__(self, request: SentCall) -> None:
        self._request = request
        self._events = request._endpoint.accumulator(request.model)
        self._any = False

    def feed(self, item: Any) -> None:
        self._any = True
        self._events.feed(self._request.piece(item))

    def seen_beyond(self, tokens: int) -> int | None:
        return self._events.seen_beyond(tokens)

    def outcome(self) -> Outcome:
        return self._outcome(over=True)

    def outcome_early(self, error: BaseException | None) -> Outcome:
        if error is not None and not self._any and not isinstance(error, BudgetExceededError):
            return self._request.outcome_of_error(error)
        return self._outcome(over=False)

    def _outcome(self, *, over: bool) -> Outcome:
        return outcome_of_events(self._events, over=over, complete=self._request._complete)


def outcome_of_sdk_error(error: BaseException) -> Outcome:
    """Classify the outcome of a call of which an SDK raised `error`.

    A status of 4xx or 5xx, wherever SDKs keep it, was not charged; nor was what never left.
    """
    if isinstance(error, BudgetGuardError):
        return NotCharged("a call inside was refused")
    status = _status_of(error)
    if status is not None:
        return NotCharged(f"HTTP {status}") if status >= _FIRST_ERROR else Unknown(type(error).__name__)
    if was_never_sent(error):
        return NotCharged("no connection")
    return Unknown(type(error).__name__)


_FIRST_ERROR: Final = 400
_LAST_ERROR: Final = 599


def _status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error tells, or None."""
    response: Any = getattr(error, "response", None)
    for holder, name in (
        (error, "status_code"),
        (error, "code"),
        (error, "http_status"),
        (response, "status_code"),
        (response, "status"),
    ):
        status = getattr(holder, name, None)
        if type(status) is int and 100 <= status <= _LAST_ERROR:
            return status
    if isinstance(response, dict):  # botocore's
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if type(status) is int else None
    return None
