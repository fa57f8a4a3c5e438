"""LlamaIndex: the calls of an LLM that goes out through a client which nobody guards.

LlamaIndex swallows what its event handlers and callbacks raise, so none of them can refuse a call. An LLM is
guarded in its class: its methods call each other on the object itself, which a wrapper would not see.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, nullcontext
from functools import wraps
from typing import Any, Final, TypeVar

from budgetguard.errors import ConfigurationError
from budgetguard.guard import Guard
from budgetguard.integrations.hooks import Target, book, cap_of, costs, listed_provider, whole_stream
from budgetguard.providers.call_block import BudgetedCall
from budgetguard.providers.json import field, items

try:
    from llama_index.core.llms import LLM
except ImportError as error:
    raise ImportError(
        "budgetguard.integrations.llama_index needs LlamaIndex: pip install llama-index-core"
    ) from error

L = TypeVar("L")

# Names of LlamaIndex's packages, where the price list has another one.
_PROVIDERS: Final = {
    "bedrock_converse": "aws",
    "google_genai": "google",
    "mistralai": "mistral",
    "vertex": "google",
}
_ADDRESSES: Final = ("api_base", "base_url", "azure_endpoint")
_METHODS: Final = ("chat", "complete", "achat", "acomplete")
_STREAMS: Final = ("stream_chat", "stream_complete")
_ASYNC_STREAMS: Final = ("astream_chat", "astream_complete")
# The attribute of a guarded LLM's class that says whose budgets.
_TARGET: Final = "_budgetguard_target"


def budgeted_llm(
    llm: L, guard: Guard | None = None, *, user: str | None = None, tags: str | Sequence[str] = ()
) -> L:
    """Put the calls of this LLM under a budget, and return it: `Settings.llm = budgeted_llm(llm)`.

    All its ways of calling are guarded: chats and completions, streams, async ones, with tools. Where it goes
    out through a client that is patched, the client's calls pay, and nothing is charged twice. Twice: the
    latter counts.

    Args:
        llm: an `LLM` of LlamaIndex.
        guard: whose budgets; None for the default guard.
        user: who pays; None for the current user.
        tags: labels of the calls.

    Raises:
        ConfigurationError: a bad argument.
    """
    if not isinstance(llm, LLM):
        raise ConfigurationError(f"budgeted_llm() takes an LLM of LlamaIndex, not {type(llm).__name__}")
    kind: Any = type(llm)
    if _TARGET in vars(kind):
        kind = kind.__bases__[0]
    object.__setattr__(llm, "__class__", _guarded(kind, Target(guard, user, tags)))
    return llm


def _guarded(kind: Any, target: Target) -> type:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    made: type = type(kind.__name__, (kind,), names)
    setattr(made, _TARGET, target)
    # Set afterwards: the methods of a class that is being made get spans of their own.
    for several, around in ((_METHODS, _calling), (_STREAMS, _streaming), (_ASYNC_STREAMS, _astreaming)):
        for name in several:
            setattr(made, name, around(getattr(kind, name)))
    return made


def _calling(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(llm: Any, *args: Any, **kwargs: Any) -> Any:
        with _call_of(llm, args, kwargs) as call:
            answer = method(llm, *args, **_capped(kwargs, call))
            _book(call, answer)
            return answer

    @wraps(method)
    async def acall(llm: Any, *args: Any, **kwargs: Any) -> Any:
        async with _call_of(llm, args, kwargs) as call:
            answer = await method(llm, *args, **_capped(kwargs, call))
            _book(call, answer)
            return answer

    return acall if method.__name__.startswith("a") else call


def _streaming(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def stream(llm: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with _call_of(llm, args, kwargs) as call:
            pieces = method(llm, *args, **_capped(kwargs, call))
            with closing(pieces) if hasattr(pieces, "close") else nullcontext():
                for piece in pieces:
                    call.feed(piece)
                    yield piece
            whole_stream(call)

    return stream


def _astreaming(method: Callable[..., Any]) -> Callable[..., Any]:
    async def pieces_of(llm: Any, args: Any, kwargs: Any) -> AsyncIterator[Any]:
        async with _call_of(llm, args, kwargs) as call:
            pieces = await method(llm, *args, **_capped(kwargs, call))
            async with aclosing(pieces) if hasattr(pieces, "aclose") else nullcontext():
                async for piece in pieces:
                    call.feed(piece)
                    yield piece
            whole_stream(call)

    @wraps(method)
    async def stream(llm: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return pieces_of(llm, args, kwargs)

    return stream


def _call_of(llm: Any, args: Sequence[Any], parameters: Mapping[str, Any]) -> BudgetedCall:
    asked = args[0] if args else parameters.get("messages", parameters.get("prompt", ""))
    own = {name: getattr(llm, name, None) for name in ("max_tokens", "reasoning_effort")}
    more = getattr(llm, "additional_kwargs", None)
    said = {**own, **(more if isinstance(more, Mapping) else {}), **parameters}
    target: Target = getattr(type(llm), _TARGET)
    return target.call(
        model=_model_of(llm, said),
        input=asked if isinstance(asked, str) else [_message(one) for one in asked],
        max_output_tokens=cap_of(said),
        request=costs(said),
        endpoint="llama-index",
        **_prices(llm),
    )


def _capped(parameters: Mapping[str, Any], call: BudgetedCall) -> dict[str, Any]:
    """Return the arguments with the cap that strict mode has found, if it has."""
    return {**parameters, **({"max_tokens": call.max_output_tokens} if call.caps else {})}


def _model_of(llm: Any, said: Mapping[str, Any]) -> str:
    for name in (said.get("model"), llm.metadata.model_name, getattr(llm, "model", None)):
        if isinstance(name, str) and name.strip() and name != "unknown":
            return name
    return str(llm.class_name())


def _prices(llm: Any) -> dict[str, str | None]:
    addresses = (getattr(llm, name, None) for name in _ADDRESSES)
    address = next((one for one in addresses if isinstance(one, str) and one.strip()), None)
    # An LLM is in a package that is named for its provider: `llama_index.llms.anthropic`.
    package = next((one.__module__ for one in type(llm).__mro__ if ".llms." in one.__module__), "")
    name = package.partition(".llms.")[2].partition(".")[0]
    return {"provider": None if name == "openai" else listed_provider(name, _PROVIDERS), "base_url": address}


def _message(message: Any) -> dict[str, Any]:
    """Return a message as a chat has it, to be counted."""
    made: dict[str, Any] = {"role": str(getattr(message.role, "value", message.role))}
    blocks = [_block(one) for one in items(field(message, "blocks"))]
    text_only = all(block["type"] == "text" for block in blocks)
    made["content"] = "\n".join(block["text"] for block in blocks) if text_only else blocks
    if calls := field(message.additional_kwargs, "tool_calls"):
        made["tool_calls"] = calls
    return made


def _block(block: Any) -> dict[str, Any]:
    kind = field(block, "block_type")
    if kind == "text":
        return {"type": "text", "text": block.text}
    if kind == "image":
        url = block.url or f"data:{block.image_mimetype or 'image/png'};base64,{_base64(block.image)}"
        return {"type": "image_url", "image_url": {"url": str(url), "detail": block.detail}}
    shown = block.model_dump(exclude={"block_type"}) if hasattr(block, "model_dump") else str(block)
    return {"type": "text", "text": json.dumps(shown, default=str, ensure_ascii=False)}


def _base64(data: object) -> str:
    if not isinstance(data, bytes):
        return ""
    # LlamaIndex keeps what it was given as base64 already.
    return data.decode() if data.isascii() else b64encode(data).decode()


def _book(call: BudgetedCall, answer: Any) -> None:
    message = field(answer, "message")
    text = field(answer, "text") if message is None else field(message, "content")
    tools = field(field(message, "additional_kwargs"), "tool_calls")
    texts = [text or "", *(str(one) for one in items(tools))]
    book(call, answer, texts)
