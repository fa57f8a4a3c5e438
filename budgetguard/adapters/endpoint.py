"""What the table of endpoints says of one endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from budgetguard.adapters.answers import reported
from budgetguard.projection import Projection
from budgetguard.usage import Reported

Body: TypeAlias = Mapping[str, Any]
Projector: TypeAlias = Callable[..., Projection]


class Tally(Protocol):
    """Read a stream's events as they pass."""

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""

    def feed(self, chunk: object) -> None:
        """Take one event's JSON."""

    def seen_tokens(self) -> int:
        """Count the output tokens seen so far."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Say how one endpoint is read.

    Attributes:
        name: what calls to it are known by, such as `chat`.
        path: without `/v1`.
        project: (body, model, rates, learned output cap) -> what the call will cost at most.
        choices: body -> how many answers are asked for.
        read: whole answer -> what it reports.
        tally: model -> a reader of its stream; None if it does not stream.
        asks_usage: its stream reports usage only if `stream_options.include_usage` asks.
        unreported: body -> units that are billed but that no answer counts.
        least_ttl: body -> milliseconds that the call's hold must live at least.
        cap: the parameter that caps the output of each choice, where requests may leave it out.
        learns_input: `project` takes `learned_input`, too: key -> tokens beyond what requests show.
    """

    name: str
    path: str
    project: Projector
    choices: Callable[[Body], int] = lambda body: 1
    read: Callable[[object], Reported] = reported
    tally: Callable[[str], Tally] | None = None
    asks_usage: bool = False
    unreported: Callable[[Body], Mapping[str, int]] = field(default=lambda body: {})
    least_ttl: Callable[[Body], int] = field(default=lambda body: 0)
    cap: str | None = None
    learns_input: bool = False


@dataclass(frozen=True, slots=True)
class Polled:
    """Say how a request is read that costs nothing, but asks for answers which earlier calls may wait for.

    Attributes:
        method: such as `GET`.
        path: without `/v1`; `{}` is an id.
        read: whole answer -> what it says of each answer that it tells of, by `request_id`; `pending` as
            long as one goes on.
        tally: as an `Endpoint` has it, for one answer that streams.
    """

    method: str
    path: str
    read: Callable[[object], Iterable[Reported]]
    tally: Callable[[str], Tally] | None = None
