"""A budget of ten calls lets ten out, whoever asks at once: over real sockets, to the Nano."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import openai
import pytest

from budgetguard.config import Settings
from budgetguard.core.money import Nanos, to_usd
from budgetguard.core.usage import Usage
from budgetguard.engine.engine import Engine
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetExceededError
from budgetguard.pricing.book import PriceBook
from tests.adapters.clients import patch, unpatch
from tests.projecting import project_chat
from tests.provider.server import OpenAIServer, Reply

MODEL = "gpt-4o-mini"
BODY: Any = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "How many of us may pass?"}],
    "max_completion_tokens": 25,
}
CALLERS = 32
RATES = PriceBook().rates(MODEL)
PROJECTION = project_chat(BODY, MODEL, RATES)
PATIENCE = 60.0

Out = Callable[[bool], None]


@dataclass(frozen=True)
class Case:
    """How much each call is billed, what the budget is, and how many calls may pass."""

    billed_input: int
    limit: Nanos
    passed: tuple[int, ...]

    @property
    def cost(self) -> Nanos:
        return RATES.cost(Usage.of(input_tokens=self.billed_input, output_tokens=25))


EXACT = Case(PROJECTION.input_tokens, 10 * PROJECTION.cost, (10,))
"""Calls cost what was projected, so that ten pass, one after the other or at once."""
_LESS = Case(PROJECTION.input_tokens - 1, 0, ())
TIGHT = Case(_LESS.billed_input, 10 * _LESS.cost, (9, 10))
"""Ten actual costs, each a little below its projection: a tenth may not fit, an eleventh never."""

CASES = [
    pytest.param(EXACT, id="ten projections"),
    pytest.param(TIGHT, id="ten actual costs", marks=pytest.mark.full),
]
STORES: Any = ("memory", pytest.param("disk", marks=pytest.mark.full))


@contextmanager
def keeping(store: str, folder: Path, limit: Nanos) -> Iterator[Engine]:
    """Patch openai for an engine that gives each new user the budget; nobody made the user before.

    Args:
        store: `memory`, `disk`, or a URL.
        folder: where a disk store's is made.
        limit: the budget.
    """
    urls = {"memory": "memory://", "disk": f"disk://{folder / 'books'}"}
    engine = Engine(Settings(store=urls.get(store, store), default_budget=to_usd(limit)))
    patch(engine)
    try:
        with budget_user("1234"):
            yield engine
    finally:
        unpatch()
        engine.store.close()


def call(client: openai.OpenAI, *, stream: bool) -> bool:
    """Make a call to its end, and tell whether it was let out; errors are swallowed, as programs do."""
    try:
        if stream:
            list(client.chat.completions.create(**BODY, stream=True))
        else:
            client.chat.completions.create(**BODY)
    except BudgetExceededError:
        return False
    return True


async def acall(client: openai.AsyncOpenAI, *, stream: bool) -> bool:
    try:
        if stream:
            async for _ in await client.chat.completions.create(**BODY, stream=True):
                pass
        else:
            await client.chat.completions.create(**BODY)
    except BudgetExceededError:
        return False
    return True


def threads(base_url: str, tell: Out, *, stream: bool = False, count: int = CALLERS) -> None:
    """Call from threads that share a client and begin together."""
    barrier = threading.Barrier(count)
    with openai.OpenAI(base_url=base_url, api_key="test", max_retries=0) as client:

        def one(_: int) -> None:
            with budget_user("1234"):
                barrier.wait()
                tell(call(client, stream=stream))

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(one, range(count)))


def tasks(base_url: str, tell: Out, *, stream: bool = False) -> None:
    """Call from tasks that share a client."""

    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="test", max_retries=0) as client:

            async def one() -> None:
                tell(await acall(client, stream=stream))

            await asyncio.gather(*(one() for _ in range(CALLERS)))

    with budget_user("1234"):
        asyncio.run(run())


CROWDS = {
    "32 threads": threads,
    "32 tasks": tasks,
    "32 streams in threads": lambda url, tell: threads(url, tell, stream=True),
    "32 streams in tasks": lambda url, tell: tasks(url, tell, stream=True),
}


def reply(case: Case, gate: threading.Event | None = None) -> Reply:
    return Reply(prompt_tokens=case.billed_input, completion_tokens=25, chunks=5, pause_after=2, gate=gate)


def check(engine: Engine, server: OpenAIServer, case: Case, passed: int) -> None:
    """The server saw as many calls as may pass, and the books are what it billed."""
    assert passed in case.passed
    assert server.count() == passed
    billed = sum(
        RATES.cost(Usage.of(input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"]))
        for used in server.billed
    )
    assert billed == passed * case.cost
    balance = engine.store.read("user:1234")
    assert balance is not None
    assert (balance.limit_nanos, balance.spent_nanos, balance.held_nanos) == (case.limit, billed, 0)


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("store", STORES)
def test_of_thirty_calls_in_a_row_ten_go_out(store: str, stream: bool, case: Case, tmp_path: Path) -> None:
    with (
        OpenAIServer(reply(case)) as server,
        keeping(store, tmp_path, case.limit) as engine,
        openai.OpenAI(base_url=server.base_url, api_key="test") as client,
    ):
        passed = sum(call(client, stream=stream) for _ in range(30))
        check(engine, server, case, passed)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("store", STORES)
def test_of_thirty_two_calls_at_once_ten_go_out(store: str, crowd: str, case: Case, tmp_path: Path) -> None:
    gate = threading.Event()
    told: list[bool] = []
    with OpenAIServer(reply(case, gate)) as server, keeping(store, tmp_path, case.limit) as engine:
        running = threading.Thread(target=CROWDS[crowd], args=(server.base_url, told.append))
        running.start()
        try:
            # Everybody is refused or in flight: nobody was let out because somebody was done.
            assert wait_for(lambda: len(told) + server.in_flight == CALLERS)
            in_flight = server.in_flight
            assert not any(told)
        finally:
            gate.set()
            running.join(PATIENCE)
        assert (len(told), sum(told)) == (CALLERS, in_flight)
        check(engine, server, case, in_flight)


def _process(store: str, folder: Path, limit: Nanos, base_url: str, told: Any) -> None:
    with keeping(store, folder, limit):
        threads(base_url, told.put, count=8)


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_of_four_processes_with_eight_threads_ten_calls_go_out(case: Case, tmp_path: Path) -> None:
    """All begin on an empty folder, so they also race to make the store and the user's budget."""
    processes_let_ten_out("disk", case, tmp_path)


def processes_let_ten_out(store: str, case: Case, tmp_path: Path) -> None:
    """Call from four processes of eight threads at once, on a store without the user."""
    gate = threading.Event()
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    answers: list[bool] = []

    def collect() -> int:
        while True:
            try:
                answers.append(told.get_nowait())
            except Empty:
                return len(answers)

    with OpenAIServer(reply(case, gate)) as server:
        processes = [
            context.Process(target=_process, args=(store, tmp_path, case.limit, server.base_url, told))
            for _ in range(4)
        ]
        for process in processes:
            process.start()
        try:
            assert wait_for(lambda: collect() + server.in_flight == CALLERS)
            in_flight = server.in_flight
            assert not any(answers)
        finally:
            gate.set()
            assert wait_for(lambda: collect() == CALLERS)
            for process in processes:
                process.join(PATIENCE)
        assert [process.exitcode for process in processes] == [0] * 4
        assert sum(answers) == in_flight
        with keeping(store, tmp_path, case.limit) as engine:
            check(engine, server, case, in_flight)
