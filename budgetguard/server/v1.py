"""The service's own protocol: every verb of a store, over HTTP. Money is integer Nanos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from itertools import islice
from operator import attrgetter
from typing import Annotated, Any, Final, NotRequired, TypeVar

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from budgetguard.core.accounts import Balance, Budget, Document
from budgetguard.core.forecast import Forecast, forecast
from budgetguard.core.holds import (
    Booked,
    Entry,
    Granted,
    Hold,
    HoldRecord,
    HoldState,
    Reservation,
    UnknownAccount,
)
from budgetguard.core.report import summarize
from budgetguard.core.scopes import read_scopes
from budgetguard.core.trail import entry_of, with_key
from budgetguard.engine.forecasting import histories
from budgetguard.errors import ConfigurationError
from budgetguard.server import requests
from budgetguard.server.access import keeps_booked
from budgetguard.server.problems import Forbidden
from budgetguard.server.routes import Call, RouteTable
from budgetguard.server.views import UNKNOWN_MODEL
from budgetguard.stores import wire_types
from budgetguard.stores.base import Store
from budgetguard.stores.wire_reading import JsonReader, strict
from budgetguard.stores.wire_types import Many, Text, WireBalance, WireExpiry, fields_of

T = TypeVar("T")
_ID: Final[Callable[[HoldRecord], str]] = attrgetter("id")
_FORECAST: Any = fields_of(Forecast)
_USD = Annotated[str, Field(description="USD, every digit.")]


@strict
class TotalsJson(TypedDict):
    """What some calls come to."""

    calls: int
    open: int
    voided: int
    expiries: int
    input_tokens: int
    output_tokens: int
    spent: _USD
    held: _USD


_LABEL: Final = Field(description="The row's value; null for calls that have none.")


# Any label may be reported by, so rows have fields whose names nobody knows beforehand.
@with_config(
    ConfigDict(
        strict=True,
        extra="allow",
        json_schema_extra={
            "additionalProperties": {
                "type": ["string", "null"],
                "description": "The value of a label that was reported by, under its name; null for calls "
                "that have none.",
            }
        },
    )
)
class ReportRowJson(TotalsJson):
    """What the calls of one user, model, day, month, endpoint, tag, provider or label come to."""

    user: NotRequired[Annotated[str | None, _LABEL]]
    model: NotRequired[Annotated[str | None, _LABEL]]
    day: NotRequired[Annotated[str | None, _LABEL]]
    month: NotRequired[Annotated[str | None, _LABEL]]
    endpoint: NotRequired[Annotated[str | None, _LABEL]]
    tag: NotRequired[Annotated[str | None, _LABEL]]
    provider: NotRequired[Annotated[str | None, _LABEL]]


@strict
class ReportJson(TypedDict):
    """Calls added up."""

    by: list[str]
    rows: list[ReportRowJson]
    total: TotalsJson
    told: NotRequired[Many[WireExpiry]]


@strict
class BalanceJson(TypedDict):
    """How an account stands, and its forecast if one was asked for."""

    balance: WireBalance | None
    forecast: NotRequired[_FORECAST | None]
    told: NotRequired[Many[WireExpiry]]


@strict
class BalancesJson(TypedDict):
    """A page of accounts, and their forecasts by account if they were asked for."""

    balances: Many[WireBalance]
    next: Text | None
    forecasts: NotRequired[dict[Text, _FORECAST]]
    told: NotRequired[Many[WireExpiry]]


_v1: Final = RouteTable("/v1/projects/{project}/")


@_v1.route(
    "POST", "reserve", "spend", wire_types.read_reservation, body=JsonReader(requests.ServedHold, "hold")
)
def reserve(call: Call) -> Reservation:
    """Set a hold's amount aside on all of its accounts that exist, or on none."""
    hold: Hold = call.body
    quotas, store = call.projects.quotas, call.store
    if requests.is_ahead(hold.id, call.projects.clock()):
        raise _ahead(hold)
    quotas.check_hold(store, hold)
    answer = None
    try:
        answer = store.reserve(_named(call, hold))
        return answer
    finally:
        if not isinstance(answer, Granted) or answer.repeated:
            quotas.not_granted(store, hold)
        else:
            quotas.granted(store, hold)


@_v1.route("POST", "settle", "spend", wire_types.read_settled, body=JsonReader(requests.SettleBody))
def settle(call: Call) -> Booked | UnknownAccount:
    """Book what a call cost, once per hold id; with state `voided`, nothing."""
    body: requests.SettleBody = call.body
    hold, settlement = body["hold"], body["settlement"]
    if not settlement.cost and not call.key.may("admin") and _state(call.store, hold.id) == "expired":
        # Voiding now would take away what the expiry has booked; the real cost may still come.
        return Booked(booked=0, repeated=True)
    if requests.is_ahead(hold.id, call.projects.clock()) and _state(call.store, hold.id) is None:
        raise _ahead(hold)
    quotas = call.projects.quotas
    quotas.check_accounts(call.store, (one.account for one in hold.charges if one.budget is not None))
    answer = call.store.settle(_named(call, hold), settlement)
    if isinstance(answer, Booked) and not answer.repeated:
        quotas.ended(call.store, hold.id)
    return answer


@_v1.route("POST", "attach", "spend", wire_types.read_attached, body=JsonReader(requests.AttachBody))
def attach(call: Call) -> dict[str, Any]:
    """Note on a hold which answer of the provider's it waits for."""
    body: requests.AttachBody = call.body
    return {"attached": call.store.attach(body["hold_id"], body["request_id"])}


@_v1.route("GET", "attached", "read", wire_types.read_record, query=requests.AttachedQuery)
def attached(call: Call) -> dict[str, Any]:
    """Return the hold that an answer was attached to last."""
    return {"record": call.store.attached(call.query["request_id"])}


@_v1.route("GET", "balance", "read", JsonReader(BalanceJson, "answer"), query=requests.BalanceQuery)
def balance(call: Call) -> dict[str, Any]:
    """Return how an account stands now, null if it does not exist."""
    found = call.store.read(call.query["account"])
    if not call.query.get("forecast"):
        return {"balance": found}
    made = None if found is None else _forecasts(call, (found,))[found.account]
    return {"balance": found, "forecast": made}


@_v1.route(
    "GET", "balances", "read", JsonReader(BalancesJson, "answer"), query=requests.BalancesQuery, heavy=True
)
def balances(call: Call) -> dict[str, Any]:
    """List accounts in order of their names."""
    query: requests.BalancesQuery = call.query
    rows = call.store.list(query.get("kind", ""))
    theirs = (one for one in rows if not one.account.startswith(f"{requests.VIEW}:"))
    page = _page("balances", theirs, attrgetter("account"), query)
    return {**page, "forecasts": _forecasts(call, page["balances"])} if query.get("forecast") else page


@_v1.route("PUT", "budget", "spend", wire_types.read_changed, body=JsonReader(requests.BudgetBody))
def set_budget(call: Call) -> dict[str, Any]:
    """Make an account, or change the limit and window of one that exists and keep its spend."""
    body: requests.BudgetBody = call.body
    account, budget = body["account"], body["budget"]
    if not call.key.may("admin"):
        _check_change(call, account, budget)
    call.projects.quotas.check_accounts(call.store, (account,))
    entry = _entry(call, "set_budget", account, body.get("entry"))
    return {"balance": call.store.set_budget(account, budget, ephemeral=body["ephemeral"], entry=entry)}


@_v1.route("POST", "grant", "admin", wire_types.read_balance, body=JsonReader(requests.GrantBody))
def grant(call: Call) -> dict[str, Any]:
    """Raise an account's limit, once per grant id: until some time, or for good."""
    body: requests.GrantBody = call.body
    account = body["account"]
    entry = _entry(call, "grant", account, body.get("entry"))
    return {"balance": call.store.grant(account, body["grant"], entry=entry)}


@_v1.route("PUT", "labels", "admin", wire_types.read_balance, body=JsonReader(requests.LabelsBody))
def set_labels(call: Call) -> dict[str, Any]:
    """Store the labels that a user's calls carry, such as a team."""
    body: requests.LabelsBody = call.body
    account = body["account"]
    entry = _entry(call, "set_member", account, body.get("entry"))
    return {"balance": call.store.set_labels(account, body["labels"], entry=entry)}


@_v1.route("POST", "mark", "spend", wire_types.read_marked, body=JsonReader(requests.MarkBody))
def mark(call: Call) -> dict[str, Any]:
    """Note something about an account's present window; answers whether it was not noted before."""
    return {"marked": call.store.mark(call.body["account"], call.body["mark"])}


@_v1.route("GET", "scopes", "read", wire_types.read_scopes)
def scopes(call: Call) -> dict[str, Any]:
    """Return which kinds of budgets the project has."""
    return {"scopes": call.store.scopes()}


@_v1.route("PUT", "scopes", "spend", wire_types.read_saved, body=JsonReader(requests.ScopesBody))
def save_scopes(call: Call) -> dict[str, Any]:
    """Replace the project's scopes if they are of the revision that was seen."""
    body: requests.ScopesBody = call.body
    if not call.key.may("admin"):
        _check_scopes(call, body["scopes"])
    entry = body.get("entry")
    told = None if entry is None else with_key(entry, call.key.id)
    return {"saved": call.store.save_scopes(body["scopes"], body["seen"], entry=told)}


@_v1.route("GET", "trail", "read", wire_types.read_entries, query=requests.TrailQuery, heavy=True)
def trail(call: Call) -> dict[str, Any]:
    """List the changes of budgets, oldest first: who changed what, and why."""
    query: requests.TrailQuery = call.query
    since = query.get("since", 0)
    if "after" in query:
        since = max(since, requests.made_at(query["after"]))
    return _page("entries", call.store.trail(since), attrgetter("id"), query)


@_v1.route("POST", "reset", "admin", wire_types.read_balance, body=JsonReader(requests.ResetBody))
def reset(call: Call) -> dict[str, Any]:
    """Set what an account has spent to nothing."""
    account = call.body["account"]
    entry = _entry(call, "reset", account, call.body.get("entry"))
    return {"balance": call.store.reset(account, entry=entry)}


@_v1.route("DELETE", "budget", "admin", wire_types.read_deleted, query=requests.DeleteQuery)
def delete(call: Call) -> dict[str, Any]:
    """Forget an account, and return whether it existed."""
    query: requests.DeleteQuery = call.query
    account, said = query["account"], None
    if "entry_id" in query:
        said = Entry(query["entry_id"], query.get("entry_text", ""))
    deleted = call.store.delete(account, entry=_entry(call, "delete", account, said))
    if deleted:
        call.projects.quotas.forget(call.store, account)
    return {"deleted": deleted}


@_v1.route("GET", "holds", "read", wire_types.read_records, query=requests.HoldsQuery, heavy=True)
def holds(call: Call) -> dict[str, Any]:
    """List open holds, oldest first."""
    query: requests.HoldsQuery = call.query
    found = sorted(call.store.holds(query.get("account")), key=_ID)
    return _page("records", found, _ID, query)


@_v1.route("GET", "calls", "read", wire_types.read_records, query=requests.CallsQuery, heavy=True)
def calls(call: Call) -> dict[str, Any]:
    """List calls, ended or open, oldest first."""
    query: requests.CallsQuery = call.query
    since, until = _span(query)
    if "after" in query:
        # Ids begin with the time by which the store finds them.
        since = max(since, requests.made_at(query["after"]))
    return _page("records", call.store.calls(since, until), _ID, query)


@_v1.route("GET", "observations", "read", wire_types.read_observations, query=requests.ObservationsQuery)
def observations(call: Call) -> dict[str, Any]:
    """Return what has been observed of a model's answers: counts by bucket."""
    return {"observations": call.store.observations(call.query["model"])}


@_v1.route("GET", "report", "read", JsonReader(ReportJson, "report"), query=requests.ReportQuery, heavy=True)
def report(call: Call) -> dict[str, Any]:
    """Add up calls by any labels; money as USD text, days and months of UTC."""
    query: requests.ReportQuery = call.query
    since, until = _span(query)
    by = [one for one in query.get("by", "user").split(",") if one]
    return summarize(call.store.calls(since, until), by, zone=UTC).to_dict()


def _forecasts(call: Call, balances: Sequence[Balance]) -> dict[str, Forecast]:
    now = call.projects.clock()
    past = histories(call.store, balances, now)
    return {one.account: forecast(one, past[one.account], now) for one in balances}


def _state(store: Store, hold_id: str) -> HoldState | None:
    made = requests.made_at(hold_id)
    return next((one.state for one in store.calls(made, made + 1) if one.id == hold_id), None)


def _named(call: Call, hold: Hold) -> Hold:
    """Return a hold under the model that it is booked as: of too many, not each is told apart."""
    is_told = call.projects.quotas.tells_apart(call.store, hold.model)
    return hold if is_told else replace(hold, model=UNKNOWN_MODEL)


def _ahead(hold: Hold) -> ConfigurationError:
    return ConfigurationError(
        f"hold.id {hold.id[:12]!r}… begins with a time more than a year ahead of the service's: set the "
        "clock of the machine that made it"
    )


def _entry(call: Call, action: str, account: str, said: Entry | None) -> Entry:
    """Return the entry of a change: what the client says of it, and the key that made it."""
    if said is None:
        said = entry_of(call.projects.clock(), action, account, by=call.key.id)
    return with_key(said, call.key.id)


def _check_scopes(call: Call, document: Document) -> None:
    """Refuse scopes that only a key of the role admin may save.

    Raises:
        Forbidden: they change budgets for each value of a label, or leave out what calls are charged to.
    """
    before, after = read_scopes(call.store.scopes().rules), read_scopes(document.rules)
    if before.templates != after.templates or not before.shapes <= after.shapes:
        raise Forbidden("only a key of the role admin may set a budget for each value of a label")


def _check_change(call: Call, account: str, budget: Budget) -> None:
    """Refuse a budget that only a key of the role admin may set.

    Raises:
        Forbidden: it raises what an account may spend, or would end its window at another time, and what is
            booked would go with that.
    """
    present = call.store.read(account)
    if present is not None and _is_raise(present, budget):
        raise Forbidden(
            f"{account} has a budget already, and only a key of the role admin may raise it or change "
            "its rules"
        )
    if present is not None and not keeps_booked(present, budget, call.projects.clock()):
        raise Forbidden(
            f"{account} has the duration {present.duration!r} in {present.timezone!r}; only a key of the "
            "role admin may change a window or when it began, as what is booked goes with its end"
        )


def _is_raise(present: Balance, budget: Budget) -> bool:
    before = present.limit_nanos
    if before is None:
        return False
    own = before - sum(one.amount for one in present.grants)
    more = budget.limit is None or budget.limit > own or budget.rollover > present.rollover_nanos
    return more or budget.rules != present.document.rules


def _page(name: str, rows: Iterable[T], key: Callable[[T], str], query: Mapping[str, Any]) -> dict[str, Any]:
    """Return the page of rows, which are in order of their keys, that a query asks for."""
    after, most = query.get("after", ""), query.get("limit", requests.PAGE)
    found = list(islice((one for one in rows if key(one) > after), most + 1))
    return {name: found[:most], "next": key(found[most - 1]) if len(found) > most else None}


def _span(query: requests.SpanQuery) -> tuple[int, int | None]:
    since, until = query.get("since", 0), query.get("until")
    if until is not None and until < since:
        raise ConfigurationError("since must not be after until")
    return since, until


ROUTES: Final = _v1.routes
