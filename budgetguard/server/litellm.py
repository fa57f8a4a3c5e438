"""LiteLLM's hosted protocol: `/get_budget` and `/set_budget`, as its own client speaks it."""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from budgetguard.core.accounts import USER, Balance, Budget, account_name, check_id
from budgetguard.core.learning import MOST_MODELS
from budgetguard.core.money import MAX_USD, Nanos, to_nanos
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError
from budgetguard.litellm.manager import record
from budgetguard.server import schemas
from budgetguard.server.access import check_key_project
from budgetguard.server.reading import LONGEST_MODEL
from budgetguard.server.routes import Call, Route
from budgetguard.server.terms import keeps_booked
from budgetguard.server.views import Report, Views, account_of, view_id
from budgetguard.stores.base import Store
from budgetguard.stores.wire.fields import Fields, shown

COOKIE: Final = "budgetguard_client"
"""Tells one process from another; it lets nobody in."""

VIEW_FIELD: Final = "view"
LARGEST: Final = 32 * 2**20
"""Bytes of a body: all users of a project are in each."""

_COOKIE = re.compile(r"([0-9a-f]{12})-[0-9a-f]{32}")
_LATEST_SECOND: Final = 253_402_300_799
_LONGEST_DAYS: Final = 36_525
_DAY: Final[Milliseconds] = 86_400_000


@dataclass(frozen=True, slots=True)
class _Record:
    """Hold one user's record as a client has it."""

    limit: Nanos
    days: int | None
    created: float | None
    updated: float | None
    cost: Nanos
    models: Mapping[str, Nanos]

    @property
    def terms(self) -> tuple[Nanos, int | None]:
        return self.limit, self.days


@dataclass(frozen=True, slots=True)
class _Sent:
    """Hold what a client sends of one user: its record, and what it was handed, if it still has that."""

    user: str
    record: _Record
    ident: str = ""
    at: Milliseconds = 0
    handed: _Record | None = None


def get_budget(call: Call) -> dict[str, Any]:
    """Answer POST /get_budget."""
    fields = Fields(call.body, "body")
    store = _store(call, fields)
    fields.end()
    now = call.projects.clock()
    ident = secrets.token_hex(16)
    data = {}
    for balance in store.list(USER):
        user = balance.account.partition(":")[2]
        handed = _plain(balance)
        # Within its millisecond, so that it tells what was handed out once from what was at another time.
        handed["last_updated_at"] += secrets.randbelow(1_000) / 1_000_000
        view = {"id": ident, "at": now, "handed": handed}
        call.projects.handed.put(store.project, user, handed["last_updated_at"], view)
        data[user] = {**handed, VIEW_FIELD: view}
    _greet(call, now)
    return {"status": "success", "data": data}


def set_budget(call: Call) -> dict[str, Any]:
    """Answer POST /set_budget: all of it is read before anything is changed."""
    fields = Fields(call.body, "body")
    store = _store(call, fields)
    users = fields.take("user_dict")
    fields.end()
    if not isinstance(users, Mapping):
        raise ConfigurationError(f"user_dict must be an object of users, not {shown(users)}")
    now = call.projects.clock()
    found = _COOKIE.fullmatch(call.cookies.get(COOKIE, ""))
    cookie = found[0] if found else ""
    booked = call.projects.booked
    sent: list[tuple[_Sent, bytes]] = []
    for user, value in users.items():
        digest = _digest(call, cookie, user, value)
        if not booked.get(digest):
            sent.append((_sent(user, _with_view(call, store, user, value), now), digest))
    views = Views(store, call.projects.clock)
    for one, _ in sent:
        _check_view(call, cookie, store, views, one)
    reports = [_report(call, cookie, one, now) for one, _ in sent]
    made = (account_name(USER, one.user) for one, _ in sent)
    call.projects.quotas.check_accounts(store, (*made, *(account_of(report.view) for report in reports)))
    tells_apart = call.projects.quotas.tells_apart
    for (one, digest), report in zip(sent, reports, strict=True):
        named = {model: cost for model, cost in report.models.items() if tells_apart(store, model)}
        report = replace(report, models=named)  # what no model explains is booked as unknown
        is_admin = call.key.may("admin")
        _apply_terms(store, views, report, one, now, may_move_window=is_admin)
        if views.post(report, may_lower=is_admin):
            booked.put(digest, True)
    _greet(call, now)
    return {"status": "success"}


def _store(call: Call, fields: Fields) -> Store:
    project = check_id(fields.take("project_name"), name="project_name")
    check_key_project(call.key, project)
    return call.store_of(project)


def _greet(call: Call, now: Milliseconds) -> None:
    if _COOKIE.fullmatch(call.cookies.get(COOKIE, "")) is None:
        name = f"{now:012x}-{secrets.token_hex(16)}"
        call.headers["Set-Cookie"] = f"{COOKIE}={name}; Path=/; HttpOnly; SameSite=Strict"


def _plain(balance: Balance) -> dict[str, Any]:
    """Return a balance as LiteLLM's clients can compute with it."""
    made = record(balance)
    if made["total_budget"] == math.inf:
        made["total_budget"] = float(MAX_USD)  # JSON has no infinity
    if isinstance(made.get("duration"), str):
        del made["duration"]  # shorter than days: they would multiply the text
    return made


def _report(call: Call, cookie: str, one: _Sent, now: Milliseconds) -> Report:
    mine, handed = one.record, one.handed
    if handed is not None:
        view = view_id(call.key.id, one.ident, one.user, mine.updated)
        is_continued = mine.updated == handed.updated
        return Report(
            user=one.user,
            view=view,
            since=one.at,
            base=handed.cost if is_continued else 0,
            base_models=handed.models if is_continued else {},
            cost=mine.cost,
            models=mine.models,
        )
    since = now - now % _DAY
    if cookie:
        since = int(cookie[:12], 16)
    elif mine.created is not None:
        since = round(mine.created * 1000)
    return Report(
        user=one.user,
        view=view_id(call.key.id, cookie, one.user, mine.created, mine.updated, *mine.terms),
        since=min(since, now),
        base=0,
        base_models={},
        cost=mine.cost,
        models=mine.models,
    )


def _apply_terms(
    store: Store, views: Views, report: Report, one: _Sent, now: Milliseconds, *, may_move_window: bool
) -> None:
    """Give a user the limit and window that a record has, if that client has not said so before.

    A window that is there stays unless it may be moved: what is booked goes with its end.
    """
    terms = report
    if one.handed is not None:
        if one.record.terms == one.handed.terms:
            return
        name = view_id(report.view, *one.record.terms)
        terms = Report(one.user, name, report.since, 0, {}, 0, {})
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
    """Return a record with the view that it was handed out with, should the client have dropped that."""
    check_id(user, name="a user of user_dict")
    if not isinstance(value, Mapping) or VIEW_FIELD in value:
        return value
    view = call.projects.handed.get(store.project, user, _hashable(value.get("last_updated_at")))
    return value if view is None else {**value, VIEW_FIELD: view}


def _check_view(call: Call, cookie: str, store: Store, views: Views, one: _Sent) -> None:
    """Refuse a record that was handed out, if nobody here knows how it was.

    Raises:
        ConfigurationError: its sum cannot be told from what others have added.
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


def _sent(user: str, value: object, now: Milliseconds) -> _Sent:
    try:
        mine = _record(value)
        assert isinstance(value, Mapping)
        view = value.get(VIEW_FIELD)
        if view is None:
            return _Sent(user, mine)
        fields = Fields(view, VIEW_FIELD)
        made = _Sent(
            user,
            mine,
            ident=fields.text("id"),
            at=min(fields.number("at", 2**47), now),
            handed=_record(fields.take("handed")),
        )
        fields.end()
        return made
    except ConfigurationError as error:
        raise ConfigurationError(f"user {user!r}: {error}; nothing was changed") from error


def _record(value: object) -> _Record:
    if not isinstance(value, Mapping) or "total_budget" not in value:
        raise ConfigurationError(f"a record must be an object with total_budget, not {shown(value)}")
    models = value.get("model_cost", {})
    if not isinstance(models, Mapping) or len(models) > MOST_MODELS:
        raise ConfigurationError(
            f"model_cost must be an object of at most {MOST_MODELS} models, not {shown(models)}"
        )
    for model in models:
        if len(model) > LONGEST_MODEL:
            raise ConfigurationError(f"model_cost names a model of more than {LONGEST_MODEL} characters")
    return _Record(
        limit=_limit(value["total_budget"]),
        days=_days(value.get("duration")),
        created=_seconds(value.get("created_at"), "created_at"),
        updated=_seconds(value.get("last_updated_at"), "last_updated_at"),
        cost=_usd(value.get("current_cost", 0), "current_cost"),
        models={model: _usd(cost, f"model_cost of {model[:60]}") for model, cost in models.items()},
    )


def _limit(value: Any) -> Nanos:
    # LiteLLM takes a limit below nothing and sends it with every change of any user: like 0, it lets nothing
    # through.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return 0 if number and -MAX_USD <= value < 0 else _usd(value, "total_budget")


def _usd(value: Any, name: str) -> Nanos:
    if isinstance(value, int) and abs(value) > MAX_USD:
        raise ConfigurationError(f"{name} must be from 0 to {MAX_USD} USD")
    return to_nanos(value, name=name)


def _days(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= _LONGEST_DAYS:
        raise ConfigurationError(f"duration must be days from 1 to {_LONGEST_DAYS}, not {shown(value)}")
    if value != int(value):
        raise ConfigurationError(f"duration must be whole days, not {value}")
    return int(value)


def _seconds(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST_SECOND:
        raise ConfigurationError(f"{name} must be epoch seconds, not {shown(value)}")
    return float(value)


def _digest(call: Call, cookie: str, user: str, value: object) -> bytes:
    named = [call.body["project_name"], call.key.id, cookie, user, value]
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).digest()


ROUTES: Final = (
    Route(
        "POST",
        "/get_budget",
        "read",
        get_budget,
        "Return all users of a project, as LiteLLM's hosted client asks for them.",
        schemas.record(status=schemas.choice("success"), data=schemas.any_of(schemas.LITELLM_RECORD)),
        body=schemas.record(project_name=schemas.PROJECT),
        heavy=True,
        name="litellm_get_budget",
    ),
    Route(
        "POST",
        "/set_budget",
        "spend",
        set_budget,
        "Book what a LiteLLM client's records add, and take over the limits that it has changed.",
        schemas.record(status=schemas.choice("success")),
        body=schemas.record(project_name=schemas.PROJECT, user_dict=schemas.any_of(schemas.LITELLM_RECORD)),
        most=LARGEST,
        name="litellm_set_budget",
    ),
)
