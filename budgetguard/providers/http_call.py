"""One call of a provider's API over HTTP, projected from its request by the row of its endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import (
    Answered,
    LearnedCap,
    NotCharged,
    Outcome,
    Preparation,
    ProviderCall,
)
from budgetguard.errors import BudgetGuardError
from budgetguard.pricing.book import FREE_PROVIDER, PriceBook
from budgetguard.pricing.rates import Rates
from budgetguard.providers.accumulators import is_only_an_error, with_seen
from budgetguard.providers.alternatives import first_model, with_alternatives
from budgetguard.providers.base import Endpoint, Prepare, Preparing
from budgetguard.providers.fetching import Fetcher
from budgetguard.providers.request import HttpRequest
from budgetguard.tokens.input_bounds import input_reserve


class HttpCall(ProviderCall):
    """Project a request and read its answer. Whoever sends it says how it ended.

    Args:
        request: what is sent.
        endpoint: how it is read.
        provider: genai-prices' provider id, whatever the address tells.
        default_provider: that of addresses that tell nothing, where it is not the price book's own default.
        model: the model that the address names, which is used whatever the body says; or None.
        model_of: the model that a name stands for.
        free: what is asked there costs nothing, by the user's word.
        counts: the provider is to count the input, where it can.
        fetcher: -> what makes free requests for what the projection needs.
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
        free: bool = False,
        counts: bool = False,
        fetcher: Callable[[], Fetcher],
        row_of: Callable[[str], Endpoint | None],
    ) -> None:
        self.endpoint = endpoint.name
        self._sent: HttpRequest = request
        self._written = first_model(request.body)
        self._model_of = model_of
        self.model = self._named(model or self._written)
        self.choices = 1
        self._endpoint = endpoint
        self._provider = provider
        self._default_provider = default_provider
        self._free = free
        self._fetcher: Callable[[], Fetcher] | None = fetcher
        self._row_of = row_of
        self._counts = counts
        # What is projected in place of the body, where more was fetched for it.
        self._shown: Mapping[str, Any] | None = None
        self._rates: Rates | None = None
        self._unreported = endpoint.unreported(request.body)
        self.least_ttl = endpoint.least_ttl(request.body)
        self._cap: str | None = None

    @property
    def request(self) -> HttpRequest:
        """What is sent, as far as it is still known: once it was projected, without its body."""
        return self._sent

    def prepare(self, book: PriceBook, learned_cap: LearnedCap) -> Preparation | None:
        fetcher, self._fetcher = self._fetcher, None
        prepare = self._endpoint.prepare or (self._endpoint.count if self._counts else None)
        if self._free or prepare is None or fetcher is None:
            return None
        return self._prepared(prepare, fetcher(), book, learned_cap)

    def _prepared(
        self, prepare: Prepare, fetcher: Fetcher, book: PriceBook, learned_cap: LearnedCap
    ) -> Preparation:
        preparing = Preparing(
            body=self._sent.body,
            path=self._sent.path,
            fetch=fetcher,
            rates=lambda model: self._rates_of(book, self._named(model)),
            learned=learned_cap,
            row_of=self._row_of,
            strict=self.strict,
        )
        prepared = yield from prepare(preparing)
        self._shown = prepared.body
        self.model = self._named(prepared.model)
        self.endpoint = prepared.name or self.endpoint
        self._rates = prepared.rates

    def project(self, book: PriceBook, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        if self._free:
            return self._project_free(learned_cap)
        body = self._sent.body if self._shown is None else self._shown
        rates = self._rates or self._rates_of(book, self.model)
        rates, projection = self._project_at(rates, learned_cap)
        return rates, with_alternatives(
            projection, body, rates, lambda name: self._rates_of(book, self._named(name)), learned_cap
        )

    def rates_if_known(self, book: PriceBook) -> Rates:
        provider = self._provider_of(book, self.model)
        return book.rates_if_known(self.model, provider=provider, base_url=self._sent.base_url)

    def model_named(self, name: str) -> str:
        # A server that repeats what the body says, and does not look at it, names nothing.
        return str(self.model) if name == self._written else self._model_of(name)

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
        if self._endpoint.prepare is not None:
            return rates, nothing  # what it would be projected from was not fetched
        try:
            return self._project_at(rates, learned_cap)
        except BudgetGuardError:
            # What cannot be projected costs nothing either, and whether it is right is the server's to say.
            return rates, nothing

    def _project_at(self, rates: Rates, learned_cap: LearnedCap) -> tuple[Rates, Projection]:
        more = {"learned_input": learned_cap} if self._endpoint.learns_input else {}
        body = self._sent.body if self._shown is None else self._shown
        projection = self._endpoint.project(body, self.model, rates, learned_cap(self.model), **more)
        self.choices = self._endpoint.choices(self._sent.body)
        if self.strict and projection.input_tokens and projection.served:
            projection = projection.with_reserve(input_reserve(body, self.model))
        self._cap = self._endpoint.cap_at(rates.provider)
        if not self.strict:
            self._sent = replace(self._sent, body={})  # the prompt is not needed any more
        self._shown = None
        return rates, projection

    @property
    def takes_cap(self) -> bool:
        return self._cap is not None

    def write_cap(self, cap: int) -> None:
        assert self._cap is not None
        self._write(self._cap, cap)

    def _write(self, name: str, value: object) -> None:
        """Set a field of the body that is sent."""
        self._sent = replace(self._sent, body={**self._sent.body, name: value})

    def _read(self, answer: object) -> Reported | NotCharged:
        if is_only_an_error(answer):
            return NotCharged("the answer was an error")
        return self._complete(with_seen(self._endpoint.read(answer), answer, self.model))

    def _outcome_of(self, answer: object) -> Outcome:
        said = self._read(answer)
        return said if isinstance(said, NotCharged) else Answered(said)

    def _complete(self, said: Reported) -> Reported:
        if said.usage is None or not self._unreported:
            return said
        return replace(said, usage=Usage({**self._unreported, **said.usage.units}))
