"""What a request can be refused with: one class for each answer that is not a success."""

from __future__ import annotations

from typing import Any, ClassVar

from budgetguard.errors import BudgetGuardError


class Problem(BudgetGuardError):
    """Refuse a request. Its JSON is `error` (the class's name) and `message`."""

    headers: ClassVar[dict[str, str]] = {}


class BadRequest(Problem):
    """The body or an address is not what HTTP or JSON allows."""

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
    """A project that keeps as much as it may."""

    status = 409


class ContentTooLarge(Problem):
    """A body that is longer than the service reads."""

    status = 413


class UnsupportedMediaType(Problem):
    """A body that is not called JSON."""

    status = 415


class TooManyRequests(Problem):
    """More requests than one key or address may send."""

    status = 429
    headers = {"Retry-After": "1"}


class InternalError(Problem):
    """A mistake of the service's own; its log says more."""

    status = 500


class StoreUnavailable(Problem):
    """The store cannot be read or written now; nobody knows whether the request took effect."""

    status = 503
    headers = {"Retry-After": "1"}

    def to_dict(self) -> dict[str, Any]:
        """Return it under the name that the library has for it."""
        return {**super().to_dict(), "error": "StoreError"}
