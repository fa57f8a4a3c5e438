"""What a budget is to be, as people say it, and the budget that this makes; what none can be is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, get_args

from budgetguard.core.accounts import CONCURRENT, MOST_COUNTED, USD, Budget, Unit, check_id
from budgetguard.core.labels import literal, named_by, plain
from budgetguard.core.money import Nanos, to_nanos
from budgetguard.core.rules import ON_LIMIT, OnLimit, Rules
from budgetguard.core.windows import Align, calendar_start, duration_ms, parse_duration, to_milliseconds
from budgetguard.engine.payers import model_names
from budgetguard.errors import ConfigurationError, UnknownModelError

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

_ELAPSED: Final = ("s", "m", "h", "d", "w")
_MODEL: Final = "model"
_WITHOUT_TOKENS: Final = ("image variations", "moderations", "ocr", "rerank", "translations", "videos")
"""Endpoints, by their names, whose calls are billed by something else."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a budget is to be, beside its limit; see `Guard.set_budget`."""

    duration: str | None = None
    timezone: str | None = None
    starts_at: datetime | None = None
    align: Align = "created"
    rolling: bool = False
    rollover: int | float | Decimal | None = None
    on_limit: OnLimit = "refuse"
    wait: str | None = None
    fallbacks: Mapping[str, Sequence[str] | str] = field(default_factory=dict)
    allow: Sequence[str] | str = ()
    forbid: Sequence[str] | str = ()
    max_call_cost: int | float | Decimal | None = None


class TermsReader:
    """Reads terms: by an engine's settings, prices and clock.

    Args:
        engine: whose.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def amount(self, value: int | float | Decimal, unit: Unit, *, name: str, least: int = 0) -> Nanos:
        """Return an amount of a unit: Nanos for USD, else the count.

        Raises:
            ConfigurationError: not an amount of that unit, or less than `least`.
        """
        if unit == USD:
            found = to_nanos(value, name=name)
        else:
            whole = not isinstance(value, bool) and isinstance(value, int | float | Decimal)
            if not whole or value != int(value) or not 0 <= value <= MOST_COUNTED:
                raise ConfigurationError(
                    f"{name} must be a whole number of {unit} from 0 to {MOST_COUNTED:,}, not {value!r}"
                )
            found = int(value)
        if found < least:
            raise ConfigurationError(f"{name} must be more than 0, not {value!r}")
        return found

    def budget(self, account: str, limit: int | float | Decimal | None, terms: Terms, unit: Unit) -> Budget:
        """Return the budget of an account that terms describe.

        Raises:
            ConfigurationError: what no budget can be, or no model that is known.
        """
        settings = self._engine.settings
        _check_unit(account, unit)
        amount = None if limit is None else self.amount(limit, unit, name="limit")
        zone = terms.timezone or settings.timezone
        anchor = None if terms.starts_at is None else to_milliseconds(terms.starts_at, name="starts_at")
        if terms.align not in get_args(Align):
            raise ConfigurationError(f"align must be 'created' or 'calendar', not {terms.align!r}")
        duration = terms.duration
        if unit == CONCURRENT and (duration is not None or terms.rollover is not None):
            raise ConfigurationError(
                "calls under way have no window: leave out duration, rolling and rollover"
            )
        if terms.rolling:
            if duration is None or parse_duration(duration)[1] not in _ELAPSED:
                raise ConfigurationError(
                    f"a rolling budget needs a duration of elapsed time such as 24h or 30d, not {duration!r}"
                )
            if terms.rollover is not None or anchor is not None or terms.align != "created":
                raise ConfigurationError(
                    "a rolling budget has no windows: leave out rollover, starts_at and align"
                )
        if terms.align == "calendar":
            anchor = calendar_start(duration, zone, self._engine.now() if anchor is None else anchor)
        rollover = 0
        if terms.rollover is not None:
            if duration is None or amount is None:
                raise ConfigurationError("rollover needs a limit and a duration: nothing resets without")
            rollover = self.amount(terms.rollover, unit, name="rollover")
        rules = self._rules(account, terms)
        return Budget(amount, duration, zone, anchor, terms.rolling, rollover, rules.text)

    def _rules(self, account: str, terms: Terms) -> Rules:
        if terms.on_limit not in ON_LIMIT:
            raise ConfigurationError(f"on_limit must be one of {', '.join(ON_LIMIT)}, not {terms.on_limit!r}")
        if (terms.wait is not None) != (terms.on_limit == "wait"):
            raise ConfigurationError(
                'on_limit="wait" needs for how long, such as wait="30s", and wait= needs on_limit="wait"'
            )
        allow, forbid = _patterns(terms.allow, "allow"), _patterns(terms.forbid, "forbid")
        if allow and set(allow) <= set(forbid):
            raise ConfigurationError(
                f"allow and forbid both have {', '.join(allow)}, so that no call could be made on this "
                "budget: leave it out of one of them"
            )
        self._check_models(account, (*allow, *forbid))
        fallbacks = _fallbacks(terms.fallbacks)
        most = terms.max_call_cost
        rules = Rules(
            on_limit=terms.on_limit,
            wait_ms=0 if terms.wait is None else duration_ms(terms.wait),
            fallbacks=fallbacks,
            allow=allow,
            forbid=forbid,
            max_call=None if most is None else to_nanos(most, name="max_call_cost"),
        )
        for model, others in fallbacks.items():
            for one in (model, *others):
                self._check_known(one, f"the fallback {one!r}" if one != model else f"{one!r} in fallbacks")
            for one in others:
                if rules.forbids(model_names(one)):
                    raise ConfigurationError(
                        f"the fallback {one!r} of {model!r} is a model that this budget does not allow"
                    )
        return rules

    def _check_models(self, account: str, patterns: Sequence[str]) -> None:
        named = named_by(account)
        of_labels = dict(named.scope.parts).get(_MODEL) if named is not None else None
        for pattern in (*patterns, *(() if of_labels is None else (of_labels,))):
            if pattern == "*":
                continue
            name = plain(pattern)
            if name is not None:
                self._check_known(name, f"the model {name!r}")
            elif not self._engine.prices.lists(pattern):
                raise ConfigurationError(
                    f"no model that is known matches {pattern!r}: look its name up with `budgetguard prices "
                    "MODEL`, or set a price for it first (register_price, or a price file)"
                )

    def _check_known(self, model: str, what: str) -> None:
        if self._engine.settings.unknown_model != "error" or self._engine.prices.lists(literal(model)):
            return
        try:
            self._engine.prices.rates(model, bare=True)
        except UnknownModelError as error:
            raise ConfigurationError(
                f"{what} is no model that is known: look its name up with `budgetguard prices MODEL`, or set "
                "a price for it first (register_price, or a price file)"
            ) from error


def _check_unit(account: str, unit: Unit) -> None:
    named = named_by(account)
    endpoint = dict(named.scope.parts).get("endpoint", "") if named is not None else ""
    if unit.endswith("tokens") and endpoint in _WITHOUT_TOKENS:
        raise ConfigurationError(
            f"calls to {endpoint} are billed without tokens, so that a budget of {unit} would count none: "
            'take unit="usd" or unit="requests"'
        )


def _patterns(given: Sequence[str] | str, name: str) -> tuple[str, ...]:
    found = (given,) if isinstance(given, str) else tuple(given)
    for pattern in found:
        check_id(pattern, name=f"each of {name}")
    return found


def _fallbacks(given: Mapping[str, Sequence[str] | str]) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"fallbacks says which models come instead, as in {{'gpt-5': ['gpt-5-mini']}}, not {given!r}"
        )
    found: dict[str, tuple[str, ...]] = {}
    for model, others in given.items():
        check_id(model, name="each model of fallbacks")
        found[model] = _patterns(others, f"fallbacks[{model!r}]")
        if model in found[model]:
            raise ConfigurationError(f"fallbacks has {model!r} fall back to itself: name another model")
        if not found[model]:
            raise ConfigurationError(f"fallbacks names no model to come instead of {model!r}")
        if any("*" in one for one in (model, *found[model])):
            raise ConfigurationError("fallbacks names models, not patterns")
    return found
