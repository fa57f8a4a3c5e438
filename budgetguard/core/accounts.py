"""Accounts: who is charged, under what budget, and how that stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, cast, get_args

from budgetguard.core.money import Nanos, to_usd
from budgetguard.core.windows import Milliseconds, parse_duration, to_datetime, zone
from budgetguard.errors import ConfigurationError

if TYPE_CHECKING:
    from budgetguard.core.forecast import Forecast

USER: Final = "user"
RUN: Final = "run"
PROCESS: Final = "process"
PROJECT: Final = "project"

SEVERAL: Final = "labels"
"""What the names of accounts begin with that one label does not name: see `labels`."""

Unit: TypeAlias = Literal["usd", "tokens", "input_tokens", "output_tokens", "requests", "concurrent"]
"""What a budget counts: money, tokens (both, in, out), requests, or calls under way."""
UNITS: Final[tuple[Unit, ...]] = get_args(Unit)
USD: Final = "usd"
CONCURRENT: Final = "concurrent"
COUNTING: Final = "@unit"
ROLLING: Final = "@rolling"
MOST_COUNTED: Final = 10**12
"""The largest count, be it a limit, a hold or a cost: every store's numbers hold many of them exactly."""

_COUNTS: Final = f"{SEVERAL}:{COUNTING}="
_LONGEST_ID = 256


def account_name(kind: str, ident: str) -> str:
    """Return an account's name, such as `user:1234`."""
    return f"{kind}:{ident}"


def unit_of(account: str) -> Unit:
    """Return what an account counts, which its name says."""
    if not account.startswith(_COUNTS):
        return USD
    return cast(Unit, account[len(_COUNTS) :].partition("&")[0])


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
        limit: Nanos, or a count of the account's unit; None counts what is spent and refuses nothing.
        duration: see `windows.parse_duration`; None never resets.
        timezone: IANA name.
        starts_at: where window 0 starts; None is the moment at which the budget is stored.
        rolling: what was spent counts for the duration from when it was, to within a 60th of that; an
            account's is the same from its making to its end.
        rollover: what a window leaves unused is added to the next one's limit, at most this much.
        rules: what else the budget asks for, as JSON text that the stores keep and do not read; see
            `engine.rules`.

    Raises:
        ConfigurationError: an unknown duration or time zone; a rolling budget without a duration.
    """

    limit: Nanos | None
    duration: str | None = None
    timezone: str = "UTC"
    starts_at: Milliseconds | None = None
    rolling: bool = False
    rollover: Nanos = 0
    rules: str = ""

    def __post_init__(self) -> None:
        if self.duration is not None:
            parse_duration(self.duration)
        elif self.rolling:
            raise ConfigurationError("a rolling budget needs a duration, such as 24h")
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
class Grant:
    """A raise of an account's limit.

    Attributes:
        id: what makes it count once, however often it is sent.
        amount: Nanos, or a count of the account's unit.
        until_ms: when it ends by itself; None raises the limit for good.
    """

    id: str
    amount: Nanos
    until_ms: Milliseconds | None


@dataclass(frozen=True, slots=True)
class Document:
    """Text that a store keeps for its clients, and the number by which they know whether theirs is current.

    Attributes:
        revision: another one after each change; 0 where there is nothing.
        rules: of an account: what its budget asks for. Of a project: the scopes of its budgets.
        labels: of an account: the labels that its user's calls carry.
    """

    revision: int = 0
    rules: str = ""
    labels: str = ""


@dataclass(frozen=True, slots=True)
class Balance(_Foreseeable):
    """An account's state in its present window.

    The properties are for people and callers (USD as Decimal, aware datetimes); the attributes are
    what stores exchange (Nanos, or counts where the account's unit is not USD; milliseconds).

    Attributes:
        limit_nanos: what may be spent now: the budget's own limit, and the raises in force.
        grants: the raises in force, what was rolled over among them (its id is `rollover`).
        rolling: whether what was spent falls out bit by bit, at the times in `frees`; `resets_ms` is the
            next of them.
        rollover_nanos: how much of what this window leaves unused is added to the next at most.
        document: the rules and labels that are kept with the account.
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
    grants: tuple[Grant, ...] = ()
    rolling: bool = False
    frees: tuple[tuple[Milliseconds, Nanos], ...] = ()
    rollover_nanos: Nanos = 0
    document: Document = field(default_factory=Document)

    @property
    def unit(self) -> Unit:
        """What the account counts."""
        return unit_of(self.account)

    @property
    def available_nanos(self) -> Nanos | None:
        """limit - spent - held, in Nanos; negative after a settle above its hold, None without a limit."""
        return None if self.limit_nanos is None else self.limit_nanos - self.spent_nanos - self.held_nanos

    @property
    def limit(self) -> Decimal | None:
        """The limit in force, in USD (or a count), or None."""
        return None if self.limit_nanos is None else self.quantity(self.limit_nanos)

    @property
    def spent(self) -> Decimal:
        """What this window's calls have cost, in USD (or a count)."""
        return self.quantity(self.spent_nanos)

    @property
    def held(self) -> Decimal:
        """What calls under way have set aside, in USD (or a count)."""
        return self.quantity(self.held_nanos)

    @property
    def available(self) -> Decimal | None:
        """limit - spent - held, in USD (or a count); None without a limit."""
        return None if self.available_nanos is None else self.quantity(self.available_nanos)

    def quantity(self, amount: Nanos) -> Decimal:
        """Return an amount of the account's unit for callers: USD for Nanos, a count as it is."""
        return to_usd(amount) if self.unit == USD else Decimal(amount)

    def fits_at(self, amount: Nanos) -> Milliseconds | None:
        """Return when an amount fits by time alone: None if it fits now, never does, or nobody can say.

        Calls under way may end before that, and grants may come.
        """
        limit, missing = self.limit_nanos, amount - (self.available_nanos or 0)
        if limit is None or missing <= 0 or amount > limit:
            return None
        if not self.rolling:
            ends = [one.amount for one in self.grants if (one.until_ms or 0) <= (self.resets_ms or 0)]
            return self.resets_ms if amount <= limit - sum(ends) else None
        for at, falls_out in self.frees:
            missing -= falls_out
            if missing <= 0:
                return at
        return None

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
        """Return the balance as JSON-ready values, amounts (USD, or counts) as text with no digit lost.

        `forecast` is among them if it was asked for before.
        """
        forecaster = getattr(self, "_forecaster", None)
        forecast = None if forecaster is None else forecaster.made

        def shown(amount: Nanos | None) -> str | None:
            return None if amount is None else format(self.quantity(amount), "f")

        return {
            "account": self.account,
            "unit": self.unit,
            "limit": shown(self.limit_nanos),
            "spent": shown(self.spent_nanos),
            "held": shown(self.held_nanos),
            "available": shown(self.available_nanos),
            "duration": self.duration,
            "timezone": self.timezone,
            "rolling": self.rolling,
            "starts_at": to_datetime(self.starts_ms).isoformat(),
            "resets_at": None if self.resets_at is None else self.resets_at.isoformat(),
            "rollover": shown(self.rollover_nanos),
            "grants": [
                {
                    "id": one.id,
                    "amount": shown(one.amount),
                    "until": None if one.until_ms is None else to_datetime(one.until_ms).isoformat(),
                }
                for one in self.grants
            ],
            "models": {model: shown(cost) for model, cost in sorted(self.models.items())},
            "expired": shown(self.expired_nanos),
            "expiries": self.expiries,
            "open_holds": self.open_holds,
            **({} if forecast is None else {"forecast": forecast.to_dict()}),
        }
