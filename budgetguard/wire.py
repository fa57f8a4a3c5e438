"""Holds and settlements as JSON values, for files and for other machines. No text of a call is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, get_args

from budgetguard.accounts import Budget
from budgetguard.errors import ConfigurationError
from budgetguard.holds import Charge, Hold, Outcome, Settlement
from budgetguard.money import MAX_NANOS
from budgetguard.usage import Usage

T = TypeVar("T")

# The end of the year 9999 in milliseconds: what `datetime` can still show.
_LATEST: Final = 253_402_300_799_999
_LONGEST: Final = 10_000


def hold_to_json(hold: Hold) -> dict[str, Any]:
    """Return a hold as JSON values."""
    return {
        "id": hold.id,
        "charges": [_charge_to_json(charge) for charge in hold.charges],
        "amount": hold.amount,
        "on_lapse": hold.on_lapse,
        "ttl": hold.ttl,
        "created": hold.created,
        "user": hold.user,
        "model": hold.model,
        "endpoint": hold.endpoint,
        "tags": list(hold.tags),
    }


def hold_from_json(value: object) -> Hold:
    """Return the hold that JSON values tell of.

    Raises:
        ConfigurationError: a field is missing, of a wrong type, or out of range; the text names it.
    """
    fields = _Fields(value, "hold")
    hold = Hold(
        id=fields.text("id"),
        charges=tuple(_charge_from_json(one) for one in fields.list("charges")),
        amount=fields.number("amount", MAX_NANOS),
        on_lapse=fields.number("on_lapse", MAX_NANOS),
        ttl=fields.number("ttl", _LATEST),
        created=fields.number("created", _LATEST),
        user=fields.maybe("user", fields.text),
        model=fields.text("model"),
        endpoint=fields.text("endpoint"),
        tags=fields.texts("tags"),
    )
    fields.end()
    return hold


def settlement_to_json(settlement: Settlement) -> dict[str, Any]:
    """Return a settlement as JSON values."""
    return {
        "cost": settlement.cost,
        "state": settlement.state,
        "outcome": settlement.outcome,
        "usage": None if settlement.usage is None else dict(settlement.usage.units),
        "request_id": settlement.request_id,
        "thresholds": list(settlement.thresholds),
        "observed": [list(pair) for pair in settlement.observed],
    }


def settlement_from_json(value: object) -> Settlement:
    """Return the settlement that JSON values tell of.

    Raises:
        ConfigurationError: a field is missing, of a wrong type, or out of range; the text names it.
    """
    fields = _Fields(value, "settlement")
    settlement = Settlement(
        cost=fields.number("cost", MAX_NANOS),
        state=fields.choice("state", ("settled", "voided")),
        outcome=fields.choice("outcome", get_args(Outcome)),
        usage=fields.maybe("usage", fields.usage),
        request_id=fields.maybe("request_id", fields.text),
        thresholds=tuple(_number(one, "thresholds", 1000) for one in fields.list("thresholds")),
        observed=tuple(_observed(one) for one in fields.list("observed")),
    )
    fields.end()
    return settlement


def _charge_to_json(charge: Charge) -> dict[str, Any]:
    budget = charge.budget
    return {
        "account": charge.account,
        "required": charge.required,
        "budget": None if budget is None else budget_to_json(budget),
        "pinned": charge.pinned,
        "ephemeral": charge.ephemeral,
    }


def _charge_from_json(value: object) -> Charge:
    fields = _Fields(value, "charge")
    charge = Charge(
        account=fields.text("account"),
        required=fields.flag("required"),
        budget=fields.maybe("budget", lambda key: budget_from_json(fields.take(key))),
        pinned=fields.flag("pinned"),
        ephemeral=fields.flag("ephemeral"),
    )
    fields.end()
    return charge


def budget_to_json(budget: Budget) -> dict[str, Any]:
    """Return a budget as JSON values."""
    return {
        "limit": budget.limit,
        "duration": budget.duration,
        "timezone": budget.timezone,
        "starts_at": budget.starts_at,
    }


def budget_from_json(value: object) -> Budget:
    """Return the budget that JSON values tell of.

    Raises:
        ConfigurationError: a field is missing, of a wrong type, or out of range; the text names it.
    """
    fields = _Fields(value, "budget")
    budget = Budget(
        limit=fields.maybe("limit", lambda key: fields.number(key, MAX_NANOS)),
        duration=fields.maybe("duration", fields.text),
        timezone=fields.text("timezone"),
        starts_at=fields.maybe("starts_at", lambda key: fields.number(key, _LATEST)),
    )
    fields.end()
    return budget


class _Fields:
    """Take the fields of a JSON object one by one, each checked; what is left over is a mistake."""

    def __init__(self, value: object, name: str) -> None:
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{name} must be a JSON object, not {_shown(value)}")
        self._left = dict(value)
        self._name = name

    def take(self, key: str) -> Any:
        if key not in self._left:
            raise ConfigurationError(f"{self._name}.{key} is missing")
        return self._left.pop(key)

    def maybe(self, key: str, read: Callable[[str], T]) -> T | None:
        if self._left.get(key, ...) is None:
            del self._left[key]
            return None
        return read(key)

    def text(self, key: str) -> str:
        return _text(self.take(key), f"{self._name}.{key}")

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(_text(one, f"{self._name}.{key}") for one in self.list(key))

    def number(self, key: str, most: int) -> int:
        return _number(self.take(key), f"{self._name}.{key}", most)

    def flag(self, key: str) -> bool:
        value = self.take(key)
        if not isinstance(value, bool):
            raise ConfigurationError(f"{self._name}.{key} must be true or false, not {_shown(value)}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        value = self.take(key)
        if value not in choices:
            known = ", ".join(map(repr, choices))
            raise ConfigurationError(f"{self._name}.{key} must be one of {known}, not {_shown(value)}")
        return value

    def list(self, key: str) -> list[Any]:
        value = self.take(key)
        if not isinstance(value, list) or len(value) > _LONGEST:
            raise ConfigurationError(
                f"{self._name}.{key} must be a list of at most {_LONGEST}, not {_shown(value)}"
            )
        return value

    def usage(self, key: str) -> Usage:
        value = self.take(key)
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{self._name}.{key} must be a JSON object, not {_shown(value)}")
        return Usage({name: _number(count, f"{key}.{name}", MAX_NANOS) for name, count in value.items()})

    def end(self) -> None:
        if self._left:
            unknown = ", ".join(sorted(map(str, self._left)))
            raise ConfigurationError(f"{self._name} has unknown fields: {unknown}")


def _observed(value: object) -> tuple[str, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigurationError(f"observed holds pairs of a model and tokens, not {_shown(value)}")
    return _text(value[0], "observed"), _number(value[1], "observed", MAX_NANOS)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ConfigurationError(f"{name} must be text of at most {_LONGEST} characters, not {_shown(value)}")
    return value


def _number(value: object, name: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ConfigurationError(f"{name} must be a whole number from 0 to {most}, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
