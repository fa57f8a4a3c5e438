"""LiteLLM's hosted protocol: `/get_budget` and `/set_budget`, as its own client speaks it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from budgetguard.core.accounts import USER, Balance, Budget, account_name, check_id
from budgetguard.core.money import MAX_USD, Nanos
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError
from budgetguard.litellm.manager import record
from budgetguard.server.access import check_key_project, keeps_booked
from budgetguard.server.keys import Key
from budgetguard.server.records import (
    GetBudgetBody,
    SentRecord,
    SetBudgetBody,
    StatusJson,
    UsersJson,
    read_record,
)
from budgetguard.server.routes import Call, RouteTable
from budgetguard.server.views import ViewReport, Views, account_of, view_id
from budgetguard.stores.base import Store
from budgetguard.stores.wire_reading import JsonReader

COOKIE: Final = "budgetguard_client"
"""The cookie that tells one client process from another; it authorizes nothing."""

VIEW_FIELD: Final = "view"
LARGEST: Final = 32 * 2**20
"""Bytes of a body: all users of a project are in each."""

_COOKIE = re.compile(r"([0-9a-f]{12})-[0-9a-f]{32}")
_DAY: Final[Milliseconds] = 86_400_000


_litellm: Final = RouteTable()


@_litellm.route(
    "POST",
    "/get_budget",
    "read",
    JsonReader(UsersJson, "answer"),
    body=JsonReader(GetBudgetBody),
    heavy=True,
    name="litellm_get_budget",
)
def get_budget(call: Call) -> dict[str, Any]:
    """Return all users of a project, as LiteLLM's hosted client asks for them."""
    body: GetBudgetBody = call.body
    store = _store(call, body["project_name"])
    now = call.projects.clock()
    ident = secrets.token_hex(16)
    data = {}
    for balance in store.list(USER):
        user = balance.account.partition(":")[2]
        handed = _plain(balance)
        # Random within its millisecond, so that it identifies this answer among others.
        handed["last_updated_at"] += secrets.randbelow(1_000) / 1_000_000
        view = {"id": ident, "at": now, "handed": handed}
        call.projects.handed.put(store.project, user, handed["last_updated_at"], view)
        data[user] = {**handed, VIEW_FIELD: view}
    _greet(call, now)
    return {"status": "success", "data": data}


@_litellm.route(
    "POST",
    "/set_budget",
    "spend",
    JsonReader(StatusJson, "answer"),
    body=JsonReader(SetBudgetBody),
    most=LARGEST,
    name="litellm_set_budget",
)
def set_budget(call: Call) -> dict[str, Any]:
    """Book what a LiteLLM client's records add, and take over the limits that it has changed.

    All records are read before anything is changed.
    """
    body: SetBudgetBody = call.body
    project, users = body["project_name"], body["user_dict"]
    store = _store(call, project)
    now = call.projects.clock()
    found = _COOKIE.fullmatch(call.cookies.get(COOKIE, ""))
    cookie = found[0] if found else ""
    booked = call.projects.booked
    sent: list[tuple[SentRecord, bytes]] = []
    for user, value in users.items():
        digest = _digest(project, call.key, cookie, user, value)
        if digest not in booked:
            sent.append((read_record(user, _with_view(call, store, user, value), now), digest))
    views = Views(store, call.projects.clock)
    for one, _ in sent:
        _check_view(call, cookie, store, views, one)
    reports = [_report(call, cookie, one, now) for one, _ in sent]
    made = (account_name(USER, one.user) for one, _ in sent)
    call.projects.quotas.check_accounts(store, (*made, *(account_of(report.view) for report in reports)))
    tells_apart = call.projects.quotas.tells_apart
    for (one, digest), report in zip(sent, reports, strict=True):
        named = {model: cost for model, cost in report.models.items() if tells_apart(store, model)}
        report = replace(report, models=named)  # the rest is booked as unknown
        is_admin = call.key.may("admin")
        _apply_terms(store, views, report, one, now, may_move_window=is_admin)
        if views.post(report, may_lower=is_admin):
            booked.add(digest)
    _greet(call, now)
    return {"status": "success"}


def _store(call: Call, project: str) -> Store:
    check_key_project(call.key, project)
    return call.store_of(project)


def _greet(call: Call, now: Milliseconds) -> None:
    if _COOKIE.fullmatch(call.cookies.get(COOKIE, "")) is None:
        name = f"{now:012x}-{secrets.token_hex(16)}"
        call.headers["Set-Cookie"] = f"{COOKIE}={name}; Path=/; HttpOnly; SameSite=Strict"


def _plain(balance: Balance) -> dict[str, Any]:
    """Return a balance as a record that LiteLLM's clients can compute with."""
    made = record(balance)
    if made["total_budget"] == math.inf:
        made["total_budget"] = float(MAX_USD)  # JSON has no infinity
    if isinstance(made.get("duration"), str):
        del made["duration"]  # text, for less than a day: clients would multiply it
    return made


def _report(call: Call, cookie: str, one: SentRecord, now: Milliseconds) -> ViewReport:
    mine, handed = one.record, one.handed
    base: Nanos = 0
    base_models: Mapping[str, Nanos] = {}
    if handed is not None:
        view, since = view_id(call.key.id, one.ident, one.user, mine.updated), one.at
        if mine.updated == handed.updated:
            base, base_models = handed.cost, handed.models
    else:
        view = view_id(call.key.id, cookie, one.user, mine.created, mine.updated, *mine.terms)
        since = now - now % _DAY
        if cookie:
            since = int(cookie[:12], 16)
        elif mine.created is not None:
            since = round(mine.created * 1000)
    return ViewReport(one.user, view, min(since, now), base, base_models, mine.cost, mine.models)


def _apply_terms(
    store: Store,
    views: Views,
    report: ViewReport,
    one: SentRecord,
    now: Milliseconds,
    *,
    may_move_window: bool,
) -> None:
    """Set the limit and window that a record has, unless this client has sent the same before.

    An existing window stays unless it may be moved: what is booked goes with its end.
    """
    terms = report
    if one.handed is not None:
        if one.record.terms == one.handed.terms:
            return
        name = view_id(report.view, *one.record.terms)
        terms = ViewReport(one.user, name, report.since, 0, {}, 0, {})
    if views.is_known(terms.view):
        return
    account = account_name(USER, one.user)
    present = store.read(account)
    mine = one.record
    if present is not None and _plain(present).get("duration") == mine.days:
        budget = Budget(mine.limit, present.duration, present.timezone)
    else:
        days = None if mine.days is None else f"{mine.days}d"
        starts = None if mine.created is None else round(mine.created * 1000)
        budget = Budget(mine.limit, days, starts_at=starts)
        if present is not None and not may_move_window:
            budget = replace(budget, starts_at=None)
            if not keeps_booked(present, budget, now):
                budget = Budget(mine.limit, present.duration, present.timezone)
    if present is None or (present.limit_nanos, present.duration) != (budget.limit, budget.duration):
        store.set_budget(account, budget)
    views.open(terms)


def _with_view(call: Call, store: Store, user: str, value: object) -> object:
    """Return a record with its view, where the client has dropped it and it is remembered."""
    check_id(user, name="a user of user_dict")
    if not isinstance(value, Mapping) or VIEW_FIELD in value:
        return value
    view = call.projects.handed.get(store.project, user, _hashable(value.get("last_updated_at")))
    return value if view is None else {**value, VIEW_FIELD: view}


def _check_view(call: Call, cookie: str, store: Store, views: Views, one: SentRecord) -> None:
    """Refuse a record that was handed out, if what it said then is not known here.

    Raises:
        ConfigurationError: the client's own part of its sum cannot be told.
    """
    mine = one.record
    if one.handed is not None or mine.created in (None, mine.updated):
        return  # the latter is as `create_budget` writes it
    present = store.read(account_name(USER, one.user))
    if present is None or _plain(present)["created_at"] != mine.created:
        return
    made = view_id(call.key.id, cookie, one.user, mine.created, mine.created, *mine.terms)
    if not views.is_known(made):
        raise ConfigurationError(
            f"user {one.user!r}: a record that /get_budget has handed out must be sent with its "
            f"{VIEW_FIELD!r} as it was; get it again; nothing was changed"
        )


def _hashable(value: object) -> object:
    return value if isinstance(value, int | float | str) else None


def _digest(project: str, key: Key, cookie: str, user: str, value: object) -> bytes:
    named = [project, key.id, cookie, user, value]
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).digest()


ROUTES: Final = _litellm.routes
