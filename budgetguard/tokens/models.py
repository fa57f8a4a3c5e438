"""What a model's name tells: whether it thinks, how much it can answer, how its tokens are counted."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_REASONING: Final = re.compile(
    r"o\d|gpt-[5-9]|gpt-oss|codex|computer-use|deepseek-r\d|qwq|magistral|.*(reason|think)"
    r"|gemini-(2\.5|[3-9])|grok-(3-mini|[4-9]|code)"
)
_NOT_REASONING: Final = re.compile(
    r"gpt-5[\d.]*-chat|gpt-5-search|.*non-?(reason|think)|gemini-.*(lite|image|tts|audio|live|embedding)"
)

# Maximum output and context window, in tokens; the first row that matches counts. Read in LiteLLM's
# model_prices_and_context_window.json (a stored copy that has gpt-5.6, so of 2026-06 or later), genai-prices'
# prices/providers/openai.yml (2026-08-21), and where noted elsewhere. Where they differ, the smaller counts.
_LIMITS: Final = tuple(
    (re.compile(pattern), output, context)
    for pattern, output, context in (
        (r"gpt-5[\d.]*-chat", 16_384, 128_000),
        (r"gpt-5\.4(?:-pro)?(?=$|-\d)|gpt-5\.[56](?=$|-)", 128_000, 1_000_000),
        (r"gpt-5(?:\.[1-4])?(?:-(?:mini|nano|pro|codex)\b|(?=$|-\d))", 128_000, 400_000),
        # https://developers.openai.com/api/docs/models/codex-mini-latest
        (r"codex-mini", 100_000, 200_000),
        (r"gpt-4\.1", 32_768, 1_047_576),
        (r"gpt-4o-2024-05-13", 4_096, 128_000),
        (r"gpt-audio|gpt-4o(?!.*(?:realtime|transcribe|tts))", 16_384, 128_000),
        (r"gpt-4-(turbo|\d{4}-preview|vision)", 4_096, 128_000),
        # https://developers.openai.com/api/docs/models/gpt-4 says 8 192, window and output; LiteLLM 4 096.
        (r"gpt-4(?=$|-\d)", 4_096, 8_192),
        (r"gpt-3\.5-turbo-instruct", 4_096, 4_096),
        (r"gpt-3\.5", 4_096, 16_385),
        # o1-mini and o1-preview: https://www.openai-hk.com/docs/en/openai/o1.html
        (r"o1-mini", 65_536, 128_000),
        (r"o1-preview", 32_768, 128_000),
        # o3 and o4-mini: https://github.com/RooCodeInc/Roo-Code/pull/2691 (2025-04-17), after OpenAI's pages;
        # o1: https://models.wingman.actor/models/openai/o1
        (r"o[134](-|$)", 100_000, 200_000),
    )
)
# No chat model of those above can write less.
_UNKNOWN: Final = 4_096

_OPENAI: Final = re.compile(
    r"gpt-?\d|chatgpt|gpt-(audio|realtime|image)|o\d(-|$)|codex|computer-use|text-embedding|(text-)?(davinci|babbage|curie|ada)\b"
)


# Bedrock's names begin with where they run and whose they are: `us.anthropic.claude-...`.
_AT_BEDROCK: Final = re.compile(
    r"(?:[a-z]{2,6}(?:-[a-z]+)?\.)?(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot"
    r"|nvidia|openai|qwen|writer|zai)\."
)


@lru_cache(maxsize=1_024)
def bare_name(model: str) -> str:
    """Return the model's name in small letters, without provider and fine-tuning prefixes."""
    name = model.lower().rpartition("/")[2].removeprefix("ft:")
    found = _AT_BEDROCK.match(name)
    return name[found.end() :] if found else name


@lru_cache(maxsize=1_024)
def is_reasoning(model: str) -> bool:
    """Whether the model thinks before it answers, at the price of output (the o series, gpt-5 and later,
    Gemini and Grok since they do, and others whose names say so)."""
    name = bare_name(model)
    return _REASONING.match(name) is not None and _NOT_REASONING.match(name) is None


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


@lru_cache(maxsize=1_024)
def is_counted_exactly(model: str) -> bool:
    """Whether plain text becomes tokens by an encoding that is public, as for OpenAI's own models."""
    return _OPENAI.match(bare_name(model)) is not None
