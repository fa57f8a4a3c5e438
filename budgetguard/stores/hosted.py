"""`https://` and `http://`: balances kept by a hosted service (`budgetguard serve`), on a store of its own.

A verb is one request. Holds have ids that clients make, so a reserve or a settle whose answer was lost is
sent again and counts once. The service's clock and retention count, not the client's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from budgetguard.core.accounts import Balance, Budget, Document, Grant
from budgetguard.core.holds import (
    Booked,
    Entry,
    Hold,
    HoldRecord,
    Reservation,
    Settlement,
    UnknownAccount,
)
from budgetguard.core.process import store_verbs
from budgetguard.core.usage import Observations
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores.base import BaseStore
from budgetguard.stores.hosted_link import HostedLink
from budgetguard.stores.targets import service_target
from budgetguard.stores.wire_types import (
    Page,
    read_attached,
    read_balance,
    read_balances,
    read_changed,
    read_deleted,
    read_entries,
    read_expiries,
    read_marked,
    read_observations,
    read_record,
    read_records,
    read_reservation,
    read_saved,
    read_scopes,
    read_settled,
)

T = TypeVar("T")

_PAGE: Final = 500


@store_verbs
class HostedStore(BaseStore):
    """One project's balances at a hosted service.

    Nothing is asked before the first verb.

    Args:
        url: see `targets.service_target`.
        project: whose accounts.
        clock: unused: the service's counts.
        retention: unused: the service's counts.
        headers: sent in place of the key; see `targets.service_target`.

    Raises:
        ConfigurationError: a bad URL or header.
    """

    blocking = True

    def __init__(
        self,
        url: str,
        *,
        project: str,
        clock: Clock,
        retention: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(url, project=project, clock=clock, retention=retention)
        self._link = HostedLink(service_target(url, headers))
        self._base = f"/v1/projects/{quote(project, safe='')}/"

    def reserve(self, hold: Hold) -> Reservation:
        return self._ask("POST", "reserve", hold, read=read_reservation)

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        body = {"hold": hold, "settlement": settlement}
        return self._ask("POST", "settle", body, read=read_settled)

    def attach(self, hold_id: str, request_id: str) -> bool:
        body = {"hold_id": hold_id, "request_id": request_id}
        return self._ask("POST", "attach", body, read=read_attached)

    def attached(self, request_id: str) -> HoldRecord | None:
        route = _route("attached", {"request_id": request_id})
        return self._ask("GET", route, read=read_record)

    def read(self, account: str) -> Balance | None:
        route = _route("balance", {"account": account})
        return self._ask("GET", route, read=read_balance)

    def mark(self, account: str, mark: int) -> bool:
        # Carried out twice, it would answer that somebody else was first.
        return self._ask("POST", "mark", {"account": account, "mark": mark}, read=read_marked, repeat=False)

    def scopes(self) -> Document:
        return self._ask("GET", "scopes", read=read_scopes)

    def set_budget(
        self, account: str, budget: Budget, *, ephemeral: bool = False, entry: Entry | None = None
    ) -> Balance:
        body = {"account": account, "budget": budget, "ephemeral": ephemeral, "entry": entry}
        return self._ask("PUT", "budget", body, read=read_changed)

    def grant(self, account: str, grant: Grant, *, entry: Entry | None = None) -> Balance | None:
        body = {"account": account, "grant": grant, "entry": entry}
        return self._ask("POST", "grant", body, read=read_balance)

    def set_labels(self, account: str, labels: str, *, entry: Entry | None = None) -> Balance | None:
        body = {"account": account, "labels": labels, "entry": entry}
        return self._ask("PUT", "labels", body, read=read_balance)

    def save_scopes(self, document: Document, seen: int, *, entry: Entry | None = None) -> bool:
        # Carried out twice, it answers that they have changed, which whoever asked then finds to be so.
        body = {"scopes": document, "seen": seen, "entry": entry}
        return self._ask("PUT", "scopes", body, read=read_saved)

    def trail(self, since: Milliseconds = 0) -> Iterator[Entry]:
        return self._pages("trail", {"since": str(since)}, read_entries)

    def delete(self, account: str, *, entry: Entry | None = None) -> bool:
        # Carried out twice, it would answer that there was nothing to delete.
        about = {} if entry is None else {"entry_id": entry.id, "entry_text": entry.text}
        route = _route("budget", {"account": account, **about})
        return self._ask("DELETE", route, read=read_deleted, repeat=False)

    def list(self, kind: str = "") -> Iterator[Balance]:
        return self._pages("balances", {"kind": kind} if kind else {}, read_balances)

    def reset(self, account: str, *, entry: Entry | None = None) -> Balance | None:
        # Carried out twice, it would reset what was spent in between.
        body = {"account": account, "entry": entry}
        return self._ask("POST", "reset", body, read=read_balance, repeat=False)

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        return self._pages("holds", {} if account is None else {"account": account}, read_records)

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        span = {"since": str(since)} | ({} if until is None else {"until": str(until)})
        return self._pages("calls", span, read_records)

    def observations(self, model: str) -> Observations:
        route = _route("observations", {"model": model})
        return self._ask("GET", route, read=read_observations)

    def projects(self, account: str | None = None) -> Iterator[str]:
        # A key is for one project; its owner must not learn which others there are.
        if next(self.list(), None) if account is None else self.read(account):
            yield self.project

    def close(self) -> None:
        self._link.close()

    def _pages(self, route: str, query: Mapping[str, str], read: Callable[[Any], Page[T]]) -> Iterator[T]:
        after: str | None = None
        while True:
            place = {"limit": str(_PAGE)} | ({} if after is None else {"after": after})
            rows, following = self._ask("GET", _route(route, {**query, **place}), read=read)
            yield from rows
            if following is None or following == after:
                return
            after = following

    def _ask(
        self, method: str, route: str, body: object = None, *, read: Callable[[Any], T], repeat: bool = True
    ) -> T:
        answer = self._link.ask(method, self._base + route, body, repeat=repeat)
        if answer.status != 200 or not isinstance(answer.value, dict):
            raise StoreError(self._link.explain_answer(answer))
        expiries = answer.value.pop("told", [])
        try:
            told = read_expiries(expiries)
            found = read(answer.value)
        except ConfigurationError as error:
            raise StoreError(self._link.explain_answer(answer, str(error))) from error
        self._announce(told)
        return found


def _route(name: str, query: Mapping[str, str]) -> str:
    return f"{name}?{urlencode(query, errors='surrogatepass')}"
