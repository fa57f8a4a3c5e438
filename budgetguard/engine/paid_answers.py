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

Payer: TypeAlias = tuple[Hashable, str, str]

_MOST_IDS: Final = 8_192
# Kept alive, so that no other object can take their identity.
_MOST_KEPT: Final = 128


class PaidAnswers:
    """Remember who paid for which answer."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ids: dict[Hashable, None] = {}
        self._objects: dict[int, tuple[weakref.ref[object], set[Payer]]] = {}
        self._kept: dict[int, tuple[object, set[Payer]]] = {}

    def remember(self, payer: Payer, reported: Reported) -> None:
        """Remember an answer by its id, if it has one."""
        name = _name(payer, reported)
        if name is None:
            return
        with self._lock:
            self._ids.pop(name, None)
            self._ids[name] = None
            keep_newest(self._ids, _MOST_IDS)

    def remember_object(self, payer: Payer, answer: object) -> None:
        """Remember an answer by being this object."""
        key = id(answer)
        with self._lock:
            found = self._payers(answer)
            if found is not None:
                found.add(payer)
                return
            try:
                # Its removal takes no lock: it runs wherever garbage happens to be collected.
                self._objects[key] = weakref.ref(answer, lambda _: self._objects.pop(key, None)), {payer}
            except TypeError:
                self._kept[key] = answer, {payer}
                keep_newest(self._kept, _MOST_KEPT)

    def has(self, payer: Payer, answer: object, reported: Reported) -> bool:
        """Tell whether the payer has paid for an answer."""
        name = _name(payer, reported)
        with self._lock:
            if name is not None and name in self._ids:
                return True
            found = self._payers(answer)
            return found is not None and payer in found

    def _payers(self, answer: object) -> set[Payer] | None:
        key = id(answer)
        if (weak := self._objects.get(key)) is not None and weak[0]() is answer:
            return weak[1]
        if (kept := self._kept.get(key)) is not None and kept[0] is answer:
            return kept[1]
        return None


_paid = PaidAnswers()


def remember(engine: Engine, user: str, reported: Reported) -> None:
    """Remember that a user has paid for an answer that reported this."""
    _paid.remember(_payer(engine, user), reported)


def remember_object(engine: Engine, user: str, answer: object) -> None:
    """Remember that a user has paid for this very object."""
    # Small values are one object for everybody.
    if not isinstance(answer, str | bytes | int | float | tuple | frozenset | None):
        _paid.remember_object(_payer(engine, user), answer)


def is_paid(engine: Engine, user: str, answer: object, reported: Reported) -> bool:
    """Tell whether a guarded call has charged an answer to a user already."""
    return _paid.has(_payer(engine, user), answer, reported)


def _payer(engine: Engine, user: str) -> Payer:
    store = engine.settings.store
    url = store if isinstance(store, str) else getattr(store, "url", "")
    if url.startswith(("https:", "http:")):
        # A hosted manager has a store of its own, and perhaps another key, for the same balances.
        return public_url(url), engine.project, user
    if isinstance(store, str) and store != "memory://":
        return store, engine.project, user
    # What is in memory is somewhere else for every engine, or for every store that was opened by hand.
    where: object = engine if isinstance(store, str) else store
    try:
        return weakref.ref(where), engine.project, user
    except TypeError:
        return id(where), engine.project, user


def _name(payer: Payer, reported: Reported) -> Hashable | None:
    usage = reported.usage
    if not reported.request_id or usage is None:
        return None
    # Some local servers number their answers from 0 to 999, so the id alone does not tell two apart.
    return payer, reported.request_id, reported.model, usage.input_tokens, usage.output_tokens


def _renew() -> None:
    # A thread of the parent may have held the lock at the fork; in the child nobody would release it.
    _paid._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
