"""Gemini's answers: what they report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.providers.answers import Piece
from budgetguard.providers.json import field, items, text
from budgetguard.providers.shapes import TOTALS, Shape, Sums, as_text, counted, either, made, summed

_SUMS: Final[Sums] = {
    "input_tokens": ("promptTokenCount", "toolUsePromptTokenCount"),
    "output_tokens": ("candidatesTokenCount", "responseTokenCount", "thoughtsTokenCount"),
    "cache_read_tokens": ("cachedContentTokenCount",),
    "output_reasoning_tokens": ("thoughtsTokenCount",),
}
_MODALITIES: Final = (
    ("promptTokensDetails", "AUDIO", "input_audio_tokens"),
    ("toolUsePromptTokensDetails", "AUDIO", "input_audio_tokens"),
    ("cacheTokensDetails", "AUDIO", "cache_audio_read_tokens"),
    ("candidatesTokensDetails", "AUDIO", "output_audio_tokens"),
    ("candidatesTokensDetails", "IMAGE", "output_image_tokens"),
    ("candidatesTokensDetails", "VIDEO", "output_video_tokens"),
)


def _is_response(answer: Any) -> bool:
    usage = either(answer, "usageMetadata")
    if any(counted(usage, name) is not None for name in ("promptTokenCount", "totalTokenCount")):
        return True
    candidates = items(field(answer, "candidates"))
    return any(field(field(one, "content"), "parts") is not None for one in candidates)


def _read(answer: Any) -> Reported:
    usage = either(answer, "usageMetadata")
    model = text(either(answer, "modelVersion"))
    ident = either(answer, "responseId")
    if usage is None:
        return Reported(usage=None, model=model, request_id=text(ident))
    units, unsaid = summed(usage, _SUMS)
    total = counted(usage, "totalTokenCount")
    if total and unsaid == frozenset(TOTALS):
        return Reported(usage=None, model=model, request_id=text(ident), total=total)
    if total is not None and "input_tokens" not in unsaid:
        # An answer that was cut off before its first word has no count of its words.
        units["output_tokens"] = max(units["output_tokens"], total - units["input_tokens"])
        unsaid -= {"output_tokens"}
    for details, modality, unit in _MODALITIES:
        for one in items(either(usage, details)):
            if str(getattr(kind := field(one, "modality"), "value", kind)).upper() == modality:
                units[unit] = units.get(unit, 0) + (counted(one, "tokenCount") or 0)
    return made({**units, "web_searches": _searches(answer, model or "")}, unsaid, model=model, ident=ident)


def _searches(answer: Any, model: str) -> int:
    """Return the searches that are billed: each query; before Gemini 3, each answer that made any."""
    queries = [
        query
        for candidate in items(field(answer, "candidates"))
        for query in items(either(either(candidate, "groundingMetadata"), "webSearchQueries"))
        if query
    ]
    older = any(part in model for part in ("gemini-1", "gemini-2"))
    return min(1, len(queries)) if older else len(queries)


def _texts(answer: Any) -> Iterable[Piece]:
    for number, candidate in enumerate(items(field(answer, "candidates"))):
        for part in items(field(field(candidate, "content"), "parts")):
            yield (number, "text"), field(part, "text")
            yield (number, "call"), as_text(either(part, "functionCall"))


GEMINI: Final = Shape("gemini", _is_response, _read, _texts)
