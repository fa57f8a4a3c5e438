"""Guard the openai client: all of them, or one, at the method that every request goes through.

Others stand around the same method: instrumentation puts a `request` of its own on `OpenAI`, on the class
below it, or on one client, before us or after us. So we stand at two places. On top, of each class that has
a `request` when it is patched, and before one that a client has of its own; and on the floor, in openai's
own function, under whatever name somebody keeps it. A request that is guarded carries a mark past the rest.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final, TypeVar

import wrapt

from budgetguard.config import changed
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import adrive, drive, guarded
from budgetguard.errors import ConfigurationError
from budgetguard.events import logger
from budgetguard.providers import imports
from budgetguard.providers.paths import endpoint_of
from budgetguard.providers.polling import poll_of
from budgetguard.providers.stainless import (
    MODEL_MAP,
    StainlessCall,
    is_marked,
    note_retry,
    passing,
    sending,
)
from budgetguard.providers.websockets import Websockets

C = TypeVar("C")
Request = Callable[..., Any]

_MODULE: Final = "openai._base_client"
_CLASSES: Final = ("SyncAPIClient", "AsyncAPIClient")
# What a client's class has among its own, whichever import of openai it is from.
_CLIENTS: Final = {"OpenAI": "SyncAPIClient", "AsyncOpenAI": "AsyncAPIClient"}
_OPENAI: Final = ("openai", "openai._client")  # the package gives what it exports its own name
_REQUEST: Final = "request"
_PARAMETERS: Final = ("self", "cast_to", "options", "stream", "stream_cls")
_OPTIONS: Final = ("method", "url", "headers", "post_parser", "files", "json_data", "extra_json")
# The versions that the tests run on, as pyproject.toml has them.
_OLDEST: Final = (1, 109, 1)
_TOO_NEW: Final = (4,)
# What the client does between two tries; from outside, `request` looks the same however many there were.
_RETRY: Final = "_sleep_for_retry"
_RETRY_PARAMETERS: Final = ("options", "response")
_KEEPER: Final = "_budgetguard_keeper"
# How far down in a client of another's class its inner clients are looked for, and among how many objects.
_DEPTH: Final = 4
_MOST: Final = 5_000

_lock = threading.RLock()
_patched: Engine | None = None
_any_wrapped = False
_warned = False
# What we have put where: class, name, wrapper; and the functions of openai that dispatch to us.
_wrappers: list[tuple[type, str, Any]] = []
# Another one after each `unpatch`: what takes note of retries must not do so twice.
_turn = object()
_floors: dict[FunctionType, _Floor] = {}


def patch(engine: Engine) -> None:
    """Guard every openai client of this process, whenever it is or was made.

    Works before and after `import openai`, and for an openai that is imported once more. Patching again with
    the same bookkeeper puts our wrapper on top of what others have put there since.

    Raises:
        ConfigurationError: patched with another bookkeeper, or an openai that is not known to work.
    """
    global _patched
    with _lock:
        former = _patched
        if former is not None and former is not engine:
            raise ConfigurationError(
                "openai is patched already, by another guard: call its unpatch_openai() first, "
                "or guard single clients with guard.wrap(client)"
            )
        _patched = engine
        try:
            imports.watch(_MODULE, _CLASSES, _apply)
        except BaseException:
            _patched = former
            raise
        _websockets.close()
    imports.watch("litellm", (), _warn_of_litellm)


def unpatch() -> None:
    """Take the patch off again; what others have put around the same method stays. Idempotent."""
    global _patched, _turn
    with _lock:
        _patched, _turn = None, object()
        for kind, name, wrapper in reversed(_wrappers):
            # One that others have wrapped stays below theirs, and does nothing.
            if kind.__dict__.get(name) is wrapper:
                setattr(kind, name, wrapper.__wrapped__)
        _wrappers.clear()
        if not _any_wrapped:
            for floor in _floors.values():
                floor.remove()
            _floors.clear()
            _websockets.open()


def is_patched() -> bool:
    """Whether `patch` is in force."""
    return _patched is not None


def unguarded() -> str | None:
    """Say in what an openai that was patched is not guarded all the same, or None."""
    module = sys.modules.get(_MODULE)
    for name in _CLASSES if module is not None else ():
        base = module.__dict__.get(name)
        for kind in _own(base) if isinstance(base, type) else ():
            if not _leads_to_us(kind.__dict__[_REQUEST]):
                return f"somebody has replaced {kind.__qualname__}.request since"
    return None


def wrap(client: C, engine: Engine, model_map: Mapping[str, str] | None = None) -> C:
    """Guard one client in place, with all that `with_options()` and its like make from it, and return it.

    Its type keeps its name and stays an instance of what it was. Wrapping twice is wrapping once; of a
    client that is wrapped and patched, each call is charged once, by the wrap's bookkeeper. Of a client of
    another's class, which may send through clients of its own, those are wrapped as well.

    Args:
        client: an `OpenAI` or `AsyncOpenAI`.
        engine: whose books its calls go into.
        model_map: as the setting of that name, for this client, before the setting's own names.

    Raises:
        ConfigurationError: no openai client, one of an openai that is not known to work, or wrapped with
            another bookkeeper; a bad `model_map`.
    """
    global _any_wrapped
    if model_map is not None:
        model_map = changed(engine.settings, {"model_map": model_map}).model_map
    kind = type(client)
    present = keeper_of(client)
    if present is not None and present is not engine:
        raise ConfigurationError(
            f"this {kind.__name__} is wrapped already, by another guard: make a new client"
        )
    base = _base_of(client)
    if base is None:
        what = f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(client, type):
            what = f"the class {client.__qualname__} itself: make a client of it"
        raise ConfigurationError(
            f"wrap() guards clients of the openai package, not {what}; guard other functions with @budgeted"
        )
    module = sys.modules.get(_MODULE)
    if module is None:  # removed since the client was made
        _check(base, inspect.unwrap(base.__dict__["__init__"]).__globals__, base.__name__)
    else:
        _check(module.__dict__.get(base.__name__), module.__dict__, base.__name__)
    with _lock:
        _any_wrapped = True
        _lay_floor(base)
        _websockets.close()
    for inner in _inner_clients(client):
        wrap(inner, engine, model_map)
    if present is engine:
        if model_map is not None:
            setattr(kind, MODEL_MAP, model_map)
        return client
    client.__class__ = _wrapped_kind(kind, engine, model_map)
    return client


def keeper_of(client: object) -> Engine | None:
    """Return the bookkeeper that a client was wrapped with, or None."""
    found: Engine | None = getattr(type(client), _KEEPER, None)
    return found


def _guard_of(client: object) -> Engine | None:
    return keeper_of(client) or _patched


_websockets = Websockets(_guard_of, lambda: _patched)


def _apply(module: ModuleType) -> None:
    """Guard a module's classes.

    Raises:
        ConfigurationError: this openai is not known to work; nothing is wrapped.
    """
    with _lock:
        if _patched is None:
            return
        kinds = [module.__dict__.get(name) for name in _CLASSES]
        for name, kind in zip(_CLASSES, kinds, strict=True):
            _check(kind, module.__dict__, name)
        for base in kinds:
            assert isinstance(base, type)
            _lay_floor(base)
            around = _around if base.__name__ == _CLASSES[0] else _aaround
            for kind in _own(base):
                if not _stands(kind, _REQUEST):
                    _put(kind, _REQUEST, _OnTop(kind.__dict__[_REQUEST], around))
            if not any((kind, name) == (base, _RETRY) for kind, name, _ in _wrappers):
                enabled = functools.partial(_is_turn, _turn)
                noting = wrapt.FunctionWrapper(base.__dict__[_RETRY], _retry, enabled=enabled)
                _put(base, _RETRY, noting)


def _is_turn(turn: object) -> bool:
    return turn is _turn


def _leads_to_us(method: Any) -> bool:
    """Whether what stands as `request` is ours, or calls it as far as it tells."""
    for _ in range(_MOST):
        if isinstance(method, _OnTop) or (isinstance(method, FunctionType) and method in _floors):
            return True
        if not hasattr(method, "__wrapped__"):
            break
        method = method.__wrapped__
    return False


def _put(kind: type, name: str, wrapper: Any) -> None:
    setattr(kind, name, wrapper)
    _wrappers.append((kind, name, wrapper))


def _warn_of_litellm(_module: ModuleType) -> None:
    global _warned
    if _patched is not None and not _warned:
        _warned = True
        logger.warning(
            "budgetguard: litellm is imported, and not all of its calls pass the openai client. What it "
            "sends over httpx is not seen and not guarded: openai's responses, gpt-5-codex and image edits, "
            "and all other providers. Call it in functions decorated with @budgeted"
        )


def _lay_floor(base: type) -> None:
    function = _function_of(base)
    if function is not None and function not in _floors:
        _floors[function] = _Floor(function)


def _own(base: type) -> Iterator[type]:
    """Yield a class and all below it that have a `request` themselves."""
    seen = [base]
    for kind in seen:
        below: list[type] = kind.__subclasses__()
        seen += [one for one in below if one not in seen]
        # A wrapped client's class has our own.
        if callable(kind.__dict__.get(_REQUEST)) and _KEEPER not in kind.__dict__:
            yield kind


def _stands(kind: type, name: str) -> bool:
    present = kind.__dict__.get(name)
    return any(present is wrapper for of, at, wrapper in _wrappers if (of, at) == (kind, name))


_FunctionWrapper: Any = wrapt.FunctionWrapper  # whose older versions take no types


class _OnTop(_FunctionWrapper):  # type: ignore[misc]
    """Wrap `request` of a class, and stand before a `request` that one client has of its own.

    A client's own attribute would hide the class's; it does not hide one that can be set.
    """

    def __get__(self, client: Any, kind: Any = None) -> Any:
        own = None if client is None else client.__dict__.get(_REQUEST)
        if own is None:
            return super().__get__(client, kind)
        around: Any = self._self_wrapper
        ours: Any = lambda theirs, _, args, kwargs: around(theirs, client, args, kwargs)  # noqa: E731
        return wrapt.FunctionWrapper(own, ours)

    def __set__(self, client: Any, method: Any) -> None:
        client.__dict__[_REQUEST] = method

    def __delete__(self, client: Any) -> None:
        try:
            del client.__dict__[_REQUEST]
        except KeyError:
            raise AttributeError(_REQUEST) from None


class _Floor:
    """Have a function of openai dispatch to us, under every name that anybody keeps it by.

    Its code is exchanged, since who has instrumented before us calls the function itself.
    """

    def __init__(self, function: FunctionType) -> None:
        self._function = function
        self._code = function.__code__
        self._kwdefaults = function.__kwdefaults__
        signature = inspect.signature(function)
        asynchronous = inspect.iscoroutinefunction(function)
        copied: Any = FunctionType(
            self._code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        copied.__kwdefaults__ = self._kwdefaults
        copied.__qualname__, copied.__module__ = function.__qualname__, function.__module__
        self._original = copied
        code = (_dispatching if not asynchronous else _adispatching).__code__
        function.__dict__["__signature__"] = signature
        function.__kwdefaults__ = {
            **(self._kwdefaults or {}),
            "_budgetguard": self._send if not asynchronous else self._asend,
        }
        function.__code__ = code.replace(co_name=function.__name__, co_qualname=function.__qualname__)

    def remove(self) -> None:
        """Give the function its own code again."""
        self._function.__code__ = self._code
        self._function.__kwdefaults__ = self._kwdefaults
        self._function.__dict__.pop("__signature__", None)

    def _send(self, client: Any, args: Any, kwargs: Any) -> Any:
        options = _options(args, kwargs)
        if is_marked(options):
            with sending(options):
                return self._original(client, *args, **kwargs)
        return _around(functools.partial(self._original, client), client, args, kwargs)

    async def _asend(self, client: Any, args: Any, kwargs: Any) -> Any:
        options = _options(args, kwargs)
        if is_marked(options):
            with sending(options):
                return await self._original(client, *args, **kwargs)
        return await _aaround(functools.partial(self._original, client), client, args, kwargs)


def _dispatching(self: Any, *args: Any, _budgetguard: Any, **kwargs: Any) -> Any:
    return _budgetguard(self, args, kwargs)


async def _adispatching(self: Any, *args: Any, _budgetguard: Any, **kwargs: Any) -> Any:
    return await _budgetguard(self, args, kwargs)


def _options(args: Any, kwargs: Any) -> Any:
    return kwargs["options"] if "options" in kwargs else args[1] if len(args) > 1 else None


def _payer_of(client: Any, args: Any, kwargs: Any) -> Engine | None:
    """Return who guards a request; None if nobody does, or it is guarded further up."""
    engine = _guard_of(client)
    if engine is None or is_marked(_options(args, kwargs)) or _base_of(client) is None:
        return None
    return engine


def _around(wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
    engine = _payer_of(client, args, kwargs)
    if engine is None:
        return wrapped(*args, **kwargs)
    return _request(engine, client, wrapped, *args, **kwargs)


async def _aaround(wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
    engine = _payer_of(client, args, kwargs)
    if engine is None:
        return await wrapped(*args, **kwargs)
    return await _arequest(engine, client, wrapped, *args, **kwargs)


def _retry(wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
    if keeper_of(client) is None:  # else the client's own wrapper takes note
        note_retry(kwargs.get("options"), kwargs.get("response"))
    return wrapped(*args, **kwargs)


def _request(engine: Engine, client: Any, wrapped: Request, cast_to: Any, options: Any, **more: Any) -> Any:
    request = _guarded_request(engine, client, options, more)
    if request is None:
        poll = poll_of(engine, client, options)
        answer = wrapped(cast_to, passing(options), **more)
        return answer if poll is None else poll.take(answer)
    call = GuardedCall(engine, request)
    return drive(guarded(call), functools.partial(wrapped, cast_to, request.options, **more))


async def _arequest(
    engine: Engine, client: Any, wrapped: Request, cast_to: Any, options: Any, **more: Any
) -> Any:
    request = _guarded_request(engine, client, options, more)
    if request is None:
        poll = poll_of(engine, client, options)
        answer = await wrapped(cast_to, passing(options), **more)
        return answer if poll is None else await poll.take_async(answer)
    call = GuardedCall(engine, request)
    return await adrive(guarded(call), functools.partial(wrapped, cast_to, request.options, **more))


def _guarded_request(engine: Engine, client: Any, options: Any, more: Any) -> StainlessCall | None:
    settings = engine.settings
    address = str(client._prepare_url(options.url))
    free = settings.is_free(address)
    endpoint = endpoint_of(
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


def _wrapped_kind(kind: Any, engine: Engine, model_map: Mapping[str, str] | None) -> type:
    """Return a client's class with our methods, whose name is the class's own."""
    asynchronous = getattr(_base_of_type(kind), "__name__", "") == _CLASSES[1]

    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        return kind.request(self, *args, **kwargs)  # as it is by then: others may wrap it meanwhile

    async def arequest(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await kind.request(self, *args, **kwargs)

    def retry(self: Any, *args: Any, **kwargs: Any) -> Any:
        note_retry(kwargs.get("options"), kwargs.get("response"))
        return getattr(kind, _RETRY)(self, *args, **kwargs)

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        for inner in _inner_clients(self):
            wrap(inner, engine, getattr(type(self), MODEL_MAP))

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    ours: dict[str, Any] = {_KEEPER: engine, MODEL_MAP: model_map}
    ours[_REQUEST] = _OnTop(
        functools.wraps(kind.request)(arequest if asynchronous else request),
        _aaround if asynchronous else _around,
    )
    ours[_RETRY] = functools.wraps(getattr(kind, _RETRY))(retry)
    if not _is_openais(kind):
        ours["__init__"] = functools.wraps(kind.__init__)(init)
    return type(kind.__name__, (kind,), {**names, **ours})


def _inner_clients(client: object) -> list[Any]:
    """Return the clients that a client of another's class keeps, through which it may send."""
    if _is_openais(type(client)):
        return []
    found: list[Any] = []
    seen: dict[int, Any] = {id(client): client}
    level: list[Any] = [client]
    for _ in range(_DEPTH):
        level = [one for holder in level for one in _parts(holder)]
        level = list({id(one): one for one in level if id(one) not in seen}.values())
        seen |= {id(one): one for one in level}
        found += [one for one in level if _base_of(one) is not None]
        level = [one for one in level if _base_of(one) is None]
        if len(seen) > _MOST:
            break
    return found


def _parts(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return list(holder.values())
    if isinstance(holder, list | tuple | set):
        return list(holder)
    if isinstance(holder, type | ModuleType | FunctionType):
        return []
    kept = getattr(holder, "__dict__", None)
    return list(kept.values()) if isinstance(kept, dict) else []


def _is_openais(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "openai"


def _base_of(client: object) -> type | None:
    """Return the class in openai that has the `request` of a client, or None if it is no client of openai's.

    By names: an openai that was imported twice has two of each class.
    """
    return _base_of_type(type(client))


def _base_of_type(type_: type) -> type | None:
    name = None
    for kind in type_.__mro__:
        if name is None:
            name = _CLIENTS.get(kind.__name__) if kind.__module__ in _OPENAI else None
        elif kind.__name__ == name and kind.__module__ == _MODULE:
            return kind
    return None


def _function_of(base: Any) -> FunctionType | None:
    """Return openai's own `request`, below what others have put around it; None if it is out of reach."""
    try:
        function = inspect.unwrap(base.__dict__[_REQUEST])
    except (AttributeError, KeyError, ValueError):
        return None
    plain = isinstance(function, FunctionType) and function.__module__ == _MODULE
    return function if plain and not function.__code__.co_freevars else None


def _check(kind: Any, namespace: Mapping[str, Any], name: str) -> None:
    """Refuse a class, of a module of that namespace, whose `request` cannot be guarded.

    Raises:
        ConfigurationError: it cannot; see `_difference`.
    """
    # While `import openai` is under way, openai itself does not say its version yet.
    version = str(getattr(sys.modules.get("openai._version"), "__version__", "of unknown version"))
    difference = _difference(kind, namespace, name, version)
    if difference is not None:
        raise ConfigurationError(
            f"openai {version} is not one that budgetguard knows: {difference}. "
            "Install an openai from 1.109.1 to 3, or update budgetguard"
        )


def _difference(kind: Any, namespace: Mapping[str, Any], name: str, version: str) -> str | None:
    """Say in what an openai is unlike those that the tests run on, or None."""
    request = getattr(kind, "__dict__", {}).get("request")
    if not callable(request) or not set(_PARAMETERS) <= inspect.signature(request).parameters.keys():
        return f"it has no {name}.request({', '.join(_PARAMETERS)})"
    retry = getattr(kind, "__dict__", {}).get(_RETRY)
    if not callable(retry) or not set(_RETRY_PARAMETERS) <= inspect.signature(retry).parameters.keys():
        return f"it has no {name}.{_RETRY}({', '.join(_RETRY_PARAMETERS)})"
    if not callable(getattr(kind, "_prepare_url", None)):
        return f"it has no {name}._prepare_url"
    options = getattr(namespace.get("FinalRequestOptions"), "__annotations__", {})
    if not set(_OPTIONS) <= options.keys():
        return f"its FinalRequestOptions lack {', '.join(sorted(set(_OPTIONS) - options.keys()))}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    return None if _OLDEST <= numbers < _TOO_NEW else "its requests may go other ways"
