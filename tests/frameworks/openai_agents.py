"""OpenAI's Agents SDK: models from a provider, an agent's own, and over a patched client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .case import ASK, ASYNC_CALL, ASYNC_STREAM, CALL, MODEL, Case, Place, Way, close

_READ: Final = 9
# What a run takes of an agent's model and of a run's configuration.
Models = Callable[[Place], tuple[Any, Any]]


def _own_provider(place: Place, **more: Any) -> Any:
    from agents import OpenAIProvider, set_tracing_disabled

    set_tracing_disabled(True)
    return OpenAIProvider(openai_client=place.aclient(), **more)


def _by_provider(place: Place) -> tuple[Any, Any]:
    from agents import RunConfig

    from budgetguard.integrations.openai_agents import budgeted_provider

    provider = budgeted_provider(_own_provider(place, use_responses=True), place.guard)
    return MODEL, RunConfig(model_provider=provider)


def _by_model(place: Place) -> tuple[Any, Any]:
    from agents import ModelSettings, OpenAIChatCompletionsModel, RunConfig, set_tracing_disabled

    from budgetguard.integrations.openai_agents import budgeted_model

    set_tracing_disabled(True)
    model = budgeted_model(OpenAIChatCompletionsModel(MODEL, place.aclient()), place.guard)
    return model, RunConfig(model_settings=ModelSettings(include_usage=True))


def _unguarded(place: Place) -> tuple[Any, Any]:
    from agents import RunConfig

    return MODEL, RunConfig(model_provider=_own_provider(place))


def _run_sync(models: Models, place: Place) -> Any:
    from agents import Agent, Runner

    model, config = models(place)
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    try:
        return Runner.run_sync(Agent(name="a", model=model), ASK, run_config=config).final_output
    finally:
        loop.run_until_complete(close(place))
        asyncio.set_event_loop(None)
        loop.close()


async def _run(models: Models, place: Place) -> Any:
    from agents import Agent, Runner

    model, config = models(place)
    return (await Runner.run(Agent(name="a", model=model), ASK, run_config=config)).final_output


async def _run_streamed(models: Models, place: Place) -> Any:
    from agents import Agent, Runner

    model, config = models(place)
    result = Runner.run_streamed(Agent(name="a", model=model), ASK, run_config=config)
    async for _ in result.stream_events():
        pass
    return result.final_output


async def _cancelled(models: Models, place: Place) -> None:
    from agents import Agent, Runner

    model, config = models(place)
    result = Runner.run_streamed(Agent(name="a", model=model), ASK, run_config=config)
    events = result.stream_events()
    for _ in range(_READ):
        await anext(events)
    result.cancel()
    async for _ in events:
        pass


def _ways(models: Models) -> tuple[Way, ...]:
    return (
        Way(CALL, "run_sync", partial(_run_sync, models)),
        Way(ASYNC_CALL, "run", partial(_run, models)),
        Way(ASYNC_STREAM, "run_streamed", partial(_run_streamed, models), partial(_cancelled, models)),
    )


CASES: Final = (
    Case("OpenAI Agents SDK", "agents", "`budgeted_provider()`", _ways(_by_provider)),
    Case("OpenAI Agents SDK", "agents", "`budgeted_model()`", _ways(_by_model)),
    Case("OpenAI Agents SDK", "agents", "`patch_openai()`", _ways(_unguarded), over="openai"),
)
