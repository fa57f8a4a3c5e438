"""Usage: what a provider says a call consumed, in units that have prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


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
        )
