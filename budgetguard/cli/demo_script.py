"""The demo's script: two users ask one model questions until one of them is refused."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from budgetguard.core.money import Nanos, ceil_nanos
from budgetguard.errors import BudgetExceededError, BudgetGuardError
from budgetguard.guard import Guard

if TYPE_CHECKING:
    from openai import OpenAI

MODEL: Final = "gpt-4o-mini"
PROJECT: Final = "budgetguard-demo"
_MOST_CALLS = 50
_QUESTIONS = (
    "Why is the sky blue?",
    "How do bees find their way home?",
    "What is a budget for?",
    "Who invented double-entry bookkeeping?",
    "How do tides work?",
)
_ANSWER_TOKENS = (180, 260, 140, 320, 200, 240)


@dataclass(frozen=True, slots=True)
class Person:
    """What one user does.

    Attributes:
        name: the user's id.
        limit: USD a day.
        threads: how many calls are under way at once.
        calls: how many calls each thread makes; None is until one is refused.
    """

    name: str
    limit: Decimal
    threads: int
    calls: int | None


@dataclass(frozen=True, slots=True)
class DemoScript:
    """What the demo does.

    Attributes:
        people: who calls.
        cap: output tokens that each call allows.
        answer_after: seconds that the provider on loopback takes.
        pause: seconds between the calls of a thread.
    """

    people: tuple[Person, ...]
    cap: int
    answer_after: float = 0.0
    pause: float = 0.0


LOCAL: Final = (
    Person("alice", Decimal("0.01"), threads=3, calls=3),
    Person("bob", Decimal("0.001"), threads=1, calls=None),
)
LIVE: Final = (
    Person("alice", Decimal("0.005"), threads=2, calls=1),
    Person("bob", Decimal("0.0001"), threads=1, calls=None),
)


@dataclass(slots=True)
class Result:
    """How the demo went.

    Attributes:
        spent: user -> Nanos in the books.
        billed: user -> Nanos that the provider bills.
        calls: user -> calls that the provider answered.
        refusals: user -> the first refusal.
    """

    spent: dict[str, Nanos] = field(default_factory=dict)
    billed: dict[str, Nanos] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, BudgetExceededError] = field(default_factory=dict)

    @property
    def books_equal_bills(self) -> bool:
        """Whether every user's books equal the bills to the Nano."""
        return self.spent == self.billed


class Bills:
    """What the provider bills, added up without budgetguard's own pricing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.nanos: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def add(self, user: str, usage: Mapping[str, Any]) -> None:
        """Count one bill, in the shape in which the provider reports usage."""
        from genai_prices import Usage, calc_price

        details = usage.get("prompt_tokens_details") or {}
        price = calc_price(
            Usage(
                input_tokens=usage["prompt_tokens"],
                output_tokens=usage["completion_tokens"],
                cache_read_tokens=details.get("cached_tokens") or None,
            ),
            MODEL,
            provider_id="openai",
        )
        with self._lock:
            self.nanos[user] += ceil_nanos(price.total_price)
            self.calls[user] += 1


@contextmanager
def local_provider(script: DemoScript, bills: Bills) -> Iterator[OpenAI]:
    """Run an OpenAI-compatible server on loopback, yield the real client of it, then add up its bills."""
    import openai

    from budgetguard.testing.openai_server import OpenAIServer, Reply

    tokens = {person.name: itertools.cycle(_ANSWER_TOKENS) for person in script.people}

    def reply(body: Mapping[str, Any]) -> Reply:
        count = min(next(tokens[body["user"]]), script.cap)
        return Reply(completion_tokens=count, delay=script.answer_after * count / max(_ANSWER_TOKENS))

    # Straight to loopback, whatever proxy the environment names.
    with (
        OpenAIServer(reply=reply) as server,
        openai.DefaultHttpxClient(trust_env=False) as http_client,
        openai.OpenAI(
            base_url=server.base_url, api_key="no-key-needed", max_retries=0, http_client=http_client
        ) as client,
    ):
        yield client
        for request in server.requests:
            if request.billed is not None:
                bills.add(request.body["user"], request.billed)


def open_budgets(guard: Guard, script: DemoScript, *, cap: Decimal | None = None) -> None:
    """Make the demo's budgets, with nothing spent.

    Args:
        guard: on the demo's own project, so that no other budget is touched.
        script: who needs one.
        cap: USD for all of them together, if any.
    """
    if cap is not None:
        guard.set_budget(cap, duration="daily")
        guard.reset()
    for person in script.people:
        guard.set_budget(person.limit, user=person.name, duration="daily")
        guard.reset(person.name)


def play(guard: Guard, client: OpenAI, script: DemoScript, bills: Bills | None = None) -> Result:
    """Make the calls.

    Args:
        guard: whose budgets these are.
        client: a client that the guard has wrapped.
        script: what to do.
        bills: takes the usage that each answer reports, where no server tells what it billed.

    Raises:
        BudgetGuardError: a call failed for another reason than its budget.
    """
    result = Result()
    stop = threading.Event()

    def work(person: Person, first: int) -> None:
        calls = range(first, first + (person.calls or _MOST_CALLS))
        with guard.budget_user(person.name):
            for number in calls:
                if stop.is_set():
                    return
                try:
                    _ask(client, person.name, number, script.cap, bills)
                except BudgetExceededError as error:
                    result.refusals.setdefault(person.name, error)
                    return
                stop.wait(script.pause)

    jobs = [
        (person, thread * (person.calls or 0)) for person in script.people for thread in range(person.threads)
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:
        running = []
        for job in jobs:
            running.append(pool.submit(work, *job))
            time.sleep(script.pause / 2)
        try:
            for one in running:
                one.result()
        finally:
            stop.set()
    for person in script.people:
        result.spent[person.name] = guard.balance(person.name).spent_nanos
    return result


def _ask(client: OpenAI, user: str, number: int, cap: int, bills: Bills | None) -> None:
    from openai import OpenAIError

    question = _QUESTIONS[number % len(_QUESTIONS)]
    try:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            max_completion_tokens=cap,
            user=user,
        )
    except OpenAIError as error:
        raise BudgetGuardError(f"a call to {client.base_url} failed: {error}") from error
    if bills is not None and answer.usage is not None:
        bills.add(user, answer.usage.model_dump())
