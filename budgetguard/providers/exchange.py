"""Stand in the code of a function, and so under every name that anybody keeps it by.

Who has imported a function before us, or keeps it in a closure, calls the function itself: a wrapper in its
module would never hear of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from types import CodeType, FunctionType
from typing import Any, Final, TypeAlias

# (the function as it was, its arguments by place, by name) -> what is returned in its place.
Around: TypeAlias = Callable[[Callable[..., Any], Any, Any], Any]

_HANDED: Final = "_budgetguard"


class Exchanged:
    """A function that calls us instead of running its own code.

    Args:
        function: whose code is exchanged; sync, or a coroutine function.
        around: is called in its place, and awaited if it is a coroutine function.

    Attributes:
        function: the same.
        original: a function that does what it did.
    """

    def __init__(self, function: FunctionType, around: Around) -> None:
        self.function = function
        self._code = function.__code__
        self._kwdefaults = function.__kwdefaults__
        signature = inspect.signature(function)
        copied: Any = FunctionType(
            self._code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        copied.__kwdefaults__ = self._kwdefaults
        copied.__qualname__, copied.__module__ = function.__qualname__, function.__module__
        copied.__dict__.update(function.__dict__)
        self.original: Callable[..., Any] = copied
        self._had_signature = function.__dict__.get("__signature__")
        function.__dict__["__signature__"] = signature

        def call(args: Any, kwargs: Any) -> Any:
            return around(copied, args, kwargs)

        function.__kwdefaults__ = {**(self._kwdefaults or {}), _HANDED: call}
        asynchronous = inspect.iscoroutinefunction(function)
        code = _code(len(self._code.co_freevars), asynchronous=asynchronous)
        function.__code__ = self._ours = code.replace(
            co_name=function.__name__, co_qualname=function.__qualname__
        )

    @property
    def holds(self) -> bool:
        """Whether the function still calls us."""
        return self.function.__code__ is self._ours

    def remove(self) -> None:
        """Give the function its own code again."""
        self.function.__code__ = self._code
        self.function.__kwdefaults__ = self._kwdefaults
        if self._had_signature is None:
            self.function.__dict__.pop("__signature__", None)
        else:
            self.function.__dict__["__signature__"] = self._had_signature


@cache
def _code(cells: int, *, asynchronous: bool) -> CodeType:
    """Return code that dispatches, for a function whose closure has so many cells: it must name as many."""
    names = ", ".join(f"_cell{number}" for number in range(cells))
    kind, wait = ("async def", "await ") if asynchronous else ("def", "")
    source = (
        f"def made({names}):\n"
        f"    {kind} dispatching(*args, {_HANDED}, **kwargs):\n"
        f"        return {wait}{_HANDED}(args, kwargs)\n"
        f"        ({names}{',' if names else ''})\n"
        "    return dispatching\n"
    )
    names_made: dict[str, Any] = {}
    exec(compile(source, __file__, "exec"), names_made)  # noqa: S102 - the text above, and a number
    made: Any = names_made["made"](*([None] * cells))
    code: CodeType = made.__code__
    return code
