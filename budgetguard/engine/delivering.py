"""What waits in the spool: list it, and send it to the store that a project has moved to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from budgetguard.core.holds import UnknownAccount
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Milliseconds
from budgetguard.engine.spool import Spool, spools
from budgetguard.stores.base import Store


@dataclass(frozen=True, slots=True)
class SpooledCost:
    """What waits in the spool for one project of one store.

    Attributes:
        store: the store's URL, without credentials.
        project: whose calls.
        settlements: how many wait.
        cost: Nanos that they come to.
        oldest: when the oldest of their calls was made (milliseconds).
        unknown: how many of them the store has answered that it does not know who is charged.
    """

    store: str
    project: str
    settlements: int
    cost: Nanos
    oldest: Milliseconds
    unknown: int


def waiting(folder: Path) -> Iterator[SpooledCost]:
    """Yield what waits in a folder of spools, by store and project."""
    for spool in spools(folder):
        number, cost, oldest, unknown = 0, 0, None, 0
        for one in spool.waiting():
            number += 1
            unknown += one.unknown
            cost += one.settlement.cost
            oldest = one.hold.created if oldest is None else min(oldest, one.hold.created)
        if oldest is not None:
            yield SpooledCost(spool.url, spool.project, number, cost, oldest, unknown)


def drop_unknown(folder: Path) -> int:
    """Forget what waits for accounts that their store has said not to know; return how many there were."""
    dropped = 0
    for spool in spools(folder):
        for one in spool.waiting():
            if one.unknown:
                spool.remove(one.hold.id)
                dropped += 1
    return dropped


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a delivery did.

    Attributes:
        settlements: how many the store has taken.
        booked: Nanos that the store booked for them.
        repeated: how many it had had before.
        unknown: accounts that it does not know; what is for them stays in the spool.
    """

    settlements: int
    booked: Nanos
    repeated: int
    unknown: tuple[str, ...]


def deliver(folder: Path, old_url: str, target: Store) -> Delivered:
    """Send what waits in the spool under an old store's name to the store where the project is now.

    Each counts once, however often it is sent, and whoever else sends it.

    Args:
        folder: of the spools.
        old_url: the store that did not take them.
        target: the store to send them to; its project is theirs.

    Raises:
        StoreError: it does not take them; those that it has not taken stay.
    """
    spool = Spool(folder, old_url, target.project)
    number = booked = repeated = 0
    unknown: dict[str, None] = {}
    for one in spool.waiting():
        answer = target.settle(one.hold, one.settlement)
        if isinstance(answer, UnknownAccount):
            unknown[answer.account] = None
            spool.mark_unknown(one.hold.id)
            continue
        number += 1
        booked += answer.booked
        repeated += answer.repeated
        spool.remove(one.hold.id)
    return Delivered(number, booked, repeated, tuple(unknown))
