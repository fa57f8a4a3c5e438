"""What is booked for a call that ended: its outcome, at the prices and projection it was held by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from budgetguard.core.holds import Settlement
from budgetguard.core.money import MAX_NANOS, Nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.outcomes import Abandoned, Answered, NotCharged, Outcome, Unknown
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import ProviderCall
from budgetguard.errors import UnknownModelError
from budgetguard.events import logger
from budgetguard.pricing.rates import Rates


@dataclass(frozen=True, slots=True)
class Booking:
    """What is booked for a call.

    Attributes:
        settlement: for the store.
        estimated: the cost is the projection's, or partly so, because the answer does not tell it.
        observed: (key, tokens) that projections may learn from.
    """

    settlement: Settlement
    estimated: bool
    observed: tuple[tuple[str, int], ...] = ()

    def with_lost_tries(self, cost: Nanos) -> Booking:
        """Return it with the Nanos of tries that were sent before and never answered."""
        more = min(self.settlement.cost + cost, MAX_NANOS)
        return Booking(replace(self.settlement, cost=more), True, self.observed)


def booking_of(
    outcome: Outcome,
    request: ProviderCall,
    rates: Rates,
    projection: Projection,
    *,
    cost_of_unknown: Nanos,
    thresholds: tuple[int, ...],
) -> Booking:
    """Return what a call is booked at that ended so.

    Args:
        outcome: how it ended.
        request: the call.
        rates: what it costs by the unit.
        projection: what it was held for.
        cost_of_unknown: Nanos that an unknown outcome costs.
        thresholds: percentages of a limit that the settlement announces.
    """
    if isinstance(outcome, Answered):
        return _answered(outcome, request, rates, projection, thresholds)
    if isinstance(outcome, Abandoned):
        said = outcome.reported
        usage = outcome.usage or projection.abandoned(outcome.seen, said)
        if outcome.part is not None:
            usage = usage.merged(Usage.of(**{outcome.part: outcome.seen}))
        so_far = replace(said or Reported(usage=None, model=outcome.model), usage=usage)
        # What was billed until then is not all of it.
        cost = max(
            _cost(replace(so_far, billed=None), request, rates, projection),
            _cost(so_far, request, rates, projection),
        )
        return Booking(Settlement(cost, outcome="abandoned", usage=usage, thresholds=thresholds), True)
    assert isinstance(outcome, Unknown | NotCharged)
    cost = cost_of_unknown if isinstance(outcome, Unknown) else 0
    return Booking(Settlement(cost, outcome="unknown", thresholds=thresholds), True)


def _answered(
    outcome: Answered,
    request: ProviderCall,
    rates: Rates,
    projection: Projection,
    thresholds: tuple[int, ...],
) -> Booking:
    said = outcome.reported
    if said.usage is not None and (projection.fees or 0 in said.usage.units.values()):
        # What is billed beside tokens, where the answer does not count it.
        said = replace(said, usage=Usage.of(**{**projection.fees, **said.usage.units}))
    completed = projection.completed(said)
    observed: list[tuple[str, int]] = []
    if outcome.cost is not None:
        completed, cost, estimated = said.usage, outcome.cost, False
    elif completed is None:
        cost, estimated = said.part_of(projection.cost), True
        if said.billed:
            cost, estimated = _cost(said, request, rates, projection), False
    elif completed != said.usage:
        cost, estimated = _cost(replace(said, usage=completed), request, rates, projection), True
    else:
        cost, estimated = _cost(said, request, rates, projection), False
        if said.measured:
            told = {unit: n for unit, n in completed.units.items() if unit not in said.measured}
            # What was measured makes an estimate only where it is billed.
            estimated = cost != _cost(replace(said, usage=Usage(told)), request, rates, projection)
        if (hidden := projection.hidden) is not None:
            observed.append((hidden.key, hidden.observed(completed.input_tokens)))
        # Only of answers that were free to be as long as they liked: caps teach nothing but themselves.
        if projection.cap_assumed and (written := completed.output_tokens):
            each = -(-written // request.choices)
            if not projection.cap_written or each < (projection.output_cap or 0):
                observed.append((request.model, each))
    settlement = Settlement(cost, usage=completed, request_id=said.request_id, thresholds=thresholds)
    return Booking(settlement, estimated, tuple(observed))


def _cost(said: Reported, request: ProviderCall, rates: Rates, projection: Projection) -> Nanos:
    if said.model is not None:
        named = request.model_named(said.model)
        said = said if named == said.model else replace(said, model=named)
    try:
        return min(rates.cost_of(said), MAX_NANOS)
    except UnknownModelError as error:
        # The money is spent; the projection is the best that is known of how much.
        logger.error("budgetguard: booked as projected, because %s", error)
        return projection.cost
