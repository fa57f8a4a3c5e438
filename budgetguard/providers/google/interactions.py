"""Interactions of the Developer API and Vertex with a model: `/interactions`, projected as contents are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection
from budgetguard.providers.answers import Piece
from budgetguard.providers.base import Asked, Body, Fetching, Polled, Prepared, Preparing
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.google.answers import MAPS
from budgetguard.providers.google.generate import GeminiEndpoint
from budgetguard.providers.google.input_tokens import GeminiInput
from budgetguard.providers.json import count, field, items, mapping, parsed, text
from budgetguard.providers.shapes import as_text, made
from budgetguard.tokens.models import bare_name

# What an earlier interaction has said, which Google keeps, until settled calls have taught better.
_THREAD: Final = 8_000
# A film of 10 seconds, at $0.10 each and $17.50 a million tokens: its request says nothing of its length.
# https://ai.google.dev/gemini-api/docs/pricing
_FILM: Final = 10 * 5_800
_GOES_ON: Final = frozenset({"in_progress", "queued", "idle"})
# One that runs in the background is asked for within a day.
_BACKGROUND: Final = 24 * 60 * 60 * 1000
_MEDIA: Final = frozenset({"image", "audio", "video", "document"})
# Tools, by their types here, as contents name them; they have the same prices.
_TOOLS: Final[Mapping[str, str]] = {
    "google_search": "googleSearch",
    "google_maps": "googleMaps",
    "url_context": "urlContext",
    "code_execution": "codeExecution",
    "file_search": "fileSearch",
    "computer_use": "computerUse",
}
_MODALITIES: Final = (
    ("input_tokens_by_modality", "audio", "input_audio_tokens"),
    ("tool_use_tokens_by_modality", "audio", "input_audio_tokens"),
    ("cached_tokens_by_modality", "audio", "cache_audio_read_tokens"),
    ("output_tokens_by_modality", "audio", "output_audio_tokens"),
    ("output_tokens_by_modality", "image", "output_image_tokens"),
    ("output_tokens_by_modality", "video", "output_video_tokens"),
)


class InteractionsEndpoint(GeminiEndpoint):
    """Interactions with a model."""

    counts_input = False

    def project(self, asked: Asked) -> Projection:
        """Project an interaction. What it continues is allowed for, until settled calls teach better."""
        return super().project(replace(asked, body=as_contents(asked.body)))

    def _input(self, body: Mapping[str, Any], model: str) -> GeminiInput:
        found = super()._input(body, model)
        if body.get("_continues"):
            found.unseen += _THREAD
        return found

    def more_output(self, body: Mapping[str, Any], model: str) -> Mapping[str, int]:
        """Return what a film has of output, if one is made."""
        films = "omni" in bare_name(model) or "VIDEO" in (
            body["generationConfig"].get("responseModalities") or ()
        )
        return {"output_video_tokens": _FILM} if films else {}

    def input_tokens(self, body: Body, model: str) -> int:
        return self._input(as_contents(body), model).tokens

    def cap_name(self, provider: str) -> str | None:
        return None  # a cap would stand inside of a request that is written already

    def must_fetch(self, body: Body) -> bool:
        return super().must_fetch(as_contents(body))

    def prepare(self, preparing: Preparing) -> Fetching:
        prepared = yield from super().prepare(replace(preparing, body=as_contents(preparing.body)))
        return Prepared(str(field(preparing.body, "model")), preparing.body, counted=prepared.counted)

    def least_ttl(self, body: Body) -> int:
        return _BACKGROUND if field(body, "background") is True else 0

    def read(self, answer: object) -> Reported:
        return read_interaction(parsed(answer))

    def texts(self, answer: Any) -> Iterable[Piece]:
        for number, step in enumerate(items(field(answer, "steps") or field(answer, "outputs"))):
            for part in items(field(step, "content")) or (step,):
                yield (number, "text"), field(part, "text")
            yield (number, "call"), as_text(field(step, "arguments"))

    def accumulator(self, model: str) -> InteractionAccumulator:  # type: ignore[override]
        return InteractionAccumulator(model)


def as_contents(body: Body) -> dict[str, Any]:
    """Return an interaction as a request for contents, which is counted and priced alike."""
    shown = mapping(body)
    config = mapping(field(shown, "generation_config") or {})
    asked = {
        "maxOutputTokens": field(config, "max_output_tokens"),
        "thinkingConfig": {"thinkingLevel": level} if (level := field(config, "thinking_level")) else None,
        "responseModalities": [str(one).upper() for one in items(field(shown, "response_modalities"))]
        or None,
        "responseJsonSchema": field(shown, "response_format"),
        "imageConfig": {"imageSize": field(field(config, "image_config"), "image_size")},
    }
    return {
        "contents": list(_contents(field(shown, "input"))),
        "systemInstruction": field(shown, "system_instruction"),
        "tools": [_tool(mapping(one)) for one in items(field(shown, "tools"))],
        "cachedContent": field(shown, "cached_content"),
        "serviceTier": field(shown, "service_tier"),
        "generationConfig": {name: value for name, value in asked.items() if value is not None},
        "_continues": bool(field(shown, "previous_interaction_id") or field(shown, "continuation_token")),
    }


def _contents(asked: Any) -> Iterator[dict[str, Any]]:
    if asked is None:
        yield {"parts": [{"text": ""}]}  # a decoding that is resumed
    elif isinstance(asked, str):
        yield {"role": "user", "parts": [{"text": asked}]}
    else:
        for one in (asked,) if isinstance(asked, Mapping) else items(asked):
            inside = field(one, "content")
            parts = (
                [_part(part) for part in (items(inside) or (inside,))] if inside is not None else [_part(one)]
            )
            yield {"role": "model" if field(one, "type") == "model_output" else "user", "parts": parts}


def _part(one: Any) -> dict[str, Any]:
    if isinstance(one, str):
        return {"text": one}
    kind = field(one, "type")
    if kind in _MEDIA:
        mime = field(one, "mime_type") or f"{'application' if kind == 'document' else kind}/*"
        level = field(one, "resolution")
        more = {"mediaResolution": str(level)} if level is not None else {}
        if field(one, "data") is not None:
            return {"inlineData": {"mimeType": mime, "data": field(one, "data")}, **more}
        return {"fileData": {"mimeType": mime, "fileUri": str(field(one, "uri") or "")}, **more}
    if kind == "function_call":
        return {"functionCall": {"name": field(one, "name"), "args": mapping(field(one, "arguments") or {})}}
    if kind == "function_result":
        result = field(one, "result")
        shown = result if isinstance(result, Mapping) else {"result": result}
        return {"functionResponse": {"name": field(one, "name"), "response": shown}}
    if kind == "thought":
        return {"thoughtSignature": field(one, "signature")}
    said = field(one, "text")
    return {"text": said} if isinstance(said, str) else {"executableCode": dict(mapping(one))}


def _tool(one: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(field(one, "type") or "")
    if kind == "function":
        names = ("name", "description", "parameters")
        return {"functionDeclarations": [{name: one[name] for name in names if name in one}]}
    return {_TOOLS.get(kind, kind): {}}


def read_interaction(answer: Any) -> Reported:
    """Return what an interaction reports; it is `pending` as long as it goes on."""
    status, ident = text(field(answer, "status")), text(field(answer, "id"))
    if status in _GOES_ON:
        return Reported(usage=None, request_id=ident, pending=True)
    usage, model = field(answer, "usage"), text(field(answer, "model"))
    if usage is None:
        # One that failed without a word of usage is taken to cost nothing, like an error status.
        return Reported(Usage() if status in ("failed", "cancelled") else None, model, request_id=ident)
    told = {
        name: count(field(usage, f"total_{name}_tokens")) for name in ("input", "output", "thought", "cached")
    }
    units = {
        "input_tokens": (told["input"] or 0) + (count(field(usage, "total_tool_use_tokens")) or 0),
        "output_tokens": (told["output"] or 0) + (told["thought"] or 0),
        "cache_read_tokens": told["cached"] or 0,
        "output_reasoning_tokens": told["thought"] or 0,
    }
    for details, modality, unit in _MODALITIES:
        for one in items(field(usage, details)):
            if str(field(one, "modality")).lower() == modality:
                units[unit] = units.get(unit, 0) + (count(field(one, "tokens")) or 0)
    older = model is not None and any(part in model for part in ("gemini-1", "gemini-2"))
    for unit, tool in (("web_searches", "google_search"), (MAPS, "google_maps")):
        number = sum(
            count(field(one, "count")) or 0
            for one in items(field(usage, "grounding_tool_count"))
            if field(one, "type") == tool
        )
        units[unit] = min(1, number) if older else number
    unsaid = {f"{name}_tokens" for name in ("input", "output") if told[name] is None}
    tier = text(field(answer, "service_tier"))
    named = tier.lower() if tier is not None and tier.lower() in ("flex", "priority") else None
    return made(units, unsaid, model=model, tier=named, ident=ident)


class InteractionAccumulator(TextAccumulator):
    """What the events of a streamed interaction have said so far.

    Args:
        model: the model that was asked for; decides how text becomes tokens.
    """

    def feed(self, chunk: object) -> None:
        kind = str(field(chunk, "event_type"))
        if kind == "error" or field(chunk, "error") is not None:
            self.failed = True
        if kind in ("step.delta", "content.delta"):
            delta, index = field(chunk, "delta"), field(chunk, "index") or 0
            for name in ("text", "arguments", "thought"):
                self._keep((index, name), field(delta, name))
        said = field(chunk, "interaction")
        if said is None:
            return
        self._begun.add("interaction")
        if kind in ("interaction.completed", "interaction.complete"):
            self._finished.add("interaction")
            self._merge(read_interaction(said))
        else:
            told = Reported(usage=None, model=text(field(said, "model")), request_id=text(field(said, "id")))
            self._merge(told)


def _read_one(answer: object) -> Iterable[Reported]:
    return (read_interaction(parsed(answer)),)


POLLED: Final = (
    Polled("GET", "/interactions/{}", _read_one, InteractionAccumulator),
    Polled("POST", "/interactions/{}/cancel", _read_one),
)
