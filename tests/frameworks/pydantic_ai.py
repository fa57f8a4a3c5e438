"""Pydantic AI: a model, an agent with the capability, and over a patched client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .case import ASK, ASYNC_CALL, ASYNC_STREAM, CALL, MODEL, STREAM, Case, Place, Way, close

_READ: Final = 3
# A model, and the capabilities of its agent.
Models = Callable[[Place], tuple[Any, tuple[Any, ...]]]


def _model(place: Place) -> Any:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=place.aclient()))


def _unguarded(place: Place) -> tuple[Any, tuple[Any, ...]]:
    return _model(place), ()


def _budgeted(place: Place) -> tuple[Any, tuple[Any, ...]]:
    from budgetguard.integrations.pydantic_ai import budgeted_model

    return budgeted_model(_model(place), place.guard), ()


def _fallback(place: Place) -> tuple[Any, tuple[Any, ...]]:
    from pydantic_ai.models.fallback import FallbackModel

    from budgetguard.integrations.pydantic_ai import budgeted_model

    return budgeted_model(FallbackModel(_model(place), _model(place)), place.guard), ()


def _capable(place: Place) -> tuple[Any, tuple[Any, ...]]:
    from budgetguard.integrations.pydantic_ai import BudgetCapability

    return _model(place), (BudgetCapability(place.guard),)


def _agent(models: Models, place: Place) -> Any:
    from pydantic_ai import Agent

    model, capabilities = models(place)
    return Agent(model, **({"capabilities": list(capabilities)} if capabilities else {}))


def _in_a_loop(make: Callable[[], Any], place: Place) -> Any:
    """Call what runs a loop of its own, and close what it has opened in there."""
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    try:
        return make()
    finally:
        loop.run_until_complete(close(place))
        asyncio.set_event_loop(None)
        loop.close()


def _run_sync(models: Models, place: Place) -> Any:
    return _in_a_loop(lambda: _agent(models, place).run_sync(ASK).output, place)


def _stream_sync(models: Models, place: Place) -> Any:
    return _in_a_loop(
        lambda: "".join(_agent(models, place).run_stream_sync(ASK).stream_text(delta=True)), place
    )


async def _run(models: Models, place: Place) -> Any:
    return (await _agent(models, place).run(ASK)).output


async def _run_stream(models: Models, place: Place) -> Any:
    async with _agent(models, place).run_stream(ASK) as result:
        return "".join([text async for text in result.stream_text(delta=True)])


async def _events(models: Models, place: Place) -> Any:
    async with _agent(models, place).run_stream_events(ASK) as events:
        return [event async for event in events]


async def _cut(models: Models, place: Place) -> None:
    async with _agent(models, place).run_stream(ASK) as result:
        texts = result.stream_text(delta=True, debounce_by=None)
        for _ in range(_READ):
            await anext(texts)
        await result.cancel()


def _direct(models: Models, place: Place) -> Any:
    from pydantic_ai import ModelRequest
    from pydantic_ai.direct import model_request_sync

    model, _ = models(place)
    return _in_a_loop(lambda: model_request_sync(model, [ModelRequest.user_text_prompt(ASK)]).parts, place)


async def _adirect(models: Models, place: Place) -> Any:
    from pydantic_ai import ModelRequest
    from pydantic_ai.direct import model_request

    model, _ = models(place)
    return (await model_request(model, [ModelRequest.user_text_prompt(ASK)])).parts


async def _direct_stream(models: Models, place: Place) -> Any:
    from pydantic_ai import ModelRequest
    from pydantic_ai.direct import model_request_stream

    model, _ = models(place)
    async with model_request_stream(model, [ModelRequest.user_text_prompt(ASK)]) as stream:
        return [event async for event in stream]


async def _direct_cut(models: Models, place: Place) -> None:
    from pydantic_ai import ModelRequest
    from pydantic_ai.direct import model_request_stream

    model, _ = models(place)
    async with model_request_stream(model, [ModelRequest.user_text_prompt(ASK)]) as stream:
        events = aiter(stream)
        for _ in range(_READ + 6):
            await anext(events)


def _of_agents(models: Models) -> tuple[Way, ...]:
    return (
        Way(CALL, "run_sync", partial(_run_sync, models)),
        Way(STREAM, "run_stream_sync", partial(_stream_sync, models)),
        Way(ASYNC_CALL, "run", partial(_run, models)),
        Way(ASYNC_STREAM, "run_stream", partial(_run_stream, models), partial(_cut, models)),
        Way(ASYNC_STREAM, "run_stream_events", partial(_events, models)),
    )


def _ways(models: Models) -> tuple[Way, ...]:
    return (
        *_of_agents(models),
        Way(CALL, "direct, sync", partial(_direct, models)),
        Way(ASYNC_CALL, "direct", partial(_adirect, models)),
        Way(ASYNC_STREAM, "direct", partial(_direct_stream, models), partial(_direct_cut, models)),
    )


CASES: Final = (
    Case("Pydantic AI", "pydantic_ai", "`budgeted_model()`", _ways(_budgeted)),
    Case("Pydantic AI, `FallbackModel`", "pydantic_ai", "`budgeted_model()`", _of_agents(_fallback)),
    Case("Pydantic AI", "pydantic_ai", "`BudgetCapability`", _of_agents(_capable)),
    Case("Pydantic AI", "pydantic_ai", "`patch_openai()`", _ways(_unguarded), over="openai"),
)
