"""What stands at an SDK's `request` method: on top of a class that has one, and on the floor, in its code.

Others put a `request` of their own on a client's class, on the class below it, or on one client, before us or
after us, so one place is not enough.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, TypeAlias

import wrapt

from budgetguard.providers.stainless import is_marked, sending

Request: TypeAlias = Callable[..., Any]

REQUEST: Final = "request"


_FunctionWrapper: Any = wrapt.FunctionWrapper  # whose older versions take no types


class OnTop(_FunctionWrapper):  # type: ignore[misc]
    """Wrap `request` of a class, and stand before a `request` that one client has of its own.

    A client's own attribute would hide the class's; it does not hide one that can be set.
    """

    def __get__(self, client: Any, kind: Any = None) -> Any:
        own = None if client is None else client.__dict__.get(REQUEST)
        if own is None:
            return super().__get__(client, kind)
        around: Any = self._self_wrapper
        ours: Any = lambda theirs, _, args, kwargs: around(theirs, client, args, kwargs)  # noqa: E731
        return wrapt.FunctionWrapper(own, ours)

    def __set__(self, client: Any, method: Any) -> None:
        client.__dict__[REQUEST] = method

    def __delete__(self, client: Any) -> None:
        try:
            del client.__dict__[REQUEST]
        except KeyError:
            raise AttributeError(REQUEST) from None


class Floor:
    """A function of an SDK that dispatches to us, under every name that anybody keeps it by.

    Its code is exchanged, since who has instrumented before us calls the function itself.

    Args:
        function: the SDK's.
        around: guards one request of a sync client.
        aaround: guards one request of an async client.
    """

    def __init__(self, function: FunctionType, around: Request, aaround: Request) -> None:
        self._function = function
        self._code = function.__code__
        self._kwdefaults = function.__kwdefaults__
        self._around, self._aaround = around, aaround
        signature = inspect.signature(function)
        asynchronous = inspect.iscoroutinefunction(function)
        copied: Any = FunctionType(
            self._code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        copied.__kwdefaults__ = self._kwdefaults
        copied.__qualname__, copied.__module__ = function.__qualname__, function.__module__
        self._original = copied
        code = (_dispatching if not asynchronous else _adispatching).__code__
        function.__dict__["__signature__"] = signature
        function.__kwdefaults__ = {
            **(self._kwdefaults or {}),
            "_budgetguard": self._send if not asynchronous else self._asend,
        }
        function.__code__ = code.replace(co_name=function.__name__, co_qualname=function.__qualname__)

    def remove(self) -> None:
        """Give the function its own code again."""
        self._function.__code__ = self._code
        self._function.__kwdefaults__ = self._kwdefaults
        self._function.__dict__.pop("__signature__", None)

    def _send(self, client: Any, args: Any, kwargs: Any) -> Any:
        options = options_of(args, kwargs)
        if is_marked(options):
            with sending(options):
                return self._original(client, *args, **kwargs)
        return self._around(functools.partial(self._original, client), client, args, kwargs)

    async def _asend(self, client: Any, args: Any, kwargs: Any) -> Any:
        options = options_of(args, kwargs)
        if is_marked(options):
            with sending(options):
                return await self._original(client, *args, **kwargs)
        return await self._aaround(functools.partial(self._original, client), client, args, kwargs)


def _dispatching(self: Any, *args: Any, _budgetguard: Any, **kwargs: Any) -> Any:
    return _budgetguard(self, args, kwargs)


async def _adispatching(self: Any, *args: Any, _budgetguard: Any, **kwargs: Any) -> Any:
    return await _budgetguard(self, args, kwargs)


def options_of(args: Any, kwargs: Any) -> Any:
    """Return the options of a request from the arguments of `request`, the client's included."""
    return kwargs["options"] if "options" in kwargs else args[1] if len(args) > 1 else None
