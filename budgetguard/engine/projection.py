"""Project what a call will cost at most, before it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from budgetguard.core.learning import HiddenInput
from budgetguard.core.money import Nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.rates import Rates
from budgetguard.tokens.fees import Fees, add_tools, fees_beside, marked_for_cache
from budgetguard.tokens.hosted_tools import KEPT, hidden_input, projected_fees
from budgetguard.tokens.images import ImageSizes
from budgetguard.tokens.output_limits import is_counted_exactly
from budgetguard.tokens.requests import (
    audio_input_tokens,
    chat_input_tokens,
    completion_input_tokens,
    completion_prompts,
    embedding_input_tokens,
    given,
    is_reasoning,
    prediction_tokens,
    thinking_tokens,
)
from budgetguard.tokens.responses import response_input_tokens
from budgetguard.tokens.shapes import UNSEEN, UNSEEN_FILE, kinds_of, unseen_files

__all__ = [
    "HiddenInput",
    "Projection",
    "assumed_output_cap",
    "chat_input_tokens",
    "completion_choices",
    "completion_input_tokens",
    "embedding_input_tokens",
    "is_reasoning",
    "project_chat",
    "project_completion",
    "project_embeddings",
    "project_response",
    "response_input_tokens",
    "with_margin",
]

ASSUMED_OUTPUT = 1_024
ASSUMED_OUTPUT_REASONING = 4_096
# https://platform.openai.com/docs/api-reference/completions/create
COMPLETION_CAP = 16
_MARGIN = 32
# What was found so far is not the most that will be found: a quarter more.
_HEADROOM = 4


def _nothing_learned(_key: str) -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class Projection:
    """Hold what a call will use and cost at most.

    Attributes:
        model: the model's name as the call gave it.
        usage: the projected units, all choices (`n`) included.
        input_tokens: projected input tokens, margin included.
        output_tokens: the cap on output tokens times the number of choices.
        cost: Nanos for all of it.
        input_cost: Nanos for the input alone: what a call costs at least once it was read.
        cap_assumed: whether the request set no cap on its output, so that one was assumed.
        hidden: what its input may be billed beyond what is counted, where that is learned.
        output_cap: the cap on the output tokens of each choice, set or assumed; None where there is none.
        cap_written: the cap was not assumed but written into the request, so that it holds.
        reserve: input tokens on top of the estimate that make the input a bound.
        served: what a unit costs at each tier and by each model that may serve the call; the dearest counts.
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
    input_cost: Nanos
    cap_assumed: bool
    hidden: HiddenInput | None = None
    output_cap: int | None = None
    cap_written: bool = False
    reserve: int = 0
    served: tuple[Rates, ...] = field(default=(), repr=False, compare=False)
    fees: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)
    marked: str | None = field(default=None, repr=False, compare=False)
    asked_to_think: bool = field(default=False, repr=False, compare=False)
    region: str | None = field(default=None, repr=False, compare=False)

    @property
    def thinks(self) -> bool:
        """Whether the model thinks, which is billed as output and does not show."""
        return self.asked_to_think or is_reasoning(self.model)

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

    def with_cap(self, cap: int, choices: int) -> Projection:
        """Return it with another cap on the output of each choice, one that is written into the request."""
        assert self.output_cap is not None
        more = (cap - self.output_cap) * choices
        units = {
            name: count + more if name in ("output_tokens", "output_audio_tokens") else count
            for name, count in self.usage.units.items()
        }
        return replace(self._repriced(units), output_cap=cap, cap_written=True)

    def with_assumed_cap(self, cap: int) -> Projection:
        """Return it with another cap assumed for the output of each choice, if that is higher."""
        if not self.cap_assumed or self.output_cap is None or cap <= self.output_cap:
            return self
        choices = max(1, self.output_tokens // max(1, self.output_cap))
        return replace(self.with_cap(cap, choices), cap_written=self.cap_written)

    def with_output(self, tokens: int) -> Projection:
        """Return it with so many output tokens in all, spoken ones if it is spoken."""
        spoken = {"output_audio_tokens": tokens} if "output_audio_tokens" in self.usage.units else {}
        return self._repriced({**self.usage.units, "output_tokens": tokens, **spoken})

    def _repriced(self, units: Mapping[str, int]) -> Projection:
        usage = Usage.of(**units)
        read = Usage.of(**{name: count for name, count in units.items() if not name.startswith("output")})
        return replace(
            self,
            usage=usage,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost=max((_most(one, usage, self.marked, self.region) for one in self.served), default=self.cost),
            input_cost=max(
                (_most(one, read, self.marked, self.region) for one in self.served), default=self.input_cost
            ),
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
        if "input_tokens" in said.unsaid:
            units["input_tokens"] = max(self._read, said.usage.input_tokens)
        if said.seen > said.usage.output_tokens:
            units.update(seen_as, output_tokens=self._written(said.seen))
        elif "output_tokens" in said.unsaid:
            units["output_tokens"] = max(self.output_tokens, said.usage.output_tokens)
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


def _most(rates: Rates, usage: Usage, marked: str | None, region: str | None) -> Nanos:
    """Return what a usage costs at most: its input read, or written into a cache, whichever is dearer."""
    cold = _cold(rates, usage, marked)
    cost = rates.cost if region is None else partial(rates.cost_in, region)
    return cost(usage) if cold is usage else max(cost(usage), cost(cold))


def with_margin(tokens: int) -> int:
    """Return the tokens to project for an estimate: 5 % more, rounded up, and 32.

    Measured on 1 680 real requests: a projection with this margin was too low on 0.95 % of them.
    """
    return -(-tokens * 105 // 100) + _MARGIN


def assumed_output_cap(model: str) -> int:
    """Return the output tokens to assume for a model before its settled calls have taught better.

    1 024, or 4 096 for reasoning models: about the 99th percentile of real answers (1 014 and 3 134).
    """
    return ASSUMED_OUTPUT_REASONING if is_reasoning(model) else ASSUMED_OUTPUT


def _assumed(model: str, learned: int | None, thinking: int | None) -> int:
    cap = assumed_output_cap(model) if learned is None else learned
    if thinking is None or is_reasoning(model):
        return cap
    # What was learned may be of calls that asked for no thinking.
    return max(cap, ASSUMED_OUTPUT_REASONING, thinking + ASSUMED_OUTPUT)


def project_chat(
    body: Mapping[str, Any],
    model: str,
    rates: Rates,
    *,
    learned_cap: int | None = None,
    learned_input: Callable[[str], int | None] = _nothing_learned,
    image_sizes: ImageSizes | None = None,
) -> Projection:
    """Project a chat completion.

    Input is priced as if none of it were cached, at the price of writing it into the cache if that is dearer.
    A service tier that the request asks for is priced at the dearer of itself and `rates`, because a tier
    that cannot be had is served and billed at the standard one.

    Args:
        body: the request, OpenAI-shaped.
        model: the model's name.
        rates: what the model costs.
        learned_cap: output tokens per choice that the model's settled calls suggest, for a
            request that sets no cap.
        learned_input: `HiddenInput.key` -> what settled calls suggest to add for what is not counted.
        image_sizes: (width, height) in pixels of images named by URL, where you know them.

    Raises:
        ConfigurationError: bad `messages`, `n`, `max_tokens` or `max_completion_tokens`.
        UnknownModelError: the call would use a unit that has no price.
    """
    choices = whole_number(body, "n", least=1)
    cap = whole_number(body, "max_completion_tokens", least=0)
    older_cap = whole_number(body, "max_tokens", least=0)
    if cap is None:
        cap = older_cap
    assumed = cap is None
    thinking = thinking_tokens(body)
    if cap is None:
        cap = _assumed(model, learned_cap, thinking)
    tokens = with_margin(chat_input_tokens(body, model, image_sizes=image_sizes))
    kinds = kinds_of(body)
    hidden: HiddenInput | None = None
    # Plain text of OpenAI's models is counted as it is billed, so there is nothing to learn.
    if kinds or not is_counted_exactly(model):
        hidden, more = input_beyond("chat", body, model, kinds, {}, tokens, learned_input)
        tokens += more
    # Predicted tokens that the model rejects are billed as output on top of the answer.
    output = (cap + prediction_tokens(body, model)) * (1 if choices is None else choices)
    input_units = {"input_tokens": tokens}
    if heard := audio_input_tokens(body):
        input_units["input_audio_tokens"] = min(tokens, with_margin(heard))
    fees = fees_beside(body, model, rates.provider)
    add_tools(fees, body, rates.provider, chat=True)
    input_units = _with_fees(input_units, fees)
    output_units = {"output_tokens": output}
    for part, count in fees.output.items():
        output_units[part] = output_units.get(part, 0) + count
    if "audio" in (given(body, "modalities") or ()):
        output_units["output_audio_tokens"] = output
    return projected(
        model,
        rates,
        input_units,
        output_units,
        cap_assumed=assumed,
        output_cap=cap,
        asked_tier=given(body, "service_tier"),
        hidden=hidden,
        fees=fees.units,
        marked=marked_for_cache(body),
        asked_to_think=thinking is not None,
    )


def _with_fees(input_units: Mapping[str, int], fees: Fees) -> dict[str, int]:
    return {**input_units, **fees.units, "input_tokens": input_units["input_tokens"] + fees.input_tokens}


def project_embeddings(body: Mapping[str, Any], model: str, rates: Rates) -> Projection:
    """Project an embeddings request, which has no output.

    Raises:
        UnknownModelError: input tokens have no price.
    """
    tokens = with_margin(embedding_input_tokens(body, model))
    return projected(
        model,
        rates,
        {"input_tokens": tokens},
        {},
        cap_assumed=False,
        asked_tier=given(body, "service_tier"),
    )


def project_response(
    body: Mapping[str, Any],
    model: str,
    rates: Rates,
    *,
    learned_cap: int | None = None,
    learned_input: Callable[[str], int | None] = _nothing_learned,
    image_sizes: ImageSizes | None = None,
    counted: int | None = None,
) -> Projection:
    """Project a response: a request to `/responses`.

    Hosted tools, and turns that the provider keeps (`previous_response_id`, `conversation`, a `prompt`
    template), are given an allowance of input tokens, and the fees of those tools are projected.

    Args:
        body: the request.
        model: the model's name.
        rates: what the model costs.
        learned_cap: as in `project_chat`.
        learned_input: as in `project_chat`.
        image_sizes: as in `project_chat`.
        counted: the input tokens by the provider's own count, which knows the turns and files that it keeps,
            but not what hosted tools will find.

    Raises:
        ConfigurationError: bad `input` or `max_output_tokens`.
        UnknownModelError: the call would use a unit that has no price.
    """
    cap = whole_number(body, "max_output_tokens", least=0)
    assumed = cap is None
    thinking = thinking_tokens(body)
    if cap is None:
        cap = _assumed(model, learned_cap, thinking)
    allowances = hidden_input(body, model)
    if counted is None:
        shown = with_margin(response_input_tokens(body, model, image_sizes=image_sizes))
        hidden, more = input_beyond(
            "responses", body, model, kinds_of(body), allowances, shown, learned_input
        )
    else:
        shown, hidden, more = counted, None, 0
        if found := {kind: tokens for kind, tokens in allowances.items() if kind not in KEPT}:
            hidden, more = input_beyond("counted responses", body, model, [], found, shown, learned_input)
    fees = fees_beside(body, model, rates.provider)
    add_tools(fees, body, rates.provider, chat=False)
    input_units = {"input_tokens": shown + more, **projected_fees(body, model, rates.provider)}
    return projected(
        model,
        rates,
        _with_fees(input_units, fees),
        {"output_tokens": cap},
        cap_assumed=assumed,
        output_cap=cap,
        asked_tier=given(body, "service_tier"),
        hidden=hidden,
        fees=fees.units,
        marked=marked_for_cache(body),
        asked_to_think=thinking is not None,
    )


def input_beyond(
    endpoint: str,
    body: Mapping[str, Any],
    model: str,
    kinds: list[str],
    allowances: Mapping[str, int],
    shown: int,
    learned_input: Callable[[str], int | None],
) -> tuple[HiddenInput, int]:
    """Return what to learn of the input beyond what is counted, and the tokens to add for it now."""
    if UNSEEN in kinds:
        allowances = {**allowances, UNSEEN: unseen_files(body) * UNSEEN_FILE}
    if allowances:
        key = f"{model} input beyond: {' '.join(sorted(allowances))}"
    else:
        key = f"{model} {endpoint}: {' '.join(kinds) or 'text'}"
    hides = bool(allowances)
    text = 0 if hides or is_counted_exactly(model) else shown - _MARGIN
    hidden = HiddenInput(key, shown, text, hides)
    learned = learned_input(key)
    if learned is None:
        return hidden, sum(allowances.values())
    more = hidden.tokens(learned)
    return hidden, more + more // _HEADROOM if hides else more


def project_completion(
    body: Mapping[str, Any], model: str, rates: Rates, *, learned_cap: int | None = None
) -> Projection:
    """Project a legacy completion: a request to `/completions`.

    Without `max_tokens` an answer ends after 16 tokens, so the cap is never assumed.

    Raises:
        ConfigurationError: bad `n`, `best_of` or `max_tokens`.
        UnknownModelError: the call would use a unit that has no price.
    """
    cap = whole_number(body, "max_tokens", least=0)
    tokens = with_margin(completion_input_tokens(body, model))
    each = COMPLETION_CAP if cap is None else cap
    return projected(
        model,
        rates,
        {"input_tokens": tokens},
        {"output_tokens": each * completion_choices(body)},
        cap_assumed=False,
        output_cap=each,
        asked_tier=given(body, "service_tier"),
    )


def completion_choices(body: Mapping[str, Any]) -> int:
    """Return how many answers a legacy completion is billed: `n`, or `best_of` if more, for each prompt.

    Raises:
        ConfigurationError: bad `n` or `best_of`.
    """
    wanted = whole_number(body, "n", least=1), whole_number(body, "best_of", least=1)
    return max(1, completion_prompts(body)) * max(one or 1 for one in wanted)


def projected(
    model: str,
    rates: Rates,
    input_units: Mapping[str, int],
    output_units: Mapping[str, int],
    *,
    cap_assumed: bool = False,
    output_cap: int | None = None,
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
    read = Usage.of(**input_units)
    return Projection(
        model=model,
        usage=usage,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=max(_most(one, usage, marked, region) for one in served),
        input_cost=max(_most(one, read, marked, region) for one in served),
        cap_assumed=cap_assumed,
        output_cap=output_cap,
        hidden=hidden,
        served=tuple(served),
        fees=fees or {},
        marked=marked,
        asked_to_think=asked_to_think,
        region=region,
    )


def whole_number(body: Mapping[str, Any], name: str, *, least: int) -> int | None:
    """Return a number of a request, None if it is absent.

    Raises:
        ConfigurationError: it is no whole number of at least `least`.
    """
    value = given(body, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return value
