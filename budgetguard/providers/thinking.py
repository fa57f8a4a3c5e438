"""How much a model is asked to think before it answers, whoever's parameter says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_THINKING: Final = frozenset(
    {
        "enable_thinking",
        "include_reasoning",
        "reasoning",
        "reasoning_effort",
        "thinking",
        "thinkingConfig",
        "thinking_config",
    }
)
# What such parameters are kept in.
_HOLDERS: Final = frozenset(
    {
        "chat_template_kwargs",
        "config",
        "extra_body",
        "generationConfig",
        "generation_config",
        "google",
        "model_kwargs",
    }
)
_DEEPEST: Final = 3
ASKS_TO_THINK: Final = _THINKING | _HOLDERS
"""The fields of a request of which at least one is there if it asks its model to think."""
_NO_THINKING: Final = frozenset({"disabled", "disable", "none", "off", "false", "minimal"})


def thinking_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the tokens that a request lets its model think before it answers, 0 if it does not say how many.

    None if it asks for no thinking. Whose parameter it is does not matter: Anthropic's `thinking`, Gemini's
    `thinking_config`, OpenRouter's `reasoning`, OpenAI's `reasoning_effort`, Qwen's `enable_thinking`.
    """
    found: int | None = None
    waiting = [(body, _DEEPEST)]
    while waiting:
        holder, depth = waiting.pop()
        for name, value in holder.items():
            if value is None or value is False:
                continue
            if name in _THINKING:
                if (tokens := _thought(value)) is not None:
                    found = max(found or 0, tokens)
            elif name in _HOLDERS and depth:
                waiting.append((_plainly(value), depth - 1))
    return found


def _plainly(value: Any) -> Mapping[str, Any]:
    # Gemini's configuration is an object of its SDK.
    return value if isinstance(value, Mapping) else getattr(value, "__dict__", {})


def _thought(value: Any) -> int | None:
    if isinstance(value, bool):
        return 0
    if isinstance(value, str):
        return None if value.lower() in _NO_THINKING else 0
    fields = _plainly(value)
    for name in ("budget_tokens", "token_budget", "thinking_budget", "thinkingBudget", "max_tokens"):
        if isinstance(tokens := fields.get(name), int) and not isinstance(tokens, bool):
            return tokens if tokens > 0 else None if tokens == 0 else 0
    for name in ("type", "effort", "thinking_level", "thinkingLevel"):
        if isinstance(level := fields.get(name), str):
            return _thought(level)
    return 0 if fields.get("enabled") is True or fields.get("include_thoughts") is True else None
