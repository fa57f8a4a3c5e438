"""Forecasts over the service: as its document says, only if asked for, and told to the webhook once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import validator_for

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Settlement, new_hold
from budgetguard.guard import Guard
from budgetguard.server.app import ROUTES
from budgetguard.server.openapi import document
from budgetguard.server.webhooks import Webhook
from budgetguard.stores.base import Store, open_store
from budgetguard.testing.clock import FakeClock

from .receivers import SECRET, receiving
from .services import Service, running

HOUR = 3600
CENT = 10_000_000
BASE = "/v1/projects/p"


def spend(store: Store, clock: FakeClock, hours: int, account: str = "user:1") -> None:
    for _ in range(hours):
        hold = new_hold(clock(), (Charge(account),), amount=2 * CENT, ttl=60_000, user="1", model="m")
        store.settle(hold, Settlement(CENT))
        clock.advance(HOUR)


def checked(path: str, answer: Any) -> Any:
    """Return an answer that the document describes."""
    made = document(ROUTES)
    described = made["paths"][f"/v1/projects/{{project}}/{path}"]["get"]["responses"]["200"]
    schema = described["content"]["application/json"]["schema"]
    validator_for({**schema, "components": made["components"]}).validate(answer)
    return answer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_forecast_is_answered_only_if_it_is_asked_for(tmp_path: Path, clock: FakeClock) -> None:
    with running(f"disk://{tmp_path}/b", clock=clock) as service, service.client() as client:
        store = open_store(service.url, project="p", clock=clock)
        for user in ("1", "2"):
            store.set_budget(f"user:{user}", Budget(100 * CENT, "30d"))
        spend(store, clock, 48)

        def get(path: str, **query: str) -> Any:
            answer = client.get(f"{BASE}/{path}", params=query)
            assert answer.status_code == 200, answer.text
            return checked(path, answer.json())

        assert get("balance", account="user:1").keys() == {"balance"}
        assert get("balance", account="user:1", forecast="false").keys() == {"balance"}
        made = get("balance", account="user:1", forecast="true")
        assert made["balance"] == get("balance", account="user:1")["balance"]
        assert made["forecast"]["expected_nanos"] == pytest.approx(720 * CENT, rel=0.05)
        assert made["forecast"]["low_nanos"] < made["forecast"]["expected_nanos"]
        assert clock() < made["forecast"]["reached_ms"] < made["forecast"]["until_ms"]
        assert get("balance", account="user:nobody", forecast="true") == {"balance": None, "forecast": None}
        assert get("balances").keys() == {"balances", "next"}
        page = get("balances", forecast="true", limit="1")
        assert page["forecasts"] == {"user:1": made["forecast"]}
        rest = get("balances", forecast="true", after=page["next"])
        assert [(name, one["is_known"]) for name, one in rest["forecasts"].items()] == [("user:2", False)]
        for path in ("balance", "balances"):
            wrong = client.get(f"{BASE}/{path}", params={"account": "user:1", "forecast": "maybe"})
            assert wrong.status_code == 422
        assert (
            "give true or false, not 'maybe'"
            in client.get(f"{BASE}/balance", params={"account": "user:1", "forecast": "maybe"}).json()[
                "message"
            ]
        )
        guard = Guard(store=store, clock=clock)
        assert guard.balance("1").forecast.expected_nanos == made["forecast"]["expected_nanos"]
        guard.close()


def test_the_webhook_is_told_once_a_window_that_a_budget_will_be_exceeded(
    tmp_path: Path, clock: FakeClock
) -> None:
    with receiving() as receiver:
        hook = Webhook(receiver.url, SECRET)
        options: dict[str, Any] = {"refresh": 0.05, "retry": 0.01, "lease": 600.0}
        with running(
            f"disk://{tmp_path}/b", clock=clock, webhook=hook, thresholds=(40, 60, 80), **options
        ) as service:
            store = _opened(service, clock)
            store.set_budget("user:1", Budget(100 * CENT, "7d"))
            store.set_budget("user:modest", Budget(200 * CENT, "7d"))
            spend(store, clock, 41)
            (told,) = receiver.wait_for(1, "forecast.exceeded")
            spend(store, clock, 40)
            spend(store, clock, 81, "user:modest")
            receiver.wait_for(4, "threshold.crossed")
            store.close()
        # When the service has stopped, whatever was to be told was told.
        kinds = [one.event["type"] for one in receiver.taken]
        assert (kinds.count("threshold.crossed"), kinds.count("forecast.exceeded")) == (4, 1)
        data = told["data"]
        assert (data["project"], data["account"], data["balance"]["spent_nanos"]) == (
            "p",
            "user:1",
            40 * CENT,
        )
        assert data["forecast"]["expected_nanos"] == pytest.approx(168 * CENT, rel=0.05)
        assert data["forecast"]["expected_nanos"] > data["balance"]["limit_nanos"]


def _opened(service: Service, clock: FakeClock) -> Store:
    return open_store(service.url, project="p", clock=clock)
