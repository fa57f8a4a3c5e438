"""Models that may answer a call instead of the one that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from budgetguard.engine.projection import Projection, assumed_output_cap
from budgetguard.engine.provider_call import LearnedCap
from budgetguard.errors import UnknownModelError
from budgetguard.pricing.rates import Rates
from budgetguard.providers.json import field, items

MORE_MODELS: Final = frozenset({"models", "fallbacks"})
"""The fields of a request of which at least one is there if it allows further models."""


def first_model(body: Mapping[str, Any]) -> Any:
    """Return the model that a request asks for: the first of OpenRouter's `models` where it names none."""
    return field(body, "model") or next(iter(_names(field(body, "models"))), "")


def with_alternatives(
    projection: Projection,
    body: Mapping[str, Any],
    rates: Rates,
    rates_of: Callable[[str], Rates],
    learned_cap: LearnedCap,
) -> Projection:
    """Return a projection at the dearest of the models that a request allows to answer it.

    They are OpenRouter's `models`, and `fallbacks` as LiteLLM has them; of these, those that have a price.

    Args:
        projection: of the model that it asks for.
        body: the request.
        rates: what that model costs.
        rates_of: model -> what it costs at the same place.
        learned_cap: as `Request.project` has it.

    Raises:
        UnknownModelError: one of `models` has no price.
    """
    asked = projection.model
    models = [name for name in _names(field(body, "models")) if name != asked]
    if rates.provider != "openrouter":
        models = []
    others = {name: rates_of(name) for name in models}
    for name in _names(field(body, "fallbacks")):
        try:
            others[name] = rates_of(name)
        except UnknownModelError:
            continue  # what answers is booked by its own name, or as the model that was asked for
    if not others:
        return projection
    longest = max(learned_cap(name) or assumed_output_cap(name) for name in others)
    return projection.with_others(others.values()).with_assumed_cap(longest)


def _names(value: Any) -> list[str]:
    named = (one if isinstance(one, str) else field(one, "model") for one in items(value))
    return [name for name in named if isinstance(name, str) and name]
