"""What stores answer, in the words of the naive model."""

from __future__ import annotations

from budgetguard.core.accounts import Balance
from budgetguard.core.holds import Booked, Denied, Granted, Reservation, UnknownAccount

from .naive import Standing


def said(answer: Reservation) -> str:
    """Say what a store answered to `reserve`."""
    match answer:
        case Granted(repeated=True):
            return "repeated"
        case Granted():
            return "granted"
        case Denied():
            return f"refused {answer.balance.account}"
        case UnknownAccount():
            return f"unknown {answer.account}"
        case _:
            return "unlimited"


def ended(answer: Booked) -> str:
    """Say what a store answered to `settle`."""
    if answer.repeated:
        return "repeated"
    return "late" if answer.late else "booked"


def shown(balance: Balance) -> Standing:
    """Return a balance as the model has it."""
    return Standing(
        limit=balance.limit_nanos,
        spent=balance.spent_nanos,
        held=balance.held_nanos,
        expired=balance.expired_nanos,
        expiries=balance.expiries,
        open_holds=balance.open_holds,
        models=tuple(sorted(balance.models.items())),
        start=balance.starts_ms,
        end=balance.resets_ms,
    )
