"""What a store can do beside its verbs so that a project can be copied to another store, and leave it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, Protocol, TypeVar, runtime_checkable

from budgetguard.core.rows import Export, Stored
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import StoreError
from budgetguard.stores.base import Store, public_url

COPY: Final = "copy of "
"""What the note of a copy in the making begins with."""

BATCH: Final = 500
"""Rows that a store takes in one transaction."""

_T = TypeVar("_T")


@runtime_checkable
class Movable(Store, Protocol):
    """A store that a project can be copied from and to.

    Attributes:
        retention_ms: for how long it keeps the records of calls that ended (milliseconds).
    """

    retention_ms: Milliseconds

    def export(self, since: Milliseconds = 0) -> Export:
        """Return all that is stored of the project, as it is stored: nothing is brought up to date.

        Holds are left out that ended before `since` and have not changed after it. Nothing is held for long
        meanwhile, and no more in memory than a page.

        Raises:
            StoreError: the store cannot be read; also while the rows are walked over.
        """

    def restore(self, rows: Iterable[Stored]) -> None:
        """Insert or replace rows as another store exported them, a few hundred a transaction.

        Accounts come with their open holds in `open`, whose own rows must come as well. Rows that come
        again change nothing, so what was interrupted can be repeated.

        Raises:
            StoreError: the store cannot be written, or the project has left it. A copy in the making
                (`retire`) takes them.
        """

    def retire(self, moved_to: str | None) -> None:
        """Let the project leave: from now on every verb that writes raises StoreError, which says whereto.

        When this returns, no verb is still under way that may write. What is stored stands still: reads
        go on, and show it as it was, whatever time would have changed. None takes it back.

        Args:
            moved_to: the URL of the store where the project is now, kept and shown without credentials; or
                `COPY` and what the project is a copy of, while that copy is made.

        Raises:
            StoreError: the store cannot be written.
        """

    def retired(self) -> str | None:
        """Return where the project has moved, None if it has not.

        Raises:
            StoreError: the store cannot be read.
        """


def note_of(moved_to: str) -> str:
    """Return what a store keeps of where its project has moved, and shows."""
    return moved_to if moved_to.startswith(COPY) else public_url(moved_to)


def moved(store: Store, moved_to: str) -> StoreError:
    """Return the error of a verb that would write to a store that the project has left."""
    old = public_url(store.url)
    if moved_to.startswith(COPY):
        return StoreError(
            f"project {store.project!r} of {old} is a {moved_to}, and not opened yet: programs write to that "
            "one until `budgetguard copy` says that all has moved. Nothing was changed here"
        )
    return StoreError(
        f"project {store.project!r} has moved from {old} to {moved_to}: name that store "
        "(BUDGETGUARD_STORE, or the argument store) and start the program again. Nothing was changed here. "
        "Settlements that come too late for the move wait in the spool: "
        f"`budgetguard deliver --from {old} --to {moved_to}` sends them"
    )


def batches(rows: Iterable[_T], size: int = BATCH) -> Iterator[list[_T]]:
    """Yield rows in lists of up to so many."""
    remaining = iter(rows)
    while batch := list(islice(remaining, size)):
        yield batch
