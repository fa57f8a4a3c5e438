"""Budgets in words, for people: whose they are, how much, over what time, and what they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo
from decimal import Decimal

from budgetguard.cli.display import joined, when
from budgetguard.core.accounts import PROCESS, PROJECT, RUN, USD, USER, Balance, Grant, Unit
from budgetguard.core.labels import Named, named_by, plain
from budgetguard.core.money import Nanos, parse_usd
from budgetguard.core.rules import Rules, read_rules
from budgetguard.core.windows import Milliseconds, to_datetime
from budgetguard.core.wording import format_amount, printable
from budgetguard.errors import ConfigurationError

_ROLLED_OVER = "rollover"
_SPANS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"))


def budget_in_words(account: str) -> str:
    """Return whose budget an account has: `alice`, `the project`, `team 'red' (requests)`."""
    kind, _, ident = account.partition(":")
    if kind == USER:
        return printable(ident)
    if kind == PROJECT:
        return "the project"
    named = named_by(account)
    if named is None:
        return printable(f"{kind} {ident}" if kind in (RUN, PROCESS) else account)
    return printable(_in_words(named))


def is_for_each(account: str) -> bool:
    """Whether a budget has an account for each value of a label, instead of one of its own."""
    named = named_by(account)
    return named is not None and named.scope.is_for_each


def _in_words(named: Named) -> str:
    # What is for each comes first: "each customer and model 'gpt-5*'".
    parts = sorted(named.scope.parts, key=lambda part: part[1] != "*")
    said = " and ".join(_part(label, pattern) for label, pattern in parts)
    marks = joined(
        (
            "" if named.unit == USD else _noun(named.unit),
            f"rolling {named.rolling}" if named.rolling else "",
            named.name,
        )
    )
    return (said or "the project") + (f" ({marks})" if marks else "")


def _part(label: str, pattern: str) -> str:
    value = plain(pattern)
    if value is not None:
        return f"{label} {value!r}"
    return f"each {label}" if pattern == "*" else f"{label} {pattern!r}"


def parse_amount(text: str, unit: Unit, *, name: str) -> Decimal | int:
    """Read an amount of a unit from a command line: USD, or a whole number.

    Raises:
        ConfigurationError: neither.
    """
    if unit == USD:
        return parse_usd(text, name=name)
    try:
        return int(text.replace(",", "").replace("_", ""))
    except ValueError:
        raise ConfigurationError(
            f"{name} must be a whole number of {_noun(unit)} such as 60, not {text!r}"
        ) from None


def _noun(unit: Unit) -> str:
    return format_amount(0, unit).removeprefix("0 ")


def own_limit(balance: Balance) -> Nanos | None:
    """Return a budget's limit without the raises in force; None for no limit."""
    limit = balance.limit_nanos
    return None if limit is None else limit - sum(one.amount for one in balance.grants)


def amount_or_none(amount: Nanos | None, unit: Unit, none: str = "no limit") -> str:
    """Return an amount in words."""
    return none if amount is None else format_amount(amount, unit)


def raise_in_words(grant: Grant, unit: Unit, zone: tzinfo | None) -> str:
    """Return a raise in words: `$5.00 until 2026-11-30 12:00`."""
    amount = format_amount(grant.amount, unit)
    if grant.id == _ROLLED_OVER:
        return f"{amount} left over from before"
    if grant.until_ms is None:
        return amount
    return f"{amount} until {when(to_datetime(grant.until_ms), zone)}"


def window_in_words(balance: Balance) -> str:
    """Return the time over which a budget counts: `monthly`, `rolling 24h`; empty where it never resets."""
    if balance.duration is None:
        return ""
    return f"rolling {balance.duration}" if balance.rolling else balance.duration


def span(duration: Milliseconds) -> str:
    """Return a duration as it is written: `90s`, `2m`, `1d`."""
    for length, unit in _SPANS:
        if duration and duration % length == 0:
            return f"{duration // length:d}{unit}"
    return f"{duration // 1000:d}s"


def at_the_limit(rules: Rules) -> str:
    """Return what happens to a call that there is no room for; empty where it is refused and no more."""
    then = {
        "refuse": "refuses",
        "shadow": "lets calls through (shadow)",
        "wait": f"calls wait up to {span(rules.wait_ms)}",
    }[rules.on_limit]
    if not rules.fallbacks:
        return "" if rules.on_limit == "refuse" else then
    instead = "; ".join(
        f"{' or '.join(others)} instead of {model}" for model, others in rules.fallbacks.items()
    )
    return f"{printable(instead)}, else {then}"


def models_in_words(rules: Rules) -> Iterator[tuple[str, str]]:
    """Yield what a budget says of models, and of one call: a heading and a text each."""
    if rules.allow:
        yield "Allows", printable(", ".join(rules.allow))
    if rules.forbid:
        yield "Forbids", printable(", ".join(rules.forbid))
    if rules.max_call is not None:
        yield "One call", f"at most {format_amount(rules.max_call, USD)}"


def rules_of(balance: Balance) -> Rules:
    """Return what a budget asks for beside its limit."""
    return read_rules(balance.document.rules)


def rules_in_words(rules: Rules) -> str:
    """Return what a budget asks for, in one line; empty if nothing but its limit."""
    limit = at_the_limit(rules)
    said = (f"{heading.lower()} {text}" for heading, text in models_in_words(rules))
    return joined((f"at the limit {limit}" if limit else "", *said))
