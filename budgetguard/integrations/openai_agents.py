"""OpenAI's Agents SDK: the calls of its models, whichever provider brings them.

Hooks of a run are told of a call, but not of one that is cut off. So the models are wrapped where a run gets
them: from a provider, or from an agent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import wrapt

from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.integrations.hooks import Target, book, cap_of, whole_stream
from budgetguard.providers.call_block import BudgetedCall
from budgetguard.providers.json import count, field, items

try:
    from agents import Model, ModelProvider, MultiProvider
except ImportError as error:
    raise ImportError(
        "budgetguard.integrations.openai_agents needs OpenAI's Agents SDK: pip install openai-agents"
    ) from error

# The first parameters of both methods of a model.
_NAMES: Final = (
    "system_instructions",
    "input",
    "model_settings",
    "tools",
    "output_schema",
    "handoffs",
    "tracing",
)
# What of a request, beside these, decides its cost; as the SDK and as the API of responses calls it.
_MORE: Final = {
    "previous_response_id": "previous_response_id",
    "conversation_id": "conversation",
    "prompt": "prompt_template",
}
_OF_SETTINGS: Final = ("parallel_tool_calls", "reasoning", "truncation")

_Proxy: Any = wrapt.ObjectProxy  # whose older versions take no types


class BudgetedModel(_Proxy):
    """A model of the Agents SDK whose calls are under a budget; otherwise as the model itself.

    Args:
        model: the model.
        target: whose budgets.
    """

    def __init__(self, model: Any, target: Target) -> None:
        super().__init__(model)
        self._self_target = target

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        """Answer as the model does, once the money for it is held.

        Raises:
            BudgetGuardError: what refuses the call.
        """
        asked = _named(args, kwargs)
        async with self._call(asked) as call:
            answer = await self.__wrapped__.get_response(**_capped(asked, call))
            book(call, _as_response(answer))
            return answer

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Stream an answer as the model does, once the money for it is held.

        Raises:
            BudgetGuardError: what refuses the call; or, with `on_stream_exceeded="stop"`, the rest of it.
        """
        asked = _named(args, kwargs)
        async with self._call(asked) as call:
            async with aclosing(self.__wrapped__.stream_response(**_capped(asked, call))) as events:
                async for event in events:
                    call.feed(event)
                    yield event
            whole_stream(call)

    def __copy__(self) -> BudgetedModel:
        return self

    def __deepcopy__(self, _memo: object) -> BudgetedModel:
        return self

    def _call(self, asked: Mapping[str, Any]) -> BudgetedCall:
        model = self.__wrapped__
        name = getattr(model, "model", None)
        target: Target = self._self_target
        return target.call(
            model=name if isinstance(name, str) and name else type(model).__name__,
            input=asked.get("input") or "",
            max_output_tokens=cap_of({"max_tokens": field(asked.get("model_settings"), "max_tokens")}),
            request=_request(asked),
            endpoint="agents",
            base_url=_address_of(model),
        )


class BudgetedProvider(_Proxy):
    """A provider of models, whose models' calls are under a budget; otherwise as the provider itself.

    Args:
        provider: the provider.
        target: whose budgets.
    """

    def __init__(self, provider: Any, target: Target) -> None:
        super().__init__(provider)
        self._self_target = target

    def get_model(self, model_name: str | None) -> BudgetedModel:
        """Return a model by its name, its calls under the budget."""
        return _wrapped(self.__wrapped__.get_model(model_name), self._self_target)


def budgeted_model(
    model: Any, guard: Guard | None = None, *, user: str | None = None, tags: str | Sequence[str] = ()
) -> BudgetedModel:
    """Put a model's calls under a budget: `Agent(model=budgeted_model(model))`.

    Args:
        model: a `Model`.
        guard: whose budgets; None for the default guard.
        user: who pays; None for the current user.
        tags: labels of the calls.

    Raises:
        ConfigurationError: a bad argument.
    """
    if not isinstance(model, Model):
        raise ConfigurationError(
            f"budgeted_model() takes a Model of the Agents SDK, not {type(model).__name__}; for a model's "
            "name, use RunConfig(model_provider=budgeted_provider())"
        )
    return _wrapped(model, Target(guard, user, tags))


def budgeted_provider(
    provider: Any = None,
    guard: Guard | None = None,
    *,
    user: str | None = None,
    tags: str | Sequence[str] = (),
) -> BudgetedProvider:
    """Put the calls of all models that runs get by name under a budget.

    `Runner.run(agent, "...", run_config=RunConfig(model_provider=budgeted_provider()))`

    Args:
        provider: a `ModelProvider`; None for the SDK's own.
        guard: whose budgets; None for the default guard.
        user: who pays; None for the current user.
        tags: labels of the calls.

    Raises:
        ConfigurationError: a bad argument.
    """
    if provider is not None and not isinstance(provider, ModelProvider):
        raise ConfigurationError(
            f"budgeted_provider() takes a ModelProvider of the Agents SDK, not {type(provider).__name__}"
        )
    return BudgetedProvider(MultiProvider() if provider is None else provider, Target(guard, user, tags))


def _wrapped(model: Any, target: Target) -> BudgetedModel:
    return model if type(model) is BudgetedModel else BudgetedModel(model, target)


def _named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(_NAMES, args, strict=False)), **kwargs}


def _capped(asked: Mapping[str, Any], call: BudgetedCall) -> dict[str, Any]:
    """Return the arguments with the cap that strict mode has found, if it has."""
    settings = asked.get("model_settings")
    if settings is None or not call.caps:
        return dict(asked)
    return {**asked, "model_settings": dataclasses.replace(settings, max_tokens=call.max_output_tokens)}


def _request(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the call costs beside its input, as a request for a response has it."""
    settings, schema = asked.get("model_settings"), asked.get("output_schema")
    request: dict[str, Any] = {"instructions": asked.get("system_instructions") or ""}
    tools = [*map(_tool, items(asked.get("tools"))), *map(_handoff, items(asked.get("handoffs")))]
    if tools:
        request["tools"] = tools
    if schema is not None and not schema.is_plain_text():
        described = {"type": "json_schema", "name": "final_output", "schema": schema.json_schema()}
        request["text"] = {"format": described}
    for name in _OF_SETTINGS:
        if (value := field(settings, name)) is not None:
            request[name] = value
    for name, other in _MORE.items():
        if (value := asked.get(name)) is not None:
            request[other] = value
    for more in (field(settings, "extra_body"), field(settings, "extra_args")):
        if isinstance(more, Mapping):
            request |= more
    return request


def _tool(tool: Any) -> Mapping[str, Any]:
    config = getattr(tool, "tool_config", None)
    if isinstance(config, Mapping):
        return config
    schema = getattr(tool, "params_json_schema", None)
    if schema is None:
        return {"type": str(getattr(tool, "name", type(tool).__name__))}
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": schema,
        "strict": getattr(tool, "strict_json_schema", None),
    }


def _handoff(handoff: Any) -> Mapping[str, Any]:
    return {
        "type": "function",
        "name": handoff.tool_name,
        "description": handoff.tool_description,
        "parameters": handoff.input_json_schema,
    }


def _as_response(answer: Any) -> Mapping[str, Any]:
    """Return an answer as the API of responses has it."""
    usage = answer.usage
    told = any(count(field(usage, name)) for name in ("requests", "input_tokens", "output_tokens"))
    return {
        "object": "response",
        "id": answer.response_id,
        "output": answer.output,
        "usage": usage if told else None,
    }


def _address_of(model: Any) -> str | None:
    # The SDK's own models have a client, those of its extensions an address.
    for found in (
        getattr(model, "base_url", None),
        getattr(getattr(model, "_client", None), "base_url", None),
    ):
        if found is not None and str(found).strip():
            return str(found)
    return None
