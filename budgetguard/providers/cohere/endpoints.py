"""The endpoints of Cohere's API, of both versions. What is billed is told in `billed_units`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection, assumed_output_cap, projected, with_margin
from budgetguard.providers.answers import Piece
from budgetguard.providers.base import Asked, Body, Endpoint, RefusedEndpoints
from budgetguard.providers.body import TextAccumulator
from budgetguard.providers.cohere.answers import COHERE, billed
from budgetguard.providers.cohere.input_tokens import cohere_input, cohere_texts
from budgetguard.providers.hidden_input import input_beyond
from budgetguard.providers.json import compact_json, field, items, mapping, parsed, text, whole
from budgetguard.providers.openai.embeddings import tokens_or_text
from budgetguard.providers.table import EndpointTable
from budgetguard.providers.thinking import thinking_tokens
from budgetguard.tokens.text import count_text, encoding_for

# https://docs.cohere.com/docs/how-does-cohere-pricing-work: a search is a query with up to 100 documents, and
# a document that is longer than so many tokens, the query's included, counts as several.
_DOCUMENTS: Final = 100
_CHUNK: Final = 500
# Tokens of a document beyond which nothing is read: the default of `max_tokens_per_doc`.
_DOCUMENT: Final = 4_096
# An image that is embedded has up to 2 458 624 pixels, in patches of 28 by 28:
# https://docs.cohere.com/docs/embeddings
_IMAGE: Final = 3_136
_ENDS: Final = frozenset({"message-end", "stream-end"})


class CohereChatEndpoint(Endpoint):
    """Chats: a list of messages in version 2, a message and those before it in version 1."""

    streams = True

    def project(self, asked: Asked) -> Projection:
        """Project a chat.

        Raises:
            ConfigurationError: bad `messages` or `max_tokens`.
            UnknownModelError: there is no price.
        """
        body, model = mapping(asked.body), asked.model
        found = cohere_input(body, model)
        shown = with_margin(found.tokens)
        hidden, more = input_beyond(
            "chat", body, model, sorted(found.kinds), found.all_allowances(), shown, asked.learned
        )
        thinking = thinking_tokens(body)
        given = whole(body, "max_tokens")
        cap = given if given is not None else assumed_output_cap(model, asked.learned(model), thinking)
        return projected(
            model,
            asked.rates,
            {"input_tokens": shown + more},
            {"output_tokens": cap},
            cap_assumed=given is None,
            output_cap=cap,
            hidden=hidden,
            asked_to_think=thinking is not None,
        )

    def input_tokens(self, body: Body, model: str) -> int:
        return cohere_input(mapping(body), model).tokens

    def cap_name(self, provider: str) -> str:
        return "max_tokens"

    def read(self, answer: object) -> Reported:
        return COHERE.read(parsed(answer))

    def texts(self, answer: Any) -> Iterable[Piece]:
        return (*COHERE.texts(answer), ("text", field(answer, "text")))

    def accumulator(self, model: str) -> CohereAccumulator:
        return CohereAccumulator(model)


class CohereAccumulator(TextAccumulator):
    """What the events of a chat, or of a text that is generated, have said so far."""

    def feed(self, chunk: object) -> None:
        for slot, piece in COHERE.texts(chunk):
            self._keep(slot, piece)
            self._begun.add(0)
        kind = text(field(chunk, "type")) or text(field(chunk, "event_type"))
        if kind in _ENDS or field(chunk, "is_finished") is True:
            self._finished.add(0)
        reason = field(field(chunk, "delta"), "finish_reason") or field(chunk, "finish_reason")
        self.failed = self.failed or reason in ("ERROR", "ERROR_TOXIC") or field(chunk, "error") is not None
        self._merge(COHERE.read(chunk))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else compact_json(mapping(value))


class GenerateEndpoint(CohereChatEndpoint):
    """Texts that go on from a prompt, and summaries: endpoints of version 1."""

    def project(self, asked: Asked) -> Projection:
        """Project a text that is generated or summarized.

        Raises:
            ConfigurationError: bad `num_generations` or `max_tokens`.
            UnknownModelError: there is no price.
        """
        body = asked.body
        choices = whole(body, "num_generations", least=1) or 1
        given = whole(body, "max_tokens")
        cap = given if given is not None else assumed_output_cap(asked.model, asked.learned(asked.model))
        return projected(
            asked.model,
            asked.rates,
            {"input_tokens": with_margin(self.input_tokens(body, asked.model))},
            {"output_tokens": cap * choices},
            cap_assumed=given is None,
            output_cap=cap,
            choices=choices,
        )

    def input_tokens(self, body: Body, model: str) -> int:
        encoding = encoding_for(model)
        return sum(tokens_or_text(field(body, name), encoding) for name in ("prompt", "text"))


class BilledEndpoint(Endpoint):
    """An endpoint whose answers have no text, and tell what was billed."""

    def read(self, answer: object) -> Reported:
        answer = parsed(answer)
        units = billed(answer)
        return Reported(None if units is None else Usage.of(**units), request_id=text(field(answer, "id")))


class CohereEmbedEndpoint(BilledEndpoint):
    """Texts and images that are embedded; images cost by the piece with the older models."""

    def project(self, asked: Asked) -> Projection:
        body = asked.body
        images = len(items(field(body, "images"))) + sum(
            field(part, "type") == "image_url"
            for one in items(field(body, "inputs"))
            for part in items(field(one, "content"))
        )
        tokens = with_margin(self.input_tokens(body, asked.model))
        if images and not asked.rates.prices("images"):
            seen = images * _IMAGE
            units = {"input_tokens": tokens + seen, "input_image_tokens": seen}
        else:
            units = {"input_tokens": tokens, "images": images}
        return projected(asked.model, asked.rates, units, {})

    def input_tokens(self, body: Body, model: str) -> int:
        parts = (part for one in items(field(body, "inputs")) for part in items(field(one, "content")))
        texts = [field(part, "text") for part in parts]
        return cohere_texts(body, model) + cohere_texts({"texts": texts}, model)


class RerankEndpoint(BilledEndpoint):
    """Documents that are ranked: billed by the search, or by tokens with models that are priced so."""

    def project(self, asked: Asked) -> Projection:
        body = asked.body
        encoding = encoding_for(asked.model)
        query = tokens_or_text(field(body, "query"), encoding)
        most = whole(body, "max_tokens_per_doc", least=1) or _DOCUMENT
        lengths = [min(most, count_text(_plain(one), encoding)) for one in items(field(body, "documents"))]
        if not asked.rates.prices("rerank_searches"):
            tokens = sum(length + query for length in lengths)
            return projected(asked.model, asked.rates, {"input_tokens": with_margin(tokens)}, {})
        room = max(1, _CHUNK - query)
        chunks = sum(max(1, -(-length // room)) for length in lengths)
        searches = max(1, -(-chunks // _DOCUMENTS))
        return projected(asked.model, asked.rates, {"rerank_searches": searches}, {})


class ParseEndpoint(BilledEndpoint):
    """An image of a document that is read: one page."""

    def project(self, asked: Asked) -> Projection:
        return projected(asked.model, asked.rates, {"input_document_pages": 1}, {})


CHAT: Final = CohereChatEndpoint("chat", "/chat")
GENERATE: Final = GenerateEndpoint("generate", "/generate")
SUMMARIZE: Final = GenerateEndpoint("summarize", "/summarize")
EMBED: Final = CohereEmbedEndpoint("embed", "/embed")
RERANK: Final = RerankEndpoint("rerank", "/rerank")
PARSE: Final = ParseEndpoint("parse", "/parse")

TABLE: Final = EndpointTable(
    (CHAT, GENERATE, SUMMARIZE, EMBED, RERANK, PARSE),
    (
        "/check-api-key",
        "/connectors",
        "/connectors/{}",
        "/connectors/{}/oauth/authorize",
        "/datasets",
        "/detokenize",
        "/embed-jobs/{}/cancel",
        "/tokenize",
    ),
    (
        RefusedEndpoints("is billed by the classification, for which there is no price here", ("/classify",)),
        RefusedEndpoints("is billed by what no answer of it tells", ("/audio/transcriptions",)),
        RefusedEndpoints("runs many requests, whose cost no answer of it tells", ("/batches", "/embed-jobs")),
        RefusedEndpoints(
            "trains a model, for which there is no price here",
            ("/finetuning/finetuned-models", "/finetuning/finetuned-models/{}"),
        ),
    ),
    prefix=r"/v[12](?=/)",
)
