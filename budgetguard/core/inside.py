"""Whether a thread is in the middle of our books, as they say themselves: a flag of each thread.

The garbage collector and signal handlers run anywhere, also inside a store's lock or between two halves of a
change. What they are to finish there is left to the background.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from types import FunctionType, GeneratorType
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
K = TypeVar("K", bound=type)


class _Inside(threading.local):
    """What this thread is in the middle of.

    Attributes:
        books: anything that holds, books, prices or tells of money; a store too.
        store: a store's verb.
    """

    books = False
    store = False


inside: Final = _Inside()


def of_books(function: F) -> F:
    """Mark the thread as inside our books while a function runs."""

    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        before, inside.books = inside.books, True
        try:
            return function(*args, **kwargs)
        finally:
            inside.books = before

    return marked  # type: ignore[return-value]  # of the same signature


def store_verbs(kind: K) -> K:
    """Mark the thread as inside a store while one of a class's public methods runs: a decorator of stores."""
    for name, function in list(vars(kind).items()):
        if isinstance(function, FunctionType) and not name.startswith("_"):
            setattr(kind, name, _of_store(function))
    return kind


def _of_store(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        before = inside.books, inside.store
        inside.books = inside.store = True
        try:
            found = function(*args, **kwargs)
        finally:
            inside.books, inside.store = before
        return _stepwise(found) if isinstance(found, GeneratorType) else found

    return marked


def _stepwise(steps: Iterator[Any]) -> Iterator[Any]:
    """Iterate with the mark on for each step, and off between two: there the caller's code runs."""
    while True:
        before = inside.books, inside.store
        inside.books = inside.store = True
        try:
            step = next(steps)
        except StopIteration:
            return
        finally:
            inside.books, inside.store = before
        yield step
