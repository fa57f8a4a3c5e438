"""Answers as programs hand them to `update_cost`."""

from __future__ import annotations

from typing import Any

MODEL = "gpt-4o-mini"
MESSAGES: Any = [{"role": "user", "content": "Hey, how's it going?"}]

# 1 000 tokens in at $0.15 and 100 out at $0.60 a million.
COST = 0.00021
COST_NANOS = 210_000


def completion(
    prompt_tokens: int = 1_000, completion_tokens: int = 100, *, model: str | None = MODEL, **more: Any
) -> dict[str, Any]:
    """Return a chat completion as a dict, of `COST` by default."""
    return {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Fine."}}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
        **more,
    }
