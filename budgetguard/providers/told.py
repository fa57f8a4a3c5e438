"""What a program says that its call cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from budgetguard.core.money import to_nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.engine.outcomes import Answered, Outcome
from budgetguard.errors import ConfigurationError, UnpricedAnswerError
from budgetguard.providers.functions import FunctionCall, checked_count
from budgetguard.providers.json import parsed


def outcome_told(
    request: FunctionCall,
    answer: object,
    input_tokens: object,
    output_tokens: object,
    cost: int | float | Decimal | None,
) -> Outcome:
    """Return the outcome of a call by what `BudgetedCall.settle` was told.

    Raises:
        ConfigurationError: nothing of this tells a cost.
    """
    by_tokens = input_tokens is not None or output_tokens is not None
    if answer is None and not by_tokens and cost is None:
        raise ConfigurationError(
            "call.settle() needs what the call cost: the answer, a Usage, (input_tokens, output_tokens), "
            "or cost=USD (without any, call.feed() it what streams); use call.void() if the provider did no "
            "work"
        )
    if answer is not None and by_tokens:
        raise ConfigurationError("call.settle() takes an answer or tokens, not both")
    billed = None if cost is None else to_nanos(cost, name="cost")
    if by_tokens:
        answer = input_tokens or 0, output_tokens or 0
    if answer is None:
        return Answered(Reported(usage=None), billed)
    if isinstance(answer, Usage):
        for unit, count in answer.units.items():
            checked_count(count, unit)
        return Answered(Reported(answer), billed)
    if isinstance(answer, tuple) and len(answer) == 2:
        units = zip(("input_tokens", "output_tokens"), answer, strict=True)
        usage = Usage.of(**{unit: checked_count(count, unit) for unit, count in units})
        return Answered(Reported(usage), billed)
    return _read(request, answer, billed)


def _read(request: FunctionCall, answer: object, billed: int | None) -> Outcome:
    value = parsed(answer)
    try:
        # Text that is no JSON object is the answer's own.
        outcome = request.outcome(value if isinstance(value, Mapping) else answer)
    except UnpricedAnswerError as error:
        if billed is not None:
            return Answered(Reported(usage=None), billed)
        raise ConfigurationError(
            f"call.settle(): no cost can be read from {type(answer).__name__}; pass the provider's whole "
            "answer, a Usage, (input_tokens, output_tokens), or cost=USD"
        ) from error
    if billed is not None and isinstance(outcome, Answered):
        return Answered(outcome.reported, billed)
    return outcome
