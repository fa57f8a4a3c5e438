"""`https://` and `http://`: balances kept by a hosted service (`budgetguard serve`), on a store of its own.

A verb is one request. Holds have ids that clients make, so a reserve or a settle whose answer was lost is
sent again and counts once. The service's clock and retention count, not the client's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

from budgetguard.core.accounts import Balance, Budget, check_id
from budgetguard.core.holds import (
    Expiry,
    Hold,
    HoldRecord,
    Reservation,
    Settled,
    Settlement,
    UnknownAccount,
)
from budgetguard.core.inside import store_verbs
from budgetguard.core.learning import Observations
from budgetguard.core.money import MAX_NANOS
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores.hosted_errors import explain_answer
from budgetguard.stores.hosted_link import Link
from budgetguard.stores.hosted_target import parse_url
from budgetguard.stores.wire.answers import (
    balance_from_json,
    expiries_from_json,
    record_from_json,
    reservation_from_json,
    settled_from_json,
)
from budgetguard.stores.wire.fields import Fields, read_number, shown
from budgetguard.stores.wire.requests import budget_to_json, hold_to_json, settlement_to_json

T = TypeVar("T")

_PAGE: Final = 500


@store_verbs
class HostedStore:
    """Keep one project's balances at a hosted service.

    Nothing is asked before the first verb.

    Args:
        url: see `hosted_target.parse_url`.
        project: whose accounts.
        clock: unused: the service's counts.
        retention: unused: the service's counts.
        headers: sent in place of the key; see `hosted_target.parse_url`.

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
        self.url = url
        self.project = check_id(project, name="project")
        self._link = Link(parse_url(url, headers))
        self._base = f"/v1/projects/{quote(project, safe='')}/"
        self._expiry_hooks: list[Callable[[Expiry], None]] = []

    def reserve(self, hold: Hold) -> Reservation:
        return self._ask("POST", "reserve", hold_to_json(hold), read=reservation_from_json)

    def settle(self, hold: Hold, settlement: Settlement) -> Settled | UnknownAccount:
        body = {"hold": hold_to_json(hold), "settlement": settlement_to_json(settlement)}
        return self._ask("POST", "settle", body, read=settled_from_json)

    def attach(self, hold_id: str, request_id: str) -> bool:
        body = {"hold_id": hold_id, "request_id": request_id}
        return self._ask("POST", "attach", body, read=_flag("attached"))

    def attached(self, request_id: str) -> HoldRecord | None:
        route = _route("attached", {"request_id": request_id})
        return self._ask("GET", route, read=_maybe("record", record_from_json))

    def read(self, account: str) -> Balance | None:
        route = _route("balance", {"account": account})
        return self._ask("GET", route, read=_maybe("balance", balance_from_json))

    def set_budget(self, account: str, budget: Budget, *, ephemeral: bool = False) -> Balance:
        body = {"account": account, "budget": budget_to_json(budget), "ephemeral": ephemeral}
        return self._ask("PUT", "budget", body, read=_one("balance", balance_from_json))

    def delete(self, account: str) -> bool:
        # Carried out once more, it would not find what it has deleted, and answer so.
        route = _route("budget", {"account": account})
        return self._ask("DELETE", route, read=_flag("deleted"), repeat=False)

    def list(self, kind: str = "") -> Iterator[Balance]:
        return self._pages("balances", {"kind": kind} if kind else {}, balance_from_json)

    def reset(self, account: str) -> Balance | None:
        # Carried out once more, it would forget what was spent in between.
        read = _maybe("balance", balance_from_json)
        return self._ask("POST", "reset", {"account": account}, read=read, repeat=False)

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        return self._pages("holds", {} if account is None else {"account": account}, record_from_json)

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        span = {"since": str(since)} | ({} if until is None else {"until": str(until)})
        return self._pages("calls", span, record_from_json)

    def observations(self, model: str) -> Observations:
        return self._ask("GET", _route("observations", {"model": model}), read=_one("observations", _counts))

    def projects(self, account: str | None = None) -> Iterator[str]:
        # A key is for one project, and which others there are is no business of its owner.
        if next(self.list(), None) if account is None else self.read(account):
            yield self.project

    def on_expiry(self, hook: Callable[[Expiry], None]) -> None:
        self._expiry_hooks.append(hook)

    def close(self) -> None:
        self._link.close()

    def _pages(self, route: str, query: Mapping[str, str], read: Callable[[Any], T]) -> Iterator[T]:
        name = "balances" if route == "balances" else "records"
        after: str | None = None
        while True:
            place = {"limit": str(_PAGE)} | ({} if after is None else {"after": after})
            page, following = self._ask("GET", _route(route, {**query, **place}), read=_page(name, read))
            yield from page
            if following is None or following == after:
                return
            after = following

    def _ask(
        self, method: str, route: str, body: object = None, *, read: Callable[[Any], T], repeat: bool = True
    ) -> T:
        answer = self._link.ask(method, self._base + route, body, repeat=repeat)
        if answer.status != 200 or not isinstance(answer.value, dict):
            raise StoreError(explain_answer(answer, self._link.target))
        expiries = answer.value.pop("told", [])
        try:
            told = expiries_from_json(expiries)
            found = read(answer.value)
        except ConfigurationError as error:
            raise StoreError(explain_answer(answer, self._link.target, str(error))) from error
        for expiry in told:
            for hook in self._expiry_hooks:
                hook(expiry)
        return found


def _route(name: str, query: Mapping[str, str]) -> str:
    return f"{name}?{urlencode(query, errors='surrogatepass')}"


def _one(key: str, read: Callable[[Any], T]) -> Callable[[Any], T]:
    """Return what reads an object's only field."""

    def taken(value: object) -> T:
        fields = Fields(value, "answer")
        found = read(fields.take(key))
        fields.end()
        return found

    return taken


def _maybe(key: str, read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return _one(key, lambda value: None if value is None else read(value))


def _flag(key: str) -> Callable[[Any], bool]:
    return lambda value: Fields(value, "answer").flag(key)


def _page(key: str, read: Callable[[Any], T]) -> Callable[[Any], tuple[list[T], str | None]]:
    def taken(value: object) -> tuple[list[T], str | None]:
        fields = Fields(value, "answer")
        found = [read(one) for one in fields.list(key)]
        following = fields.maybe("next", fields.text)
        fields.end()
        return found, following

    return taken


def _counts(value: object) -> Observations:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"observations must be a JSON object, not {shown(value)}")
    return {bucket: read_number(count, "observations", MAX_NANOS) for bucket, count in value.items()}
