"""Learn from settled calls how long answers are, and what input is billed beyond what is counted.

Both in a few counters, for each model, or model and shape of request.

Answers are counted in buckets that grow by a quarter of an octave (19 %), so a quantile is read to
within that, rounded up. Old answers fade: at `FADE_AT` all counts are halved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2
from typing import Final, TypeAlias

from budgetguard.errors import StoreError

Observations: TypeAlias = dict[str, int]
"""Bucket number (as text, because JSON keys are) -> answers counted."""

QUANTILE = 0.99
ENOUGH = 30
"""Answers needed before a quantile is trusted: below this one outlier in a hundred has hardly been seen."""

_STEPS_PER_OCTAVE = 4
MOST_MODELS = 2_000
"""Models, or models and shapes of requests, of which one project's store keeps observations."""

FADE_AT = 4_000
"""Answers counted at which the old ones fade."""

# A settlement takes observations along once there are so many; until so many answers are known, each.
_SEND_EVERY: Final = 16
_SEND_EACH: Final = 4 * ENOUGH


def observe(counts: Observations, tokens: int) -> Observations:
    """Return the counts with one more answer of that many output tokens in them."""
    bucket = str(_bucket(tokens))
    grown = {**counts, bucket: counts.get(bucket, 0) + 1}
    if sum(grown.values()) >= FADE_AT:
        grown = {name: count // 2 for name, count in grown.items() if count > 1}
    return grown


def learned_cap(counts: Observations) -> int | None:
    """Return an output cap (tokens) that 99 in 100 answers stayed under, or None before enough answers."""
    total = sum(counts.values())
    if total < ENOUGH:
        return None
    needed = ceil(total * QUANTILE)
    for bucket in sorted(map(int, counts)):
        needed -= counts[str(bucket)]
        if needed <= 0:
            return _upper_edge(bucket)
    raise AssertionError("the buckets hold fewer answers than their own sum")


def _bucket(tokens: int) -> int:
    return 0 if tokens <= 1 else ceil(log2(tokens) * _STEPS_PER_OCTAVE)


def _upper_edge(bucket: int) -> int:
    return ceil(2 ** (bucket / _STEPS_PER_OCTAVE))


class Learned:
    """Observations of output tokens by model: those that the store has, and those still to be sent.

    Args:
        stored: model -> what the store has of it, or raises StoreError.
    """

    def __init__(self, stored: Callable[[str], Observations]) -> None:
        self._stored = stored
        self._counts: dict[str, Observations] = {}
        self._unsent: deque[tuple[str, int]] = deque()
        self._send_now = False

    def cap(self, model: str) -> int | None:
        """Return the output cap that a model's settled calls suggest (tokens), or None before enough."""
        counts = self._counts.get(model)
        if counts is None:
            try:
                counts = self._counts[model] = self._stored(model)
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


@dataclass(frozen=True, slots=True)
class HiddenInput:
    """What is learned of input that is billed beyond what is counted.

    Requests of one model and one shape miss the same: what hosted tools find, or a prompt of the provider's
    own beside the tools. So tokens are learned. Where the model's own encoding is not public, what is missed
    grows with the text, and thousandths of it are learned instead.

    Attributes:
        key: what is learned together: `gpt-5 input beyond: web_search`, `gpt-4o responses: tools`.
        shown: the input tokens that are projected for what the request shows, margin included.
        text: what thousandths are learned of: `shown` without the margin that every request gets alike; 0
            where tokens are learned.
        hides: whether the request is known not to show all of its input.
    """

    key: str
    shown: int
    text: int = 0
    hides: bool = False

    def observed(self, billed: int) -> int:
        """Return what an answer that was billed so many input tokens teaches: what was beyond `shown`."""
        if self.text:
            return max(1, -(-(billed - self.text) * 1_000 // self.text))
        return max(1, billed - self.shown)

    def tokens(self, learned: int) -> int:
        """Return the tokens to add to `shown` by what was learned, never less than none."""
        if learned <= 1:
            return 0  # the least that is observed: nothing was missed
        if self.text:
            return max(0, self.text - (-self.text * learned // 1_000) - self.shown)
        return learned
