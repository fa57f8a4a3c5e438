"""Who pays for a call: a list of rules, one for each kind of account; and who has paid for which answer.

A rule turns what is known of a call into the charges of its kind. A new kind of account is one rule and one
row of `RULES`; refusals name its accounts by that row, too.

Answers that guarded calls have paid for are remembered, so that a program which also books them itself books
nothing. An answer is known by the provider's id of it, whatever it has been turned into since (a dict, a
parsed raw response, the end of a stream), and by being the very object, which covers answers that carry no
id. Only this process's are known, and the newest of them. Objects are not kept alive by it, except the last
few of those that cannot be referred to weakly, such as dicts.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from budgetguard.config import Settings
from budgetguard.core.accounts import PROCESS, PROJECT, RUN, SEVERAL, USER, Budget, account_name
from budgetguard.core.holds import Charge, Hold
from budgetguard.core.labels import Labels, named_by
from budgetguard.core.money import Nanos
from budgetguard.core.process import keep_newest
from budgetguard.core.usage import Reported
from budgetguard.engine.judge import NOTHING_KNOWN, Known
from budgetguard.stores.base import public_url
from budgetguard.tokens.models import bare_name

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

_MOST_COUNTED: Final = 1_024
_MOST_NAMES: Final = 4_096

_named = lru_cache(_MOST_NAMES)(account_name)


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known of a call before it is made.

    Attributes:
        user: who makes it, or None.
        runs: the charges of the runs around it, innermost first.
        model: the model as the call names it.
        endpoint: what is called, such as `chat`.
        tags: labels without a name.
        labels: the program's, by name.
        provider: genai-prices' id of who answers; empty where that is not known.
        known: the project's documents, by which it is judged.
    """

    user: str | None = None
    runs: tuple[Charge, ...] = ()
    model: str = ""
    endpoint: str = ""
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    provider: str = ""
    known: Known = field(default=NOTHING_KNOWN, compare=False, repr=False)

    @property
    def models(self) -> tuple[str, ...]:
        """The model's names: as the call gives it, without prefixes, and without a date."""
        return model_names(self.model)

    @property
    def all_labels(self) -> Labels:
        """All labels of the call with their values, those that are kept with the user too."""
        found: dict[str, tuple[str, ...]] = {
            name: (value,) for name, value in {**self.known.member_labels(self.user), **self.labels}.items()
        }
        if self.user is not None:
            found["user"] = (self.user,)
        if self.model:
            found["model"] = self.models
        if self.provider:
            found["provider"] = (self.provider,)
        if self.endpoint:
            found["endpoint"] = (self.endpoint,)
        if self.tags:
            found["tag"] = self.tags
        return found


_DATED: Final = re.compile(r"(.+?)[-@](?:\d{4}-\d{2}-\d{2}|\d{8})")


@lru_cache(maxsize=1_024)
def model_names(model: str) -> tuple[str, ...]:
    """Return the names by which budgets may mean a model: `openai/gpt-5-2025-08-07`, and what is left of that
    without provider and date, so that another spelling leads to no other budget."""
    bare = bare_name(model)
    dated = _DATED.fullmatch(bare)
    return tuple(dict.fromkeys((model, bare, dated[1] if dated else bare)))


class ProcessCap:
    """What one guard spends in this process, and the `max_budget` that caps it; a forked child starts at 0.

    The cap is an account like any other, so that it is held and refused in the same transaction: one
    account in each project's store. What was spent elsewhere, or before the cap was set, is not on that
    account, and is taken off its limit.

    Attributes:
        limit: Nanos that may be spent; None for no cap.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.limit: Nanos | None = None
        self._spent: Nanos = 0
        self._on_account: dict[str, Nanos] = {}
        self._counted: dict[str, None] = {}
        self._pid = 0
        self._mind_fork()

    @property
    def spent(self) -> Nanos:
        """Nanos that this process has spent."""
        self._mind_fork()
        return self._spent

    def charge(self, project: str) -> Charge | None:
        """Return the charge that caps a project's call; None where nothing is capped."""
        if self.limit is None:
            return None
        self._mind_fork()
        with self._lock:
            elsewhere = self._spent - self._on_account.get(project, 0)
            left = Budget(max(0, self.limit - elsewhere))
            return Charge(self._account, budget=left, pinned=True, ephemeral=True)

    def is_mine(self, account: str) -> bool:
        """Whether an account is this process's."""
        return account == self._account

    def count(self, project: str, hold: Hold, cost: Nanos) -> None:
        """Count what a project's call cost; once, also if an interrupted settlement is made again."""
        if self._pid != os.getpid():
            self._mind_fork()
        with self._lock:
            if hold.id in self._counted:
                return
            # An interrupt comes at a call or a jump backwards, so the next lines go through as a whole.
            self._counted[hold.id] = None
            self._spent += cost
            for charge in hold.charges:
                if charge.account == self._account:
                    self._on_account[project] = self._on_account.get(project, 0) + cost
                    break
            if len(self._counted) > _MOST_COUNTED:
                keep_newest(self._counted, _MOST_COUNTED)

    def begin_elsewhere(self) -> None:
        """Take new accounts, because the stores have changed; what is spent stays spent."""
        self._mind_fork()
        with self._lock:
            self._account = self._new_account()
            self._on_account = {}

    def _mind_fork(self) -> None:
        if self._pid != os.getpid():
            self._lock = threading.RLock()
            self._account = self._new_account()
            self._spent = 0
            self._on_account = {}
            self._pid = os.getpid()

    @staticmethod
    def _new_account() -> str:
        return account_name(PROCESS, f"{os.getpid()}-{os.urandom(6).hex()}")


class Books(Protocol):
    """Where a call is booked, which rules know beside the call itself: an engine."""

    settings: Settings
    project: str
    process: ProcessCap


Rule: TypeAlias = Callable[[CallFacts, Books], tuple[Charge, ...]]


def _user(facts: CallFacts, books: Books) -> tuple[Charge, ...]:
    if facts.user is None:
        return ()
    default = None if books.settings.default_budget is None else books.settings.default
    return (Charge(_named(USER, facts.user), required=True, budget=default),)


def _runs(facts: CallFacts, books: Books) -> tuple[Charge, ...]:
    # The settings' runs were made by whoever started this program. Where they do not exist (in another
    # project or store), nothing would hold the program to them, so they are required.
    if not books.settings.runs:
        return facts.runs
    started = (Charge(account_name(RUN, run), required=True) for run in books.settings.runs)
    return (*facts.runs, *started)


def _process(_facts: CallFacts, books: Books) -> tuple[Charge, ...]:
    if books.process.limit is None:
        return ()
    cap = books.process.charge(books.project)
    return () if cap is None else (cap,)


def _labels(facts: CallFacts, _books: Books) -> tuple[Charge, ...]:
    return facts.known.charges(facts.all_labels) if facts.known.has_scopes else ()


def _project(_facts: CallFacts, books: Books) -> tuple[Charge, ...]:
    return (Charge(_named(PROJECT, books.project)),)


@dataclass(frozen=True, slots=True)
class PayerRule:
    """One kind of account that pays for calls.

    Attributes:
        kind: the first part of its accounts' names.
        charges: (call, books) -> the accounts of this kind that the call is charged to.
        named: how an error names an account of this kind; `{}` is the account's id, quoted.
    """

    kind: str
    charges: Rule
    named: str


RULES: Final = (
    PayerRule(USER, _user, "user {}"),
    PayerRule(SEVERAL, _labels, "{}"),
    PayerRule(RUN, _runs, "this run"),
    PayerRule(PROCESS, _process, "this process (max_budget)"),
    PayerRule(PROJECT, _project, "project {}"),
)
"""Who pays, in the order in which accounts are asked; the first that has too little refuses."""


def charges_for(facts: CallFacts, books: Books) -> tuple[Charge, ...]:
    """Return all accounts that a call is charged to."""
    found: tuple[Charge, ...] = ()
    for rule in RULES:
        found += rule.charges(facts, books)
    return facts.known.by_what_is_known(found)


def account_in_words(account: str) -> str:
    """Return an account as an error names it: `user '1234'` for `user:1234`."""
    kind, _, ident = account.partition(":")
    named = named_by(account)
    if named is not None and kind != USER:
        return named.in_words
    return next((rule.named.format(repr(ident)) for rule in RULES if rule.kind == kind), account)


# Paid answers

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


def remember_paid(engine: Engine, user: str, reported: Reported) -> None:
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


def remember_paid_object(engine: Engine, user: str, answer: object) -> None:
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
