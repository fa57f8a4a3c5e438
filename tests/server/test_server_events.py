"""What the service sends to a webhook: each event once, signed, through failures and restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

from budgetguard.accounts import Budget
from budgetguard.holds import Settlement
from budgetguard.server.webhooks import Webhook
from budgetguard.wire.requests import hold_to_json, settlement_to_json

from .receivers import SECRET, Receiver, receiving
from .requests_of import hold
from .services import Service, running

OTHER_SECRET = SECRET[:-4] + "AAA="
QUICK: dict[str, Any] = {"refresh": 0.05, "retry": 0.01, "lease": 600.0}


def spend(client: httpx2.Client, cost: int, account: str = "user:1") -> dict[str, Any]:
    body = {"hold": hold_to_json(hold(0, account)), "settlement": settlement_to_json(Settlement(cost))}
    answer = client.post("/v1/projects/p/settle", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def budget(service: Service, account: str = "user:1", limit: int = 100) -> None:
    store = service.open()
    store.set_budget(account, Budget(limit))
    store.close()


def thresholds(receiver: Receiver) -> list[tuple[str, int]]:
    events = [one.event for one in receiver.taken]
    return [
        (one["data"]["account"], one["data"]["threshold"])
        for one in events
        if one["type"] == "threshold.crossed"
    ]


def test_a_crossing_is_sent_until_it_is_taken_and_then_no_more(tmp_path: Path) -> None:
    with receiving(503, 500) as receiver:
        hook = Webhook(receiver.url, SECRET)
        with running(f"disk://{tmp_path}/b", webhook=hook, thresholds=(80, 100), **QUICK) as service:
            budget(service)
            with service.client() as client:
                assert spend(client, 79)["crossings"] == []
                spend(client, 1)
                assert receiver.wait_for(1)[0]["data"] | {"balance": None} == {
                    "project": "p",
                    "account": "user:1",
                    "threshold": 80,
                    "balance": None,
                }
                spend(client, 20)
                spend(client, 20)
                receiver.wait_for(2)
        assert thresholds(receiver) == [("user:1", 80), ("user:1", 100)]
        assert [one.status for one in receiver.came] == [503, 500, 200, 200]
        assert len({one.id for one in receiver.came[:3]}) == 1
        assert receiver.came[3].id != receiver.came[0].id
        assert all(one.is_signed_with(SECRET) for one in receiver.came)
        assert not any(one.is_signed_with(OTHER_SECRET) for one in receiver.came)
