"""The interpreter's own events, which nobody can turn off: one audit hook for all that listen to them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

Listener: TypeAlias = Callable[[str, tuple[Any, ...]], None]

# Re-entrant, for a signal handler may begin to listen while we are at it.
_lock = threading.RLock()
_listeners: dict[str, tuple[Listener, ...]] = {}
_hooked = False


def listen(events: Iterable[str], listener: Listener) -> None:
    """Call `listener` with each of these events and its arguments, for as long as the process lives.

    What it raises stops what the event is about, and leaves from there.
    """
    global _hooked
    with _lock:
        for event in events:
            _listeners[event] = (*_listeners.get(event, ()), listener)
        hook, _hooked = not _hooked, True
    if hook:
        sys.addaudithook(_hear)


# Bound here: while the interpreter ends, the names of a module go before the last events come.
def _hear(
    event: str, args: tuple[Any, ...], _listeners: dict[str, tuple[Listener, ...]] = _listeners
) -> None:
    if event in _listeners:
        for listener in _listeners[event]:
            listener(event, args)
