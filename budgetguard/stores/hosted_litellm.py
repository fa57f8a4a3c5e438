"""LiteLLM's hosted protocol, for a server that speaks no other: users' budgets, without holds.

Such a server keeps one object of all users and answers two requests: read it whole, replace it whole. So
every change here reads first, changes one user, and writes the others back as they were read. What another
client writes between that read and that write (one round trip) is overwritten, or overwrites this: the
protocol has no way to tell. Threads of one process wait for each other, so they lose nothing among them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import quote

from budgetguard.core.accounts import USER, Balance, Budget, Document, Grant, account_name, check_id
from budgetguard.core.holds import (
    Booked,
    Charge,
    Entry,
    Expiry,
    Hold,
    HoldRecord,
    Reservation,
    Settlement,
    UnknownAccount,
)
from budgetguard.core.money import MAX_NANOS, Nanos, to_nanos, to_usd
from budgetguard.core.process import store_verbs
from budgetguard.core.usage import Observations
from budgetguard.core.windows import Clock, Milliseconds, parse_duration, window_at
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores.base import DEFAULT_RETENTION
from budgetguard.stores.hosted import HostedStore
from budgetguard.stores.hosted_link import HostedLink
from budgetguard.stores.locks import Forkable, survive_forks
from budgetguard.stores.targets import service_target

_PROTOCOL: Final = "LiteLLM's hosted protocol, nor budgetguard's own"

_DAYS: Final = {"mo": 28, "y": 365}
"""Days that LiteLLM takes a month and a year for, and that its clients read the numbers back as."""


@store_verbs
class LiteLLMStore(Forkable):
    """The users' budgets of one project at a server of LiteLLM's hosted protocol.

    It has the verbs of a store for what `BudgetManager` does, and refuses the others: there are no holds,
    accounts are users' alone, a settlement counts as often as it is sent, and this side's clock counts.

    Args:
        link: to the server.
        url: of the server.
        project: whose users.
        clock: what tells the time.
    """

    blocking = True

    def __init__(self, link: HostedLink, url: str, project: str, clock: Clock) -> None:
        self.url = url
        self.project = check_id(project, name="project")
        self._link = link
        self._clock = clock
        self._lock = threading.RLock()
        survive_forks(self)

    def read(self, account: str) -> Balance | None:
        record = self._fetch().get(_user(account))
        return None if record is None else self._balance(account, record)

    def list(self, kind: str = "") -> Iterator[Balance]:
        if kind in ("", USER):
            for user, record in sorted(self._fetch().items()):
                yield self._balance(account_name(USER, user), record)

    def set_budget(
        self, account: str, budget: Budget, *, ephemeral: bool = False, entry: Entry | None = None
    ) -> Balance:
        user = _user(account)
        if user is None:
            self._refuse("budgets of users alone")
        if budget.rolling or budget.rollover or budget.rules:
            self._refuse("no rules of budgets, no rolling ones and no rollover")
        if budget.limit is None:
            self._refuse("no budget without a limit")
        days = self._days(budget)
        with self._users() as users:
            now = self._clock()
            start = (now if budget.starts_at is None else budget.starts_at) / 1000
            former = self._sound(account, users.get(user))
            kept = {} if former is None else self._rolled(former, now)
            record = {"created_at": start, "current_cost": 0, "model_cost": {}, **kept}
            if former is None or former.get("duration") != days or budget.starts_at is not None:
                record["last_updated_at"] = start
            record["total_budget"] = float(to_usd(budget.limit))
            record.pop("duration", None)
            if days is not None:
                record["duration"] = days
            users[user] = record
        return self._balance(account, record)

    def scopes(self) -> Document:
        return Document()

    def save_scopes(self, document: Document, seen: int, *, entry: Entry | None = None) -> bool:
        self._refuse("budgets of users alone")

    def mark(self, account: str, mark: int) -> bool:
        return False

    def grant(self, account: str, grant: Grant, *, entry: Entry | None = None) -> Balance | None:
        self._refuse("no raises that end")

    def set_labels(self, account: str, labels: str, *, entry: Entry | None = None) -> Balance | None:
        self._refuse("no labels of users")

    def trail(self, since: Milliseconds = 0) -> Iterator[Entry]:
        self._refuse("no audit trail")

    def reset(self, account: str, *, entry: Entry | None = None) -> Balance | None:
        user = _user(account)
        with self._users() as users:
            if user is None or user not in users:
                return None
            self._balance(account, users[user])
            record = {**self._rolled(users[user], self._clock()), "current_cost": 0, "model_cost": {}}
            users[user] = record
        return self._balance(account, record)

    def delete(self, account: str, *, entry: Entry | None = None) -> bool:
        with self._users() as users:
            return users.pop(_user(account), None) is not None

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        """Add a cost to its user's; the other accounts that it is charged to do not exist here."""
        with self._users() as users:
            for charge in hold.charges:
                user = _user(charge.account)
                record = users.get(user)
                if user is None or record is None:
                    if charge.required:
                        return UnknownAccount(charge.account)
                elif settlement.cost:
                    users[user] = self._charged(charge, record, hold.model, settlement.cost)
        return Booked(settlement.cost)

    def reserve(self, hold: Hold) -> Reservation:
        self._refuse("no holds, so no call can be guarded by it")

    def attach(self, hold_id: str, request_id: str) -> bool:
        return False

    def attached(self, request_id: str) -> HoldRecord | None:
        return None

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        return iter(())

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        self._refuse("no records of calls")

    def observations(self, model: str) -> Observations:
        return {}

    def on_expiry(self, hook: Callable[[Expiry], None]) -> None:
        """Do nothing: without holds there are no expiries."""

    def close(self) -> None:
        self._link.close()

    @contextmanager
    def _users(self) -> Iterator[dict[Any, Any]]:
        """Yield the records by user, and store them if the block changes any; one thread at a time."""
        with self._lock:
            users = self._fetch()
            before = dict(users)
            yield users
            if users != before:
                self._store(users)

    def _fetch(self) -> dict[Any, Any]:
        answer = self._link.ask("POST", "/get_budget", {"project_name": self.project})
        value = answer.value
        if isinstance(value, Mapping) and answer.status not in (401, 403):
            if value.get("status") == "error":
                return {}  # nothing is stored yet
            data = value.get("data")
            if value.get("status") == "success" and isinstance(data, dict):
                return data
        raise StoreError(self._link.explain_answer(answer, protocol=_PROTOCOL))

    def _store(self, users: Mapping[Any, Any]) -> None:
        body = {"project_name": self.project, "user_dict": users}
        # Sent twice, it would overwrite what others have written in between.
        answer = self._link.ask("POST", "/set_budget", body, repeat=False)
        if not isinstance(answer.value, Mapping) or answer.value.get("status") != "success":
            raise StoreError(self._link.explain_answer(answer, protocol=_PROTOCOL))

    def _sound(self, account: str, record: Any) -> Any:
        """Return a record if it can be read; else None, so that another takes its place."""
        try:
            if record is not None:
                self._balance(account, record)
        except StoreError:
            return None
        return record

    def _rolled(self, record: Any, now: Milliseconds) -> dict[str, Any]:
        """Return a record as of now: LiteLLM's clients only look at windows when they are told to."""
        days, anchor = _span(record)
        if days is None:
            return dict(record)
        window = window_at(f"{days}d", anchor, "UTC", now)
        if window.start <= anchor:
            return dict(record)
        fresh = {"current_cost": 0, "model_cost": {}, "last_updated_at": window.start / 1000}
        return {**record, **fresh}

    def _charged(self, charge: Charge, record: Any, model: str, cost: Nanos) -> dict[str, Any]:
        before = self._balance(charge.account, record)
        rolled = self._rolled(record, self._clock())
        models = {**before.models, model: min(before.models.get(model, 0) + cost, MAX_NANOS)}
        rolled["current_cost"] = float(to_usd(min(before.spent_nanos + cost, MAX_NANOS)))
        rolled["model_cost"] = {name: float(to_usd(spent)) for name, spent in models.items()}
        return rolled

    def _balance(self, account: str, record: Any) -> Balance:
        try:
            return _read(account, self._rolled(record, self._clock()), self._clock())
        except (ConfigurationError, TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
            raise StoreError(
                f"the record of {account!r} at {self._link.target} is not as LiteLLM writes it ({error}): "
                "mend it there, or create the budget again"
            ) from error

    def _days(self, budget: Budget) -> int | None:
        if budget.duration is None:
            return None
        count, unit = parse_duration(budget.duration)
        if unit in ("mo", "y") and count > 1:
            self._refuse(
                f"whole days alone, and {budget.duration!r} is no number of them: write such as '84d'"
            )
        if unit in ("s", "m", "h"):
            self._refuse(f"whole days alone, and {budget.duration!r} is shorter")
        if budget.timezone != "UTC":
            self._refuse(f"no time zones, so windows cannot follow {budget.timezone}: leave timezone at UTC")
        return count * {"d": 1, "w": 7, **_DAYS}[unit]

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigurationError(
            f"the server at {self._link.target} speaks LiteLLM's hosted protocol alone, which keeps {what}; "
            "`budgetguard serve` keeps more. Nothing was changed"
        )


Service: TypeAlias = HostedStore | LiteLLMStore


def open_service(url: str, *, project: str, headers: Mapping[str, str] | None, clock: Clock) -> Service:
    """Open a project's budgets at a service, in budgetguard's own protocol if it speaks that.

    Args:
        url: see `targets.service_target`.
        project: whose users.
        headers: sent in place of the key; see `targets.service_target`.
        clock: what tells the time where the service does not.

    Raises:
        ConfigurationError: a bad URL or header.
        StoreError: the service does not answer.
    """
    link = HostedLink(service_target(url, headers))
    if _is_ours(link, project):
        link.close()
        return HostedStore(url, project=project, clock=clock, retention=DEFAULT_RETENTION, headers=headers)
    return LiteLLMStore(link, url, project, clock)


def _is_ours(link: HostedLink, project: str) -> bool:
    answer = link.ask("GET", f"/v1/projects/{quote(project, safe='')}/balances?limit=1")
    if not isinstance(answer.value, Mapping):
        return False
    if answer.status == 200:
        return "balances" in answer.value
    # Refused, by a service whose refusals are ours: the next verb will meet it, and say why.
    return isinstance(answer.value.get("error"), str) and isinstance(answer.value.get("message"), str)


def _user(account: str) -> str | None:
    kind, _, user = account.partition(":")
    return user if kind == USER else None


def _span(record: Mapping[str, Any]) -> tuple[int | None, Milliseconds]:
    """Return how many days a record's windows have, and when its present one begins."""
    days = record.get("duration")
    began = record.get("last_updated_at")
    if began is None:
        began = record.get("created_at") or 0
    anchor = round(began * 1000)
    if days is None:
        return None, anchor
    if isinstance(days, bool) or days != int(days) or days < 1:
        raise ConfigurationError(f"duration must be a whole number of days, not {days!r}")
    return int(days), anchor


def _read(account: str, record: Mapping[str, Any], now: Milliseconds) -> Balance:
    days, anchor = _span(record)
    created = record.get("created_at")
    window = window_at(None if days is None else f"{days}d", anchor, "UTC", now)
    total = record["total_budget"]
    return Balance(
        account=account,
        limit_nanos=None if total == math.inf else to_nanos(max(total, 0), name="total_budget"),
        spent_nanos=to_nanos(max(record.get("current_cost") or 0, 0), name="current_cost"),
        held_nanos=0,
        duration=None if days is None else f"{days}d",
        timezone="UTC",
        starts_ms=window.start,
        resets_ms=window.end,
        created_ms=anchor if created is None else round(created * 1000),
        updated_ms=anchor,
        models={
            model: to_nanos(max(cost, 0), name=f"model_cost of {model}")
            for model, cost in (record.get("model_cost") or {}).items()
        },
    )
