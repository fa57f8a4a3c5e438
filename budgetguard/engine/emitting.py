"""What a store answered, as events for hooks, and refusals as errors."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from budgetguard import events
from budgetguard.core.accounts import Balance
from budgetguard.core.holds import Booked, Crossing, Expiry, Granted, Hold, Settlement
from budgetguard.core.money import to_usd
from budgetguard.core.windows import Milliseconds, to_datetime
from budgetguard.engine.background import background
from budgetguard.engine.context import as_hook, inside_hook
from budgetguard.engine.refusals import refusal
from budgetguard.errors import BudgetExceededError

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine


def emit(engine: Engine, kind: type[events.Event], *, user: str | None, model: str, **values: Any) -> None:
    """Hand an event to the hooks; of calls that a hook makes itself, only those of a run's log hear."""
    if not engine.hooks.entries:
        return
    event = kind(at=to_datetime(engine.now()), project=engine.project, user=user, model=model, **values)
    if not inside_hook():
        _hand_over(engine, event)
    elif isinstance(event, events.Expired):  # of another call, which is to be heard of
        background.put(partial(_hand_over, engine, event))
    else:
        engine.hooks.emit(event, by_hook=True)


def _hand_over(engine: Engine, event: events.Event) -> None:
    with as_hook():
        engine.hooks.emit(event)


def emit_call(engine: Engine, kind: type[events.CallEvent], hold: Hold, **values: Any) -> None:
    """Hand an event of one call to the hooks."""
    emit(engine, kind, user=hold.user, model=hold.model, hold_id=hold.id, endpoint=hold.endpoint, **values)


def emit_expiries(engine: Engine, expiries: tuple[Expiry, ...]) -> None:
    """Emit an event for each hold that was found expired."""
    for expiry in expiries:
        emit(
            engine,
            events.Expired,
            user=expiry.user,
            model=expiry.model,
            hold_id=expiry.hold_id,
            accounts=expiry.accounts,
            held=to_usd(expiry.amount),
            booked=to_usd(expiry.booked),
        )


def emit_settled(
    engine: Engine, hold: Hold, settlement: Settlement, answer: Booked, *, estimated: bool
) -> None:
    """Emit the events of a settlement, and of what the store found with it."""
    emit_expiries(engine, answer.expired)
    if engine.hooks.entries and not answer.repeated and settlement.state == "settled":
        emit_call(
            engine,
            events.Settled,
            hold,
            cost=to_usd(settlement.cost),
            held=to_usd(hold.amount),
            usage=settlement.usage,
            estimated=estimated,
            outcome=settlement.outcome,
            request_id=settlement.request_id,
        )
    if engine.alerts is not None and answer.crossings:
        from budgetguard.engine.alerting import tell_crossings

        tell_crossings(engine.alerts, engine.store, hold, answer.crossings, at=engine.now())
    for crossing in answer.crossings:
        emit(
            engine,
            events.ThresholdCrossed,
            user=hold.user,
            model=hold.model,
            account=crossing.account,
            threshold=crossing.threshold,
            spent=crossing.balance.spent,
            limit=crossing.balance.quantity(crossing.balance.limit_nanos or 0),
            resets_at=crossing.balance.resets_at,
            unit=crossing.balance.unit,
        )
    if answer.crossings and engine.hooks.wants(events.ForecastExceeded):
        # Where records are read, no call may wait for it.
        background.start()
        background.put(partial(_foresee, engine, answer.crossings, hold.user, engine.now()))


def _foresee(engine: Engine, crossings: tuple[Crossing, ...], user: str | None, now: Milliseconds) -> None:
    """Emit an event for each account that is on course to spend more than its limit."""
    from budgetguard.engine.forecasting import newly_exceeding

    for balance, forecast in newly_exceeding(engine, crossings, now):
        emit(
            engine,
            events.ForecastExceeded,
            user=user,
            model="",
            account=balance.account,
            expected=forecast.expected or Decimal(0),
            low=forecast.low or Decimal(0),
            high=forecast.high or Decimal(0),
            spent=balance.spent,
            limit=balance.limit,
            limit_reached_at=forecast.limit_reached_at,
            resets_at=balance.resets_at,
            unit=balance.unit,
        )


def refused(engine: Engine, hold: Hold, balance: Balance, note: str = "") -> BudgetExceededError:
    """Emit the event of a refusal, and return its error.

    Args:
        engine: whose store refused.
        hold: what was asked for.
        balance: the account that has too little available.
        note: what its text says beside.
    """
    limit, spent = balance.limit_nanos or 0, balance.spent_nanos
    if engine.process.is_mine(balance.account):
        # The account's limit leaves out what was spent elsewhere; people mean all of it.
        whole = engine.process.limit or 0
        spent += whole - limit
        limit = whole
    fits_at = balance.fits_at(hold.amount_of(balance.unit))
    retry_after = None if fits_at is None else max(0.0, (fits_at - engine.now()) / 1_000)
    emit_call(
        engine,
        events.Refused,
        hold,
        account=balance.account,
        cost=balance.quantity(hold.amount_of(balance.unit)),
        limit=balance.quantity(limit),
        spent=balance.quantity(spent),
        available=balance.quantity(limit - spent - balance.held_nanos),
        resets_at=balance.resets_at,
        unit=balance.unit,
        retry_after=retry_after,
    )
    if engine.alerts is not None:
        from budgetguard.engine.alerting import tell_refusal

        tell_refusal(engine.alerts, engine.store, hold, balance, limit=limit, spent=spent, at=engine.now())
    return refusal(hold, balance, limit=limit, spent=spent, retry_after=retry_after, note=note)


def emit_granted(engine: Engine, hold: Hold, answer: Granted) -> None:
    """Emit the events of a grant, and of the accounts that would have refused."""
    emit_call(engine, events.Held, hold, amount=to_usd(hold.amount), accounts=answer.accounts)
    for balance in answer.shadowed:
        emit_call(
            engine,
            events.Shadowed,
            hold,
            account=balance.account,
            unit=balance.unit,
            cost=balance.quantity(hold.amount_of(balance.unit)),
            limit=balance.limit or balance.quantity(0),
            spent=balance.spent,
            available=balance.available or balance.quantity(0),
        )
