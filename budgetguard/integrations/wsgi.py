"""A middleware for every WSGI application (Flask, Django, Pyramid, ...): who pays, and refusals as 402.

    app.wsgi_app = BudgetWsgiMiddleware(app.wsgi_app, header="x-user")  # Flask
    application = BudgetWsgiMiddleware(get_wsgi_application(), header="x-user")  # any other

The user pays for everything that belongs to the request: its view, threads that it starts, the body that is
streamed, and what the application does when that is closed. Flask and Django answer exceptions of their
views themselves: see `budgetguard.integrations.flask` and `.django` for their refusals.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, Final, TypeAlias

from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.integrations.web import (
    Missing,
    PayerOptions,
    log_answered,
    log_broken_off,
    problem_response,
    refusal_in,
)

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
WSGIApp: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

_END: Final = object()


class BudgetWsgiMiddleware:
    """Charge each request to its user, and answer refusals that the application lets out.

    Where a request is refused before the first part of its body, it is answered with the error's status (402
    for a budget that is used up) and a problem document. After that it can only be broken off, which is
    logged.

    Args:
        app: the application.
        header: the request header whose value is the user's id. Have your proxy set it, or take it out of
            what clients send: whoever can send it chooses who pays.
        user: a function that gets the environ and returns the user's id, or None for none.
        authenticated: the user in `REMOTE_USER` pays, whom the server has authenticated.
        missing: what becomes of a request without a user: `"pass"`, 401 or 403.
        details: whether a refusal tells the client its message and numbers, or only which error it is.

    Raises:
        ConfigurationError: none or several of `header`, `user` and `authenticated`, or a bad value.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        header: str | None = None,
        user: Callable[[Environ], str | None] | None = None,
        authenticated: bool = False,
        missing: Missing = "pass",
        details: bool = True,
    ) -> None:
        self.app = app
        self._options = PayerOptions(header, user, authenticated, missing, details)
        if inspect.iscoroutinefunction(user):
            raise ConfigurationError(f"WSGI is sync, and user={user!r} is async: pass a function that is not")

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        answering = _Answering(environ, start_response, self._options.details)
        try:
            steps = self._serve(self._payer(environ), environ, answering.start)
            found = next(steps)
        except Exception as error:  # noqa: BLE001 - raised again, if it is no refusal
            return [answering.refuse(error)]
        if isinstance(found, list | tuple):  # all of it is there, and nothing is left to be paid for
            steps.close()
            answering.begin()
            return found
        return _Body(steps, answering)

    def _serve(
        self, payer: budget_user | None, environ: Environ, start: StartResponse
    ) -> Generator[Any, None, None]:
        """Yield the application's iterable, then what that yields, then `_END`; close it when closed.

        A generator, so that what it enters counts in here and nowhere else, whichever thread steps it.
        """
        with payer or nullcontext():
            found = self.app(environ, start)
            try:
                yield found
                yield from found
                yield _END
            finally:
                close = getattr(found, "close", None)
                if close is not None:
                    close()

    def _payer(self, environ: Environ) -> budget_user | None:
        options = self._options
        if options.user is not None:
            return options.payer(options.user(environ))
        if options.header is None:
            return options.payer(environ.get("REMOTE_USER") or None)
        value = environ.get(f"HTTP_{options.header.upper().replace('-', '_')}")
        # Values are bytes that were decoded as Latin-1.
        return options.payer(None if value is None else options.header_value([value.encode("latin-1")]))


class _Answering:
    """The head of one response, which is kept until its body begins."""

    def __init__(self, environ: Environ, start_response: StartResponse, details: bool) -> None:
        self._has_body = environ.get("REQUEST_METHOD") != "HEAD"
        self._start_response = start_response
        self._details = details
        self._kept: tuple[Any, ...] | None = None
        self._write: Callable[[bytes], object] | None = None

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        head = (status, headers) if exc_info is None else (status, headers, exc_info)
        # After it has begun, or a second time without a reason: the server says what is wrong with that.
        if self._write is not None or (self._kept is not None and exc_info is None):
            self.begin()
            return self._start_response(*head)
        self._kept = head
        return self._begin_and_write

    def begin(self) -> None:
        """Pass the head on, if the application has given one and that is still to be done."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._write = self._start_response(*kept)

    def _begin_and_write(self, data: bytes) -> object:
        self.begin()
        assert self._write is not None
        return self._write(data)

    def refuse(self, error: Exception) -> bytes:
        """Begin the response for a refusal, and return its body; raise what is none, or comes too late."""
        refusal: BudgetGuardError | None = refusal_in(error)
        if refusal is None:
            self.begin()
            raise error
        if self._write is not None:
            log_broken_off(refusal)
            raise error
        response = problem_response(refusal, details=self._details)
        log_answered(refusal, response.status)
        self._kept = None
        self._write = self._start_response(response.line, list(response.headers))
        return response.body if self._has_body else b""


class _Body(Iterator[bytes]):
    """The body as the server reads it: each step, and the end, are paid by the request's user."""

    def __init__(self, steps: Generator[Any, None, None], answering: _Answering) -> None:
        self._steps = steps
        self._answering = answering
        self._is_over = False

    def __next__(self) -> bytes:
        while not self._is_over:
            try:
                item: Any = next(self._steps, _END)
            except Exception as error:  # noqa: BLE001 - raised again, if it is no refusal
                self._is_over = True
                return self._answering.refuse(error)
            self._is_over = item is _END
            if item:  # an empty part begins nothing
                self._answering.begin()
                if not self._is_over:
                    part: bytes = item
                    return part
        raise StopIteration

    def close(self) -> None:
        """Close the application's iterable, if it wants to be."""
        self._steps.close()
