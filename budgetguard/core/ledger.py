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

A rolling account has one window that never ends, and `parts` of it: what was booked in an epoch, and when
that falls out. What it has spent is the sum of its parts, and its `end` is when the first falls out. So what
was booked in an epoch is in the sum as long as that epoch has a part.

An account counts a unit, which its name says; a hold sets aside, and a settlement books, an amount of each.
A limit may be raised by grants that end by themselves; what a window leaves unused becomes one, up to the
`rollover`, until the next window ends.

Who is charged is for clients to judge, by documents: the scopes of the project, and the rules and labels
of accounts. A hold says by which revisions of them it was judged, and is granted only if they are current.

Sums have a bound, `MAX_SUM`, which every store can count to. Nothing is granted beyond it, not on an account
without a limit either. What is spent beyond it cannot be kept from being spent: the sum stays at the bound,
so that the account is full until its window ends or it is reset, and can be read, reset and deleted.

A record of a call is swept some time after it ended. A settlement that names a hold as old as those that
were swept (`Rows.swept_to`) and that is not there may have been booked: it counts as repeated. So a clock
that jumps ahead and back, which has records swept too soon, has nothing booked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from budgetguard.core.accounts import Balance, Budget, Document, Grant, unit_of
from budgetguard.core.booking import (
    begin_part,
    book_cost,
    clear_spend,
    cost_of,
    drop_parts,
    end_grants,
    held_of,
    live_epochs,
    next_window,
    on_expiry_of,
    release,
    set_document,
)
from budgetguard.core.holds import (
    Booked,
    Crossing,
    Denied,
    Entry,
    Expiry,
    Granted,
    Hold,
    Outdated,
    Reservation,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.money import MAX_NANOS, MAX_SUM, Nanos
from budgetguard.core.rows import (
    NEVER,
    AccountRow,
    HoldRow,
    Rows,
    balance,
    document,
    is_hold_due,
    limit_of,
    new_account,
)
from budgetguard.core.usage import MOST_MODELS, observe
from budgetguard.core.windows import Milliseconds, window_at

REMEMBERED: Final = 86_400_000
"""Milliseconds for which the id of a raise for good is remembered, so that it counts once."""


def reserve(rows: Rows, hold: Hold, now: Milliseconds) -> Reservation:
    """Grant a hold on all of its accounts that exist, or change nothing and say why not.

    An account of which the hold sets nothing aside does not refuse it: what costs nothing is not refused,
    even on an empty budget.
    """
    if (prior := rows.load_hold(hold.id)) is not None:
        return Granted(tuple(prior["accounts"]), repeated=True)
    book = _Book(rows, now)
    accounts: dict[str, AccountRow] = {}
    pinned: dict[str, Nanos | None] = {}
    shadows: set[str] = set()
    made: set[str] = set()
    unknown: str | None = None
    outdated: dict[str, Document] = {}
    for charge in hold.charges:
        name, budget = charge.account, charge.budget
        row = accounts.get(name) or book.account(name)
        if row is None:
            if charge.revision:
                outdated[name] = Document()
            if budget is not None:
                row = new_account(budget, now, ephemeral=charge.ephemeral)
                made.add(name)
        else:
            if name not in accounts and row["revision"] != charge.revision:
                outdated[name] = document(row)
            if charge.pinned and budget is not None:
                pinned[name] = budget.limit
        if charge.shadow and (name in made or not charge.shadows_new_only):
            shadows.add(name)
        if row is not None:
            accounts[name] = row
        elif charge.required:
            unknown = name
            break
    if outdated or hold.scopes != rows.scopes.revision:
        return Outdated(rows.scopes if hold.scopes != rows.scopes.revision else None, outdated)
    if unknown is not None:
        return UnknownAccount(unknown)
    if not accounts:
        return Unlimited()
    shadowed: list[Balance] = []
    amounts = {name: hold.amount_of(unit_of(name)) for name in accounts}
    for name, row in accounts.items():
        amount = amounts[name]
        limit = pinned[name] if name in pinned else limit_of(row)
        limit = MAX_SUM if limit is None or limit > MAX_SUM else limit
        taken = row["spent"] + row["held"] + amount
        if amount and taken > limit:
            as_judged = row if limit == limit_of(row) else {**row, "limit": limit, "grants": []}
            standing = balance(name, as_judged)
            if name in shadows and taken <= MAX_SUM:
                shadowed.append(standing)
                continue
            book.save()  # what time alone brought about: windows that ended, holds that expired
            return Denied(standing, tuple(book.expiries))
    expires = now + hold.ttl
    windows: dict[str, int] = {}
    for name, row in accounts.items():
        if name in pinned:
            row["limit"] = pinned[name]
        row["held"] += amounts[name]
        row["opened"] += 1
        if expires < row["due"]:
            row["due"] = expires
        row["updated"] = now
        windows[name] = row["window"]
        book.changed[name] = row
    row_of_hold = book.changed_holds[hold.id] = _hold_row(hold, windows, expires)
    if shadowed:
        row_of_hold["shadowed"] = [one.account for one in shadowed]
    book.save()
    return Granted(tuple(windows), expired=tuple(book.expiries), shadowed=tuple(shadowed))


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
    model = row["model"]
    row["cost"] = settlement.cost
    if row["units"]:
        booked = settlement.units if settlement.state == "settled" else dict.fromkeys(row["units"], 0)
        row["units"] = {
            unit: [held, on_expiry, booked.get(unit, on_expiry)]
            for unit, (held, on_expiry, _) in row["units"].items()
        }
    crossings: list[Crossing] = []
    for name, window in row["accounts"].items():
        account = book.account(name)
        if account is None:
            continue
        unit = unit_of(name)
        if not late and not is_new:
            release(account, held_of(row, unit), window)
        if account["window"] == window:
            epoch = row["epochs"].get(name)
            if late and epoch is not None and epoch in live_epochs(account):
                book_cost(account, epoch, model, -on_expiry_of(row, unit), expiries=-1)
            if cost := cost_of(row, unit):
                if account["parts"] is not None:
                    begin_part(account, now)
                book_cost(account, account["epoch"], model, cost)
            row["epochs"][name] = account["epoch"]
            if settlement.thresholds and (limit := limit_of(account)):
                crossings += _cross(name, account, limit, settlement.thresholds)
        account["updated"] = now
        book.changed[name] = account
    row["state"] = settlement.state
    row["ended"] = now
    row["outcome"] = settlement.outcome
    row["request_id"] = settlement.request_id or row["request_id"]
    row["usage"] = dict(settlement.usage.units) if settlement.usage else {}
    book.changed_holds[hold.id] = row
    book.save()
    if settlement.observed:
        learn(rows, settlement.observed)
    return Booked(settlement.cost, late=late, crossings=tuple(crossings), expired=tuple(book.expiries))


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
    rows: Rows,
    name: str,
    budget: Budget,
    now: Milliseconds,
    *,
    ephemeral: bool = False,
    entry: Entry | None = None,
) -> tuple[Balance, tuple[Expiry, ...]]:
    """Make an account, or change the limit and window of one that exists and keep what it has spent.

    A rolling account stays one, of the duration that it was made with. Grants stay in force.

    Returns the balance, and the holds found expired on the way.
    """
    book = _Book(rows, now, entry=entry)
    row = book.account(name)
    if row is None:
        row = new_account(budget, now, ephemeral=ephemeral)
    else:
        if row["parts"] is None:
            same_span = (row["duration"], row["timezone"]) == (budget.duration, budget.timezone)
            kept = row["anchor"] if same_span else now
            anchor = kept if budget.starts_at is None else budget.starts_at
            window = window_at(budget.duration, anchor, budget.timezone, max(now, row["start"]))
            row["duration"] = budget.duration
            row["timezone"] = budget.timezone
            row["anchor"] = anchor
            row["start"], row["end"] = window.start, window.end
        row["limit"] = budget.limit
        row["rollover"] = budget.rollover
        set_document(row, budget.rules, row["labels"])
        row["updated"] = now
    book.changed[name] = row
    book.save()
    return balance(name, row), tuple(book.expiries)


def set_labels(
    rows: Rows, name: str, labels: str, now: Milliseconds, *, entry: Entry | None = None
) -> tuple[Balance | None, tuple[Expiry, ...]]:
    """Store the labels that a user's calls carry, as text for clients.

    Returns the balance, None if the account does not exist, and the holds found expired on the way.
    """

    def change(row: AccountRow) -> None:
        set_document(row, row["rules"], labels)

    return _changed(rows, name, now, change, entry)


def grant(
    rows: Rows, name: str, grant: Grant, now: Milliseconds, *, entry: Entry | None = None
) -> tuple[Balance | None, tuple[Expiry, ...]]:
    """Raise an account's limit, once per grant id: until some time, or for good.

    What is raised for good counts once within a day; an account without a limit stays without one.

    Returns the balance, None if the account does not exist, and the holds found expired on the way.
    """

    def change(row: AccountRow) -> None:
        if row["limit"] is None or any(one["id"] == grant.id for one in row["grants"]):
            return
        amount, until = grant.amount, grant.until_ms
        if until is None:
            row["limit"] = min(row["limit"] + amount, MAX_NANOS)
            amount, until = 0, now + REMEMBERED
        if until > now:
            row["grants"] = [*row["grants"], {"id": grant.id, "amount": amount, "until": until}]

    return _changed(rows, name, now, change, entry)


def mark(rows: Rows, name: str, mark: int, now: Milliseconds) -> tuple[bool, tuple[Expiry, ...]]:
    """Note something about an account's present window, such as that a refusal was told.

    Marks are numbers beside the thresholds, which are above 0.

    Returns whether it was noted first now, in an account that exists, and the holds found expired.
    """
    book = _Book(rows, now)
    row = book.account(name)
    first = row is not None and mark not in row["crossed"]
    if row is not None and first:
        row["crossed"].append(mark)
        book.changed[name] = row
    book.save()
    return first, tuple(book.expiries)


def save_scopes(rows: Rows, document: Document, seen: int, entry: Entry | None = None) -> bool:
    """Replace the project's scopes, if they are still those of the revision that was seen.

    Returns whether they were.
    """
    if rows.scopes.revision != seen:
        return False
    rows.save_scopes(document)
    if entry is not None:
        rows.add_entry(entry)
    return True


def _changed(
    rows: Rows, name: str, now: Milliseconds, change: Callable[[AccountRow], None], entry: Entry | None
) -> tuple[Balance | None, tuple[Expiry, ...]]:
    """Change an account that exists, and return its balance."""
    book = _Book(rows, now, entry=entry)
    row = book.account(name)
    if row is None:
        book.entry = None
    else:
        change(row)
        row["updated"] = now
        book.changed[name] = row
    book.save()
    return (None if row is None else balance(name, row)), tuple(book.expiries)


def reset(
    rows: Rows, name: str, now: Milliseconds, *, entry: Entry | None = None
) -> tuple[Balance | None, tuple[Expiry, ...]]:
    """Set what an account has spent to nothing; holds under way stay held.

    Returns the balance, None if the account does not exist, and the holds found expired on the way.
    """
    return _changed(rows, name, now, clear_spend, entry)


def delete(
    rows: Rows, name: str, now: Milliseconds, *, entry: Entry | None = None
) -> tuple[bool, tuple[Expiry, ...]]:
    """Forget an account: holds under way stay with their other accounts, or are charged to nobody.

    Returns whether it existed, and the holds found expired on the way.
    """
    book = _Book(rows, now, entry=entry)
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
    """Return whether time may have changed an account since it was stored.

    A window or a grant has ended, a hold expired, or a part of a rolling window has fallen out.
    """
    end = row["end"]
    if row["due"] <= now or (end is not None and end <= now):
        return True
    return bool(row["grants"]) and any(grant["until"] <= now for grant in row["grants"])


class _Book:
    """The rows that one verb has touched, brought up to the present as they are loaded.

    Attributes:
        accounts: those loaded or made, None where there is none.
        changed, changed_holds: the rows that `save` stores.
        expiries: holds found expired on the way.
        entry: of the audit trail, that `save` adds.
    """

    __slots__ = ("_current", "_holds", "_now", "_rows", "_sparing", "accounts", "changed", "changed_holds",
                 "entry", "expiries")  # fmt: skip

    def __init__(
        self, rows: Rows, now: Milliseconds, *, sparing: str | None = None, entry: Entry | None = None
    ) -> None:
        self._rows = rows
        self._now = now
        self._sparing = sparing  # the hold being settled must not expire under its own settlement
        self._current: set[str] = set()
        self._holds: dict[str, HoldRow | None] = {}
        self.accounts: dict[str, AccountRow | None] = {}
        self.changed: dict[str, AccountRow] = {}
        self.changed_holds: dict[str, HoldRow] = {}
        self.expiries: list[Expiry] = []
        self.entry = entry

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
        if self.entry is not None:
            self._rows.add_entry(self.entry)

    def _roll(self, row: AccountRow) -> None:
        now, end = self._now, row["end"]
        # Only ever forward: a clock that jumps back must not bring a finished window back.
        if end is not None and now >= end:
            if row["parts"] is None:
                next_window(row, end, now)
                end_grants(row, now)
            else:
                end_grants(row, now)
                drop_parts(row, row["parts"], now)
        else:
            end_grants(row, now)

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
        hold["units"] = {
            unit: [held, on_expiry, on_expiry] for unit, (held, on_expiry, _) in hold["units"].items()
        }
        self.changed_holds[hold_id] = hold
        for name, window in hold["accounts"].items():
            # As stored: bringing that account up to date here would meet this hold half expired.
            if name not in self.accounts:
                self.accounts[name] = self._rows.load_account(name)
            account = self.accounts[name]
            if account is None:
                continue
            unit = unit_of(name)
            release(account, held_of(hold, unit), window)
            if account["window"] == window:  # if that is over by now, what is booked goes with it
                begin_part(account, self._now)
                book_cost(account, account["epoch"], hold["model"], on_expiry_of(hold, unit), expiries=1)
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
        "units": {unit: [*counts, 0] for unit, counts in hold.units.items()} if hold.units else {},
        "labels": dict(hold.labels),
        "shadowed": [],
    }


def _cross(name: str, account: AccountRow, limit: Nanos, thresholds: Iterable[int]) -> list[Crossing]:
    """Store and return the thresholds that an account has reached first."""
    spent, crossed = account["spent"] * 100, account["crossed"]
    found: list[Crossing] = []
    for percent in thresholds:
        if spent >= percent * limit and percent not in crossed:
            crossed.append(percent)
            found.append(Crossing(name, percent, balance(name, account)))
    return found
