"""Act when a module is imported, by whatever way, and when there is a fresh one.

A hook of imports is no promise: whoever replaces `__import__`, or finds modules before everybody else, can
import past it, and a module that is removed and imported again comes without it. So the hook only tells at
once; that it told is verified at the interpreter's own events, which nobody can turn off.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import wrapt

from budgetguard.core.audit import listen

Act = Callable[[ModuleType], None]

# An import statement; the code of a module that is loaded or reloaded; and what a client does before it
# sends anything, for a module that was the last to be imported.
_MOMENTS: Final = frozenset({"import", "exec", "socket.getaddrinfo", "socket.connect"})

# Re-entrant, for a signal handler may import while we are at it.
_lock = threading.RLock()
_watches: dict[tuple[str, str], _Watch] = {}
_hooked = False


def watch(module: str, names: tuple[str, ...], act: Act, *, key: str = "") -> None:
    """Call `act` with a module once it is there, and again whenever one of `names` in it is another object.

    Watching the same module again under the same key calls `act` at once, if the module is there.

    Args:
        module: its full name.
        names: what of it `act` is about.
        act: what it raises leaves from the import of that package.
        key: who watches, where several do.
    """
    global _hooked
    with _lock:
        found = _Watch(module, names, act)
        known = _watches.setdefault((key, module), found) is not found
        hook, _hooked = not _hooked, True
    if known:
        found = _watches[key, module]
        found.seen = None
        found.look()
        return
    if hook:
        listen(_MOMENTS, _verify)
    wrapt.register_post_import_hook(found.imported, module)


class _Watch:
    """One module that is watched, and the objects of it that were acted on."""

    def __init__(self, module: str, names: tuple[str, ...], act: Act) -> None:
        self.module = module
        self.package = module.partition(".")[0]
        self.seen: tuple[Any, ...] | None = None
        self._names = names
        self._act = act
        self._busy = threading.Lock()

    def look(self) -> None:
        """Act if the module is there, whole, and not what it was."""
        module = sys.modules.get(self.module)
        if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
            return
        now = self._those_of(module)
        if self.seen is None or any(one is not other for one, other in zip(now, self.seen, strict=True)):
            self.imported(module)

    def expect(self) -> None:
        """Register the hook again if it was used up and the module is about to be imported anew."""
        if self.seen is not None and self.module not in sys.modules:
            wrapt.register_post_import_hook(self.imported, self.module)

    def imported(self, module: ModuleType) -> None:
        """Act, unless another thread, or the action itself, is at it."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            self._act(module)
            self.seen = self._those_of(module)  # the action may have replaced them
        finally:
            self._busy.release()

    def _those_of(self, module: ModuleType) -> tuple[Any, ...]:
        return tuple(module.__dict__.get(name) for name in self._names)


def _verify(event: str, args: tuple[Any, ...]) -> None:
    package = str(args[0]).partition(".")[0] if event == "import" else None
    for one in tuple(_watches.values()):
        if package is None or one.package == package:
            try:
                one.look()
                if package is not None and args[0] == one.module:
                    one.expect()
            except Exception:
                # A bad SDK is told of where it is imported, not where something else is.
                if package is None:
                    continue
                raise
