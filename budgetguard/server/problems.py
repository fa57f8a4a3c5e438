"""Refusals of requests: one class for each HTTP status that is not a success."""

from __future__ import annotations

from typing import Any, ClassVar

from budgetguard.errors import BudgetGuardError


class Problem(BudgetGuardError):
    """A refused request. Its JSON is `error` (the class's name) and `message`."""

    headers: ClassVar[dict[str, str]] = {}


class BadRequest(Problem):
    """A body or an address that HTTP or JSON does not allow."""

    status = 400


class Unauthorized(Problem):
    """No key, or none that is known."""

    status = 401
    headers = {"WWW-Authenticate": "Bearer"}


class Forbidden(Problem):
    """A key that may not do this."""

    status = 403


class NotFound(Problem):
    """No such address."""

    status = 404


class MethodNotAllowed(Problem):
    """An address that does not take this method."""

    status = 405


class QuotaExceeded(Problem):
    """A project that already keeps as much as it may."""

    status = 409


class ContentTooLarge(Problem):
    """A body that is longer than the service reads."""

    status = 413


class UnsupportedMediaType(Problem):
    """A body that is not declared as JSON."""

    status = 415


class TooManyRequests(Problem):
    """More requests than one key or address may send."""

    status = 429
    headers = {"Retry-After": "1"}


class InternalError(Problem):
    """A failure of the service itself; its log says more."""

    status = 500


class StoreUnavailable(Problem):
    """The store cannot be read or written now; the request may have taken effect or not."""

    status = 503
    headers = {"Retry-After": "1"}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values, under the name of the library's error."""
        return {**super().to_dict(), "error": "StoreError"}
