"""Guard an SDK's clients: all of them, or one, at the method that every request goes through.

Others instrument the same method, before us or after us. So we stand at two places: on top of each class that
has a `request` when it is patched, and before one that a client has of its own; and on the floor, in the
SDK's own function. A request that is guarded carries a mark past the rest. What is done with each request is
in `hooking`.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final, TypeVar

import wrapt

from budgetguard.config import changed
from budgetguard.engine.engine import Engine
from budgetguard.engine.unguarded import watcher
from budgetguard.errors import ConfigurationError
from budgetguard.events import logger
from budgetguard.providers import imports
from budgetguard.providers.attempts import guard_attempts
from budgetguard.providers.hooking import (
    ENGINE,
    MODEL_MAP,
    REQUEST,
    Floor,
    OnTop,
    RequestGuard,
    engine_of,
    retried,
    wrapped_kind,
)
from budgetguard.providers.sdk import ASYNC, RETRY, SYNC, Sdk

C = TypeVar("C")

_CLASSES: Final = (SYNC, ASYNC)
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
        self._requests = RequestGuard(sdk)
        self._any_wrapped = False
        self._warned: set[str] = set()
        # What we have put where: class, name, wrapper; and the SDK's functions that dispatch to us.
        self._wrappers: list[tuple[type, str, Any]] = []
        self._floors: dict[FunctionType, Floor] = {}
        self._attempts: dict[type, Callable[[], None]] = {}
        # Another one after each `unpatch`: what notices retries must not do so twice.
        self._turn = object()
        requests, side_way = self._requests, sdk.side_way
        self._side_way = None if side_way is None else side_way(requests.engine_for, lambda: requests.patched)

    def knows(self, client: object) -> bool:
        """Whether something is a client of the SDK, or one whose requests it refuses."""
        return self.sdk.base_of(type(client)) is not None or self.sdk.refusal(client) is not None

    def patch(self, engine: Engine) -> None:
        """Guard every client of the SDK in this process, whenever it is or was made.

        Works before and after the SDK is imported, and for one that is imported once more. Patching again
        with the same engine puts our wrapper on top of what others have put there since.

        Raises:
            ConfigurationError: patched with another engine, or a version that is not known to work.
        """
        name = self.sdk.name
        with self._lock:
            former = self._requests.patched
            if former is not None and former is not engine:
                raise ConfigurationError(
                    f"{name} is patched already, by another guard: call its unpatch_{name}() first, "
                    "or guard single clients with guard.wrap(client)"
                )
            self._requests.patched = engine
            try:
                imports.watch(self.sdk.module, _CLASSES, self._apply, key=name)
            except BaseException:
                self._requests.patched = former
                raise
            if self._side_way is not None:
                self._side_way.close()
            watcher.guards(engine, name)

    def watch_passers(self, is_guarded: Callable[[str], bool]) -> None:
        """Warn once of each module that sends past the SDK in part, when it is imported unguarded.

        Args:
            is_guarded: whether a package is, by its name.
        """

        def warn(module: ModuleType) -> None:
            name = module.__name__
            if self.is_patched and name not in self._warned and not is_guarded(name):
                self._warned.add(name)
                logger.warning("budgetguard: %s is imported, and %s", name, self.sdk.passed_by[name])

        for module in self.sdk.passed_by:
            imports.watch(module, (), warn, key=self.sdk.name)

    def unpatch(self) -> None:
        """Take the patch off again; what others have put around the same method stays. Idempotent."""
        with self._lock:
            if self._requests.patched is not None:
                watcher.guards_no_more(self._requests.patched, self.sdk.name)
            self._requests.patched, self._turn = None, object()
            for kind, name, wrapper in reversed(self._wrappers):
                # One that others have wrapped stays below theirs, and does nothing.
                if kind.__dict__.get(name) is wrapper:
                    setattr(kind, name, wrapper.__wrapped__)
            self._wrappers.clear()
            if not self._any_wrapped:
                for floor in self._floors.values():
                    floor.remove()
                self._floors.clear()
                for take_off in self._attempts.values():
                    take_off()
                self._attempts.clear()
                if self._side_way is not None:
                    self._side_way.open()

    @property
    def is_patched(self) -> bool:
        """Whether `patch` is in force."""
        return self._requests.patched is not None

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
        watcher.guards(engine, wrapped_kind)
        with self._lock:
            self._any_wrapped = True
            self._lay_floor(base)
            if self._side_way is not None:
                self._side_way.close()
        self._wrap_inner(client, engine, model_map)
        if present is engine:
            if model_map is not None:
                setattr(kind, MODEL_MAP, model_map)
            return client
        client.__class__ = wrapped_kind(
            kind, self._requests, engine, model_map, self._wrap_inner, asynchronous=base.__name__ == ASYNC
        )
        return client

    def _wrap_inner(self, client: Any, engine: Engine, model_map: Mapping[str, str] | None) -> None:
        """Guard the clients that a client of another's class has made for itself."""
        for inner in self._inner_clients(client):
            self.wrap(inner, engine, model_map)

    def _apply(self, module: ModuleType) -> None:
        """Guard a module's classes.

        Raises:
            ConfigurationError: this version is not known to work; nothing is wrapped.
        """
        with self._lock:
            if self._requests.patched is None:
                return
            kinds = [module.__dict__.get(name) for name in _CLASSES]
            for name, kind in zip(_CLASSES, kinds, strict=True):
                self.sdk.check(kind, module.__dict__, name)
            for base in kinds:
                assert isinstance(base, type)
                self._lay_floor(base)
                around = self._requests.around if base.__name__ == SYNC else self._requests.aaround
                for kind in _own(base):
                    if not self._stands(kind, REQUEST):
                        self._put(kind, REQUEST, OnTop(kind.__dict__[REQUEST], around))
                if not any((kind, name) == (base, RETRY) for kind, name, _ in self._wrappers):
                    enabled = functools.partial(self._is_turn, self._turn)
                    noting = wrapt.FunctionWrapper(base.__dict__[RETRY], retried, enabled=enabled)
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

    def _lay_floor(self, base: type) -> None:
        function = self._function_of(base)
        if function is not None and function not in self._floors:
            self._floors[function] = Floor(function, self._requests.around, self._requests.aaround)
        if base not in self._attempts:
            self._attempts[base] = guard_attempts(base)

    def _function_of(self, base: Any) -> FunctionType | None:
        """Return the SDK's own `request`, below what others have put around it; None if out of reach."""
        try:
            function = inspect.unwrap(base.__dict__[REQUEST])
        except (AttributeError, KeyError, ValueError):
            return None
        plain = isinstance(function, FunctionType) and function.__module__ == self.sdk.module
        return function if plain and not function.__code__.co_freevars else None

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


def _own(base: type) -> Iterator[type]:
    """Yield a class and all below it that have a `request` themselves."""
    seen = [base]
    for kind in seen:
        below: list[type] = kind.__subclasses__()
        seen += [one for one in below if one not in seen]
        # A wrapped client's class has our own.
        if callable(kind.__dict__.get(REQUEST)) and ENGINE not in kind.__dict__:
            yield kind


def _parts(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return list(holder.values())
    if isinstance(holder, list | tuple | set):
        return list(holder)
    if isinstance(holder, type | ModuleType | FunctionType):
        return []
    kept = getattr(holder, "__dict__", None)
    return list(kept.values()) if isinstance(kept, dict) else []
