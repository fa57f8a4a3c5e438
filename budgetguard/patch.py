"""Guard the openai client: all of them, or one, at the method that every request goes through."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final, TypeVar

import wrapt

from budgetguard.adapters.openai import MODEL_MAP, OpenAIRequest, note_retry
from budgetguard.adapters.paths import endpoint_of
from budgetguard.adapters.polling import poll_of
from budgetguard.adapters.websockets import Websockets
from budgetguard.bookkeeping import Bookkeeper
from budgetguard.calls import Call
from budgetguard.config import changed
from budgetguard.errors import ConfigurationError
from budgetguard.flow import adrive, drive, guarded

C = TypeVar("C")
Request = Callable[..., Any]

_MODULE: Final = "openai._base_client"
_CLASSES: Final = ("SyncAPIClient", "AsyncAPIClient")
_PARAMETERS: Final = ("self", "cast_to", "options", "stream", "stream_cls")
_OPTIONS: Final = ("method", "url", "headers", "post_parser", "files", "json_data", "extra_json")
# The versions that the tests run on, as pyproject.toml has them.
_OLDEST: Final = (1, 109, 1)
_TOO_NEW: Final = (4,)
# What the client does between two tries; from outside, `request` looks the same however many there were.
_RETRY: Final = "_sleep_for_retry"
_RETRY_PARAMETERS: Final = ("options", "response")
_KEEPER: Final = "_budgetguard_keeper"

_lock = threading.RLock()
_patch: _Patch | None = None


def patch(keeper: Bookkeeper) -> None:
    """Guard every openai client of this process, whenever it is or was made.

    Works before and after `import openai`. Patching twice with the same bookkeeper is patching once.

    Raises:
        ConfigurationError: patched with another bookkeeper, or an openai that is not known to work.
    """
    global _patch
    with _lock:
        if _patch is not None:
            if _patch.keeper is keeper:
                return
            raise ConfigurationError(
                "openai is patched already, by another guard: call its unpatch_openai() first, "
                "or guard single clients with guard.wrap(client)"
            )
        made = _Patch(keeper)
        _patch = made
        try:
            # Runs at once if openai is imported, else as soon as it is.
            wrapt.register_post_import_hook(made.apply, _MODULE)
        except BaseException:
            _patch = None
            raise
        _websockets.close()


def unpatch() -> None:
    """Take the patch off again; what others have put around the same method stays. Idempotent."""
    global _patch
    with _lock:
        made, _patch = _patch, None
        if made is not None:
            made.remove()
        if not _any_wrapped:
            _websockets.open()


def is_patched() -> bool:
    """Whether `patch` is in force."""
    return _patch is not None


def wrap(client: C, keeper: Bookkeeper, model_map: Mapping[str, str] | None = None) -> C:
    """Guard one client in place, with all that `with_options()` and its like make from it, and return it.

    Its type keeps its name and stays an instance of what it was. Wrapping twice is wrapping once; of a
    client that is wrapped and patched, each call is charged once, by the wrap's bookkeeper.

    Args:
        client: an `OpenAI` or `AsyncOpenAI`.
        keeper: whose books its calls go into.
        model_map: as the setting of that name, for this client, before the setting's own names.

    Raises:
        ConfigurationError: no openai client, one of an openai that is not known to work, or wrapped with
            another bookkeeper; a bad `model_map`.
    """
    global _any_wrapped
    if model_map is not None:
        model_map = changed(keeper.settings, {"model_map": model_map}).model_map
    kind = type(client)
    present = keeper_of(client)
    if present is keeper:
        if model_map is not None:
            setattr(kind, MODEL_MAP, model_map)
        return client
    if present is not None:
        raise ConfigurationError(
            f"this {kind.__name__} is wrapped already, by another guard: make a new client"
        )
    if _is(client, "OpenAI"):
        _checked(sys.modules[_MODULE], "SyncAPIClient")
        request = _sync_request(kind)
    elif _is(client, "AsyncOpenAI"):
        _checked(sys.modules[_MODULE], "AsyncAPIClient")
        request = _async_request(kind)
    else:
        what = f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(client, type):
            what = f"the class {client.__qualname__} itself: make a client of it"
        raise ConfigurationError(
            f"wrap() guards clients of the openai package, not {what}; guard other functions with @budgeted"
        )
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    with _lock:
        _any_wrapped = True
        _websockets.close()
    ours = {_KEEPER: keeper, MODEL_MAP: model_map, "request": request, _RETRY: _noted_retry(kind)}
    client.__class__ = type(kind.__name__, (kind,), {**names, **ours})
    return client


def keeper_of(client: object) -> Bookkeeper | None:
    """Return the bookkeeper that a client was wrapped with, or None."""
    found: Bookkeeper | None = getattr(type(client), _KEEPER, None)
    return found


def _guard_of(client: object) -> Bookkeeper | None:
    patched = _patch
    return keeper_of(client) or (None if patched is None else patched.keeper)


_any_wrapped = False
_websockets = Websockets(_guard_of)


class _Patch:
    """Hold our wrappers around the client classes, for one bookkeeper."""

    def __init__(self, keeper: Bookkeeper) -> None:
        self.keeper = keeper
        self._active = True
        self._awaited = _MODULE not in sys.modules
        self._wrappers: list[tuple[Any, str, Any]] = []

    def apply(self, module: ModuleType) -> None:
        """Wrap `request` of both classes.

        Raises:
            ConfigurationError: this openai is not known to work; nothing is wrapped.
        """
        if not self._active:
            return
        try:
            kinds = [_checked(module, name) for name in _CLASSES]
        except ConfigurationError:
            if self._awaited:
                # The import fails with this; a program that tries it again must be refused again.
                sys.modules.pop(_MODULE, None)
                wrapt.register_post_import_hook(self.apply, _MODULE)
            raise
        for kind, around in zip(kinds, (self._sync, self._async), strict=True):
            for name, ours in (("request", around), (_RETRY, self._retry)):
                wrapper = wrapt.FunctionWrapper(kind.__dict__[name], ours, enabled=lambda: self._active)
                setattr(kind, name, wrapper)
                self._wrappers.append((kind, name, wrapper))

    def remove(self) -> None:
        """Take our wrappers off; one that others have wrapped stays below theirs, and does nothing."""
        self._active = False
        for kind, name, wrapper in self._wrappers:
            if kind.__dict__.get(name) is wrapper:
                setattr(kind, name, wrapper.__wrapped__)
        self._wrappers = []

    def _retry(self, wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
        if keeper_of(client) is None:  # else the client's own wrapper takes note
            note_retry(kwargs.get("options"), kwargs.get("response"))
        return wrapped(*args, **kwargs)

    def _sync(self, wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
        if keeper_of(client) is not None or not _is(client, "OpenAI"):
            return wrapped(*args, **kwargs)
        return _request(self.keeper, client, wrapped, *args, **kwargs)

    async def _async(self, wrapped: Request, client: Any, args: Any, kwargs: Any) -> Any:
        if keeper_of(client) is not None or not _is(client, "AsyncOpenAI"):
            return await wrapped(*args, **kwargs)
        return await _arequest(self.keeper, client, wrapped, *args, **kwargs)


def _request(
    keeper: Bookkeeper, client: Any, wrapped: Request, cast_to: Any, options: Any, **more: Any
) -> Any:
    request = _guarded_request(keeper, client, options, more)
    if request is None:
        poll = poll_of(keeper, client, options)
        answer = wrapped(cast_to, options, **more)
        return answer if poll is None else poll.take(answer)
    call = Call(keeper, request)
    return drive(guarded(call), functools.partial(wrapped, cast_to, request.options, **more))


async def _arequest(
    keeper: Bookkeeper, client: Any, wrapped: Request, cast_to: Any, options: Any, **more: Any
) -> Any:
    request = _guarded_request(keeper, client, options, more)
    if request is None:
        poll = poll_of(keeper, client, options)
        answer = await wrapped(cast_to, options, **more)
        return answer if poll is None else await poll.take_async(answer)
    call = Call(keeper, request)
    return await adrive(guarded(call), functools.partial(wrapped, cast_to, request.options, **more))


def _guarded_request(keeper: Bookkeeper, client: Any, options: Any, more: Any) -> OpenAIRequest | None:
    settings = keeper.settings
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
        return OpenAIRequest(
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


def _sync_request(kind: type) -> Request:
    inner: Request = kind.request  # type: ignore[attr-defined]  # every client has it

    @functools.wraps(inner)
    def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        wrapped = functools.partial(kind.request, self)  # type: ignore[attr-defined]  # checked at patch time
        return _request(getattr(self, _KEEPER), self, wrapped, *args, **kwargs)

    return request


def _noted_retry(kind: type) -> Request:
    inner: Request = getattr(kind, _RETRY)

    @functools.wraps(inner)
    def retry(self: Any, *args: Any, **kwargs: Any) -> Any:
        note_retry(kwargs.get("options"), kwargs.get("response"))
        return getattr(kind, _RETRY)(self, *args, **kwargs)

    return retry


def _async_request(kind: type) -> Request:
    inner: Request = kind.request  # type: ignore[attr-defined]  # checked at patch time

    @functools.wraps(inner)
    async def request(self: Any, *args: Any, **kwargs: Any) -> Any:
        wrapped = functools.partial(kind.request, self)  # type: ignore[attr-defined]  # checked at patch time
        return await _arequest(getattr(self, _KEEPER), self, wrapped, *args, **kwargs)

    return request


def _is(client: object, name: str) -> bool:
    """Whether a client is one of the openai package's, which may not have been imported."""
    kind = getattr(sys.modules.get("openai"), name, None)
    return isinstance(kind, type) and isinstance(client, kind)


def _checked(module: ModuleType, name: str) -> Any:
    """Return a client class if its `request` can be guarded; see `_difference`."""
    # While `import openai` is under way, openai itself does not say its version yet.
    version = str(getattr(sys.modules.get("openai._version"), "__version__", "of unknown version"))
    difference = _difference(module, name, version)
    if difference is not None:
        raise ConfigurationError(
            f"openai {version} is not one that budgetguard knows: {difference}. "
            "Install an openai from 1.109.1 to 3, or update budgetguard"
        )
    return getattr(module, name)


def _difference(module: ModuleType, name: str, version: str) -> str | None:
    """Say in what an openai is unlike those that the tests run on, or None."""
    kind = getattr(module, name, None)
    request = getattr(kind, "__dict__", {}).get("request")
    if not callable(request) or not set(_PARAMETERS) <= inspect.signature(request).parameters.keys():
        return f"it has no {name}.request({', '.join(_PARAMETERS)})"
    retry = getattr(kind, "__dict__", {}).get(_RETRY)
    if not callable(retry) or not set(_RETRY_PARAMETERS) <= inspect.signature(retry).parameters.keys():
        return f"it has no {name}.{_RETRY}({', '.join(_RETRY_PARAMETERS)})"
    if not callable(getattr(kind, "_prepare_url", None)):
        return f"it has no {name}._prepare_url"
    options = getattr(getattr(module, "FinalRequestOptions", None), "__annotations__", {})
    if not set(_OPTIONS) <= options.keys():
        return f"its FinalRequestOptions lack {', '.join(sorted(set(_OPTIONS) - options.keys()))}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    return None if _OLDEST <= numbers < _TOO_NEW else "its requests may go other ways"
