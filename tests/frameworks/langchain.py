"""LangChain: its models with a callback, for all of the process, in an agent, and over a patched client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, Final

from .case import ASK, ASYNC_CALL, ASYNC_STREAM, CALL, MODEL, STREAM, Case, Place, Way

Model = Callable[..., Any]
# How many pieces of a stream are read before it is left.
_READ: Final = 9


def _chat(place: Place, **more: Any) -> Any:
    from langchain_openai import ChatOpenAI

    options = {
        "base_url": place.base_url,
        "api_key": "test",
        "max_retries": 0,
        "stream_usage": True,
        "http_client": place.http(),
        "http_async_client": place.ahttp(),
    }
    return ChatOpenAI(model=MODEL, **{**options, **more})


def _with_callback(place: Place, **more: Any) -> Any:
    from budgetguard.integrations.langchain import BudgetCallback

    return _chat(place, callbacks=[BudgetCallback(place.guard)], **more)


def _everywhere(make: Callable[[Model, Place], Any], place: Place) -> Any:
    from budgetguard.integrations import langchain

    langchain.guard_langchain(place.guard)
    try:
        return make(_chat, place)
    finally:
        langchain.unguard_langchain()


async def _aeverywhere(make: Callable[[Model, Place], Any], place: Place) -> Any:
    from budgetguard.integrations import langchain

    langchain.guard_langchain(place.guard)
    try:
        return await make(_chat, place)
    finally:
        langchain.unguard_langchain()


def _invoke(model: Model, place: Place) -> Any:
    return model(place).invoke(ASK).text


def _chain(model: Model, place: Place) -> Any:
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate

    prompt = ChatPromptTemplate.from_messages([("user", "{ask}")])
    return (prompt | model(place) | StrOutputParser()).invoke({"ask": ASK})


def _batch(model: Model, place: Place) -> Any:
    return [answer.text for answer in model(place).batch([ASK])]


def _responses(model: Model, place: Place) -> Any:
    return model(place, use_responses_api=True).invoke(ASK).text


async def _ainvoke(model: Model, place: Place) -> Any:
    return (await model(place).ainvoke(ASK)).text


async def _abatch(model: Model, place: Place) -> Any:
    return [answer.text for answer in await model(place).abatch([ASK])]


def _stream(model: Model, place: Place) -> Any:
    return "".join(piece.text for piece in model(place).stream(ASK))


def _cut(model: Model, place: Place) -> None:
    with closing(model(place).stream(ASK)) as stream:
        for _, piece in zip(range(_READ), stream, strict=False):
            assert piece is not None


async def _astream(model: Model, place: Place) -> Any:
    return "".join([piece.text async for piece in model(place).astream(ASK)])


async def _acut(model: Model, place: Place) -> None:
    stream = model(place).astream(ASK)
    for _ in range(_READ):
        await anext(stream)
    await stream.aclose()


async def _aevents(model: Model, place: Place) -> Any:
    return [event async for event in model(place).astream_events(ASK, version="v2")][-1]["event"]


def _agent(place: Place) -> Any:
    from langchain.agents import create_agent

    from budgetguard.integrations.langchain import BudgetMiddleware

    return create_agent(_chat(place), middleware=[BudgetMiddleware(place.guard)])


_ASKED: Final = {"messages": [{"role": "user", "content": ASK}]}


def _agent_invoke(place: Place) -> Any:
    return _agent(place).invoke(_ASKED)["messages"][-1].text


async def _agent_ainvoke(place: Place) -> Any:
    return (await _agent(place).ainvoke(_ASKED))["messages"][-1].text


def _agent_stream(place: Place) -> Any:
    found = _agent(place).stream(_ASKED, stream_mode="messages")
    return "".join(message.text for message, _ in found)


async def _agent_astream(place: Place) -> Any:
    found = _agent(place).astream(_ASKED, stream_mode="messages")
    return "".join([message.text async for message, _ in found])


async def _agent_acut(place: Place) -> None:
    found = _agent(place).astream(_ASKED, stream_mode="messages")
    for _ in range(_READ):
        await anext(found)
    await found.aclose()


def _ways(model: Model) -> tuple[Way, ...]:
    def with_it(make: Callable[..., Any]) -> Callable[[Place], Any]:
        return partial(make, model)

    return (
        Way(CALL, "invoke", with_it(_invoke)),
        Way(CALL, "in a chain", with_it(_chain)),
        Way(CALL, "batch", with_it(_batch)),
        Way(CALL, "responses", with_it(_responses)),
        Way(STREAM, "stream", with_it(_stream), with_it(_cut)),
        Way(ASYNC_CALL, "ainvoke", with_it(_ainvoke)),
        Way(ASYNC_CALL, "abatch", with_it(_abatch)),
        Way(ASYNC_STREAM, "astream", with_it(_astream), with_it(_acut)),
        Way(ASYNC_STREAM, "astream_events", with_it(_aevents)),
    )


CASES: Final = (
    Case("LangChain", "langchain_openai", "`BudgetCallback`", _ways(_with_callback)),
    Case(
        "LangChain",
        "langchain_openai",
        "`guard_langchain()`",
        (
            Way(CALL, "invoke", partial(_everywhere, _invoke)),
            Way(STREAM, "stream", partial(_everywhere, _stream), partial(_everywhere, _cut)),
            Way(ASYNC_CALL, "ainvoke", partial(_aeverywhere, _ainvoke)),
            Way(ASYNC_STREAM, "astream", partial(_aeverywhere, _astream), partial(_aeverywhere, _acut)),
        ),
    ),
    Case(
        "LangChain agents",
        "langchain",
        "`BudgetMiddleware`",
        (
            Way(CALL, "invoke", _agent_invoke),
            Way(STREAM, "stream", _agent_stream),
            Way(ASYNC_CALL, "ainvoke", _agent_ainvoke),
            Way(ASYNC_STREAM, "astream", _agent_astream, _agent_acut),
        ),
    ),
    Case("LangChain", "langchain_openai", "`patch_openai()`", _ways(_chat), over="openai"),
)
