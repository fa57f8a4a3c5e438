"""Ctrl-C, and signal handlers that use the guard: at any line of a guarded call, nothing is lost or hangs."""

from __future__ import annotations

import contextlib
import dis
import gc
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextvars import Context
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import httpx2
import openai
import pytest

from budgetguard import Guard, StoreError
from budgetguard.events import Projected
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, nanos, record

COST = 120_000
PAID = {"usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}}
CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]},
    {"choices": [], **PAID},
]


# After these the interpreter looks for signals: calls of C code, entries of functions, jumps backwards.
CHECKED = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}

STRIDE = 3
"""Every third place, for the time that it takes."""


class Interrupt:
    """Do something at the nth place of a call, in our code, where a signal handler may run."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._left = 0
        self._last = ""
        self._names: dict[CodeType, dict[int, str]] = {}
        self.done = False

    @contextlib.contextmanager
    def at(self, place: int) -> Iterator[None]:
        self._left, self._last, self.done = place, "", False
        # Python 3.12 looks for this when tracing begins, and else tells of no opcode of any frame.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if self.done:
            return None
        checked, self._last = self._last in CHECKED, ""
        if event == "call":
            # Whoever calls a function of Python is not interrupted right after it.
            if not str(frame.f_globals.get("__name__")).startswith("budgetguard."):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            names = self._names.get(frame.f_code)
            if names is None:
                names = {one.offset: one.opname for one in dis.get_instructions(frame.f_code)}
                self._names[frame.f_code] = names
            self._last = names.get(frame.f_lasti, "")
            if checked:
                self._left -= 1
                if self._left < 0:
                    self.done = True
                    self._act()
        return self._trace


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def plain(guard: Guard) -> Callable[[], None]:
    @guard.budgeted
    def ask(messages: object, model: str = MODEL) -> object:
        return completion()

    return lambda: (ask(HELLO), None)[1]


def stepped(guard: Guard) -> Callable[[], None]:
    @guard.budgeted
    def ask(messages: object, model: str = MODEL) -> Iterator[object]:
        yield from ({"model": MODEL, **chunk} for chunk in CHUNKS)

    return lambda: (list(ask(HELLO)), None)[1]


def block(guard: Guard) -> Callable[[], None]:
    def ask() -> None:
        with guard.call(model=MODEL, messages=HELLO) as call:
            call.settle(completion())

    return ask


def client_of(guard: Guard) -> openai.OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        about = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        if json.loads(request.content).get("stream"):
            events = "".join(f"data: {json.dumps({**about, **chunk})}\n\n" for chunk in CHUNKS)
            kind = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=kind, text=events + "data: [DONE]\n\n")
        return httpx2.Response(200, json={**about, "object": "chat.completion", "choices": [], **PAID})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return guard.wrap(
        openai.OpenAI(base_url="http://local.test/v1", api_key="x", http_client=http, max_retries=0)
    )


def streamed(guard: Guard) -> Callable[[], None]:
    client = client_of(guard)
    create: Any = client.chat.completions.create
    return lambda: (list(create(model=MODEL, messages=HELLO, stream=True)), None)[1]


def guard_at(store: str, tmp_path: Path) -> Guard:
    made = make_guard(store.replace("disk://", f"disk://{tmp_path}/store"), user="u", spool=None)
    made.set_budget(1_000, user="u")
    return made


@pytest.mark.parametrize(
    ("store", "kind"),
    [("memory://", plain), ("memory://", block), ("memory://", streamed), ("disk://", stepped)],
)
def test_an_interrupt_at_any_place_in_a_call_leaves_no_hold(
    store: str, kind: Callable[[Guard], Callable[[], None]], tmp_path: Path
) -> None:
    left: list[str] = []
    where, place = "", 0
    with contextlib.closing(guard_at(store, tmp_path)) as guard:
        events = record(guard)
        call, interrupt = kind(guard), Interrupt(press_ctrl_c)
        call()
        most = max(int(event.cost * 10**9) for event in events if isinstance(event, Projected))
        before = nanos(guard)
        while True:
            try:
                with interrupt.at(place):
                    call()
            except KeyboardInterrupt as error:
                where = "".join(traceback.format_tb(error.__traceback__)[-3:])
            if not interrupt.done:
                break
            gc.collect(0)
            guard.flush()
            after = nanos(guard)
            if after[1] or not 0 <= after[0] - before[0] <= most:
                left.append(where)
            before = after
            place += STRIDE
    assert place > 100, "nothing was interrupted"
    assert not left, "\n\n".join(left)


@pytest.mark.parametrize("store", ["memory://", pytest.param("disk://", marks=pytest.mark.full)])
def test_a_signal_handler_reads_a_balance_at_any_place_in_a_call(store: str, tmp_path: Path) -> None:
    with contextlib.closing(guard_at(store, tmp_path)) as guard:
        read: list[tuple[int, int]] = []
        call, interrupt, place = plain(guard), Interrupt(lambda: read.append(nanos(guard))), 0
        call()
        while True:
            with interrupt.at(place):
                call()
            if not interrupt.done:
                break
            place += STRIDE
        assert place > 100
        assert nanos(guard) == ((len(read) + 2) * COST, 0)
        # Nothing in between: what was booked before the call, or after it.
        assert {spent % COST for spent, _ in read} == {0}


@pytest.mark.full
@pytest.mark.parametrize("store", ["memory://", pytest.param("disk://", marks=pytest.mark.full)])
def test_a_signal_handler_that_makes_a_call_makes_it_or_is_told_at_once(store: str, tmp_path: Path) -> None:
    with contextlib.closing(guard_at(store, tmp_path)) as guard:
        made = refused = place = 0
        call = plain(guard)

        def nest() -> None:
            nonlocal made, refused
            try:
                Context().run(call)  # else it would count as the inner one of two calls, and pay for both
            except StoreError as error:
                refused += "signal handler" in str(error)
            else:
                made += 1

        interrupt = Interrupt(nest)
        while True:
            try:
                with interrupt.at(place):
                    call()
            finally:
                made += 1
            if not interrupt.done:
                break
            place += STRIDE
        assert made > refused > 0
        guard.flush()
        assert nanos(guard) == (made * COST, 0)
