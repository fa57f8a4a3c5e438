"""Answers of Bedrock's Converse: what they report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.providers.answers import Piece
from budgetguard.providers.json import count, field, items, text
from budgetguard.providers.shapes import Shape, Sums, block_texts, counted, made, summed

_SUMS: Final[Sums] = {"input_tokens": ("inputTokens",), "output_tokens": ("outputTokens",)}
_EVENTS: Final = frozenset(
    {
        "messageStart",
        "contentBlockStart",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    }
)


def _is_converse(answer: Any) -> bool:
    if not isinstance(answer, Mapping):
        return False
    if len(answer) == 1 and next(iter(answer)) in _EVENTS:
        return True
    return count(field(field(answer, "usage"), "inputTokens")) is not None


def _read(answer: Any) -> Reported:
    usage = field(answer, "usage") or field(field(answer, "metadata"), "usage")
    if usage is None:
        return Reported(usage=None)
    units, unsaid = summed(usage, _SUMS)
    hour = sum(
        counted(one, "inputTokens") or 0
        for one in items(field(usage, "cacheDetails"))
        if field(one, "ttl") == "1h"
    )
    reads, writes = (
        max(
            counted(usage, f"cache{what}InputTokens") or 0, counted(usage, f"cache{what}InputTokenCount") or 0
        )
        for what in ("Read", "Write")
    )
    units["input_tokens"] += reads + max(writes, hour)
    more = {
        "cache_read_tokens": reads,
        "cache_write_tokens": max(writes, hour),
        "cache_write_1h_tokens": hour,
    }
    tier = text(
        field(field(answer, "serviceTier") or field(field(answer, "metadata"), "serviceTier"), "type")
    )
    return made({**units, **more}, unsaid, tier=None if tier in (None, "default", "reserved") else tier)


def _texts(answer: Any) -> Iterable[Piece]:
    event = field(answer, "contentBlockDelta")
    delta = field(event, "delta")
    index = field(event, "contentBlockIndex")
    yield (index, "text"), field(delta, "text")
    yield (index, "thinking"), field(field(delta, "reasoningContent"), "text")
    yield (index, "input"), field(field(delta, "toolUse"), "input")
    yield from block_texts(field(field(field(answer, "output"), "message"), "content"))


CONVERSE: Final = Shape("bedrock", _is_converse, _read, _texts)
