"""The guard around the `openai` package's clients, as functions."""

from __future__ import annotations

from budgetguard.providers.sdks import SDKS, wrap

__all__ = ["patch", "unguarded", "unpatch", "is_patched", "wrap"]

_OPENAI = SDKS["openai"]
patch = _OPENAI.patch
unpatch = _OPENAI.unpatch
unguarded = _OPENAI.unguarded


def is_patched() -> bool:
    return _OPENAI.is_patched
