"""Guard an SDK at the methods that its requests pass: for all its clients, or for one.

The wrappers stand on the classes, and ask of each call whose it is: a client that was wrapped carries its
guard on the objects that it sends through; all others belong to who has patched the SDK, if anybody has.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any, Final, TypeVar

import wrapt

from budgetguard.config import changed
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.context import call_here
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import adrive, drive, guarded
from budgetguard.engine.provider_call import ProviderCall
from budgetguard.errors import ConfigurationError
from budgetguard.events import logger
from budgetguard.providers import imports
from budgetguard.providers.hooking import ENGINE, MODEL_MAP
from budgetguard.providers.iterators import GuardedAsyncGenerator, GuardedGenerator
from budgetguard.providers.methods import Method, MethodSdk, Sending, Try, found_in
from budgetguard.providers.polling import Poll
from budgetguard.providers.sent_call import SentCall

C = TypeVar("C")

_NO_NAMES: Final[tuple[str, ...]] = ()


class MethodPatch:
    """The guard around the clients of one SDK; see `ClientPatch` for what its methods promise.

    Args:
        sdk: the SDK.
    """

    def __init__(self, sdk: MethodSdk) -> None:
        self.sdk = sdk
        self._lock = threading.RLock()
        self._patched: Engine | None = None
        self._any_wrapped = False
        # What we have put where: holder, name, wrapper, and what stood there.
        self._wrappers: list[tuple[Any, str, Any, Any]] = []
        self._warned: set[str] = set()

    def knows(self, client: object) -> bool:
        """Whether something is a client of the SDK."""
        return any(True for _ in self.sdk.senders(client))

    def patch(self, engine: Engine) -> None:
        """Guard every client of the SDK in this process, whenever it is or was made.

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
                self._watch()
            except BaseException:
                self._patched = former
                raise
        for module in self.sdk.passed_by:
            imports.watch(module, _NO_NAMES, self._warn_of, key=name)

    def unpatch(self) -> None:
        """Take the patch off again. Idempotent."""
        with self._lock:
            self._patched = None
            if self._any_wrapped:
                return  # the wrappers let pass what is not wrapped
            for holder, name, wrapper, original in reversed(self._wrappers):
                if vars(holder).get(name) is wrapper:
                    setattr(holder, name, original)
            self._wrappers.clear()

    @property
    def is_patched(self) -> bool:
        """Whether `patch` is in force."""
        return self._patched is not None

    def unguarded(self) -> str | None:
        """Return in what a patched SDK is not guarded all the same, or None."""
        for name, methods in self.sdk.modules.items():
            module = sys.modules.get(name)
            for one in methods if module is not None else ():
                if not self._leads_to_us(found_in(vars(module), one)):
                    return f"somebody has replaced {one.qualname} since"
        return None

    def wrap(self, client: C, engine: Engine, model_map: Mapping[str, str] | None = None) -> C:
        """Guard one client in place, and return it. Wrapping twice is wrapping once.

        Raises:
            ConfigurationError: no client of the SDK, one of a version that is not known to work, or wrapped
                with another engine; a bad `model_map`.
        """
        if model_map is not None:
            model_map = changed(engine.settings, {"model_map": model_map}).model_map
        kind = type(client)
        senders = tuple(self.sdk.senders(client))
        if not senders:
            raise ConfigurationError(f"{kind.__module__}.{kind.__qualname__} is no client of {self.sdk.name}")
        for sender in senders:
            if getattr(sender, ENGINE, engine) is not engine:
                raise ConfigurationError(
                    f"this {kind.__name__} is wrapped already, by another guard: make a new client"
                )
        with self._lock:
            for name in self.sdk.modules:
                if (module := sys.modules.get(name)) is not None:
                    self._stand_on(module)
            self._any_wrapped = True
            self._watch()  # for what is imported when it is used first
        for sender in senders:
            # Around models of data that take no attributes but their own.
            object.__setattr__(sender, ENGINE, engine)
            if model_map is not None:
                object.__setattr__(sender, MODEL_MAP, model_map)
        return client

    def _watch(self) -> None:
        for module, methods in self.sdk.modules.items():
            names = tuple(dict.fromkeys(one.owner or one.name for one in methods))
            imports.watch(module, names, self._apply, key=self.sdk.name)

    def _apply(self, module: ModuleType) -> None:
        with self._lock:
            if self._patched is not None or self._any_wrapped:
                self._stand_on(module)

    def _stand_on(self, module: ModuleType) -> None:
        """Put our wrappers on a module's methods, on top of what others have put there.

        Raises:
            ConfigurationError: this version is not known to work; nothing is wrapped.
        """
        methods = self.sdk.modules[module.__name__]
        self.sdk.check(vars(module), methods)
        for one in methods:
            holder: Any = getattr(module, one.owner) if one.owner else module
            original = vars(holder)[one.name]
            if any(original is wrapper for _, _, wrapper, _ in self._wrappers):
                continue
            around = _COUNTING[one.kind] if isinstance(one, Try) else self._around(one, original)
            wrapper = wrapt.FunctionWrapper(original, around)
            setattr(holder, one.name, wrapper)
            self._wrappers.append((holder, one.name, wrapper, original))

    def _leads_to_us(self, method: Any) -> bool:
        ours = {id(wrapper) for _, _, wrapper, _ in self._wrappers}
        while method is not None:
            if id(method) in ours:
                return True
            method = getattr(method, "__wrapped__", None)
        return False

    def _warn_of(self, module: ModuleType) -> None:
        name = module.__name__
        if self._patched is not None and name not in self._warned:
            self._warned.add(name)
            logger.warning("budgetguard: %s is imported, and %s", name, self.sdk.passed_by[name])

    def _around(self, method: Method, original: Any) -> Callable[..., Any]:
        """Return what is called in place of a method, with it, its object and its arguments."""
        named = _by_name(inspect.signature(original), bound=bool(method.owner))
        inside = _STYLES[method.style]

        def around(wrapped: Any, sender: Any, args: Any, kwargs: Any) -> Any:
            carrier = method.carrier(sender)
            engine = getattr(carrier, ENGINE, None) or self._patched
            if engine is None:
                return wrapped(*args, **kwargs)
            settings = engine.settings
            model_map = getattr(carrier, MODEL_MAP, None)
            if model_map is not None:
                settings = changed(settings, {"model_map": {**settings.model_map, **model_map}})
            request = method.request(Sending(engine, settings, sender, named(args, kwargs)))
            if request is None:
                return wrapped(*args, **kwargs)
            return inside(engine, request, functools.partial(wrapped, *args, **kwargs))

        return around


def _by_name(signature: inspect.Signature, *, bound: bool) -> Callable[[Any, Any], Mapping[str, Any]]:
    """Return what gives a call's arguments their names."""
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    rest = next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), None)
    plain = signature.replace(parameters=parameters)

    def named(args: Any, kwargs: Any) -> Mapping[str, Any]:
        try:
            found = plain.bind(*args, **kwargs).arguments
        except TypeError:
            return dict(kwargs)  # the method itself says what is wrong with them
        return {**found, **found.pop(rest)} if rest in found else found

    return named


def _call(engine: Engine, request: ProviderCall | Poll, send: Callable[[], Any]) -> Any:
    if isinstance(request, Poll):
        return request.take(send())
    return drive(guarded(GuardedCall(engine, request)), send)


async def _coroutine(engine: Engine, request: ProviderCall | Poll, send: Callable[[], Any]) -> Any:
    if isinstance(request, Poll):
        return await request.take_async(await send())
    return await adrive(guarded(GuardedCall(engine, request)), send)


def _generator(engine: Engine, request: ProviderCall | Poll, send: Callable[[], Any]) -> Any:
    assert isinstance(request, SentCall)
    made = send()
    kind = GuardedAsyncGenerator if inspect.isasyncgen(made) else GuardedGenerator
    return kind(GuardedCall(engine, request), lambda: made, request.reader())


@contextmanager
def _manager(engine: Engine, request: ProviderCall | Poll, send: Callable[[], Any]) -> Iterator[Any]:
    with ExitStack() as stack:
        yield _call(engine, request, lambda: stack.enter_context(send()))


@asynccontextmanager
async def _async_manager(engine: Engine, request: ProviderCall | Poll, send: Callable[[], Any]) -> Any:
    async with AsyncExitStack() as stack:
        yield await _coroutine(engine, request, lambda: stack.enter_async_context(send()))


def _request_here() -> SentCall | None:
    """Return the request that is being sent here, None if it is not guarded."""
    call = call_here()
    request = None if call is None else call.request
    return request if isinstance(request, SentCall) else None


def _counted(wrapped: Any, _sender: Any, args: Any, kwargs: Any) -> Any:
    request = _request_here()
    if request is None:
        return wrapped(*args, **kwargs)
    with request.trying():
        return wrapped(*args, **kwargs)


async def _counted_async(wrapped: Any, _sender: Any, args: Any, kwargs: Any) -> Any:
    request = _request_here()
    if request is None:
        return await wrapped(*args, **kwargs)
    with request.trying():
        return await wrapped(*args, **kwargs)


def _noted(wrapped: Any, _sender: Any, args: Any, kwargs: Any) -> Any:
    if (request := _request_here()) is not None:
        request.note_retry(sys.exception())
    return wrapped(*args, **kwargs)


_COUNTING: Final[Mapping[str, Callable[..., Any]]] = {
    "sends": _counted,
    "sends async": _counted_async,
    "between": _noted,
}
_STYLES: Final[Mapping[str, Callable[[Engine, Any, Callable[[], Any]], Any]]] = {
    "call": _call,
    "coroutine": _coroutine,
    "generator": _generator,
    "manager": _manager,
    "async manager": _async_manager,
}
