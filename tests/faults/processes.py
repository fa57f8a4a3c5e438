"""The processes of a world, and the calls that they make."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final

from budgetguard import Guard
from budgetguard.core.holds import Hold
from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.background import engines
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.flow import Flow, Step
from budgetguard.engine.outcomes import Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.projection import Projection, projected
from budgetguard.engine.provider_call import LearnedCap, ProviderCall
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import Rates
from tests.guarded_calls import MODEL, StatusError

TOKEN: Final = 1_000  # Nanos, in and out


@dataclass
class Stream:
    """An answer that is still being written."""

    call: GuardedCall
    seen: int = 0


class WorldRequest(ProviderCall):
    """A call of so many input tokens and at most so many output tokens."""

    endpoint = "world"
    model = MODEL

    def __init__(self, inputs: int, outputs: int) -> None:
        self._inputs = inputs
        self._outputs = outputs

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates = book.rates(MODEL)
        learned_cap(MODEL)
        units = {"input_tokens": self._inputs}, {"output_tokens": self._outputs}
        return rates, projected(MODEL, rates, *units, output_cap=self._outputs)

    def attach(self, answer: Any, call: GuardedCall) -> Any | None:
        return Stream(call) if answer == "stream" else None

    def outcome(self, answer: Any) -> Outcome:
        return Answered(Reported(Usage.of(input_tokens=answer), request_id=f"answer-{answer}"))

    def outcome_of_error(self, error: BaseException) -> Outcome:
        return NotCharged("4xx") if isinstance(error, StatusError) else Unknown(type(error).__name__)


class Cancelled(BaseException):
    """Stand for a task's cancellation."""


@dataclass
class Attempt:
    """One guarded call of one process, from its beginning to what must be in the books.

    Attributes:
        fate: Nanos that must be booked in the end; None as long as nobody can say.
        may_expire: its process died before it could say, so that its expiry may be booked instead.
    """

    process: Process
    call: GuardedCall
    flow: Flow
    context: Context
    step: Step | None = None
    begun: bool = False
    invoked: bool = False
    stream: Stream | None = None
    fate: int | None = None
    may_expire: bool = False
    extensions: list[Hold] = field(default_factory=list)

    @property
    def hold(self) -> Hold | None:
        return self.call._hold or self.call._refused


@dataclass(eq=False)
class Process:
    """A guard, what is under way in it, and what its background thread would do."""

    name: str
    guard: Guard
    attempts: list[Attempt] = field(default_factory=list)
    jobs: deque[Callable[[], object]] = field(default_factory=deque)

    def die(self) -> None:
        """Have nothing of it act any more: no flow's `finally`, no flush at exit."""
        for attempt in self.attempts:
            attempt.may_expire = True
            attempt.call._left = None
            if attempt.stream is None:
                attempt.context.run(_bury, attempt.flow)
        engines.discard(self.guard.engine)


class Background:
    """Stand for the thread that each process has: the world runs its jobs when their time has come."""

    def __init__(self) -> None:
        self.process: Process | None = None

    def start(self) -> None:
        """Do nothing: there is no thread."""

    def put(self, job: Callable[[], object]) -> None:
        assert self.process is not None
        self.process.jobs.append(job)

    def watch(self, thing: object, job: Callable[[], object]) -> object:
        """Watch nothing: the world says what becomes of a call that nobody goes on with."""
        return thing, job

    def finish(self) -> None:
        """Do nothing: the world runs what waits."""

    def after(self, _seconds: float, job: Callable[[], object]) -> None:
        self.put(job)


class Killed(BaseException):
    """End a flow of a killed process."""


def _bury(flow: Flow) -> None:
    """End a flow without taking any of the steps that it still asks for."""
    with suppress(Killed, StopIteration):
        flow.throw(Killed())
        while True:
            flow.send(None)
