"""Answers that are still running when a guarded function returns them, whoever's SDK made them.

What is returned stays what it was: a proxy has all of its attributes and is an instance of its class, and
what iterates over it iterates through us. Only its own methods that read on by themselves go past us; what
they find is known to whoever is asked for it at the end.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sized
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import wrapt

from budgetguard.engine.context import enter_frame, leave_frame
from budgetguard.engine.flow import Flow, Work, adrive, drive
from budgetguard.engine.outcomes import NotCharged
from budgetguard.engine.provider_call import Do
from budgetguard.providers.iterators import Reader, Stepped

if TYPE_CHECKING:
    from budgetguard.engine.call import GuardedCall

# What yields items -> what reads the cost from them.
ReaderOf: TypeAlias = Callable[[object], Reader]

# What boto3 hides a stream under, beside the headers of its answer.
_STREAM: Final = "stream"
# Since 2.0 `ObjectProxy` can be iterated over whether or not what it stands for can.
_Base: Final = getattr(wrapt, "BaseObjectProxy", wrapt.ObjectProxy)


def attach_live(answer: Any, call: GuardedCall, reader: ReaderOf) -> Any | None:
    """Guard an answer that is iterated over, or entered, when it has been returned.

    Args:
        answer: what the function returned.
        call: settled once: when it is read to its end, closed, left, or dropped.
        reader: makes what reads the cost from its items.

    Returns:
        The answer, guarded; None if it is complete.
    """
    if isinstance(answer, MutableMapping):
        inner = answer.get(_STREAM)
        if inner is None or not _is_stream(inner):
            return None
        answer[_STREAM] = guard_stream(inner, call, reader)
        return answer
    kind = type(answer)
    if _is_stream(answer):
        return guard_stream(answer, call, reader)
    if _has(kind, "stream_events"):
        return _EventedRun(answer, _steps(answer, call, reader))
    if _has(kind, "__enter__", "__exit__") or _has(kind, "__aenter__", "__aexit__"):
        return _manager_of(_found(kind, _ENTERED))(answer, call, reader)
    return None


def _is_stream(answer: object) -> bool:
    kind = type(answer)
    if _has(kind, "__next__") or _has(kind, "__anext__"):
        return True
    # Collections can be iterated over, too, and models of data are iterated over by their fields.
    if isinstance(answer, Sized) or _has(kind, "model_fields") or _has(kind, "__pydantic_fields__"):
        return False
    return _has(kind, "__iter__") or _has(kind, "__aiter__")


def _has(kind: type, *names: str) -> bool:
    return all(getattr(kind, name, None) is not None for name in names)


def _found(kind: type, methods: dict[str, Any]) -> frozenset[str]:
    return frozenset(name for name in methods if _has(kind, name))


def _steps(answer: Any, call: GuardedCall, reader: ReaderOf) -> Stepped:
    return Stepped(call, lambda: answer, reader(answer), begun=True)


def guard_stream(answer: Any, call: GuardedCall, reader: ReaderOf) -> Any:
    """Return an answer that is iterated over, guarded; see `attach_live`."""
    return _proxy_of(_found(type(answer), _METHODS))(answer, _steps(answer, call, reader))


class _Proxy(_Base):  # type: ignore[misc,valid-type]  # its base is chosen by what wrapt has
    """An iterator for its caller that is stepped through as a guarded call."""

    def __init__(self, wrapped: Any, steps: Stepped) -> None:
        super().__init__(wrapped)
        self._self_steps = steps


class _EventedRun(_Proxy):
    """A run of an agent whose events are streamed (OpenAI's Agents SDK)."""

    def stream_events(self, *args: Any, **kwargs: Any) -> Any:
        """Stream them as a part of the guarded call."""
        return _aeach(self, self.__wrapped__.stream_events(*args, **kwargs))


def _iter(self: Any) -> Any:
    if _has(type(self.__wrapped__), "__next__"):
        return self
    return _each(self, iter(self.__wrapped__))


def _each(proxy: Any, iterator: Any) -> Any:
    # Holds the proxy, so that it is not dropped while it is read.
    while True:
        try:
            item = proxy._self_steps.step(lambda: next(iterator))
        except StopIteration:
            return
        yield item


def _next(self: Any) -> Any:
    return self._self_steps.step(partial(next, self.__wrapped__))


def _aiter(self: Any) -> Any:
    # By what it returns: aiobotocore's streams have a `__anext__` that no `anext` can call.
    iterator = aiter(self.__wrapped__)
    return self if iterator is self.__wrapped__ else _aeach(self, iterator)


async def _aeach(proxy: Any, iterator: Any) -> Any:
    while True:
        try:
            item = await proxy._self_steps.astep(iterator.__anext__)
        except StopAsyncIteration:
            return
        yield item


async def _anext(self: Any) -> Any:
    return await self._self_steps.astep(self.__wrapped__.__anext__)


def _enter(self: Any) -> Any:
    entered = drive(self._self_steps.inside(self.__wrapped__.__enter__))
    return self if entered is self.__wrapped__ else entered


def _exit(self: Any, *error: Any) -> Any:
    return drive(self._self_steps.giving_up(lambda: self.__wrapped__.__exit__(*error)))


async def _aenter(self: Any) -> Any:
    entered = await adrive(self._self_steps.inside(self.__wrapped__.__aenter__))
    return self if entered is self.__wrapped__ else entered


async def _aexit(self: Any, *error: Any) -> Any:
    return await adrive(self._self_steps.giving_up(lambda: self.__wrapped__.__aexit__(*error)))


def _close(self: Any) -> Any:
    return drive(self._self_steps.giving_up(self.__wrapped__.close))


def _aclose(self: Any) -> Any:
    return adrive(self._self_steps.giving_up(self.__wrapped__.aclose))


_METHODS: Final = {
    "__iter__": _iter,
    "__next__": _next,
    "__aiter__": _aiter,
    "__anext__": _anext,
    "__enter__": _enter,
    "__exit__": _exit,
    "__aenter__": _aenter,
    "__aexit__": _aexit,
    "close": _close,
    "aclose": _aclose,
}


@cache
def _proxy_of(names: frozenset[str]) -> type[_Proxy]:
    # Only what it really has: by `hasattr(answer, "__aiter__")` programs tell the one from the other.
    return type("GuardedStream", (_Proxy,), {name: _METHODS[name] for name in names})


class _Manager(_Base):  # type: ignore[misc,valid-type]  # its base is chosen by what wrapt has
    """A context manager that makes the call when it is entered (Anthropic's `messages.stream`)."""

    def __init__(self, wrapped: Any, call: GuardedCall, reader: ReaderOf) -> None:
        super().__init__(wrapped)
        self._self_call = call
        self._self_reader = reader
        self._self_steps: Stepped | None = None
        # Whoever makes it asks for nothing yet.
        self._self_off = call.finish_when_dropped(self, lambda: NotCharged("never entered"))

    def _self_begin(self, entered: Any) -> Any:
        """Take over what was entered; return what the caller gets."""
        from budgetguard.providers.streams import attach_stream

        call = self._self_call
        if not self._self_off():
            return entered
        if (followed := attach_stream(entered, call)) is not None:
            return followed
        if entered is not self.__wrapped__ and _is_stream(entered):
            stream = guard_stream(entered, call, self._self_reader)
            self._self_steps = stream._self_steps
            return stream
        self._self_steps = _steps(entered, call, self._self_reader)
        return self if entered is self.__wrapped__ else entered


def _entering(self: Any, enter: Callable[[], Any]) -> Flow:
    call = self._self_call
    frame = enter_frame(call)
    try:
        entered = yield Do(enter)
    except BaseException as error:
        leave_frame(frame)
        if self._self_off():
            yield Work(partial(call.finish, call.request.outcome_of_error(error)), call.blocking)
        raise
    leave_frame(frame)
    return self._self_begin(entered)


def _begin(self: Any) -> Any:
    return drive(_entering(self, self.__wrapped__.__enter__))


async def _abegin(self: Any) -> Any:
    return await adrive(_entering(self, self.__wrapped__.__aenter__))


def _leave(self: Any, *error: Any) -> Any:
    leave = partial(self.__wrapped__.__exit__, *error)
    return leave() if self._self_steps is None else drive(self._self_steps.giving_up(leave))


async def _aleave(self: Any, *error: Any) -> Any:
    leave = partial(self.__wrapped__.__aexit__, *error)
    return await (leave() if self._self_steps is None else adrive(self._self_steps.giving_up(leave)))


_ENTERED: Final = {"__enter__": _begin, "__exit__": _leave, "__aenter__": _abegin, "__aexit__": _aleave}


@cache
def _manager_of(names: frozenset[str]) -> type[_Manager]:
    return type("GuardedManager", (_Manager,), {name: _ENTERED[name] for name in names})
