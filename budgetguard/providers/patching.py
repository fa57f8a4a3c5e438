"""Guard an SDK's clients: all of them, or one, at the method that every request goes through.

Others instrument the same method, before us or after us. So we stand at two places, see `hooking`: on top of
each class that has a `request` when it is patched, and before one that a client has of its own; and on the
floor, in the SDK's own function. A request that is guarded carries a mark past the rest.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import wrapt

from budgetguard.config import changed
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import adrive, drive, guarded
from budgetguard.errors import ConfigurationError
from budgetguard.events import logger
from budgetguard.providers import imports
from budgetguard.providers.hooking import REQUEST, Floor, OnTop, Request, options_of
from budgetguard.providers.polling import poll_of
from budgetguard.providers.sdk import ASYNC, RETRY, SYNC, Sdk
from budgetguard.providers.stainless import MODEL_MAP, StainlessCall, is_marked, note_retry, passing

C = TypeVar("C")

_CLASSES: Final = (SYNC, ASYNC)
# The attribute of a wrapped client's type that has its guard.
_ENGINE: Final = "_budgetguard_engine"
# How far down in a client of another's class its inner clients are looked for, and among how many objects.
_DEPTH: Final = 4
_MOST: Final = 5_000


class ClientPatch:
    """The guard around the clients of one SDK.

    Args:
        sdk: the SDK.
    """

    def __init__(self, sdk: Sdk) -> None:
        self.sdk = sdk
        self._lock = threading.RLock()
        self._patched: Engine | None = None
        self._any_wrapped = False
        self._warned: set[str] = set()
        # What we have put where: class, name, wrapper; and the SDK's functions that dispatch to us.
        self._wrappers: list[tuple[type, str, Any]] = []
        self._floors: dict[FunctionType, Floor] = {}
        # Classes, and whether they are of clients of the SDK.
        self._known: WeakKeyDictionary[type, bool] = WeakKeyDictionary()
        # Another one after each `unpatch`: what notices retries must not do so twice.
        self._turn = object()
        side_way = sdk.side_way
        self._side_way = None if side_way is None else side_way(self._guard_of, lambda: self._patched)

    def patch(self, engine: Engine) -> None:
        """Guard every client of the SDK in this process, whenever it is or was made.

        Works before and after the SDK is imported, and for one that is imported once more. Patching again
        with the same engine puts our wrapper on top of what others have put there since.

        Raises:
            ConfigurationError: patched with another engine, or a version that is not known to work.
        """
        name = self.sdk.name
        with self._lock:
            former = self._patched
            if former is not None and former is not engine:
                raise ConfigurationError(
                    f"{name} is patched already, by another guard: call its unpatch_{name}() first, "
                    "or guard single clients with guard.wrap(client)"
                )
            self._patched = engine
            try:
                imports.watch(self.sdk.module, _CLASSES, self._apply, key=name)
            except BaseException:
                self._patched = former
                raise
            if self._side_way is not None:
                self._side_way.close()
        for module in self.sdk.passed_by:
            imports.watch(module, (), self._warn_of, key=name)

    def unpatch(self) -> None:
        """Take the patch off again; what others have put around the same method stays. Idempotent."""
        with self._lock:
            self._patched, self._turn = None, object()
            for kind, name, wrapper in reversed(self._wrappers):
                # One that others have wrapped stays below theirs, and does nothing.
                if kind.__dict__.get(name) is wrapper:
                    setattr(kind, name, wrapper.__wrapped__)
            self._wrappers.clear()
            if not self._any_wrapped:
                for floor in self._floors.values():
                    floor.remove()
                self._floors.clear()
                if self._side_way is not None:
                    self._side_way.open()

    @property
    def is_patched(self) -> bool:
        """Whether `patch` is in force."""
        return self._patched is not None

    def unguarded(self) -> str | None:
        """Return in what a patched SDK is not guarded all the same, or None."""
        module = sys.modules.get(self.sdk.module)
        for name in _CLASSES if module is not None else ():
            base = module.__dict__.get(name)
            for kind in _own(base) if isinstance(base, type) else ():
                if not self._leads_to_us(kind.__dict__[REQUEST]):
                    return f"somebody has replaced {kind.__qualname__}.request since"
        return None

    def wrap(self, client: C, engine: Engine, model_map: Mapping[str, str] | None = None) -> C:
        """Guard one client in place, with all that `with_options()` and its like make from it, and return it.

        Its type keeps its name and stays an instance of what it was. Wrapping twice is wrapping once; of a
        client that is wrapped and patched, each call is charged once, by the wrap's engine. Of a client of
        another's class, which may send through clients of its own, those are wrapped as well.

        Args:
            client: a client of the SDK.
            engine: whose books its calls go into.
            model_map: as the setting of that name, for this client, before the setting's own names.

        Raises:
            ConfigurationError: no client of the SDK, one of a version that is not known to work, one whose
                calls are refused, or wrapped with another engine; a bad `model_map`.
        """
        if model_map is not None:
            model_map = changed(engine.settings, {"model_map": model_map}).model_map
        kind = type(client)
        present = engine_of(client)
        if present is not None and present is not engine:
            raise ConfigurationError(
                f"this {kind.__name__} is wrapped already, by another guard: make a new client"
            )
        if (why := self.sdk.refusal(client)) is not None:
            raise ConfigurationError(f"{kind.__name__} cannot be wrapped: {why}")
        base = self.sdk.base_of(kind)
        if base is None:
            raise ConfigurationError(f"{kind.__module__}.{kind.__qualname__} is no client of {self.sdk.name}")
        module = sys.modules.get(self.sdk.module)
        if module is None:  # removed since the client was made
            self.sdk.check(base, inspect.unwrap(base.__dict__["__init__"]).__globals__, base.__name__)
        else:
            self.sdk.check(module.__dict__.get(base.__name__), module.__dict__, base.__name__)
        with self._lock:
            self._any_wrapped = True
            self._lay_floor(base)
            if self._side_way is not None:
                self._side_way.close()
        for inner in self._inner_clients(client):
            self.wrap(inner, engine, model_map)
        if present is engine:
            if model_map is not None:
                setattr(kind, MODEL_MAP, model_map)
            return client
        client.__class__ = self._wrapped_kind(kind, base.__name__ == ASYNC, engine, model_map)
        return client

    def _guard_of(self, client: object) -> Engine | None:
        return engine_of(client) or self._patched

    def _apply(self, module: ModuleType) -> None:
        """Guard a module's classes.

        Raises:
            ConfigurationError: this version is not known to work; nothing is wrapped.
        """
        with self._lock:
            if self._patched is None:
                return
            kinds = [module.__dict__.get(name) for name in _CLASSES]
            for name, kind in zip(_CLASSES, kinds, strict=True):
                self.sdk.check(kind, module.__dict__, name)
            for base in kinds:
                assert isinstance(base, type)
                self._lay_floor(base)
                around = self._around if base.__name__ == SYNC else self._aaround
                for kind in _own(base):
                    if not self._stands(kind, REQUEST):
                        self._put(kind, REQUEST, OnTop(kind.__dict__[REQUEST], around))
                if not any((kind, name) == (base, RETRY) for kind, name, _ in self._wrappers):
                    enabled = functools.partial(self._is_turn, self._turn)
                    noting = wrapt.FunctionWrapper(base.__dict__[RETRY], _retry, enabled=enabled)
                    self._put(base, RETRY, noting)

    def _is_turn(self, turn: object) -> bool:
        return turn is self._turn

    def _leads_to_us(self, method: Any) -> bool:
        """Whether what stands as `request` is ours, or calls it as far as it tells."""
        for _ in range(_MOST):
            if isinstance(method, OnTop) or (isinstance(method, FunctionType) and method in self._floors):
                return True
            if not hasattr(method, "__wrapped__"):
                break
            method = method.__wrapped__
        return False

    def _put(self, kind: type, name: str, wrapper: Any) -> None:
        setattr(kind, name, wrapper)
        self._wrappers.append((kind, name, wrapper))

    def _stands(self, kind: type, name: str) -> bool:
        present = kind.__dict__.get(name)
        return any(present is wrapper for of, at, wrapper in self._wrappers if (of, at) == (kind, name))

    def _warn_of(self, module: ModuleType) -> None:
        name = module.__name__
        if self._patched is not None and name not in self._warned:
            self._warned.add(name)
            logger.warning("budgetguard: %s is imported, and %s", name, self.sdk.passed_by[name])

    def _lay_floor(self, base: type) -> None:
        function = self._function_of(base)
        if function is not None and function not in self._floors:
            self._floors[function] = Floor(function, self._around, self._aaround)

    def _function_of(self, base: Any) -> FunctionType | None:
        """Return the SDK's own `request`, below what others have put around it; None if out of reach."""
        try:
            function = inspect.unwrap(base.__dict__[REQUEST])
        except (AttributeError, KeyError, ValueError):
            return None
        plain = isinstance(function, FunctionType) and function.__module__ == self.sdk.module
        return function if plain and not function.__code__.co_freevars else None

    # One request

    def _payer_of(self, client: Any, args: Any, kwargs: Any) -> Engine | None:
        """Return who guards a request; None if nobody does, or it is guarded further up."""
        engine = self._guard_of(client)
        options = options_of(args, kwargs)
        if engine is None or is_marked(options):
            return None
        if self.sdk.refuses is not None and (why := self.sdk.refuses(client)) is not None:
            self._refuse(engine, client, options, why)
            return None
        return engine if self._is_client(type(client)) else None

    def _is_client(self, kind: type) -> bool:
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = self.sdk.base_of(kind) is not None
        return known

    def _refuse(self, engine: Engine, client: Any, options: Any, why: str) -> None:
        """Refuse a request that costs, of a client whose calls are not read.

        Raises:
            UnknownEndpointError: it may cost money, and the user does not allow it.
        """
        table, base_url, settings = self.sdk.table, str(client.base_url), engine.settings
        address = base_url.rstrip("/") + "/" + str(options.url).lstrip("/")
        path = table.path_of(options.url, base_url)
        if settings.is_free(address) or table.is_free(options.method, path):
            return
        table.check_allowed(
            options.method.upper(), f"/{type(client).__name__}{path}", settings.allow_endpoints, why
        )

    def _around(self, wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
        engine = self._payer_of(client, args, kwargs)
        if engine is None:
            return wrapped(*args, **kwargs)
        return self._request(engine, client, wrapped, *args, **kwargs)

    async def _aaround(self, wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
        engine = self._payer_of(client, args, kwargs)
        if engine is None:
            return await wrapped(*args, **kwargs)
        return await self._arequest(engine, client, wrapped, *args, **kwargs)

    def _request(
        self, engine: Engine, client: Any, wrapped: Request, cast_to: Any, options: Any, **more: Any
    ) -> Any:
        request = self._guarded_request(engine, client, options, more)
        if request is None:
            poll = poll_of(engine, self.sdk, client, options)
            answer = wrapped(cast_to, passing(options), **more)
            return answer if poll is None else poll.take(answer)
        call = GuardedCall(engine, request)
        return drive(guarded(call), functools.partial(wrapped, cast_to, request.options, **more))

    async def _arequest(
        self, engine: Engine, client: Any, wrapped: Request, cast_to: Any, options: Any, **more: Any
    ) -> Any:
        request = self._guarded_request(engine, client, options, more)
        if request is None:
            poll = poll_of(engine, self.sdk, client, options)
            answer = await wrapped(cast_to, passing(options), **more)
            return answer if poll is None else await poll.take_async(answer)
        call = GuardedCall(engine, request)
        return await adrive(guarded(call), functools.partial(wrapped, cast_to, request.options, **more))

    def _guarded_request(
        self, engine: Engine, client: Any, options: Any, more: Mapping[str, Any]
    ) -> StainlessCall | None:
        settings = engine.settings
        address = str(client._prepare_url(options.url))
        free = settings.is_free(address)
        endpoint = self.sdk.table.endpoint_of(
            options.method,
            options.url,
            base_url=str(client.base_url),
            allowed=settings.allow_endpoints,
            free=free,
        )
        if endpoint is None:
            return None
        model_map = getattr(type(client), MODEL_MAP, None)
        if model_map is not None:
            settings = changed(settings, {"model_map": {**settings.model_map, **model_map}})
        try:
            return StainlessCall(
                client,
                options,
                endpoint,
                self.sdk,
                stream=bool(more.get("stream")),
                address=address,
                free=free,
                model_of=settings.model_of,
                allowed=settings.allow_endpoints,
                counts=settings.count == "provider",
            )
        except ConfigurationError:
            if free:
                return None  # what cannot be read costs nothing there either
            raise

    # One client

    def _wrapped_kind(
        self, kind: Any, asynchronous: bool, engine: Engine, model_map: Mapping[str, str] | None
    ) -> type:
        """Return a client's class with our methods, whose name is the class's own."""
        patch = self

        def request(self: Any, *args: Any, **kwargs: Any) -> Any:
            return kind.request(self, *args, **kwargs)  # as it is by then: others may wrap it meanwhile

        async def arequest(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await kind.request(self, *args, **kwargs)

        def retry(self: Any, *args: Any, **kwargs: Any) -> Any:
            note_retry(kwargs.get("options"), kwargs.get("response"))
            return getattr(kind, RETRY)(self, *args, **kwargs)

        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            kind.__init__(self, *args, **kwargs)
            for inner in patch._inner_clients(self):
                patch.wrap(inner, engine, getattr(type(self), MODEL_MAP))

        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        ours: dict[str, Any] = {_ENGINE: engine, MODEL_MAP: model_map}
        ours[REQUEST] = OnTop(
            functools.wraps(kind.request)(arequest if asynchronous else request),
            self._aaround if asynchronous else self._around,
        )
        ours[RETRY] = functools.wraps(getattr(kind, RETRY))(retry)
        if not self.sdk.made(kind):
            ours["__init__"] = functools.wraps(kind.__init__)(init)
        return type(kind.__name__, (kind,), {**names, **ours})

    def _inner_clients(self, client: object) -> list[Any]:
        """Return the clients that a client of another's class keeps, through which it may send."""
        if self.sdk.made(type(client)):
            return []
        found: list[Any] = []
        seen: dict[int, Any] = {id(client): client}
        level: list[Any] = [client]
        for _ in range(_DEPTH):
            level = [one for holder in level for one in _parts(holder)]
            level = list({id(one): one for one in level if id(one) not in seen}.values())
            seen |= {id(one): one for one in level}
            inner = [self.sdk.base_of(type(one)) is not None for one in level]
            found += [one for one, is_client in zip(level, inner, strict=True) if is_client]
            level = [one for one, is_client in zip(level, inner, strict=True) if not is_client]
            if len(seen) > _MOST:
                break
        return found


def engine_of(client: object) -> Engine | None:
    """Return the engine that a client was wrapped with, or None."""
    found: Engine | None = getattr(type(client), _ENGINE, None)
    return found


def _own(base: type) -> Iterator[type]:
    """Yield a class and all below it that have a `request` themselves."""
    seen = [base]
    for kind in seen:
        below: list[type] = kind.__subclasses__()
        seen += [one for one in below if one not in seen]
        # A wrapped client's class has our own.
        if callable(kind.__dict__.get(REQUEST)) and _ENGINE not in kind.__dict__:
            yield kind


def _retry(wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
    if engine_of(client) is None:  # else the client's own wrapper notices it
        note_retry(kwargs.get("options"), kwargs.get("response"))
    return wrapped(*args, **kwargs)


def _parts(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return list(holder.values())
    if isinstance(holder, list | tuple | set):
        return list(holder)
    if isinstance(holder, type | ModuleType | FunctionType):
        return []
    kept = getattr(holder, "__dict__", None)
    return list(kept.values()) if isinstance(kept, dict) else []
