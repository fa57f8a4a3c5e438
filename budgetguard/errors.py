"""Every error that budgetguard raises on purpose.

    BudgetGuardError
    ├── BudgetExceededError     the money is not there; the call was not made
    │   └── ModelNotAllowedError    a budget does not allow the model; the call was not made
    ├── MissingUserError        no user is set, and nothing limits this call
    ├── UnknownUserError        the user has no budget             (also a KeyError)
    ├── UnknownModelError       no price for the model or a unit   (also a LookupError)
    ├── UnknownEndpointError    a path that may cost money and has no price
    ├── UnguardedCallError      a provider was to be reached past every guard
    ├── UnpricedAnswerError     an answer from which no cost can be read
    ├── ConfigurationError      a bad argument or setting          (also a ValueError)
    │   └── UnknownAttributeError   a name of the module that does not exist was set (also an AttributeError)
    ├── BillError               a provider's bill cannot be fetched, or read
    ├── PriceListError          the newest price list cannot be fetched, or kept
    └── StoreError              the store cannot be read or written

Each has `to_dict()` and an HTTP `status`, so a server can answer with it as it stands. Each has a
`status_code` as well, as the errors of LLM clients have it, by which loops of others that try calls again see
that there is no use in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar


class BudgetGuardError(Exception):
    """Base of every error raised by budgetguard.

    Attributes:
        message: what happened and what to do about it.
        status: the HTTP status that says the same.
        status_code: 422 where trying again cannot help (LiteLLM's Router, dspy and aider then stop at once),
            503 where it may.
    """

    status: ClassVar[int] = 500
    status_code: ClassVar[int] = 422
    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str, **values: Any) -> None:
        super().__init__(message)
        self.message = message
        for name in self.fields:
            setattr(self, name, values.get(name))

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process pools; the default would call __init__ without its keywords.
        return _rebuild, (type(self), self.message, {name: getattr(self, name) for name in self.fields})

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON-ready values: `error` (its name), `message`, and its fields."""
        out: dict[str, Any] = {"error": type(self).__name__, "message": self.message}
        for name in self.fields:
            out[name] = _plain(getattr(self, name))
        return out


class BudgetExceededError(BudgetGuardError):
    """The call was refused: its projected cost is more than an account has available.

    Attributes:
        user: the user who was to pay, or None.
        account: the account that refused, such as `user:1234`.
        current_cost: USD spent in this window.
        max_budget: the account's limit, USD.
        projected_cost: what the call would cost at most, USD.
        available: limit - spent - held, USD.
        resets_at: when the window ends (aware datetime), or None if it never does.
        unit: what the account counts, such as `requests`; the amounts are of it where it is not USD.
        retry_after: seconds after which there is room by time alone; None if there is none, or nobody can
            say.
        llm_provider: empty; LiteLLM's callers read it.
        entity_type: what kind of account refused, such as `user`, or None.
        entity_id: which of them, such as `1234`, or None.
    """

    status = 402
    fields: ClassVar[tuple[str, ...]] = (
        "user",
        "account",
        "current_cost",
        "max_budget",
        "projected_cost",
        "available",
        "resets_at",
        "unit",
        "retry_after",
    )

    user: str | None
    account: str | None
    current_cost: Decimal
    max_budget: Decimal
    projected_cost: Decimal | None
    available: Decimal | None
    resets_at: datetime | None
    unit: str | None
    retry_after: float | None

    # LiteLLM's name of the provider that refused, which is none: the call was not made.
    llm_provider: ClassVar[str] = ""

    def __init__(
        self,
        current_cost: Decimal | float,
        max_budget: Decimal | float,
        message: str | None = None,
        **values: Any,
    ) -> None:
        # Positional order and default text are those of LiteLLM's error of the same name.
        super().__init__(
            message or f"Budget has been exceeded! Current cost: {current_cost}, Max budget: {max_budget}",
            current_cost=current_cost,
            max_budget=max_budget,
            **values,
        )
        # What makes it again: Celery's JSON results have no more of an error than its class and these.
        self.args = (current_cost, max_budget, self.message)

    @property
    def entity_type(self) -> str | None:
        """What kind of account refused, by LiteLLM's name for it."""
        return self.account.partition(":")[0] if self.account else None

    @property
    def entity_id(self) -> str | None:
        """Which account of its kind refused, by LiteLLM's name for it."""
        return (self.account.partition(":")[2] or None) if self.account else None

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in self.fields}
        return _rebuild_exceeded, (type(self), self.message, values)


class ModelNotAllowedError(BudgetExceededError):
    """The call was refused: a budget that it would be charged to does not allow its model.

    Attributes:
        model: the model, as the call names it.
    """

    status = 403
    fields = (*BudgetExceededError.fields, "model")
    model: str


class MissingUserError(BudgetGuardError):
    """The call was refused: no budget limits it, it has no user where each needs one, or its user is lost."""

    status = 422


class UnknownUserError(BudgetGuardError, KeyError):
    """The user has no budget, so nothing was charged or read.

    Attributes:
        user: the user id that was asked for.
        project: the project that was searched.
    """

    status = 404
    fields = ("user", "project")
    user: str
    project: str


class UnknownModelError(BudgetGuardError, LookupError):
    """The call was refused: the model, or a unit that the call uses, has no price.

    Attributes:
        model: the model's name as the call gave it.
        unit: the unit without a price, or None if the model is unknown altogether.
    """

    status = 422
    fields = ("model", "unit")
    model: str
    unit: str | None


class UnknownEndpointError(BudgetGuardError):
    """The request was refused: its path may cost money, and budgetguard cannot price it.

    Attributes:
        endpoint: method and path, such as `POST /images/generations`.
    """

    status = 422
    fields = ("endpoint",)
    endpoint: str


class UnguardedCallError(BudgetGuardError):
    """A connection to a model provider was refused, since no guarded call makes it (`unguarded="block"`).

    It is no OSError, which HTTP libraries take for a broken network: they would try again, and raise an error
    of their own.

    Attributes:
        address: the provider's host, with its port where only that is known.
    """

    status = 422
    fields = ("address",)
    address: str


class UnpricedAnswerError(BudgetGuardError):
    """A guarded function answered with something from which no cost can be read.

    The call was made: its projection has been booked, so that nothing goes unpaid.

    Attributes:
        answer: what the function answered, which was paid for; None of a generator.
    """

    status = 422
    answer: Any = None


class ConfigurationError(BudgetGuardError, ValueError):
    """A bad argument or setting; nothing was changed."""

    status = 422


class UnknownAttributeError(ConfigurationError, AttributeError):
    """A name of the module `budgetguard` that does not exist was set: a mistyped cap caps nothing."""


class PriceListError(BudgetGuardError):
    """The newest price list could not be fetched, is none, or could not be kept; nothing was changed."""

    status = 503
    status_code = 503


class BillError(BudgetGuardError):
    """A provider's bill could not be fetched, or is not one; nothing was compared."""

    status = 503
    status_code = 503


class StoreError(BudgetGuardError):
    """The store cannot be read or written; its cause is chained."""

    status = 503
    status_code = 503


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def _rebuild(kind: type[BudgetGuardError], message: str, values: Mapping[str, Any]) -> BudgetGuardError:
    return kind(message, **values)


def _rebuild_exceeded(
    kind: type[BudgetExceededError], message: str, values: Mapping[str, Any]
) -> BudgetExceededError:
    return kind(message=message, **values)
