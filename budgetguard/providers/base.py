"""One endpoint of a provider's API: what it costs to ask it, how its answers are read; and a call of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.outcomes import Answered, NotCharged, Outcome
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import Do, LearnedCap, Preparation, ProviderCall
from budgetguard.errors import BudgetGuardError
from budgetguard.pricing.book import FREE_PROVIDER, PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.alternatives import MORE_MODELS, first_model, with_alternatives
from budgetguard.providers.answers import Piece, is_only_an_error, reported, with_texts
from budgetguard.providers.body import BodyReader, UsageAccumulator
from budgetguard.providers.coding import Coding
from budgetguard.providers.fetching import Fetcher
from budgetguard.providers.hidden_input import input_reserve
from budgetguard.providers.json import parsed
from budgetguard.providers.request import HttpRequest

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
        model: the model that the address names, or None.
        strict: the input is to be projected at a bound.
        counts: the provider is to count the input.
    """

    body: Body
    path: str
    fetch: Fetcher
    rates: Callable[[str], Rates]
    learned: LearnedCap
    row_of: Callable[[str], Endpoint | None]
    model: str | None = None
    strict: bool = False
    counts: bool = False


Fetching: TypeAlias = Generator[Do, Any, Prepared]


class Endpoint(ABC):
    """One endpoint: how its requests are projected, and how its answers are read.

    Args:
        name: what calls to it are known by, such as `chat`.
        path: without `/v1`; `{}` is an id.

    Attributes:
        method: of its requests, in capitals.
        streams: its answers may come as a stream, which `accumulator` reads.
        fetches: its requests do not show what they cost as others do, so that `prepare` has to find it out.
        counts_input: the provider can count the input of its requests; `prepare` asks, where that is wanted.
    """

    method: str = "POST"
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

    def cap_name(self, provider: str) -> str | None:
        """Return the parameter that caps the output of each choice there, None if requests must have one."""
        return None

    def asks_usage(self, body: Body) -> Mapping[str, object]:
        """Return the fields to write into a request, without which its stream would report no usage.

        What reports it is then hidden from the caller. Empty if the request asks, or need not.
        """
        return {}

    def read(self, answer: object) -> Reported | NotCharged:
        """Return what a whole answer reports: an SDK object, a mapping, or the JSON text of one.

        Of an answer that is not billed, why.
        """
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

    def must_fetch(self, body: Body) -> bool:
        """Whether `prepare` has something to fetch for a request; `fetches` by default."""
        return self.fetches

    def prepare(self, preparing: Preparing) -> Fetching:
        """Fetch what the request does not show, if `must_fetch` or `counts_input`."""
        raise NotImplementedError(f"{self.path} is projected from its request alone")


class HttpCall(ProviderCall):
    """A request that is projected, and whose answer is read. Whoever sends it tells its outcome.

    Args:
        request: what is sent.
        endpoint: how it is read.
        provider: genai-prices' provider id, whatever the address tells.
        default_provider: that of addresses that tell nothing, where it is not the price book's own default.
        model: the model that the address names, which is used whatever the body says; or None.
        model_of: the model that a name stands for.
        served: (the model that was asked for, the name that the answer gives) -> the latter, as it is listed.
        free: what is asked there costs nothing, by the user's word.
        counts: the provider is to count the input, where it can.
        fetcher: -> what makes free requests for what the projection needs; None where nothing can.
        row_of: path -> how a POST to it is read; None if it is free or allowed; raises if neither.
    """

    def __init__(
        self,
        request: HttpRequest,
        endpoint: Endpoint,
        *,
        provider: str | None = None,
        default_provider: str | None = None,
        model: str | None = None,
        model_of: Callable[[str], str] = str,
        served: Callable[[str, str], str] = lambda _asked, answered: answered,
        free: bool = False,
        counts: bool = False,
        fetcher: Callable[[], Fetcher] | None,
        row_of: Callable[[str], Endpoint | None],
    ) -> None:
        self.endpoint = endpoint.name
        self._sent: HttpRequest = request
        self._written = request.body.get("model") or first_model(request.body)
        self._model_of = model_of
        self._addressed = model
        self._served = served
        self.model = self._named(model or self._written)
        self._endpoint = endpoint
        self._provider = provider
        self._default_provider = default_provider
        self._free = free
        self._fetcher = fetcher
        self._row_of = row_of
        self._counts = counts
        # What is projected in place of the body, where more was fetched for it.
        self._shown: Mapping[str, Any] | None = None
        self._counted: int | None = None
        self._rates: Rates | None = None
        self._unreported = endpoint.unreported(request.body)
        self.least_ttl = endpoint.least_ttl(request.body)
        self._cap: str | None = None

    @property
    def request(self) -> HttpRequest:
        """What is sent, as far as it is still known: once it is held, without its body."""
        return self._sent

    def prepare(self, book: PriceBook, learned_cap: LearnedCap) -> Preparation | None:
        fetcher, self._fetcher = self._fetcher, None
        counts = self._counts and self._endpoint.counts_input
        prepares = counts or self._endpoint.must_fetch(self._sent.body)
        if self._free or not prepares or fetcher is None:
            return None
        return self._prepared(fetcher(), book, learned_cap)

    def _prepared(self, fetcher: Fetcher, book: PriceBook, learned_cap: LearnedCap) -> Preparation:
        preparing = Preparing(
            body=self._sent.body,
            path=self._sent.path,
            fetch=fetcher,
            rates=lambda model: self._rates_of(book, self._named(model)),
            learned=learned_cap,
            row_of=self._row_of,
            model=self._addressed,
            strict=self.strict,
            counts=self._counts and self._endpoint.counts_input,
        )
        prepared = yield from self._endpoint.prepare(preparing)
        self._shown = prepared.body
        self._counted = prepared.counted
        self.model = self._named(prepared.model)
        self.endpoint = prepared.name or self.endpoint
        self._rates = prepared.rates

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        if self._free:
            return self._project_free(learned_cap)
        body = self._sent.body if self._shown is None else self._shown
        rates = self._rates or self._rates_of(book, self.model)
        rates, projection = self._project_at(rates, learned_cap)
        if MORE_MODELS.isdisjoint(body):
            return rates, projection
        return rates, with_alternatives(
            projection, body, rates, lambda name: self._rates_of(book, self._named(name)), learned_cap
        )

    def rates_if_known(self, book: PriceBook) -> Rates:
        provider = self._provider_of(book, self.model)
        return book.rates_if_known(self.model, provider=provider, base_url=self._sent.base_url)

    def model_named(self, name: str) -> str:
        # A server that repeats what the body says, and does not look at it, names nothing.
        if name == self._written:
            return str(self.model)
        return self._served(str(self.model), self._model_of(name))

    def _named(self, model: Any) -> Any:
        return self._model_of(model) if isinstance(model, str) else model

    def _rates_of(self, book: PriceBook, model: str) -> Rates:
        return book.rates(model, provider=self._provider_of(book, model), base_url=self._sent.base_url)

    def _provider_of(self, book: PriceBook, model: object) -> str | None:
        # A prefix of the model's name tells, too.
        if self._provider is not None or self._default_provider is None or "/" in str(model):
            return self._provider
        return book.provider_at(self._sent.base_url) or self._default_provider

    def _project_free(self, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        rates = Rates.free(str(self.model), FREE_PROVIDER)
        nothing = Projection(rates.model, Usage(), 0, 0, 0, 0, cap_assumed=False)
        if self._endpoint.fetches:
            return rates, nothing  # what it would be projected from was not fetched
        try:
            return self._project_at(rates, learned_cap)
        except BudgetGuardError:
            # What cannot be projected costs nothing either, and whether it is right is the server's to say.
            return rates, nothing

    def _project_at(self, rates: Rates, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        body = self._sent.body if self._shown is None else self._shown
        projection = self._endpoint.project(Asked(body, self.model, rates, learned_cap, self._counted))
        if self.strict and projection.input_tokens and projection.served:
            projection = projection.with_reserve(input_reserve(body, self.model))
        self._cap = self._endpoint.cap_name(rates.provider)
        return rates, projection

    def forget_input(self) -> None:
        self._sent, self._shown = replace(self._sent, body={}), None

    @property
    def takes_cap(self) -> bool:
        return self._cap is not None

    def write_cap(self, cap: int) -> None:
        assert self._cap is not None
        self._write(self._cap, cap)

    @property
    def takes_model(self) -> bool:
        # What was fetched for a request is of the model that it names.
        body = self._sent.body
        return self._addressed is None and isinstance(body.get("model"), str) and self._shown is None

    @property
    def written_model(self) -> str:
        return str(self._written)

    def use_model(self, model: str) -> None:
        self._sent = replace(self._sent, body={**self._sent.body, "model": model})
        self._written, self.model = model, self._named(model)

    def write_model(self) -> None:
        self._write("model", self._written)

    def _write(self, name: str, value: object) -> None:
        """Set a field of the body that is sent."""
        self._sent = replace(self._sent, body={**self._sent.body, name: value})

    def _read(self, answer: object) -> Reported | NotCharged:
        shown = parsed(answer)
        if is_only_an_error(shown):
            return NotCharged("the answer was an error")
        # Text that a client was asked for is the answer itself, whatever it looks like.
        said = self._endpoint.read(answer if isinstance(answer, str) else shown)
        if isinstance(said, NotCharged):
            return said
        if not said.pending:
            said = with_texts(said, self._endpoint.texts(shown), self.model)
        return self._complete(said) if self._unreported else said

    def _outcome_of(self, answer: object) -> Outcome:
        said = self._read(answer)
        return said if isinstance(said, NotCharged) else Answered(said)

    def _complete(self, said: Reported) -> Reported:
        if said.usage is None or not self._unreported:
            return said
        return replace(said, usage=Usage({**self._unreported, **said.usage.units}))


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
        reader: (path, as tables have it; content encoding) -> what reads a body that is read line by line
            in place of `read`; None if it is read whole.
    """

    method: str
    path: str
    read: Callable[[object], Iterable[Reported]]
    accumulator: Callable[[str], UsageAccumulator] | None = None
    told: Callable[[Reported, str], Reported] = lambda said, _endpoint: said
    reader: Callable[[str, str | Coding], BodyReader] | None = None
