"""How many tokens a model can answer with at most: a cap above that is an error of the provider's."""

from __future__ import annotations

import re
from typing import Final

from budgetguard.counting.requests import bare_name

# Maximum output and context window, in tokens, by the pages of https://platform.openai.com/docs/models as
# of 2025; the first row that matches counts.
_LIMITS: Final = tuple(
    (re.compile(pattern), output, context)
    for pattern, output, context in (
        (r"gpt-5[\d.]*-chat|gpt-5-search", 16_384, 128_000),
        (r"gpt-5[\d.]*-pro", 128_000, 400_000),
        (r"gpt-5|codex", 128_000, 400_000),
        (r"gpt-4\.1", 32_768, 1_047_576),
        (r"gpt-4\.5", 16_384, 128_000),
        (r"gpt-4o-2024-05-13", 4_096, 128_000),
        (r"gpt-4o|chatgpt-4o", 16_384, 128_000),
        (r"gpt-4-(turbo|\d{4}-preview|vision)", 4_096, 128_000),
        (r"gpt-4-32k", 8_192, 32_768),
        (r"gpt-4(?=$|[-:])", 8_192, 8_192),
        (r"gpt-3\.5", 4_096, 16_385),
        (r"o1-mini", 65_536, 128_000),
        (r"o1-preview", 32_768, 128_000),
        (r"o[134](-|$)", 100_000, 200_000),
    )
)
# Every chat model that OpenAI serves can write this much.
_UNKNOWN: Final = 4_096

_OPENAI: Final = re.compile(r"gpt-\d|chatgpt|o\d(-|$)|codex|text-embedding|davinci|babbage")


def output_limit(model: str, input_tokens: int) -> int:
    """Return the output tokens that a request may ask of a model: 4 096 where the model is not known.

    Args:
        model: the model's name as the call gave it.
        input_tokens: those of the request; a model's window has to hold both.
    """
    name = bare_name(model)
    for pattern, output, context in _LIMITS:
        if pattern.match(name):
            return max(1, min(output, context - input_tokens))
    return _UNKNOWN


def is_counted_exactly(model: str) -> bool:
    """Whether plain text becomes tokens by an encoding that is public, as for OpenAI's own models."""
    return _OPENAI.match(bare_name(model)) is not None
