"""What `BudgetManager.update_cost` books: the usage of an answer or of texts, and its price."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from budgetguard.core.money import MAX_NANOS, Nanos
from budgetguard.core.usage import Reported, Usage
from budgetguard.errors import ConfigurationError, UnknownModelError
from budgetguard.providers.answer_shapes import read_whole
from budgetguard.providers.frameworks import litellm_cost
from budgetguard.providers.functions import chat_body
from budgetguard.providers.openai.chat import CHAT
from budgetguard.tokens.text import count_text, encoding_for

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

# Output tokens.
_LEAST_WRITTEN: Final = 10


def counted_usage(model: str, input_text: object, output_text: object) -> Reported:
    """Return the usage of a call by counting the tokens of its texts.

    Raises:
        ConfigurationError: one of them is no text.
    """
    for name, text in (("input_text", input_text), ("output_text", output_text)):
        if not isinstance(text, str):
            raise ConfigurationError(f"{name} must be text, not {type(text).__name__}; nothing was booked")
    body = chat_body({}, input_text)
    return Reported(
        Usage.of(
            input_tokens=CHAT.input_tokens(body, model),
            output_tokens=count_text(str(output_text), encoding_for(model)),
        ),
        model=model,
    )


def reported_usage(answer: object, model: str | None) -> Reported:
    """Return what an answer reports of its usage.

    Raises:
        ConfigurationError: it reports none.
    """
    found = read_whole(answer, model or "")
    if found.total:
        seen = min(found.seen, found.total)
        return replace(found, usage=Usage.of(input_tokens=found.total - seen, output_tokens=seen))
    if found.usage is None and found.billed:
        return replace(found, usage=Usage())
    if found.usage is None:
        raise ConfigurationError(
            f"no usage can be read from completion_obj ({type(answer).__name__}), so nothing was booked. "
            "Pass the whole answer (awaited, over, and not a stream), or model=, input_text= and output_text="
        )
    # A word or two may be a cache's or a stub's, and cost nothing; a whole answer does not.
    if found.seen < max(found.usage.output_tokens, _LEAST_WRITTEN):
        return found
    written = found.seen
    return replace(found, usage=Usage({**found.usage.units, "output_tokens": written}))


def price(engine: Engine, found: Reported, model: str | None, answer: object) -> tuple[str, Nanos]:
    """Return the model that an answer is booked under, and its cost in Nanos.

    Args:
        engine: whose prices count.
        found: what the answer reports.
        model: the name to price it by, if the caller says.
        answer: the answer itself.

    Raises:
        UnknownModelError: no price is known.
        ConfigurationError: neither caller nor answer names a model.
    """
    assert found.usage is not None
    names = [name for name in (model, found.model) if name]
    if not names:
        raise ConfigurationError("the answer names no model: pass model= too; nothing was booked")
    if found.billed:  # a bill of nothing is one that is not written yet
        return names[0], min(found.billed, MAX_NANOS)
    first: UnknownModelError | None = None
    # LiteLLM takes the provider out of the model's name, and gives it beside that.
    asked: list[tuple[str, str | None]] = [(name, found.provider) for name in names]
    if found.provider is not None and model:
        asked.append((model, None))
    for name, provider in asked:
        try:
            rates = engine.prices.rates(name, provider=provider, tier=found.tier, bare=True)
            return name, min(rates.cost_of(replace(found, model=None, billed=None)), MAX_NANOS)
        except UnknownModelError as error:
            first = first or error
    if (cost := litellm_cost(answer)) is not None:
        return names[0], cost
    assert first is not None
    if engine.settings.unknown_model == "allow" and first.unit is None:
        return names[0], 0
    raise without_price(first, "nothing was booked") from first


def without_price(error: UnknownModelError, effect: str) -> UnknownModelError:
    """Return the error of a model without a price, with its effect and the remedy."""
    if error.unit is not None or not error.model:
        return error
    return UnknownModelError(
        f"no price is known for the model {error.model!r}, so {effect}. Set one in USD per million tokens: "
        f"register_price({error.model!r}, input=..., output=...)",
        model=error.model,
    )
