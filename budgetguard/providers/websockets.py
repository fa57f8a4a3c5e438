"""Stand before the openai client's websockets, which pass no `request`: guard `realtime`, refuse the rest.

Every resource that can open one has a `connect` method, and every resource passes the `__init__` of one
of two base classes: so a websocket that a later openai brings is refused as well. Websockets that others
open themselves, with the libraries that there are for it, are refused at `adapters.sockets`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

import wrapt

from budgetguard.engine.engine import Engine
from budgetguard.providers import imports
from budgetguard.providers.openai.realtime.adapter import PATH, guarded_manager
from budgetguard.providers.paths import check_allowed
from budgetguard.providers.sockets import Sockets, of_the_client

_MODULE: Final = "openai._resource"
_UNREAD: Final = "does not pass the method at which the client is guarded, and is not read yet"
_RESOURCES: Final = ("SyncAPIResource", "AsyncAPIResource")


class Websockets:
    """Stand before every `connect` of the openai package.

    Args:
        keeper_of: client -> the bookkeeper that guards it, or None.
        patched: -> the bookkeeper that guards all clients, or None.
    """

    def __init__(
        self, keeper_of: Callable[[Any], Engine | None], patched: Callable[[], Engine | None]
    ) -> None:
        self._keeper_of = keeper_of
        self._sockets = Sockets(patched)
        self._lock = threading.RLock()
        self._active = False
        self._seen: set[type] = set()
        self._wrappers: list[tuple[Any, str, Any]] = []

    def close(self) -> None:
        """Refuse from now on, before and after `import openai`. Idempotent."""
        with self._lock:
            self._active = True
        imports.watch(_MODULE, _RESOURCES, self._imported)
        self._sockets.close()

    def open(self) -> None:
        """Take our wrappers off; those that others have wrapped stay, and do nothing."""
        with self._lock:
            self._active = False
            for kind, name, wrapper in self._wrappers:
                if kind.__dict__.get(name) is wrapper:
                    setattr(kind, name, wrapper.__wrapped__)
            self._wrappers, self._seen = [], set()
        self._sockets.open()

    def _imported(self, module: ModuleType) -> None:
        for name in _RESOURCES:
            base = getattr(module, name, None)
            if isinstance(base, type):
                self._wrap(base, "__init__", self._made)
                for kind in _subclasses(base):
                    self._stand_before(kind)

    def _stand_before(self, kind: type) -> None:
        if kind not in self._seen:
            self._wrap(kind, "connect", self._connect)

    def _wrap(self, kind: type, name: str, around: Callable[..., Any]) -> None:
        with self._lock:
            if not self._active or kind in self._seen:
                return
            self._seen.add(kind)
            function = kind.__dict__.get(name)
            if callable(function):
                wrapper = wrapt.FunctionWrapper(function, around, enabled=lambda: self._active)
                setattr(kind, name, wrapper)
                self._wrappers.append((kind, name, wrapper))

    def _made(self, wrapped: Callable[..., Any], resource: Any, args: Any, kwargs: Any) -> None:
        self._stand_before(type(resource))
        wrapped(*args, **kwargs)

    def _connect(self, wrapped: Callable[..., Any], resource: Any, args: Any, kwargs: Any) -> Any:
        engine = self._keeper_of(resource._client)
        if engine is None:
            return wrapped(*args, **kwargs)
        path = _path(type(resource))
        if path != PATH:
            check_allowed("WEBSOCKET", path, engine.settings.allow_endpoints, _UNREAD)
        manager = of_the_client(wrapped(*args, **kwargs))
        return guarded_manager(engine, resource._client, manager, kwargs) if path == PATH else manager


def _subclasses(kind: type) -> Iterator[type]:
    children: list[type] = kind.__subclasses__()
    for one in children:
        yield one
        yield from _subclasses(one)


def _path(kind: type) -> str:
    """Name what a resource connects to by where it lives: `openai.resources.realtime.realtime`."""
    parts = kind.__module__.partition(".resources.")[2].split(".") or [kind.__name__.lower()]
    parts = [part for part in parts if part != "beta"]
    if len(parts) > 1 and parts[-1] == parts[-2]:
        parts.pop()
    return "/" + "/".join(parts)
