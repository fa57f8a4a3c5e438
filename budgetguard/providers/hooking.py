"""What stands at an SDK's `request` method, and what it does with each request.

Others put a `request` of their own on a client's class, on the class below it, or on one client, before us or
after us, so one place is not enough: we stand on top of a class that has one, and on the floor, in its code.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FunctionType
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import wrapt

from budgetguard.config import Settings, changed
from budgetguard.engine.call import GuardedCall
from budgetguard.engine.context import passing as let_pass
from budgetguard.engine.engine import Engine
from budgetguard.engine.flow import adrive, drive, guarded
from budgetguard.engine.links import current
from budgetguard.errors import ConfigurationError
from budgetguard.providers.attempts import AttemptCall, by_attempt, has_middleware
from budgetguard.providers.polling import poll_of
from budgetguard.providers.sdk import RETRY, Place, Route, Sdk, address_of
from budgetguard.providers.sent_call import is_covered
from budgetguard.providers.stainless import StainlessCall, is_marked, note_retry, passing, sending

Request: TypeAlias = Callable[..., Any]
WrapInner: TypeAlias = Callable[[Any, Engine, Mapping[str, str] | None], None]

REQUEST: Final = "request"
# The attributes of a wrapped client's type that have its guard, and its own names for models.
ENGINE: Final = "_budgetguard_engine"
MODEL_MAP: Final = "_budgetguard_model_map"
_MOST_ROUTES: Final = 256
_NOTHING: Final = nullcontext()


_FunctionWrapper: Any = wrapt.FunctionWrapper  # whose older versions take no types


class OnTop(_FunctionWrapper):  # type: ignore[misc]  # its base is Any
    """Wrap `request` of a class, and stand before a `request` that one client has of its own.

    A client's own attribute would hide the class's; it does not hide one that can be set.
    """

    def __get__(self, client: Any, kind: Any = None) -> Any:
        own = None if client is None else client.__dict__.get(REQUEST)
        if own is None:
            return super().__get__(client, kind)
        around: Any = self._self_wrapper

        def ours(theirs: Any, _: object, args: Any, kwargs: Any) -> Any:
            return around(theirs, client, args, kwargs)

        return wrapt.FunctionWrapper(own, ours)

    def __set__(self, client: Any, method: Any) -> None:
        client.__dict__[REQUEST] = method

    def __delete__(self, client: Any) -> None:
        try:
            del client.__dict__[REQUEST]
        except KeyError:
            raise AttributeError(REQUEST) from None


class Floor:
    """A function of an SDK that dispatches to us, under every name that anybody keeps it by.

    Its code is exchanged, since who has instrumented before us calls the function itself.

    Args:
        function: the SDK's.
        around: guards one request of a sync client.
        aaround: guards one request of an async client.
    """

    def __init__(self, function: FunctionType, around: Request, aaround: Request) -> None:
        self._function = function
        self._code = function.__code__
        self._kwdefaults = function.__kwdefaults__
        self._around, self._aaround = around, aaround
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
        options = options_of(args, kwargs)
        if is_marked(options):
            with sending(options):
                return self._original(client, *args, **kwargs)
        return self._around(functools.partial(self._original, client), client, args, kwargs)

    async def _asend(self, client: Any, args: Any, kwargs: Any) -> Any:
        options = options_of(args, kwargs)
        if is_marked(options):
            with sending(options):
                return await self._original(client, *args, **kwargs)
        return await self._aaround(functools.partial(self._original, client), client, args, kwargs)


def _dispatching(self: Any, *args: Any, _budgetguard: Any, **kwargs: Any) -> Any:
    return _budgetguard(self, args, kwargs)


async def _adispatching(self: Any, *args: Any, _budgetguard: Any, **kwargs: Any) -> Any:
    return await _budgetguard(self, args, kwargs)


def options_of(args: Any, kwargs: Any) -> Any:
    """Return the options of a request from the arguments of `request`, the client's included."""
    return kwargs["options"] if "options" in kwargs else args[1] if len(args) > 1 else None


def engine_of(client: object) -> Engine | None:
    """Return the engine that a client was wrapped with, or None."""
    found: Engine | None = getattr(type(client), ENGINE, None)
    return found


class _Known:
    """What is known of a client's class, and of where its requests go.

    Attributes:
        is_client: whether it is a client's of the SDK.
        routes: (place, method, url, base URL, address) -> where a request goes, by these settings. Both are
            replaced together: two threads may come with different settings.
    """

    __slots__ = ("is_client", "routes")

    def __init__(self, *, is_client: bool) -> None:
        self.is_client = is_client
        self.routes: tuple[Settings | None, dict[tuple[Place, str, str, str, str], Route]] = None, {}


class RequestGuard:
    """The guard of each request of one SDK's clients.

    Args:
        sdk: the SDK.

    Attributes:
        patched: whose books the requests go into of clients that are not wrapped; None if nobody's.
    """

    def __init__(self, sdk: Sdk) -> None:
        self.sdk = sdk
        self.patched: Engine | None = None
        self._known: WeakKeyDictionary[type, _Known] = WeakKeyDictionary()

    def engine_for(self, client: object) -> Engine | None:
        """Return who guards a client, or None."""
        return engine_of(client) or self.patched

    def around(self, wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
        """Guard one request of a sync client."""
        engine = self._payer_of(client, args, kwargs)
        if engine is None:
            with self._allowing(client):
                return wrapped(*args, **kwargs)
        return self._request(engine, client, wrapped, *args, **kwargs)

    async def aaround(self, wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
        """Guard one request of an async client."""
        engine = self._payer_of(client, args, kwargs)
        if engine is None:
            with self._allowing(client):
                return await wrapped(*args, **kwargs)
        return await self._arequest(engine, client, wrapped, *args, **kwargs)

    def _payer_of(self, client: Any, args: Any, kwargs: Any) -> Engine | None:
        """Return who guards a request; None if nobody does, or it is guarded further up."""
        engine = engine_of(client) or self.patched
        options = options_of(args, kwargs)
        if engine is None or is_marked(options):
            return None
        if current.frame is not None and is_covered(self.sdk.package):
            return None
        if self.sdk.refuses is not None and (why := self.sdk.refuses(client)) is not None:
            self._refuse(engine, client, options, why)
            return None
        return engine if self._known_of(type(client)).is_client else None

    def _allowing(self, client: Any) -> AbstractContextManager[None]:
        """Return what surrounds a request that is not held: that of a guarded client is seen all the same."""
        return _NOTHING if self.sdk.refuses is None or self.engine_for(client) is None else let_pass()

    def _known_of(self, kind: type) -> _Known:
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = _Known(is_client=self.sdk.base_of(kind) is not None)
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

    def attempt(
        self, engine: Engine, client: Any, wrapped: Request, options: Any, more: Mapping[str, Any]
    ) -> Any:
        """Guard one attempt of a request of a sync client that has middleware."""
        request = self._guarded_request(engine, client, options, more, AttemptCall)
        if request is None:
            poll = poll_of(engine, self.sdk, client, options)
            with let_pass():
                answer = wrapped(passing(options), **more)
            if poll is not None:
                poll.take(answer[0])
            return answer
        call = GuardedCall(engine, request)
        return drive(guarded(call), functools.partial(wrapped, request.options, **more))

    async def aattempt(
        self, engine: Engine, client: Any, wrapped: Request, options: Any, more: Mapping[str, Any]
    ) -> Any:
        """Guard one attempt of a request of an async client that has middleware."""
        request = self._guarded_request(engine, client, options, more, AttemptCall)
        if request is None:
            poll = poll_of(engine, self.sdk, client, options)
            with let_pass():
                answer = await wrapped(passing(options), **more)
            if poll is not None:
                await poll.take_async(answer[0])
            return answer
        call = GuardedCall(engine, request)
        return await adrive(guarded(call), functools.partial(wrapped, request.options, **more))

    def _request(
        self, engine: Engine, client: Any, wrapped: Request, cast_to: Any, options: Any, **more: Any
    ) -> Any:
        if has_middleware(client):
            return wrapped(cast_to, by_attempt(options, engine, self), **more)
        request = self._guarded_request(engine, client, options, more)
        if request is None:
            poll = poll_of(engine, self.sdk, client, options)
            with let_pass():
                answer = wrapped(cast_to, passing(options), **more)
            return answer if poll is None else poll.take(answer)
        call = GuardedCall(engine, request)
        return drive(guarded(call), functools.partial(wrapped, cast_to, request.options, **more))

    async def _arequest(
        self, engine: Engine, client: Any, wrapped: Request, cast_to: Any, options: Any, **more: Any
    ) -> Any:
        if has_middleware(client):
            return await wrapped(cast_to, by_attempt(options, engine, self), **more)
        request = self._guarded_request(engine, client, options, more)
        if request is None:
            poll = poll_of(engine, self.sdk, client, options)
            with let_pass():
                answer = await wrapped(cast_to, passing(options), **more)
            return answer if poll is None else await poll.take_async(answer)
        call = GuardedCall(engine, request)
        return await adrive(guarded(call), functools.partial(wrapped, cast_to, request.options, **more))

    def _guarded_request(
        self,
        engine: Engine,
        client: Any,
        options: Any,
        more: Mapping[str, Any],
        kind: type[StainlessCall] = StainlessCall,
    ) -> StainlessCall | None:
        settings = engine.settings
        route = self._route_of(client, options, settings)
        endpoint = route.endpoint
        if endpoint is None:
            return None
        model_map = getattr(type(client), MODEL_MAP, None)
        if model_map is not None:
            settings = changed(settings, {"model_map": {**settings.model_map, **model_map}})
        try:
            return kind(client, options, endpoint, route, self.sdk, settings, stream=bool(more.get("stream")))
        except ConfigurationError:
            if route.free:
                return None  # what cannot be read costs nothing there either
            raise

    def _route_of(self, client: Any, options: Any, settings: Settings) -> Route:
        """Return where a request goes; it is found once for each method and address.

        Raises:
            UnknownEndpointError: it may cost money, and nobody knows how much.
        """
        known = self._known_of(type(client))
        found_by, routes = known.routes
        if found_by is not settings or len(routes) >= _MOST_ROUTES:
            routes = {}
            known.routes = settings, routes
        base_url = str(client.base_url)
        address = address_of(client, options.url, base_url)
        key = self.sdk.place_of(client), options.method, options.url, base_url, address
        found = routes.get(key)
        if found is None:
            found = routes[key] = self.sdk.route_of(*key, settings)
        return found


def wrapped_kind(
    kind: Any,
    guard: RequestGuard,
    engine: Engine,
    model_map: Mapping[str, str] | None,
    wrap_inner: WrapInner,
    *,
    asynchronous: bool,
) -> type:
    """Return a client's class with our methods, whose name is the class's own.

    Args:
        kind: the client's class.
        guard: guards its requests.
        engine: whose books they go into.
        model_map: the client's own names for models.
        wrap_inner: guards the clients that one of another's class has made for itself.
        asynchronous: whether its `request` is.
    """

    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        return kind.request(self, *args, **kwargs)  # as it is by then: others may wrap it meanwhile

    async def arequest(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await kind.request(self, *args, **kwargs)

    def retry(self: Any, *args: Any, **kwargs: Any) -> Any:
        note_retry(kwargs.get("options"), kwargs.get("response"))
        return getattr(kind, RETRY)(self, *args, **kwargs)

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        wrap_inner(self, engine, getattr(type(self), MODEL_MAP))

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    ours: dict[str, Any] = {ENGINE: engine, MODEL_MAP: model_map}
    ours[REQUEST] = OnTop(
        functools.wraps(kind.request)(arequest if asynchronous else request),
        guard.aaround if asynchronous else guard.around,
    )
    ours[RETRY] = functools.wraps(getattr(kind, RETRY))(retry)
    if not guard.sdk.made(kind):
        ours["__init__"] = functools.wraps(kind.__init__)(init)
    return type(kind.__name__, (kind,), {**names, **ours})


def retried(wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
    """Note that a client sends a request again: around what it does between two tries."""
    if engine_of(client) is None:  # else the client's own wrapper notices it
        note_retry(kwargs.get("options"), kwargs.get("response"))
    return wrapped(*args, **kwargs)
