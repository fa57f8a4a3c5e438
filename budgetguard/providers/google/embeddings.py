"""Embeddings: `:embedContent`, `:batchEmbedContents`, and `:predict` of Vertex' text models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.google.input_tokens import gemini_input
from budgetguard.providers.google.paths import bare_model
from budgetguard.providers.json import field, items, mapping, parsed, text
from budgetguard.providers.shapes import counted, either
from budgetguard.tokens.text import count_text, encoding_for

# What is embedded, by what Google calls it in its reports, where it has a price of its own.
_MODALITIES: Final[Mapping[str, str]] = {
    "AUDIO": "input_audio_tokens",
    "IMAGE": "input_image_tokens",
    "VIDEO": "input_video_tokens",
}
_KINDS: Final[Mapping[str, str]] = {"images": "input_image_tokens", "video": "input_video_tokens"}


class EmbedEndpoint(Endpoint):
    """Contents that are embedded, one or several."""

    def project(self, asked: Asked) -> Projection:
        """Project an embedding.

        Raises:
            ConfigurationError: no content.
            UnknownModelError: the call would use a unit that has no price.
        """
        units = _units(asked.body, asked.model)
        return projected(asked.model, asked.rates, {unit: with_margin(n) for unit, n in units.items()}, {})

    def input_tokens(self, body: Body, model: str) -> int:
        return _units(body, model).get("input_tokens", 0)

    def unreported(self, body: Body) -> Mapping[str, int]:
        # Not every model counts what it has read.
        first = next(iter(_contents(body)), None)
        return _units(body, bare_model(text(either(first, "model")) or ""))

    def read(self, answer: object) -> Reported:
        """Read what an answer reports; where it counts nothing, what it was asked is measured."""
        usage = either(parsed(answer), "usageMetadata")
        tokens = counted(usage, "promptTokenCount") or counted(usage, "totalTokenCount")
        if tokens is None:
            return Reported(usage=Usage(), measured=frozenset({"input_tokens"}))
        units = {"input_tokens": tokens}
        for one in items(either(usage, "promptTokensDetails")):
            unit = _MODALITIES.get(str(field(one, "modality")).upper())
            if unit is not None:
                units[unit] = units.get(unit, 0) + (counted(one, "tokenCount") or 0)
        return Reported(usage=Usage(units))


def _contents(body: Body) -> Iterator[Any]:
    requests = items(body.get("requests"))
    yield from requests or (body,)


def _units(body: Body, model: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in _contents(mapping(body)):
        asked = mapping(one)
        found = gemini_input({"contents": asked.get("content")}, model)
        total["input_tokens"] = total.get("input_tokens", 0) + max(1, found.tokens)
        if found.heard:
            total["input_audio_tokens"] = total.get("input_audio_tokens", 0) + found.heard
        for kind, unit in _KINDS.items():
            if kind in found.kinds:
                # Of whatever else stands beside it, the part is not told apart: the dearest counts.
                total[unit] = total.get(unit, 0) + found.tokens - found.heard
    return total


def predicted_texts(body: Body) -> list[str]:
    """Return the texts that Vertex' `:predict` is asked to embed; none if it is asked for something else."""
    instances = [mapping(one) for one in items(body.get("instances"))]
    return [one for each in instances if isinstance(one := each.get("content"), str)]


def project_predicted(asked: Asked, texts: Iterable[str]) -> Projection:
    """Project texts that Vertex embeds: by tokens, or, of its older models, by characters."""
    return projected(asked.model, asked.rates, predicted_units(texts, asked.model), {})


def predicted_units(texts: Iterable[str], model: str) -> dict[str, int]:
    """Return what texts are billed as, in both measures: prices decide which one counts."""
    encoding = encoding_for(model)
    tokens = characters = 0
    for one in texts:
        tokens += with_margin(count_text(one, encoding))
        characters += len(one)
    return {"input_tokens": tokens, "input_characters": characters}


def read_predicted(answer: object) -> Reported:
    """Read what Vertex reports of texts that it has embedded."""
    tokens = 0
    told = False
    for one in items(field(answer, "predictions")):
        statistics = field(either(one, "embeddings"), "statistics")
        number = counted(statistics, "token_count")
        told = told or number is not None
        tokens += number or 0
    if not told:
        return Reported(usage=None)
    characters = counted(either(answer, "metadata"), "billableCharacterCount")
    units = {"input_tokens": tokens}
    return Reported(usage=Usage(units if characters is None else {**units, "input_characters": characters}))
