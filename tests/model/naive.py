"""The laws once more, as a list of events and sums over it.

Shares no code and no idea with the ledger: no counters are kept, nothing is rolled over. What stands on
an account is worked out anew from everything that ever happened, as an auditor would. Slow, and obvious.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Hold, Settlement

LENGTHS = {"hourly": 3_600_000, "daily": 86_400_000}


@dataclass
class Life:
    """One life of an account, from its making to its deletion."""

    name: str
    made: int
    budgets: list[tuple[int, int, Budget]] = field(default_factory=list)  # (event, time, budget)
    pins: list[tuple[int, int | None]] = field(default_factory=list)  # (event, limit)
    looked: list[tuple[int, int]] = field(default_factory=list)  # (event, time)
    resets: list[int] = field(default_factory=list)
    announced: list[tuple[int, int]] = field(default_factory=list)  # (event, percent)
    deleted: int | None = None

    def limit(self) -> int | None:
        changes = [*self.pins, *((event, budget.limit) for event, _, budget in self.budgets)]
        return max(changes, key=lambda change: change[0])[1]

    def window(self) -> tuple[int, int, int | None]:
        """Return the event at which the present window was entered, its start and its end."""
        looked = [(event, time, None) for event, time in self.looked]
        moments = sorted([*self.budgets, *looked], key=lambda moment: moment[0])
        entered, start, end, anchor, duration = self.made, 0, None, 0, None
        for number, (event, time, budget) in enumerate(moments):
            if budget is not None:
                if number == 0 or budget.duration != duration:
                    anchor = time
                if budget.starts_at is not None:
                    anchor = budget.starts_at
                duration = budget.duration
                # A clock that went back does not lead back out of the window.
                start, end = _span(duration, anchor, time if number == 0 else max(time, start))
            elif end is not None and time >= end:
                entered = event
                start, end = _span(duration, anchor, time)
        return entered, start, end

    def sum_from(self) -> int:
        """Return the event since which spend counts."""
        return max([self.window()[0], *self.resets])


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
    expired: int | None = None
    ended: int | None = None
    cost: int = 0
    state: str = "held"

    def open(self) -> bool:
        return self.expired is None and self.ended is None


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


class Model:
    def __init__(self) -> None:
        self._events = count(1)
        self._lives: dict[str, Life] = {}
        self.calls: dict[str, Call] = {}

    # Looking: what time has brought about is seen, and stays seen

    def look(self, time: int, sparing: str | None = None) -> None:
        event = next(self._events)
        for life in self._lives.values():
            life.looked.append((event, time))
        for call in self.calls.values():
            if call.open() and call.expires <= time and call.hold.id != sparing:
                call.expired = event

    def expired_ever(self) -> set[str]:
        return {i for i, call in self.calls.items() if call.expired is not None}

    def accounts(self) -> list[str]:
        return sorted(self._lives)

    def standing(self, name: str) -> Standing | None:
        life = self._lives.get(name)
        if life is None:
            return None
        entered, start, end = life.window()
        since = life.sum_from()
        mine = [call for call in self.calls.values() if life in call.lives]
        here = [call for call in mine if call.granted >= entered]
        paid = [(c.hold.model, c.cost) for c in here if c.ended is not None and c.ended >= since and c.cost]
        lost = [c for c in here if c.ended is None and c.expired is not None and c.expired >= since]
        paid += [(c.hold.model, c.hold.on_expiry) for c in lost if c.hold.on_expiry]
        return Standing(
            limit=life.limit(),
            spent=sum(cost for _, cost in paid),
            held=sum(c.hold.amount for c in here if c.open()),
            expired=sum(c.hold.on_expiry for c in lost),
            expiries=len(lost),
            open_holds=sum(c.open() for c in mine),
            models=tuple(sorted((m, sum(c for k, c in paid if k == m)) for m in {k for k, _ in paid})),
            start=start,
            end=end,
        )

    def record(self, hold_id: str) -> tuple[str, int, tuple[str, ...]]:
        call = self.calls[hold_id]
        live = tuple(life.name for life in call.lives if not self._let_go(life, call))
        if call.ended is not None:
            return call.state, call.cost, live
        return ("held", 0, live) if call.expired is None else ("expired", call.hold.on_expiry, live)

    def _let_go(self, life: Life, call: Call) -> bool:
        """An account that was deleted while the hold was open is none of its accounts any more."""
        last = call.expired or call.ended
        return life.deleted is not None and (last is None or life.deleted < last)

    # Verbs

    def set_budget(self, name: str, budget: Budget, time: int) -> None:
        self.look(time)
        event = next(self._events)
        life = self._lives.setdefault(name, Life(name, event))
        life.budgets.append((event, time, budget))

    def delete(self, name: str, time: int) -> bool:
        self.look(time)
        life = self._lives.pop(name, None)
        if life is not None:
            life.deleted = next(self._events)
        return life is not None

    def reset(self, name: str, time: int) -> bool:
        self.look(time)
        if name not in self._lives:
            return False
        self._lives[name].resets.append(next(self._events))
        return True

    def reserve(self, hold: Hold, time: int) -> str:
        """Return `repeated`, `granted`, `unlimited`, `unknown ACCOUNT` or `refused ACCOUNT`."""
        if hold.id in self.calls:
            return "repeated"
        self.look(time)
        charged: dict[str, int | None] = {}
        for charge in hold.charges:
            life = self._lives.get(charge.account)
            if charge.account in charged or life is not None:
                if charge.pinned and charge.budget is not None:
                    charged[charge.account] = charge.budget.limit
                elif life is not None:
                    charged.setdefault(charge.account, life.limit())
            elif charge.budget is not None:
                charged[charge.account] = charge.budget.limit
            elif charge.required:
                return f"unknown {charge.account}"
        if not charged:
            return "unlimited"
        for name, limit in charged.items():
            now = self.standing(name)
            taken = now.spent + now.held if now else 0
            if hold.amount and limit is not None and taken + hold.amount > limit:
                return f"refused {name}"
        event = next(self._events)
        for charge in hold.charges:
            if charge.account not in charged or charge.budget is None:
                continue
            life = self._lives.get(charge.account)
            if life is None:
                self._lives[charge.account] = Life(charge.account, event, [(event, time, charge.budget)])
            elif charge.pinned:
                life.pins.append((next(self._events), charge.budget.limit))
        lives = [self._lives[name] for name in charged]
        self.calls[hold.id] = Call(hold, lives, event, time + hold.ttl)
        return "granted"

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
            event = next(self._events)
            for charge in hold.charges:
                if charge.account not in self._lives and charge.budget is not None:
                    self._lives[charge.account] = Life(charge.account, event, [(event, time, charge.budget)])
            call = Call(hold, [self._lives[name] for name in names], event, time + hold.ttl)
            self.calls[hold.id] = call
        late = call.expired is not None
        call.ended, call.cost, call.state = next(self._events), settlement.cost, settlement.state
        crossed = set()
        for life in call.lives:
            now = self.standing(life.name)
            if self._lives.get(life.name) is not life or now is None or not now.limit:
                continue
            if call.granted < life.window()[0]:
                continue
            for percent in settlement.thresholds:
                told = [p for event, p in life.announced if event >= life.sum_from()]
                if now.spent * 100 >= percent * now.limit and percent not in told:
                    life.announced.append((call.ended, percent))
                    crossed.add((life.name, percent))
        return ("late" if late else "booked"), crossed
