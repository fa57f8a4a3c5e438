"""LiteLLM's proxy: the requests of its clients, under the budgets of whom their keys belong to.

A proxy asks its callbacks before a request is routed, and hands them its answer or its stream. Callbacks of
the client and of the Router are told late, or not at all, how a call ended: guard these themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.guard import Guard
from budgetguard.integrations.hooks import Target, book, cap_of, costs, whole_stream
from budgetguard.providers.call_block import BudgetedCall
from budgetguard.providers.json import count, field, items
from budgetguard.providers.openai.endpoints import TABLE

try:
    from fastapi import HTTPException
    from litellm.integrations.custom_logger import CustomLogger
except ImportError as error:
    raise ImportError(
        "budgetguard.integrations.litellm needs LiteLLM's proxy: pip install 'litellm[proxy]'"
    ) from error

logger = logging.getLogger("budgetguard")

_CHATS: Final = frozenset({"completion", "acompletion", "anthropic_messages"})
_TEXTS: Final = frozenset({"text_completion", "atext_completion"})
_RESPONSES: Final = frozenset({"responses", "aresponses"})
_EMBEDDINGS: Final = frozenset({"embedding", "embeddings", "aembedding"})
# What asks no model.
_FREE: Final = frozenset({"amoderation", "call_mcp_tool", "list_mcp_tools", "mcp_call", "moderation"})
# Other kinds of calls by the paths that `allow_endpoints` has for them.
_PATHS: Final = {
    "aimage_edit": "/images/edits",
    "aimage_generation": "/images/generations",
    "aspeech": "/audio/speech",
    "atranscription": "/audio/transcriptions",
    "audio_transcription": "/audio/transcriptions",
    "image_edit": "/images/edits",
    "image_generation": "/images/generations",
    "speech": "/audio/speech",
    "transcription": "/audio/transcriptions",
}
_CALL_ID: Final = "litellm_call_id"


def user_of_key(key: Any, _data: Mapping[str, Any]) -> str | None:
    """Return the user whom a proxy's key belongs to, or None."""
    user = getattr(key, "user_id", None)
    return user if isinstance(user, str) and user else None


class BudgetLogger(CustomLogger):
    """A callback that puts the requests of a LiteLLM proxy under budgets.

    In the proxy's configuration: `litellm_settings: {callbacks: my_module.budget}`, where `my_module.py` has
    `budget = BudgetLogger()`. A request is projected and held before it is routed, with its retries and
    fallbacks as one call; a refused one is answered with a 402 that says why. Chats,
    Anthropic's messages, completions, responses and embeddings are guarded; other requests that cost are
    refused, unless `allow_endpoints` has their paths.

    Args:
        guard: whose budgets; None for the default guard.
        payer: (key, request) -> who pays; by default the user of the key. The request is its client's word.
        tags: labels of the calls.

    Raises:
        ConfigurationError: a bad argument.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        payer: Callable[[Any, Mapping[str, Any]], str | None] = user_of_key,
        tags: str | Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not callable(payer):
            raise ConfigurationError(f"payer must be a callable (key, request) -> user, not {payer!r}")
        self._target = Target(guard, None, tags)
        self._payer = payer
        self._calls: dict[str, BudgetedCall] = {}

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Hold what a request will cost at most.

        Raises:
            HTTPException: it is refused; its detail has the error's fields.
        """
        try:
            call = self._call_of(data, call_type, self._payer(user_api_key_dict, data))
            if call is not None:
                await call.abegin()
        except BudgetGuardError as error:
            # The proxy answers with what the detail has as its error.
            detail = {**error.to_dict(), "type": type(error).__name__, "error": error.message}
            raise HTTPException(status_code=error.status, detail=detail) from error
        if call is None:
            return data
        ident = str(data.setdefault(_CALL_ID, str(uuid4())))
        self._calls[ident] = call
        # A request that ends without a word, since its client hung up, is then booked by what is known of it.
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: self._calls.pop(ident, None))
        if call.caps:
            name = "max_output_tokens" if call_type in _RESPONSES else "max_tokens"
            return {**data, name: call.max_output_tokens}
        return data

    async def async_post_call_success_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any
    ) -> None:
        """Book what a request cost that was answered as a whole."""
        call = self._calls.pop(str(data.get(_CALL_ID)), None)
        if call is None:
            return
        if field(getattr(response, "_hidden_params", None), "cache_hit"):
            call.void("LiteLLM's cache answered")
        else:
            book(call, _answer(response, data))
        await call.aend()

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Book a request that failed by how it failed."""
        call = self._calls.pop(str(request_data.get(_CALL_ID)), None)
        if call is not None:
            await call.aend(original_exception)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Read a stream as it passes, and book it.

        Raises:
            BudgetExceededError: no account has more, and `on_stream_exceeded` is `stop`.
        """
        call = self._calls.pop(str(request_data.get(_CALL_ID)), None)
        usage: object = None
        raised: BaseException | None = None
        try:
            async for item in response:
                if call is not None:
                    for piece in _pieces(item):
                        call.feed(piece)
                        usage = _usage(piece) or usage
                yield item
            if call is not None and usage is not None:
                book(call, _answer({"object": "chat.completion", "usage": usage}, request_data))
            elif call is not None:
                whole_stream(call)
        except BaseException as error:
            raised = error
            raise
        finally:
            if call is not None:
                await call.aend(raised)

    def _call_of(self, data: Mapping[str, Any], call_type: str, user: str | None) -> BudgetedCall | None:
        """Return the call that a request makes, None if it costs nothing.

        Raises:
            ConfigurationError: the request cannot be right.
            UnknownEndpointError: it costs nobody knows what.
        """
        guard = self._target.guard
        if call_type in _FREE:
            return None
        if call_type not in _CHATS | _TEXTS | _RESPONSES | _EMBEDDINGS:
            path = _PATHS.get(call_type, f"/{call_type}")
            why = "of LiteLLM's proxy costs what is not known here"
            TABLE.check_allowed("POST", path, guard.settings.allow_endpoints, why)
            return None
        model, others, address = _deployments(str(data.get("model") or ""))
        request = costs(data)
        if call_type in _RESPONSES:
            request["instructions"] = data.get("instructions") or ""
        if others:
            request["fallbacks"] = others
        return guard.call(
            model=model,
            input=_input(data, call_type),
            max_output_tokens=0 if call_type in _EMBEDDINGS else cap_of(data),
            request=request,
            base_url=address,
            endpoint="litellm-proxy",
            user=user,
            tags=self._target.tags,
        )


def _input(data: Mapping[str, Any], call_type: str) -> object:
    if call_type in _TEXTS:
        prompt = data.get("prompt")
        return prompt if isinstance(prompt, str) else "\n".join(str(one) for one in items(prompt))
    if call_type in _RESPONSES:
        return data.get("input") or ""
    if call_type in _EMBEDDINGS:
        given = data.get("input")
        return [given] if isinstance(given, str) else given
    messages, system = list(items(data.get("messages"))), data.get("system")
    return [{"role": "system", "content": system}, *messages] if system else messages


def _deployments(group: str) -> tuple[str, list[str], str | None]:
    """Return the model that a group of the proxy stands for, others that it may be, and its address."""
    from litellm.proxy import proxy_server

    found = proxy_server.llm_router.get_model_list(model_name=group) if proxy_server.llm_router else None
    models: dict[str, str | None] = {}
    for deployment in found or ():
        parameters = deployment["litellm_params"]
        base = field(deployment.get("model_info"), "base_model")
        name = str(base or parameters.get("model") or group)
        provider = parameters.get("custom_llm_provider")
        if provider and "/" not in name:
            name = f"{provider}/{name}"
        models.setdefault(name, parameters.get("api_base"))
    if not models:
        return group, [], None
    (model, address), *_ = models.items()
    return model, [name for name in models if name != model], address


def _answer(response: Any, data: Mapping[str, Any]) -> Any:
    """Return an answer with the model that gave it, where it has the group's name."""
    metadata = data.get("metadata") or data.get("litellm_metadata")
    served = field(metadata, "deployment") or data.get("model")
    if not isinstance(served, str):
        return response
    if isinstance(response, Mapping):
        # A message of Anthropic's is read as such, not as what LiteLLM makes of others.
        told = {name: value for name, value in response.items() if name != "_hidden_params"}
        return {**told, "model": served.partition("/")[2] or served}
    if isinstance(getattr(response, "model", None), str):
        names = ("id", "object", "usage", "choices", "output", "data", "service_tier")
        told = {name: value for name in names if (value := getattr(response, name, None)) is not None}
        hidden = getattr(response, "_hidden_params", None)
        return {**told, "model": served.partition("/")[2] or served, "_hidden_params": hidden or {}}
    return response


def _pieces(item: Any) -> Iterator[Any]:
    """Yield what an item of a stream is made of: an object, or events as they are sent."""
    if not isinstance(item, bytes | str):
        yield item
        return
    text = item.decode(errors="replace") if isinstance(item, bytes) else item
    for line in text.splitlines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data.startswith("{"):
            try:
                yield json.loads(data)
            except ValueError:
                logger.debug("budgetguard: an event of LiteLLM's proxy is no JSON")


def _usage(piece: Any) -> object:
    """Return the usage of a chat's chunk, if it has one that tells something."""
    usage = field(piece, "usage")
    is_chunk = field(piece, "choices") is not None
    return usage if is_chunk and count(field(usage, "prompt_tokens")) else None
