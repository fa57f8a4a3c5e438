"""Compare what was billed with what was booked, and say where a difference comes from. Pure.

For each day and model the difference is taken apart. Where the bill counts tokens, the part that is due to
more or fewer tokens is told from the part that is due to their price. Calls whose cost nobody knows explain
what lies between nothing and what they were held for. What nothing explains stays unexplained: reasons and
that always add up to the difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import Final

from budgetguard.billing.bill import TOOLS, Bill, BillLine
from budgetguard.billing.booked import UNCERTAIN, BookedCalls, BookedKey, BookedRecords, Rate
from budgetguard.billing.names import ALL_MODELS
from budgetguard.billing.result import (
    ALIAS,
    ESTIMATED,
    EXPIRED,
    MIDNIGHT,
    NO_MODEL,
    OPEN,
    PRICE,
    ROUNDING,
    TIER,
    TOKENS,
    TOOL,
    UNBILLED,
    UNBOOKED,
    ReconciledRow,
)
from budgetguard.core.money import Nanos

NO_NAME: Final = "no line item"
_OF_GUESS: Final = {"expired": EXPIRED, "estimated": ESTIMATED, "open": OPEN}


@dataclass(slots=True)
class _Compared:
    """One day and model: what is left to explain of its difference, in two parts.

    Attributes:
        rest: Nanos due to calls, tokens, or what cannot be told apart.
        price: Nanos due to the price of tokens that both sides count.
        counted: whether both sides count all that they charge.
        units: what the calls used, by the units of the bill.
    """

    key: BookedKey
    lines: list[BillLine] = field(default_factory=list)
    calls: BookedCalls = field(default_factory=BookedCalls)
    requests: int | None = None
    rest: Nanos = 0
    price: Nanos = 0
    counted: bool = False
    units: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, Nanos] = field(default_factory=dict)
    unexplained: Nanos = 0

    @property
    def billed(self) -> Nanos:
        return sum(line.amount for line in self.lines)

    @property
    def slack(self) -> Nanos:
        """Nanos that rounding makes up: of each call to the Nano above, of each line to its nearest unit."""
        return self.calls.calls + sum(1 + line.slack for line in self.lines)

    @property
    def guessed(self) -> int:
        return sum(one.calls for one in self.calls.guessed.values())

    def explain(self, reason: str, amount: Nanos) -> None:
        if amount:
            self.reasons[reason] = self.reasons.get(reason, 0) + amount

    def take(self, reason: str, low: Nanos, high: Nanos) -> Nanos:
        """Explain as much of the rest as lies between two amounts, and return how much."""
        amount = min(max(self.rest, min(low, 0)), max(high, 0))
        self.rest -= amount
        self.explain(reason, amount)
        return amount


def compare(bills: Sequence[Bill], booked: BookedRecords) -> tuple[ReconciledRow, ...]:
    """Return a row for each provider, day and model of which something was billed or booked.

    Args:
        bills: of providers that differ.
        booked: the calls of the bills' days; those of the days before explain what is billed after midnight.
    """
    rows: list[ReconciledRow] = []
    for bill in bills:
        found = _gathered(bill, booked)
        for one in found.values():
            _split(one, booked.rate)
        _pair_aliases(found.values())
        _move_over_midnight(bill, found, booked.rows)
        for one in found.values():
            _finish(one, booked.rate)
            rows.append(_row(one))
    return tuple(sorted(rows, key=lambda row: (row.day or "", row.provider or "", row.model or "")))


def left_out(bills: Iterable[Bill], booked: BookedRecords) -> dict[str, Nanos]:
    """Return what was booked on the bills' days for providers of which there is no bill, by provider."""
    bills = tuple(bills)
    known = {bill.provider for bill in bills}
    out: dict[str, Nanos] = defaultdict(int)
    for key, calls in booked.rows.items():
        if key.provider not in known and any(bill.since <= key.day < bill.until for bill in bills):
            out[key.provider] += calls.booked
    return {provider: nanos for provider, nanos in sorted(out.items()) if nanos}


def _gathered(bill: Bill, booked: BookedRecords) -> dict[BookedKey, _Compared]:
    """Put lines and calls of a day and model together."""
    whole = bool(bill.lines) and all(line.is_whole for line in bill.lines)
    found: dict[BookedKey, _Compared] = {}

    def at(day: date, model: str | None, item: str) -> _Compared:
        key = BookedKey(bill.provider, day, *((ALL_MODELS, "") if whole else (model, item)))
        return found.setdefault(key, _Compared(key))

    for line in bill.lines:
        model = None if line.model is None else booked.names.billed(bill.provider, line.model)
        tool = line.item in TOOLS
        item = (line.item or NO_NAME) if tool or model is None else ""
        at(line.day, None if tool else model, item).lines.append(line)
    for key, calls in booked.rows.items():
        if key.provider == bill.provider and bill.since <= key.day < bill.until:
            one = at(key.day, key.model, key.item)
            one.calls = _joined(one.calls, calls) if whole else calls
    if not whole:
        for (day, name), n in bill.requests.items():
            one = at(day, booked.names.billed(bill.provider, name), "")
            one.requests = (one.requests or 0) + n
    return {key: one for key, one in found.items() if one.billed or one.calls.booked or one.guessed}


def _joined(one: BookedCalls, other: BookedCalls) -> BookedCalls:
    made = BookedCalls(one.known + other.known, one.calls + other.calls, countable=False, batched=True)
    for calls in (one, other):
        for why, guess in calls.guessed.items():
            made.guess(why).join(guess)
        for day, nanos in calls.later.items():
            made.later[day] = made.later.get(day, 0) + nanos
    return made


def _split(one: _Compared, rate: Rate) -> None:
    """Tell what is due to tokens from what is due to their price, and let uncertain calls explain theirs."""
    calls = one.calls
    guessed = calls.booked - calls.known
    tokens = _due_to_tokens(one, rate)
    if tokens is None:
        one.rest = one.billed - calls.booked
    else:
        one.counted = True
        one.rest = tokens - guessed
        one.price = one.billed - tokens - calls.known
    for why in UNCERTAIN:
        guess = calls.guessed.get(why)
        if guess is not None:
            one.take(_OF_GUESS[why], -guess.booked, guess.most - guess.booked)


def _due_to_tokens(one: _Compared, rate: Rate) -> Nanos | None:
    """Return what the tokens cost that are billed and not booked, less those booked and not billed.

    They count at the price that was billed, else at the listed one. None if the bill or the calls do not
    count all that they charge.
    """
    model, lines, calls = one.key.model, one.lines, one.calls
    if model is None or not lines or not calls.countable:
        return None
    billed: dict[str, tuple[int, Nanos]] = {}
    for line in lines:
        if line.unit is None or line.quantity is None or (line.amount and not line.quantity):
            return None
        n, nanos = billed.get(line.unit, (0, 0))
        billed[line.unit] = n + line.quantity, nanos + line.amount
    units = dict(calls.units)
    if "cache_write_5m_tokens" in billed and "cache_write_5m_tokens" not in units:
        # The bill tells how long a cache lives; some answers do not, and five minutes is what they mean.
        units["cache_write_5m_tokens"] = units.pop("cache_write_tokens", 0)
    one.units = units
    due = Fraction(0)
    for unit in {**billed, **units}:
        n, nanos = billed.get(unit, (0, 0))
        each = Fraction(nanos, n) if n else rate(one.key.provider, model, one.key.day, unit)
        more = n - units.get(unit, 0)
        if not more:
            continue
        if each is None:
            return None
        due += more * each
    return round(due)


def _pair_aliases(rows: Iterable[_Compared]) -> None:
    """Explain what is booked by the name that was called and billed by the name of the model that answered.

    The tokens of both must agree, unit by unit, and of no other two of that day.
    """
    called: dict[object, list[_Compared]] = defaultdict(list)
    answered: dict[object, list[_Compared]] = defaultdict(list)
    for one in rows:
        if one.key.model is None or one.guessed:
            continue
        if not one.lines and one.calls.countable and one.calls.units:
            called[one.key.day, frozenset(one.calls.units.items())].append(one)
        elif one.counted and not one.calls.calls:
            units = {unit: billed for unit, (billed, _) in _units(one).items()}
            answered[one.key.day, frozenset(units.items())].append(one)
    for tokens, callers in called.items():
        billed = answered.get(tokens, [])
        if len(callers) == len(billed) == 1:
            booked = callers[0].calls.booked
            callers[0].take(ALIAS, -booked, 0)
            billed[0].explain(ALIAS, booked)
            billed[0].price += billed[0].rest - booked
            billed[0].rest = 0


def _move_over_midnight(
    bill: Bill, found: Mapping[BookedKey, _Compared], rows: Mapping[BookedKey, BookedCalls]
) -> None:
    """Explain what is booked on the day when a call began and billed on that when it ended."""
    whole = any(key.model == ALL_MODELS for key in found)
    for key, calls in rows.items():
        if key.provider != bill.provider or not calls.later:
            continue
        for ended, nanos in sorted(calls.later.items()):
            begun, after = (
                found.get(BookedKey(key.provider, day, ALL_MODELS if whole else key.model, key.item))
                for day in (key.day, ended)
            )
            most = nanos
            if bill.since <= key.day:  # else its booking is on none of these days
                most = min(most, -begun.rest if begun is not None else 0)
            if ended < bill.until:
                most = min(most, after.rest if after is not None else 0)
            if most <= 0:
                continue
            if begun is not None and bill.since <= key.day:
                begun.take(MIDNIGHT, -most, 0)
            if after is not None and ended < bill.until:
                after.take(MIDNIGHT, 0, most)


def _finish(one: _Compared, rate: Rate) -> None:
    """Name what is left."""
    if abs(one.price) <= one.slack:
        one.explain(ROUNDING, one.price)
    else:
        low, high = _tier_range(one, rate)
        by_tier = min(max(one.price, low), high)
        one.explain(TIER, by_tier)
        one.explain(PRICE, one.price - by_tier)
    if one.lines and one.calls.calls and abs(one.rest) <= one.slack:
        one.explain(ROUNDING, one.rest)
    elif one.rest:
        _name_rest(one)


def _name_rest(one: _Compared) -> None:
    if one.key.model is None:
        one.explain(TOOL if one.key.item in TOOLS else NO_MODEL, one.rest)
        return
    calls = one.calls
    made = calls.calls + one.guessed
    # A batch is one call of ours and many requests of theirs.
    more = None if one.requests is None or calls.batched else one.requests - made
    if not one.lines:
        one.explain(UNBILLED, one.rest)
    elif not made:
        one.explain(UNBOOKED, one.rest)
    elif one.counted:
        if one.rest > 0:
            one.explain(UNBOOKED if more is not None and more > 0 else TOKENS, one.rest)
        else:
            fewer = one.requests is not None and not calls.batched and one.requests < calls.calls
            one.explain(UNBILLED if fewer else TOKENS, one.rest)
    else:
        if more is not None and one.requests and more > 0:
            one.take(UNBOOKED, 0, one.billed * more // one.requests)
        elif more is not None and calls.calls and one.requests is not None and one.requests < calls.calls:
            one.take(UNBILLED, -calls.known * (calls.calls - one.requests) // calls.calls, 0)
        one.unexplained = one.rest


def _tier_range(one: _Compared, rate: Rate) -> tuple[Nanos, Nanos]:
    """Return by how much the service tiers of a bill make it cheaper and dearer than the standard one."""
    low = high = 0
    standard: dict[str | None, tuple[int, Nanos]] = {}
    for line in one.lines:
        if line.tier is None and line.quantity:
            n, nanos = standard.get(line.unit, (0, 0))
            standard[line.unit] = n + line.quantity, nanos + line.amount
    for line in one.lines:
        if line.tier is None or line.unit is None or not line.quantity or one.key.model is None:
            continue
        n, nanos = standard.get(line.unit, (0, 0))
        each = Fraction(nanos, n) if n else rate(one.key.provider, one.key.model, one.key.day, line.unit)
        if each is not None:
            more = line.amount - round(line.quantity * each)
            low, high = low + min(more, 0), high + max(more, 0)
    return low, high


def _row(one: _Compared) -> ReconciledRow:
    calls = one.calls

    def number(why: str) -> int:
        return sum(guess.calls for name, guess in calls.guessed.items() if name == why)

    model = one.key.model
    return ReconciledRow(
        provider=one.key.provider,
        day=one.key.day.isoformat(),
        model=f"({one.key.item})" if model is None else model,
        billed=one.billed,
        booked=calls.booked,
        calls=calls.calls + number("expired") + number("estimated"),
        expired=number("expired"),
        estimated=number("estimated"),
        open=number("open"),
        requests=one.requests,
        reasons=one.reasons,
        unexplained=one.unexplained,
        units=_units(one),
    )


def _units(one: _Compared) -> dict[str, tuple[int, int]]:
    """Return what both sides count, where the bill counts all that it charges."""
    if not one.counted:
        return {}
    made = {unit: (0, n) for unit, n in one.units.items()}
    for line in one.lines:
        if line.unit is not None and line.quantity:
            billed, booked = made.get(line.unit, (0, 0))
            made[line.unit] = billed + line.quantity, booked
    return made
