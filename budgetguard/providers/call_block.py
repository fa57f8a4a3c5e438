"""`guard.call(...)`: put any call under a budget, whatever makes it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Final, Literal, Self, TypeAlias

from budgetguard.core.accounts import check_id
from budgetguard.core.money import to_nanos, to_usd
from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.background import background
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.context import enter_frame, leave_frame
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import Flow, Work, adrive, drive, reserving
from budgetguard.engine.links import Frame, used_in
from budgetguard.engine.outcomes import UNREADABLE, Abandoned, Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.projection import Projection, assumed_output_cap, projected
from budgetguard.engine.provider_call import LearnedCap
from budgetguard.errors import ConfigurationError, UnpricedAnswerError
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.functions import FunctionCall, check_target, checked_count, request_body
from budgetguard.providers.json import parsed

Stage: TypeAlias = Literal["new", "open", "settled", "voided", "left"]

_CAP: Final = "max_output_tokens"
_WAS: Final[Mapping[Stage, str]] = {
    "new": "has not begun: use `with guard.call(...) as call:`",
    "settled": "is settled already: settle it once, with all that it cost",
    "voided": "is void already: nothing is held for it any more",
    "left": "is over: settle it inside its `with` block",
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


class BudgetedCall:
    """One call under a budget, as a `with` or an `async with` block around it.

    Entering projects the cost and holds it, or raises what refuses the call. Inside, `settle` books what the
    call cost and `void` gives the hold back. A block that is left without either is booked by how it was
    left: nothing, if an exception says that the provider did no work (it was never reached, or answered
    with a status of 4xx or 5xx); else as an unknown outcome, which the setting `unknown_outcome` prices;
    or, after `extend`, as a stream given up: the input and the output seen.

    Guarded calls made inside (of a patched client, say) pay for themselves; this one then gives back what
    it holds and is not charged.

    Args:
        engine: whose books.
        request: what is called, with which input.
        user: who pays; None for the current user.
        tags: labels of this call, beside the current ones.
    """

    def __init__(
        self, engine: Engine, request: FunctionCall, *, user: str | None, tags: tuple[str, ...]
    ) -> None:
        self._engine = engine
        self._request = request
        self._user = user
        self._tags = tags
        self._stage: Stage = "new"
        self._call: GuardedCall | None = None
        self._frame: Frame | None = None
        self._pid = 0
        self._seen = 0
        self._unread = False
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
    def max_output_tokens(self) -> int | None:
        """The output cap to send with the call: the one given, or what strict mode affords; None for none."""
        written = self._request.more.get(_CAP)
        return self._request.given_cap if written is None else written

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
        """Book what the call cost. Of the ways to say it, one is enough.

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
        outcome = self._told(answer, input_tokens, output_tokens, cost)
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
        self._seen = max(self._seen, checked_count(output_tokens, "output_tokens"))
        call.left_as(Abandoned(self._seen))
        if call.output_held is not None and self._seen > call.output_held:
            call.extend(self._seen)

    def __enter__(self) -> Self:
        drive(self._entering(used_in(sys._getframe(1))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        drive(self._leaving(error))

    async def __aenter__(self) -> Self:
        self._is_async = True
        await adrive(self._entering(used_in(sys._getframe(1))))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await adrive(self._leaving(error))

    def _entering(self, block: FrameType | None) -> Flow:
        call = self._begin()
        yield from reserving(call)
        self._call = call
        self._stage = "open"
        self._frame = enter_frame(call, block)
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

    def _begin(self) -> GuardedCall:
        if self._stage != "new":
            raise ConfigurationError(
                "this block was entered before: make another guard.call(...) for each call"
            )
        self._stage = "left"  # until it is entered as a whole
        self._pid = os.getpid()
        background.start()  # finalizers may need it
        call = GuardedCall(self._engine, self._request, user=self._user, tags=self._tags)
        call.keep(self)
        return call

    def _leave(self, error: BaseException | None) -> Outcome | None:
        """End the block, and return what is still to be booked."""
        stage, self._stage = self._stage, "left"
        if self._frame is not None:
            leave_frame(self._frame)
            self._frame.call.closed = True
        if stage != "open":
            return self._noted
        if self._pid != os.getpid():
            return None  # a forked child leaves a copy of the block
        if self._seen:
            return Abandoned(self._seen)
        if self._unread:
            return UNREADABLE
        return Unknown("not settled") if error is None else self._request.outcome_of_error(error)

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
            call.left_as(outcome)
        else:
            call.finish(outcome)
            self._remember(call)

    def _remember(self, call: GuardedCall) -> None:
        """Let a program that books answers itself find that this one is paid for."""
        answer, self._answer = self._answer, None
        if answer is not None:
            call.remember(answer)

    def _told(
        self, answer: object, input_tokens: object, output_tokens: object, cost: int | float | Decimal | None
    ) -> Outcome:
        by_tokens = input_tokens is not None or output_tokens is not None
        if answer is None and not by_tokens and cost is None:
            raise ConfigurationError(
                "call.settle() needs what the call cost: the answer, a Usage, (input_tokens, output_tokens), "
                "or cost=USD; use call.void() if the provider did no work"
            )
        if answer is not None and by_tokens:
            raise ConfigurationError("call.settle() takes an answer or tokens, not both")
        billed = None if cost is None else to_nanos(cost, name="cost")
        if by_tokens:
            answer = input_tokens or 0, output_tokens or 0
        if answer is None:
            return Answered(Reported(usage=None), billed)
        if isinstance(answer, Usage):
            for unit, count in answer.units.items():
                checked_count(count, unit)
            return Answered(Reported(answer), billed)
        if isinstance(answer, tuple) and len(answer) == 2:
            units = zip(("input_tokens", "output_tokens"), answer, strict=True)
            usage = Usage.of(**{unit: checked_count(count, unit) for unit, count in units})
            return Answered(Reported(usage), billed)
        return self._read(answer, billed)

    def _read(self, answer: object, billed: int | None) -> Outcome:
        value = parsed(answer)
        try:
            # Text that is no JSON object is the answer's own.
            outcome = self._request.outcome(value if isinstance(value, Mapping) else answer)
        except UnpricedAnswerError as error:
            if billed is not None:
                return Answered(Reported(usage=None), billed)
            raise ConfigurationError(
                f"call.settle(): no cost can be read from {type(answer).__name__}; pass the provider's whole "
                "answer, a Usage, (input_tokens, output_tokens), or cost=USD"
            ) from error
        if billed is not None and isinstance(outcome, Answered):
            return Answered(outcome.reported, billed)
        return outcome


class CountedCall(FunctionCall):
    """A call whose input is given in tokens, not as text.

    Args:
        model: the model.
        input_tokens: of the whole input.
        cap: the output tokens that the call is capped at, if it is.
        options: see `FunctionCall`.
    """

    def __init__(self, model: str, input_tokens: int, cap: int | None, **options: Any) -> None:
        row, body = request_body({}, "", cap)
        super().__init__("call", model, row, body, None, cap=None if cap is not None else _CAP, **options)
        self._input_tokens = input_tokens
        self._output_cap = cap

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates = self.rates(book)
        cap = self._output_cap
        if cap is None:
            cap = learned_cap(self.model) or assumed_output_cap(self.model)
        projection = projected(
            self.model,
            rates,
            {"input_tokens": self._input_tokens},
            {"output_tokens": cap},
            cap_assumed=self._output_cap is None,
            output_cap=cap,
        )
        return rates, projection

    def input_tokens(self) -> int:
        return self._input_tokens


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
    endpoint: str = "call",
    user: str | None = None,
    tags: str | Sequence[str] = (),
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
    labels = (tags,) if isinstance(tags, str) else tuple(tags)
    settings = engine.settings
    options: dict[str, Any] = {
        "provider": provider,
        "base_url": base_url,
        "free": base_url is not None and settings.is_free(base_url),
    }
    name = settings.model_of(model)
    call: FunctionCall
    if input_tokens is not None:
        count = checked_count(input_tokens, "input_tokens")
        call = CountedCall(name, count, max_output_tokens, **options)
    else:
        row, body = request_body(request or {}, messages if input is None else input, max_output_tokens)
        cap = None if max_output_tokens is not None else _CAP
        call = FunctionCall("call", name, row, body, None, cap=cap, **options)
    call.endpoint = endpoint
    call.given_cap = max_output_tokens
    return BudgetedCall(
        engine,
        call,
        user=None if user is None else check_id(user, name="user"),
        tags=tuple(check_id(tag, name="each tag") for tag in labels),
    )
