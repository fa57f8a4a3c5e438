"""Websockets, which pass no `request`: the openai client's `realtime` is guarded, the rest refused.

Every resource of the client that can open one has a `connect` method, and every resource passes the
`__init__` of one of two base classes: so a websocket that a later openai brings is refused as well.

Websockets to endpoints that cost are refused where they are opened past the client, with a library for
websockets: by openai-agents' realtime and responses transports, and others. Each library is met where it
takes the address, and once more where it is about to say hello, which nobody goes past who has imported its
functions before.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

import wrapt

from budgetguard.engine.context import passing
from budgetguard.engine.engine import Engine
from budgetguard.providers import imports
from budgetguard.providers.openai.endpoints import TABLE
from budgetguard.providers.openai.realtime.adapter import PATH, guarded_manager, with_methods
from budgetguard.providers.sdk import EngineOf

_MODULE: Final = "openai._resource"
_UNREAD: Final = "does not pass the method at which the client is guarded, and is not read yet"
_RESOURCES: Final = ("SyncAPIResource", "AsyncAPIResource")

# Module, class or None, function: its first argument, beside the object, is the address.
_WAYS: Final = (
    ("websockets.asyncio.client", "connect", "__init__"),
    ("websockets.sync.client", None, "connect"),
    ("websockets.client", "ClientProtocol", "__init__"),
    ("websockets.legacy.client", "Connect", "__init__"),
    ("websockets.legacy.client", "WebSocketClientProtocol", "handshake"),
    ("aiohttp.client", "ClientSession", "_ws_connect"),
    ("websocket._core", "WebSocket", "connect"),
)
_ADDRESSES: Final = ("uri", "wsuri", "url")
# Of a host that is known for nothing else, every websocket; of others, those of a path that is.
_HOSTS: Final = re.compile(r"(.+\.)?openai\.(com|azure\.com)")
_PATHS: Final = re.compile(r"(.*/)?(realtime(/translations|/transcription_sessions)?|responses)/?")
_WHY: Final = (
    "at {} is a websocket that does not pass the openai client, and what is said there cannot be held or "
    "booked: use client.realtime.connect(), or requests over HTTP (in openai-agents: "
    'set_default_openai_responses_transport("http"))'
)

_is_the_clients: ContextVar[bool] = ContextVar("budgetguard_websocket_of_the_client", default=False)


class Websockets:
    """The guard before every `connect` of the openai package, and before libraries for websockets.

    Args:
        engine_of: client -> the engine that guards it, or None.
        patched: -> the engine that guards all clients, or None.
    """

    def __init__(self, engine_of: EngineOf, patched: Callable[[], Engine | None]) -> None:
        self._engine_of = engine_of
        self._patched = patched
        self._lock = threading.RLock()  # a signal handler may import while we hold it
        self._active = False
        self._wrappers: list[tuple[Any, str, Any]] = []

    def close(self) -> None:
        """Guard or refuse from now on, before and after these modules are imported. Idempotent."""
        with self._lock:
            self._active = True
        imports.watch(_MODULE, _RESOURCES, self._resources_imported)
        for module in dict.fromkeys(way[0] for way in _WAYS):
            names = tuple(kind or name for at, kind, name in _WAYS if at == module)
            imports.watch(module, names, self._library_imported)

    def open(self) -> None:
        """Take our wrappers off; those that others have wrapped stay, and do nothing."""
        with self._lock:
            self._active = False
            for holder, name, wrapper in self._wrappers:
                if vars(holder).get(name) is wrapper:
                    setattr(holder, name, wrapper.__wrapped__)
            self._wrappers = []

    def _wrap(self, holder: Any, name: str, around: Callable[..., Any]) -> None:
        with self._lock:
            function = vars(holder).get(name)
            ours = any(function is wrapper for _, _, wrapper in self._wrappers)
            if self._active and callable(function) and not ours:
                wrapper = wrapt.FunctionWrapper(function, around, enabled=lambda: self._active)
                setattr(holder, name, wrapper)
                self._wrappers.append((holder, name, wrapper))

    def _resources_imported(self, module: ModuleType) -> None:
        for name in _RESOURCES:
            base = getattr(module, name, None)
            if isinstance(base, type):
                self._wrap(base, "__init__", self._made)
                for kind in _subclasses(base):
                    self._wrap(kind, "connect", self._connect)

    def _made(self, wrapped: Callable[..., Any], resource: Any, args: Any, kwargs: Any) -> None:
        self._wrap(type(resource), "connect", self._connect)
        wrapped(*args, **kwargs)

    def _connect(self, wrapped: Callable[..., Any], resource: Any, args: Any, kwargs: Any) -> Any:
        engine = self._engine_of(resource._client)
        if engine is None:
            return wrapped(*args, **kwargs)
        path = _path(type(resource))
        if path != PATH:
            TABLE.check_allowed("WEBSOCKET", path, engine.settings.allow_endpoints, _UNREAD)
        manager = _of_the_client(wrapped(*args, **kwargs))
        return guarded_manager(engine, resource._client, manager, kwargs) if path == PATH else manager

    def _library_imported(self, module: ModuleType) -> None:
        for at, kind, name in _WAYS:
            holder = module if kind is None else module.__dict__.get(kind)
            if at == module.__name__ and holder is not None:
                self._wrap(holder, name, self._connect_library)

    def _connect_library(self, wrapped: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
        engine = self._patched()
        if engine is not None and not _is_the_clients.get():
            given = args[0] if args else next((kwargs[name] for name in _ADDRESSES if name in kwargs), None)
            _check(engine, _address(given, instance))
        return wrapped(*args, **kwargs)


def _subclasses(kind: type) -> Iterator[type]:
    children: list[type] = kind.__subclasses__()
    for one in children:
        yield one
        yield from _subclasses(one)


def _path(kind: type) -> str:
    """Return the path that a resource connects to, by its module: `openai.resources.realtime.realtime`."""
    parts = kind.__module__.partition(".resources.")[2].split(".") or [kind.__name__.lower()]
    parts = [part for part in parts if part != "beta"]
    if len(parts) > 1 and parts[-1] == parts[-2]:
        parts.pop()
    return "/" + "/".join(parts)


def _of_the_client(manager: Any) -> Any:
    """Return one of the SDK's connection managers, such that what it opens is known to be the client's."""
    kind = type(manager)
    names = ("enter", "__enter__", "__aenter__", "_connect_ws")
    methods = {name: _opening(getattr(kind, name)) for name in names if hasattr(kind, name)}
    manager.__class__ = with_methods(kind, methods)
    return manager


def _opening(method: Any) -> Any:
    @functools.wraps(method)
    def opening(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _the_clients():
            opened = method(self, *args, **kwargs)
        return _awaited(opened) if hasattr(opened, "__await__") else opened

    return opening


async def _awaited(opened: Any) -> Any:
    with _the_clients():
        return await opened


@contextmanager
def _the_clients() -> Iterator[None]:
    token = _is_the_clients.set(True)
    try:
        with passing():
            yield
    finally:
        _is_the_clients.reset(token)


def _check(engine: Engine, address: str) -> None:
    """Refuse an address where what is said costs.

    Raises:
        UnknownEndpointError: it costs, or may, and the user has not said otherwise.
    """
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return  # no library opens it either
    path = TABLE.path_of(parts.path, "//")
    if _HOSTS.fullmatch(host) is None and _PATHS.fullmatch(path) is None:
        return
    if not engine.settings.is_free(address):
        TABLE.check_allowed("WEBSOCKET", path, engine.settings.allow_endpoints, _WHY.format(host))


def _address(given: Any, instance: Any) -> str:
    """Return an address as that of the HTTP request that opens the websocket."""
    if isinstance(getattr(given, "secure", None), bool):  # as websockets has taken it apart
        host = f"[{given.host}]" if ":" in given.host else given.host
        return f"http{'s' if given.secure else ''}://{host}:{given.port}{given.path}"
    build = getattr(instance, "_build_url", None)  # aiohttp's sessions may have a base
    text = str(given if build is None else build(given)).strip()
    return re.sub(r"^ws(s?)(?=://)", r"http\1", text, flags=re.IGNORECASE)
