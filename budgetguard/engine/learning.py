"""What settled calls teach: how long a model's answers are, kept by the store with a later settlement."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from budgetguard.core.learning import ENOUGH, Observations, learned_cap, observe
from budgetguard.errors import StoreError
from budgetguard.stores.base import Store

_SEND_EVERY: Final = 16
_SEND_EACH: Final = 4 * ENOUGH


class Learned:
    """Observations of output tokens by model: those that the store has, and those still to be sent.

    Args:
        store: opens the store, or raises StoreError.
    """

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._counts: dict[str, Observations] = {}
        self._unsent: deque[tuple[str, int]] = deque()
        self._send_now = False

    def cap(self, model: str) -> int | None:
        """Return the output cap that a model's settled calls suggest (tokens), or None before enough."""
        counts = self._counts.get(model)
        if counts is None:
            try:
                counts = self._counts[model] = self._store().observations(model)
            except StoreError:
                return None  # reserving will meet the same store, and say so
        return learned_cap(counts)

    def observe(self, model: str, tokens: int) -> None:
        """Learn from an answer of that many output tokens."""
        counts = self._counts[model] = observe(self._counts.get(model, {}), tokens)
        self._unsent.append((model, tokens))
        # Until enough is known, each one is sent at once: a program that makes one call a run learns too.
        self._send_now = self._send_now or sum(counts.values()) <= _SEND_EACH

    def due(self) -> tuple[tuple[str, int], ...]:
        """Return the observations that the next settlement takes along; they are handed out once."""
        if not self._send_now and len(self._unsent) < _SEND_EVERY:
            return ()
        self._send_now = False
        taken = []
        while self._unsent:
            try:
                taken.append(self._unsent.popleft())
            except IndexError:  # another thread was faster
                break
        return tuple(taken)

    def forget(self) -> None:
        """Forget everything: the store is another one."""
        self._counts = {}
        self._unsent.clear()
