"""Project what a call will cost at most, before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from budgetguard.errors import ConfigurationError
from budgetguard.money import Nanos
from budgetguard.rates import Rates
from budgetguard.request_tokens import (
    as_mapping,
    audio_tokens,
    chat_input_tokens,
    content_tokens,
    embedding_input_tokens,
    given,
    is_reasoning,
)
from budgetguard.tokens import encoding_for
from budgetguard.usage import Usage

__all__ = [
    "Projection",
    "assumed_output_cap",
    "chat_input_tokens",
    "embedding_input_tokens",
    "is_reasoning",
    "project_chat",
    "project_embeddings",
    "with_margin",
]

ASSUMED_OUTPUT = 1_024
ASSUMED_OUTPUT_REASONING = 4_096


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
    """

    model: str
    usage: Usage
    input_tokens: int
    output_tokens: int
    cost: Nanos
    input_cost: Nanos
    cap_assumed: bool


def with_margin(tokens: int) -> int:
    """Return the tokens to project for an estimate: 5 % more, rounded up, and 32.

    Measured on 1 680 real requests: a projection with this margin was too low on 0.95 % of them.
    """
    return -(-tokens * 105 // 100) + 32


def assumed_output_cap(model: str) -> int:
    """Return the output tokens to assume for a model before its settled calls have taught better.

    1 024, or 4 096 for reasoning models: about the 99th percentile of real answers (1 014 and 3 134).
    """
    return ASSUMED_OUTPUT_REASONING if is_reasoning(model) else ASSUMED_OUTPUT


def project_chat(
    body: Mapping[str, Any], model: str, rates: Rates, *, learned_cap: int | None = None
) -> Projection:
    """Project a chat completion.

    Args:
        body: the request.
        model: the model's name.
        rates: what the model costs.
        learned_cap: output tokens per choice that the model's settled calls suggest, for a
            request that sets no cap.

    Raises:
        ConfigurationError: bad `messages`, `n`, `max_tokens` or `max_completion_tokens`.
        UnknownModelError: the call would use a unit that has no price.
    """
    choices = _whole(body, "n", least=1) or 1
    cap = _whole(body, "max_completion_tokens", least=0)
    if cap is None:
        cap = _whole(body, "max_tokens", least=0)
    assumed = cap is None
    if cap is None:
        cap = learned_cap if learned_cap is not None else assumed_output_cap(model)
    tokens = with_margin(chat_input_tokens(body, model))
    prediction = given(body, "prediction")
    rejected = 0
    if prediction is not None:
        # Predicted tokens that the model rejects are billed as output on top of the answer.
        content = given(as_mapping(prediction), "content")
        rejected = content_tokens(content, encoding_for(model), model)
    output = (cap + rejected) * choices
    units = {"input_tokens": tokens}
    if heard := _audio_in(body):
        units["input_audio_tokens"] = min(tokens, heard)
    speaks = "audio" in (given(body, "modalities") or ())
    parts = {"output_tokens": output}
    if speaks:
        parts["output_audio_tokens"] = output
    return _priced(body, model, rates, units, parts, assumed)


def project_embeddings(body: Mapping[str, Any], model: str, rates: Rates) -> Projection:
    """Project an embeddings request, which has no output.

    Raises:
        UnknownModelError: input tokens have no price.
    """
    tokens = with_margin(embedding_input_tokens(body, model))
    return _priced(body, model, rates, {"input_tokens": tokens}, {}, cap_assumed=False)


def _priced(
    body: Mapping[str, Any],
    model: str,
    rates: Rates,
    input_units: Mapping[str, int],
    output_units: Mapping[str, int],
    cap_assumed: bool,
) -> Projection:
    asked = given(body, "service_tier")
    served = [rates]
    if isinstance(asked, str):
        # A tier that is asked for may not be had, and then the call is served and billed at the standard one.
        served.append(rates.with_tier(asked))
    usage = Usage.of(**input_units, **output_units)
    return Projection(
        model=model,
        usage=usage,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=max(one.cost(usage) for one in served),
        input_cost=max(one.cost(Usage.of(**input_units)) for one in served),
        cap_assumed=cap_assumed,
    )


def _audio_in(body: Mapping[str, Any]) -> int:
    heard = 0
    for message in given(body, "messages") or ():
        content = given(as_mapping(message), "content")
        if isinstance(content, list | tuple):
            for part in content:
                if not isinstance(part, str) and given(as_mapping(part), "type") == "input_audio":
                    heard += audio_tokens(as_mapping(part))
    return heard


def _whole(body: Mapping[str, Any], name: str, *, least: int) -> int | None:
    value = given(body, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return value
