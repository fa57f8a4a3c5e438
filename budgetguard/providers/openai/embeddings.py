"""Embeddings: `/embeddings`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.providers.base import Asked, Body, Endpoint
from budgetguard.providers.json import field
from budgetguard.tokens.text import count_text, encoding_for


class EmbeddingsEndpoint(Endpoint):
    """Embeddings, which have no output."""

    def project(self, asked: Asked) -> Projection:
        tokens = with_margin(self.input_tokens(asked.body, asked.model))
        tier = field(asked.body, "service_tier")
        return projected(asked.model, asked.rates, {"input_tokens": tokens}, {}, asked_tier=tier)

    def input_tokens(self, body: Body, model: str) -> int:
        return tokens_or_text(field(body, "input"), encoding_for(model))


def tokens_or_text(value: Any, encoding: str) -> int:
    """Return the tokens that a text, a list of token ids, or a list of either is billed."""
    if value is None:
        return 0
    if isinstance(value, str):
        # An empty input is billed as one token.
        return max(1, count_text(value, encoding))
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, Iterable):
        return sum(1 if isinstance(one, int) else tokens_or_text(one, encoding) for one in value)
    return 1 if isinstance(value, int) else count_text(str(value), encoding)


EMBEDDINGS: Final = EmbeddingsEndpoint("embeddings", "/embeddings")
