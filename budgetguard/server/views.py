"""Views: what LiteLLM's clients report, turned into what is to be booked.

Such a client keeps each user's record itself, adds what its calls cost, and sends all records in full at each
change: `current_cost` is the sum that *this client* knows of. What the sum has grown by since the last report
is booked. So the service must know whose sum it is. A client is identified, for each user, by

1. its API key;
2. `view`, a field that `/get_budget` puts into every record and that clients send back with it;
3. where `create_budget` has replaced that record: its `created_at`, which is when LiteLLM was imported (only
   records with a duration have one), and a cookie (LiteLLM 1.106 keeps none; older ones, and others, do);
4. `last_updated_at`, which only `reset_on_duration` changes, when it sets the sum to nothing.

Together they name a view. What it has reported so far is the spend of an account of its own, `view:…`: each
increment is one settlement that charges user and view alike, in one transaction of the store, so no other
state is needed and a crash loses nothing. The settlement's hold id is made from the state of that account
(what was reported before, and when). A store counts a hold id once, so of two requests that find the same
state, on whatever servers, one books and the other reads again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.core.accounts import PROJECT, USER, Balance, Budget, account_name
from budgetguard.core.holds import VOID, Booked, Charge, Hold, Settlement, derived_id, new_hold
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.errors import StoreError
from budgetguard.server.requests import VIEW
from budgetguard.stores.base import Store

UNKNOWN_MODEL: Final = "unknown"
LATE: Final[Milliseconds] = 60_000
"""How long after a sum a smaller one may still be an older request that came late."""

# Records are dated by the view's last report, which all servers that book next agree on, if it is at most
# this old. Servers' clocks must agree with the store's to within this.
_DATED: Final[Milliseconds] = 600_000
_STARTS: Final = 8
_TRIES: Final = 100
_REMEMBERED: Final = 200_000
_HANDED_EACH: Final = 8 * 2**20  # bytes of one project's records
_HANDED_TOTAL: Final = 64 * 2**20
_OVERHEAD: Final = 500
_ENDPOINT: Final = "set_budget"


@dataclass(frozen=True, slots=True)
class ViewReport:
    """What one client has sent of one user.

    Attributes:
        user: whose record.
        view: names the client's view of the user; see above.
        since: when that client was first identified.
        base: Nanos that its sum started from.
        base_models: those of each model.
        cost: Nanos that its sum has come to.
        models: those of each model.
    """

    user: str
    view: str
    since: Milliseconds
    base: Nanos
    base_models: Mapping[str, Nanos]
    cost: Nanos
    models: Mapping[str, Nanos]


class Views:
    """The views of one project: they book what clients report.

    Args:
        store: the project's.
        clock: this machine's time, good enough to date records.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def is_known(self, view: str) -> bool:
        """Return whether a view has reported before."""
        return self._store.read(account_of(view)) is not None

    def open(self, report: ViewReport) -> None:
        """Record that a view exists and has reported nothing."""
        self._touch(account_of(report.view), None, report)

    def post(self, report: ViewReport, *, may_lower: bool) -> bool:
        """Book what a report adds.

        Args:
            report: what was sent.
            may_lower: a client that has reset its sum resets the user's spend, too.

        Returns:
            Whether all of the report is booked, so that the same one can be skipped.

        Raises:
            StoreError: the store failed, or other requests book on this view all the time.
        """
        lost, is_dated = 0, False
        while lost < _TRIES:
            starts = list(self._starts(report))
            index = self._continued(report, starts)
            if index is None:
                return report.cost == report.base and not starts
            account = account_of(report.view, index)
            if index == len(starts):
                is_first = self._touch(account, None, report)
                if is_first and may_lower and index and report.cost < report.base:
                    self._store.reset(account_name(USER, report.user))
                continue
            balance = starts[index]
            added = report.cost - _total(report, index, balance)
            if not added:
                return True
            if not is_dated and self._clock() - balance.updated_ms >= _DATED:
                self._touch(account, balance, report)
                is_dated = True  # by the store's clock, whatever this one says
                continue
            model, cost = _next_of(report, index, balance, added)
            lost += not self._book(account, balance, report, model, cost)
        raise StoreError(f"user {report.user!r}: others report the same sum all the time; send it again")

    def _starts(self, report: ViewReport) -> Iterator[Balance]:
        for index in range(_STARTS):
            balance = self._store.read(account_of(report.view, index))
            if balance is None:
                return
            yield balance

    def _continued(self, report: ViewReport, starts: list[Balance]) -> int | None:
        """Return which of a view's sums a report continues, the next number for a new one, None for none.

        A view has one sum, until it reports a smaller one. That may be a request that came late (LiteLLM
        sends each from a thread of its own), or a sum that was started anew (`reset_cost`, or another client
        that looks the same). Below what the client was handed it is certainly the second; else it counts as
        the second if the view has been silent for `LATE`. Sums are kept side by side, and a report continues
        the nearest that is not larger.
        """
        if not starts:
            return None if report.cost == report.base else 0
        sums = [(_total(report, index, one), index) for index, one in enumerate(starts)]
        fitting = [one for one in sums if one[0] <= report.cost]
        if fitting:
            return max(fitting)[1]
        heard = max(one.updated_ms for one in starts)
        is_anew = report.cost < report.base or (report.cost > 0 and self._clock() - heard > LATE)
        return len(starts) if is_anew and len(starts) < _STARTS else None

    def _touch(self, account: str, balance: Balance | None, report: ViewReport) -> bool:
        """Set the time of a view's last report to now; return whether this request did it."""
        return self._settle(_hold(account, balance, report, "", (_view(account),)), VOID)

    def _book(self, account: str, balance: Balance, report: ViewReport, model: str, cost: Nanos) -> bool:
        charges = (
            _view(account),
            Charge(account_name(USER, report.user)),
            Charge(account_name(PROJECT, self._store.project)),
        )
        hold = _hold(account, balance, report, model, charges)
        return self._settle(hold, Settlement(cost, outcome="posted"))

    def _settle(self, hold: Hold, settlement: Settlement) -> bool:
        """Return whether this settlement counted, and none that was sent before."""
        answer = self._store.settle(hold, settlement)
        return isinstance(answer, Booked) and not answer.repeated


class Recent:
    """The latest of many things that were done, so that they need not be done again.

    Those that are forgotten cost time, never money.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[object, None] = OrderedDict()

    def __contains__(self, name: object) -> bool:
        """Return whether something was added lately."""
        with self._lock:
            return name in self._known

    def add(self, name: object) -> None:
        """Add something; the oldest is forgotten if there are too many."""
        with self._lock:
            self._known[name] = None
            self._known.move_to_end(name)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


class Handed:
    """Records that /get_budget has handed out, for clients that drop the view that they were given.

    They are remembered by project, user and `last_updated_at`, as long as there is room: by bytes, as a
    record may have many models, and for each project apart, so that who reads much makes no other forget.
    """

    def __init__(self, each: int = _HANDED_EACH, total: int = _HANDED_TOTAL) -> None:
        self._each = each
        self._total = total
        self._lock = threading.Lock()
        self._size = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._projects: dict[str, OrderedDict[tuple[str, object], bytes]] = {}

    def get(self, project: str, user: str, updated: object) -> dict[str, Any] | None:
        """Return a record, if it is remembered."""
        with self._lock:
            here = self._projects.get(project)
            found = None if here is None else here.get((user, updated))
        record: dict[str, Any] | None = None if found is None else json.loads(found)
        return record

    def put(self, project: str, user: str, updated: object, record: dict[str, Any]) -> None:
        """Remember a record, and forget the oldest of the project's, and the project read longest ago."""
        text = json.dumps(record, separators=(",", ":")).encode()
        with self._lock:
            here = self._projects.setdefault(project, OrderedDict())
            before = here.pop((user, updated), None)
            self._grow(project, len(text) + _OVERHEAD if before is None else len(text) - len(before))
            here[user, updated] = text
            while self._sizes[project] > self._each:
                _, gone = here.popitem(last=False)
                self._grow(project, -len(gone) - _OVERHEAD)
            while self._size > self._total:
                longest_ago, size = self._sizes.popitem(last=False)
                del self._projects[longest_ago]
                self._size -= size

    def _grow(self, project: str, size: int) -> None:
        self._sizes[project] = self._sizes.get(project, 0) + size
        self._sizes.move_to_end(project)
        self._size += size


def view_id(*parts: object) -> str:
    """Return the name of a view from what identifies it."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def account_of(view: str, index: int = 0) -> str:
    """Return the account that keeps what a view has reported, or its sum of that number."""
    return account_name(VIEW, f"{view}.{index}" if index else view)


def _view(account: str) -> Charge:
    return Charge(account, budget=Budget(None), ephemeral=True)


def _total(report: ViewReport, index: int, balance: Balance) -> Nanos:
    return balance.spent_nanos + (report.base if index == 0 else 0)


def _next_of(report: ViewReport, index: int, balance: Balance, added: Nanos) -> tuple[str, Nanos]:
    """Return one model and its part of the increment; what no model explains belongs to `unknown`."""
    for model in sorted(report.models):
        base = report.base_models.get(model, 0) if index == 0 else 0
        grown = report.models[model] - base - balance.models.get(model, 0)
        if grown > 0:
            return model, min(grown, added)
    if report.models and added <= len(report.models):  # each was rounded on its own
        return max(report.models, key=lambda model: report.models[model]), added
    return UNKNOWN_MODEL, added


def _hold(
    account: str, balance: Balance | None, report: ViewReport, model: str, charges: tuple[Charge, ...]
) -> Hold:
    """Return the only hold with which a view's account may leave its present state."""
    when = report.since if balance is None else balance.updated_ms
    state = f"{account} {when} {'new' if balance is None else balance.spent_nanos}"
    return new_hold(
        when, charges, user=report.user, model=model, endpoint=_ENDPOINT, ident=derived_id(when, state)
    )
