"""LangChain: the calls of its models, by a callback, for an agent, or for all of the process.

A callback is told before a model is asked and after it has answered, whichever package asks, and may refuse.
Nothing tells it of a call that was cancelled, but the id of its run becomes garbage then: calls are kept by
these ids, weakly, and a call that is dropped is booked by what is known of it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import CodeType, FrameType
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

from budgetguard.errors import BudgetGuardError
from budgetguard.guard import Guard
from budgetguard.integrations.hooks import Target, book, cap_of, costs, listed_provider
from budgetguard.providers.answers import reported
from budgetguard.providers.call_block import BudgetedCall
from budgetguard.providers.frameworks import is_langchain
from budgetguard.providers.json import field

try:
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.messages import convert_to_openai_messages
    from langchain_core.tracers.context import register_configure_hook
except ImportError as error:
    raise ImportError(
        "budgetguard.integrations.langchain needs LangChain: pip install langchain-core "
        "(and langchain for BudgetMiddleware)"
    ) from error

logger = logging.getLogger("budgetguard")

# LangChain's names for providers, where the price list has another one.
_PROVIDERS: Final = {
    "amazon_bedrock": "aws",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "vertexai": "google",
}
# By what names models keep the address that they call.
_ADDRESSES: Final = (
    "openai_api_base",
    "base_url",
    "azure_endpoint",
    "anthropic_api_url",
    "api_base",
    "endpoint_url",
    "endpoint",
)
# Where a model on a machine of one's own is called if nothing says where.
_OWN_ADDRESSES: Final = {"ollama": "http://localhost:11434"}
_OF_CALLBACKS: Final = ("langchain_core.callbacks", "contextlib", __name__)


class _Batch:
    """What the prompts have in common that LangChain sends with one request.

    Attributes:
        told: the usage of all of them was told, with the first.
    """

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told = False


class _Run:
    """One call of a model, between its two callbacks.

    Attributes:
        call: the guarded call.
        place: the function of LangChain's that makes it.
        batch: the batch that it belongs to.
        streams: pieces of its answer have come.
    """

    __slots__ = ("__weakref__", "batch", "call", "place", "streams")

    def __init__(self, call: BudgetedCall, place: tuple[int, CodeType], batch: _Batch) -> None:
        self.call = call
        self.place = place
        self.batch = batch
        self.streams = False


_lock = threading.Lock()
_runs: WeakKeyDictionary[UUID, _Run] = WeakKeyDictionary()


class BudgetCallback(BaseCallbackHandler):
    """A callback that puts the calls of LangChain's models under a budget.

    Give it to a model (`callbacks=[...]`) or to one call (`config={"callbacks": [...]}`), which hands it on
    to everything that runs inside. Before a model is asked, the call's cost is projected and held, or
    `BudgetExceededError` is raised; afterwards the usage of its answer is booked, or its text is counted
    where it tells none. Models whose client is patched pay there, and are not charged twice.

    In async programs it waits for the store in the event loop.

    Args:
        guard: whose budgets; None for the default guard.
        user: who pays; None for the current user.
        tags: labels of the calls.
        provider: whose prices count, by genai-prices' id; by default what LangChain says.
        base_url: the address that the models call, where LangChain does not tell it.

    Raises:
        ConfigurationError: a bad argument.
    """

    raise_error = True
    run_inline = True

    def __init__(
        self,
        guard: Guard | None = None,
        *,
        user: str | None = None,
        tags: str | Sequence[str] = (),
        provider: str | None = None,
        base_url: str | None = None,
    ) -> None:
        self._target = Target(guard, user, tags)
        self._provider = provider
        self._base_url = base_url

    @property
    def ignore_chain(self) -> bool:
        """Nothing is to be told of chains."""
        return True

    @property
    def ignore_agent(self) -> bool:
        """Nothing is to be told of agents."""
        return True

    @property
    def ignore_retriever(self) -> bool:
        """Nothing is to be told of retrievers."""
        return True

    @property
    def ignore_retry(self) -> bool:
        """Nothing is to be told of retries."""
        return True

    @property
    def ignore_custom_event(self) -> bool:
        """Nothing is to be told of events of one's own."""
        return True

    def on_chat_model_start(
        self, serialized: Any, messages: Sequence[Sequence[Any]], *, run_id: UUID, **told: Any
    ) -> None:
        """Hold what a chat will cost at most.

        Raises:
            BudgetGuardError: what refuses the call.
        """
        asked = [message for one in messages for message in one]
        self._begin(run_id, _openai_messages(asked), serialized, told)

    def on_llm_start(self, serialized: Any, prompts: Sequence[str], *, run_id: UUID, **told: Any) -> None:
        """Hold what the completion of a prompt will cost at most.

        Raises:
            BudgetGuardError: what refuses the call.
        """
        self._begin(run_id, "\n".join(prompts), serialized, told)

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **_: Any) -> None:
        """Count a piece of a stream.

        Raises:
            BudgetExceededError: no account has more, and `on_stream_exceeded` is `stop`.
        """
        run = _runs.get(run_id)
        if run is not None:
            run.streams = True
            run.call.feed(token if (message := field(chunk, "message")) is None else message)

    def on_llm_end(self, response: Any, *, run_id: UUID, **_: Any) -> None:
        """Book what the answer cost."""
        run = _taken(run_id)
        if run is None:
            return
        try:
            _book(run, response)
        except Exception:
            logger.exception("budgetguard: an answer of LangChain's could not be read")
        run.call.end()

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Book a call that failed, or was given up, by how it ended."""
        run = _taken(run_id)
        if run is not None:
            run.call.end(error)

    def _begin(self, run_id: UUID, asked: object, serialized: Any, told: Mapping[str, Any]) -> None:
        if run_id in _runs:
            return  # another callback of this class guards it
        parameters = told.get("invocation_params") or {}
        said = told.get("metadata") or {}
        call = self._target.call(
            model=_model_of(parameters, said, serialized),
            input=asked,
            max_output_tokens=cap_of(parameters) or cap_of({"max_tokens": said.get("ls_max_tokens")}),
            request=costs(parameters),
            endpoint="langchain",
            sends_cap=False,
            **self._prices(parameters, said, serialized),
        )
        frame = _making_frame()
        place = id(frame), frame.f_code
        try:
            call.begin(_within(frame))
        except BudgetGuardError:
            # Those of the batch that have begun will not be sent.
            for run in _batch_of(place):
                run.call.void("another call of its batch was refused")
                run.call.end()
            raise
        others = _batch_of(place) if told.get("batch_size", 1) > 1 else []
        run = _Run(call, place, others[0].batch if others else _Batch())
        with _lock:
            _runs[run_id] = run

    def _prices(
        self, parameters: Mapping[str, Any], said: Mapping[str, Any], serialized: Any
    ) -> dict[str, str | None]:
        name = said.get("ls_provider")
        address = self._base_url or _address_of(parameters, serialized) or _OWN_ADDRESSES.get(str(name))
        provider = self._provider
        # Whose servers speak as OpenAI's do, their address tells.
        if provider is None and name != "openai":
            provider = listed_provider(name, _PROVIDERS)
        return {"provider": provider, "base_url": address}


def _book(run: _Run, response: Any) -> None:
    answers = [one for several in response.generations for one in several]
    messages = [one.message for one in answers if hasattr(one, "message")]
    if any(_is_cached(message) for message in messages):
        run.call.void("LangChain's cache answered")
        return
    told = field(response.llm_output, "token_usage")
    if messages and _tells_usage(messages[0]):
        book(run.call, messages[0])  # which has the usage of all its choices
    elif told and (usage := reported({"usage": told}).usage) is not None:
        run.batch.told = True
        run.call.settle(usage)
    elif told == {} and run.batch.told:
        run.call.settle(cost=0)
    elif run.streams:
        run.call.settle()
    else:
        book(run.call, None, messages or [one.text for one in answers])


def _is_cached(message: Any) -> bool:
    """Whether it comes from LangChain's own cache, which marks what it keeps so."""
    return bool(field(field(message, "usage_metadata"), "total_cost") == 0)


def _tells_usage(message: Any) -> bool:
    if not is_langchain(message):
        return False
    return bool(field(message, "usage_metadata") or field(field(message, "response_metadata"), "token_usage"))


def _taken(run_id: UUID) -> _Run | None:
    with _lock:
        return _runs.pop(run_id, None)


def _batch_of(place: tuple[int, CodeType]) -> list[_Run]:
    """Return the calls that a function has begun."""
    with _lock:
        return [run for run in _runs.values() if run.place == place]


def _making_frame() -> FrameType:
    """Return the frame of the function of LangChain's that makes the call: `generate`, `astream`."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_OF_CALLBACKS):
        frame = frame.f_back
    return frame


def _within(frame: FrameType) -> FrameType | CodeType:
    """Return what is on the stack while the model works.

    What makes the call is, but for `stream_events(version="v3")`: its function has returned when whoever
    reads steps through the events.
    """
    code = frame.f_code
    steps: Any = getattr(frame.f_locals.get("self"), "_iter_v2_events", None)
    if code.co_name == "ensure_started" and not code.co_flags & _COROUTINE and steps is not None:
        found: CodeType = steps.__func__.__code__
        return found
    return frame


_COROUTINE: Final = 0x80


def _openai_messages(messages: Sequence[Any]) -> list[Any]:
    try:
        return list(convert_to_openai_messages(messages))
    except (ValueError, TypeError, KeyError):
        # Content that LangChain cannot put into OpenAI's words is counted as text.
        return [{"role": "user", "content": _as_text(field(one, "content"))} for one in messages]


def _as_text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, default=str, ensure_ascii=False)


def _model_of(parameters: Mapping[str, Any], said: Mapping[str, Any], serialized: Any) -> str:
    names = (
        said.get("ls_model_name"),
        *(parameters.get(name) for name in ("model", "model_name", "model_id", "_type")),
        field(serialized, "name"),
    )
    return next((name for name in names if isinstance(name, str) and name.strip()), "unknown")


def _address_of(parameters: Mapping[str, Any], serialized: Any) -> str | None:
    kept = field(serialized, "kwargs")
    for values in (parameters, kept if isinstance(kept, Mapping) else {}):
        for name in _ADDRESSES:
            if isinstance(found := values.get(name), str) and found.strip():
                return found
    return None


# For all of the process, and for an agent

_here: ContextVar[BudgetCallback | None] = ContextVar("budgetguard_langchain", default=None)


class _Hook:
    """What LangChain asks, by the one method of a context variable that it uses, for a callback to add."""

    registered = False
    everywhere: BudgetCallback | None = None

    def get(self) -> BudgetCallback | None:
        return _here.get() or self.everywhere

    def register(self) -> None:
        with _lock:
            if not self.registered:
                # Not where a callback of this class is already.
                register_configure_hook(self, True, BudgetCallback)
                self.registered = True


_hook = _Hook()


def guard_langchain(
    guard: Guard | None = None, *, user: str | None = None, tags: str | Sequence[str] = ()
) -> None:
    """Guard the calls of every LangChain model of this process, in every thread. Twice: the latter counts.

    A model or call that has a `BudgetCallback` of its own goes by that.

    Args:
        guard: whose budgets; None for the default guard.
        user: who pays; None for the current user.
        tags: labels of the calls.

    Raises:
        ConfigurationError: a bad argument.
    """
    callback = BudgetCallback(guard, user=user, tags=tags)
    _hook.register()
    _hook.everywhere = callback


def unguard_langchain() -> None:
    """Undo `guard_langchain`."""
    _hook.everywhere = None


@contextmanager
def _guarding(callback: BudgetCallback) -> Iterator[None]:
    token = _here.set(callback)
    try:
        yield
    finally:
        _here.reset(token)


@cache
def _middleware() -> type[Any]:
    try:
        from langchain.agents.middleware import AgentMiddleware
    except ImportError as error:
        raise ImportError("BudgetMiddleware needs LangChain's agents: pip install langchain") from error

    class BudgetMiddleware(AgentMiddleware):
        """Put the model calls of an agent under a budget: `create_agent(..., middleware=[...])`.

        Each call of a model inside is guarded as `BudgetCallback` does it, also those of middleware that
        calls again or calls another model, wherever it stands in the list.

        Args:
            guard: whose budgets; None for the default guard.
            user: who pays; None for the current user.
            tags: labels of the calls.

        Raises:
            ConfigurationError: a bad argument.
        """

        def __init__(
            self,
            guard: Guard | None = None,
            *,
            user: str | None = None,
            tags: str | Sequence[str] = (),
        ) -> None:
            super().__init__()
            self._callback = BudgetCallback(guard, user=user, tags=tags)
            _hook.register()

        def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
            """Guard what is called inside."""
            with _guarding(self._callback):
                return handler(request)

        async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
            """Guard what is called inside."""
            with _guarding(self._callback):
                return await handler(request)

    BudgetMiddleware.__module__, BudgetMiddleware.__qualname__ = __name__, "BudgetMiddleware"
    return BudgetMiddleware


def __getattr__(name: str) -> Any:
    # Agents take a second to import, and callbacks do without them.
    if name == "BudgetMiddleware":
        return _middleware()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
