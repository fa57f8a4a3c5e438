"""LlamaIndex: a guarded LLM, and over a patched client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing, closing
from functools import partial
from typing import Any, Final

from .case import ASK, ASYNC_CALL, ASYNC_STREAM, CALL, MODEL, STREAM, Case, Place, Way

_READ: Final = 9
Make = Callable[[Place], Any]


def _unguarded(place: Place) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(
        model=MODEL,
        api_base=place.base_url,
        api_key="test",
        max_retries=0,
        http_client=place.http(),
        async_http_client=place.ahttp(),
        additional_kwargs={},
    )


def _budgeted(place: Place) -> Any:
    from budgetguard.integrations.llama_index import budgeted_llm

    return budgeted_llm(_unguarded(place), place.guard)


def _messages() -> Any:
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(role="user", content=ASK)]


def _told(make: Make, place: Place) -> Any:
    """Return an LLM whose streams tell their usage."""
    llm = make(place)
    llm.additional_kwargs = {"stream_options": {"include_usage": True}}
    return llm


def _chat(make: Make, place: Place) -> Any:
    return make(place).chat(_messages()).message.content


def _complete(make: Make, place: Place) -> Any:
    return make(place).complete(ASK).text


def _engine(make: Make, place: Place) -> Any:
    from llama_index.core.chat_engine import SimpleChatEngine

    return SimpleChatEngine.from_defaults(llm=make(place)).chat(ASK).response


def _engine_stream(make: Make, place: Place) -> Any:
    from llama_index.core.chat_engine import SimpleChatEngine

    return "".join(SimpleChatEngine.from_defaults(llm=_told(make, place)).stream_chat(ASK).response_gen)


def _stream(make: Make, place: Place) -> Any:
    return "".join(piece.delta or "" for piece in _told(make, place).stream_chat(_messages()))


def _stream_complete(make: Make, place: Place) -> Any:
    return "".join(piece.delta or "" for piece in _told(make, place).stream_complete(ASK))


def _cut(make: Make, place: Place) -> None:
    with closing(_told(make, place).stream_chat(_messages())) as pieces:
        for _, piece in zip(range(_READ), pieces, strict=False):
            assert piece is not None


async def _achat(make: Make, place: Place) -> Any:
    return (await make(place).achat(_messages())).message.content


async def _acomplete(make: Make, place: Place) -> Any:
    return (await make(place).acomplete(ASK)).text


async def _agent(make: Make, place: Place) -> Any:
    from llama_index.core.agent.workflow import FunctionAgent

    agent = FunctionAgent(tools=[], llm=_told(make, place))
    return (await agent.run(ASK)).response.content


async def _astream(make: Make, place: Place) -> Any:
    pieces = await _told(make, place).astream_chat(_messages())
    return "".join([piece.delta or "" async for piece in pieces])


async def _astream_complete(make: Make, place: Place) -> Any:
    pieces = await _told(make, place).astream_complete(ASK)
    return "".join([piece.delta or "" async for piece in pieces])


async def _acut(make: Make, place: Place) -> None:
    async with aclosing(await _told(make, place).astream_chat(_messages())) as pieces:
        for _ in range(_READ):
            await anext(pieces)


def _ways(make: Make) -> tuple[Way, ...]:
    return (
        Way(CALL, "chat", partial(_chat, make)),
        Way(CALL, "complete", partial(_complete, make)),
        Way(CALL, "chat engine", partial(_engine, make)),
        Way(STREAM, "stream_chat", partial(_stream, make), partial(_cut, make)),
        Way(STREAM, "stream_complete", partial(_stream_complete, make)),
        Way(STREAM, "chat engine", partial(_engine_stream, make)),
        Way(ASYNC_CALL, "achat", partial(_achat, make)),
        Way(ASYNC_CALL, "acomplete", partial(_acomplete, make)),
        Way(ASYNC_STREAM, "astream_chat", partial(_astream, make), partial(_acut, make)),
        Way(ASYNC_STREAM, "astream_complete", partial(_astream_complete, make)),
        Way(ASYNC_STREAM, "FunctionAgent", partial(_agent, make)),
    )


CASES: Final = (
    Case("LlamaIndex", "llama_index.llms.openai", "`budgeted_llm()`", _ways(_budgeted)),
    Case("LlamaIndex", "llama_index.llms.openai", "`patch_openai()`", _ways(_unguarded), over="openai"),
)
