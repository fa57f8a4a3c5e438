"""LiteLLM's hosted protocol: what its clients send is booked once each, whoever sends beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.process import system_clock
from budgetguard.core.windows import Clock
from budgetguard.stores import open_store
from budgetguard.testing.clock import FakeClock

from .litellm_client import LiteLLMClient
from .services import Service, running

CENT = 10_000_000
MakeClient = Callable[..., LiteLLMClient]


@pytest.fixture
def client(service: Service) -> Iterator[MakeClient]:
    made: list[LiteLLMClient] = []
    keys: dict[str, str] = {}

    def make(role: str = "spend", **options: Any) -> LiteLLMClient:
        if role not in keys:
            keys[role] = service.key("p", role)
        made.append(LiteLLMClient(service.url, keys[role], **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def balance(service: Service, user: str = "u", clock: Clock = system_clock) -> Balance:
    store = open_store(service.store_url, project="p", clock=clock)
    found = store.read(f"user:{user}")
    store.close()
    assert found is not None
    return found


def spent(service: Service, user: str = "u", clock: Clock = system_clock) -> int:
    return balance(service, user, clock).spent_nanos


def test_a_client_finds_what_it_stored(service: Service, client: MakeClient) -> None:
    one = client()
    assert one.user_dict == {}
    one.create_budget(10, "u", 28)
    one.update_cost("u", 0.25, "gpt-4o")
    one.update_cost("u", 0.5, "gpt-4o-mini")
    record = client().user_dict["u"]
    assert record["total_budget"] == 10
    assert record["duration"] == 28
    assert record["current_cost"] == 0.75
    assert record["model_cost"] == {"gpt-4o": 0.25, "gpt-4o-mini": 0.5}
    assert {"created_at", "last_updated_at"} < record.keys()
    assert balance(service).models == {"gpt-4o": 25 * CENT, "gpt-4o-mini": 50 * CENT}


@pytest.mark.full
@pytest.mark.parametrize(
    ("days", "made_by"),
    [
        (28, "each of them"),
        pytest.param(28, "one of them", marks=pytest.mark.full),
        pytest.param(None, "each of them", marks=pytest.mark.full),
        pytest.param(None, "one of them", marks=pytest.mark.full),
    ],
)
def test_four_clients_at_once_lose_nothing(
    service: Service, client: MakeClient, days: int | None, made_by: str
) -> None:
    if made_by == "one of them":
        first = client()
        first.create_budget(100, "u", days)
        first.save()
    clients = [client(imported_at=1_700_000_000.5 + number) for number in range(4)]
    if made_by == "each of them":
        for one in clients:
            one.create_budget(100, "u", days)

    def work(one: LiteLLMClient) -> None:
        for _ in range(100):
            one.update_cost("u", 0.01)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, clients))
    assert spent(service) == 400 * CENT
    assert client().user_dict["u"]["current_cost"] == 4


def test_requests_of_one_client_that_overtake_each_other_book_what_it_spent(
    service: Service, client: MakeClient
) -> None:
    one = client()
    one.create_budget(100, "u", 1)
    bodies = []
    for _ in range(60):
        one.spend("u", 0.01)
        bodies.append(one.body())
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda body: one.post("set_budget", body), reversed(bodies)))
    assert spent(service) == 60 * CENT


def test_one_who_sends_others_records_unchanged_adds_nothing(service: Service, client: MakeClient) -> None:
    first = client()
    first.create_budget(10, "u", 1)
    first.create_budget(10, "v", 1)
    one, two = client(), client()
    one.update_cost("u", 0.01)
    two.update_cost("v", 0.02)
    one.update_cost("u", 0.01)
    assert (spent(service, "u"), spent(service, "v")) == (2 * CENT, 2 * CENT)


def test_a_client_whose_http_keeps_no_cookies_is_told_by_what_it_was_handed(
    service: Service, client: MakeClient
) -> None:
    client().create_budget(10, "u", 1)
    for one in (client(cookies=False), client(cookies=False)):
        one.update_cost("u", 0.01)
    assert spent(service) == 2 * CENT


def test_a_client_that_drops_what_it_does_not_know_is_told_by_the_record_s_time_while_the_service_runs(
    tmp_path: Path,
) -> None:
    url = f"disk://{tmp_path}/budgets"
    with running(url) as service:
        first = LiteLLMClient(service.url)
        first.create_budget(10, "u", 1)
        first.update_cost("u", 0.05)
        both = [LiteLLMClient(service.url, cookies=False) for _ in range(2)]
        for one in both:
            del one.user_dict["u"]["view"]
            for _ in range(3):
                one.update_cost("u", 0.01)
        assert spent(service) == 11 * CENT
    with running(url) as service, httpx2.Client() as http:
        refused = http.post(f"{service.url}/set_budget", json=both[0].body())
        assert refused.status_code == 422
        assert "'view'" in refused.json()["message"]
        assert spent(service) == 11 * CENT
    for one in (first, *both):
        one.close()


def test_a_process_that_starts_again_and_makes_its_budget_again_goes_on(
    service: Service, client: MakeClient
) -> None:
    for start in range(3):
        one = client(imported_at=1_700_000_000.0 + start)
        one.create_budget(10, "u")
        one.update_cost("u", 0.05)
        one.update_cost("u", 0.01)
    assert spent(service) == 18 * CENT


def test_limits_that_clients_change_are_changed_and_those_that_they_only_repeat_are_not(
    service: Service, client: MakeClient
) -> None:
    one = client()
    one.create_budget(10, "u", 1)
    store = service.open()
    store.set_budget("user:u", Budget(77))
    one.update_cost("u", 0.01)
    assert balance(service).limit_nanos == 77
    two = client()
    store.set_budget("user:u", Budget(88))
    two.update_cost("u", 0.01)
    two.update_cost("u", 0.01)
    assert balance(service).limit_nanos == 88
    two.create_budget(20, "u", 7)
    after = balance(service)  # a window would end, and what is booked with it
    assert (after.limit_nanos, after.duration, after.spent_nanos) == (2_000 * CENT, None, 3 * CENT)
    four = client("admin")
    four.create_budget(20, "u", 7)
    after = balance(service)
    assert (after.limit_nanos, after.duration, after.spent_nanos) == (2_000 * CENT, "7d", 3 * CENT)
    two.create_budget(10, "idle")
    two.create_budget(10, "idle", 7)
    found = store.read("user:idle")
    assert found is not None
    assert found.duration == "7d"
    three = client()
    three.user_dict["u"]["total_budget"] = 30
    three.save()
    assert balance(service).limit_nanos == 3_000 * CENT
    store.close()


@pytest.mark.parametrize(("role", "left"), [("spend", 6 * CENT), ("admin", CENT)])
def test_only_an_administrator_s_reset_takes_back_what_is_booked(
    service: Service, client: MakeClient, role: str, left: int
) -> None:
    one = client(role)
    one.create_budget(10, "u", 1)
    one.update_cost("u", 0.05)
    two = client(role)
    two.reset_cost("u")
    two.update_cost("u", 0.01)
    two.save()
    assert spent(service) == left


def test_a_client_s_own_reset_when_its_time_is_over_lets_it_go_on_from_nothing(
    service: Service, client: MakeClient
) -> None:
    for kind, is_handed in (("spend", True), ("admin", True), ("spend", False)):
        one = client(kind, imported_at=1_790_000_000)
        user = f"{kind} {is_handed}"
        one.create_budget(10, user, 1)
        if is_handed:
            one = client(kind)
        one.update_cost(user, 0.05)
        one.reset_on_duration(user)
        assert spent(service, user) == 5 * CENT  # windows are the service's, whoever asks
        one.update_cost(user, 0.02)
        assert spent(service, user) == 7 * CENT


def test_a_smaller_sum_is_late_at_first_and_new_after_a_minute(tmp_path: Path) -> None:
    clock = FakeClock()
    with running(f"disk://{tmp_path}/budgets", clock=clock) as service:
        one = LiteLLMClient(service.url, cookies=False)
        one.create_budget(10, "u")
        one.update_cost("u", 0.05)
        one.create_budget(10, "u")  # made again: its sum starts again, and nothing else tells it
        one.update_cost("u", 0.01)
        assert spent(service) == 5 * CENT
        clock.advance(61)
        one.save()
        assert spent(service) == 6 * CENT
        one.update_cost("u", 0.01)
        assert spent(service) == 7 * CENT
        one.close()


def test_what_was_reported_survives_the_service(tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/budgets"
    with running(url) as service:
        one = LiteLLMClient(service.url)
        one.create_budget(10, "u")
        one.update_cost("u", 0.05)
    with running(url) as service:
        one.url = service.url
        one.save()
        assert spent(service) == 5 * CENT
        one.update_cost("u", 0.05)
        assert spent(service) == 10 * CENT
    one.close()


def test_two_servers_on_one_store_book_each_report_once(tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/budgets"
    with running(url) as first, running(url) as second:
        one = LiteLLMClient(first.url)
        one.create_budget(100, "u", 1)
        bodies = []
        for _ in range(40):
            one.spend("u", 0.01)
            bodies.append(one.body())
        cookies = one.http.cookies
        with httpx2.Client(cookies=dict(cookies), timeout=60) as http, ThreadPoolExecutor(8) as pool:
            sent = [
                pool.submit(http.post, f"{server.url}/set_budget", json=body)
                for body in bodies
                for server in (first, second)
            ]
            assert {one.result().status_code for one in sent} == {200}
        assert spent(first) == 40 * CENT
        one.close()


def test_a_window_that_is_over_is_over_for_clients_too(tmp_path: Path) -> None:
    clock = FakeClock()
    with running(f"disk://{tmp_path}/budgets", clock=clock) as service:
        one = LiteLLMClient(service.url, imported_at=clock() / 1000)
        one.create_budget(10, "u", 1)
        one.update_cost("u", 0.05)
        clock.advance(86_401)
        assert spent(service, clock=clock) == 0
        one.update_cost("u", 0.01)
        assert spent(service, clock=clock) == CENT
        one.close()


def test_a_limit_below_nothing_is_none_and_stops_nobody_elses_changes(
    service: Service, client: MakeClient
) -> None:
    one = client()
    one.create_budget(-5, "below", 28)
    one.create_budget(10, "u", 28)
    one.update_cost("u", 0.25, "gpt-4o")
    assert spent(service) == 25 * CENT
    assert balance(service, "below").limit_nanos == 0
    again = client()
    assert again.user_dict["below"]["total_budget"] == 0
    again.update_cost("u", 0.25, "gpt-4o")
    one.update_cost("u", 0.25, "gpt-4o")
    assert spent(service) == 75 * CENT


def test_fields_of_a_record_that_are_not_known_are_ignored(service: Service) -> None:
    with service.client(service.key()) as client:
        record = {"total_budget": 1, "duration": 30.0, "colour": "blue"}
        body = {"project_name": "p", "user_dict": {"u": record}}
        assert client.post("/set_budget", json=body).json() == {"status": "success"}
        assert client.post("/get_budget", json={"project_name": "p"}).json()["data"]["u"]["duration"] == 30
