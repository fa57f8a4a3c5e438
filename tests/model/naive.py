"""The laws once more, as a list of events and sums over it.

Shares no code and no idea with the ledger: no counters are kept, nothing is rolled over or dropped. What
stands on an account is worked out anew from everything that ever happened, as an auditor would. Slow, and
obvious.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Hold, Settlement

HOUR = 3_600_000
DAY = 24 * HOUR
LENGTHS = {"hourly": HOUR, "daily": DAY}
MOST = 2**53 - 1
MOST_OF_A_SUM = 2**60
EVER = 2**62


def unit_of(account: str) -> str:
    """Return what an account counts, by its name."""
    return account.partition("@unit=")[2].partition("&")[0] or "usd"


class Raise(NamedTuple):
    """A raise of a limit: when it was given, and what takes it back before it ends."""

    event: int
    id: str
    amount: int
    until: int


class Text(NamedTuple):
    """The rules and labels of an account; each state of them has a number of its own, 0 is nothing."""

    number: int
    rules: str
    labels: str


NOTHING = Text(0, "", "")


@dataclass
class Life:
    """One life of an account, from its making to its deletion."""

    name: str
    made: int
    budgets: list[tuple[int, int, Budget]] = field(default_factory=list)  # (event, time, budget)
    pins: list[tuple[int, int | None]] = field(default_factory=list)  # (event, limit)
    raises: list[Raise] = field(default_factory=list)
    looked: list[int] = field(default_factory=list)  # events at which time was looked at,
    times: list[int] = field(default_factory=list)  # and what it was
    resets: list[int] = field(default_factory=list)
    falls: list[tuple[int, int]] = field(default_factory=list)  # (event, when what it booked falls out)
    announced: list[tuple[int, int]] = field(default_factory=list)  # (event, percent, or a mark)
    texts: list[Text] = field(default_factory=lambda: [NOTHING])
    calls: list[Call] = field(default_factory=list)  # that are charged to it
    deleted: int | None = None

    @property
    def unit(self) -> str:
        return unit_of(self.name)

    @property
    def rolls(self) -> bool:
        return self.budgets[0][2].rolling

    def saw(self, time: int, after: int, until: int) -> bool:
        """Return whether anybody looked at this time or later, after one event and until another."""
        first, last = bisect_right(self.looked, after), bisect_right(self.looked, until)
        return max(self.times[first:last], default=time - 1) >= time

    def own_limit(self, by: int) -> int | None:
        """Return the budget's limit as of an event, with what raised it for good."""
        changes = [*self.pins, *((event, budget.limit) for event, _, budget in self.budgets)]
        set_at, limit = max(change for change in changes if change[0] <= by)
        if limit is None:
            return None
        raised = [one.amount for one in self.raises if one.until == EVER and set_at < one.event <= by]
        return min(limit + sum(raised), max(limit, MOST))


def _span(duration: str | None, anchor: int, time: int) -> tuple[int, int | None]:
    if duration is None:
        return min(anchor, time), None
    length = LENGTHS[duration]
    start = anchor
    while start > time:
        start -= length
    while start + length <= time:
        start += length
    return start, start + length


@dataclass
class Call:
    """One hold and what became of it."""

    hold: Hold
    lives: list[Life]
    granted: int
    expires: int
    shadowed: tuple[str, ...] = ()
    expired: int | None = None
    ended: int | None = None
    settlement: Settlement | None = None

    def open(self, by: int | None = None) -> bool:
        """Return whether it was under way as of an event."""
        return all(end is None or (by is not None and end > by) for end in (self.expired, self.ended))

    def aside(self, unit: str) -> int:
        return self.hold.amount if unit == "usd" else self.hold.units.get(unit, (0, 0))[0]

    def if_lost(self, unit: str) -> int:
        return self.hold.on_expiry if unit == "usd" else self.hold.units.get(unit, (0, 0))[1]

    def cost(self, unit: str) -> int:
        assert self.settlement is not None
        if unit == "usd":
            return self.settlement.cost
        if self.settlement.state == "voided" or unit not in self.hold.units:
            return 0
        return self.settlement.units.get(unit, self.if_lost(unit))


class Booking(NamedTuple):
    """What a call comes to on an account, as of some event."""

    event: int
    model: str
    amount: int
    lost: bool


class Window(NamedTuple):
    """A window: the event at which it was entered, its start and its end, and what was carried into it."""

    entered: int
    start: int
    end: int | None
    carried: tuple[Raise, ...] = ()


@dataclass(frozen=True)
class Standing:
    limit: int | None
    spent: int
    held: int
    expired: int
    expiries: int
    open_holds: int
    models: tuple[tuple[str, int], ...]
    start: int
    end: int | None
    grants: tuple[tuple[str, int, int], ...] = ()
    rolling: bool = False
    frees: tuple[tuple[int, int], ...] = ()
    rollover: int = 0
    text: Text = NOTHING


class Record(NamedTuple):
    """What is recorded of a call: for each unit what was set aside, lost at most, and booked."""

    state: str
    cost: int
    accounts: tuple[str, ...]
    units: tuple[tuple[str, tuple[int, ...]], ...] = ()
    shadowed: tuple[str, ...] = ()


class Model:
    def __init__(self) -> None:
        self._events = count(1)
        self._numbers = count(1)
        self._lives: dict[str, Life] = {}
        self.calls: dict[str, Call] = {}
        self.scopes: tuple[int, str] = (0, "")
        self.trail: dict[str, str] = {}

    # Looking: what time has brought about is seen, and stays seen

    def look(self, time: int, sparing: str | None = None) -> None:
        event = next(self._events)
        for life in self._lives.values():
            life.looked.append(event)
            life.times.append(time)
        for call in self.calls.values():
            if call.open() and call.expires <= time and call.hold.id != sparing:
                call.expired = event
                for life in call.lives:
                    if life.rolls:
                        self._book(life, event, time)

    def expired_ever(self) -> set[str]:
        return {i for i, call in self.calls.items() if call.expired is not None}

    def accounts(self) -> list[str]:
        return sorted(self._lives)

    def text(self, name: str) -> Text:
        """Return the rules and labels of an account, which need not exist."""
        return self._lives[name].texts[-1] if name in self._lives else NOTHING

    # What an account comes to, as of an event

    def _bookings(self, life: Life, since: int, entered: int, by: int) -> list[Booking]:
        """Return what counts as of an event: of calls granted in the window, booked since it or a reset."""
        found = []
        for call in life.calls:
            if not entered <= call.granted <= by:
                continue
            if call.ended is not None and call.ended <= by:
                found.append(Booking(call.ended, call.hold.model, call.cost(life.unit), False))
            elif call.expired is not None and call.expired <= by:
                found.append(Booking(call.expired, call.hold.model, call.if_lost(life.unit), True))
        return [booking for booking in found if booking.event >= since]

    def _held(self, life: Life, entered: int, by: int) -> int:
        mine = [call for call in life.calls if entered <= call.granted <= by]
        return sum(call.aside(life.unit) for call in mine if call.open(by))

    def _windows(self, life: Life, by: int) -> list[Window]:
        """Return the windows that were seen as of an event."""
        looked = [(event, time, None) for event, time in zip(life.looked, life.times, strict=True)]
        moments = sorted([*life.budgets, *looked], key=lambda moment: moment[0])
        windows: list[Window] = []
        anchor, duration, rollover = 0, None, 0
        for event, time, budget in moments:
            if event > by:
                break
            if budget is not None:
                rollover = budget.rollover
                if life.rolls:
                    if not windows:
                        windows.append(Window(life.made, time, None))
                    continue
                if not windows or budget.duration != duration:
                    anchor = time
                if budget.starts_at is not None:
                    anchor = budget.starts_at
                duration = budget.duration
                if not windows:
                    windows.append(Window(life.made, *_span(duration, anchor, time)))
                    continue
                # A clock that went back does not lead back out of the window.
                last = windows[-1]
                start, end = _span(duration, anchor, max(time, last.start))
                windows[-1] = Window(last.entered, start, end, last.carried)
                continue
            last = windows[-1] if windows else None
            if last is None or last.end is None or time < last.end:
                continue
            start, end = _span(duration, anchor, time)
            carried = last.carried
            limit = life.own_limit(event)
            if rollover and limit is not None and duration is not None and end is not None:
                left = self._left_over(life, last, limit, event)
                left += limit * ((start - last.end) // LENGTHS[duration])
                left = min(left, rollover)
                carried = (Raise(event, "rollover", left, end),) if left else ()
            windows.append(Window(event, start, end, carried))
        return windows

    def _left_over(self, life: Life, window: Window, limit: int, by: int) -> int:
        """Return what a window that was seen to end has left of its budget, and of what was left to it."""
        assert window.end is not None
        since = max([window.entered, *(reset for reset in life.resets if reset <= by)])
        spent = sum(booking.amount for booking in self._bookings(life, since, window.entered, by))
        carried = sum(
            one.amount
            for one in window.carried
            if one.until >= window.end and not life.saw(one.until, one.event, by - 1)
        )
        return max(0, limit + carried - spent - self._held(life, window.entered, by))

    def _raises(self, life: Life, window: Window, by: int) -> list[Raise]:
        """Return the raises in force as of an event, in the order in which they came."""
        given = [one for one in life.raises if one.event <= by and one.until != EVER]
        given += window.carried
        return sorted(one for one in given if not life.saw(one.until, one.event, by))

    def _book(self, life: Life, event: int, time: int) -> None:
        """Write down when what is booked on a rolling account falls out.

        After the duration, counted from the end of the sixtieth of it in which it is booked; and no earlier
        than what was booked before and is still there.
        """
        length = LENGTHS[life.budgets[0][2].duration or ""]
        part = length // 60
        there = [at for booked, at in life.falls if self._is_there(life, booked, at, event)]
        life.falls.append((event, max([(time // part + 1) * part + length, *there])))

    def _is_there(self, life: Life, booked: int, until: int, by: int) -> bool:
        """Return whether what was booked is still in a rolling window: neither reset nor seen to fall out."""
        return not any(booked < reset <= by for reset in life.resets) and not life.saw(until, booked, by)

    def _standing(self, life: Life, by: int) -> Standing:
        window = self._windows(life, by)[-1]
        since = max([window.entered, *(reset for reset in life.resets if reset <= by)])
        bookings = self._bookings(life, since, window.entered, by)
        end, frees = window.end, ()
        if life.rolls:
            falls = {e: at for e, at in life.falls if e <= by and self._is_there(life, e, at, by)}
            end = min(falls.values(), default=None)
            bookings = [booking for booking in bookings if booking.event in falls]
            sums = {
                at: sum(one.amount for one in bookings if falls[one.event] == at) for at in falls.values()
            }
            frees = tuple(sorted((at, amount) for at, amount in sums.items() if amount))
        raises = self._raises(life, window, by)
        limit = life.own_limit(by)
        if limit is not None:
            limit = min(limit + sum(one.amount for one in raises), MOST_OF_A_SUM)
        models = {booking.model for booking in bookings if booking.amount}
        lost = [booking.amount for booking in bookings if booking.lost]
        return Standing(
            limit=limit,
            spent=sum(booking.amount for booking in bookings),
            held=self._held(life, window.entered, by),
            expired=sum(lost),
            expiries=len(lost),
            open_holds=sum(call.open(by) for call in life.calls if call.granted <= by),
            models=tuple(sorted((m, sum(b.amount for b in bookings if b.model == m)) for m in models)),
            start=window.start,
            end=end,
            grants=tuple((one.id, one.amount, one.until) for one in raises if one.amount),
            rolling=life.rolls,
            frees=frees,
            rollover=life.budgets[-1][2].rollover,
            text=life.texts[-1],
        )

    def _noted(self, life: Life, by: int) -> set[int]:
        """Return the thresholds and marks that are noted of the present window, as of an event."""
        entered = {window.entered for window in self._windows(life, by)}
        looked = dict(zip(life.looked, life.times, strict=True))
        noted: set[int] = set()
        for event in range(life.made, by + 1):
            if event in entered or event in life.resets:
                noted = set()
            if noted and life.rolls and (time := looked.get(event)) is not None:
                over = [(e, at) for e, at in life.falls if e < event and at <= time]
                if any(self._is_there(life, e, at, event - 1) for e, at in over):
                    # Some fell out just then: what is still reached stays noted.
                    now = self._standing(life, event)
                    limit = now.limit or MOST_OF_A_SUM
                    noted = {n for n in noted if (now.spent * 100 >= n * limit if n > 0 else now.end)}
            noted |= {number for told, number in life.announced if told == event}
        return noted

    def standing(self, name: str) -> Standing | None:
        life = self._lives.get(name)
        return None if life is None else self._standing(life, next(self._events))

    def record(self, hold_id: str) -> Record:
        call = self.calls[hold_id]
        live = tuple(life.name for life in call.lives if not self._let_go(life, call))
        if call.settlement is not None:
            state, booked = call.settlement.state, call.cost
        elif call.expired is not None:
            state, booked = "expired", call.if_lost
        else:
            state, booked = "held", lambda unit: 0
        units = (
            (unit, (call.aside(unit), call.if_lost(unit), booked(unit))) for unit in sorted(call.hold.units)
        )
        return Record(state, booked("usd"), live, tuple(units), call.shadowed)

    def _let_go(self, life: Life, call: Call) -> bool:
        """An account that was deleted while the hold was open is none of its accounts any more."""
        last = call.expired or call.ended
        return life.deleted is not None and (last is None or life.deleted < last)

    # Verbs

    def set_budget(self, name: str, budget: Budget, time: int, entry: tuple[str, str] | None = None) -> None:
        self.look(time)
        self._change_budget(name, budget, time)
        self._note(entry)

    def _change_budget(self, name: str, budget: Budget, time: int) -> None:
        event = next(self._events)
        life = self._lives.setdefault(name, Life(name, event))
        life.budgets.append((event, time, budget))
        self._write(life, budget.rules, life.texts[-1].labels)

    def _write(self, life: Life, rules: str, labels: str) -> None:
        if (rules, labels) != life.texts[-1][1:]:
            life.texts.append(Text(next(self._numbers) if rules or labels else 0, rules, labels))

    def _note(self, entry: tuple[str, str] | None) -> None:
        if entry is not None:
            self.trail.setdefault(*entry)

    def set_labels(self, name: str, labels: str, time: int, entry: tuple[str, str] | None = None) -> bool:
        self.look(time)
        if name not in self._lives:
            return False
        self._write(self._lives[name], self._lives[name].texts[-1].rules, labels)
        self._note(entry)
        return True

    def grant(
        self, name: str, ident: str, amount: int, until: int | None, time: int,
        entry: tuple[str, str] | None = None,
    ) -> bool:  # fmt: skip
        self.look(time)
        life = self._lives.get(name)
        if life is None:
            return False
        event = next(self._events)
        known = {one.id for one in self._raises(life, self._windows(life, event)[-1], event)}
        if life.own_limit(event) is not None and ident not in known:
            if until is None:
                life.raises.append(Raise(event, ident, amount, EVER))
                life.raises.append(Raise(event, ident, 0, time + DAY))  # so long its id is remembered
            elif until > time:
                life.raises.append(Raise(event, ident, amount, until))
        self._note(entry)
        return True

    def mark(self, name: str, number: int, time: int) -> bool:
        self.look(time)
        life = self._lives.get(name)
        event = next(self._events)
        if life is None or number in self._noted(life, event):
            return False
        life.announced.append((event, number))
        return True

    def save_scopes(self, scopes: tuple[int, str], seen: int, entry: tuple[str, str] | None = None) -> bool:
        if self.scopes[0] != seen:
            return False
        self.scopes = scopes
        self._note(entry)
        return True

    def delete(self, name: str, time: int, entry: tuple[str, str] | None = None) -> bool:
        self.look(time)
        life = self._lives.pop(name, None)
        if life is None:
            return False
        life.deleted = next(self._events)
        self._note(entry)
        return True

    def reset(self, name: str, time: int, entry: tuple[str, str] | None = None) -> bool:
        self.look(time)
        if name not in self._lives:
            return False
        self._lives[name].resets.append(next(self._events))
        self._note(entry)
        return True

    def reserve(self, hold: Hold, time: int) -> str:
        """Return `repeated`, `granted`, `granted but for ACCOUNTS`, `unlimited`, `unknown ACCOUNT`,
        `refused ACCOUNT`, or `outdated ACCOUNTS`, the project's scopes among them."""
        if hold.id in self.calls:
            return "repeated"
        self.look(time)
        charged: dict[str, int | None] = {}
        outdated: set[str] = set() if hold.scopes == self.scopes[0] else {"scopes"}
        unknown = None
        for charge in hold.charges:
            life = self._lives.get(charge.account)
            now = self.standing(charge.account)
            if charge.account not in charged and charge.revision != self.text(charge.account).number:
                outdated.add(charge.account)
            if charge.account in charged or life is not None:
                if charge.pinned and charge.budget is not None:
                    charged[charge.account] = charge.budget.limit
                elif now is not None:
                    charged.setdefault(charge.account, now.limit)
            elif charge.budget is not None:
                charged[charge.account] = charge.budget.limit
            elif charge.required:
                unknown = charge.account
                break
        if outdated:
            return f"outdated {' '.join(sorted(outdated))}"
        if unknown is not None:
            return f"unknown {unknown}"
        if not charged:
            return "unlimited"
        shadows = set()
        for charge in hold.charges:
            by_its_budget = charge.budget is not None and not charge.pinned and not charge.revision
            if charge.shadow and not (by_its_budget and charge.account in self._lives):
                shadows.add(charge.account)
        shadowed = []
        call = Call(hold, [], 0, time + hold.ttl)
        for name, limit in charged.items():
            now = self.standing(name)
            wanted = call.aside(unit_of(name))
            taken = now.spent + now.held if now else 0
            if wanted and limit is not None and taken + wanted > limit:
                if name not in shadows:
                    return f"refused {name}"
                shadowed.append(name)
        for charge in hold.charges:
            if charge.account not in charged or charge.budget is None:
                continue
            life = self._lives.get(charge.account)
            if life is None:
                self._change_budget(charge.account, charge.budget, time)
            elif charge.pinned:
                life.pins.append((next(self._events), charge.budget.limit))
        call.granted = next(self._events)
        call.lives = [self._lives[name] for name in charged]
        call.shadowed = tuple(shadowed)
        self._charge(call)
        return f"granted but for {' '.join(shadowed)}" if shadowed else "granted"

    def _charge(self, call: Call) -> None:
        self.calls[call.hold.id] = call
        for life in call.lives:
            life.calls.append(call)

    def settle(self, hold: Hold, settlement: Settlement, time: int) -> tuple[str, set[tuple[str, int]]]:
        """Return `repeated`, `booked`, `late` or `unknown ACCOUNT`, and the thresholds crossed."""
        call = self.calls.get(hold.id)
        if call is not None and call.ended is not None:
            return "repeated", set()
        self.look(time, sparing=hold.id)
        if call is None:
            known = set(self._lives)
            names: dict[str, None] = {}  # in the order in which they come to exist
            for charge in hold.charges:
                if charge.budget is not None:
                    known.add(charge.account)
                if charge.account in known:
                    names[charge.account] = None
                elif charge.required:
                    return f"unknown {charge.account}", set()
            for charge in hold.charges:
                if charge.account not in self._lives and charge.budget is not None:
                    self._change_budget(charge.account, charge.budget, time)
            call = Call(hold, [self._lives[name] for name in names], next(self._events), time + hold.ttl)
            self._charge(call)
        late = call.expired is not None
        call.ended, call.settlement = next(self._events), settlement
        for life in call.lives:
            if life.rolls and call.cost(life.unit):
                self._book(life, call.ended, time)
        crossed = set()
        for life in call.lives:
            if self._lives.get(life.name) is not life:
                continue
            now = self._standing(life, call.ended)
            if not now.limit or call.granted < self._windows(life, call.ended)[-1].entered:
                continue
            noted = self._noted(life, call.ended)
            for percent in settlement.thresholds:
                if now.spent * 100 >= percent * now.limit and percent not in noted:
                    life.announced.append((call.ended, percent))
                    crossed.add((life.name, percent))
        return ("late" if late else "booked"), crossed
