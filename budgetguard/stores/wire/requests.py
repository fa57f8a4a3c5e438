"""Holds, settlements and budgets as JSON values: what is asked of a store. No text of a call is in them."""

from __future__ import annotations

from typing import Any, get_args

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Hold, Outcome, Settlement
from budgetguard.core.money import MAX_NANOS
from budgetguard.errors import ConfigurationError
from budgetguard.stores.wire.fields import LATEST, Fields, read_number, read_text, shown


def hold_to_json(hold: Hold) -> dict[str, Any]:
    """Return a hold as JSON values."""
    return {
        "id": hold.id,
        "charges": [_charge_to_json(charge) for charge in hold.charges],
        "amount": hold.amount,
        "on_expiry": hold.on_expiry,
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
    fields = Fields(value, "hold")
    hold = Hold(
        id=fields.text("id"),
        charges=tuple(_charge_from_json(one) for one in fields.list("charges")),
        amount=fields.number("amount", MAX_NANOS),
        on_expiry=fields.number("on_expiry", MAX_NANOS),
        ttl=fields.number("ttl", LATEST),
        created=fields.number("created", LATEST),
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
    fields = Fields(value, "settlement")
    settlement = Settlement(
        cost=fields.number("cost", MAX_NANOS),
        state=fields.choice("state", ("settled", "voided")),
        outcome=fields.choice("outcome", get_args(Outcome)),
        usage=fields.maybe("usage", fields.usage),
        request_id=fields.maybe("request_id", fields.text),
        thresholds=tuple(read_number(one, "thresholds", 1000) for one in fields.list("thresholds")),
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
    fields = Fields(value, "charge")
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
    fields = Fields(value, "budget")
    budget = Budget(
        limit=fields.maybe("limit", lambda key: fields.number(key, MAX_NANOS)),
        duration=fields.maybe("duration", fields.text),
        timezone=fields.text("timezone"),
        starts_at=fields.maybe("starts_at", lambda key: fields.number(key, LATEST)),
    )
    fields.end()
    return budget


def _observed(value: object) -> tuple[str, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ConfigurationError(f"observed holds pairs of a model and tokens, not {shown(value)}")
    return read_text(value[0], "observed"), read_number(value[1], "observed", MAX_NANOS)
