"""Functions that we have decorated: wrapt's wrappers, which can be pickled as other functions can."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import Any

import wrapt


class _Bound(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]  # generic only for type checkers
    """Wrap a method; it is pickled as its object and its name there, as methods are."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        if (owner := self._owner()) is not None:
            return getattr, (owner, self.__name__)
        _check(self, self.__wrapped__)
        return _find, (self.__module__, self.__qualname__)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)

    def __copy__(self) -> _Bound:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        owner = self._owner()
        return self if owner is None else getattr(copy.deepcopy(owner, memo), self.__name__)

    def _owner(self) -> Any:
        """Return the object, or the class, whose method this is; None where it is bound to nothing."""
        if self._self_instance is not None:
            return self._self_instance
        return getattr(self.__wrapped__, "__self__", None)


class Decorated(wrapt.FunctionWrapper):  # type: ignore[type-arg]  # as above
    """Wrap a function; like a function, it is pickled and copied as a reference to its name.

    Raises:
        PicklingError: when pickled, if its name leads to something else where it would be looked up.
    """

    __bound_function_wrapper__ = _Bound

    @property
    def __code__(self) -> Any:
        # cloudpickle takes anything that looks like a function apart, if its module is __main__, and sends
        # the function inside: it would run, and be billed, with its budget gone.
        if str(sys._getframe(1).f_globals.get("__name__")).endswith("cloudpickle"):
            raise pickle.PicklingError(
                f"{self.__qualname__}() cannot be sent to another process by its value, which would leave "
                "its budget behind: define it in a module that the other process can import, not in __main__"
            )
        return self.__wrapped__.__code__

    def __reduce_ex__(self, protocol: Any) -> str:
        _check(self, self.__wrapped__)
        return str(self.__qualname__)

    def __reduce__(self) -> str:
        return self.__reduce_ex__(2)

    def __copy__(self) -> Decorated:
        return self

    def __deepcopy__(self, _memo: object) -> Decorated:
        return self


def _check(wrapper: Any, function: object) -> None:
    name, module = wrapper.__qualname__, wrapper.__module__
    found = _find(module, name)
    # A method is another wrapper, of the same function, each time that it is looked up.
    if found is not wrapper and not (isinstance(found, _Bound) and found.__wrapped__ is function):
        raise pickle.PicklingError(
            f"{name}() cannot be pickled: another process finds functions by their names, and "
            f"{module}.{name} is {'nothing' if found is None else 'something else'}. Decorate a function "
            "that stands at the top of a module or in a class there, under the name that it is defined with"
        )


def _find(module: str, name: str) -> Any:
    """Return what a module has under a name such as `ask` or `Bot.ask`, or None."""
    if module not in sys.modules:
        try:
            __import__(module)
        except ImportError:
            return None
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
