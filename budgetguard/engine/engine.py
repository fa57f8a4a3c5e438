"""The bookkeeper: a guard's dealings with its store, and what it tells of them.

It reserves, settles and voids; turns what the store answers into events and errors; counts what this
process spends; and never lets a settlement be lost: one that the store does not take goes to the outbox.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol

from budgetguard import events
from budgetguard.config import DEFAULT_PROJECT, Settings
from budgetguard.core.accounts import PROJECT, RUN, USER, Balance, account_name
from budgetguard.core.holds import (
    VOID,
    Charge,
    Expiry,
    Granted,
    Hold,
    Refused,
    Reservation,
    Settled,
    Settlement,
    UnknownAccount,
)
from budgetguard.core.learning import ENOUGH, Observations, learned_cap, observe
from budgetguard.core.money import Nanos, format_usd, to_usd
from budgetguard.core.windows import to_datetime
from budgetguard.engine import runlog
from budgetguard.engine.background import Dropped, background
from budgetguard.engine.context import Payer, as_hook, inside_hook
from budgetguard.engine.outbox import Outbox
from budgetguard.engine.process import ProcessCap
from budgetguard.engine.refusals import lost_user, missing_user, refusal, required_user, unknown_account
from budgetguard.engine.spool import Spool, spool_folder
from budgetguard.errors import BudgetExceededError, BudgetGuardError, ConfigurationError, StoreError
from budgetguard.pricing.book import PriceBook
from budgetguard.stores.base import OWN_PROJECTS, Store, open_store, public_url
from budgetguard.stores.waiting import taken

logger = logging.getLogger("budgetguard")

_SMALLER_TRIES: Final = 8
# Projects that an error names.
_ELSEWHERE: Final = 5
_OBSERVE_EVERY: Final = 16
_OBSERVE_EACH: Final = 4 * ENOUGH


class UnderWay(Protocol):
    """A call that may hold money; see `GuardedCall`."""

    def is_left(self) -> bool:
        """Whether nobody goes on with it, now that the process ends."""

    def finish_left(self) -> None:
        """Finish what was left undone."""

    def may_be_forgotten(self, account: str) -> bool:
        """Whether an account's money may be held for an answer that nobody reads any more."""


class Engine:
    """Keep one guard's books.

    Args:
        settings: see `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.prices = PriceBook()
        self.hooks = events.Hooks()
        if settings.runs:
            runlog.follow(self.hooks)
        self.process = ProcessCap()
        self._store: Store | None = None
        self._opening = threading.RLock()
        self._learned: dict[str, Observations] = {}
        self._observed: deque[tuple[str, int]] = deque()
        self._observe_now = False
        # Which store granted a hold: the settings may name another one by the time it is settled.
        self._granted_by: dict[str, tuple[Store, tuple[str, ...]]] = {}
        self.under_way: dict[int, tuple[UnderWay, Dropped]] = {}
        self._outbox = Outbox(lambda: self.store, partial(self._tell_settled, estimated=False))
        _keepers.add(self)

    @property
    def project(self) -> str:
        """Whose accounts these are."""
        if self.settings.project is None and not isinstance(self.settings.store, str):
            return self.settings.store.project
        return self.settings.project or DEFAULT_PROJECT

    @property
    def place(self) -> str:
        """The store's URL as it may be shown: without credentials."""
        given = self.settings.store
        return public_url(given if isinstance(given, str) else given.url)

    @property
    def store(self) -> Store:
        """The store, opened on first use.

        Raises:
            StoreError: it cannot be opened.
        """
        if self._store is None:
            with taken(self._opening):
                if self._store is None:
                    opened = self._open_store()
                    if self._store is not None:  # a signal handler has opened it meanwhile
                        return self._store
                    self._store = opened
                    if (spool := self._spool(self._store)) is not None:
                        self._outbox.adopt(self._store, spool)
        return self._store

    @property
    def is_open(self) -> bool:
        """Whether the store has been used."""
        return self._store is not None

    @property
    def blocking(self) -> bool:
        """Whether dealing with the store waits for I/O; opening it does."""
        return self._store is None or self._store.blocking

    def configure(self, settings: Settings) -> None:
        """Take other settings. Calls under way keep what they began with."""
        same = ("store", "project", "retention", "clock")
        if any(getattr(settings, name) != getattr(self.settings, name) for name in same):
            former, self._store = self._store, None
            if former is not None and isinstance(self.settings.store, str):
                former.close()  # calls under way open it again
            self._learned = {}
            self._observed.clear()
            self.process.begin_elsewhere()
        self.settings = settings

    def now(self) -> int:
        """Return the time in milliseconds, by the guard's clock."""
        return self.settings.clock()

    def charges(self, user: str | None, runs: tuple[Charge, ...]) -> tuple[Charge, ...]:
        """Return who pays for a call: the user, the runs around it, this process, the project.

        The settings' runs were made by who started this program. Where they are not (in another project,
        or another store), nothing would hold the program to them, so the call must not be made.
        """
        found = []
        if user is not None:
            name = account_name(USER, user)
            found.append(Charge(name, required=True, budget=self.settings.default))
        found += runs
        found += [Charge(account_name(RUN, run), required=True) for run in self.settings.runs]
        if (cap := self.process.charge(self.project)) is not None:
            found.append(cap)
        found.append(Charge(account_name(PROJECT, self.project)))
        return tuple(found)

    def check_payer(self, payer: Payer, model: str) -> None:
        """Refuse a call that nobody can say who pays for, or that has no user where each needs one.

        Raises:
            MissingUserError: so it is.
        """
        if payer.lost is not None:
            raise lost_user(model, payer.lost)
        if payer.user is None and self.settings.requires_user:
            raise required_user(model)

    def reserve(self, hold: Hold, *, smaller: Callable[[Nanos], Hold | None] | None = None) -> bool:
        """Set a hold's money aside, and tell whether any account grants it.

        False only where the settings allow a call that nothing limits, or a store that fails.

        Args:
            hold: what to set aside.
            smaller: available Nanos -> a hold of no more, of the same id, to try instead of being refused;
                None if there is none.

        Raises:
            BudgetExceededError: an account has too little available.
            MissingUserError: nothing limits the call.
            UnknownUserError: the user has no budget.
            StoreError: the store failed; the call must not be made.
        """
        _mind_end()
        store: Store | None = None
        try:
            store = self.store
            answer = store.reserve(hold)
            if self._outbox:
                answer = self._after_outage(store, hold, answer)
            if isinstance(answer, Refused) and self._gave_back(answer):
                answer = store.reserve(hold)
            tries = 0
            # Each account may have less than the one before, and other calls take money meanwhile.
            while isinstance(answer, Refused) and smaller is not None and tries < _SMALLER_TRIES:
                less = smaller(answer.balance.available_nanos or 0)
                if less is None:
                    break
                self._tell_expiries(answer.expired)
                hold, tries = less, tries + 1
                answer = store.reserve(hold)
        except StoreError as error:
            if self.settings.on_store_error == "block":
                if store is not None:
                    # It may have been granted all the same, and this call will not be made.
                    self._outbox.keep(store, hold, VOID, None)
                raise
            logger.warning("budgetguard: a call is allowed although its store failed: %s", error)
            return False
        if isinstance(answer, Granted):
            self._granted_by[hold.id] = store, answer.accounts
            self._tell_expiries(answer.expired)
            if self.hooks:
                self._emit_call(events.Held, hold, amount=to_usd(hold.amount), accounts=answer.accounts)
            return True
        if isinstance(answer, Refused):
            self._tell_expiries(answer.expired)
            raise self._refusal(hold, answer.balance)
        if isinstance(answer, UnknownAccount):
            raise self.unknown(answer.account, hold.user)
        if self.settings.missing_user == "allow" or not hold.amount:
            return False
        raise missing_user(hold.model, self.project)

    def extend(self, hold: Hold) -> Balance | None:
        """Set more money aside for a call under way; return the account that has no more, if one has not.

        A store that fails changes nothing for the call.
        """
        try:
            store = self.store
            answer = store.reserve(hold)
            if isinstance(answer, Refused) and self._gave_back(answer):
                answer = store.reserve(hold)
        except StoreError as error:
            logger.warning("budgetguard: no more could be held for a stream: %s", error)
            return None
        self._tell_expiries(answer.expired if isinstance(answer, Granted | Refused) else ())
        if isinstance(answer, Granted):
            self._granted_by[hold.id] = store, answer.accounts
        return answer.balance if isinstance(answer, Refused) else None

    def settle(self, hold: Hold, settlement: Settlement, *, estimated: bool = False) -> None:
        """Book how a call ended. Never raises: a settlement that the store does not take is tried again."""
        if self._observe_now or len(self._observed) >= _OBSERVE_EVERY:
            settlement = replace(settlement, observed=self._take_observed())
        self.process.count(self.project, hold, settlement.cost)
        answer = self._send(hold, settlement)
        if isinstance(answer, Settled):
            self._tell_settled(hold, settlement, answer, estimated=estimated)

    def void(self, hold: Hold, reason: str) -> None:
        """Give a hold back. Never raises, as `settle` does not."""
        answer = self._send(hold, VOID)
        if isinstance(answer, Settled):
            self._tell_expiries(answer.expired)
            if not answer.repeated and self.hooks:
                self._emit_call(events.Voided, hold, held=to_usd(hold.amount), reason=reason)

    def post(self, hold: Hold, settlement: Settlement) -> None:
        """Book a cost that no hold was made for.

        Raises:
            UnknownUserError: the user has no budget.
            StoreError: the store failed; nothing is booked.
        """
        answer = self.store.settle(hold, settlement)
        if isinstance(answer, UnknownAccount):
            raise self.unknown(answer.account, hold.user)
        self.process.count(self.project, hold, settlement.cost)
        self._tell_settled(hold, settlement, answer, estimated=False)

    def projects(self, account: str | None = None) -> Iterator[str]:
        """Yield the projects of the store that have a budget (or this account), in order of their names.

        Raises:
            StoreError: the store failed.
        """
        return (name for name in self.store.projects(account) if not name.startswith(OWN_PROJECTS))

    def unknown(self, account: str, user: str | None) -> BudgetGuardError:
        """Return the error that says a required account does not exist, and in which projects it does."""
        return unknown_account(account, user, self.project, self.elsewhere(account))

    def elsewhere(self, account: str) -> tuple[str, ...]:
        """Return other projects of the store that have an account, a few of them; none if it cannot say."""
        try:
            return tuple(islice((one for one in self.projects(account) if one != self.project), _ELSEWHERE))
        except (StoreError, AttributeError):  # a store of the program's own may know nothing of others
            return ()

    def flush(self) -> None:
        """Finish what was left, and send what the store did not take before; what it still refuses stays."""
        background.finish()
        self._outbox.flush()

    def finish_left(self) -> None:
        """Finish the calls that nobody goes on with, since the process ends."""
        for call, _ in list(self.under_way.values()):
            if call.is_left():
                call.finish_left()

    def close(self) -> None:
        """Flush, and let go of the store's files and connections; the next use opens them again."""
        self.flush()
        if self._store is not None:
            self._store.close()

    def learned_cap(self, model: str) -> int | None:
        """Return the output cap that a model's settled calls suggest (tokens), or None before enough."""
        counts = self._learned.get(model)
        if counts is None:
            try:
                counts = self._learned[model] = self.store.observations(model)
            except StoreError:
                return None  # reserving will meet the same store, and say so
        return learned_cap(counts)

    def observe(self, model: str, tokens: int) -> None:
        """Learn from an answer of that many output tokens; stored together with a later settlement."""
        counts = self._learned[model] = observe(self._learned.get(model, {}), tokens)
        self._observed.append((model, tokens))
        # Until enough is known, each one is sent at once: a program that makes one call a run learns too.
        self._observe_now = self._observe_now or sum(counts.values()) <= _OBSERVE_EACH

    def emit(self, kind: type[events.Event], *, user: str | None, model: str, **values: Any) -> None:
        """Hand an event to the hooks; of calls that a hook makes itself, only those of a run's log hear."""
        if not self.hooks:
            return
        event = kind(at=to_datetime(self.now()), project=self.project, user=user, model=model, **values)
        if not inside_hook():
            self._tell(event)
        elif isinstance(event, events.Expired):  # of another call, which is to be heard of
            background.put(partial(self._tell, event))
        else:
            self.hooks.emit(event, by_hook=True)

    def _tell(self, event: events.Event) -> None:
        with as_hook():
            self.hooks.emit(event)

    def _after_outage(self, store: Store, hold: Hold, answer: Reservation) -> Reservation:
        """Deliver what waits, now that the store answers: at once, if that may change its answer."""
        if not isinstance(answer, Refused):
            background.put(self._outbox.flush_unsent)
            return answer
        self._tell_expiries(answer.expired)
        self._outbox.flush_unsent()
        return store.reserve(hold)

    def _gave_back(self, refused: Refused) -> bool:
        """Settle the streams that nobody reads any more, if they may hold what a call was refused for.

        A client's streams are reference cycles: one that a loop has left keeps its money until the garbage
        collector comes by.
        """
        account = refused.balance.account
        if not any(call.may_be_forgotten(account) for call, _ in list(self.under_way.values())):
            return False
        if not background.collect():
            return False
        self._tell_expiries(refused.expired)
        return True

    def _spool(self, store: Store | None) -> Spool | None:
        """Return the spool of a store (None: of the one that could not be opened), or None if it has none."""
        where = self.settings.store if store is None else store
        url = where if isinstance(where, str) else where.url
        if self.settings.spool is None or url.startswith("memory:"):
            return None
        try:
            folder = spool_folder(self.settings.spool)
        except ConfigurationError as error:
            logger.warning("budgetguard: settlements that the store does not take wait in memory: %s", error)
            return None
        return Spool(folder, url, self.project if store is None else store.project)

    def _open_store(self) -> Store:
        given = self.settings.store
        if isinstance(given, str):
            given = open_store(
                given, project=self.project, clock=self.settings.clock, retention=self.settings.retention
            )
        given.on_expiry(lambda expiry: self._tell_expiries((expiry,)))
        return given

    def _refusal(self, hold: Hold, balance: Balance) -> BudgetExceededError:
        limit, spent = balance.limit_nanos or 0, balance.spent_nanos
        if self.process.is_mine(balance.account):
            # The account's limit leaves out what was spent elsewhere; people mean all of it.
            whole = self.process.limit or 0
            spent += whole - limit
            limit = whole
        self._emit_call(
            events.Refused,
            hold,
            account=balance.account,
            cost=to_usd(hold.amount),
            limit=to_usd(limit),
            spent=to_usd(spent),
            available=to_usd(limit - spent - balance.held_nanos),
            resets_at=balance.resets_at,
        )
        return refusal(hold, balance, limit=limit, spent=spent)

    def _tell_settled(self, hold: Hold, settlement: Settlement, answer: Settled, *, estimated: bool) -> None:
        self._tell_expiries(answer.expired)
        if self.hooks and not answer.repeated and settlement.state == "settled":
            self._emit_call(
                events.Settled,
                hold,
                cost=to_usd(settlement.cost),
                held=to_usd(hold.amount),
                usage=settlement.usage,
                estimated=estimated,
                outcome=settlement.outcome,
                request_id=settlement.request_id,
            )
        for crossing in answer.crossings:
            self.emit(
                events.ThresholdCrossed,
                user=hold.user,
                model=hold.model,
                account=crossing.account,
                threshold=crossing.threshold,
                spent=crossing.balance.spent,
                limit=to_usd(crossing.balance.limit_nanos or 0),
                resets_at=crossing.balance.resets_at,
            )

    def _tell_expiries(self, expiries: tuple[Expiry, ...]) -> None:
        for expiry in expiries:
            self.emit(
                events.Expired,
                user=expiry.user,
                model=expiry.model,
                hold_id=expiry.hold_id,
                accounts=expiry.accounts,
                held=to_usd(expiry.amount),
                booked=to_usd(expiry.booked),
            )

    def _emit_call(self, kind: type[events.CallEvent], hold: Hold, **values: Any) -> None:
        self.emit(kind, user=hold.user, model=hold.model, hold_id=hold.id, endpoint=hold.endpoint, **values)

    def _take_observed(self) -> tuple[tuple[str, int], ...]:
        self._observe_now = False
        taken = []
        while self._observed:
            try:
                taken.append(self._observed.popleft())
            except IndexError:  # another thread was faster
                break
        return tuple(taken)

    def _send(self, hold: Hold, settlement: Settlement) -> Settled | None:
        """Settle; None if the store did not take it, so that it is tried again later."""
        store: Store | None
        store, accounts = self._granted_by.get(hold.id, (None, ()))
        hold = _as_granted(hold, accounts)
        try:
            if store is None:
                store = self.store
            answer = store.settle(hold, settlement)
        except StoreError as error:
            logger.warning(
                "budgetguard: %s of hold %s is not booked yet, and will be tried again: %s",
                format_usd(settlement.cost),
                hold.id,
                error,
            )
            self._outbox.keep(store, hold, settlement, self._spool(store))
        except Exception:
            logger.exception("budgetguard: hold %s could not be settled, and will expire", hold.id)
        except BaseException:  # Ctrl-C, say, in the middle of it
            self._outbox.keep(store, hold, settlement, self._spool(store))
            raise
        else:
            self._granted_by.pop(hold.id, None)
            if isinstance(answer, Settled):
                return answer
            if settlement.cost:
                self._outbox.keep_unknown(store, hold, settlement, self._spool(store), answer.account)
            return None
        self._granted_by.pop(hold.id, None)
        return None


def _as_granted(hold: Hold, accounts: tuple[str, ...]) -> Hold:
    """Require the accounts that granted a hold: a store that has lost both must not book it on nobody."""
    if not any(_is_passed_over(charge) and charge.account in accounts for charge in hold.charges):
        return hold
    charges = [
        replace(charge, required=True) if _is_passed_over(charge) and charge.account in accounts else charge
        for charge in hold.charges
    ]
    return replace(hold, charges=tuple(charges))


def _is_passed_over(charge: Charge) -> bool:
    return not charge.required and charge.budget is None


_keepers: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def finish_at_exit() -> None:
    """Book what is left, in every bookkeeper's store, since the process ends."""
    background.end()
    for engine in list(_keepers):
        engine.finish_left()
        engine.flush()


_minded_in = 0


def _mind_end() -> None:
    """Have this process finish at its end if it is one that ends without `atexit`."""
    global _minded_in
    if _minded_in == os.getpid():
        return
    _minded_in = os.getpid()
    processes, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    billiard = sys.modules.get("billiard.process")  # Celery's multiprocessing, which shares the other's exits
    is_child = processes is not None and processes.parent_process() is not None
    if util is not None and (is_child or (billiard and billiard.current_process().name != "MainProcess")):
        util.Finalize(None, finish_at_exit, exitpriority=0)
    if (signals := sys.modules.get("celery.signals")) is not None:
        # The children of Celery's pool end without any exits.
        signals.worker_process_shutdown.connect(_finish_worker, weak=False)


def _finish_worker(**_: object) -> None:
    finish_at_exit()
