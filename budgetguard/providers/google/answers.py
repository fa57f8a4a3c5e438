"""Gemini's answers: what they report, whole and as streams of pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.providers.answers import Piece
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.json import field, items, text
from budgetguard.providers.shapes import TOTALS, Shape, Sums, as_text, counted, either, made, summed

# The unit of an answer that Google Maps was searched for.
MAPS: Final = "tool_uses_google_maps"

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


def read_gemini(answer: Any) -> Reported:
    """Return what an answer reports, or a piece of one: an SDK object or a mapping."""
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
    if "output_image_tokens" not in units and _draws(answer):
        # Where it is not told what is drawn, all of it is.
        units["output_image_tokens"] = counted(usage, "candidatesTokenCount") or 0
    units |= _grounded(answer, model or "")
    return made(units, unsaid, model=model, tier=_tier(usage), ident=ident)


def _tier(usage: Any) -> str | None:
    """Return the tier that an answer was served at: `serviceTier`, at Vertex `trafficType`."""
    for name in ("serviceTier", "trafficType"):
        told = either(usage, name)
        named = str(getattr(told, "value", told) or "").lower()
        if named.endswith(("flex", "priority")):
            return named.rpartition("_")[2]
    return None


def _draws(answer: Any) -> bool:
    for candidate in items(field(answer, "candidates")):
        for part in items(field(field(candidate, "content"), "parts")):
            inside = either(part, "inlineData")
            if str(either(inside, "mimeType") or "").startswith("image/") and not field(part, "thought"):
                return True
    return False


def _grounded(answer: Any, model: str) -> dict[str, int]:
    """Return what is billed of searches on the web and on maps: each query; before Gemini 3, each answer that
    made any."""
    older = any(part in model for part in ("gemini-1", "gemini-2"))
    queries = places = 0
    for candidate in items(field(answer, "candidates")):
        grounding = either(candidate, "groundingMetadata")
        queries += sum(1 for query in items(either(grounding, "webSearchQueries")) if query)
        if any(field(chunk, "maps") is not None for chunk in items(either(grounding, "groundingChunks"))):
            places += 1
    found = {"web_searches": min(1, queries) if older else queries}
    # Without a place on a map nothing was searched there, whatever tools were offered.
    return {**found, MAPS: min(1, places) if older else places}


def gemini_texts(answer: Any) -> Iterable[Piece]:
    """Yield the texts of an answer, or of a piece of one, each with its slot."""
    for number, candidate in enumerate(items(field(answer, "candidates"))):
        for part in items(field(field(candidate, "content"), "parts")):
            yield (number, "text"), field(part, "text")
            yield (number, "call"), as_text(either(part, "functionCall"))
            yield (number, "code"), field(either(part, "executableCode"), "code")


class GeminiAccumulator(TextAccumulator):
    """What the pieces of a streamed answer have said so far: each tells how much it was until then.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def feed(self, chunk: object) -> None:
        if field(chunk, "error") is not None:
            self.failed = True
        if either(field(chunk, "promptFeedback") or either(chunk, "promptFeedback"), "blockReason"):
            self._begun.add("prompt")
            self._finished.add("prompt")
        for slot, piece in gemini_texts(chunk):
            self._keep(slot, piece)
        for number, candidate in enumerate(items(field(chunk, "candidates"))):
            index = field(candidate, "index") or number
            self._begun.add(index)
            if either(candidate, "finishReason"):
                self._finished.add(index)
        said = read_gemini(chunk)
        if said.usage is not None and not self.ended:
            # How much it writes is known when it has been written.
            said = replace(said, unsaid=said.unsaid | {"output_tokens"})
        self._merge(said)


GEMINI: Final = Shape("gemini", _is_response, read_gemini, gemini_texts)
