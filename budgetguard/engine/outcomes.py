"""How a guarded call ended: four outcomes, each booked in its own way (see `projection.booking_of`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from budgetguard.core.money import Nanos
from budgetguard.core.usage import Reported, Usage


@dataclass(frozen=True, slots=True)
class Answered:
    """The provider answered. What it reported is booked; the projection, where it reported nothing.

    Attributes:
        reported: what the answer says of its usage.
        cost: Nanos that are booked whatever the answer says: the word of whoever made the call.
    """

    reported: Reported
    cost: Nanos | None = None


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A stream ended early. Its input and the output seen until then are booked.

    Attributes:
        seen: output tokens.
        usage: everything used, where more is known than a number of tokens.
        part: the unit of `seen`, where it is no text, such as `output_image_tokens`.
        reported: what the stream had said until then. No less is booked, and its input replaces the
            projected one.
        model: the model that the stream names.
    """

    seen: int
    usage: Usage | None = None
    part: str | None = None
    reported: Reported | None = None
    model: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NotCharged:
    """The provider did no work: the request was never sent, or refused (4xx, 5xx). The hold is given back."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows whether the provider charged (timeout, dropped connection): `unknown_outcome` decides."""

    reason: str


Outcome: TypeAlias = Answered | Abandoned | NotCharged | Unknown

NEVER_SENT = NotCharged("interrupted before the call")
INTERRUPTED = Unknown("interrupted")
UNREADABLE = Answered(Reported(usage=None))
"""An answer that came, and tells no cost."""
