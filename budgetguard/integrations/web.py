"""What the middlewares of web frameworks share: who pays for a request, and a refusal as a response.

A refusal that a program catches nowhere is answered as a problem document (RFC 9457): the JSON that the
hosted service answers with, and `title`, `status` and `detail` beside it.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias

from budgetguard.core.accounts import check_id
from budgetguard.engine.surrounding import budget_user
from budgetguard.errors import BudgetGuardError, ConfigurationError, UnpricedAnswerError
from budgetguard.server.problems import BadRequest, Forbidden, Unauthorized, for_clients

Missing: TypeAlias = Literal["pass", 401, 403]
"""What becomes of a request that names no user: it goes on without one, or is answered with this status."""

logger = logging.getLogger("budgetguard")

_MISSING: Final[dict[object, type[Unauthorized | Forbidden] | None]] = {
    "pass": None,
    401: Unauthorized,
    403: Forbidden,
}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What says who somebody is, by frameworks' names for it: Starlette's and Django's users have one of these.
_IDENTITIES: Final = ("identity", "pk", "username")


@dataclass(frozen=True, slots=True)
class PayerOptions:
    """Where a middleware finds the user who pays for a request. One of the first three is given.

    Attributes:
        header: the request header whose value is the user's id.
        user: a function that returns the user's id, or None where there is none.
        authenticated: the user whom the framework has authenticated pays.
        missing: what becomes of a request without a user.
        details: whether a refusal tells the client its message and numbers, or only which error it is.

    Raises:
        ConfigurationError: none or several of the first three, or a bad value.
    """

    header: str | None = None
    user: Callable[..., Any] | None = None
    authenticated: bool = False
    missing: Missing = "pass"
    details: bool = True

    def __post_init__(self) -> None:
        given = (self.header is not None) + (self.user is not None) + bool(self.authenticated)
        if given != 1:
            said = "none is given" if not given else f"{given} are given"
            raise ConfigurationError(
                f"who pays for a request? Give one of header=, user= and authenticated=True; {said}"
            )
        if self.header is not None and not (isinstance(self.header, str) and _TOKEN.fullmatch(self.header)):
            raise ConfigurationError(f"header is the name of one such as 'x-user', not {self.header!r}")
        if self.user is not None and not callable(self.user):
            raise ConfigurationError(
                f"user is a function that returns a user's id or None, not {self.user!r}; "
                'if one user pays for all requests, use configure(user="...")'
            )
        for name in ("authenticated", "details"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be True or False, not {getattr(self, name)!r}")
        if self.missing not in _MISSING or isinstance(self.missing, bool):
            raise ConfigurationError(f"missing must be 'pass', 401 or 403, not {self.missing!r}")

    def payer(self, found: object) -> budget_user | None:
        """Return what charges a request to the user that was found; None if it goes on without one.

        Raises:
            Unauthorized: there is none, and `missing` says 401.
            Forbidden: there is none, and `missing` says 403.
            BadRequest: a header's value is no user's id.
            ConfigurationError: a function returned what is no user's id.
        """
        if found is None:
            refused = _MISSING[self.missing]
            if refused is not None:
                raise refused("this request does not say who pays for it, and each has to")
            return None
        if self.header is None:
            where = "the authenticated user" if self.authenticated else f"what {self.user!r} returns"
            return budget_user(check_id(found, name=where))
        try:
            return budget_user(check_id(found, name=f"the header {self.header}"))
        except ConfigurationError as error:
            raise BadRequest(error.message) from None

    def header_value(self, values: list[bytes]) -> str | None:
        """Return the user's id that a request's headers of the name have; None if there is none.

        Raises:
            BadRequest: there are several, or it is not UTF-8.
        """
        given = {value.strip() for value in values} - {b""}
        if len(given) > 1:
            raise BadRequest(f"the header {self.header} was sent {len(values)} times, with different values")
        try:
            return next((value.decode() for value in given), None)
        except UnicodeDecodeError:
            raise BadRequest(f"the header {self.header} is not UTF-8") from None


def identity_of(user: object) -> str | None:
    """Return the id of an authenticated user, as text; None for an anonymous one.

    Raises:
        ConfigurationError: it has no id that is known here.
    """
    if user is None or not getattr(user, "is_authenticated", True):
        return None
    for name in _IDENTITIES:
        try:
            found = getattr(user, name, None)
        except NotImplementedError:  # Starlette's base has the names of all, and each raises
            continue
        if found is not None:
            return str(found)
    kind = type(user)
    raise ConfigurationError(
        f"the authenticated user is a {kind.__module__}.{kind.__qualname__}, which has no identity, pk or "
        "username: pass user=, a function that returns its id"
    )


def refusal_in(error: BaseException) -> BudgetGuardError | None:
    """Return the refusal that an exception is, or that is alone in a group of them; None if it is another.

    A bad argument, and an answer without a price, are mistakes of the program: no client is told of them.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if not isinstance(error, BudgetGuardError) or isinstance(error, ConfigurationError | UnpricedAnswerError):
        return None
    return error


@dataclass(frozen=True, slots=True)
class ProblemResponse:
    """A refusal as a response.

    Attributes:
        status: of HTTP.
        headers: names and values.
        body: a problem document, JSON in ASCII.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def line(self) -> str:
        """The status with its phrase, such as `402 Payment Required`."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


def problem_response(error: BudgetGuardError, *, details: bool = True) -> ProblemResponse:
    """Return the response for a refusal that nobody catches.

    Args:
        error: the refusal.
        details: tell its message and its fields too.
    """
    told = for_clients(error)
    values = told.to_dict()
    status = told.status
    retry_after = getattr(told, "retry_after", None)
    if getattr(told, "unit", None) not in (None, "usd"):
        status = HTTPStatus.TOO_MANY_REQUESTS.value  # what clients know of limits on requests and tokens
    document: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status}
    document |= {**values, "detail": values["message"]} if details else {"error": values["error"]}
    body = json.dumps(document).encode()
    headers = (
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        *(() if retry_after is None else (("retry-after", str(math.ceil(retry_after))),)),
        *getattr(told, "headers", {}).items(),
    )
    return ProblemResponse(status, headers, body)


def log_answered(error: BudgetGuardError, status: int) -> None:
    """Log that a refusal became a response."""
    logger.info("budgetguard: a request was answered with %s: %s: %s", status, type(error).__name__, error)


def log_broken_off(error: BudgetGuardError) -> None:
    """Log that a response had begun when a call was refused, so that it breaks off."""
    logger.warning(
        "budgetguard: a response had begun when a call was refused, so it breaks off: %s: %s",
        type(error).__name__,
        error,
    )


def log_too_late(error: BudgetGuardError) -> None:
    """Log that a call was refused when its response was complete: clients cannot learn of it."""
    logger.warning(
        "budgetguard: a call was refused after its response, as in a background task: %s: %s",
        type(error).__name__,
        error,
    )
