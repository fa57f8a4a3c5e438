"""Calls whose answers are still being made: they keep their holds until somebody asks for the answer.

Known by the provider's id of the answer, in this process only: another process that asks is charged
nothing, and the hold lapses there and here, which books its projection (`unknown_outcome`). Polling often
counts once, because a call finishes once.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, TypeAlias

from budgetguard.usage import Reported

if TYPE_CHECKING:
    from budgetguard.bookkeeping import Bookkeeper
    from budgetguard.calls import Call

Name: TypeAlias = tuple[int, str]

# The oldest is forgotten first; its hold lapses.
_MOST: Final = 8_192

_lock = threading.Lock()
_calls: dict[Name, Call] = {}


def remember(call: Call, reported: Reported) -> None:
    """Remember a call by the id of the answer that it waits for; without an id its hold will lapse."""
    if reported.request_id is None:
        return
    with _lock:
        _calls.setdefault((id(call.keeper), reported.request_id), call)
        if len(_calls) > _MOST:
            del _calls[next(iter(_calls))]


def waiting(keeper: Bookkeeper, request_id: str) -> Call | None:
    """Return the call of a bookkeeper that waits for an answer, or None."""
    # The call keeps its keeper alive, so the keeper's id is nobody else's.
    return _calls.get((id(keeper), request_id))


def forget(call: Call, request_id: str) -> None:
    """Forget a call that has ended."""
    with _lock:
        _calls.pop((id(call.keeper), request_id), None)


def _renew() -> None:
    # A thread of the parent may have held the lock at the fork; in the child nobody would release it.
    # The parent's answers are the parent's to ask for: their process counts what it spends.
    global _lock
    _lock = threading.Lock()
    _calls.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
