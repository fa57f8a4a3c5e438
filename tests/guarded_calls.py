"""What tests of guarded calls share: a guard with round prices, a scripted request, a store with gates."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import budgetguard
from budgetguard import Guard, Usage
from budgetguard.core.accounts import Balance
from budgetguard.core.holds import Hold
from budgetguard.core.usage import Reported
from budgetguard.engine.background import background
from budgetguard.engine.outcomes import Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import LearnedCap, ProviderCall
from budgetguard.errors import StoreError, UnpricedAnswerError
from budgetguard.events import Event
from budgetguard.pricing.book import PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.stores.base import Store, open_store

MODEL = "round-model"
"""A model at $1 per million input tokens and $2 per million output tokens: 1 000 and 2 000 Nanos each."""

HELLO = [{"role": "user", "content": "Say hello."}]


def make_guard(store: str | Store = "memory://", **settings: Any) -> Guard:
    """Return a guard of project `p` whose user `u` has $1."""
    guard = Guard(store=store, project="p", **settings)
    guard.register_price(MODEL, input=1, output=2)
    guard.set_budget(1, user="u")
    return guard


def completion(inputs: int = 100, outputs: int = 10, **more: Any) -> dict[str, Any]:
    """Return an answer that costs inputs * 1 000 + outputs * 2 000 Nanos."""
    usage = {"prompt_tokens": inputs, "completion_tokens": outputs, "total_tokens": inputs + outputs}
    return {"id": "answer-1", "model": MODEL, "usage": usage, "choices": [], **more}


def record(guard: Guard) -> list[Event]:
    """Return a list that fills with the guard's events."""
    seen: list[Event] = []
    guard.on(seen.append)
    return seen


def names(events: list[Event]) -> list[str]:
    """Return what kinds of events these are."""
    return [type(event).__name__ for event in events]


class AsItIs:
    """What asks for one hold and takes nothing else: see `engine.Reserving`."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold

    def judged_again(self) -> Hold:
        return self.hold

    def instead(self, refused: Balance) -> None:
        return None

    def refused(self, hold: Hold, balance: Balance) -> tuple[Hold, Balance, str]:
        return hold, balance, ""

    def wait(self, refused: Balance) -> None:
        return None


def drain() -> None:
    """Wait until the background has done what was put to it."""
    background.finish()


def nanos(guard: Guard, user: str = "u") -> tuple[int, int]:
    """Return what a user has spent and what is held, in Nanos."""
    balance = guard.balance(user)
    return balance.spent_nanos, balance.held_nanos


class StatusError(Exception):
    """What an SDK raises when the provider answers with an error."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


class Scripted(ProviderCall):
    """A request projected at 300 000 Nanos, 100 000 of them for input; a whole number answers it."""

    endpoint = "scripted"
    model = MODEL

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        usage = Usage.of(input_tokens=100, output_tokens=100)
        projected = Projection(MODEL, usage, 100, 100, 300_000, 100_000, cap_assumed=False)
        return book.rates(MODEL), projected

    def outcome(self, answer: Any) -> Outcome:
        if isinstance(answer, int):
            return Answered(Reported(Usage.of(input_tokens=answer)))
        raise UnpricedAnswerError("no whole number")

    def outcome_of_error(self, error: BaseException) -> Outcome:
        return NotCharged("4xx") if isinstance(error, StatusError) else Unknown(type(error).__name__)


class GatedStore:
    """A real store whose verbs can be made to wait, or to fail as a broken one does."""

    blocking = True

    def __init__(self, url: str = "memory://", project: str = "p") -> None:
        self._inner = open_store(url, project=project)
        self.url = self._inner.url
        self.project = project
        self.gates: Mapping[str, threading.Event] = {}
        self.reached = threading.Event()
        self.broken: frozenset[str] = frozenset()
        self.sent: list[str] = []

    def _pass(self, verb: str) -> None:
        self.sent.append(verb)
        if verb in self.gates:
            self.reached.set()
            assert self.gates[verb].wait(30)
        if verb in self.broken:
            raise StoreError(f"cannot {verb}: the test broke it")

    def reserve(self, hold: Any) -> Any:
        self._pass("reserve")
        return self._inner.reserve(hold)

    def settle(self, hold: Any, settlement: Any) -> Any:
        self._pass("settle")
        return self._inner.settle(hold, settlement)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


__all__ = [
    "HELLO",
    "MODEL",
    "GatedStore",
    "Scripted",
    "StatusError",
    "budgetguard",
    "completion",
    "drain",
    "make_guard",
    "names",
    "nanos",
    "record",
]
