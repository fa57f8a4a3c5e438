"""Flask: who pays for a request, and refusals as 402.

    guard_flask(app, header="x-user")  # or user=lambda: session.get("user"), or authenticated=True

The user pays for everything that belongs to the request: its view, threads that it starts, the body that is
streamed, and what is called when the response is closed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from budgetguard.errors import BudgetGuardError, ConfigurationError
from budgetguard.integrations.web import Missing, PayerOptions, log_answered, problem_response, refusal_in
from budgetguard.integrations.wsgi import BudgetWsgiMiddleware, Environ

if TYPE_CHECKING:
    from flask import Flask, Response


def guard_flask(
    app: Flask,
    *,
    header: str | None = None,
    user: Callable[[], str | None] | None = None,
    authenticated: bool = False,
    missing: Missing = "pass",
    details: bool = True,
) -> None:
    """Charge each request of an application to its user, and answer refusals that no view catches.

    It puts a `BudgetWsgiMiddleware` around `app.wsgi_app`, and registers a handler for errors of budgetguard,
    unless the application has one for them.

    Args:
        app: the application.
        header: the request header whose value is the user's id. Have your proxy set it, or take it out of
            what clients send: whoever can send it chooses who pays.
        user: a function that returns the user's id, or None for none. It may use `flask.request`, `session`
            and whatever else a request context has; the functions of `before_request` have not run yet.
        authenticated: Flask-Login's `current_user` pays.
        missing: what becomes of a request without a user: `"pass"`, 401 or 403.
        details: whether a refusal tells the client its message and numbers, or only which error it is.

    Raises:
        ConfigurationError: none or several of `header`, `user` and `authenticated`, or a bad value.
    """
    PayerOptions(header, user, authenticated, missing, details)  # as they were given here
    if inspect.iscoroutinefunction(user):
        raise ConfigurationError(f"user={user!r} is async: pass a function that is not")
    function = _login_user if authenticated else user
    app.wsgi_app = BudgetWsgiMiddleware(
        app.wsgi_app,
        header=header,
        user=None if function is None else _in_context(app, function),
        missing=missing,
        details=details,
    )

    def refused(error: BudgetGuardError) -> Response:
        if refusal_in(error) is None:
            raise error
        response = problem_response(error, details=details)
        log_answered(error, response.status)
        return app.response_class(response.body, response.status, list(response.headers))

    if BudgetGuardError not in app.error_handler_spec[None][None]:
        app.register_error_handler(BudgetGuardError, refused)


def _in_context(app: Flask, function: Callable[[], Any]) -> Callable[[Environ], Any]:
    @functools.wraps(function)  # whose name errors give
    def found(environ: Environ) -> Any:
        with app.request_context(environ):
            return function()

    return found


def _login_user() -> str | None:
    from flask import current_app

    try:
        from flask_login import current_user
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "authenticated=True takes the user from Flask-Login, which is not installed: "
            "pip install flask-login, or pass user=, a function that returns a user's id"
        ) from error
    if not hasattr(current_app, "login_manager"):
        raise ConfigurationError(
            "authenticated=True takes the user from Flask-Login, which this application does not use: call "
            "LoginManager(app), or pass user=, a function that returns a user's id"
        )
    found: str | None = current_user.get_id()
    return found
