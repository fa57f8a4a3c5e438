"""What the adapters of images, audio and video share: projections in any unit, and fields of answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from budgetguard.counting.requests import given, is_absent
from budgetguard.counting.tokens import count_text, encoding_for
from budgetguard.errors import ConfigurationError
from budgetguard.pricing.rates import Rates
from budgetguard.projection import Projection
from budgetguard.usage import Usage

_MOST_SECONDS = 1e9


def projected(
    model: str,
    rates: Rates,
    input_units: Mapping[str, int],
    output_units: Mapping[str, int],
    *,
    cap_assumed: bool = False,
) -> Projection:
    """Price what a call will use.

    Raises:
        UnknownModelError: a unit has no price.
    """
    usage = Usage.of(**input_units, **output_units)
    return Projection(
        model=model,
        usage=usage,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost=rates.cost(usage),
        input_cost=rates.cost(Usage.of(**input_units)),
        cap_assumed=cap_assumed,
    )


def whole(body: Mapping[str, Any], name: str, default: int, *, least: int, most: int) -> int:
    """Return a whole number of the request; text that spells one counts, as forms send it.

    Raises:
        ConfigurationError: it is none, or out of range.
    """
    value = given(body, name)
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return value


def text(body: Mapping[str, Any], name: str) -> str:
    """Return a text of the request, empty if it is absent.

    Raises:
        ConfigurationError: it is no text.
    """
    value = given(body, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a text, not {type(value).__name__}")
    return value


def tokens(words: str, model: str) -> int:
    """Count the tokens of a text for a model."""
    return count_text(words, encoding_for(model)) if words else 0


def field(value: object, name: str) -> Any:
    """Return a field of an answer, an SDK object or a mapping; None if it is absent."""
    found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return None if is_absent(found) else found


def count(value: object) -> int | None:
    """Read a number of an answer, rounded up; None if it is none, negative or absurd."""
    if isinstance(value, str):
        try:
            value = float(value.strip())
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return math.ceil(value) if 0 <= value <= _MOST_SECONDS else None
