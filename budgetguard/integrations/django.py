"""A middleware of Django's own: the user who is logged in pays, and refusals become 402.

    MIDDLEWARE = [..., "django.contrib.auth.middleware.AuthenticationMiddleware",
                  "budgetguard.integrations.django.BudgetDjangoMiddleware"]
    BUDGETGUARD = {"authenticated": True, "missing": 401}  # or {"header": "x-user"}, or {"user": function}

It is around views, sync and async, and bodies that are streamed. Django turns exceptions of views into
responses itself, so the ASGI and WSGI middlewares, which are around Django, never see them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.integrations.web import (
    PayerOptions,
    identity_of,
    log_answered,
    problem_response,
    refusal_in,
)

try:
    from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
    from django.conf import settings
    from django.http import FileResponse, HttpResponse
except ImportError as error:
    raise ImportError("budgetguard.integrations.django needs Django: pip install django") from error

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

_END: Final = object()
_NAMES: Final = tuple(one.name for one in fields(PayerOptions))


class BudgetDjangoMiddleware:
    """Charge each request to its user, and answer refusals that no view catches.

    Its options are the setting `BUDGETGUARD` of Django: `header`, `user` (a function of the request, sync or
    async) or `authenticated` (`request.user`, by its primary key); `missing` (`"pass"`, 401 or 403) and
    `details`. The default is `{"authenticated": True}`.

    A stream that is refused at its first part is answered with a problem document as well: its head waits for
    that part. After that it can only be broken off.

    Raises:
        ConfigurationError: a bad option.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._options = _options(getattr(settings, "BUDGETGUARD", {"authenticated": True}))
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._respond_async(request)
        try:
            payer = self._options.payer(self._found(request))
            with payer or nullcontext():
                response = self._get_response(request)
            return _paid(response, payer or _nobodys)
        except BudgetGuardError as error:
            return self._refused(error)

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        try:
            payer = self._options.payer(await self._found_async(request))
            with payer or nullcontext():
                response = await self._get_response(request)
            return await _paid_async(response, payer or _nobodys)
        except BudgetGuardError as error:
            return self._refused(error)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer an exception that a view let out, if it is a refusal."""
        refusal = refusal_in(exception)
        return None if refusal is None else self._refused(refusal)

    def _refused(self, error: BudgetGuardError) -> HttpResponse:
        if refusal_in(error) is None:
            raise error
        response = problem_response(error, details=self._options.details)
        log_answered(error, response.status)
        return HttpResponse(response.body, status=response.status, headers=dict(response.headers))

    def _found(self, request: HttpRequest) -> object:
        if self._options.user is not None:
            function = self._options.user
            return async_to_sync(function)(request) if iscoroutinefunction(function) else function(request)
        if self._options.authenticated:
            _check_authenticated(request)
            return identity_of(request.user)
        return self._header(request)

    async def _found_async(self, request: HttpRequest) -> object:
        if self._options.user is not None:
            # A sync one may ask the database.
            function = self._options.user
            if not iscoroutinefunction(function):
                function = sync_to_async(function)
            return await function(request)
        if self._options.authenticated:
            _check_authenticated(request)
            return identity_of(await request.auser())
        return self._header(request)

    def _header(self, request: HttpRequest) -> str | None:
        value = request.headers.get(self._options.header or "")
        return None if value is None else self._options.header_value([_as_sent(value)])


def _as_sent(value: str) -> bytes:
    # Django has decoded it as Latin-1 under ASGI, and as the server did under WSGI, which is the same.
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:  # its test client passes on what it is given
        return value.encode()


def _options(given: object) -> PayerOptions:
    if not isinstance(given, Mapping) or any(name not in _NAMES for name in given):
        raise ConfigurationError(
            f"the setting BUDGETGUARD of Django is a mapping with some of {', '.join(_NAMES)}, not {given!r}"
        )
    return PayerOptions(**given)


def _check_authenticated(request: HttpRequest) -> None:
    if not hasattr(request, "user"):
        raise ConfigurationError(
            "the user who is logged in pays, and there is no request.user: in MIDDLEWARE, put "
            "budgetguard.integrations.django.BudgetDjangoMiddleware after "
            "django.contrib.auth.middleware.AuthenticationMiddleware"
        )


# A stream's first part is made before its head is sent, so that it can be refused.


def _is_streamed(response: Any) -> bool:
    return bool(getattr(response, "streaming", False)) and not isinstance(response, FileResponse)


def _nobodys(steps: Any) -> Any:
    """Leave the steps of a body as they are: a call in them may be refused for want of a user."""
    return steps


def _paid(response: Any, payer: budget_user | Callable[[Any], Any]) -> Any:
    """Return a response whose body, if it is streamed, is paid at each step."""
    if _is_streamed(response):
        if response.is_async:  # Django reads it to its end at once, in an event loop
            response.streaming_content = payer(_asteps)(response.streaming_content)
        else:
            steps = payer(_steps)(response.streaming_content)
            response.streaming_content = _resumed(next(steps, _END), steps)
    return response


async def _paid_async(response: Any, payer: budget_user | Callable[[Any], Any]) -> Any:
    """Do as `_paid` where the next one to read it is async."""
    if _is_streamed(response):
        if not response.is_async:  # Django reads it to its end at once, in a thread
            return await sync_to_async(_paid)(response, payer)
        steps = payer(_asteps)(response.streaming_content)
        response.streaming_content = _aresumed(await anext(steps, _END), steps)
    return response


def _steps(parts: Iterator[Any]) -> Generator[Any, None, None]:
    yield from parts


def _resumed(first: object, steps: Generator[Any, None, None]) -> Iterator[Any]:
    with closing(steps):
        if first is not _END:
            yield first
            yield from steps


async def _asteps(parts: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with aclosing(parts):
        async for part in parts:
            yield part


async def _aresumed(first: object, steps: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
    async with aclosing(steps):
        if first is not _END:
            yield first
            async for part in steps:
                yield part
