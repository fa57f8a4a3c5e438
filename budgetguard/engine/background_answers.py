"""Calls whose answers come later: each keeps its hold until somebody asks for its answer after it has ended.

The store notes which answer a hold waits for, so that whoever asks can settle it: another process, days
later. This process keeps its own calls besides, for what the store does not know: the price that a call was
projected with, and calls that no account holds anything for.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from budgetguard.core.process import keep_newest
from budgetguard.engine.background import background
from budgetguard.errors import StoreError
from budgetguard.events import logger

if TYPE_CHECKING:
    from budgetguard.core.holds import HoldRecord
    from budgetguard.engine.call import GuardedCall
    from budgetguard.engine.engine import Engine
    from budgetguard.stores.base import Store

Name: TypeAlias = tuple[int, str]

# The oldest is forgotten first; the store still knows it.
_MOST: Final = 8_192
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 60.0

_lock = threading.RLock()
_calls: dict[Name, GuardedCall] = {}
_over: weakref.WeakKeyDictionary[Engine, tuple[Store, dict[str, None]]] = weakref.WeakKeyDictionary()


def remember(call: GuardedCall, request_id: str | None) -> None:
    """Note by the id of the answer that a call waits for it; without an id its hold will expire."""
    if request_id is None:
        return
    name = (id(call.engine), request_id)
    with _lock:
        if name in _calls:
            return
        _calls[name] = call
        keep_newest(_calls, _MOST)
    _attach(call, request_id, _FIRST_RETRY)


def waiting(engine: Engine, request_id: str) -> GuardedCall | None:
    """Return the call of this process that waits for an answer, or None."""
    # The call keeps its engine alive, so the engine's id is nobody else's.
    return _calls.get((id(engine), request_id))


def forget(call: GuardedCall, request_id: str) -> None:
    """Forget a call that has ended."""
    with _lock:
        _calls.pop((id(call.engine), request_id), None)


def waiting_hold(engine: Engine, request_id: str) -> HoldRecord | None:
    """Return the hold that waits for an answer which has ended, as the store has it; None if none does.

    The store is asked once for each answer: what no hold waits for now, none will, since a call notes its
    answer before anybody else can know that.

    Raises:
        StoreError: the store failed.
    """
    store = engine.store
    with _lock:
        known, over = _over.get(engine, (store, {}))
        if known is not store:
            over = {}
        _over[engine] = store, over
    if request_id in over:
        return None
    record = store.attached(request_id)
    if record is not None and record.state in ("held", "expired"):
        return record
    end(engine, request_id)
    return None


def end(engine: Engine, request_id: str) -> None:
    """Note that no hold waits for an answer any more."""
    with _lock:
        found = _over.get(engine)
        if found is not None:
            over = found[1]
            over[request_id] = None
            keep_newest(over, _MOST)


def _attach(call: GuardedCall, request_id: str, retry_in: float) -> None:
    engine, hold_id = call.engine, call.hold_id
    if hold_id is None or waiting(engine, request_id) is not call:
        return
    try:
        engine.store.attach(hold_id, request_id)
    except StoreError as error:
        logger.warning(
            "budgetguard: that hold %s waits for %s is not noted yet, and will be tried again: %s",
            hold_id,
            request_id,
            error,
        )
        background.start()
        again = partial(_attach, call, request_id, min(retry_in * 2, _LONGEST_RETRY))
        background.after(retry_in, again)
    except Exception:  # noqa: BLE001 - the call was made, and is settled all the same
        logger.exception("budgetguard: only this process knows that hold %s waits", hold_id)


def _renew() -> None:
    # A thread of the parent may have held the lock at the fork; in the child nobody would release it.
    # The parent's calls are the parent's: a child settles them by the store, as any other process does.
    global _lock
    _lock = threading.RLock()
    _calls.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
