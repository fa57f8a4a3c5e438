"""Several servers on one PostgreSQL, and on Valkey: one set of budgets, keys and views."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.stores import SERVABLE, Row

from .litellm_client import LiteLLMClient
from .requests_of import hold, to_json
from .services import Service, running

CENT = 10_000_000


@pytest.fixture(params=[row for row in SERVABLE if row.name != "disk"], ids=lambda row: row.name)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Service, Service]]:
    """Two servers on one store of other hosts."""
    row: Row = request.param
    with row.serve(tmp_path) as place, ExitStack() as stack:
        first, second = (stack.enter_context(running(place.url, rate="none")) for _ in range(2))
        yield first, second


@pytest.mark.full
def test_four_litellm_clients_of_two_servers_lose_nothing(fleet: tuple[Service, Service]) -> None:
    key = fleet[0].key("p", "spend")
    clients = [
        LiteLLMClient(fleet[number % 2].url, key, imported_at=1_700_000_000.25 + number)
        for number in range(4)
    ]
    for one in clients:
        one.create_budget(100, "u", 28)

    def work(one: LiteLLMClient) -> None:
        for _ in range(25):
            one.update_cost("u", 0.01)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, clients))
    again = LiteLLMClient(fleet[1].url, key)
    assert again.user_dict["u"]["current_cost"] == 1.0
    for one in (*clients, again):
        one.close()


@pytest.mark.full
def test_requests_that_reach_both_servers_at_once_are_booked_once(fleet: tuple[Service, Service]) -> None:
    key = fleet[0].key("p", "spend")
    one = LiteLLMClient(fleet[0].url, key, cookies=False)
    one.create_budget(100, "u", 28)
    bodies = []
    for _ in range(20):
        one.spend("u", 0.01)
        bodies.append(one.body())

    def send(body: object) -> None:
        for server in fleet:
            with server.client(key) as client:
                assert client.post("/set_budget", json=body).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, bodies))
    again = LiteLLMClient(fleet[1].url, key)
    assert again.user_dict["u"]["current_cost"] == 0.2
    for client in (one, again):
        client.close()


def test_ten_calls_are_granted_by_whichever_server(fleet: tuple[Service, Service]) -> None:
    key = fleet[0].key()
    budget = {"limit": 100, "duration": None, "timezone": "UTC", "starts_at": None}
    with fleet[0].client(key) as client:
        client.put("/v1/projects/p/budget", json={"account": "user:1", "budget": budget, "ephemeral": False})

    def ask(number: int) -> str:
        with fleet[number % 2].client(key) as client:
            response = client.post("/v1/projects/p/reserve", json=to_json(hold(10)))
        answer: str = response.json()["answer"]
        return answer

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(32)))
    assert sorted(answers) == ["granted"] * 10 + ["refused"] * 22


def test_a_key_revoked_at_one_is_refused_by_both(fleet: tuple[Service, Service]) -> None:
    fleet[1].key()
    key = fleet[0].key()
    for server in fleet:
        with server.client(key) as client:
            assert client.get("/v1/projects/p/balances").status_code == 200
    fleet[0].revoke(key)
    for server in fleet:
        with server.client(key) as client:
            assert client.get("/v1/projects/p/balances").status_code == 401
