"""The endpoints of Mistral's API: most have OpenAI's shape, and what they have of their own is here."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.providers.base import Asked, Body, Endpoint, RefusedEndpoints
from budgetguard.providers.body import UsageAccumulator
from budgetguard.providers.json import count, field, items, mapping, parsed, text, whole, words
from budgetguard.providers.openai.audio import (
    TranscriptionAccumulator,
    TranscriptionsEndpoint,
    transcript_units,
)
from budgetguard.providers.openai.chat import ChatEndpoint, ChoicesEndpoint
from budgetguard.providers.openai.embeddings import EMBEDDINGS, EmbeddingsEndpoint, tokens_or_text
from budgetguard.providers.openai.responses import RESPONSES
from budgetguard.providers.table import EndpointTable
from budgetguard.tokens.documents import read_pdf
from budgetguard.tokens.text import count_text, encoding_for

# A document whose pages are read one by one is seldom longer; for one that is not in the request.
_PAGES: Final = 50
# Seconds that a recording lasts at most which is elsewhere: https://docs.mistral.ai/capabilities/audio
_UNHEARD_SECONDS: Final = 3 * 60 * 60
_FILES: Final = ("document_url", "file_id")


class MistralChatEndpoint(ChatEndpoint):
    """Chat completions, in which documents have other names. Streams always tell their usage."""

    def asks_usage(self, body: Body) -> Mapping[str, object]:
        return {}

    def project(self, asked: Asked) -> Projection:
        body = mapping(asked.body)
        messages = body.get("messages")
        if isinstance(messages, list | tuple) and any(_names_file(one) for one in messages):
            named = {**body, "messages": [_with_files(mapping(one)) for one in messages]}
            asked = Asked(named, asked.model, asked.rates, asked.learned, asked.counted)
        return super().project(asked)


def _names_file(message: object) -> bool:
    return any(field(part, "type") in _FILES for part in items(field(message, "content")))


def _with_files(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message in which documents that are elsewhere stand as OpenAI names files."""
    content = message.get("content")
    if not isinstance(content, list | tuple):
        return message
    parts = [
        {"type": "file", "file": {"file_id": "elsewhere"}} if field(part, "type") in _FILES else part
        for part in content
    ]
    return {**message, "content": parts}


class FimEndpoint(ChoicesEndpoint):
    """Code that is filled in between a `prompt` and a `suffix`."""

    def asks_usage(self, body: Body) -> Mapping[str, object]:
        return {}

    def project(self, asked: Asked) -> Projection:
        """Project a filled-in text.

        Raises:
            ConfigurationError: bad `max_tokens`.
            UnknownModelError: there is no price.
        """
        given = whole(asked.body, "max_tokens")
        cap = given if given is not None else assumed_output_cap(asked.model, asked.learned(asked.model))
        return projected(
            asked.model,
            asked.rates,
            {"input_tokens": with_margin(self.input_tokens(asked.body, asked.model))},
            {"output_tokens": cap},
            cap_assumed=given is None,
            output_cap=cap,
        )

    def input_tokens(self, body: Body, model: str) -> int:
        encoding = encoding_for(model)
        return sum(tokens_or_text(field(body, name), encoding) for name in ("prompt", "suffix"))

    def cap_name(self, provider: str) -> str:
        return "max_tokens"


class OcrEndpoint(Endpoint):
    """Documents that are read, billed by the page; those that are annotated cost more."""

    def project(self, asked: Asked) -> Projection:
        """Project the pages that are read: those asked for, else those of the document, else an allowance.

        Raises:
            UnknownModelError: pages have no price.
        """
        pages = _pages_asked(asked.body) or _pages_of(field(asked.body, "document")) or _PAGES
        return projected(asked.model, asked.rates, _page_units(asked.body, pages), {})

    def read(self, answer: object) -> Reported:
        answer = parsed(answer)
        pages = count(field(field(answer, "usage_info"), "pages_processed"))
        model = text(field(answer, "model"))
        if pages is None:
            return Reported(usage=None, model=model)
        annotated = any(
            field(answer, name) is not None for name in ("document_annotation", "bbox_annotation_format")
        ) or any(
            field(image, "image_annotation") is not None
            for page in items(field(answer, "pages"))
            for image in items(field(page, "images"))
        )
        return Reported(Usage.of(**_pages(pages, annotated=annotated)), model)


def _pages_asked(body: Body) -> int:
    """Return how many pages a request asks for, 0 if it does not say: a list, or text such as `0-4,7`."""
    pages = field(body, "pages")
    if isinstance(pages, str):
        total = 0
        for part in pages.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdigit() or (dash and not last.strip().isdigit()):
                return 0
            total += max(1, int(last) - int(first) + 1) if dash else 1
        return total
    return len(items(pages))


def _pages_of(document: object) -> int:
    """Return how many pages a document has that is in the request, 0 if it is elsewhere."""
    kind = field(document, "type")
    if kind == "image_url":
        return 1
    url = field(document, "document_url")
    if not isinstance(url, str) or not url.startswith("data:"):
        return 0
    try:
        data = base64.b64decode(url.partition(",")[2])
    except (binascii.Error, ValueError):
        return 0
    found = read_pdf(data)
    return 0 if found is None else found.pages


def _page_units(body: Body, pages: int) -> dict[str, int]:
    asks = ("bbox_annotation_format", "document_annotation_format")
    return _pages(pages, annotated=any(field(body, name) is not None for name in asks))


def _pages(pages: int, *, annotated: bool) -> dict[str, int]:
    return {"input_document_pages": pages, "input_annotated_document_pages": pages if annotated else 0}


class MistralTranscriptionsEndpoint(TranscriptionsEndpoint):
    """Transcriptions, also of recordings that are elsewhere; answers tell the seconds that were heard."""

    def project(self, asked: Asked) -> Projection:
        if field(asked.body, "file_url") is None and field(asked.body, "file_id") is None:
            return super().project(asked)
        read, written = transcript_units(asked.rates, _UNHEARD_SECONDS)
        return projected(asked.model, asked.rates, read, written)

    def read(self, answer: object) -> Reported:
        answer = parsed(answer)
        return heard(field(answer, "usage"), text(field(answer, "model")))

    def accumulator(self, model: str) -> HeardAccumulator:
        return HeardAccumulator(model)


class HeardAccumulator(TranscriptionAccumulator):
    """What a streamed transcription has said so far."""

    def feed(self, chunk: object) -> None:
        self._merge(heard(field(chunk, "usage")).usage)


def heard(usage: object, model: str | None = None) -> Reported:
    """Return what a transcription reports: the seconds that were heard."""
    seconds = count(field(usage, "prompt_audio_seconds"))
    return Reported(None if seconds is None else Usage.of(input_audio_seconds=seconds), model)


class MistralSpeechEndpoint(Endpoint):
    """Texts that are read aloud, billed by the character. No answer tells how many there were."""

    streams = True

    def project(self, asked: Asked) -> Projection:
        return projected(asked.model, asked.rates, dict(self.unreported(asked.body)), {})

    def unreported(self, body: Body) -> Mapping[str, int]:
        return {"input_characters": len(words(body, "input"))}

    def read(self, answer: object) -> Reported:
        return Reported(Usage())

    def accumulator(self, model: str) -> UsageAccumulator:
        return _Spoken()


class _Spoken(UsageAccumulator):
    """A stream of sound, which costs what its text does."""

    @property
    def reported(self) -> Reported:
        return Reported(Usage())

    def feed(self, chunk: object) -> None:
        """Take one event, which says nothing of the cost."""

    def seen_tokens(self) -> int:
        return 0


class ClassifyEndpoint(EmbeddingsEndpoint):
    """Texts or conversations that are moderated or classified: input alone is billed."""

    def input_tokens(self, body: Body, model: str) -> int:
        encoding = encoding_for(model)
        given = field(body, "input")
        if isinstance(given, str):
            return tokens_or_text(given, encoding)
        return sum(
            tokens_or_text(one, encoding) if isinstance(one, str) else count_text(str(one), encoding)
            for one in (given if isinstance(given, list | tuple) else [given])
        )


CHAT: Final = MistralChatEndpoint("chat", "/chat/completions")
FIM: Final = FimEndpoint("fim", "/fim/completions")
OCR: Final = OcrEndpoint("ocr", "/ocr")
TRANSCRIPTIONS: Final = MistralTranscriptionsEndpoint("transcriptions", "/audio/transcriptions", streams=True)
SPEECH: Final = MistralSpeechEndpoint("speech", "/audio/speech")
MODERATIONS: Final = ClassifyEndpoint("moderations", "/moderations")
CHAT_MODERATIONS: Final = ClassifyEndpoint("moderations", "/chat/moderations")
CLASSIFICATIONS: Final = ClassifyEndpoint("classifications", "/classifications")
CHAT_CLASSIFICATIONS: Final = ClassifyEndpoint("classifications", "/chat/classifications")

PRICED: Final = (
    CHAT,
    FIM,
    EMBEDDINGS,
    OCR,
    RESPONSES,
    TRANSCRIPTIONS,
    SPEECH,
    MODERATIONS,
    CHAT_MODERATIONS,
    CLASSIFICATIONS,
    CHAT_CLASSIFICATIONS,
)
_FREE: Final = (
    "/agents",
    "/agents/{}",
    "/agents/{}/aliases",
    "/agents/{}/version",
    "/audio/voices",
    "/audio/voices/{}",
    "/batch/jobs/{}/cancel",
    "/files",
    "/fine_tuning/models/{}",
    "/fine_tuning/models/{}/archive",
    "/libraries",
    "/libraries/{}",
    "/libraries/{}/share",
    "/prompts",
    "/prompts/{}",
    "/prompts/{}/versions",
    "/prompts/{}/versions/{}",
    "/responses/input_tokens",
    "/skills",
    "/skills/{}",
    "/skills/{}/versions",
    "/skills/{}/versions/{}",
)
_REFUSED: Final = (
    RefusedEndpoints(
        "runs an agent, whose model, instructions and tools only Mistral's server knows",
        ("/agents/completions", "/audio/agents", "/audio/sessions", "/client/sessions"),
    ),
    RefusedEndpoints(
        "goes on by itself with tools and with turns that only Mistral's server knows",
        ("/conversations", "/conversations/{}", "/conversations/{}/restart"),
    ),
    RefusedEndpoints("runs many requests, whose cost no answer of it tells", ("/batch/jobs",)),
    RefusedEndpoints("trains a model, for which there is no price here", ("/fine_tuning/jobs",)),
    RefusedEndpoints(
        "reads documents page by page, which no answer of it tells",
        (
            "/libraries/{}/documents",
            "/libraries/{}/documents/{}/reprocess",
            "/context/search-indexes/{}/documents",
        ),
    ),
    RefusedEndpoints(
        "runs a workflow, which may ask any model",
        ("/workflows/{}/execute", "/workflows/registrations/{}/execute", "/workflows/schedules/{}/trigger"),
    ),
)
TABLE: Final = EndpointTable(PRICED, _FREE, _REFUSED, prefix=r"/v[12](?=/)")
# The models of a cloud are all asked at one address each.
AZURE_TABLE: Final = EndpointTable(
    (
        MistralChatEndpoint("chat", "/models/chat/completions"),
        OcrEndpoint("ocr", "/providers/mistral/azure/ocr"),
    ),
    (),
    (),
)
