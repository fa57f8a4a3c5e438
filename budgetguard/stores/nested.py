"""What a store says to a verb that comes in the middle of another one of the same thread.

A signal handler runs between any two instructions of the main thread, so also inside a store's lock. The
locks are re-entrant, so that it does not wait for itself for ever; what it reads is what was committed. But
it cannot write: the verb that it has interrupted goes on from what it read before.
"""

from __future__ import annotations

from budgetguard.errors import StoreError


def nested(url: str) -> StoreError:
    """Return the error for a verb that writes in the middle of another."""
    return StoreError(
        f"the store {url} is in the middle of another call's verb, which a signal handler has interrupted: "
        "let the handler note what is to be done, and do it once it has returned; nothing was changed"
    )
