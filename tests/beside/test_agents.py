"""Agents and gateways that bring ways of their own to send."""

from __future__ import annotations

import sys

import pytest

from tests.provider.server import OpenAIServer

from .conftest import Program

for _name in ("agents", "guardrails", "agentops", "litellm"):
    pytest.importorskip(_name)

RUN = ("run", "--max-budget", "0.0000001", "--")


def test_an_import_monitor_like_agentops_s_does_not_keep_the_guard_out(
    program: Program, provider: OpenAIServer
) -> None:
    text = """
import logging, os
logging.disable(logging.CRITICAL)
import agentops
nowhere = "http://127.0.0.1:9"
agentops.init(
    api_key="00000000-0000-0000-0000-000000000000",
    endpoint=nowhere,
    exporter_endpoint=nowhere,
    fail_safe=True,
)
import openai
try:
    openai.OpenAI(max_retries=0).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}]
    )
except Exception as error:
    print(f'"{type(error).__name__}"', flush=True)
os._exit(0)
"""
    budgetguard = (sys.executable, "-c", "from budgetguard.cli import main; main()")
    said = program(text, *budgetguard, *RUN, sys.executable, BUDGETGUARD_STORE="disk://budgets", expected=3)
    assert (said, provider.count()) == ("BudgetExceededError", 0)


@pytest.mark.parametrize("kind", ["GuardrailsOpenAI", "GuardrailsAsyncOpenAI"])
def test_the_inner_client_of_a_guardrails_client_is_wrapped(kind: str, program: Program) -> None:
    text = f"""
import asyncio, json
import budgetguard
from guardrails import {kind}

guard = budgetguard.default_guard()
guard.set_budget(1)
none = {{"version": 1, "guardrails": []}}
config = {{"version": 1, "pre_flight": none, "input": none, "output": none}}
client = budgetguard.wrap({kind}(config=config, max_retries=0))

def call():
    made = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{{"role": "user", "content": "hi"}}], max_completion_tokens=100
    )
    if asyncio.iscoroutine(made):
        asyncio.run(made)

call()
booked = len(list(guard.calls()))
guard.set_budget(0)
try:
    call()
except budgetguard.BudgetExceededError:
    print(json.dumps([booked, "refused"]))
"""
    assert program(text) == [1, "refused"]


def test_websockets_of_openai_agents_are_refused_by_name(program: Program) -> None:
    text = """
import asyncio, json
import budgetguard
from agents import Agent, OpenAIResponsesWSModel, Runner, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner
from openai import AsyncOpenAI

set_tracing_disabled(True)
budgetguard.default_guard().set_budget(1)
budgetguard.patch_openai()
refused = []

async def responses():
    model = OpenAIResponsesWSModel(model="gpt-4o-mini", openai_client=AsyncOpenAI(max_retries=0))
    await Runner.run(Agent(name="a", model=model), "hi")

async def realtime():
    async with await RealtimeRunner(RealtimeAgent(name="a")).run(model_config={"api_key": "not-a-key"}):
        pass

for opens in responses, realtime:
    try:
        asyncio.run(opens())
    except budgetguard.UnknownEndpointError as error:
        refused.append(error.endpoint)
print(json.dumps(refused))
"""
    assert program(text) == ["WEBSOCKET /responses", "WEBSOCKET /realtime"]


@pytest.mark.parametrize("budget", ["guard.set_budget(0)", "pass"], ids=["exceeded", "nothing limits it"])
def test_litellm_s_router_stops_at_a_refusal(budget: str, program: Program, provider: OpenAIServer) -> None:
    text = f"""
import json
import litellm
import budgetguard
from budgetguard.providers.hooking import RequestGuard

guard = budgetguard.default_guard()
{budget}
budgetguard.patch_openai()
tries, looks = [], RequestGuard._guarded_request
RequestGuard._guarded_request = lambda *given: (tries.append(1), looks(*given))[1]
provider = {{"model": "openai/gpt-4o-mini", "api_base": {provider.base_url!r}, "api_key": "not-a-key"}}
router = litellm.Router(model_list=[{{"model_name": "m", "litellm_params": provider}}], num_retries=3)
try:
    router.completion(model="m", messages=[{{"role": "user", "content": "hi"}}])
except Exception as error:
    status = error.status_code
print(json.dumps([status, len(tries)]))
"""
    assert program(text, LITELLM_LOCAL_MODEL_COST_MAP="True") == [422, 1]


@pytest.mark.parametrize("order", [1, -1])
def test_a_patch_beside_litellm_warns_once_of_what_is_not_seen(order: int, program: Program) -> None:
    first, then = ["import litellm", "budgetguard.patch_openai()"][::order]
    text = f"""
import json, logging
import budgetguard
said = []
logging.getLogger("budgetguard").addFilter(lambda record: said.append(record.getMessage()))
{first}
{then}
budgetguard.patch_openai()
sdks = [one.sdk for one in budgetguard.check()]
print(json.dumps([["patch_litellm()" in one for one in said], sdks]))
"""
    warned, checked = program(text, LITELLM_LOCAL_MODEL_COST_MAP="True")
    assert warned == [True]
    assert checked == ["openai", "litellm"]
