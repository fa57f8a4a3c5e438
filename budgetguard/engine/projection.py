"""What a call costs: at most, as it is projected before it is made, and what is booked once it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from budgetguard.core.holds import Settlement
from budgetguard.core.money import MAX_NANOS, Nanos
from budgetguard.core.usage import HiddenInput, Reported, Usage
from budgetguard.engine.outcomes import Abandoned, Answered, NotCharged, Outcome, Unknown
from budgetguard.errors import UnknownModelError
from budgetguard.events import logger
from budgetguard.pricing.rates import Rates
from budgetguard.tokens.models import is_reasoning

if TYPE_CHECKING:
    from budgetguard.engine.provider_call import ProviderCall

ASSUMED_OUTPUT: Final = 1_024
ASSUMED_OUTPUT_REASONING: Final = 4_096
MARGIN: Final = 32
# Units that count the uses of hosted tools.
_USES: Final = ("web_search", "storage_searches", "container_sessions", "drawn_tokens")


@dataclass(frozen=True, slots=True)
class Projection:
    """What a call will use and cost at most.

    Attributes:
        model: the model's name as the call gave it.
        usage: the projected units, all choices (`n`) included.
        input_tokens: projected input tokens, margin included.
        output_tokens: the cap on output tokens times the number of choices.
        cost: Nanos for all of it.
        read_cost: Nanos for the input alone, where nothing is `served` that `read` could be priced by.
        cap_assumed: whether the request set no cap on its output, so that one was assumed.
        hidden: what its input may be billed beyond what is counted, where that is learned.
        output_cap: the cap on the output tokens of each choice, set or assumed; None where there is none.
        cap_written: the cap was not assumed but written into the request, so that it holds.
        reserve: input tokens on top of the estimate that make the input a bound.
        choices: how many answers the request asks for (`n`).
        served: what a unit costs at each tier and by each model that may serve the call; the dearest counts.
        read: the units of the input alone, priced with what is `served`.
        fees: units beside tokens that are taken to be used where the answer does not count them.
        marked: the unit by which input is billed that the request asks to be kept in a cache, if it does.
        asked_to_think: the request asks a model to think that does not do so by itself.
        region: where the request asks the model to run, if that costs more.
    """

    model: str
    usage: Usage
    input_tokens: int
    output_tokens: int
    cost: Nanos
    read_cost: Nanos
    cap_assumed: bool
    hidden: HiddenInput | None = None
    output_cap: int | None = None
    cap_written: bool = False
    reserve: int = 0
    choices: int = field(default=1, repr=False, compare=False)
    served: tuple[Rates, ...] = field(default=(), repr=False, compare=False)
    read: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)
    fees: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)
    marked: str | None = field(default=None, repr=False, compare=False)
    asked_to_think: bool = field(default=False, repr=False, compare=False)
    region: str | None = field(default=None, repr=False, compare=False)

    @property
    def thinks(self) -> bool:
        """Whether the model thinks, which is billed as output and does not show."""
        return self.asked_to_think or is_reasoning(self.model)

    @property
    def input_cost(self) -> Nanos:
        """Nanos for the input alone: what the call costs at least once it was read."""
        if not self.served:
            return self.read_cost
        return _most(self.served, Usage.of(**self.read), self.marked, self.region)

    def with_others(self, others: Iterable[Rates]) -> Projection:
        """Return it at the dearest of itself and of further models, any of which may answer the call.

        Raises:
            UnknownModelError: one of them has no price for a unit.
        """
        tiers = {one.tier for one in self.served} or {None}
        more = tuple(one.with_tier(tier) for one in others for tier in tiers)
        return replace(self, served=(*self.served, *more))._repriced(self.usage.units) if more else self

    def with_reserve(self, tokens: int) -> Projection:
        """Return it with so many more input tokens.

        Raises:
            UnknownModelError: input tokens have no price.
        """
        if not tokens:
            return self
        units = {**self.usage.units, "input_tokens": self.input_tokens + tokens}
        return replace(self._repriced(units), reserve=self.reserve + tokens)

    def with_cap(self, cap: int) -> Projection:
        """Return it with another cap on the output of each choice, one that is written into the request."""
        assert self.output_cap is not None
        more = (cap - self.output_cap) * self.choices
        units = {
            name: count + more if name in ("output_tokens", "output_audio_tokens") else count
            for name, count in self.usage.units.items()
        }
        return replace(self._repriced(units), output_cap=cap, cap_written=True)

    def with_assumed_cap(self, cap: int) -> Projection:
        """Return it with another cap assumed for the output of each choice, if that is higher."""
        if not self.cap_assumed or self.output_cap is None or cap <= self.output_cap:
            return self
        return replace(self.with_cap(cap), cap_written=self.cap_written)

    def with_output(self, tokens: int) -> Projection:
        """Return it with so many output tokens in all, spoken ones if it is spoken."""
        spoken = {"output_audio_tokens": tokens} if "output_audio_tokens" in self.usage.units else {}
        return self._repriced({**self.usage.units, "output_tokens": tokens, **spoken})

    def _repriced(self, units: Mapping[str, int]) -> Projection:
        usage = Usage.of(**units)
        return replace(
            self,
            usage=usage,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost=_most(self.served, usage, self.marked, self.region) if self.served else self.cost,
            read={name: count for name, count in units.items() if not name.startswith("output")},
        )

    def abandoned(self, seen: int, said: Reported | None = None) -> Usage:
        """Return what a call is taken to have used that was given up after `seen` output tokens.

        All of its input, fees of hosted tools too, and of its output what was seen; of a model that thinks,
        which does not show, as much as was projected.

        Args:
            seen: output tokens.
            said: what it had reported until then. No less is taken, and its input is.
        """
        units = {name: count for name, count in self.usage.units.items() if not name.startswith("output")}
        units["input_tokens"] = self._read
        written = self._written(seen)
        if said is not None and said.usage is None and said.total:
            split = self._split(said.total, seen)
            units["input_tokens"], written = split.input_tokens, max(written, split.output_tokens)
        if said is not None and said.usage is not None:
            told = said.usage.units
            if "input_tokens" not in said.unsaid:
                # Its parts are told with it; fees are not.
                units = {name: count for name, count in units.items() if not name.endswith("_tokens")}
            units.update(told)
            if "input_tokens" in said.unsaid:
                units["input_tokens"] = max(self._read, told.get("input_tokens", 0))
            written = max(written, said.usage.output_tokens)
        usage = Usage.of(**{**units, "output_tokens": written})
        is_told = said is not None and said.usage is not None and "input_tokens" not in said.unsaid
        return usage if is_told else self._cold(usage)

    def completed(self, said: Reported) -> Usage | None:
        """Return what an answer used by its own report, the projection's part in place of what it leaves out.

        None if it reports nothing, and shows no more than was projected: then the projection stands.
        """
        seen_as = {} if said.seen_as is None else {said.seen_as: said.seen}
        if said.usage is None:
            if said.total:
                return self._split(said.total, said.seen)
            if said.seen <= self.output_tokens:
                return None
            return self.abandoned(said.seen).merged(Usage.of(**seen_as))
        units = dict(said.usage.units)
        written = units.get("output_tokens", 0)
        if "input_tokens" in said.unsaid:
            units["input_tokens"] = max(self._read, said.usage.input_tokens)
        if said.seen > written:
            units.update(seen_as, output_tokens=self._written(said.seen))
        elif "output_tokens" in said.unsaid:
            units["output_tokens"] = max(self.output_tokens, written)
        usage = Usage(units)
        return self._cold(usage) if "input_tokens" in said.unsaid else usage

    def _split(self, total: int, seen: int) -> Usage:
        """Return what a call used that is told as one sum, and shows so many output tokens.

        What a model thinks does not show, nor does an answer that is no text: that is all but the input.
        """
        beside = max(0, total - self._read)
        written = seen if seen and not self.thinks else max(seen, beside)
        units = {name: n for name, n in self.usage.units.items() if not name.endswith("_tokens")}
        return Usage.of(**units, input_tokens=max(0, total - written), output_tokens=written)

    def _cold(self, usage: Usage) -> Usage:
        """Return a usage whose input is new to the cache, unless it says what was read from there."""
        if not self.served or "cache_read_tokens" in usage.units:
            return usage
        return _cold(self.served[0], usage, self.marked)

    @property
    def _read(self) -> int:
        return max(0, self.input_tokens - self.reserve)

    def _written(self, seen: int) -> int:
        return max(seen, self.output_tokens) if self.thinks else seen


def _cold(rates: Rates, usage: Usage, marked: str | None) -> Usage:
    """Return a usage whose input is new to the cache, where writing it there costs apart."""
    unit = rates.cache_write(marked)
    if unit is None:
        return usage
    written = usage.input_tokens - usage.units.get("input_audio_tokens", 0)
    return Usage.of(**{**usage.units, unit: max(0, written)})


def _most(served: Sequence[Rates], usage: Usage, marked: str | None, region: str | None) -> Nanos:
    """Return what a usage costs at the dearest rates, its input read or written into a cache."""
    most = 0
    for rates in served:
        cold = _cold(rates, usage, marked)
        for one in (usage,) if cold is usage else (usage, cold):
            most = max(most, rates.cost(one) if region is None else rates.cost_in(region, one))
    return most


def with_margin(tokens: int) -> int:
    """Return the tokens to project for an estimate: 5 % more, rounded up, and 32.

    Measured on 1 680 real requests: a projection with this margin was too low on 0.95 % of them.
    """
    return -(-tokens * 105 // 100) + MARGIN


def assumed_output_cap(model: str, learned: int | None = None, thinking: int | None = None) -> int:
    """Return the output tokens to assume of a request that sets no cap.

    1 024, or 4 096 for reasoning models: about the 99th percentile of real answers (1 014 and 3 134).

    Args:
        model: the model's name.
        learned: output tokens that its settled calls suggest, None before there were enough.
        thinking: tokens that the request lets it think, None if it asks for no thinking.
    """
    thinks = is_reasoning(model)
    cap = learned
    if cap is None:
        cap = ASSUMED_OUTPUT_REASONING if thinks else ASSUMED_OUTPUT
    if thinking is None or thinks:
        return cap
    # What was learned may be of calls that asked for no thinking.
    return max(cap, ASSUMED_OUTPUT_REASONING, thinking + ASSUMED_OUTPUT)


def projected(
    model: str,
    rates: Rates,
    input_units: Mapping[str, int],
    output_units: Mapping[str, int],
    *,
    cap_assumed: bool = False,
    output_cap: int | None = None,
    choices: int = 1,
    asked_tier: object = None,
    hidden: HiddenInput | None = None,
    fees: Mapping[str, int] | None = None,
    marked: str | None = None,
    asked_to_think: bool = False,
    region: str | None = None,
) -> Projection:
    """Price what a call will use, at the dearer of the standard tier and the one that is asked for.

    A tier that is asked for may not be had, and then the call is served and billed at the standard one. Input
    is priced as new to the cache where that is the dearer.

    Raises:
        UnknownModelError: a unit has no price.
    """
    served = [rates]
    if isinstance(asked_tier, str):
        served.append(rates.with_tier(asked_tier))
    usage = Usage.of(**input_units, **output_units)
    units = usage.units
    return Projection(
        model=model,
        usage=usage,
        input_tokens=units.get("input_tokens", 0),
        output_tokens=units.get("output_tokens", 0),
        cost=_most(served, usage, marked, region),
        read_cost=0,
        cap_assumed=cap_assumed,
        output_cap=output_cap,
        choices=choices,
        hidden=hidden,
        served=tuple(served),
        read=input_units,
        fees=fees or {},
        marked=marked,
        asked_to_think=asked_to_think,
        region=region,
    )


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
        if (hidden := projection.hidden) is not None and _was_used(projection, completed):
            observed.append((hidden.key, hidden.observed(completed.input_tokens)))
        # Only of answers that were free to be as long as they liked: caps teach nothing but themselves.
        if projection.cap_assumed and (written := completed.output_tokens):
            each = -(-written // projection.choices)
            if not projection.cap_written or each < (projection.output_cap or 0):
                observed.append((request.model, each))
    settlement = Settlement(cost, usage=completed, request_id=said.request_id, thresholds=thresholds)
    return Booking(settlement, estimated, tuple(observed))


def _was_used(projection: Projection, usage: Usage) -> bool:
    """Whether an answer used a hosted tool that its call was held for; True if none of them is counted.

    One that did not says nothing of what the tool finds.
    """
    held = {unit for unit in projection.usage.units if unit.startswith(_USES)}
    return not held or not held.isdisjoint(usage.units)


def _cost(said: Reported, request: ProviderCall, rates: Rates, projection: Projection) -> Nanos:
    said = named(said, request.model_named)
    try:
        return min(rates.cost_of(said), MAX_NANOS)
    except UnknownModelError as error:
        # The money is spent; the projection is the best that is known of how much.
        logger.error("budgetguard: booked as projected, because %s", error)
        return projection.cost


def named(said: Reported, model_named: Callable[[str], str]) -> Reported:
    """Return a report whose models are those that their names stand for."""
    model = None if said.model is None else model_named(said.model)
    if said.parts:
        said = replace(said, parts=tuple(named(part, model_named) for part in said.parts))
    return said if model == said.model else replace(said, model=model)
