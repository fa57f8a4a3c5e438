"""What a budget is to be, from the options of `create`: what is not given stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import cast

from budgetguard.cli.words import parse_amount, rules_of, span
from budgetguard.core.accounts import Balance, Unit
from budgetguard.core.money import parse_usd, to_usd
from budgetguard.core.rules import ON_LIMIT, OnLimit, Rules
from budgetguard.core.windows import Align
from budgetguard.engine.terms import Terms
from budgetguard.errors import ConfigurationError

NEVER = "never"
NONE = "none"
_NO_RULES = Rules()


def terms(
    before: Balance | None,
    unit: Unit,
    *,
    duration: str | None,
    timezone: str | None,
    align: str,
    rolling: str | None,
    rollover: str | None,
    on_limit: str | None,
    wait: str | None,
    fallback: Sequence[str] | None,
    allow: Sequence[str] | None,
    forbid: Sequence[str] | None,
    max_call_cost: str | None,
) -> Terms:
    """Return what a budget is to be.

    Args:
        before: the budget as it stands, if it exists.
        unit: what it counts.
        duration: `never` takes its window away.
        timezone: see `Guard.set_budget`, likewise below.
        align: likewise.
        rolling: the duration over which it rolls.
        rollover: an amount of the unit; `none` takes it away, as below.
        on_limit: what happens at the limit.
        wait: for how long calls wait at most.
        fallback: each as `gpt-5=gpt-5-mini`.
        allow: patterns of models.
        forbid: likewise.
        max_call_cost: USD.

    Raises:
        ConfigurationError: a bad value, or what cannot be together.
    """
    if rolling is not None and duration is not None:
        raise ConfigurationError(
            f"--rolling {rolling} says the duration, and --duration {duration} does so, too: give one of both"
        )
    had = _NO_RULES if before is None else rules_of(before)
    chosen, waits = _at_the_limit(on_limit, wait, had)
    return Terms(
        duration=rolling or _duration(duration, before),
        timezone=timezone or (before.timezone if before else None),
        align=cast(Align, align),
        rolling=rolling is not None,
        rollover=_rollover(rollover, before, unit, duration),
        on_limit=chosen,
        wait=waits,
        fallbacks=had.fallbacks if fallback is None else _fallbacks(fallback),
        allow=had.allow if allow is None else _listed(allow),
        forbid=had.forbid if forbid is None else _listed(forbid),
        max_call_cost=_max_call(max_call_cost, had),
    )


def _duration(given: str | None, before: Balance | None) -> str | None:
    if given is None:
        return before.duration if before else None
    return None if given == NEVER else given


def _rollover(
    given: str | None, before: Balance | None, unit: Unit, duration: str | None
) -> Decimal | int | None:
    if given == NONE or (given is None and duration == NEVER):
        return None
    if given is not None:
        return parse_amount(given, unit, name="--rollover")
    return before.quantity(before.rollover_nanos) if before is not None and before.rollover_nanos else None


def _at_the_limit(on_limit: str | None, wait: str | None, had: Rules) -> tuple[OnLimit, str | None]:
    chosen = next((one for one in ON_LIMIT if one == on_limit), None)
    if on_limit is not None and chosen is None:
        raise ConfigurationError(f"--on-limit is {', '.join(ON_LIMIT)}, not {on_limit!r}")
    wanted = chosen or had.on_limit
    if wanted != "wait":
        if wait is not None:
            raise ConfigurationError(f"--wait {wait} needs --on-limit wait, and this budget has {wanted}")
        return wanted, None
    if wait is None and had.on_limit != "wait":
        raise ConfigurationError("--on-limit wait needs for how long, such as --wait 30s")
    return wanted, wait or span(had.wait_ms)


def _fallbacks(given: Sequence[str]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        if text == NONE and len(given) == 1:
            return {}
        model, equals, others = text.partition("=")
        names = [one for one in others.split(",") if one]
        if not equals or not model or not names:
            raise ConfigurationError(
                f"--fallback is MODEL=OTHER such as gpt-5=gpt-5-mini, or none, not {text!r}"
            )
        for one in names:
            if one not in found.setdefault(model, []):
                found[model].append(one)
    return found


def _listed(given: Sequence[str]) -> Sequence[str]:
    named = [one for text in given for one in text.split(",") if one]
    return [] if named == [NONE] else named


def _max_call(given: str | None, had: Rules) -> Decimal | None:
    if given == NONE:
        return None
    if given is not None:
        return parse_usd(given, name="--max-call-cost")
    return None if had.max_call is None else to_usd(had.max_call)
