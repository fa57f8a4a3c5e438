"""The account state machine: what reserve, settle, read and reset do, without I/O and without a clock.

This is the specification of every store. The embedded stores run it over their rows inside one
transaction a verb; a store that must speak another language (Lua, SQL) is tested against it.

Two counters keep spend where it belongs. An account's `window` grows at each window's end: a hold
remembers the window that granted it, and one from an earlier window no longer counts here. Its
`epoch` grows at each window's end and each reset, and a hold that ended remembers the epoch in which
each account booked it: a late settle takes back what its expiry booked only if that booking is still in
the sum, and what an account has spent can be added up again from its holds. Both begin at random, so
that an account deleted and made again, be it within the same millisecond, never shares a window with
holds of its former life.

Sums have a bound, `MAX_SUM`, which every store can count to. Nothing is granted beyond it, not on an account
without a limit either. What is spent beyond it cannot be kept from being spent: the sum stays at the bound,
so that the account is full until its window ends or it is reset, and can be read, reset and deleted.

A record of a call is swept some time after it ended. A settlement that names a hold as old as those that
were swept (`Rows.swept_to`) and that is not there may have been booked: it counts as repeated. So a clock
that jumps ahead and back, which has records swept too soon, has nothing booked twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import (
    Booked,
    Crossing,
    Denied,
    Expiry,
    Granted,
    Hold,
    Reservation,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.money import MAX_SUM, Nanos
from budgetguard.core.rows import NEVER, AccountRow, HoldRow, Rows, balance, is_hold_due, new_account
from budgetguard.core.usage import MOST_MODELS, observe
from budgetguard.core.windows import Milliseconds, window_at


def reserve(rows: Rows, hold: Hold, now: Milliseconds) -> Reservation:
    """Grant a hold on all of its accounts that exist, or change nothing and say why not.

    A hold of 0 Nanos is always granted: what costs nothing is not refused, even on an empty budget.
    """
    if (prior := rows.load_hold(hold.id)) is not None:
        return Granted(tuple(prior["accounts"]), repeated=True)
    book = _Book(rows, now)
    accounts: dict[str, AccountRow] = {}
    pinned: dict[str, Nanos | None] = {}
    for charge in hold.charges:
        name, budget = charge.account, charge.budget
        row = accounts.get(name) or book.account(name)
        if row is None and budget is not None:
            row = new_account(budget, now, ephemeral=charge.ephemeral)
        elif row is not None and charge.pinned and budget is not None:
            pinned[name] = budget.limit
        if row is not None:
            accounts[name] = row
        elif charge.required:
            return UnknownAccount(name)
    if not accounts:
        return Unlimited()
    amount = hold.amount
    for name, row in accounts.items():
        limit = pinned.get(name, row["limit"])
        limit = MAX_SUM if limit is None or limit > MAX_SUM else limit
        if amount and row["spent"] + row["held"] + amount > limit:
            book.save()  # what time alone brought about: windows that ended, holds that expired
            return Denied(balance(name, {**row, "limit": limit}), tuple(book.expiries))
    expires = now + hold.ttl
    windows: dict[str, int] = {}
    for name, row in accounts.items():
        if name in pinned:
            row["limit"] = pinned[name]
        row["held"] += amount
        row["opened"] += 1
        if expires < row["due"]:
            row["due"] = expires
        row["updated"] = now
        windows[name] = row["window"]
        book.changed[name] = row
    book.changed_holds[hold.id] = _hold_row(hold, windows, expires)
    book.save()
    return Granted(tuple(windows), expired=tuple(book.expiries))


def settle(rows: Rows, hold: Hold, settlement: Settlement, now: Milliseconds) -> Booked | UnknownAccount:
    """Book what a call cost, once per hold id; state `voided` books nothing.

    A hold that the rows do not know (it was never reserved, or the store lost it) is booked on the
    charges it carries: the money is spent, whatever the store remembers. But for one so old that its record
    may have been swept.
    """
    book = _Book(rows, now, sparing=hold.id)
    row = book.hold(hold.id)
    is_new = row is None
    if row is None:
        if hold.id <= rows.swept_to:
            return Booked(booked=0, repeated=True)
        windows: dict[str, int] = {}
        for charge in hold.charges:
            account = book.account(charge.account)
            if account is None and charge.budget is not None:
                account = new_account(charge.budget, now, ephemeral=charge.ephemeral)
                book.accounts[charge.account] = account
            if account is not None:
                windows[charge.account] = account["window"]
            elif charge.required:
                return UnknownAccount(charge.account)
        row = _hold_row(hold, windows, now + hold.ttl)
    if row["state"] in ("settled", "voided"):
        return Booked(booked=0, repeated=True)
    late = row["state"] == "expired"
    cost, model = settlement.cost, row["model"]
    crossings: list[Crossing] = []
    for name, window in row["accounts"].items():
        account = book.account(name)
        if account is None:
            continue
        if not late and not is_new:
            _release(account, row, window)
        if account["window"] == window:
            if late and row["epochs"].get(name) == account["epoch"]:
                _book_cost(account, model, -row["on_expiry"])
                account["expired"] = add_bounded(account["expired"], -row["on_expiry"])
                account["expiries"] -= 1
            if cost:
                _book_cost(account, model, cost)
            row["epochs"][name] = account["epoch"]
            if settlement.thresholds and account["limit"]:
                crossings += _cross(name, account, account["limit"], settlement.thresholds)
        account["updated"] = now
        book.changed[name] = account
    row["state"] = settlement.state
    row["cost"] = cost
    row["ended"] = now
    row["outcome"] = settlement.outcome
    row["request_id"] = settlement.request_id or row["request_id"]
    row["usage"] = dict(settlement.usage.units) if settlement.usage else {}
    book.changed_holds[hold.id] = row
    book.save()
    if settlement.observed:
        learn(rows, settlement.observed)
    return Booked(cost, late=late, crossings=tuple(crossings), expired=tuple(book.expiries))


def learn(rows: Rows, observed: Iterable[tuple[str, int]]) -> None:
    """Count answers of models; of a model too many, nothing is learned."""
    for model, tokens in observed:
        known = rows.load_observations(model)
        if known or rows.count_models() < MOST_MODELS:
            rows.save_observations(model, observe(known, tokens))


def attach(rows: Rows, hold_id: str, request_id: str) -> bool:
    """Store which answer of the provider's a hold waits for, in place of an earlier one.

    Returns whether there was such a hold, neither settled nor voided; else nothing has changed.
    """
    row = rows.load_hold(hold_id)
    if row is None or row["state"] in ("settled", "voided"):
        return False
    row["request_id"] = request_id
    rows.save_hold(hold_id, row)
    rows.save_answer(request_id, hold_id)
    return True


def set_budget(
    rows: Rows, name: str, budget: Budget, now: Milliseconds, *, ephemeral: bool = False
) -> tuple[Balance, tuple[Expiry, ...]]:
    """Make an account, or change the limit and window of one that exists and keep what it has spent.

    Returns the balance, and the holds found expired on the way.
    """
    book = _Book(rows, now)
    row = book.account(name)
    if row is None:
        row = new_account(budget, now, ephemeral=ephemeral)
    else:
        same_span = (row["duration"], row["timezone"]) == (budget.duration, budget.timezone)
        kept = row["anchor"] if same_span else now
        anchor = kept if budget.starts_at is None else budget.starts_at
        window = window_at(budget.duration, anchor, budget.timezone, max(now, row["start"]))
        row["limit"] = budget.limit
        row["duration"] = budget.duration
        row["timezone"] = budget.timezone
        row["anchor"] = anchor
        row["start"], row["end"] = window.start, window.end
        row["updated"] = now
    book.changed[name] = row
    book.save()
    return balance(name, row), tuple(book.expiries)


def reset(rows: Rows, name: str, now: Milliseconds) -> tuple[Balance | None, tuple[Expiry, ...]]:
    """Set what an account has spent to nothing; holds under way stay held.

    Returns the balance, None if the account does not exist, and the holds found expired on the way.
    """
    book = _Book(rows, now)
    row = book.account(name)
    if row is None:
        return None, ()
    _clear_spend(row)
    row["updated"] = now
    book.changed[name] = row
    book.save()
    return balance(name, row), tuple(book.expiries)


def delete(rows: Rows, name: str, now: Milliseconds) -> tuple[bool, tuple[Expiry, ...]]:
    """Forget an account: holds under way stay with their other accounts, or are charged to nobody.

    Returns whether it existed, and the holds found expired on the way.
    """
    book = _Book(rows, now)
    row = book.account(name)
    if row is None:
        return False, ()
    for hold_id in rows.open_holds(name):
        hold = book.hold(hold_id)
        if hold is not None and hold["state"] == "held":  # it may have expired just now
            del hold["accounts"][name]
            book.changed_holds[hold_id] = hold
    book.save()
    rows.remove_account(name)
    return True, tuple(book.expiries)


def present_hold(rows: Rows, hold_id: str, now: Milliseconds) -> tuple[HoldRow | None, tuple[Expiry, ...]]:
    """Return a hold as it stands now, and the holds found expired on the way, it among them."""
    book = _Book(rows, now)
    row = book.hold(hold_id)
    if row is not None and is_hold_due(row, now):
        for name in row["accounts"]:
            book.account(name)
        if row["state"] == "held":  # no account is left that would have ended it
            book.expire(hold_id, row)
        book.save()
    return row, tuple(book.expiries)


def read(rows: Rows, name: str, now: Milliseconds) -> tuple[Balance | None, tuple[Expiry, ...]]:
    """Return how an account stands now, and the holds found expired on the way."""
    book = _Book(rows, now)
    row = book.account(name)
    book.save()
    return (None if row is None else balance(name, row)), tuple(book.expiries)


def is_due(row: AccountRow, now: Milliseconds) -> bool:
    """Return whether time may have changed an account since it was stored: a window ended, a hold expired."""
    end = row["end"]
    return row["due"] <= now or (end is not None and end <= now)


class _Book:
    """The rows that one verb has touched, brought up to the present as they are loaded.

    Attributes:
        accounts: those loaded or made, None where there is none.
        changed, changed_holds: the rows that `save` stores.
        expiries: holds found expired on the way.
    """

    __slots__ = ("_current", "_holds", "_now", "_rows", "_sparing", "accounts", "changed", "changed_holds",
                 "expiries")  # fmt: skip

    def __init__(self, rows: Rows, now: Milliseconds, *, sparing: str | None = None) -> None:
        self._rows = rows
        self._now = now
        self._sparing = sparing  # the hold being settled must not expire under its own settlement
        self._current: set[str] = set()
        self._holds: dict[str, HoldRow | None] = {}
        self.accounts: dict[str, AccountRow | None] = {}
        self.changed: dict[str, AccountRow] = {}
        self.changed_holds: dict[str, HoldRow] = {}
        self.expiries: list[Expiry] = []

    def account(self, name: str) -> AccountRow | None:
        if name not in self.accounts:
            self.accounts[name] = self._rows.load_account(name)
        row = self.accounts[name]
        if row is not None and name not in self._current:
            self._current.add(name)
            if is_due(row, self._now):
                self._expire_due(name, row)
                self._roll(row)
                self.changed[name] = row
        return row

    def hold(self, hold_id: str) -> HoldRow | None:
        if hold_id not in self._holds:
            self._holds[hold_id] = self._rows.load_hold(hold_id)
        return self._holds[hold_id]

    def save(self) -> None:
        for name, account in self.changed.items():
            self._rows.save_account(name, account)
        for hold_id, hold in self.changed_holds.items():
            self._rows.save_hold(hold_id, hold)

    def _roll(self, row: AccountRow) -> None:
        end = row["end"]
        # Only ever forward: a clock that jumps back must not bring a finished window back.
        if end is None or self._now < end:
            return
        window = window_at(row["duration"], row["anchor"], row["timezone"], self._now)
        row["start"], row["end"] = window.start, window.end
        row["window"] += 1
        row["held"] = 0
        _clear_spend(row)

    def _expire_due(self, name: str, row: AccountRow) -> None:
        now = self._now
        if row["due"] > now:
            return
        row["due"] = NEVER
        for hold_id, expires in self._rows.open_holds(name).items():
            if expires > now:
                row["due"] = min(row["due"], expires)
            elif hold_id != self._sparing:
                hold = self.hold(hold_id)
                if hold is not None and hold["state"] == "held":  # another account may have met it before
                    self.expire(hold_id, hold)

    def expire(self, hold_id: str, hold: HoldRow) -> None:
        hold["state"], hold["outcome"] = "expired", "unknown"
        hold["cost"], hold["ended"] = hold["on_expiry"], self._now
        self.changed_holds[hold_id] = hold
        for name, window in hold["accounts"].items():
            # As stored: bringing that account up to date here would meet this hold half expired.
            if name not in self.accounts:
                self.accounts[name] = self._rows.load_account(name)
            account = self.accounts[name]
            if account is None:
                continue
            _release(account, hold, window)
            if account["window"] == window:  # if that is over by now, what is booked goes with it
                _book_cost(account, hold["model"], hold["on_expiry"])
                account["expired"] = add_bounded(account["expired"], hold["on_expiry"])
                account["expiries"] += 1
                hold["epochs"][name] = account["epoch"]
            self.changed[name] = account
        self.expiries.append(
            Expiry(
                hold_id=hold_id,
                accounts=tuple(hold["accounts"]),
                amount=hold["amount"],
                booked=hold["on_expiry"],
                user=hold["user"],
                model=hold["model"],
            )
        )


def _hold_row(hold: Hold, windows: dict[str, int], expires: Milliseconds) -> HoldRow:
    return {
        "state": "held",
        "accounts": windows,
        "epochs": {},
        "amount": hold.amount,
        "on_expiry": hold.on_expiry,
        "cost": 0,
        "created": hold.created,
        "expires": expires,
        "ended": None,
        "user": hold.user,
        "model": hold.model,
        "endpoint": hold.endpoint,
        "outcome": None,
        "request_id": None,
        "usage": {},
        "tags": list(hold.tags),
    }


def add_bounded(total: Nanos, nanos: Nanos) -> Nanos:
    """Add to a sum of Nanos, which stops at `MAX_SUM` and then stays there, whatever is taken back.

    What a sum would be beyond the bound is not known any more, so nothing may be taken from it.
    """
    return MAX_SUM if total >= MAX_SUM else min(total + nanos, MAX_SUM)


def _release(account: AccountRow, hold: HoldRow, window: int) -> None:
    """Take an open hold off one of its accounts."""
    account["opened"] -= 1
    if account["window"] == window:
        account["held"] -= hold["amount"]


def _book_cost(account: AccountRow, model: str, cost: Nanos) -> None:
    account["spent"] = add_bounded(account["spent"], cost)
    models = account["models"]
    models[model] = add_bounded(models.get(model, 0), cost)
    if not models[model]:
        del models[model]


def _clear_spend(row: AccountRow) -> None:
    row["epoch"] += 1
    row["spent"] = row["expired"] = row["expiries"] = 0
    row["models"] = {}
    row["crossed"] = []


def _cross(name: str, account: AccountRow, limit: Nanos, thresholds: Iterable[int]) -> list[Crossing]:
    """Store and return the thresholds that an account has reached first."""
    spent, crossed = account["spent"] * 100, account["crossed"]
    found: list[Crossing] = []
    for percent in thresholds:
        if spent >= percent * limit and percent not in crossed:
            crossed.append(percent)
            found.append(Crossing(name, percent, balance(name, account)))
    return found
