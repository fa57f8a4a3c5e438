"""Hand what is current to plain threads and thread pools, which start with an empty context.

Installed when something first becomes current, never by importing. Only our own variables travel;
other libraries' context stays as Python leaves it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_lock = threading.RLock()
_installed = False


def carry_into_threads(
    surroundings: Callable[[], Any], within: Callable[[Any, Callable[[], Any]], Any]
) -> None:
    """Make `Thread.start` and `ThreadPoolExecutor.submit` carry what is current; once is enough.

    Args:
        surroundings: returns what is current, or None.
        within: calls something with that made current.
    """
    global _installed
    if _installed:
        return
    with _lock:
        if _installed:
            return
        _installed = True
    from concurrent.futures import ThreadPoolExecutor

    def start(wrapped: Callable[[], None], thread: threading.Thread, args: Any, kwargs: Any) -> None:
        carried = surroundings()
        if carried is not None:
            run = thread.run

            def run_within() -> None:
                del thread.run  # back to the class's own
                within(carried, run)

            thread.run = run_within  # type: ignore[method-assign]  # until it runs
        wrapped(*args, **kwargs)

    def submit(wrapped: Callable[..., Any], _pool: ThreadPoolExecutor, args: Any, kwargs: Any) -> Any:
        # Also when nothing is current: the pool's thread may have been started by somebody for whom
        # something was.
        if not args:
            return wrapped(*args, **kwargs)
        carried = surroundings()
        function, rest = args[0], args[1:]

        def call_within(*a: Any, **k: Any) -> Any:
            return within(carried, lambda: function(*a, **k))

        return wrapped(call_within, *rest, **kwargs)

    wrapt.wrap_function_wrapper(threading.Thread, "start", start)
    wrapt.wrap_function_wrapper(ThreadPoolExecutor, "submit", submit)
