"""One guarded call, from who pays to what is booked."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Final

from budgetguard.core.holds import Hold, hold_again
from budgetguard.core.money import MAX_NANOS, Nanos
from budgetguard.core.process import of_books
from budgetguard.engine import background_answers
from budgetguard.engine.asking import Asking, Payer
from budgetguard.engine.background import Dropped, background
from budgetguard.engine.context import as_hook, calls_around, current_caller, inside_hook
from budgetguard.engine.engine import Engine, Pause
from budgetguard.engine.judge import extension
from budgetguard.engine.links import Place
from budgetguard.engine.outcomes import INTERRUPTED, NEVER_SENT, UNREADABLE, Answered, NotCharged, Outcome
from budgetguard.engine.payers import remember_paid, remember_paid_object
from budgetguard.engine.projection import Projection, booking_of
from budgetguard.engine.provider_call import Preparation, ProviderCall
from budgetguard.engine.refusals import stopped
from budgetguard.errors import BudgetGuardError


class GuardedCall:
    """One call on its way through reserve and finish. Who pays is looked up where it is made.

    An interrupt (Ctrl-C, a signal handler that raises) may come between any two instructions. So whoever
    takes a call through keeps a grip of it. Where that is let go before the call is booked, or is still
    there when the process ends, the call is finished by what is known of it by then (`_left`).

    Args:
        engine: whose books it goes into.
        request: the call, as its adapter reads it.
        user: who pays, if the caller says; else the current user, else the settings' user.
        tags: labels of this call beside the current ones.
        labels: likewise, by name.
        beside: where calls were begun that are not around this one, see `calls_around`.

    Attributes:
        booked: Nanos booked for it, None until it is finished.
        output_held: output tokens that its hold is for; None where it needs no more of it.
        closed: calls made from now on are not inside it, wherever it is still current.
    """

    _left: Callable[[], Outcome] | None = None

    def __init__(
        self,
        engine: Engine,
        request: ProviderCall,
        *,
        user: str | None = None,
        tags: tuple[str, ...] = (),
        labels: Mapping[str, str] | None = None,
        beside: Place | None = None,
    ) -> None:
        self.engine = engine
        self.request = request
        settings = engine.settings
        request.strict = settings.strict
        caller = current_caller(engine)
        self._user = user or caller.user or settings.user
        payer = Payer(
            self._user,
            caller.runs,
            None if user else caller.lost,
            tuple(dict.fromkeys((*settings.tags, *caller.tags, *tags))),
            {**settings.labels, **caller.labels, **(labels or {})},
        )
        self._asking = Asking(engine, request, payer)
        self._by_hook = caller.by_hook
        self._around = calls_around(engine, beside)
        self._paid_inside: set[str] = set()
        self._given_back = False
        self._finished = threading.Lock()
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._refused: Hold | None = None
        self._rebooked: Hold | None = None
        self._followed = False
        self._extensions: list[Hold] = []
        self.booked: Nanos | None = None
        self.closed = False
        self.output_held: int | None = None

    @property
    def blocking(self) -> bool:
        """Whether its dealings with the store wait for I/O."""
        return self.engine.blocking

    @property
    def projection(self) -> Projection:
        """What it will cost at most, once it is reserved."""
        return self._asking.projection

    @property
    def _hold(self) -> Hold | None:
        return self._asking.hold

    @property
    def is_over(self) -> bool:
        """Whether it has ended, so that what is sent from now on is not its own, wherever it is current."""
        return self.closed or self._finished.locked()

    @property
    def hold_id(self) -> str | None:
        """The id of its hold, None before it is reserved."""
        return None if self._hold is None else self._hold.id

    @property
    def delegated(self) -> bool:
        """Whether calls inside this one have paid, so that this one does not."""
        return bool(self._paid_inside)

    def prepare(self) -> Preparation | None:
        """Return the steps to take before `reserve`, None if there are none."""
        return self.request.prepare(self.engine.prices, self.engine.learned.cap)

    @of_books
    def reserve(self, *, may_wait: bool = False) -> Pause | None:
        """Project the cost, and set it aside; calls around this one give back what they hold.

        Args:
            may_wait: if a budget has the call wait, its caller does.

        Returns:
            For how long to wait before this is called again; None once it is reserved.

        Raises:
            BudgetGuardError: the call must not be made; nothing is held.
        """
        engine, request, asking = self.engine, self.request, self._asking
        try:
            hold = asking.begin(may_wait=may_wait)
            for outer in self._around:
                outer._give_back()
            answer = engine.reserve(hold, asking)
        except BudgetGuardError:
            asking.hold, self._refused = (
                None,
                asking.hold,
            )  # nothing is held, so there is nothing to give back
            self._is_booked()
            request.forget_input()
            raise
        if isinstance(answer, Pause):
            asking.hold = None
            return answer
        for outer in self._around:
            outer._paid_inside.add(hold.id)
        projection = self.projection
        self.output_held = projection.output_tokens if answer and projection.cost else None
        if answer:
            asking.granted()
        request.forget_input()
        return None

    def owe(self) -> BudgetGuardError | None:
        """Reserve for what the provider has begun unasked: refused or not, its cost will be booked.

        Returns what refused it, if it was refused.
        """
        try:
            self.reserve()
        except BudgetGuardError as error:
            # As if it had been held, and given back: `finish` books it in full.
            self._asking.hold, self._given_back = self._refused, self._refused is not None
            return error
        return None

    def keep(self, grip: object = None) -> object:
        """Finish this by what is known of it once its grip is garbage; from before it reserves.

        Args:
            grip: what whoever goes on with it keeps; a new object by default.

        Returns:
            The grip.
        """
        grip = _Grip() if grip is None else grip
        self._left = _never_sent
        left = Dropped(grip, background.queue.put)  # as `background.watch` does
        left.job, left.key = self.finish_left, None
        self.engine.under_way[id(self)] = self, left
        return grip

    def sent(self) -> None:
        """Note that it may be sent from now on."""
        if self._left is not None:
            self._left = _interrupted

    def left_as(self, outcome: Callable[[], Outcome]) -> None:
        """Note what tells the outcome that is booked if nobody goes on with it."""
        if self._left is not None:
            self._left = outcome

    def answered(self, answer: object) -> None:
        """Note what it was answered with."""
        if self._left is not None:
            self._left = partial(self.request.outcome, answer)

    @of_books
    def finish(self, outcome: Outcome) -> None:
        """Book the call as it ended. Counts once, whoever comes first; never raises.

        A call whose answer comes later has not ended: it keeps its hold, and whoever asks for the answer
        finishes it (see `background_answers`).
        """
        if isinstance(outcome, Answered) and outcome.reported.pending:
            background_answers.remember(self, outcome.reported.request_id)
            self._give_back_extensions()
            self._is_booked()
            return
        if not self._finished.acquire(blocking=False) or self._hold is None:
            return
        self._left = lambda: outcome
        try:
            self._book(outcome, self._hold)
        except BaseException:
            background.start()
            background.put(self.finish_left)
            raise
        self._is_booked()

    def finish_left(self) -> None:
        """Finish what an interrupt has left undone, if there is anything; what is booked counts once."""
        left, hold = self._left, self._hold
        if left is None or self._pid != os.getpid():  # a forked child has copies of its parent's calls
            return
        self.closed = True
        self._finished.acquire(blocking=False)  # whoever comes after this comes too late
        if hold is not None:
            try:
                outcome = left()
            except Exception:  # noqa: BLE001 - as in the flow
                outcome = UNREADABLE
            self._book(outcome, hold)
        self._is_booked()

    def is_left(self) -> bool:
        """Whether nobody goes on with it, now that the process ends."""
        others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        return self._left is not None and self._thread not in others

    def may_be_forgotten(self, account: str) -> bool:
        """Whether an account's money may be held for an answer that nobody reads any more."""
        hold = self._hold
        return self._followed and hold is not None and any(one.account == account for one in hold.charges)

    def _is_booked(self) -> None:
        self._left = None
        self.engine.under_way.pop(id(self), None)

    def _book(self, outcome: Outcome, hold: Hold) -> None:
        # What a hook's own call does tells no hooks, wherever it is booked: in the background, say.
        with as_hook() if self._by_hook and not inside_hook() else _NO_HOOK:
            # Tries that were lost on the way cost what an unknown outcome does, whatever the last one did.
            lost = min(self.request.lost_tries * hold.on_expiry, MAX_NANOS)
            if self._paid_inside or (isinstance(outcome, NotCharged) and not lost):
                self._void(outcome, hold)
            else:
                self._settle(outcome, hold, lost)
        if self._extensions:
            self._give_back_extensions()

    def _void(self, outcome: Outcome, hold: Hold) -> None:
        reason = outcome.reason if isinstance(outcome, NotCharged) else "calls inside it paid"
        for outer in self._around:
            outer._paid_inside.discard(hold.id)
        self.booked = 0
        if not self._given_back:
            self.engine.void(hold, reason)

    def _settle(self, outcome: Outcome, hold: Hold, lost: Nanos) -> None:
        engine = self.engine
        booking = booking_of(
            outcome,
            self.request,
            self._asking.rates,
            self.projection,
            cost_of_unknown=hold.on_expiry,
            thresholds=engine.settings.thresholds,
        )
        for key, tokens in booking.observed:
            engine.learned.observe(key, tokens)
        if lost:
            booking = booking.with_lost_tries(lost)
        if self._given_back:
            # A call inside was refused, so what this one held went; but it was answered all the same.
            if self._rebooked is None:
                self._rebooked = hold_again(hold, engine.now())
            hold = self._rebooked
        engine.settle(hold, booking.settlement, estimated=booking.estimated)
        self.booked = booking.settlement.cost
        if self._user is not None and isinstance(outcome, Answered):
            remember_paid(engine, self._user, outcome.reported)

    @of_books
    def extend(self, seen: int) -> None:
        """Set more money aside for a stream that has written `seen` output tokens, more than its hold is for.

        Raises:
            BudgetExceededError: no account has more, and the settings say `stop`.
        """
        hold, engine, projection = self._hold, self.engine, self.projection
        if hold is None or self._given_back or self.output_held is None:
            self.output_held = None
            return
        wanted = seen + projection.output_tokens // 4 + 1
        held = hold.amount + sum(one.amount for one in self._extensions)
        amount = max(0, projection.with_output(wanted).cost - held)
        on_expiry = amount if engine.settings.unknown_outcome == "charge" else 0
        units = extension(hold.units, max(0, wanted - self.output_held))
        more = replace(hold_again(hold, engine.now()), amount=amount, on_expiry=on_expiry, units=units)
        self._extensions.append(more)  # before it is granted: an interrupt may come right after
        empty = engine.extend(more)
        if empty is None:
            self.output_held = wanted
            if self._finished.locked():  # another thread has closed the stream meanwhile
                self._give_back_extensions()
            return
        self._extensions.remove(more)
        self.output_held = None  # told once
        if engine.settings.on_stream_exceeded == "stop":
            raise stopped(hold, empty, projection.with_output(seen).cost)

    def _give_back_extensions(self) -> None:
        while self._extensions:
            more = self._extensions[-1]
            self.engine.void(more, "the call that it extended is settled")
            with contextlib.suppress(ValueError):  # another thread was faster
                self._extensions.remove(more)

    def remember(self, answer: object) -> None:
        """Remember that this very answer is paid for, if it is; see `payers`."""
        if self.booked is not None and self._user is not None and not self._paid_inside:
            remember_paid_object(self.engine, self._user, answer)

    def look_after(self, thing: object) -> Callable[[], bool]:
        """Finish this by what is known of it once a thing is garbage, which is collected now and then.

        Returns a function that calls that off.
        """
        self._followed = True
        return background.when_dropped(thing, self.finish_left)

    def finish_when_dropped(self, thing: object, outcome: Callable[[], Outcome]) -> Callable[[], bool]:
        """Finish this in the background if a thing becomes garbage before.

        Returns a function that calls that off, and tells whether it was still to come. A forked child
        drops copies of what its parent still uses, so there nothing happens.
        """

        def finish() -> None:
            if self._pid == os.getpid():
                self.finish(outcome())

        self._followed = True
        if self._left is not None:
            self._left = outcome
            self.engine.under_way[id(self)] = self, background.watch(thing, self.finish_left)
        return background.when_dropped(thing, finish)

    def _give_back(self) -> None:
        if not self._given_back and self._hold is not None:
            self._given_back = True
            self.engine.void(self._hold, "a call inside it pays")


_NO_HOOK: Final = nullcontext()


class _Grip:
    """What is there as long as somebody keeps it."""

    __slots__ = ("__weakref__",)


def _never_sent() -> Outcome:
    return NEVER_SENT


def _interrupted() -> Outcome:
    return INTERRUPTED
