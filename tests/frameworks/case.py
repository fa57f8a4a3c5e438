"""One integration in the table: how it guards, how its framework calls, and what comes of a call."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import openai

from budgetguard import Guard
from budgetguard.core.money import to_nanos
from budgetguard.core.usage import Usage
from budgetguard.errors import BudgetExceededError
from budgetguard.events import Event
from budgetguard.pricing.book import PriceBook
from tests.provider.server import OpenAIServer

# The columns of the table.
CALL: Final = "call"
STREAM: Final = "stream"
ASYNC_CALL: Final = "async call"
ASYNC_STREAM: Final = "async stream"
COLUMNS: Final = (CALL, STREAM, ASYNC_CALL, ASYNC_STREAM)

MODEL: Final = "gpt-4o-mini"
ASK: Final = "Say hello to the people in the room."
# What the server says: long enough to be left in the middle, short of what is projected.
WORDS: Final = " ".join(f"word{number}" for number in range(60))
USER: Final = "1234"
# USD: more than any call costs, and less than any is projected at.
RICH: Final = 10
POOR: Final = 0.0000001


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call is made.

    Attributes:
        base_url: of the server.
        guard: whose budgets.
        opened: clients to be closed when the call is over.
    """

    base_url: str
    guard: Guard
    opened: list[Any] = field(default_factory=list)

    def client(self) -> Any:
        """Return a client of openai's."""
        return self._opened(openai.OpenAI(base_url=self.base_url, api_key="test", max_retries=0))

    def aclient(self) -> Any:
        """Return an async client of openai's."""
        return self._opened(openai.AsyncOpenAI(base_url=self.base_url, api_key="test", max_retries=0))

    def http(self) -> Any:
        """Return an HTTP client for one of openai's."""
        return self._opened(openai.DefaultHttpxClient())

    def ahttp(self) -> Any:
        """Return an async HTTP client for one of openai's."""
        return self._opened(openai.DefaultAsyncHttpxClient())

    def _opened(self, client: Any) -> Any:
        self.opened.append(client)
        return client


@dataclass(frozen=True, eq=False)
class Way:
    """Hold one way of making one paid call.

    Attributes:
        column: of the table.
        name: what sets it apart from other ways of the column.
        make: makes the call, to its end; a coroutine function where the way is async.
        cut: makes it, and leaves in the middle of the answer; None where it cannot be left.
    """

    column: str
    name: str
    make: Callable[[Place], Any]
    cut: Callable[[Place], Any] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Say what the program gets where a call was refused.

    Attributes:
        words: for the table.
        fits: whether an error is that.
    """

    words: str
    fits: Callable[[BaseException], bool]


def refusal_in(error: BaseException | None) -> BudgetExceededError | None:
    """Return the refusal that an error was raised from, as its cause, or that it is."""
    while error is not None and not isinstance(error, BudgetExceededError):
        error = error.__cause__
    return error


ITSELF: Final = Refusal("`BudgetExceededError`", lambda error: isinstance(error, BudgetExceededError))
CAUSE: Final = Refusal(
    "an error of the framework's, caused by it",
    lambda error: not ITSELF.fits(error) and refusal_in(error) is not None,
)
# With the status of what no other try can help.
TEXT: Final = Refusal(
    "an error of the framework's, with its text",
    lambda error: (
        refusal_in(error) is None
        and getattr(error, "status_code", getattr(error, "status", 0)) in (400, 402, 422)
        and "Budget has been exceeded" in str(error)
    ),
)


@dataclass(frozen=True, eq=False)
class Case:
    """Hold one row of the table.

    Attributes:
        framework: its name, and the package that has it.
        package: what is imported.
        by: what guards it, in words.
        ways: each makes one paid request.
        attempts: how often the framework tries, at most, what was refused.
        over: the SDK below that is patched, where nothing else guards.
        alone: it is not meant to stand over a patched client.
        refusal: what the program gets where a call was refused.
    """

    framework: str
    package: str
    by: str
    ways: tuple[Way, ...]
    attempts: int = 1
    over: str = ""
    alone: bool = False
    refusal: Refusal = ITSELF


@dataclass
class Books:
    """The user's books, beside the server that bills."""

    guard: Guard
    server: OpenAIServer
    events: list[Event]

    @property
    def place(self) -> Place:
        return Place(self.server.base_url, self.guard)

    @property
    def spent(self) -> int:
        return self.guard.balance(USER).spent_nanos

    @property
    def held(self) -> int:
        return self.guard.balance(USER).held_nanos

    def settle(self) -> None:
        """Have settled what was left in the middle: in an idle program, this is done every few seconds."""
        gc.collect()
        self.guard.engine.flush()

    @property
    def billed(self) -> int:
        """Price the server's own log, without any code that reads answers."""
        prices, total = PriceBook(), 0
        for record in self.server.requests:
            if (used := record.billed) is None:
                continue
            units = {
                "input_tokens": used.get("prompt_tokens", used.get("input_tokens", 0)),
                "output_tokens": used.get("completion_tokens", used.get("output_tokens", 0)),
            }
            details = used.get("prompt_tokens_details") or used.get("input_tokens_details") or {}
            units["cache_read_tokens"] = details.get("cached_tokens", 0)
            total += prices.rates(str(record.model)).cost(Usage(units))
        return total

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == kind]

    def booked(self) -> list[int]:
        """Return what calls were booked at, without those that cost nothing: Nanos."""
        return [to_nanos(event.cost) for event in self.of("Settled") if event.cost]


@contextmanager
def open_books(
    server: OpenAIServer, *, usd: float = RICH, patched: str = "", **settings: Any
) -> Iterator[Books]:
    """Be user 1234, who has `usd`; with an SDK patched, if one is named."""
    guard = Guard(store="memory://", project="p", **settings)
    guard.set_budget(usd, user=USER)
    events: list[Event] = []
    guard.on(events.append)
    if patched:
        guard.patch(patched)
    try:
        with guard.budget_user(USER):
            yield Books(guard, server, events)
    finally:
        if patched:
            guard.unpatch(patched)
        guard.engine.close()


def run(make: Callable[[Place], Any], place: Place) -> Any:
    """Make a call and return what it made; what awaits runs in a loop of its own."""
    steps = make(place)
    try:
        return asyncio.run(_awaited(steps, place)) if inspect.iscoroutine(steps) else steps
    finally:
        asyncio.run(close(place))


async def _awaited(steps: Any, place: Place) -> Any:
    try:
        return await steps
    finally:
        await close(place)


async def close(place: Place) -> None:
    """Close the clients that were opened."""
    while place.opened:
        client = place.opened.pop()
        closing = client.aclose() if hasattr(client, "aclose") else client.close()
        if inspect.isawaitable(closing):
            await closing
