"""What stores answer, in the words of the naive model."""

from __future__ import annotations

from collections.abc import Callable

from budgetguard.core.accounts import Balance, Document
from budgetguard.core.holds import (
    Booked,
    Denied,
    Granted,
    HoldRecord,
    Outdated,
    Reservation,
    UnknownAccount,
    Unlimited,
)
from budgetguard.stores import Store
from budgetguard.testing._contract_trail import trail

from .naive import Record, Standing, Text


def said(answer: Reservation) -> str:
    """Say what a store answered to `reserve`."""
    match answer:
        case Granted(repeated=True):
            return "repeated"
        case Granted(shadowed=()):
            return "granted"
        case Granted():
            return f"granted but for {' '.join(balance.account for balance in answer.shadowed)}"
        case Denied():
            return f"refused {answer.balance.account}"
        case UnknownAccount():
            return f"unknown {answer.account}"
        case Outdated():
            scopes = ["scopes"] if answer.scopes is not None else []
            return f"outdated {' '.join(sorted([*answer.accounts, *scopes]))}"
        case Unlimited():
            return "unlimited"


def ended(answer: Booked) -> str:
    """Say what a store answered to `settle`."""
    if answer.repeated:
        return "repeated"
    return "late" if answer.late else "booked"


def text_of(document: Document) -> Text:
    """Return the rules and labels of an account as the model has them, but for their number."""
    return Text(document.revision, document.rules, document.labels)


def shown(balance: Balance, text: Callable[[Document], Text] = text_of) -> Standing:
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
        grants=tuple((one.id, one.amount, one.until_ms or 0) for one in balance.grants),
        rolling=balance.rolling,
        frees=balance.frees,
        rollover=balance.rollover_nanos,
        text=text(balance.document),
    )


def recorded(record: HoldRecord) -> Record:
    """Return a record as the model has it."""
    return Record(
        record.state,
        record.cost_nanos,
        record.accounts,
        tuple(sorted((unit, tuple(counts)) for unit, counts in record.units.items())),
        record.shadowed,
    )


def trail_of(store: Store) -> list[tuple[str, str]]:
    """Return the audit trail as clients told it: see `testing._contract_trail.trail`."""
    return [(entry.id, entry.text) for entry in trail(store)]
