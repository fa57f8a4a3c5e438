"""`guard.call(...)`: put any call under a budget, whatever makes it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

from budgetguard.core.accounts import check_id
from budgetguard.core.labels import check_labels
from budgetguard.core.money import to_usd
from budgetguard.core.usage import Usage
from budgetguard.engine.background import background
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.context import enter_frame, leave_frame, place_of_block
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import Flow, Work, adrive, drive, reserving
from budgetguard.engine.links import Frame, Place, current, used_in
from budgetguard.engine.outcomes import UNREADABLE, Abandoned, NotCharged, Outcome, Unknown
from budgetguard.errors import ConfigurationError, UnpricedAnswerError
from budgetguard.providers.answer_shapes import ItemAccumulator
from budgetguard.providers.counted_call import CAP, CountedCall
from budgetguard.providers.functions import FunctionCall, check_target, checked_count, request_body
from budgetguard.providers.told import outcome_told

logger = logging.getLogger("budgetguard")

Stage: TypeAlias = Literal["new", "open", "settled", "voided", "left"]

_WAS: Final[Mapping[Stage, str]] = {
    "new": "has not begun: use `with guard.call(...) as call:`, or call.begin()",
    "settled": "is settled already: settle it once, with all that it cost",
    "voided": "is void already: nothing is held for it any more",
    "left": "is over: settle it inside its `with` block, or before call.end()",
}


@dataclass(frozen=True, slots=True)
class CallProjection:
    """What a call is projected to cost at most, which is what is held for it.

    Attributes:
        cost: USD.
        usage: the units projected, `input_tokens` and `output_tokens` among them.
        output_cap: the cap on the output tokens of each choice; None where there is none.
        cap_assumed: whether the call set no cap, so that one was assumed.
    """

    cost: Decimal
    usage: Usage
    output_cap: int | None
    cap_assumed: bool


class _Shown:
    """What a stream has shown of a call so far.

    Attributes:
        seen: output tokens, as its program counts them.
        pieces: what its program was fed with; None if it was not.
    """

    def __init__(self, request: FunctionCall) -> None:
        self._request = request
        self.seen = 0
        self.pieces: ItemAccumulator | None = None

    def given_up(self) -> Outcome:
        """Return the outcome of a stream that goes no further."""
        if self.pieces is None:
            return Abandoned(self.seen)
        try:
            outcome = self._request.outcome_of_partial_stream(self.pieces)
        except Exception:
            logger.exception("budgetguard: what was streamed could not be read; the projection is booked")
            return UNREADABLE
        if isinstance(outcome, Abandoned) and outcome.seen < self.seen:
            outcome = replace(outcome, seen=self.seen)
        return outcome

    def whole(self, pieces: ItemAccumulator) -> Outcome:
        """Return the outcome of a stream that was read to its end.

        Raises:
            ConfigurationError: no cost can be read from it.
        """
        try:
            return self._request.outcome_of_stream(pieces)
        except UnpricedAnswerError as error:
            kind = "what it was fed with" if pieces.unread is None else pieces.unread.__name__
            raise ConfigurationError(
                f"call.settle(): no cost can be read from {kind}; pass the provider's whole answer, a Usage, "
                "(input_tokens, output_tokens), or cost=USD"
            ) from error


class BudgetedCall:
    """One call under a budget, as a `with` or an `async with` block around it.

    Entering projects the cost and holds it, or raises what refuses the call. Inside, `settle` books what the
    call cost and `void` gives the hold back. A block that is left without either is booked by how it was
    left: nothing, if an exception says that the provider did no work (it was never reached, or answered
    with a status of 4xx or 5xx); else as an unknown outcome, which the setting `unknown_outcome` prices;
    or, after `extend` or `feed`, as a stream given up: the input and the output seen.

    Where no block fits around the call, because two callbacks tell of its begin and its end, `begin` and
    `end` (`abegin` and `aend` in async programs) do what entering and leaving do. They may be called in
    different threads, tasks and contexts: who pays is who was current at the begin. A call that is garbage
    before its end is booked by what is known of it by then.

    Guarded calls made inside (of a patched client, say) pay for themselves; this one then gives back what
    it holds and is not charged.

    Args:
        engine: whose books.
        request: what is called, with which input.
        user: who pays; None for the current user.
        tags: labels of this call, beside the current ones.
        labels: likewise, by name.
    """

    def __init__(
        self,
        engine: Engine,
        request: FunctionCall,
        *,
        user: str | None,
        tags: tuple[str, ...],
        labels: Mapping[str, str],
    ) -> None:
        self._engine = engine
        self._request = request
        self._user = user
        self._tags = tags
        self._labels = labels
        self._stage: Stage = "new"
        self._call: GuardedCall | None = None
        self._frame: Frame | None = None
        self._pid = 0
        self._shown: _Shown | None = None
        self._unread = False
        self._call_off: Callable[[], bool] | None = None
        # What is booked when the block is left, where the store may not be waited for inside it.
        self._noted: Outcome | None = None
        self._answer: object = None
        self._is_async = False

    def __repr__(self) -> str:
        return f"<call of {self._request.model}, {self._stage}>"

    @property
    def projection(self) -> CallProjection:
        """What the call will cost at most.

        Raises:
            ConfigurationError: the block has not begun.
        """
        found = self._begun("projection").projection
        return CallProjection(to_usd(found.cost), found.usage, found.output_cap, found.cap_assumed)

    @property
    def model(self) -> str:
        """The model to call: the one given, or what the budget falls back to if `sends_model` was said."""
        return self._request.model

    @property
    def max_output_tokens(self) -> int | None:
        """The output cap to send with the call: the one given, or what strict mode affords; None for none."""
        written = self._request.more.get(CAP)
        return self._request.given_cap if written is None else written

    @property
    def caps(self) -> bool:
        """Whether strict mode has found an output cap, which is to be sent with the call."""
        return CAP in self._request.more

    @property
    def hold_id(self) -> str | None:
        """The hold's id, the same in events and records; None before the block."""
        return None if self._call is None else self._call.hold_id

    @property
    def cost(self) -> Decimal | None:
        """USD booked for the call, None before that: `async with` books when the block is left."""
        booked = None if self._call is None else self._call.booked
        return None if booked is None else to_usd(booked)

    def project(self) -> CallProjection:
        """Return what the call would cost at most, without holding anything: a question, not a call.

        Raises:
            UnknownModelError: there is no price for the model, or for a unit that it would use.
            ConfigurationError: the request cannot be right.
            StoreError: the store, which knows how long answers are, failed.
        """
        found = self._request.project(self._engine.prices, self._engine.learned.cap)[1]
        return CallProjection(to_usd(found.cost), found.usage, found.output_cap, found.cap_assumed)

    def settle(
        self,
        answer: object = None,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost: int | float | Decimal | None = None,
    ) -> None:
        """Book what the call cost. Of the ways to say it, one is enough; none after `feed` of all pieces.

        Args:
            answer: the provider's answer (an SDK's object, a dict or JSON text of any known shape, or plain
                text, whose tokens are counted), a `Usage`, or (input tokens, output tokens).
            input_tokens: with `output_tokens`, in place of an answer.
            output_tokens: with `input_tokens`, in place of an answer.
            cost: USD that the call cost, whatever the price list says.

        Raises:
            ConfigurationError: nothing of this tells a cost, or the call is settled, void or over; nothing
                was booked. If the block is then left without another `settle`, the projection is booked.
        """
        call = self._open("settle")
        self._unread = True
        nothing = answer is None and input_tokens is None and output_tokens is None and cost is None
        if nothing and self._shown is not None and self._shown.pieces is not None:
            outcome = self._shown.whole(self._shown.pieces)
        else:
            outcome = outcome_told(self._request, answer, input_tokens, output_tokens, cost)
        self._answer = answer
        self._end("settled", call, outcome)

    def void(self, reason: str = "voided by the program") -> None:
        """Give back what is held: the provider did no work.

        Args:
            reason: why, for events.

        Raises:
            ConfigurationError: the call is settled, void or over; nothing was changed.
        """
        self._end("voided", self._open("void"), NotCharged(reason))

    def extend(self, output_tokens: int) -> None:
        """Report the output tokens that a stream has written so far; holds more once they exceed the hold.

        Raises:
            BudgetExceededError: no account has more, and `on_stream_exceeded` is `stop`.
            ConfigurationError: no whole number, or the call is settled, void or over.
        """
        call = self._open("extend")
        shown = self._showing(call)
        shown.seen = max(shown.seen, checked_count(output_tokens, "output_tokens"))
        if call.output_held is not None and shown.seen > call.output_held:
            call.extend(shown.seen)

    def feed(self, piece: object) -> None:
        """Read a piece of the answer as it comes: text, or what an SDK's or a framework's stream yields.

        Holds more once the pieces exceed the hold. `settle()` then books what they tell of the whole answer,
        and a call that ends without it the input and what they have shown.

        Args:
            piece: of any known shape; of another one, what text it has is counted.

        Raises:
            BudgetExceededError: no account has more, and `on_stream_exceeded` is `stop`.
            ConfigurationError: the call is settled, void or over.
        """
        call = self._open("feed")
        shown = self._showing(call)
        if shown.pieces is None:
            shown.pieces = ItemAccumulator(self._request.model)
        try:
            shown.pieces.feed(piece)
            held = call.output_held
            seen = None if held is None else shown.pieces.seen_beyond(held)
        except Exception:
            logger.exception("budgetguard: a piece of an answer could not be read")
            return
        if seen is not None:
            call.extend(seen)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Do in a `with` what the call is not made of, such as a tool that its answer asks for.

        Guarded calls in there pay for themselves, and this call pays as well.
        """
        frame = self._frame
        before, inside = current.frame, frame is not None and self._stage == "open"
        if frame is not None and inside:
            current.frame = frame.outer
        try:
            yield
        finally:
            if inside:
                current.frame = before

    def begin(self, within: FrameType | CodeType | None = None) -> Self:
        """Project and hold, as entering the block does.

        Args:
            within: the frame of the function that makes the call (or its code, for any of its frames), if
                it runs for as long as the call does: guarded calls are inside this one only while it is on
                the stack. Calls that are begun within one frame are a batch, and not inside each other. By
                default all calls made in this context until the end are inside.

        Raises:
            BudgetGuardError: what refuses the call; nothing is held.
            ConfigurationError: it was begun before.
        """
        drive(self._entering(_place(within), batch=True))
        self._look_after()
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End the call as leaving the block does; never raises what booking does. A second end does nothing.

        Args:
            error: what the call raised, if it did.
        """
        drive(self._leaving(error))

    async def abegin(self, within: FrameType | CodeType | None = None) -> Self:
        """Begin as `begin` does, without keeping the event loop waiting for the store."""
        self._is_async = True
        await adrive(self._entering(_place(within), batch=True))
        self._look_after()
        return self

    async def aend(self, error: BaseException | None = None) -> None:
        """End as `end` does, without keeping the event loop waiting for the store."""
        await adrive(self._leaving(error))

    def __enter__(self) -> Self:
        drive(self._entering(place_of_block(used_in(sys._getframe(1)))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        drive(self._leaving(error))

    async def __aenter__(self) -> Self:
        self._is_async = True
        await adrive(self._entering(place_of_block(used_in(sys._getframe(1)))))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await adrive(self._leaving(error))

    def _entering(self, place: Place | None, *, batch: bool = False) -> Flow:
        call = self._begin(place if batch else None)
        yield from reserving(call)
        self._call = call
        self._stage = "open"
        self._frame = enter_frame(call, place)
        call.sent()

    def _leaving(self, error: BaseException | None) -> Flow:
        call, outcome = self._call, self._leave(error)
        if call is None or outcome is None:
            return
        finish = partial(call.finish, outcome)
        if isinstance(error, GeneratorExit):
            # The garbage collector closes generators anywhere, inside a store as well.
            background.put(finish)
        else:
            yield Work(finish, call.blocking)
            self._remember(call)

    def _begin(self, beside: Place | None) -> GuardedCall:
        if self._stage != "new":
            raise ConfigurationError(
                "this block was entered before: make another guard.call(...) for each call"
            )
        self._stage = "left"  # until it is entered as a whole
        self._pid = os.getpid()
        background.start()  # finalizers may need it
        call = GuardedCall(
            self._engine, self._request, user=self._user, tags=self._tags, labels=self._labels, beside=beside
        )
        call.keep(self)
        return call

    def _leave(self, error: BaseException | None) -> Outcome | None:
        """End the block, and return what is still to be booked."""
        stage, self._stage = self._stage, "left"
        if self._call_off is not None:
            self._call_off()
        if self._frame is not None:
            leave_frame(self._frame)
            self._frame.call.closed = True
        if stage != "open":
            return self._noted
        if self._pid != os.getpid():
            return None  # a forked child leaves a copy of the block
        if self._shown is not None:
            return self._shown.given_up()
        if self._unread:
            return UNREADABLE
        return Unknown("not settled") if error is None else self._request.outcome_of_error(error)

    def _showing(self, call: GuardedCall) -> _Shown:
        if self._shown is None:
            self._shown = _Shown(self._request)
            call.left_as(self._shown.given_up)  # which must not keep this block
        return self._shown

    def _look_after(self) -> None:
        """Have it ended once it is garbage, also where nothing else collects garbage."""
        if self._call is not None:
            self._call_off = self._call.look_after(self)

    def _begun(self, what: str) -> GuardedCall:
        if self._call is None:
            raise ConfigurationError(f"call.{what}: this call {_WAS['new']}")
        return self._call

    def _open(self, what: str) -> GuardedCall:
        call = self._begun(what)
        if self._stage != "open":
            raise ConfigurationError(f"call.{what}(): this call {_WAS[self._stage]}")
        return call

    def _end(self, stage: Stage, call: GuardedCall, outcome: Outcome) -> None:
        self._stage = stage
        call.closed = True
        if self._is_async and call.blocking:
            self._noted = outcome
            call.left_as(lambda: outcome)
        else:
            call.finish(outcome)
            self._remember(call)

    def _remember(self, call: GuardedCall) -> None:
        """Let a program that books answers itself find that this one is paid for."""
        answer, self._answer = self._answer, None
        if answer is not None:
            call.remember(answer)


def _place(within: FrameType | CodeType | None) -> Place | None:
    if within is None or isinstance(within, CodeType):
        return within and (None, within)
    return id(within), within.f_code


def call_block(
    engine: Engine,
    *,
    model: str,
    messages: object = None,
    input: object = None,
    input_tokens: int | None = None,
    max_output_tokens: int | None = None,
    request: Mapping[str, Any] | None = None,
    provider: str | None = None,
    base_url: str | None = None,
    sends_cap: bool = True,
    sends_model: bool = False,
    endpoint: str = "call",
    user: str | None = None,
    tags: str | Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> BudgetedCall:
    """Return the block for one call; see `Guard.call`.

    Raises:
        ConfigurationError: a bad argument.
    """
    check_target(model, provider, base_url)
    given = [
        name
        for name, value in (("messages", messages), ("input", input), ("input_tokens", input_tokens))
        if value is not None
    ]
    if len(given) != 1:
        said = f"not {' and '.join(given)}" if given else "and none is given"
        raise ConfigurationError(f"guard.call needs one of messages=, input= and input_tokens=, {said}")
    if max_output_tokens is not None:
        checked_count(max_output_tokens, "max_output_tokens")
    if request is not None and not isinstance(request, Mapping):
        raise ConfigurationError(
            f'request is a mapping such as {{"tools": [...]}}, not {type(request).__name__}'
        )
    if request and input_tokens is not None:
        raise ConfigurationError("request= is counted with messages= or input=: count it into input_tokens")
    endpoint = check_id(endpoint, name="endpoint")
    given_tags = (tags,) if isinstance(tags, str) else tuple(tags)
    settings = engine.settings
    options: dict[str, Any] = {
        "provider": provider,
        "base_url": base_url,
        "free": base_url is not None and settings.is_free(base_url),
        "names_model": sends_model,
    }
    name = settings.model_of(model)
    call: FunctionCall
    if input_tokens is not None:
        count = checked_count(input_tokens, "input_tokens")
        call = CountedCall(name, count, max_output_tokens, sends_cap=sends_cap, **options)
    else:
        row, body = request_body(request or {}, messages if input is None else input, max_output_tokens)
        cap = CAP if max_output_tokens is None and sends_cap else None
        call = FunctionCall("call", name, row, body, None, cap=cap, **options)
    call.endpoint = endpoint
    call.given_cap = max_output_tokens
    return BudgetedCall(
        engine,
        call,
        user=None if user is None else check_id(user, name="user"),
        tags=tuple(check_id(tag, name="each tag") for tag in given_tags),
        labels=check_labels(labels or {}),
    )
