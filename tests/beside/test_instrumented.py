"""logfire and OpenInference put a `request` of their own before or after us: each call is guarded once."""

from __future__ import annotations

import pytest

from .conftest import Program

pytest.importorskip("logfire")
pytest.importorskip("openinference.instrumentation.openai")

INSTRUMENT = {
    "logfire": "made = ExitStack(); made.enter_context(logfire.instrument_openai()); undo = made.close",
    "one client": "m = ExitStack(); undo = m.close; m.enter_context(logfire.instrument_openai(client))",
    "openinference": "made = OpenAIInstrumentor(); made.instrument(); undo = made.uninstrument",
}
GUARD = {"patch": "budgetguard.patch_openai()", "wrap": "budgetguard.wrap(client)"}
PROGRAM = """
import asyncio, json
from contextlib import ExitStack
import logfire, openai, budgetguard
from openinference.instrumentation.openai import OpenAIInstrumentor
from budgetguard import BudgetExceededError

logfire.configure(send_to_logfire=False, console=False)
guard = budgetguard.default_guard()
guard.set_budget(1)
client = openai.{kind}(max_retries=0)
loop = asyncio.new_event_loop()
booked = []

def call(one):
    made = one.chat.completions.create(
        model="gpt-4o-mini", messages=[{{"role": "user", "content": "hi"}}], max_completion_tokens=100
    )
    if asyncio.iscoroutine(made):
        loop.run_until_complete(made)
    booked.append(len(list(guard.calls())))

{first}
{then}
call(client)
call(client.with_options(timeout=60))
undo()
call(client)
guard.set_budget(0)
try:
    call(client)
except BudgetExceededError:
    booked.append("refused")
print(json.dumps(booked))
"""


@pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI"])
@pytest.mark.parametrize("guard", GUARD)
@pytest.mark.parametrize("order", [1, -1], ids=["instrumented first", "guarded first"])
@pytest.mark.parametrize("instrument", INSTRUMENT)
def test_each_call_is_guarded_once_in_either_order(
    instrument: str, order: int, guard: str, kind: str, program: Program
) -> None:
    first, then = [INSTRUMENT[instrument], GUARD[guard]][::order]
    assert program(PROGRAM.format(kind=kind, first=first, then=then)) == [1, 2, 3, "refused"]
