"""Calls of a real client, guarded, as tasks and jobs make them; settings are the environment's."""

from __future__ import annotations

import os
from typing import Any

import budgetguard
from budgetguard import budget_tags, current_user

MODEL = "gpt-4o-mini"

budgetguard.patch_openai()
# As programs do when they are imported: the store is open before a worker forks.
budgetguard.default_guard().set_budget(0, user="broke")

_client: Any = None


def call(who: str = "", words: int = 20) -> str | None:
    """Make a call, tagged with who should pay for it, and return who is current."""
    global _client
    if _client is None:
        from openai import OpenAI

        _client = OpenAI(max_retries=0)
    with budget_tags(who or "nobody"):
        _client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello?"}], max_completion_tokens=words
        )
    return current_user()


if "IN_WORKER" in os.environ:
    # What calls import, before the worker forks, so that not every child takes the time to.
    import openai

    assert openai.OpenAI().chat.completions
    with budgetguard.Guard(store="memory://", missing_user="allow").call(model=MODEL, input="Hello?") as warm:
        warm.void()
