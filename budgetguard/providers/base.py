"""One endpoint of a provider's API: what it costs to ask it, and how its answers are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from budgetguard.core.usage import Reported
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import Do, LearnedCap
from budgetguard.pricing.rates import Rates
from budgetguard.providers.accumulators import Piece, UsageAccumulator
from budgetguard.providers.answers import reported
from budgetguard.providers.fetching import Fetcher

Body: TypeAlias = Mapping[str, Any]


def nothing_learned(_key: str) -> int | None:
    """Return None: no settled call has taught anything."""
    return None


@dataclass(frozen=True, slots=True)
class Asked:
    """What an endpoint projects.

    Attributes:
        body: the request's JSON body, or what was prepared in its place.
        model: the model's name.
        rates: what the model costs by the unit.
        learned: what settled calls suggest: a model -> output tokens of each choice; `HiddenInput.key` ->
            input tokens beyond those that are counted; None where there were not enough of them.
        counted: the input tokens by the provider's own count, or None.
    """

    body: Body
    model: str
    rates: Rates
    learned: LearnedCap = nothing_learned
    counted: int | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with what was fetched for it.

    Attributes:
        model: the model's name.
        body: what is projected in place of the request's own body.
        name: what the call is known by, if not by the endpoint's name.
        rates: what the model costs; None to look it up.
        counted: the input tokens by the provider's own count, or None.
    """

    model: str
    body: Body
    name: str | None = None
    rates: Rates | None = None
    counted: int | None = None


@dataclass(frozen=True, slots=True)
class Preparing:
    """What an endpoint may use to prepare a request for its projection.

    Attributes:
        body: the request's.
        path: as the table has it, ids filled in.
        fetch: makes requests that cost nothing, as the caller would.
        rates: model -> what it costs there.
        learned: as `Asked` has it.
        row_of: path -> the endpoint of a POST to it; None if it is free or allowed; raises if neither.
        strict: the input is to be projected at a bound.
    """

    body: Body
    path: str
    fetch: Fetcher
    rates: Callable[[str], Rates]
    learned: LearnedCap
    row_of: Callable[[str], Endpoint | None]
    strict: bool = False


Fetching: TypeAlias = Generator[Do, Any, Prepared]


class Endpoint(ABC):
    """One endpoint: how its requests are projected, and how its answers are read.

    Args:
        name: what calls to it are known by, such as `chat`.
        path: without `/v1`; `{}` is an id.

    Attributes:
        streams: its answers may come as a stream, which `accumulator` reads.
        fetches: its requests do not show what they cost, so that `prepare` has to fetch it.
        counts_input: the provider can count the input of its requests; `prepare` asks, where that is wanted.
    """

    streams: bool = False
    fetches: bool = False
    counts_input: bool = False

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path

    @abstractmethod
    def project(self, asked: Asked) -> Projection:
        """Return what a call will cost at most.

        Raises:
            ConfigurationError: the request cannot be right.
            UnknownModelError: the call would use a unit that has no price.
        """

    def input_tokens(self, body: Body, model: str) -> int:
        """Count the input tokens that a request shows; of endpoints that are billed otherwise, 0."""
        return 0

    def choices(self, body: Body) -> int:
        """Return how many answers a request asks for."""
        return 1

    def cap_name(self, provider: str) -> str | None:
        """Return the parameter that caps the output of each choice there, None if requests must have one."""
        return None

    def asks_usage(self, body: Body) -> Mapping[str, object]:
        """Return the fields to write into a request, without which its stream would report no usage.

        What reports it is then hidden from the caller. Empty if the request asks, or need not.
        """
        return {}

    def read(self, answer: object) -> Reported:
        """Return what a whole answer reports: an SDK object, a mapping, or the JSON text of one."""
        return reported(answer)

    def texts(self, answer: Any) -> Iterable[Piece]:
        """Yield the text of a whole answer, each piece with the slot that it continues."""
        return ()

    def accumulator(self, model: str) -> UsageAccumulator:
        """Return what reads a stream of the model's, if `streams`."""
        raise NotImplementedError(f"{self.path} does not stream")

    def unreported(self, body: Body) -> Mapping[str, int]:
        """Return the units of a request that are billed but that no answer counts."""
        return {}

    def least_ttl(self, body: Body) -> int:
        """Return the milliseconds that a call's hold must live at least."""
        return 0

    def prepare(self, preparing: Preparing) -> Fetching:
        """Fetch what the request does not show, if `fetches` or `counts_input`."""
        raise NotImplementedError(f"{self.path} is projected from its request alone")


@dataclass(frozen=True, slots=True)
class RefusedEndpoints:
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
        accumulator: makes what reads one answer that streams; None if none does.
        told: (what an answer says, the endpoint of its call) -> what may be booked of it.
    """

    method: str
    path: str
    read: Callable[[object], Iterable[Reported]]
    accumulator: Callable[[str], UsageAccumulator] | None = None
    told: Callable[[Reported, str], Reported] = lambda said, _endpoint: said
