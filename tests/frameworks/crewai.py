"""CrewAI: a guarded LLM, with the client that it has itself and with LiteLLM; and over a patched client."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .case import ASK, ASYNC_CALL, CALL, CAUSE, MODEL, STREAM, Case, Place, Way

Make = Callable[..., Any]

# Nothing is to be told to anybody.
_QUIET: Final = ("CREWAI_DISABLE_TELEMETRY", "CREWAI_DISABLE_TRACKING", "OTEL_SDK_DISABLED")


def _own(place: Place, **more: Any) -> Any:
    os.environ.update(dict.fromkeys(_QUIET, "true"), LITELLM_LOCAL_MODEL_COST_MAP="True")
    from crewai import LLM

    return LLM(model=f"openai/{MODEL}", base_url=place.base_url, api_key="test", **{"max_retries": 0, **more})


def _litellm(place: Place, **more: Any) -> Any:
    return _own(place, is_litellm=True, **more)


def _with(make: Make, place: Place, **more: Any) -> Any:
    from budgetguard.integrations.crewai import budgeted_llm

    return budgeted_llm(make(place, **more), place.guard)


def _call(make: Make, place: Place) -> Any:
    return make(place).call(ASK)


def _crew(make: Make, place: Place) -> Any:
    return _made(make, place).kickoff().raw


def _stream(make: Make, place: Place) -> Any:
    return make(place, stream=True).call(ASK)


async def _acall(make: Make, place: Place) -> Any:
    return await make(place).acall(ASK)


async def _acrew(make: Make, place: Place) -> Any:
    return (await _made(make, place).akickoff()).raw


def _made(make: Make, place: Place) -> Any:
    llm = make(place)
    from crewai import Agent, Crew, Task

    agent = Agent(role="r", goal="g", backstory="b", llm=llm, verbose=False)
    task = Task(description=ASK, expected_output="a text", agent=agent)
    return Crew(agents=[agent], tasks=[task], verbose=False, tracing=False)


def _ways(make: Make) -> tuple[Way, ...]:
    return (
        Way(CALL, "call", partial(_call, make)),
        Way(CALL, "crew", partial(_crew, make)),
        Way(STREAM, "call", partial(_stream, make)),
        Way(ASYNC_CALL, "acall", partial(_acall, make)),
        Way(ASYNC_CALL, "crew", partial(_acrew, make)),
    )


_WHOLE: Final = tuple(way for way in _ways(_litellm) if way.column != STREAM)
_STREAMS: Final = tuple(way for way in _ways(_litellm) if way.column == STREAM)

CASES: Final = (
    Case("CrewAI", "crewai", "`budgeted_llm()`", _ways(partial(_with, _own))),
    Case("CrewAI, with LiteLLM", "crewai", "`budgeted_llm()`", _ways(partial(_with, _litellm))),
    # An agent tries a task again, twice by default.
    Case("CrewAI", "crewai", "`patch_openai()`", _ways(_own), attempts=3, over="openai"),
    Case("CrewAI, with LiteLLM", "crewai", "`patch_litellm()`", _WHOLE, attempts=3, over="litellm"),
    Case(
        "CrewAI's streams, with LiteLLM",
        "crewai",
        "`patch_litellm()`",
        _STREAMS,
        over="litellm",
        refusal=CAUSE,
    ),
)
