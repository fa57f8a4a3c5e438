"""Answers that guarded calls have paid for, so that a program which also books them itself books nothing.

An answer is known by the provider's id of it, whatever it has been turned into since (a dict, a parsed
raw response, the end of a stream), and by being the very object, which covers answers that carry no id.
Only this process's are known, and the newest of them. Objects are not kept alive by it, except the last
few of those that cannot be referred to weakly, such as dicts.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, TypeAlias

from budgetguard.core.newest import keep_newest
from budgetguard.core.usage import Reported
from budgetguard.stores.base import public_url

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

# Where balances are, the project, and the user.
PaidBy: TypeAlias = tuple[Hashable, str]

_MOST_IDS: Final = 8_192
# Kept alive, so that no other object can take their identity.
_MOST_KEPT: Final = 128

_lock = threading.RLock()
_ids: dict[Hashable, None] = {}
_objects: dict[int, tuple[weakref.ref[object], set[PaidBy]]] = {}
_kept: dict[int, tuple[object, set[PaidBy]]] = {}


def books_of(engine: Engine) -> Hashable:
    """Return what names the balances that an engine keeps, whichever engine of this process keeps them."""
    store = engine.settings.store
    url = store if isinstance(store, str) else getattr(store, "url", "")
    if url.startswith(("https:", "http:")):
        # A hosted manager has a store of its own, and perhaps another key, for the same balances.
        return public_url(url), engine.project
    if isinstance(store, str) and store != "memory://":
        return store, engine.project
    # What is in memory is somewhere else for every engine, or for every store that was opened by hand.
    where: object = engine if isinstance(store, str) else store
    try:
        return weakref.ref(where), engine.project
    except TypeError:
        return id(where), engine.project


def remember(engine: Engine, user: str, reported: Reported) -> None:
    """Remember, by the answer's id, that a user has paid for an answer that reported this."""
    usage = reported.usage
    if not reported.request_id or usage is None:
        return
    name = _name((engine.books, user), reported)
    with _lock:
        _ids.pop(name, None)
        _ids[name] = None
        if len(_ids) > _MOST_IDS:
            keep_newest(_ids, _MOST_IDS)


def remember_object(engine: Engine, user: str, answer: object) -> None:
    """Remember that a user has paid for this very object."""
    # Small values are one object for everybody.
    if isinstance(answer, str | bytes | int | float | tuple | frozenset | None):
        return
    key, payer = id(answer), (engine.books, user)
    with _lock:
        found = _payers(answer)
        if found is not None:
            found.add(payer)
            return
        try:
            # Its removal takes no lock: it runs wherever garbage happens to be collected.
            _objects[key] = weakref.ref(answer, lambda _: _objects.pop(key, None)), {payer}
        except TypeError:
            _kept[key] = answer, {payer}
            if len(_kept) > _MOST_KEPT:
                keep_newest(_kept, _MOST_KEPT)


def is_paid(engine: Engine, user: str, answer: object, reported: Reported) -> bool:
    """Whether a guarded call has charged an answer to a user already."""
    payer = engine.books, user
    with _lock:
        if reported.request_id and reported.usage is not None and _name(payer, reported) in _ids:
            return True
        found = _payers(answer)
        return found is not None and payer in found


def _payers(answer: object) -> set[PaidBy] | None:
    key = id(answer)
    if (weak := _objects.get(key)) is not None and weak[0]() is answer:
        return weak[1]
    if (kept := _kept.get(key)) is not None and kept[0] is answer:
        return kept[1]
    return None


def _name(payer: PaidBy, reported: Reported) -> Hashable:
    # Some local servers number their answers from 0 to 999, so the id alone does not tell two apart.
    units = reported.usage.units if reported.usage is not None else {}
    tokens = units.get("input_tokens", 0), units.get("output_tokens", 0)
    return payer, reported.request_id, reported.model, tokens


def _renew() -> None:
    # A thread of the parent may have held the lock at the fork; in the child nobody would release it.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
