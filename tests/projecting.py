"""Projections of requests, as tests ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from budgetguard.engine.projection import Projection
from budgetguard.pricing.rates import Rates
from budgetguard.providers.base import Asked, Endpoint, nothing_learned
from budgetguard.providers.openai.chat import CHAT
from budgetguard.providers.openai.completions import COMPLETIONS
from budgetguard.providers.openai.embeddings import EMBEDDINGS
from budgetguard.providers.openai.responses import RESPONSES


def project(
    endpoint: Endpoint,
    body: Mapping[str, Any],
    model: str,
    rates: Rates,
    *,
    learned_cap: int | None = None,
    learned_input: Callable[[str], int | None] = nothing_learned,
) -> Projection:
    """Project a request.

    Args:
        endpoint: the one that it is for.
        body: JSON.
        model: the model's name.
        rates: what it costs.
        learned_cap: output tokens of each choice that settled calls suggest.
        learned_input: `HiddenInput.key` -> input tokens that they suggest to add.
    """

    def learned(key: str) -> int | None:
        return learned_cap if key == model else learned_input(key)

    return endpoint.project(Asked(body, model, rates, learned))


project_chat = partial(project, CHAT)
project_completion = partial(project, COMPLETIONS)
project_embeddings = partial(project, EMBEDDINGS)
project_response = partial(project, RESPONSES)
chat_input_tokens = CHAT.input_tokens
response_input_tokens = RESPONSES.input_tokens
completion_input_tokens = COMPLETIONS.input_tokens
embedding_input_tokens = EMBEDDINGS.input_tokens
completion_choices = COMPLETIONS.choices
