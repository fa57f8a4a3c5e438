"""Anthropic's messages and the events of their streams: what they report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.pricing.rates import BATCH
from budgetguard.providers.accumulators import Piece
from budgetguard.providers.json import field, items, text
from budgetguard.providers.shapes import Shape, Sums, block_texts, made, summed

_SUMS: Final[Sums] = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("cache_read_input_tokens",),
    "cache_write_tokens": ("cache_creation_input_tokens",),
    "cache_write_5m_tokens": ("cache_creation.ephemeral_5m_input_tokens",),
    "cache_write_1h_tokens": ("cache_creation.ephemeral_1h_input_tokens",),
    "output_reasoning_tokens": ("output_tokens_details.thinking_tokens",),
    "web_searches": ("server_tool_use.web_search_requests",),
}
_EVENTS: Final = frozenset(
    {
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "ping",
    }
)
# What the SDK's helper for streams adds to those events: it says nothing new.
_HELPERS: Final = frozenset({"text", "thinking", "signature", "citation", "input_json"})


def _is_message(answer: Any) -> bool:
    usage = field(answer, "usage")
    if field(answer, "type") == "message" and field(answer, "role") == "assistant":
        return usage is not None
    return _is_usage(usage)


def _is_usage(usage: object) -> bool:
    own = ("cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "server_tool_use")
    if field(usage, "input_tokens") is None or field(usage, "prompt_tokens") is not None:
        return False
    return any(field(usage, name) is not None for name in own)


def read_message(message: Any) -> Reported:
    """Return what a message reports: an SDK object or a mapping."""
    usage = field(message, "usage")
    units, unsaid = _units(usage)
    tier = text(field(usage, "service_tier"))
    return made(
        units,
        unsaid,
        model=field(message, "model"),
        # What priority is paid for beside the tokens, which it does not make dearer.
        tier=BATCH if tier == BATCH else "fast" if field(usage, "speed") == "fast" else None,
        ident=field(message, "id"),
        region=text(field(usage, "inference_geo")),
    )


def _units(usage: object) -> tuple[dict[str, int], frozenset[str]]:
    units, unsaid = summed(usage, _SUMS)
    # Of a conversation that was compacted on the way, the totals are the last part's alone.
    for unit, counts in _added(summed(one, _SUMS)[0] for one in items(field(usage, "iterations"))):
        units[unit] = max(units[unit], counts)
    split = units["cache_write_5m_tokens"] + units["cache_write_1h_tokens"]
    units["cache_write_tokens"] = max(units["cache_write_tokens"], split)
    units["input_tokens"] += units["cache_read_tokens"] + units["cache_write_tokens"]
    return units, unsaid


def _added(many: Iterable[Mapping[str, int]]) -> Iterable[tuple[str, int]]:
    total: dict[str, int] = {}
    for units in many:
        for unit, counted in units.items():
            total[unit] = total.get(unit, 0) + counted
    return total.items()


def _is_event(answer: Any) -> bool:
    kind = text(field(answer, "type"))
    if kind in _HELPERS:
        # The SDK's own: a text, or a part of one, beside all of it until then.
        return field(answer, "snapshot") is not None or field(answer, "signature") is not None
    return kind in _EVENTS


def _read_event(event: Any) -> Reported:
    kind = field(event, "type")
    if kind == "message_start":
        said = read_message(field(event, "message"))
        # How much it writes is known when it has been written.
        return said if said.usage is None else replace(said, unsaid=said.unsaid | {"output_tokens"})
    if kind == "message_delta" and (usage := field(event, "usage")) is not None:
        return made(*_units(usage))
    return Reported(usage=None)


def _is_stream(answer: Any) -> bool:
    """Whether it is the SDK's helper for streams, at its end: it keeps the whole message."""
    return field(field(answer, "current_message_snapshot"), "stop_reason") is not None


def message_texts(event: Any) -> Iterable[Piece]:
    """Yield the text of a message, or of an event of its stream, each piece with its slot."""
    if text(field(event, "type")) in ("content_block_delta", "content_block_start"):
        part = field(event, "delta") or field(event, "content_block")
        for name in ("text", "thinking", "partial_json", "name"):
            yield (field(event, "index"), name), field(part, name)
    yield from block_texts(field(event, "content"))


ENDED_STREAM: Final = Shape("anthropic stream", _is_stream, inside=lambda a: a.current_message_snapshot)
EVENT: Final = Shape("anthropic events", _is_event, _read_event, message_texts)
MESSAGE: Final = Shape("anthropic", _is_message, read_message, message_texts)
