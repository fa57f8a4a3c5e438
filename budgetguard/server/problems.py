"""Refusals of requests: one class for each HTTP status that is not a success; OpenAPI shows what they say."""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar, Final

from budgetguard.errors import BudgetGuardError, StoreError

_LONGEST_MESSAGE: Final = 2_000


class Problem(BudgetGuardError):
    """A refused request. Its JSON is `error` (the class's name) and `message`."""

    headers: ClassVar[dict[str, str]] = {}


class BadRequest(Problem):
    """The body is not JSON, or the request is not HTTP that is read here."""

    status = 400


class Unauthorized(Problem):
    """No key, or none that is known."""

    status = 401
    headers = {"WWW-Authenticate": "Bearer"}


class Forbidden(Problem):
    """A key of another project, or of a lesser role."""

    status = 403


class NotFound(Problem):
    """No such address."""

    status = 404


class MethodNotAllowed(Problem):
    """An address that does not take this method."""

    status = 405


class QuotaExceeded(Problem):
    """The project keeps as many accounts or open holds as it may. Nothing was changed."""

    status = 409


class ContentTooLarge(Problem):
    """The body is too long."""

    status = 413


class UnsupportedMediaType(Problem):
    """The body is not declared as JSON."""

    status = 415


class TooManyRequests(Problem):
    """Too many requests."""

    status = 429
    headers = {"Retry-After": "1"}


class InternalError(Problem):
    """A failure of the service itself; its log says more."""

    status = 500


class StoreUnavailable(Problem):
    """The store cannot be read or written now. Sending the same request again is safe."""

    status = 503
    headers = {"Retry-After": "1"}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, under the name of the library's error."""
        return {**super().to_dict(), "error": "StoreError"}


OF_ROUTES: Final[tuple[type[Problem], ...]] = (
    BadRequest,
    Unauthorized,
    Forbidden,
    QuotaExceeded,
    ContentTooLarge,
    UnsupportedMediaType,
    TooManyRequests,
    StoreUnavailable,
)
"""What any route that touches budgets may answer with."""


def for_clients(error: BudgetGuardError) -> BudgetGuardError:
    """Return the error that clients are told: no store's address, and no message that goes on and on."""
    if isinstance(error, StoreError):
        return StoreUnavailable("the store cannot be read or written now: send the same request again")
    if len(error.message) > _LONGEST_MESSAGE:
        error = copy(error)
        error.message = f"{error.message[:_LONGEST_MESSAGE]}…"
    return error
