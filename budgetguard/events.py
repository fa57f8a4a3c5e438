"""Events: what happens to calls and budgets, one frozen object each, handed to hooks.

Money is USD as Decimal. No event carries text of a prompt or an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from budgetguard.core.process import of_books
from budgetguard.core.usage import Usage

logger = logging.getLogger("budgetguard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event has.

    Attributes:
        at: when, by the guard's clock (aware, UTC).
        project: whose accounts.
        user: who pays, or None.
        model: the model as the call named it; empty where no call is meant.
    """

    at: datetime
    project: str
    user: str | None
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON-ready values: `event` (its name) and its fields, money as text."""
        out: dict[str, Any] = {"event": type(self).__name__}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Decimal):
                value = format(value, "f")
            elif isinstance(value, datetime):
                value = value.isoformat()
            elif isinstance(value, Usage):
                value = dict(value.units)
            out[one.name] = value
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent(Event):
    """What every event of one call has.

    Attributes:
        hold_id: the hold's id, the same through the call's life.
        endpoint: what is called, such as `chat`.
    """

    hold_id: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected(CallEvent):
    """A call was projected: it costs at most `cost`, for `usage`; `cap_assumed` if the request set no cap.

    `output_cap` is the cap on the output tokens of each choice, None where there is none. In strict mode
    a call whose cap does not fit is projected again with a lower one, under the same hold id. `provider` is
    genai-prices' id of the one whose prices count, such as `openai`.
    """

    cost: Decimal
    usage: Usage
    cap_assumed: bool
    output_cap: int | None = None
    provider: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(CallEvent):
    """`amount` was set aside on `accounts`."""

    amount: Decimal
    accounts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(CallEvent):
    """A call was not made: `account` had `available`, and `cost` was projected.

    The amounts are USD, or counts of the account's `unit`. There is room by time alone `retry_after` seconds
    from now; None if there is none, or nobody can say.
    """

    account: str
    cost: Decimal
    limit: Decimal
    spent: Decimal
    available: Decimal
    resets_at: datetime | None
    unit: str = "usd"
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed(CallEvent):
    """A call was made that `account` would have refused, if it refused anything: it had `available`.

    The amounts are USD, or counts of the account's `unit`.
    """

    account: str
    unit: str
    cost: Decimal
    limit: Decimal
    spent: Decimal
    available: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack(CallEvent):
    """A call was made to `model` in place of `instead_of`, for which `account` had no room."""

    instead_of: str
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(CallEvent):
    """A call waits, for `seconds` at most from now, until `account` has room for it."""

    account: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled(CallEvent):
    """`cost` was booked.

    Attributes:
        cost: USD.
        held: USD that had been set aside.
        usage: what the provider reported; None where it reported nothing.
        estimated: the cost is the projection's, or partly so, because nothing better is known.
        outcome: `answered`, `abandoned`, `failed`, `unknown` or `posted`.
        request_id: the provider's id of the answer.
    """

    cost: Decimal
    held: Decimal
    usage: Usage | None
    estimated: bool
    outcome: str
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Voided(CallEvent):
    """`held` was given back: the call did no work, or calls inside it paid."""

    held: Decimal
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(Event):
    """A hold expired without word of its call, and `booked` was charged for it."""

    hold_id: str
    accounts: tuple[str, ...]
    held: Decimal
    booked: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdCrossed(Event):
    """`account` has spent `threshold` percent of its limit; told once a window.

    The amounts are USD, or counts of the account's `unit`.
    """

    account: str
    threshold: int
    spent: Decimal
    limit: Decimal
    resets_at: datetime | None
    unit: str = "usd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unguarded(Event):
    """A connection to a model provider that no guarded call makes was made, or refused. Once an address.

    Attributes:
        address: the provider's host, with its port where only that is known.
        refused: it was refused before anything was sent, since `unguarded` is `block`.
        caller: the module or file, and line, that connected; None where that cannot be seen.
    """

    address: str
    refused: bool
    caller: str | None


Hook: TypeAlias = Callable[[Event], object]


class Hooks:
    """The hooks that events are handed to; none of them can touch the call."""

    def __init__(self) -> None:
        self.entries: tuple[tuple[Hook, tuple[type[Event], ...], bool], ...] = ()

    def add(self, hook: Hook, kinds: tuple[type[Event], ...], *, all: bool = False) -> Callable[[], None]:
        """Call `hook` with each event of these kinds (all, if none is named), and return its remover.

        A hook may make calls of its own; only hooks that want `all` events hear of those.
        """
        entry = (hook, kinds or (Event,), all)
        self.entries = (*self.entries, entry)

        def remove() -> None:
            self.entries = tuple(one for one in self.entries if one is not entry)

        return remove

    @of_books
    def emit(self, event: Event, *, by_hook: bool = False) -> None:
        """Hand one event to the hooks that want it; what a hook raises is logged and goes no further.

        Args:
            event: what happened.
            by_hook: it is of a call that a hook makes.
        """
        for hook, kinds, all in self.entries:
            if isinstance(event, kinds) and (all or not by_hook):
                try:
                    hook(event)
                except Exception:
                    logger.exception("budgetguard: the hook %r failed on %s", hook, type(event).__name__)


_WARNINGS: Final = (Refused, Shadowed, FellBack, Expired, ThresholdCrossed, Unguarded)


def log_events(event: Event) -> None:
    """Log an event to the logger `budgetguard`: a hook, for `guard.on(log_events)`.

    Refusals (shadowed ones too), fallbacks, expiries, thresholds and unguarded connections are warnings; all
    else is information. The record carries the event's fields as `record.budgetguard`, for structured logs.
    """
    values = event.to_dict()
    name = values.pop("event")
    level = logging.WARNING if isinstance(event, _WARNINGS) else logging.INFO
    text = " ".join(f"{key}={value}" for key, value in values.items() if key != "at" and value is not None)
    logger.log(level, "%s %s", name, text, extra={"budgetguard": {"event": name, **values}})
