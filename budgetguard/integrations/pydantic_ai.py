"""Pydantic AI: the calls of its models, one by one or of a whole agent.

A model is wrapped where it is asked: inside of retries and fallbacks, each of which is a call.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

import wrapt

from budgetguard.guard import Guard
from budgetguard.integrations.hooks import Target, book, cap_of, listed_provider, whole_stream
from budgetguard.providers.call_block import BudgetedCall
from budgetguard.providers.json import field, items
from budgetguard.providers.openai.endpoints import TABLE

try:
    from pydantic_ai.models import Model
    from pydantic_ai.models.wrapper import WrapperModel
except ImportError as error:
    raise ImportError(
        "budgetguard.integrations.pydantic_ai needs Pydantic AI: pip install pydantic-ai-slim"
    ) from error

# Pydantic AI's names for providers, where the price list has another one.
_PROVIDERS: Final = {
    "bedrock": "aws",
    "google-cloud": "google",
    "google-gla": "google",
    "google-vertex": "google",
    "grok": "x-ai",
}
# Tools that the provider runs, where OpenAI calls them otherwise.
_HOSTED: Final = {"code_execution": "code_interpreter", "mcp_server": "mcp"}

_Proxy: Any = wrapt.ObjectProxy  # whose older versions take no types


class BudgetedPydanticModel(WrapperModel):
    """A model of Pydantic AI whose calls are under a budget; otherwise as the model itself.

    Args:
        wrapped: the model, or its name.
        target: whose budgets.
    """

    def __init__(self, wrapped: Any, target: Target) -> None:
        super().__init__(wrapped)
        self._budget = target

    async def request(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> Any:
        """Answer as the model does, once the money for it is held.

        Raises:
            BudgetGuardError: what refuses the call.
        """
        async with self._call(messages, model_settings, model_request_parameters) as call:
            settings = _capped(model_settings, call)
            answer = await self.wrapped.request(messages, settings, model_request_parameters)
            book(call, answer)
            return answer

    @asynccontextmanager
    async def request_stream(
        self, messages: Any, model_settings: Any, model_request_parameters: Any, *more: Any, **named: Any
    ) -> AsyncGenerator[Any]:
        """Stream an answer as the model does, once the money for it is held.

        Raises:
            BudgetGuardError: what refuses the call; or, with `on_stream_exceeded="stop"`, the rest of it.
        """
        async with self._call(messages, model_settings, model_request_parameters) as call:
            settings = _capped(model_settings, call)
            streaming = self.wrapped.request_stream(
                messages, settings, model_request_parameters, *more, **named
            )
            async with streaming as answer:
                read = _Read(answer, call)
                yield read
            read._self_book()

    async def compact_messages(self, request_context: Any, **more: Any) -> Any:
        """Have a conversation made shorter by the model, once the money for it is held.

        Raises:
            BudgetGuardError: what refuses the call.
        """
        asked = request_context
        async with self._call(asked.messages, asked.model_settings, asked.model_request_parameters) as call:
            answer = await self.wrapped.compact_messages(request_context, **more)
            book(call, answer)
            return answer

    async def batch_create(self, requests: Any) -> Any:
        """Refuse a batch, unless `allow_endpoints` has `/batches`: nobody here knows what it costs.

        Raises:
            UnknownEndpointError: it is not allowed.
        """
        TABLE.check_allowed(
            "POST",
            "/batches",
            self._budget.guard.settings.allow_endpoints,
            "of Pydantic AI's costs what is not known here (where the client is patched, take the model "
            "without a budget of its own)",
        )
        return await self.wrapped.batch_create(requests)

    def _call(self, messages: Any, settings: Any, parameters: Any) -> BudgetedCall:
        model = self.wrapped
        said = {**(model.settings or {}), **(settings or {})}
        name, system = model.model_name, model.system
        return self._budget.call(
            model=name,
            messages=list(_openai_messages(messages)),
            max_output_tokens=cap_of(said),
            request=_request(said, parameters),
            endpoint="pydantic-ai",
            # Whose servers speak as OpenAI's do, their address tells.
            provider=None if system == "openai" else listed_provider(system, _PROVIDERS),
            base_url=getattr(model, "base_url", None) or None,
        )


class _Read(_Proxy):
    """A streamed answer whose pieces are read as they pass."""

    def __init__(self, answer: Any, call: BudgetedCall) -> None:
        super().__init__(answer)
        self._self_call = call
        self._self_over = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._self_pieces()

    async def _self_pieces(self) -> AsyncIterator[Any]:
        async for event in self.__wrapped__:
            for text in _texts_of_event(event):
                self._self_call.feed(text)
            yield event
        self._self_over = not self.__wrapped__.cancelled

    def _self_book(self) -> None:
        """Book an answer that was read to its end; one that was not, the call books by its pieces."""
        if not self._self_over:
            return
        answer = self.__wrapped__.get()
        if answer.usage.has_values():
            book(self._self_call, answer)
        else:
            whole_stream(self._self_call)


def budgeted_model(
    model: Any, guard: Guard | None = None, *, user: str | None = None, tags: str | Sequence[str] = ()
) -> Any:
    """Put a model's calls under a budget: `Agent(budgeted_model("openai:gpt-5-mini"))`.

    The models of a `FallbackModel` are each put under it.

    Args:
        model: a `Model`, or its name.
        guard: whose budgets; None for the default guard.
        user: who pays; None for the current user.
        tags: labels of the calls.

    Raises:
        ConfigurationError: a bad argument.
    """
    return _wrapped(model, Target(guard, user, tags))


def _wrapped(model: Any, target: Target) -> Any:
    if isinstance(model, BudgetedPydanticModel):
        return model
    several = getattr(model, "models", None) if isinstance(model, Model) else None
    if isinstance(several, list) and not isinstance(model, WrapperModel):
        fallback = copy.copy(model)
        fallback.models = [_wrapped(one, target) for one in several]
        return fallback
    return BudgetedPydanticModel(model, target)


@cache
def _capability() -> type[Any]:
    try:
        from pydantic_ai.capabilities import AbstractCapability
    except ImportError as error:
        raise ImportError(
            "BudgetCapability needs a Pydantic AI that has capabilities: pip install -U pydantic-ai-slim; or "
            "use budgeted_model()"
        ) from error

    class BudgetCapability(AbstractCapability):
        """Put all model calls of an agent under a budget: `Agent(..., capabilities=[BudgetCapability()])`.

        Whichever model serves a request, it is under the budget: the agent's, the run's, a fallback.

        Args:
            guard: whose budgets; None for the default guard.
            user: who pays; None for the current user.
            tags: labels of the calls.

        Raises:
            ConfigurationError: a bad argument.
        """

        def __init__(
            self, guard: Guard | None = None, *, user: str | None = None, tags: str | Sequence[str] = ()
        ) -> None:
            self._budget = Target(guard, user, tags)

        def get_wrapper_model(self, model: Any) -> Any:
            """Return the model with its calls under the budget."""
            return _wrapped(model, self._budget)

    BudgetCapability.__module__, BudgetCapability.__qualname__ = __name__, "BudgetCapability"
    return BudgetCapability


def __getattr__(name: str) -> Any:
    if name == "BudgetCapability":
        return _capability()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _capped(settings: Any, call: BudgetedCall) -> Any:
    """Return the settings with the cap that strict mode has found, if it has."""
    return {**(settings or {}), "max_tokens": call.max_output_tokens} if call.caps else settings


def _request(settings: Mapping[str, Any], parameters: Any) -> dict[str, Any]:
    """Return what a request costs beside its input, as a chat has it."""
    request: dict[str, Any] = {}
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters_json_schema,
            },
        }
        for name in ("function_tools", "output_tools")
        for tool in items(field(parameters, name))
    ]
    hosted = items(field(parameters, "native_tools")) or items(field(parameters, "builtin_tools"))
    tools += [{"type": _HOSTED.get(tool.kind, tool.kind)} for tool in hosted]
    if tools:
        request["tools"] = tools
    schema = field(field(parameters, "output_object"), "json_schema")
    if isinstance(schema, Mapping) and field(parameters, "output_mode") == "native":
        described = {"name": "final_result", "schema": schema}
        request["response_format"] = {"type": "json_schema", "json_schema": described}
    for name in ("parallel_tool_calls", "service_tier"):
        if settings.get(name) is not None:
            request[name] = settings[name]
    effort = settings.get("openai_reasoning_effort") or settings.get("thinking")
    if effort:
        request["reasoning_effort"] = effort
    thinking = settings.get("anthropic_thinking")
    if thinking is not None:
        request["thinking"] = thinking
    return request


# Messages as a chat has them, to be counted


def _openai_messages(messages: Any) -> Iterator[dict[str, Any]]:
    instructions = next((text for one in reversed(messages) if (text := field(one, "instructions"))), None)
    if instructions:
        yield {"role": "system", "content": str(instructions)}
    for message in messages:
        if field(message, "kind") == "response":
            yield _of_response(message)
        else:
            for part in message.parts:
                yield _of_request_part(part)


def _of_response(message: Any) -> dict[str, Any]:
    text, calls = [], []
    for part in message.parts:
        if hasattr(part, "args_as_json_str"):
            function = {"name": part.tool_name, "arguments": part.args_as_json_str()}
            calls.append({"id": part.tool_call_id, "type": "function", "function": function})
        elif isinstance(content := field(part, "content"), str):
            text.append(content)
    return {"role": "assistant", "content": "\n\n".join(text), **({"tool_calls": calls} if calls else {})}


def _of_request_part(part: Any) -> dict[str, Any]:
    kind = field(part, "part_kind")
    if kind == "system-prompt":
        return {"role": "system", "content": part.content}
    if kind == "tool-return":
        return {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.model_response_str()}
    if hasattr(part, "model_response"):
        return {"role": "user", "content": str(part.model_response())}
    content = field(part, "content")
    if isinstance(content, str):
        return {"role": "user", "content": content}
    return {"role": "user", "content": [_of_content(one) for one in items(content)]}


def _of_content(one: Any) -> dict[str, Any]:
    """Return a piece of what a user says as a chat has it; what a chat has not, as text."""
    kind, url = field(one, "kind"), field(one, "url") or field(one, "data_uri")
    if kind == "image-url" or getattr(one, "is_image", False):
        return {"type": "image_url", "image_url": {"url": url}}
    if getattr(one, "is_audio", False):
        return {"type": "input_audio", "input_audio": {"data": one.base64, "format": one.format}}
    if kind in ("document-url", "binary"):
        return {"type": "file", "file": {"file_data": url}}
    text = one if isinstance(one, str) else field(one, "content")
    return {"type": "text", "text": text if isinstance(text, str) else ""}


def _texts_of_event(event: Any) -> Iterator[str]:
    """Yield the text that an event of a stream adds."""
    kind = field(event, "event_kind")
    piece = field(event, "part") if kind == "part_start" else field(event, "delta")
    if kind not in ("part_start", "part_delta") or piece is None:
        return
    for name in ("content", "content_delta", "tool_name", "tool_name_delta", "args", "args_delta"):
        text = field(piece, name)
        if isinstance(text, str) and text:
            yield text
