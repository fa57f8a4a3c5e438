"""Cohere's answers: what they report. What is billed is less than what was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.providers.answers import Piece
from budgetguard.providers.json import field, text
from budgetguard.providers.shapes import Shape, Sums, block_texts, counted, made, summed

_SUMS: Final[Sums] = {
    "input_tokens": ("input_tokens", "image_tokens"),
    "output_tokens": ("output_tokens",),
    "input_image_tokens": ("image_tokens",),
}
_EVENTS: Final = frozenset(
    {
        "message-start",
        "content-start",
        "content-delta",
        "content-end",
        "tool-plan-delta",
        "tool-call-start",
        "tool-call-delta",
        "tool-call-end",
        "citation-start",
        "citation-end",
        "message-end",
    }
)
_OLD_EVENTS: Final = frozenset({"stream-start", "text-generation", "stream-end", "citation-generation"})


def _billed(answer: Any) -> object:
    for holder in ("usage", "meta"):
        for name in ("billed_units", "tokens"):
            if (billed := field(field(answer, holder), name)) is not None:
                return billed
    return None


def billed(answer: Any) -> dict[str, int] | None:
    """Return the units that an answer says were billed, None if it does not say."""
    told = _billed(answer)
    if told is None:
        return None
    read, _ = summed(told, _SUMS)
    for name, unit in (
        ("search_units", "rerank_searches"),
        ("pages", "input_document_pages"),
        ("images",) * 2,
    ):
        read[unit] = counted(told, name) or 0
    return read


def _is_answer(answer: Any) -> bool:
    event = text(field(answer, "event_type"))
    return text(field(answer, "type")) in _EVENTS or event in _OLD_EVENTS or _billed(answer) is not None


def _read(answer: Any) -> Reported:
    whole = field(answer, "response") or field(answer, "delta") or answer
    billed = _billed(whole)
    ident = text(field(answer, "id")) or text(field(whole, "generation_id"))
    if billed is None or (counted(billed, "search_units") or 0) > 0:
        return Reported(usage=None, request_id=ident)  # rankings are billed by the search
    units, unsaid = summed(billed, _SUMS)
    if field(answer, "embeddings") is not None or "message" not in _names(whole):
        unsaid -= {"output_tokens"}
    return made(units, unsaid, ident=ident)


def _names(value: Any) -> Iterable[str]:
    return value if isinstance(value, Mapping) else dir(value)


def _texts(answer: Any) -> Iterable[Piece]:
    if text(field(answer, "event_type")) == "text-generation":
        yield "text", field(answer, "text")
    message = field(field(answer, "delta"), "message")
    content = field(message, "content")
    yield (field(answer, "index"), "text"), field(content, "text")
    yield (field(answer, "index"), "thinking"), field(content, "thinking")
    yield "plan", field(message, "tool_plan")
    calls = field(field(message, "tool_calls"), "function")
    yield (field(answer, "index"), "arguments"), field(calls, "arguments")
    yield from block_texts(field(field(answer, "message"), "content"))


COHERE: Final = Shape("cohere", _is_answer, _read, _texts)
