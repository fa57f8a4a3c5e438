"""What a call asks the store for: a hold of what it is projected at, and what it takes instead if refused.

A hold is made by the project's documents as they are known; made again where the store has others; smaller,
in strict mode, where less money is there; for a cheaper model, where the budget names one; or later, where
the budget has the call wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from budgetguard import events
from budgetguard.core.accounts import USER, Balance, account_name
from budgetguard.core.holds import Charge, Hold, new_hold, new_hold_id
from budgetguard.core.money import MAX_NANOS, MAX_USD, Nanos, format_usd, to_usd
from budgetguard.core.rules import read_rules
from budgetguard.core.usage import Usage
from budgetguard.engine.emitting import emit_call
from budgetguard.engine.engine import Engine, Pause
from budgetguard.engine.judge import NOTHING_KNOWN, Known, amounts
from budgetguard.engine.payers import CallFacts, charges_for
from budgetguard.engine.projection import Projection
from budgetguard.engine.provider_call import ProviderCall
from budgetguard.engine.refusals import above_the_cap, also_refused, model_not_allowed, two_labels
from budgetguard.errors import BudgetGuardError, ConfigurationError, StoreError, UnknownModelError
from budgetguard.events import logger
from budgetguard.pricing.rates import Rates
from budgetguard.tokens.models import output_limit

if TYPE_CHECKING:
    from budgetguard.engine.links import Lost

_SMALLER_TRIES: Final = 8
_MOST_JUDGEMENTS: Final = 16
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Payer:
    """Who pays for a call, and what is known of it beside the request.

    Attributes:
        user: who pays, or None.
        runs: the charges of the runs around it.
        lost: why nobody can say who pays, or None.
        tags: labels without a name.
        labels: labels by name.
    """

    user: str | None
    runs: tuple[Charge, ...]
    lost: Lost | None
    tags: tuple[str, ...]
    labels: dict[str, str]


class Asking:
    """What one call asks for.

    Args:
        engine: whose books.
        request: the call.
        payer: who pays.

    Attributes:
        hold: what is asked for last, or granted; None before, and once it is refused.
        projection: what the call will cost at most.
        rates: what it costs by the unit.
    """

    projection: Projection
    rates: Rates

    def __init__(self, engine: Engine, request: ProviderCall, payer: Payer) -> None:
        self.hold: Hold | None = None
        self._engine = engine
        self._request = request
        self._payer = payer
        self._ident = ""
        self._told: Projection | None = None
        self._charged = True
        self._fits = False
        self._smaller_tries = 0
        self._may_wait = False
        self._until: float | None = None
        self._pause = _FIRST_PAUSE
        self._others: Iterator[str] | None = None
        self._original: tuple[Hold, Balance, Projection, Rates, str] | None = None
        self._tried: list[str] = []
        # Accounts that exist and have no rules, found where those of what would make them refused the call.
        self._without_rules: set[str] = set()

    def begin(self, *, may_wait: bool) -> Hold:
        """Return the hold to ask for; again after a pause.

        Raises:
            BudgetGuardError: the call must not be made.
        """
        self._may_wait = may_wait
        if not self._ident:
            self._project()
            self._ident = new_hold_id(self._engine.now())
        elif self._fits:
            self._cap(self._ceiling())  # there may be room for more by now
        self._smaller_tries, self._others, self._original, self._tried = 0, None, None, []
        self._without_rules = set()
        return self._judged()

    def judged_again(self) -> Hold:
        return self._judged()

    def instead(self, refused: Balance) -> Hold | None:
        if self._fits and self._smaller_tries < _SMALLER_TRIES:
            self._smaller_tries += 1
            if self._lower_cap(refused):
                return self._judged()
        return self._fall_back(refused)

    def refused(self, hold: Hold, balance: Balance) -> tuple[Hold, Balance, str]:
        if self._original is None:
            return hold, balance, ""
        former, first, *_ = self._original
        return former, first, "".join(self._tried)

    def wait(self, refused: Balance) -> Pause | None:
        if not self._may_wait:
            return None
        rules, now = read_rules(refused.document.rules), time.monotonic()
        if rules.on_limit != "wait" or self.hold is None:
            return None
        amount = self.hold.amount_of(refused.unit)
        if self._until is None:
            self._until = now + rules.wait_ms / 1_000
        left = self._until - now
        fits_at = refused.fits_at(amount)
        by_time = None if fits_at is None else max(0.001, (fits_at - self._engine.now()) / 1_000)
        # Calls under way may give back what they hold; else only time makes room.
        hopeless = not refused.held_nanos and (by_time is None or by_time > left)
        if left <= 0 or hopeless or amount > (refused.limit_nanos or 0):
            return None
        if self._pause == _FIRST_PAUSE:
            emit_call(self._engine, events.Waiting, self.hold, account=refused.account, seconds=left)
        pause = min(self._pause, left, by_time or left)
        self._pause = min(self._pause * 1.5, _LONGEST_PAUSE)
        return Pause(pause)

    def granted(self) -> None:
        """Write what was granted into the request, and tell if it is for another model."""
        request, hold = self._request, self.hold
        if self._original is not None and hold is not None:
            former, balance, *_ = self._original
            request.write_model()
            emit_call(
                self._engine,
                events.FellBack,
                hold,
                instead_of=former.model,
                account=balance.account,
            )
        if self._fits and self.projection.output_cap is not None:
            request.write_cap(self.projection.output_cap)

    # Projecting

    def _project(self) -> None:
        engine, request = self._engine, self._request
        try:
            self.rates, self.projection = request.project(engine.prices, engine.learned.cap)
        except UnknownModelError:
            if engine.settings.unknown_model == "error":
                raise
            self.rates = request.rates_if_known(engine.prices)
            self.projection = Projection(request.model, Usage(), 0, 0, 0, 0, cap_assumed=False)
        # Free is a call whose model is, and every other that may answer, and what is billed beside tokens.
        free = not self.projection.cost and self.rates.is_free
        self._charged = not free or self.rates.is_unknown
        payer = self._payer
        if self._charged and (payer.user is None or payer.lost is not None):
            engine.check_payer(payer.user, payer.lost, request.model)
        self._fits = request.strict and self.projection.cap_assumed and request.takes_cap and not free
        if self._fits:
            self._cap(self._ceiling())
        if self.projection.cost > MAX_NANOS:
            raise ConfigurationError(
                f"this call to {request.model} is projected at {format_usd(self.projection.cost)}, "
                f"more than a budget can hold (${MAX_USD}): cap its output lower"
            )

    def _ceiling(self) -> int:
        settings = self._engine.settings
        if settings.strict_ceiling is not None:
            return settings.strict_ceiling
        shown = self.projection.input_tokens - self.projection.reserve
        return max(settings.strict_floor, output_limit(self._request.model, shown))

    def _cap(self, cap: int) -> None:
        self.projection = self.projection.with_cap(cap)

    def cost_of_unknown(self) -> Nanos:
        """Return the Nanos that an unknown outcome costs."""
        policy = self._engine.settings.unknown_outcome
        if policy == "charge":
            return self.projection.cost
        return self.projection.input_cost if policy == "input" else 0

    # Judging

    def _judged(self) -> Hold:
        """Make the hold by what is known; refuse only by what is current.

        Raises:
            BudgetGuardError: the call must not be made.
        """
        judge, error = self._engine.judge, None
        for _ in range(_MOST_JUDGEMENTS):
            hold = self.hold = self._make()
            found = self._refusal(hold) if judge.known.knows_rules else None
            if found is None:
                self._emit_projected(hold)
                return hold
            error, account = found
            try:
                if judge.is_current(self._engine.store, (account,), self._without_rules):
                    break
            except StoreError as failed:
                raise error from failed
        assert error is not None
        raise error

    def _make(self) -> Hold:
        engine, request, payer = self._engine, self._request, self._payer
        known = engine.judge.known
        facts = self._facts(known)
        charges = charges_for(facts, engine)
        if not self._charged:  # what is known to cost nothing needs no account, so that none can refuse it
            charges = tuple(replace(charge, required=False) for charge in charges)
        policy = engine.settings.unknown_outcome
        return new_hold(
            engine.now(),
            charges,
            amount=self.projection.cost,
            on_expiry=self.cost_of_unknown(),
            ttl=max(engine.hold_ttl, request.least_ttl),
            ident=self._ident,
            user=payer.user,
            model=request.model,
            endpoint=request.endpoint,
            tags=payer.tags,
            units=amounts(charges, self.projection, policy) if known.has_scopes else {},
            labels=known.recorded_labels(payer.user, payer.labels, self.rates.provider),
            scopes=known.revision,
        )

    def _facts(self, known: Known = NOTHING_KNOWN) -> CallFacts:
        payer, request = self._payer, self._request
        return CallFacts(
            payer.user,
            payer.runs,
            request.model,
            request.endpoint,
            payer.tags,
            payer.labels,
            self.rates.provider,
            known,
        )

    def _refusal(self, hold: Hold) -> tuple[BudgetGuardError, str] | None:
        """Return why the rules that are known refuse a hold, and whose they are."""
        known, user = self._engine.judge.known, self._payer.user
        for name, kept in known.member_labels(user).items():
            said = self._payer.labels.get(name, kept)
            if said != kept and user is not None:
                return two_labels(name, said, kept, user), account_name(USER, user)
        models = self._facts().models
        for charge in hold.charges:
            if charge.account in self._without_rules:
                continue
            rules = known.rules(charge)
            if rules.on_limit == "shadow":
                continue
            if rules.forbids(models):
                return model_not_allowed(hold.model, user, charge.account, rules), charge.account
            if rules.max_call is not None and hold.amount > rules.max_call:
                return above_the_cap(hold, charge.account, rules.max_call), charge.account
        return None

    # Taking something else

    def _lower_cap(self, refused: Balance) -> bool:
        """Take the largest output cap that an account has room for, the floor's if that is more.

        Returns whether it is lower than the last.
        """
        available = refused.available_nanos or 0
        low, high = self._engine.settings.strict_floor, (self.projection.output_cap or 0) - 1
        if high < low:
            return False
        while low < high:
            middle = (low + high + 1) // 2
            fits = self._amount_at(middle, refused) <= available
            low, high = (middle, high) if fits else (low, middle - 1)
        self._cap(low)
        return True

    def _amount_at(self, cap: int, balance: Balance) -> int:
        capped = self.projection.with_cap(cap)
        if balance.unit == "usd":
            return capped.cost
        return amounts((Charge(balance.account),), capped)[balance.unit][0]

    def _fall_back(self, refused: Balance) -> Hold | None:
        request, hold = self._request, self.hold
        if self._others is None and hold is not None:
            others = read_rules(refused.document.rules).instead_of(self._facts().models)
            if others and not request.takes_model:
                logger.warning("budgetguard: no other model can be written into this call to %s", hold.model)
                others = ()
            self._others = iter(others)
            if others:
                self._original = hold, refused, self.projection, self.rates, request.written_model
        elif self._original is not None and hold is not None:
            self._tried.append(also_refused(hold, refused))
        for model in self._others or ():
            try:
                request.use_model(model)
                self._project()
                self._smaller_tries = 0
                return self._judged()
            except StoreError:
                raise
            except BudgetGuardError as error:
                logger.warning("budgetguard: %s cannot be called instead: %s", model, error)
                self._tried.append(f". {model} cannot be called instead: {error.message}")
        if self._original is not None:
            self.hold, _, self.projection, self.rates, model = self._original
            request.use_model(model)
        return None

    def _emit_projected(self, hold: Hold) -> None:
        if not self._engine.hooks.entries or self.projection is self._told:
            return
        projection = self._told = self.projection
        emit_call(
            self._engine,
            events.Projected,
            hold,
            cost=to_usd(projection.cost),
            usage=projection.usage,
            cap_assumed=projection.cap_assumed,
            output_cap=projection.output_cap,
            provider=self.rates.provider,
        )
