"""Answers as frameworks hand them on: LiteLLM, LangChain, Pydantic AI, OpenAI's Agents SDK."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.money import MAX_NANOS, NANOS_PER_USD, Nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.providers.answers import Piece, reported
from budgetguard.providers.json import count, field, items, text
from budgetguard.providers.openai.answers import is_openai, openai_texts, read_openai
from budgetguard.providers.shapes import Shape, Sums, as_json, block_texts, counted, made, summed

# LiteLLM's names of what people run on machines of their own.
_OWN_SERVERS: Final = frozenset({"llamafile", "lm_studio", "ollama", "ollama_chat"})


def litellm_cost(answer: object) -> Nanos | None:
    """Return what LiteLLM computed for an answer that it made, or None.

    It computes 0 for what it does not know, too; only of servers that people run themselves is that the cost.
    """
    hidden = field(answer, "_hidden_params")
    usd = field(hidden, "response_cost")
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd < MAX_NANOS // NANOS_PER_USD:
        return None
    nanos = math.ceil(round(usd * NANOS_PER_USD, 3))
    return nanos if nanos or field(hidden, "custom_llm_provider") in _OWN_SERVERS else None


def _is_litellm(answer: Any) -> bool:
    return isinstance(field(answer, "_hidden_params"), Mapping) and is_openai(answer)


def _read_litellm(answer: Any) -> Reported:
    said = read_openai(answer)
    provider = text(field(field(answer, "_hidden_params"), "custom_llm_provider"))
    if said.usage is None:
        return replace(said, provider=provider)
    usage = field(answer, "usage")
    details = field(usage, "prompt_tokens_details")
    split = field(details, "cache_creation_token_details")
    writes = max(
        counted(usage, "cache_creation_input_tokens") or 0, counted(details, "cache_creation_tokens") or 0
    )
    more = {
        "cache_write_tokens": writes,
        "cache_write_1h_tokens": counted(split, "ephemeral_1h_input_tokens") or 0,
        "web_searches": counted(usage, "server_tool_use.web_search_requests")
        or counted(details, "web_search_requests")
        or 0,
    }
    units = dict(said.usage.units)
    for unit, tokens in more.items():
        units[unit] = max(tokens, units.get(unit, 0))
    return replace(said, usage=Usage.of(**units), provider=provider)


_OF_LANGCHAIN: Final[Sums] = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("input_token_details.cache_read",),
    "cache_write_tokens": ("input_token_details.cache_creation",),
    "cache_write_5m_tokens": ("input_token_details.ephemeral_5m_input_tokens",),
    "cache_write_1h_tokens": ("input_token_details.ephemeral_1h_input_tokens",),
    "input_audio_tokens": ("input_token_details.audio",),
    "output_audio_tokens": ("output_token_details.audio",),
    "output_reasoning_tokens": ("output_token_details.reasoning",),
}


def is_langchain(answer: Any) -> bool:
    """Whether it is a message of LangChain's."""
    usage = field(answer, "usage_metadata")
    if count(field(usage, "input_tokens")) is not None and count(field(usage, "output_tokens")) is not None:
        return True
    return hasattr(answer, "response_metadata") and hasattr(answer, "additional_kwargs")


def _read_langchain(message: Any) -> Reported:
    usage, meta = field(message, "usage_metadata"), field(message, "response_metadata")
    model = text(field(meta, "model_name")) or text(field(meta, "model"))
    if usage is None:
        told = reported({"usage": field(meta, "token_usage")}).usage
        return Reported(usage=told, model=model)
    units, unsaid = summed(usage, _OF_LANGCHAIN)
    split = units["cache_write_5m_tokens"] + units["cache_write_1h_tokens"]
    units["cache_write_tokens"] = max(units["cache_write_tokens"], split)
    tier = text(field(meta, "service_tier"))
    ident = text(field(meta, "id")) or text(field(message, "id"))
    return made(units, unsaid, model=model, tier=tier, ident=ident)


def _langchain_texts(message: Any) -> Iterable[Piece]:
    content = field(message, "content")
    if isinstance(content, str):
        yield "text", content
    yield from block_texts(content)
    pieces = field(message, "tool_call_chunks")
    for call in items(pieces):
        for part in ("name", "args"):
            yield (field(call, "index"), part), field(call, part)
    if pieces is None:
        for number, call in enumerate(items(field(message, "tool_calls"))):
            yield (number, "name"), field(call, "name")
            yield (number, "args"), as_json(field(call, "args"))


def _is_pydantic_ai(answer: Any) -> bool:
    return type(answer).__module__.partition(".")[0] == "pydantic_ai" and hasattr(answer, "usage")


_OF_PYDANTIC_AI: Final[Sums] = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("cache_read_tokens",),
    "cache_write_tokens": ("cache_write_tokens",),
    "input_audio_tokens": ("input_audio_tokens",),
    "cache_audio_read_tokens": ("cache_audio_read_tokens",),
    "output_audio_tokens": ("output_audio_tokens",),
}


def _read_pydantic_ai(answer: Any) -> Reported:
    usage = answer.usage
    if not hasattr(usage, "input_tokens"):
        usage = usage()  # before 2.0
    units, unsaid = summed(usage, _OF_PYDANTIC_AI)
    if not any(units.values()):
        return Reported(usage=None)  # nothing has been asked, or it does not tell
    return made(units, unsaid, model=field(answer, "model_name"))


def _is_agents_run(answer: Any) -> bool:
    return field(field(field(answer, "context_wrapper"), "usage"), "requests") is not None


def _read_agents_run(answer: Any) -> Reported:
    usage = field(field(answer, "context_wrapper"), "usage")
    told = reported({"usage": usage}).usage
    return Reported(usage=told if count(field(usage, "requests")) else None)


def _pydantic_ai_texts(answer: Any) -> Iterable[Piece]:
    for number, part in enumerate(items(field(answer, "parts"))):
        for name in ("content", "tool_name"):
            yield (number, name), field(part, name)
        yield (number, "args"), as_json(field(part, "args"))


LITELLM: Final = Shape("litellm", _is_litellm, _read_litellm, openai_texts, chunks=True)
LANGCHAIN: Final = Shape("langchain", is_langchain, _read_langchain, _langchain_texts, adds=True)
PYDANTIC_AI: Final = Shape("pydantic-ai", _is_pydantic_ai, _read_pydantic_ai, _pydantic_ai_texts)
AGENTS_RUN: Final = Shape("openai-agents", _is_agents_run, _read_agents_run)
