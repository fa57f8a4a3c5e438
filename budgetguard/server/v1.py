"""The service's own protocol: every verb of a store, over HTTP. Money is integer Nanos."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from itertools import islice
from typing import Any, Final, cast

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Granted, Hold, HoldState, Settled
from budgetguard.core.report import Dimension, summarize
from budgetguard.errors import ConfigurationError
from budgetguard.server import reading, schemas
from budgetguard.server.problems import Forbidden
from budgetguard.server.routes import Call, Parameter, Route
from budgetguard.server.terms import keeps_booked
from budgetguard.server.views import UNKNOWN_MODEL
from budgetguard.stores.base import Store
from budgetguard.stores.wire.answers import (
    balance_to_json,
    record_to_json,
    reservation_to_json,
    settled_to_json,
)
from budgetguard.stores.wire.fields import Fields, read_text
from budgetguard.stores.wire.requests import budget_from_json


def reserve(call: Call) -> dict[str, Any]:
    """Answer POST …/reserve."""
    hold, quotas, store = reading.hold(call.body), call.projects.quotas, call.store
    if reading.is_ahead(hold.id, call.projects.clock()):
        raise _ahead(hold)
    quotas.check_hold(store, hold)
    answer = None
    try:
        answer = store.reserve(_named(call, hold))
        return reservation_to_json(answer)
    finally:
        if not isinstance(answer, Granted) or answer.repeated:
            quotas.not_granted(store, hold)
        else:
            quotas.granted(store, hold)


def settle(call: Call) -> dict[str, Any]:
    """Answer POST …/settle."""
    fields = Fields(call.body, "body")
    hold = reading.hold(fields.take("hold"))
    settlement = reading.settlement(fields.take("settlement"))
    fields.end()
    if settlement.state == "voided" and settlement.cost:
        raise ConfigurationError("settlement.cost must be 0 where settlement.state is 'voided'")
    if not settlement.cost and not call.key.may("admin") and _state(call.store, hold.id) == "expired":
        # To give it back now would take away what its expiry has booked; what it really cost may still come.
        return settled_to_json(Settled(booked=0, repeated=True))
    if reading.is_ahead(hold.id, call.projects.clock()) and _state(call.store, hold.id) is None:
        raise _ahead(hold)
    quotas = call.projects.quotas
    quotas.check_accounts(call.store, (one.account for one in hold.charges if one.budget is not None))
    answer = call.store.settle(_named(call, hold), settlement)
    if isinstance(answer, Settled) and not answer.repeated:
        quotas.ended(call.store, hold.id)
    return settled_to_json(answer)


def attach(call: Call) -> dict[str, Any]:
    """Answer POST …/attach."""
    fields = Fields(call.body, "body")
    hold_id = reading.hold_id(fields.take("hold_id"), "hold_id")
    request_id = fields.text("request_id")
    fields.end()
    return {"attached": call.store.attach(hold_id, request_id)}


def attached(call: Call) -> dict[str, Any]:
    """Answer GET …/attached."""
    found = call.store.attached(read_text(call.query["request_id"], "request_id"))
    return {"record": None if found is None else record_to_json(found)}


def balance(call: Call) -> dict[str, Any]:
    """Answer GET …/balance."""
    found = call.store.read(reading.account(call.query["account"], "account"))
    return {"balance": None if found is None else balance_to_json(found)}


def balances(call: Call) -> dict[str, Any]:
    """Answer GET …/balances."""
    kind = read_text(call.query.get("kind", ""), "kind")
    after = read_text(call.query.get("after", ""), "after")
    most = reading.page_size(call.query)
    rows = (one for one in call.store.list(kind) if one.account > after and not _is_own(one.account))
    page = list(islice(rows, most + 1))
    return {
        "balances": [balance_to_json(one) for one in page[:most]],
        "next": page[most - 1].account if len(page) > most else None,
    }


def set_budget(call: Call) -> dict[str, Any]:
    """Answer PUT …/budget."""
    fields = Fields(call.body, "body")
    account = reading.account(fields.take("account"), "account")
    budget = budget_from_json(fields.take("budget"))
    ephemeral = fields.flag("ephemeral")
    fields.end()
    if not call.key.may("admin"):
        _check_window(call, account, budget)
    call.projects.quotas.check_accounts(call.store, (account,))
    return {"balance": balance_to_json(call.store.set_budget(account, budget, ephemeral=ephemeral))}


def reset(call: Call) -> dict[str, Any]:
    """Answer POST …/reset."""
    found = call.store.reset(reading.account(reading.one_field(call.body, "account"), "account"))
    return {"balance": None if found is None else balance_to_json(found)}


def delete(call: Call) -> dict[str, Any]:
    """Answer DELETE …/budget."""
    account = reading.account(call.query["account"], "account")
    deleted = call.store.delete(account)
    if deleted:
        call.projects.quotas.forget(call.store, account)
    return {"deleted": deleted}


def holds(call: Call) -> dict[str, Any]:
    """Answer GET …/holds: sorted here, since stores yield those of one account by when they expire."""
    name = call.query.get("account")
    account = None if name is None else reading.account(name, "account")
    most, after = reading.page_size(call.query), read_text(call.query.get("after", ""), "after")
    found = sorted((one for one in call.store.holds(account) if one.id > after), key=lambda one: one.id)
    return _records(found[: most + 1], most)


def calls(call: Call) -> dict[str, Any]:
    """Answer GET …/calls."""
    since, until = _span(call)
    most, after = reading.page_size(call.query), call.query.get("after")
    if after is not None:
        # Ids begin with the time by which the store finds them.
        since = max(since, reading.made_at(reading.hold_id(after, "after")))
    rows = (one for one in call.store.calls(since, until) if after is None or one.id > after)
    return _records(list(islice(rows, most + 1)), most)


def observations(call: Call) -> dict[str, Any]:
    """Answer GET …/observations."""
    return {"observations": call.store.observations(read_text(call.query["model"], "model"))}


def report(call: Call) -> dict[str, Any]:
    """Answer GET …/report. Days are UTC's."""
    since, until = _span(call)
    by = [one for one in call.query.get("by", "user").split(",") if one]
    return summarize(call.store.calls(since, until), cast(list[Dimension], by), zone=UTC).to_dict()


def _state(store: Store, hold_id: str) -> HoldState | None:
    made = reading.made_at(hold_id)
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


def _check_window(call: Call, account: str, budget: Budget) -> None:
    """Refuse a budget that would end an account's window at another time: what is booked would go with it.

    Raises:
        Forbidden: it would.
    """
    present = call.store.read(account)
    if present is not None and not keeps_booked(present, budget, call.projects.clock()):
        raise Forbidden(
            f"{account} has the duration {present.duration!r} in {present.timezone!r}; only a key of the "
            "role admin may change a window or when it began, as what is booked goes with its end"
        )


def _records(found: list[Any], most: int) -> dict[str, Any]:
    page = found[:most]
    return {
        "records": [record_to_json(one) for one in page],
        "next": page[-1].id if len(found) > most else None,
    }


def _span(call: Call) -> tuple[int, int | None]:
    since, until = reading.instant(call.query, "since") or 0, reading.instant(call.query, "until")
    if until is not None and until < since:
        raise ConfigurationError("since must not be after until")
    return since, until


def _is_own(account: str) -> bool:
    return account.startswith(f"{reading.VIEW}:")


_PROJECT: Final = "/v1/projects/{project}"
_ACCOUNT: Final = Parameter("account", schemas.ACCOUNT, "Such as `user:1234`.", required=True)
_PAGE: Final = (
    Parameter("after", schemas.TEXT, "The `next` of the page before."),
    Parameter("limit", schemas.PAGE, f"Rows of a page; {reading.PAGE} by default."),
)
_SPAN: Final = (
    Parameter("since", schemas.INSTANT, "Made from: milliseconds since 1970, or an ISO date or time."),
    Parameter("until", schemas.INSTANT, "Made before, likewise."),
)

ROUTES: Final = (
    Route(
        "POST",
        f"{_PROJECT}/reserve",
        "spend",
        reserve,
        "Set a hold's amount aside on all of its accounts that exist, or on none.",
        schemas.RESERVATION,
        body=schemas.HOLD,
        name="reserve",
    ),
    Route(
        "POST",
        f"{_PROJECT}/settle",
        "spend",
        settle,
        "Book what a call cost, once per hold id; with state `voided`, nothing.",
        schemas.SETTLED,
        body=schemas.record(hold=schemas.HOLD, settlement=schemas.SETTLEMENT),
        name="settle",
    ),
    Route(
        "POST",
        f"{_PROJECT}/attach",
        "spend",
        attach,
        "Note on a hold which answer of the provider's it waits for.",
        schemas.record(attached=schemas.FLAG),
        body=schemas.record(hold_id=schemas.HOLD_ID, request_id=schemas.TEXT),
        name="attach",
    ),
    Route(
        "GET",
        f"{_PROJECT}/attached",
        "read",
        attached,
        "Return the hold that an answer was attached to last.",
        schemas.record(record=schemas.maybe(schemas.RECORD)),
        parameters=(Parameter("request_id", schemas.TEXT, "The answer's id.", required=True),),
        name="attached",
    ),
    Route(
        "GET",
        f"{_PROJECT}/balance",
        "read",
        balance,
        "Return how an account stands now, null if it does not exist.",
        schemas.record(balance=schemas.maybe(schemas.BALANCE)),
        parameters=(_ACCOUNT,),
        name="balance",
    ),
    Route(
        "GET",
        f"{_PROJECT}/balances",
        "read",
        balances,
        "List accounts in order of their names.",
        schemas.record(balances=schemas.many(schemas.BALANCE), next=schemas.maybe(schemas.TEXT)),
        parameters=(Parameter("kind", schemas.TEXT, "Only this kind, such as `user`."), *_PAGE),
        heavy=True,
        name="balances",
    ),
    Route(
        "PUT",
        f"{_PROJECT}/budget",
        "spend",
        set_budget,
        "Make an account, or change the limit and window of one that exists and keep its spend.",
        schemas.record(balance=schemas.BALANCE),
        body=schemas.record(account=schemas.ACCOUNT, budget=schemas.BUDGET, ephemeral=schemas.FLAG),
        name="set_budget",
    ),
    Route(
        "POST",
        f"{_PROJECT}/reset",
        "admin",
        reset,
        "Set what an account has spent to nothing.",
        schemas.record(balance=schemas.maybe(schemas.BALANCE)),
        body=schemas.record(account=schemas.ACCOUNT),
        name="reset",
    ),
    Route(
        "DELETE",
        f"{_PROJECT}/budget",
        "admin",
        delete,
        "Forget an account, and tell whether it existed.",
        schemas.record(deleted=schemas.FLAG),
        parameters=(_ACCOUNT,),
        name="delete",
    ),
    Route(
        "GET",
        f"{_PROJECT}/holds",
        "read",
        holds,
        "List open holds, oldest first.",
        schemas.record(records=schemas.many(schemas.RECORD), next=schemas.maybe(schemas.HOLD_ID)),
        parameters=(Parameter("account", schemas.ACCOUNT, "Only this account's."), *_PAGE),
        heavy=True,
        name="holds",
    ),
    Route(
        "GET",
        f"{_PROJECT}/calls",
        "read",
        calls,
        "List calls, ended or open, oldest first.",
        schemas.record(records=schemas.many(schemas.RECORD), next=schemas.maybe(schemas.HOLD_ID)),
        parameters=(*_SPAN, Parameter("after", schemas.HOLD_ID, _PAGE[0].description), _PAGE[1]),
        heavy=True,
        name="calls",
    ),
    Route(
        "GET",
        f"{_PROJECT}/observations",
        "read",
        observations,
        "Return what has been observed of a model's answers: counts by bucket.",
        schemas.record(observations=schemas.COUNTS),
        parameters=(Parameter("model", schemas.TEXT, "The model's name.", required=True),),
        name="observations",
    ),
    Route(
        "GET",
        f"{_PROJECT}/report",
        "read",
        report,
        "Add up calls; money as USD text, days of UTC.",
        schemas.REPORT,
        parameters=(Parameter("by", schemas.BY, "Dimensions, separated by commas."), *_SPAN),
        heavy=True,
        name="report",
    ),
)
