"""Usage: what a provider says a call consumed, in units that have prices; and what settled calls teach of it.

Learned are how long a model's answers are, and what input is billed beyond what is counted: both in a few
counters, for each model, or model and shape of request. Answers are counted in buckets that grow by a quarter
of an octave (19 %), so a quantile is read to within that, rounded up. Old answers fade: at `FADE_AT` all
counts are halved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, log2
from typing import Final, TypeAlias

from budgetguard.errors import StoreError


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of priced units.

    Unit names are those of genai-prices: `input_tokens` and `output_tokens` are totals, and
    `cache_read_tokens`, `input_audio_tokens`, `output_audio_tokens` and the like are parts of them.
    Absent units are zero.

    Attributes:
        units: unit name -> count (a non-negative int).
    """

    units: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, **units: int) -> Usage:
        """Build a Usage from keywords, leaving zeros out: `Usage.of(input_tokens=12, output_tokens=3)`."""
        return cls({name: count for name, count in units.items() if count})

    @property
    def input_tokens(self) -> int:
        """Tokens in, cached ones included."""
        return self.units.get("input_tokens", 0)

    @property
    def output_tokens(self) -> int:
        """Tokens out, reasoning included."""
        return self.units.get("output_tokens", 0)

    def merged(self, other: Usage) -> Usage:
        """Return the larger count of each unit."""
        names = self.units.keys() | other.units.keys()
        return Usage({name: max(self.units.get(name, 0), other.units.get(name, 0)) for name in names})


@dataclass(frozen=True, slots=True)
class Reported:
    """What an answer says of its own cost.

    Attributes:
        usage: the units that it consumed, or None if the answer does not say.
        model: the model that answered, as the provider names it, or None.
        tier: the service tier that it was billed at, or None.
        request_id: the provider's id of the answer, or None.
        pending: the provider works on: what it costs is said when it is asked for later, by that id.
        measured: units of the usage that the answer does not count, so that they were measured in it.
        done: how much was done of what was projected, as (part, whole), where there is no usage.
        unsaid: totals (`input_tokens`, `output_tokens`) that the answer leaves out, or gives an impossible
            number for: the projection's part stands for them.
        billed: Nanos that the provider says it billed for the whole call, or None. It is what is booked.
        seen: output tokens counted in the answer's text, where its usage may fall short of them; else 0. No
            less is booked.
        seen_as: the unit of those that are no text, such as `output_audio_tokens`.
        provider: who answered, by the name that the answer gives it, or None.
        total: tokens of input and output together, where there is no usage that tells them apart.
        region: where the model ran, as the answer names it, or None.
        parts: shares of the usage that are priced each by itself: what another model used, or one request of
            many. What they do not say of model, tier and region is as the whole says.
    """

    usage: Usage | None
    model: str | None = None
    tier: str | None = None
    request_id: str | None = None
    pending: bool = False
    measured: frozenset[str] = frozenset()
    done: tuple[int, int] = (1, 1)
    unsaid: frozenset[str] = frozenset()
    billed: int | None = None
    seen: int = 0
    seen_as: str | None = None
    provider: str | None = None
    total: int = 0
    region: str | None = None
    parts: tuple[Reported, ...] = ()

    def part_of(self, projected: int) -> int:
        """Return the projected Nanos for what was done, rounded up."""
        part, whole = self.done
        return projected if part >= whole else -(-projected * part // whole)

    def merged(self, later: Reported) -> Reported:
        """Return what both say, which are of one answer: of counts the larger, of names the later.

        Some servers send the running total with every part of a stream, some send zeros, and some the input
        with the first part and the output with the last.
        """
        if self.usage is None or later.usage is None:
            usage, unsaid = self.usage or later.usage, self.unsaid | later.unsaid
        else:
            usage, unsaid = self.usage.merged(later.usage), self.unsaid & later.unsaid
        billed = [one for one in (self.billed, later.billed) if one is not None]
        return replace(
            self,
            usage=usage,
            model=later.model or self.model,
            tier=later.tier or self.tier,
            request_id=later.request_id or self.request_id,
            measured=self.measured | later.measured,
            unsaid=unsaid,
            billed=max(billed, default=None),
            seen=max(self.seen, later.seen),
            seen_as=later.seen_as or self.seen_as,
            provider=later.provider or self.provider,
            total=max(self.total, later.total),
            region=later.region or self.region,
            parts=later.parts or self.parts,
        )

    @property
    def rest(self) -> Usage:
        """What is used beside the parts."""
        units = dict((self.usage or Usage()).units)
        for part in self.parts:
            for name, count in (part.usage or Usage()).units.items():
                units[name] = max(0, units.get(name, 0) - count)
        return Usage.of(**units)


# Learned usage

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
