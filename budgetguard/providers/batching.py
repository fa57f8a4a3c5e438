"""The projections of a batch's requests, added up: each at its own model's batch price."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from dataclasses import field as field_of

from budgetguard.core.money import Nanos
from budgetguard.core.usage import Usage
from budgetguard.engine.projection import Projection
from budgetguard.errors import UnknownModelError
from budgetguard.pricing.rates import BATCH, STANDARD_TIERS, Rates
from budgetguard.providers.alternatives import MORE_MODELS, with_alternatives
from budgetguard.providers.base import Asked, Body, Endpoint, Preparing
from budgetguard.providers.hidden_input import input_reserve
from budgetguard.providers.json import field


@dataclass
class BatchSum:
    """What the requests of a batch will use and cost at most.

    Attributes:
        preparing: the batch's request.
        cost: Nanos for all requests so far; `input_cost` for their input alone.
        units: what they will use.
        rates: model -> its standard rates.
    """

    preparing: Preparing
    cost: Nanos = 0
    input_cost: Nanos = 0
    units: Counter[str] = field_of(default_factory=Counter)
    rates: dict[str, Rates] = field_of(default_factory=dict)

    def add(self, row: Endpoint, body: Body, model: str | None = None) -> None:
        """Add a request.

        Args:
            row: what it is for.
            body: it.
            model: what it asks, where it does not say so itself.

        Raises:
            BudgetGuardError: it cannot be projected.
        """
        rates = self.preparing.rates(model or field(body, "model"))
        self.rates[rates.model] = rates
        projection = self._at_batch_prices(row, body, rates)
        self.cost += projection.cost
        self.input_cost += projection.input_cost
        self.units.update(projection.usage.units)

    def dearest(self) -> Rates:
        """Return the rates at which all requests together cost most."""
        usage = Usage.of(**self.units)
        found, most = Rates.free("", "openai"), -1
        for rates in self.rates.values():
            try:
                cost = rates.with_tier(BATCH).cost(usage)
            except UnknownModelError:  # what another model's requests use
                cost = 0
            if cost > most:
                found, most = rates, cost
        return found

    def projection(self, model: str) -> Projection:
        """Return the projection of all of them."""
        usage = Usage.of(**self.units)
        return Projection(
            model=model,
            usage=usage,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost=self.cost,
            read_cost=self.input_cost,
            cap_assumed=False,
        )

    def _at_batch_prices(self, row: Endpoint, body: Body, rates: Rates) -> Projection:
        if field(body, "service_tier") in STANDARD_TIERS:
            # Not what makes a batch dearer.
            body = {name: value for name, value in body.items() if name != "service_tier"}
        preparing = self.preparing
        projection = row.project(Asked(body, rates.model, rates.with_tier(BATCH), preparing.learned))
        if not MORE_MODELS.isdisjoint(body):
            projection = with_alternatives(projection, body, rates, preparing.rates, preparing.learned)
        if preparing.strict and projection.input_tokens:
            return projection.with_reserve(input_reserve(body, rates.model))
        return projection
