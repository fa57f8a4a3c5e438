"""One good request of each route, and what it takes to send it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from budgetguard.core.accounts import Budget, Document
from budgetguard.core.holds import Charge, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.server.app import ROUTES
from budgetguard.server.routes import ApiRoute
from budgetguard.stores.wire import plain

BY_NAME = {route.name: route for route in ROUTES}


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold a good request of a route."""

    route: ApiRoute
    query: dict[str, str]
    body: Any

    def send(self, client: httpx2.Client, project: str = "p") -> httpx2.Response:
        """Send it for a project."""
        path = self.route.path.replace("{project}", quote(project, safe=""))
        body = self.body
        if isinstance(body, dict) and "project_name" in body:
            body = {**body, "project_name": project}
        return client.request(self.route.method, path, params=self.query or None, json=body)


def hold(amount: int = 60, account: str = "user:1") -> Hold:
    now = system_clock()
    return Hold(
        new_hold_id(now), (Charge(account, required=True),), amount, amount, 60_000, now, model="gpt-4o"
    )


def to_json(value: object) -> Any:
    """Return a value of `core` as JSON values."""
    return json.loads(json.dumps(value, default=plain))


def samples() -> list[Sample]:
    """Return a good request of every route."""
    settled = {"hold": to_json(hold()), "settlement": to_json(Settlement(45))}
    budget = {"account": "user:1", "budget": to_json(Budget(100)), "ephemeral": False}
    account = {"account": "user:1"}
    parts: dict[str, tuple[dict[str, str], Any]] = {
        "litellm_get_budget": ({}, {"project_name": "p"}),
        "litellm_set_budget": ({}, {"project_name": "p", "user_dict": {"9": {"total_budget": 1}}}),
        "reserve": ({}, to_json(hold())),
        "settle": ({}, settled),
        "attach": ({}, {"hold_id": hold().id, "request_id": "resp_1"}),
        "attached": ({"request_id": "resp_1"}, None),
        "balance": (account, None),
        "balances": ({}, None),
        "set_budget": ({}, budget),
        "grant": ({}, {**account, "grant": {"id": "g1", "amount": 5, "until_ms": None}}),
        "set_labels": ({}, {**account, "labels": '{"team":"red"}'}),
        "mark": ({}, {**account, "mark": 0}),
        "scopes": ({}, None),
        "save_scopes": ({}, {"scopes": to_json(Document(1, "")), "seen": 0}),
        "trail": ({"since": "2026-01-01"}, None),
        "reset": ({}, account),
        "delete": (account, None),
        "holds": (account, None),
        "calls": ({"since": "2026-01-01"}, None),
        "observations": ({"model": "gpt-4o"}, None),
        "report": ({"by": "user,model"}, None),
    }
    assert parts.keys() == BY_NAME.keys(), "every route needs a sample, and every sample a route"
    return [Sample(BY_NAME[name], query, body) for name, (query, body) in parts.items()]
