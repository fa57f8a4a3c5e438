"""One guarded call, from who pays to what is booked."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from budgetguard import events
from budgetguard.core.holds import Charge, Hold, Settlement, new_hold_id
from budgetguard.core.inside import of_books
from budgetguard.core.money import MAX_NANOS, MAX_USD, Nanos, format_usd, to_usd
from budgetguard.core.usage import Reported, Usage
from budgetguard.core.windows import duration_ms
from budgetguard.engine import background_answers as pending
from budgetguard.engine import paid_answers as charged
from budgetguard.engine.background import background
from budgetguard.engine.context import Payer, as_hook, calls_around, current_payer, current_tags, inside_hook
from budgetguard.engine.engine import Engine
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import (
    Abandoned,
    Answered,
    NotCharged,
    Outcome,
    Preparation,
    ProviderCall,
    Unknown,
)
from budgetguard.engine.refusals import stopped
from budgetguard.errors import BudgetGuardError, ConfigurationError, UnknownModelError
from budgetguard.pricing.rates import Rates
from budgetguard.tokens.output_limits import output_limit


class GuardedCall:
    """Take one call through reserve and finish. Made where the call is made: it looks at who is current.

    An interrupt may come between any two instructions: Ctrl-C, a signal handler that raises. So whoever takes
    a call through keeps its grip. Where that is let go before the call is booked, or is still there when the
    process ends, the call is finished by what is known of it by then (`_left`).

    Args:
        engine: whose books it goes into.
        request: the call, as its adapter reads it.
        user: who pays, if the caller says; else the current user, else the settings' user.
    """

    _left: Callable[[], Outcome] | None = None

    def __init__(self, engine: Engine, request: ProviderCall, *, user: str | None = None) -> None:
        self.engine = engine
        self.request = request
        request.strict = engine.settings.strict
        payer = current_payer(engine)
        self._user = user or payer.user or engine.settings.user
        self._runs = payer.runs
        self._payer = Payer(self._user, payer.runs, None if user else payer.lost)
        self._by_hook = inside_hook()
        self._tags = tuple(dict.fromkeys((*engine.settings.tags, *current_tags())))
        self._around = calls_around(engine)
        self._paid_inside: set[str] = set()
        self._given_back = False
        self._charged = False
        self._finished = threading.Lock()
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._rates: Rates
        self._projection: Projection
        self._hold: Hold | None = None
        self._refused: Hold | None = None
        self._rebooked: Hold | None = None
        self._followed = False
        self._extensions: list[Hold] = []
        self.output_held: int | None = None

    @property
    def blocking(self) -> bool:
        """Whether its dealings with the store wait for I/O."""
        return self.engine.blocking

    @property
    def hold_id(self) -> str | None:
        """The id of its hold, None before it is reserved."""
        return None if self._hold is None else self._hold.id

    @property
    def delegated(self) -> bool:
        """Whether calls inside this one have paid, so that this one does not."""
        return bool(self._paid_inside)

    @property
    def projection(self) -> Projection:
        """What it will cost at most."""
        return self._projection

    def prepare(self) -> Preparation | None:
        """Return the steps to take before `reserve`, None if there are none."""
        return self.request.prepare(self.engine.prices, self.engine.learned_cap)

    @of_books
    def reserve(self) -> None:
        """Project the cost, and set it aside; calls around this one give back what they hold.

        Raises:
            BudgetGuardError: the call must not be made; nothing is held.
        """
        engine = self.engine
        self._rates, self._projection = self._project()
        if not self._is_free or self._rates.is_unknown:
            engine.check_payer(self._payer, self.request.model)
        if fits := self._may_be_capped():
            self._cap(self._ceiling())
        projection = self._projection
        if projection.cost > MAX_NANOS:
            raise ConfigurationError(
                f"this call to {self.request.model} is projected at {format_usd(projection.cost)}, "
                f"more than a budget can hold (${MAX_USD}): cap its output lower"
            )
        now = engine.now()
        self._hold = hold = Hold(
            id=new_hold_id(now),
            charges=self._charges(),
            amount=projection.cost,
            on_expiry=self._cost_of_unknown(),
            ttl=max(duration_ms(engine.settings.hold_ttl), self.request.least_ttl),
            created=now,
            user=self._user,
            model=self.request.model,
            endpoint=self.request.endpoint,
            tags=self._tags,
        )
        self._tell_projected(hold)
        for outer in self._around:
            outer._give_back()
        try:
            granted = engine.reserve(hold, smaller=self._smaller if fits else None)
        except BudgetGuardError:
            self._hold, self._refused = None, hold  # nothing is held, so there is nothing to give back
            self._is_booked()
            raise
        for outer in self._around:
            outer._paid_inside.add(hold.id)
        # What was never held needs no more of it.
        self.output_held = projection.output_tokens if granted and projection.cost else None
        if granted and fits and self._projection.output_cap is not None:
            self.request.write_cap(self._projection.output_cap)

    def owe(self) -> BudgetGuardError | None:
        """Reserve for what the provider has begun unasked: refused or not, its cost will be booked.

        Returns what refused it, if it was refused.
        """
        try:
            self.reserve()
        except BudgetGuardError as error:
            # As if it had been held, and given back: `finish` books it in full.
            self._hold, self._given_back = self._refused, self._refused is not None
            return error
        return None

    def grip(self) -> object:
        """Return what is to be kept, from before it reserves, by whoever goes on with it."""
        grip = _Grip()
        self._left = _never_sent
        self._watch(grip)
        return grip

    def _watch(self, thing: object) -> None:
        self.engine.under_way[id(self)] = self, background.watch(thing, self.finish_left)

    def sent(self) -> None:
        """Take note that it may be sent from now on."""
        if self._left is not None:
            self._left = _interrupted

    def answered(self, answer: object) -> None:
        """Take note of what it was answered with."""
        if self._left is not None:
            self._left = partial(self.request.outcome, answer)

    @of_books
    def finish(self, outcome: Outcome) -> None:
        """Book how the call ended. Counts once, whoever says it first; never raises.

        A call whose answer is pending has not ended: it keeps its hold, and whoever asks for the answer
        later finishes it (see `pending`).
        """
        if isinstance(outcome, Answered) and outcome.reported.pending:
            pending.remember(self, outcome.reported.request_id)
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
        self._finished.acquire(blocking=False)  # whoever comes after this comes too late
        if hold is not None:
            try:
                outcome = left()
            except Exception:  # noqa: BLE001 - as in the flow
                outcome = self.unreadable()
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
        with as_hook() if self._by_hook and not inside_hook() else nullcontext():
            self._settle_or_void(outcome, hold)

    def _settle_or_void(self, outcome: Outcome, hold: Hold) -> None:
        # Tries that were lost on the way cost what one of unknown outcome does, whatever the last one did.
        lost = min(self.request.lost_tries * hold.on_expiry, MAX_NANOS)
        if self.delegated or (isinstance(outcome, NotCharged) and not lost):
            reason = outcome.reason if isinstance(outcome, NotCharged) else "calls inside it paid"
            for outer in self._around:
                outer._paid_inside.discard(hold.id)
            if not self._given_back:
                self.engine.void(hold, reason)
            self._give_back_extensions()
            return
        settlement, estimated = self._settlement(outcome, hold)
        if lost:
            settlement = replace(settlement, cost=min(settlement.cost + lost, MAX_NANOS))
            estimated = True
        if self._given_back:
            # A call inside was refused, so what this one held went; but it was answered all the same.
            if self._rebooked is None:
                now = self.engine.now()
                self._rebooked = replace(hold, id=new_hold_id(now), created=now)
            hold = self._rebooked
        self.engine.settle(hold, settlement, estimated=estimated)
        self._give_back_extensions()
        self._charged = True
        if self._user is not None and isinstance(outcome, Answered):
            charged.remember(self.engine, self._user, outcome.reported)

    @of_books
    def extend(self, seen: int) -> None:
        """Hold more for a stream that has written so many output tokens, more than its hold is for.

        Raises:
            BudgetExceededError: no account has more, and the settings say `stop`.
        """
        hold, engine, projection = self._hold, self.engine, self._projection
        if hold is None or self._given_back or self.output_held is None:
            self.output_held = None
            return
        wanted = seen + projection.output_tokens // 4 + 1
        held = hold.amount + sum(one.amount for one in self._extensions)
        amount = max(0, projection.with_output(wanted).cost - held)
        now = engine.now()
        on_expiry = amount if engine.settings.unknown_outcome == "charge" else 0
        more = replace(hold, id=new_hold_id(now), amount=amount, on_expiry=on_expiry, created=now)
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
        """Take note that this very answer is paid for, if it is; see `charged`."""
        if self._charged and self._user is not None:
            charged.remember_object(self.engine, self._user, answer)

    def finish_when_dropped(self, thing: object, outcome: Callable[[], Outcome]) -> Callable[[], bool]:
        """Have this finished in the background if a thing becomes garbage before.

        Returns a function that calls that off, and tells whether it was still to come. A forked child
        drops copies of what its parent still uses, so there nothing happens.
        """

        def finish() -> None:
            if self._pid == os.getpid():
                self.finish(outcome())

        self._followed = True
        if self._left is not None:
            self._left = outcome
            self._watch(thing)
        return background.when_dropped(thing, finish)

    def unreadable(self) -> Outcome:
        """Return the outcome of a call that was made, but whose answer tells no cost."""
        return Answered(Reported(usage=None))

    def _give_back(self) -> None:
        if not self._given_back and self._hold is not None:
            self._given_back = True
            self.engine.void(self._hold, "a call inside it pays")

    def _project(self) -> tuple[Rates, Projection]:
        try:
            return self.request.project(self.engine.prices, self.engine.learned_cap)
        except UnknownModelError:
            if self.engine.settings.unknown_model == "error":
                raise
            rates = self.request.rates_if_known(self.engine.prices)
            return rates, Projection(self.request.model, Usage(), 0, 0, 0, 0, cap_assumed=False)

    def _charges(self) -> tuple[Charge, ...]:
        """Return who pays; what is known to cost nothing needs no account, so that none can refuse it."""
        charges = self.engine.charges(self._user, self._runs)
        if not self._is_free or self._rates.is_unknown:
            return charges
        return tuple(replace(charge, required=False) for charge in charges)

    @property
    def _is_free(self) -> bool:
        """Whether its model is, and so is every other that may answer, and what is billed beside tokens."""
        return self._rates.is_free and not self._projection.cost

    def _may_be_capped(self) -> bool:
        projection = self._projection
        return self.request.strict and projection.cap_assumed and self.request.takes_cap and not self._is_free

    def _ceiling(self) -> int:
        settings = self.engine.settings
        if settings.strict_ceiling is not None:
            return settings.strict_ceiling
        shown = self._projection.input_tokens - self._projection.reserve
        return max(settings.strict_floor, output_limit(self.request.model, shown))

    def _cap(self, cap: int) -> None:
        self._projection = self._projection.with_cap(cap, self.request.choices)

    def _smaller(self, available: Nanos) -> Hold | None:
        """Return the hold with the largest output cap that the money allows; the floor's if that is more."""
        assert self._hold is not None
        projection, choices = self._projection, self.request.choices
        low, high = self.engine.settings.strict_floor, (projection.output_cap or 0) - 1
        if high < low:
            return None
        while low < high:
            middle = (low + high + 1) // 2
            fits = projection.with_cap(middle, choices).cost <= available
            low, high = (middle, high) if fits else (low, middle - 1)
        self._cap(low)
        self._hold = replace(self._hold, amount=self._projection.cost, on_expiry=self._cost_of_unknown())
        self._tell_projected(self._hold)
        return self._hold

    def _tell_projected(self, hold: Hold) -> None:
        projection = self._projection
        self.engine.emit(
            events.Projected,
            user=self._user,
            model=self.request.model,
            hold_id=hold.id,
            endpoint=self.request.endpoint,
            cost=to_usd(projection.cost),
            usage=projection.usage,
            cap_assumed=projection.cap_assumed,
            output_cap=projection.output_cap,
        )

    def _cost_of_unknown(self) -> Nanos:
        policy = self.engine.settings.unknown_outcome
        if policy == "charge":
            return self._projection.cost
        return self._projection.input_cost if policy == "input" else 0

    def _settlement(self, outcome: Outcome, hold: Hold) -> tuple[Settlement, bool]:
        thresholds = self.engine.settings.thresholds
        if isinstance(outcome, Unknown | NotCharged):
            cost = hold.on_expiry if isinstance(outcome, Unknown) else 0
            return Settlement(cost, outcome="unknown", thresholds=thresholds), True
        if isinstance(outcome, Abandoned):
            said = outcome.reported
            usage = outcome.usage or self._projection.abandoned(outcome.seen, said)
            if outcome.part is not None:
                usage = usage.merged(Usage.of(**{outcome.part: outcome.seen}))
            # What was billed until then is not all of it.
            so_far = said or Reported(usage=None, model=outcome.model)
            so_far = replace(so_far, usage=usage)
            cost = max(self._cost(replace(so_far, billed=None)), self._cost(so_far))
            return Settlement(cost, outcome="abandoned", usage=usage, thresholds=thresholds), True
        assert isinstance(outcome, Answered)
        reported = self._with_fees(outcome.reported)
        completed = self._projection.completed(reported)
        if completed is None:
            cost, estimated = reported.part_of(self._projection.cost), True
            if reported.billed:
                cost, estimated = self._cost(reported), False
        elif completed != reported.usage:
            cost, estimated = self._cost(replace(reported, usage=completed)), True
        else:
            cost = self._cost(reported)
            told = {unit: n for unit, n in completed.units.items() if unit not in reported.measured}
            # What was measured makes an estimate only where it is billed.
            estimated = bool(reported.measured) and cost != self._cost(replace(reported, usage=Usage(told)))
            if (hidden := self._projection.hidden) is not None:
                self.engine.observe(hidden.key, hidden.observed(completed.input_tokens))
            # Only of answers that were free to be as long as they liked: caps teach nothing but themselves.
            if completed.output_tokens and self._projection.cap_assumed:
                each = -(-completed.output_tokens // self.request.choices)
                if not self._projection.cap_written or each < (self._projection.output_cap or 0):
                    self.engine.observe(self.request.model, each)
        return (
            Settlement(
                cost,
                usage=completed,
                request_id=reported.request_id,
                thresholds=thresholds,
            ),
            estimated,
        )

    def _with_fees(self, reported: Reported) -> Reported:
        """Add what the call is billed beside its tokens, where the answer does not count it."""
        fees = self._projection.fees
        if reported.usage is None or not (fees or 0 in reported.usage.units.values()):
            return reported
        return replace(reported, usage=Usage.of(**{**fees, **reported.usage.units}))

    def _cost(self, reported: Reported) -> Nanos:
        if reported.model is not None:
            reported = replace(reported, model=self.request.model_named(reported.model))
        try:
            return min(self._rates.cost_of(reported), MAX_NANOS)
        except UnknownModelError as error:
            # The money is spent; the projection is the best that is known of how much.
            events.logger.error("budgetguard: booked as projected, because %s", error)
            return self._projection.cost


class _Grip:
    """Be there as long as somebody keeps it."""

    __slots__ = ("__weakref__",)


def _never_sent() -> Outcome:
    return NotCharged("interrupted before the call")


def _interrupted() -> Outcome:
    return Unknown("interrupted")
