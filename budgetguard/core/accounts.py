"""Accounts: who is charged, under what budget, and how that stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

from budgetguard.core.money import Nanos, to_usd
from budgetguard.core.windows import Milliseconds, parse_duration, to_datetime, zone
from budgetguard.errors import ConfigurationError

if TYPE_CHECKING:
    from budgetguard.core.forecast import Forecast

USER: Final = "user"
RUN: Final = "run"
PROCESS: Final = "process"
PROJECT: Final = "project"

_LONGEST_ID = 256


def account_name(kind: str, ident: str) -> str:
    """Return an account's name, such as `user:1234`."""
    return f"{kind}:{ident}"


def check_id(value: object, *, name: str) -> str:
    """Return an id unchanged if it can be stored.

    Args:
        value: 1 to 256 printable characters; spaces, slashes and any script are fine.
        name: what the id is of, for the error's text.

    Raises:
        ConfigurationError: not text, empty, too long, or with control characters.
    """
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{name} must be text, not {value!r} ({type(value).__name__}); write {str(value)!r}"
        )
    if not value:
        raise ConfigurationError(f'{name} must not be empty; pass an id such as "1234"')
    if len(value) > _LONGEST_ID:
        raise ConfigurationError(
            f"{name} must be at most {_LONGEST_ID} characters, and {value[:20] + '…'!r} has {len(value)}"
        )
    # Surrogates cannot be written as UTF-8, and control characters break every listing.
    if any(ch < " " or ch == "\x7f" or "\ud800" <= ch <= "\udfff" for ch in value):
        raise ConfigurationError(f"{name} must not contain control characters or lone surrogates: {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit and a window.

    Attributes:
        limit: Nanos; None counts what is spent and refuses nothing.
        duration: see `windows.parse_duration`; None never resets.
        timezone: IANA name.
        starts_at: where window 0 starts; None is the moment at which the budget is stored.

    Raises:
        ConfigurationError: an unknown duration or time zone.
    """

    limit: Nanos | None
    duration: str | None = None
    timezone: str = "UTC"
    starts_at: Milliseconds | None = None

    def __post_init__(self) -> None:
        if self.duration is not None:
            parse_duration(self.duration)
        zone(self.timezone)


class Forecaster(Protocol):
    """What makes the forecast of a balance when it is asked for, and keeps it."""

    @property
    def made(self) -> Forecast | None:
        """The forecast, if it was asked for before."""

    def make(self, balance: Balance) -> Forecast:
        """Return the balance's forecast."""


class _Foreseeable:
    """Room beside a balance's fields for what forecasts it; that is not compared, sent or stored."""

    __slots__ = ("_forecaster",)

    _forecaster: Forecaster


@dataclass(frozen=True, slots=True)
class Balance(_Foreseeable):
    """An account's state in its present window.

    The properties are for people and callers (USD as Decimal, aware datetimes); the attributes are
    what stores exchange (Nanos, milliseconds).
    """

    account: str
    limit_nanos: Nanos | None
    spent_nanos: Nanos
    held_nanos: Nanos
    duration: str | None
    timezone: str
    starts_ms: Milliseconds
    resets_ms: Milliseconds | None
    created_ms: Milliseconds
    updated_ms: Milliseconds
    models: Mapping[str, Nanos] = field(default_factory=dict)
    expired_nanos: Nanos = 0
    expiries: int = 0
    open_holds: int = 0

    @property
    def available_nanos(self) -> Nanos | None:
        """limit - spent - held, in Nanos; negative after a settle above its hold, None without a limit."""
        return None if self.limit_nanos is None else self.limit_nanos - self.spent_nanos - self.held_nanos

    @property
    def limit(self) -> Decimal | None:
        """The limit in USD, or None."""
        return None if self.limit_nanos is None else to_usd(self.limit_nanos)

    @property
    def spent(self) -> Decimal:
        """What this window's calls have cost, in USD."""
        return to_usd(self.spent_nanos)

    @property
    def held(self) -> Decimal:
        """What calls under way have set aside, in USD."""
        return to_usd(self.held_nanos)

    @property
    def available(self) -> Decimal | None:
        """limit - spent - held, in USD; None without a limit."""
        return None if self.available_nanos is None else to_usd(self.available_nanos)

    @property
    def resets_at(self) -> datetime | None:
        """When the window ends, or None if it never does."""
        return None if self.resets_ms is None else to_datetime(self.resets_ms)

    @property
    def forecast(self) -> Forecast:
        """What will have been spent at the window's end, and when the limit is reached.

        Made from the store's records when it is first asked for, as of when the guard read the balance.

        Raises:
            ConfigurationError: the balance is not a guard's: it was read from a store, or copied.
            StoreError: the records cannot be read.
        """
        forecaster: Forecaster | None = getattr(self, "_forecaster", None)
        if forecaster is None:
            raise ConfigurationError(
                f"this balance of {self.account!r} has no forecast, since it is not a guard's: ask for it "
                "with guard.balance(user) or guard.balances()"
            )
        return forecaster.made or forecaster.make(self)

    def forecast_by(self, forecaster: Forecaster) -> Balance:
        """Have the balance's forecast made by this when it is asked for, and return the balance."""
        object.__setattr__(self, "_forecaster", forecaster)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the balance as JSON-ready values, money as USD text with no digit lost.

        `forecast` is among them if it was asked for before.
        """
        forecaster = getattr(self, "_forecaster", None)
        forecast = None if forecaster is None else forecaster.made

        def usd(nanos: Nanos | None) -> str | None:
            return None if nanos is None else format(to_usd(nanos), "f")

        return {
            "account": self.account,
            "limit": usd(self.limit_nanos),
            "spent": usd(self.spent_nanos),
            "held": usd(self.held_nanos),
            "available": usd(self.available_nanos),
            "duration": self.duration,
            "timezone": self.timezone,
            "starts_at": to_datetime(self.starts_ms).isoformat(),
            "resets_at": None if self.resets_at is None else self.resets_at.isoformat(),
            "models": {model: usd(cost) for model, cost in sorted(self.models.items())},
            "expired": usd(self.expired_nanos),
            "expiries": self.expiries,
            "open_holds": self.open_holds,
            **({} if forecast is None else {"forecast": forecast.to_dict()}),
        }
