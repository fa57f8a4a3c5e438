"""Legacy completions: `/completions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from budgetguard.engine.projection import Projection, projected, with_margin
from budgetguard.providers.base import Asked, Body
from budgetguard.providers.json import field, whole
from budgetguard.providers.openai.chat import ChoicesEndpoint
from budgetguard.providers.openai.embeddings import tokens_or_text
from budgetguard.tokens.text import count_text, encoding_for

# Where a request sets no cap: https://platform.openai.com/docs/api-reference/completions/create
_CAP: Final = 16


class CompletionsEndpoint(ChoicesEndpoint):
    """Legacy completions."""

    def project(self, asked: Asked) -> Projection:
        """Project a legacy completion. Without `max_tokens` it ends after 16 tokens: no cap is assumed.

        Raises:
            ConfigurationError: bad `n`, `best_of` or `max_tokens`.
            UnknownModelError: the call would use a unit that has no price.
        """
        body = asked.body
        given_cap = whole(body, "max_tokens")
        each = _CAP if given_cap is None else given_cap
        choices = self.choices(body)
        return projected(
            asked.model,
            asked.rates,
            {"input_tokens": with_margin(self.input_tokens(body, asked.model))},
            {"output_tokens": each * choices},
            output_cap=each,
            choices=choices,
            asked_tier=field(body, "service_tier"),
        )

    def input_tokens(self, body: Body, model: str) -> int:
        """Count the tokens of its prompts and of its `suffix`."""
        prompt = field(body, "prompt")
        encoding = encoding_for(model)
        # Without a prompt the model is given the one token that begins every document.
        total = 1 if prompt is None else tokens_or_text(prompt, encoding)
        if (suffix := field(body, "suffix")) is not None:
            total += _prompts(body) * count_text(str(suffix), encoding)
        return total

    def choices(self, body: Body) -> int:
        """Return how many answers are billed: `n`, or `best_of` if more, for each prompt.

        Raises:
            ConfigurationError: bad `n` or `best_of`.
        """
        wanted = whole(body, "n", least=1), whole(body, "best_of", least=1)
        return _prompts(body) * max(one or 1 for one in wanted)


def _prompts(body: Body) -> int:
    """Return how many prompts a request has: a list of token ids is one."""
    prompt = field(body, "prompt")
    if isinstance(prompt, str | bytes) or not isinstance(prompt, Sequence) or not prompt:
        return 1
    return 1 if isinstance(prompt[0], int) else len(prompt)


COMPLETIONS: Final = CompletionsEndpoint("completions", "/completions")
