"""One guarded call, from who pays to what is booked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace

from budgetguard import charged, events, pending
from budgetguard.background import background
from budgetguard.bookkeeping import Bookkeeper
from budgetguard.context import calls_around, current_runs, current_user
from budgetguard.errors import BudgetGuardError, ConfigurationError, UnknownModelError
from budgetguard.holds import Hold, Settlement, new_hold_id
from budgetguard.money import MAX_NANOS, MAX_USD, Nanos, format_usd, to_usd
from budgetguard.pricing.rates import Rates
from budgetguard.projection import Projection
from budgetguard.request import Abandoned, Answered, Ending, NotCharged, Request, Unknown
from budgetguard.usage import Reported, Usage
from budgetguard.windows import duration_ms


class Call:
    """Take one call through reserve and finish. Made where the call is made: it looks at who is current.

    Args:
        keeper: whose books it goes into.
        request: the call, as its adapter reads it.
        user: who pays, if the caller says; else the current user, else the settings' user.
    """

    def __init__(self, keeper: Bookkeeper, request: Request, *, user: str | None = None) -> None:
        self.keeper = keeper
        self.request = request
        self._user = user or current_user() or keeper.settings.user
        self._runs = current_runs(keeper)
        self._around = calls_around(keeper)
        self._paid_inside: set[str] = set()
        self._given_back = False
        self._charged = False
        self._finished = threading.Lock()
        self._pid = os.getpid()
        self._rates: Rates | None
        self._projection: Projection
        self._hold: Hold | None = None

    @property
    def blocking(self) -> bool:
        """Whether its dealings with the store wait for I/O."""
        return self.keeper.blocking

    @property
    def delegated(self) -> bool:
        """Whether calls inside this one have paid, so that this one does not."""
        return bool(self._paid_inside)

    @property
    def projection(self) -> Projection:
        """What it will cost at most."""
        return self._projection

    def reserve(self) -> None:
        """Project the cost, and set it aside; calls around this one give back what they hold.

        Raises:
            BudgetGuardError: the call must not be made; nothing is held.
        """
        keeper = self.keeper
        self._rates, self._projection = self._project()
        projection = self._projection
        if projection.cost > MAX_NANOS:
            raise ConfigurationError(
                f"this call to {self.request.model} is projected at {format_usd(projection.cost)}, "
                f"more than a budget can hold (${MAX_USD})"
            )
        now = keeper.now()
        self._hold = hold = Hold(
            id=new_hold_id(now),
            charges=keeper.charges(self._user, self._runs),
            amount=projection.cost,
            on_lapse=self._cost_of_unknown(),
            ttl=max(duration_ms(keeper.settings.hold_ttl), self.request.least_ttl),
            created=now,
            user=self._user,
            model=self.request.model,
            endpoint=self.request.endpoint,
        )
        keeper.emit(
            events.Projected,
            user=self._user,
            model=self.request.model,
            hold_id=hold.id,
            endpoint=self.request.endpoint,
            cost=to_usd(projection.cost),
            usage=projection.usage,
            cap_assumed=projection.cap_assumed,
        )
        for outer in self._around:
            outer._give_back()
        try:
            keeper.reserve(hold)
        except BudgetGuardError:
            self._hold = None  # refused: nothing is held, so there is nothing to give back
            raise
        for outer in self._around:
            outer._paid_inside.add(hold.id)

    def finish(self, ending: Ending) -> None:
        """Book how the call ended. Counts once, whoever says it first; never raises.

        A call whose answer is pending has not ended: it keeps its hold, and whoever asks for the answer
        later finishes it (see `pending`).
        """
        hold = self._hold
        if isinstance(ending, Answered) and ending.reported.pending:
            pending.remember(self, ending.reported)
            return
        if not self._finished.acquire(blocking=False) or hold is None:
            return
        if isinstance(ending, NotCharged) or self.delegated:
            reason = ending.reason if isinstance(ending, NotCharged) else "calls inside it paid"
            for outer in self._around:
                outer._paid_inside.discard(hold.id)
            if not self._given_back:
                self.keeper.void(hold, reason)
            return
        settlement, estimated = self._settlement(ending, hold)
        if self._given_back:
            # A call inside was refused, so what this one held went; but it was answered all the same.
            now = self.keeper.now()
            hold = replace(hold, id=new_hold_id(now), created=now)
        self.keeper.settle(hold, settlement, estimated=estimated)
        self._charged = True
        if self._user is not None and isinstance(ending, Answered):
            charged.remember(self.keeper, self._user, ending.reported)

    def remember(self, answer: object) -> None:
        """Take note that this very answer is paid for, if it is; see `charged`."""
        if self._charged and self._user is not None:
            charged.remember_object(self.keeper, self._user, answer)

    def finish_when_dropped(self, thing: object, ending: Callable[[], Ending]) -> Callable[[], bool]:
        """Have this finished in the background if a thing becomes garbage before.

        Returns a function that calls that off, and tells whether it was still to come. A forked child
        drops copies of what its parent still uses, so there nothing happens.
        """

        def finish() -> None:
            if self._pid == os.getpid():
                self.finish(ending())

        return background.when_dropped(thing, finish)

    def unreadable(self) -> Ending:
        """Return the ending of a call that was made, but whose answer tells no cost."""
        return Answered(Reported(usage=None))

    def _give_back(self) -> None:
        if not self._given_back and self._hold is not None:
            self._given_back = True
            self.keeper.void(self._hold, "a call inside it pays")

    def _project(self) -> tuple[Rates | None, Projection]:
        try:
            return self.request.project(self.keeper.prices, self.keeper.learned_cap)
        except UnknownModelError:
            if self.keeper.settings.unknown_model == "error":
                raise
            return None, Projection(self.request.model, Usage(), 0, 0, 0, 0, cap_assumed=False)

    def _cost_of_unknown(self) -> Nanos:
        policy = self.keeper.settings.unknown_outcome
        if policy == "charge":
            return self._projection.cost
        return self._projection.input_cost if policy == "input" else 0

    def _settlement(self, ending: Ending, hold: Hold) -> tuple[Settlement, bool]:
        thresholds = self.keeper.settings.thresholds
        if isinstance(ending, Unknown):
            return Settlement(hold.on_lapse, outcome="unknown", thresholds=thresholds), True
        if isinstance(ending, Abandoned):
            usage = self._projection.abandoned(ending.seen)
            cost = self._cost(usage, None)
            return Settlement(cost, outcome="abandoned", usage=usage, thresholds=thresholds), True
        assert isinstance(ending, Answered)
        reported = ending.reported
        if reported.usage is None:
            cost, estimated = self._projection.cost, True
        else:
            cost, estimated = self._cost(reported.usage, reported.tier), False
            if (hidden := self._projection.hidden) is not None:
                self.keeper.observe(hidden.key, hidden.observed(reported.usage.input_tokens))
            # Only of answers that were free to be as long as they liked: caps teach nothing but themselves.
            if reported.usage.output_tokens and self._projection.cap_assumed:
                choices = self.request.choices
                self.keeper.observe(self.request.model, -(-reported.usage.output_tokens // choices))
        return (
            Settlement(
                cost,
                usage=reported.usage,
                request_id=reported.request_id,
                thresholds=thresholds,
            ),
            estimated,
        )

    def _cost(self, usage: Usage, tier: str | None) -> Nanos:
        if self._rates is None:
            return 0  # a model without a price, allowed by the user's word
        try:
            return min(self._rates.with_tier(tier).cost(usage), MAX_NANOS)
        except UnknownModelError as error:
            # The money is spent; the projection is the best that is known of how much.
            events.logger.error("budgetguard: booked as projected, because %s", error)
            return self._projection.cost
