"""Guard an SDK at the methods that its requests pass: for all its clients, or for one.

The wrappers stand on the classes, and ask of each call whose it is: a client that was wrapped carries its
guard on the objects that it sends through; all others belong to who has patched the SDK, if anybody has.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AsyncExitStack,
    ExitStack,
    aclosing,
    asynccontextmanager,
    closing,
    contextmanager,
    nullcontext,
)
from types import FunctionType, ModuleType
from typing import Any, Final, TypeVar

import wrapt

from budgetguard.config import changed
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.context import innermost_call, passing
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import adrive, drive, guarded
from budgetguard.engine.provider_call import ProviderCall
from budgetguard.engine.unguarded import watcher
from budgetguard.errors import ConfigurationError
from budgetguard.providers import imports
from budgetguard.providers.carrying import carrying
from budgetguard.providers.exchange import Around, Exchanged
from budgetguard.providers.hooking import ENGINE, MODEL_MAP
from budgetguard.providers.iterators import GuardedAsyncGenerator, GuardedGenerator
from budgetguard.providers.methods import Instead, Method, MethodSdk, Observe, Sending, Style, found_in
from budgetguard.providers.polling import Poll
from budgetguard.providers.sent_call import SentCall, is_covered

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
        self._exchanged: list[Exchanged] = []
        # Why what costs is refused: the version is not known, of a package that does much else.
        self._unknown: ConfigurationError | None = None

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
            self._patched, self._unknown = engine, None
            try:
                imports.watch(self.sdk.package, _NO_NAMES, self._check_version, key=f"{name} version")
                self._watch()
            except BaseException:
                self._patched = former
                raise
            watcher.guards(engine, name)

    def unpatch(self) -> None:
        """Take the patch off again. Idempotent."""
        with self._lock:
            if self._patched is not None:
                watcher.guards_no_more(self._patched, self.sdk.name)
            self._patched = None
            if self._any_wrapped:
                return  # the wrappers let pass what is not wrapped
            for holder, name, wrapper, original in reversed(self._wrappers):
                if vars(holder).get(name) is wrapper:
                    setattr(holder, name, original)
            self._wrappers.clear()
            for one in self._exchanged:
                one.remove()
            self._exchanged.clear()

    @property
    def is_patched(self) -> bool:
        """Whether `patch` is in force."""
        return self._patched is not None

    def unguarded(self) -> str | None:
        """Return in what a patched SDK is not guarded all the same, or None."""
        for name, methods in self.sdk.modules.items():
            module = sys.modules.get(name)
            for one in methods if module is not None else ():
                found = found_in(vars(module), one)
                if not (one.optional and found is None) and not self._leads_to_us(found):
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
        watcher.guards(engine, MethodPatch.wrap)
        for sender in senders:
            # Around models of data that take no attributes but their own.
            object.__setattr__(sender, ENGINE, engine)
            if model_map is not None:
                object.__setattr__(sender, MODEL_MAP, model_map)
        return client

    def _check_version(self, _package: ModuleType) -> None:
        # Other versions may have other modules, which nobody watches.
        if self._patched is not None and not self.sdk.serves_others:
            self.sdk.check({}, ())

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
            ConfigurationError: this version is not known to work; nothing is wrapped. Of a package that
                serves others the calls are refused instead.
        """
        methods = self.sdk.modules[module.__name__]
        try:
            if self.sdk.has(module.__name__):
                self.sdk.check(vars(module), methods)
        except ConfigurationError as error:
            if not self.sdk.serves_others:
                raise
            self._unknown = error
            methods = tuple(one for one in methods if callable(found_in(vars(module), one)))
        for one in methods:
            if one.optional and found_in(vars(module), one) is None:
                continue
            holder: Any = getattr(module, one.owner) if one.owner else module
            original = vars(holder)[one.name]
            if one.in_code:
                self._stand_in(one, original)
                continue
            if any(original is wrapper for _, _, wrapper, _ in self._wrappers):
                continue
            wrapper = wrapt.FunctionWrapper(original, self._around(one, original))
            setattr(holder, one.name, wrapper)
            self._wrappers.append((holder, one.name, wrapper, original))

    def _stand_in(self, method: Method, found: Any) -> None:
        """Stand in the code of a function, or of those that it is decorated with."""
        *decorators, inmost = _chain(found)
        functions = decorators or [inmost] if method.instead is not None else [inmost]
        for function in functions:
            if any(one.function is function and one.holds for one in self._exchanged):
                continue
            if not isinstance(function, FunctionType):
                continue  # another package's: what it calls is one of ours
            around = self._around(method, function)
            self._exchanged.append(
                Exchanged(function, _of_method(around) if method.owner else _plain(around))
            )

    def _leads_to_us(self, method: Any) -> bool:
        ours = {id(wrapper) for _, _, wrapper, _ in self._wrappers}
        ours |= {id(one.function) for one in self._exchanged if one.holds}
        while method is not None:
            if id(method) in ours:
                return True
            method = getattr(method, "__wrapped__", None)
        return False

    def _around(self, method: Method, original: Any) -> Callable[..., Any]:
        """Return what is called in place of a method, with it, its object and its arguments."""
        if method.instead is not None:
            return self._instead(method.instead)
        named = _by_name(inspect.signature(original), bound=bool(method.owner))
        if method.observe is not None:
            return _observing(method.style, named, method.observe)
        inside, letting_pass = _STYLES[method.style], _PASSING[method.style]
        carrier = self.sdk.carrier

        def around(wrapped: Any, sender: Any, args: Any, kwargs: Any) -> Any:
            carries = None if sender is None else carrier(sender)
            engine = getattr(carries, ENGINE, None) or self._patched
            if engine is None or is_covered(self.sdk.package):
                return wrapped(*args, **kwargs)
            arguments = named(args, kwargs)
            if method.repeats(arguments) and (tried := _tried(sender, engine)) is not None:
                tried.note_failed_try(sys.exception())
                return wrapped(*args, **kwargs)
            settings = engine.settings
            model_map = getattr(carries, MODEL_MAP, None)
            if model_map is not None:
                settings = changed(settings, {"model_map": {**settings.model_map, **model_map}})
            sending = Sending(engine, settings, sender, arguments)
            with carrying() if self.sdk.carries else _CARRIES_NOTHING:
                request = method.request(sending)
                if request is None:
                    return letting_pass(functools.partial(wrapped, *args, **kwargs))
                if self._unknown is not None:
                    raise ConfigurationError(str(self._unknown))
                if isinstance(request, SentCall):
                    request.sender = sender
                send = functools.partial(_send, wrapped, args, kwargs, sending)
                if method.receive is not None:
                    send = functools.partial(_received, send, method.receive)
                if self.sdk.carries and method.style == "coroutine":
                    return _carried(inside(engine, request, send))
                return inside(engine, request, send)

        return around

    def _instead(self, instead: Instead) -> Callable[..., Any]:
        def around(wrapped: Any, sender: Any, args: Any, kwargs: Any) -> Any:
            if self._patched is None:
                return wrapped(*args, **kwargs)
            return instead(wrapped, sender, args, kwargs)

        return around


_CARRIES_NOTHING: Final = nullcontext()


async def _carried(coroutine: Any) -> Any:
    with carrying():
        return await coroutine


def _chain(function: Any) -> list[Any]:
    """Return a function with those that it wraps, outermost first."""
    found = [function]
    while (function := getattr(function, "__wrapped__", None)) is not None:
        found.append(function)
    return found


def _plain(around: Callable[..., Any]) -> Around:
    return lambda original, args, kwargs: around(original, None, args, kwargs)


def _of_method(around: Callable[..., Any]) -> Around:
    def call(original: Any, args: Any, kwargs: Any) -> Any:
        return around(functools.partial(original, args[0]), args[0], args[1:], kwargs)

    return call


def _tried(sender: Any, engine: Engine) -> SentCall | None:
    """Return the call of a sender that we are directly inside, None if we are inside no call of it."""
    call = innermost_call()
    if call is None or call.engine is not engine or not isinstance(call.request, SentCall):
        return None
    return call.request if call.request.sender is sender else None


def _send(wrapped: Callable[..., Any], args: Any, kwargs: Any, sending: Sending) -> Any:
    """Call a method with the caller's arguments, and in place of some with what the call was changed to."""
    if not sending.changes:
        return wrapped(*args, **kwargs)
    bound = inspect.signature(wrapped).bind(*args, **kwargs)
    rest = next(
        (one.name for one in bound.signature.parameters.values() if one.kind is one.VAR_KEYWORD), None
    )
    for name, value in sending.changes.items():
        if rest is not None and name not in bound.signature.parameters:
            bound.arguments[rest] = {**bound.arguments.get(rest, {}), name: value}
        else:
            bound.arguments[name] = value
    return wrapped(*bound.args, **bound.kwargs)


def _observing(
    style: Style, named: Callable[[Any, Any], Mapping[str, Any]], observe: Observe
) -> Callable[..., Any]:
    """Return what calls a method and tells of it, guarded or not."""

    def around(wrapped: Any, _sender: Any, args: Any, kwargs: Any) -> Any:
        try:
            answer = wrapped(*args, **kwargs)
        except BaseException as error:
            observe(named(args, kwargs), None, error)
            raise
        observe(named(args, kwargs), answer, None)
        return answer

    async def around_coroutine(wrapped: Any, _sender: Any, args: Any, kwargs: Any) -> Any:
        try:
            answer = await wrapped(*args, **kwargs)
        except BaseException as error:
            observe(named(args, kwargs), None, error)
            raise
        observe(named(args, kwargs), answer, None)
        return answer

    return around_coroutine if style == "coroutine" else around


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


def _received(send: Callable[[], Any], receive: Callable[[Any], Any]) -> Any:
    return receive(send())


def _call(engine: Engine, request: ProviderCall | Poll, send: Callable[[], Any]) -> Any:
    if isinstance(request, Poll):
        return request.take(_pass_call(send))
    return drive(guarded(GuardedCall(engine, request)), send)


async def _coroutine(engine: Engine, request: ProviderCall | Poll, send: Callable[[], Any]) -> Any:
    if isinstance(request, Poll):
        return await request.take_async(await _pass_coroutine(send))
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


# What may pass costs nothing, or the user has allowed it; it is seen all the same.


def _pass_call(send: Callable[[], Any]) -> Any:
    with passing():
        return send()


async def _pass_coroutine(send: Callable[[], Any]) -> Any:
    with passing():
        return await send()


def _pass_generator(send: Callable[[], Any]) -> Any:
    made = send()
    return _asteps(made) if inspect.isasyncgen(made) else _steps(made)


def _steps(made: Any) -> Iterator[Any]:
    with closing(made):
        while True:
            with passing():
                try:
                    item = next(made)
                except StopIteration:
                    return
            yield item


async def _asteps(made: Any) -> AsyncIterator[Any]:
    async with aclosing(made):
        while True:
            with passing():
                try:
                    item = await anext(made)
                except StopAsyncIteration:
                    return
            yield item


@contextmanager
def _pass_manager(send: Callable[[], Any]) -> Iterator[Any]:
    with ExitStack() as stack:
        yield _pass_call(lambda: stack.enter_context(send()))


@asynccontextmanager
async def _pass_async_manager(send: Callable[[], Any]) -> Any:
    async with AsyncExitStack() as stack:
        yield await _pass_coroutine(lambda: stack.enter_async_context(send()))


_PASSING: Final[Mapping[str, Callable[[Callable[[], Any]], Any]]] = {
    "call": _pass_call,
    "coroutine": _pass_coroutine,
    "generator": _pass_generator,
    "manager": _pass_manager,
    "async manager": _pass_async_manager,
}
_STYLES: Final[Mapping[str, Callable[[Engine, Any, Callable[[], Any]], Any]]] = {
    "call": _call,
    "coroutine": _coroutine,
    "generator": _generator,
    "manager": _manager,
    "async manager": _async_manager,
}
