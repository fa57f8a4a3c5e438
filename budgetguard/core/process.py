"""What a running process brings into the books: its clock, and code that runs in the middle of ours.

The garbage collector and signal handlers run anywhere, also inside a store's lock or between two halves of a
change. A flag of each thread, which the books set themselves, says whether it is inside our books: what is
to be finished there is left to the background.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from time import time_ns
from types import FunctionType, GeneratorType
from typing import Any, Final, TypeVar

from budgetguard.core.windows import Milliseconds

F = TypeVar("F", bound=Callable[..., Any])
K = TypeVar("K", bound=type)


def system_clock() -> Milliseconds:
    """Return this machine's time."""
    return time_ns() // 1_000_000


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


def keep_newest(entries: dict[Any, Any], most: int) -> None:
    """Take out the oldest entries until there are `most`.

    The lock around the dictionary is re-entrant for signal handlers' sake, so one may change it between any
    two of these steps.
    """
    while len(entries) > most:
        try:
            del entries[next(iter(entries))]
        except (KeyError, RuntimeError, StopIteration):  # it was changed: look again
            continue
