"""A guard's dealings with its store.

The engine reserves, settles and voids; turns what the store answers into events and errors; counts what this
process spends; and never lets a settlement be lost: one that the store does not take goes to the outbox.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from budgetguard import events
from budgetguard.config import DEFAULT_PROJECT, Settings
from budgetguard.core.accounts import Balance
from budgetguard.core.holds import (
    VOID,
    Booked,
    Denied,
    Granted,
    Hold,
    Outdated,
    Reservation,
    Settlement,
    UnknownAccount,
    new_hold,
)
from budgetguard.core.money import Nanos, format_usd, to_usd
from budgetguard.core.usage import Learned, Reported
from budgetguard.core.windows import duration_ms
from budgetguard.engine import runlog
from budgetguard.engine.background import Dropped, background, engines, mind_end
from budgetguard.engine.context import current_caller
from budgetguard.engine.emitting import emit_call, emit_expiries, emit_granted, emit_settled, refused
from budgetguard.engine.judge import Judge, amounts, counts
from budgetguard.engine.links import Lost
from budgetguard.engine.outbox import Outbox
from budgetguard.engine.payers import CallFacts, ProcessCap, books_of, charges_for
from budgetguard.engine.refusals import lost_user, missing_user, required_user, unknown_account
from budgetguard.engine.spool import Spool, spool_folder
from budgetguard.engine.unguarded import watcher
from budgetguard.errors import BudgetGuardError, ConfigurationError, StoreError
from budgetguard.events import logger
from budgetguard.pricing.book import PriceBook
from budgetguard.stores.base import OWN_PROJECTS, Store, open_store, public_url
from budgetguard.stores.locks import taken

if TYPE_CHECKING:
    from budgetguard.alerts.sending import Alerts
    from budgetguard.engine.call import GuardedCall

_MOST_CHANGES: Final = 16
# Projects that an error names.
_ELSEWHERE: Final = 5


@dataclass(frozen=True, slots=True)
class Pause:
    """There is no room for a call now; it may ask again.

    Attributes:
        seconds: when.
    """

    seconds: float


class Reserving(Protocol):
    """A call that asks for a hold, and what else it may ask for."""

    def judged_again(self) -> Hold:
        """Return the hold by the documents as they are known by now, under the same id.

        Raises:
            BudgetGuardError: by these the call must not be made.
        """

    def instead(self, refused: Balance) -> Hold | None:
        """Return a hold to ask for in place of one that an account has refused, of the same id; or None."""

    def refused(self, hold: Hold, balance: Balance) -> tuple[Hold, Balance, str]:
        """Return which refusal is told: that of what was asked for last, or before; and what else to say."""

    def wait(self, refused: Balance) -> Pause | None:
        """Return how long to wait before it asks again, None if it does not."""


class Engine:
    """One guard's books.

    Args:
        settings: see `Settings`.

    Attributes:
        settings: those in force.
        project: whose accounts these are.
        books: names the balances that are kept, see `payers`.
        hold_ttl: milliseconds that a hold lives without word of its call.
        now: returns the time in milliseconds, by the guard's clock.
        blocking: whether dealing with the store waits for I/O; opening it does.
        prices: what models cost.
        hooks: who is told of events.
        process: what this process has spent, and its cap.
        judge: what is known of the project's budgets beside their limits.
        learned: how long models' answers are.
        alerts: who tells people of thresholds and refusals, if anybody does.
        under_way: the calls that may hold money, by their identity.
    """

    def __init__(self, settings: Settings) -> None:
        self.prices = PriceBook(settings.prices, settings.price_list)
        self.hooks = events.Hooks()
        if settings.runs:
            runlog.follow(self.hooks)
        self.process = ProcessCap()
        self.judge = Judge()
        self.under_way: dict[int, tuple[GuardedCall, Dropped]] = {}
        self.blocking = True
        self._store: Store | None = None
        self._opening = threading.RLock()
        self.learned = Learned(lambda model: self.store.observations(model))
        # Which store granted a hold: the settings may name another one by the time it is settled.
        self._granted_by: dict[str, tuple[Store, tuple[str, ...]]] = {}
        self._outbox = Outbox(lambda: self.store, partial(emit_settled, self, estimated=False))
        self._minds_end_in = 0
        self.alerts = _alerts_of(settings)
        self._take(settings)
        engines.add(self)
        if settings.unguarded is not None:
            watcher.refresh()

    def _take(self, settings: Settings) -> None:
        self.settings = settings
        self.now = settings.clock
        self.hold_ttl = duration_ms(settings.hold_ttl)
        given = settings.store
        self.project = settings.project or (DEFAULT_PROJECT if isinstance(given, str) else given.project)
        self.books = books_of(self)

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
                    self._store, self.blocking = opened, opened.blocking
                    if (spool := self._spool(self._store)) is not None:
                        self._outbox.adopt(self._store, spool)
        return self._store

    @property
    def is_open(self) -> bool:
        """Whether the store has been used."""
        return self._store is not None

    def configure(self, settings: Settings) -> None:
        """Take other settings. Calls under way keep what they began with.

        Raises:
            ConfigurationError: the price file or an address of alerts is bad; nothing was changed.
        """
        alerts = _alerts_of(settings)
        self.prices.use(settings.prices, settings.price_list)
        same = ("store", "project", "retention", "clock")
        if any(getattr(settings, name) != getattr(self.settings, name) for name in same):
            former, self._store, self.blocking = self._store, None, True
            if former is not None and isinstance(self.settings.store, str):
                former.close()  # calls under way open it again
            self.learned.forget()
            self.judge.forget()
            self.process.begin_elsewhere()
        self.alerts = alerts
        self._take(settings)
        watcher.refresh()

    def check_payer(self, user: str | None, lost: Lost | None, model: str) -> None:
        """Refuse a call that nobody can say who pays for, or that has no user where each needs one.

        Raises:
            MissingUserError: so it is.
        """
        if lost is not None:
            raise lost_user(model, lost)
        if user is None and self.settings.requires_user:
            raise required_user(model)

    def reserve(self, hold: Hold, by: Reserving) -> Granted | Pause | None:
        """Set a hold's money aside, and return what grants it, or for how long to wait for that.

        None only where the settings allow a call that nothing limits, or a store that fails.

        Args:
            hold: what to set aside.
            by: what else may be asked for, in place of it.

        Raises:
            BudgetExceededError: an account has too little available, or its budget does not allow the call.
            MissingUserError: nothing limits the call.
            UnknownUserError: the user has no budget.
            StoreError: the store failed; the call must not be made.
        """
        if self._minds_end_in != os.getpid():
            self._minds_end_in = os.getpid()
            mind_end()
        store = self._store
        try:
            if store is None:
                store = self.store
            hold, answer = self._ask(store, hold, by)
            if self._outbox.unsent:
                hold, answer = self._after_outage(store, hold, answer, by)
            if isinstance(answer, Denied) and self._gave_back(answer):
                hold, answer = self._ask(store, hold, by)
            first = answer
            # Each account may have less than the one before, and other calls take money meanwhile.
            while isinstance(answer, Denied) and (other := by.instead(answer.balance)) is not None:
                emit_expiries(self, answer.expired)
                hold, answer = self._ask(store, other, by)
        except StoreError as error:
            if self.settings.on_store_error == "block":
                if store is not None:
                    # It may have been granted all the same, and this call will not be made.
                    self._outbox.keep(store, hold, VOID, None)
                raise
            logger.warning("budgetguard: a call is allowed although its store failed: %s", error)
            return None
        if isinstance(answer, Granted):
            self._granted_by[hold.id] = store, answer.accounts
            if answer.expired:
                emit_expiries(self, answer.expired)
            if self.hooks.entries:
                emit_granted(self, hold, answer)
            return answer
        if isinstance(answer, Denied):
            emit_expiries(self, answer.expired)
            if isinstance(first, Denied) and (pause := by.wait(first.balance)) is not None:
                return pause
            raise refused(self, *by.refused(hold, answer.balance))
        if isinstance(answer, UnknownAccount):
            raise self.unknown(answer.account, hold.user)
        if self.settings.missing_user == "allow" or not hold.amount:
            return None
        raise missing_user(hold.model, self.project)

    def _ask(self, store: Store, hold: Hold, by: Reserving | None = None) -> tuple[Hold, Reservation]:
        """Ask a store for a hold; judged anew as often as it was judged by what is not current.

        Raises:
            BudgetGuardError: by what is current, the call must not be made.
            StoreError: the store failed.
        """
        for _ in range(_MOST_CHANGES):
            answer = store.reserve(hold)
            if not isinstance(answer, Outdated):
                return hold, answer
            self.judge.learn(answer)
            if by is not None:
                hold = by.judged_again()
            else:
                known = self.judge.known
                hold = replace(hold, charges=known.by_what_is_known(hold.charges), scopes=known.revision)
        raise StoreError(
            f"the budgets of project {self.project!r} were changed {_MOST_CHANGES} times while a call was to "
            "be held; it was not made: try again"
        )

    def extend(self, hold: Hold) -> Balance | None:
        """Set more money aside for a call under way; return the account that has no more, if one has not.

        A store that fails changes nothing for the call.
        """
        try:
            store = self.store
            _, answer = self._ask(store, hold)
            if isinstance(answer, Denied) and self._gave_back(answer):
                _, answer = self._ask(store, hold)
        except StoreError as error:
            logger.warning("budgetguard: no more could be held for a stream: %s", error)
            return None
        emit_expiries(self, answer.expired if isinstance(answer, Granted | Denied) else ())
        if isinstance(answer, Granted):
            self._granted_by[hold.id] = store, answer.accounts
        return answer.balance if isinstance(answer, Denied) else None

    def settle(self, hold: Hold, settlement: Settlement, *, estimated: bool = False) -> None:
        """Book how a call ended. Never raises: a settlement that the store does not take is tried again."""
        if observed := self.learned.due():
            settlement = replace(settlement, observed=observed)
        if hold.units and settlement.state == "settled":
            settlement = replace(settlement, units=counts(hold.units, settlement.usage))
        self.process.count(self.project, hold, settlement.cost)
        answer = self._send(hold, settlement)
        if answer is not None and (self.hooks.entries or answer.crossings or answer.expired):
            emit_settled(self, hold, settlement, answer, estimated=estimated)

    def void(self, hold: Hold, reason: str) -> None:
        """Give a hold back. Never raises, as `settle` does not."""
        answer = self._send(hold, VOID)
        if answer is not None:
            emit_expiries(self, answer.expired)
            if not answer.repeated and self.hooks.entries:
                emit_call(self, events.Voided, hold, held=to_usd(hold.amount), reason=reason)

    def post(self, user: str, cost: Nanos, *, model: str, endpoint: str, reported: Reported) -> None:
        """Book a cost that no hold was made for: on the user, and the runs around the caller.

        Args:
            user: who pays.
            cost: Nanos.
            model: the model that it was for.
            endpoint: what the record is known by.
            reported: what the answer says of its usage.

        Raises:
            UnknownUserError: the user has no budget.
            StoreError: the store failed; nothing is booked.
        """
        caller = current_caller(self)
        labels = {**self.settings.labels, **caller.labels}
        self.judge.look(self.store, user)
        known = self.judge.known
        facts = CallFacts(user, caller.runs, model, endpoint, labels=labels, known=known)
        charges = charges_for(facts, self)
        units = amounts(charges, None)
        hold = new_hold(
            self.now(),
            charges,
            ttl=self.hold_ttl,
            user=user,
            model=model,
            endpoint=endpoint,
            units=units,
            labels=known.recorded_labels(user, labels, ""),
        )
        settlement = Settlement(
            cost,
            outcome="posted",
            usage=reported.usage,
            request_id=reported.request_id,
            thresholds=self.settings.thresholds,
            units=counts(units, reported.usage),
        )
        answer = self.store.settle(hold, settlement)
        if isinstance(answer, UnknownAccount):
            raise self.unknown(answer.account, hold.user)
        self.process.count(self.project, hold, settlement.cost)
        emit_settled(self, hold, settlement, answer, estimated=False)

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
        """Finish what was left, and send what the store did not take before; what it still refuses stays.

        Alerts that are queued are sent, too, or tried for some seconds.
        """
        background.finish()
        self._outbox.flush()
        if self.alerts is not None:
            self.alerts.finish()

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

    def _after_outage(
        self, store: Store, hold: Hold, answer: Reservation, by: Reserving
    ) -> tuple[Hold, Reservation]:
        """Deliver what waits, now that the store answers: at once, if that may change its answer."""
        if not isinstance(answer, Denied):
            background.put(self._outbox.flush_unsent)
            return hold, answer
        emit_expiries(self, answer.expired)
        self._outbox.flush_unsent()
        return self._ask(store, hold, by)

    def _gave_back(self, refused: Denied) -> bool:
        """Settle the streams that nobody reads any more, if they may hold what a call was refused for.

        A client's streams are reference cycles: one that a loop has left keeps its money until the garbage
        collector comes by.
        """
        account = refused.balance.account
        if not any(call.may_be_forgotten(account) for call, _ in list(self.under_way.values())):
            return False
        if not background.collect():
            return False
        emit_expiries(self, refused.expired)
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
        given.on_expiry(lambda expiry: emit_expiries(self, (expiry,)))
        return given

    def _send(self, hold: Hold, settlement: Settlement) -> Booked | None:
        """Settle; None if the store did not take it, so that it is tried again later."""
        store: Store | None
        store, accounts = self._granted_by.get(hold.id, (None, ()))
        if accounts:
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
        except Exception:  # noqa: BLE001 - it would reach the caller of a paid call
            logger.exception("budgetguard: hold %s could not be settled, and will expire", hold.id)
        except BaseException:  # Ctrl-C, say, in the middle of it
            self._outbox.keep(store, hold, settlement, self._spool(store))
            raise
        else:
            self._granted_by.pop(hold.id, None)
            if isinstance(answer, Booked):
                return answer
            if settlement.cost:
                self._outbox.keep_unknown(store, hold, settlement, self._spool(store), answer.account)
            return None
        self._granted_by.pop(hold.id, None)
        return None


def _alerts_of(settings: Settings) -> Alerts | None:
    if not settings.alerts:
        return None
    from budgetguard.engine.alerting import alerts_of  # few programs have alerts

    return alerts_of(settings)


def _as_granted(hold: Hold, accounts: tuple[str, ...]) -> Hold:
    """Require the accounts that granted a hold: a store that has lost both must not book it on nobody."""
    charges = list(hold.charges)
    for place, charge in enumerate(charges):
        is_passed_over = not charge.required and charge.budget is None
        if is_passed_over and charge.account in accounts:
            charges[place] = replace(charge, required=True)
    return replace(hold, charges=tuple(charges))
