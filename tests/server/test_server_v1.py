"""The service's own protocol, over real sockets."""

from __future__ import annotations

from typing import Any

import httpx2

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.core.usage import Usage

from .requests_of import to_json
from .services import Service

BASE = "/v1/projects/p"


def hold(amount: int = 60, user: str = "1", **values: Any) -> Hold:
    now = system_clock()
    charges = (Charge(f"user:{user}", required=True),)
    return Hold(new_hold_id(now), charges, amount, amount, 60_000, now, user=user, model="gpt-4o", **values)


def budget(client: httpx2.Client, limit: int, account: str = "user:1", base: str = BASE) -> dict[str, Any]:
    body = {"account": account, "budget": to_json(Budget(limit)), "ephemeral": False}
    return answered(client.put(f"{base}/budget", json=body))["balance"]


def answered(response: httpx2.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def test_a_call_is_held_and_settled_over_the_socket(service: Service) -> None:
    with service.client(service.key()) as client:
        assert budget(client, 100)["limit_nanos"] == 100
        made = hold(60)
        granted = answered(client.post(f"{BASE}/reserve", json=to_json(made)))
        assert (granted["answer"], granted["repeated"]) == ("granted", False)
        assert answered(client.post(f"{BASE}/reserve", json=to_json(made)))["repeated"]
        refused = answered(client.post(f"{BASE}/reserve", json=to_json(hold(50))))
        assert (refused["answer"], refused["balance"]["held_nanos"]) == ("refused", 60)
        ended = {
            "hold": to_json(made),
            "settlement": to_json(Settlement(45, usage=Usage.of(input_tokens=3))),
        }
        assert answered(client.post(f"{BASE}/settle", json=ended))["booked"] == 45
        assert answered(client.post(f"{BASE}/settle", json=ended))["repeated"]
        found = answered(client.get(f"{BASE}/balance", params={"account": "user:1"}))["balance"]
        assert (found["spent_nanos"], found["held_nanos"]) == (45, 0)
