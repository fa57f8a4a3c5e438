"""What the table of endpoints says of one endpoint."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from budgetguard.core.usage import Reported
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import Fetch, LearnedCap
from budgetguard.pricing.rates import Rates
from budgetguard.providers.answers import reported
from budgetguard.providers.fetching import Fetcher

Body: TypeAlias = Mapping[str, Any]
Projector: TypeAlias = Callable[..., Projection]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with what was fetched for it.

    Attributes:
        model: the model's name.
        body: what the endpoint's `project` gets.
        name: what the call is known by, if not by the endpoint's name.
        rates: what the model costs; None to look it up.
    """

    model: str
    body: Body
    name: str | None = None
    rates: Rates | None = None


@dataclass(frozen=True, slots=True)
class Preparing:
    """What an endpoint may use to prepare a request for its projection.

    Attributes:
        body: the request's.
        path: as the table has it, ids filled in.
        fetch: makes requests that cost nothing, as the caller would.
        rates: model -> what it costs there.
        learned: as `Endpoint.project` takes it, by model.
        row_of: path -> the row of a POST to it; None if it is free or allowed; raises if neither.
        strict: the input is to be projected at a bound.
    """

    body: Body
    path: str
    fetch: Fetcher
    rates: Callable[[str], Rates]
    learned: LearnedCap
    row_of: Callable[[str], Endpoint | None]
    strict: bool = False


Prepare: TypeAlias = Callable[[Preparing], Generator[Fetch, Any, Prepared]]


class Tally(Protocol):
    """Read a stream's events as they pass.

    Those of text, whose usage may come early or in parts, say more: see `StreamTally`.
    """

    @property
    def reported(self) -> Reported | None:
        """What the provider reported, or None as long as it has not."""

    def feed(self, chunk: object) -> None:
        """Take one event's JSON."""

    def seen_tokens(self) -> int:
        """Count the output tokens seen so far."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint, and how it is read.

    Attributes:
        name: what calls to it are known by, such as `chat`.
        path: without `/v1`.
        project: (body, model, rates, learned output cap) -> what the call will cost at most.
        choices: body -> how many answers are asked for.
        read: whole answer -> what it reports.
        tally: model -> a reader of its stream; None if it does not stream.
        asking: body -> fields to write into it, without which its stream would report no usage; what reports
            it is then hidden from the caller. Empty where it does so by itself, or is asked to.
        unreported: body -> units that are billed but that no answer counts.
        least_ttl: body -> milliseconds that the call's hold must live at least.
        cap_at: provider -> the parameter that caps the output of each choice there, where requests may leave
            it out, or None.
        prepare: fetches what the request does not show, and returns what is projected instead of its body.
        count: like `prepare`, where the settings want the provider's own count of the input.
        learns_input: `project` takes `learned_input`, too: key -> tokens beyond what requests show.
    """

    name: str
    path: str
    project: Projector
    choices: Callable[[Body], int] = lambda body: 1
    read: Callable[[object], Reported] = reported
    tally: Callable[[str], Tally] | None = None
    asking: Callable[[Body], Mapping[str, object]] = field(default=lambda body: {})
    unreported: Callable[[Body], Mapping[str, int]] = field(default=lambda body: {})
    least_ttl: Callable[[Body], int] = field(default=lambda body: 0)
    cap_at: Callable[[str], str | None] = field(default=lambda provider: None)
    prepare: Prepare | None = None
    count: Prepare | None = None
    learns_input: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Endpoints that are refused, and why.

    Attributes:
        why: what they do, as an error says it after the endpoint's name.
        paths: without `/v1`; `{}` is an id.
    """

    why: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Polled:
    """A request that costs nothing, but asks for answers which earlier calls may wait for.

    Attributes:
        method: such as `GET`.
        path: without `/v1`; `{}` is an id.
        read: whole answer -> what it says of each answer that it tells of, by `request_id`; `pending` as
            long as one goes on.
        tally: as an `Endpoint` has it, for one answer that streams.
        told: (what an answer says, the endpoint of its call) -> what may be booked of it.
    """

    method: str
    path: str
    read: Callable[[object], Iterable[Reported]]
    tally: Callable[[str], Tally] | None = None
    told: Callable[[Reported, str], Reported] = lambda said, _endpoint: said
