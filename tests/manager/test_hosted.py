"""A hosted manager: at a service of ours, and at a server that speaks LiteLLM's protocol alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import budgetguard
from budgetguard import BudgetManager, ConfigurationError, Guard, StoreError, UnknownUserError, budget_user
from budgetguard.testing.clock import FakeClock
from tests.manager.answers import COST, COST_NANOS, MESSAGES, MODEL, completion
from tests.manager.litellm_server import LiteLLMServer
from tests.provider.server import OpenAIServer
from tests.server.services import Service, running

DAY = 86_400


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(f"disk://{tmp_path / 'service'}") as made:
        yield made


@pytest.fixture
def server() -> Iterator[LiteLLMServer]:
    with LiteLLMServer() as made:
        yield made


@pytest.fixture
def elsewhere(clock: FakeClock) -> Iterator[Guard]:
    """The guard of a program whose own balances live somewhere else."""
    made = Guard(store="memory://", project="app", clock=clock)
    yield made
    made.close()


@pytest.fixture
def theirs(server: LiteLLMServer, elsewhere: Guard) -> BudgetManager:
    """A manager at a server that speaks LiteLLM's protocol alone."""
    return BudgetManager("app", "hosted", server.url, guard=elsewhere)


# What is checked at once


@pytest.mark.parametrize(
    ("api_base", "headers", "says"),
    [
        (None, None, "client_type='hosted' needs the service's address: api_base='https://"),
        ("", None, "needs the service's address"),
        ("budgets.example.com", None, "is no address of a service"),
        ("ftp://host", None, "is no address of a service"),
        ("https://host", ["Authorization"], "headers must be a dict of names and texts, not list"),
        (
            "https://host",
            {"Authorization": "Bearer a\nb"},
            "the header 'Authorization' must be text of visible",
        ),
        ("https://host", {"a b": "c"}, "'a b' is no name of one"),
    ],
)
def test_a_bad_address_or_header_is_refused_at_once(api_base: Any, headers: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says.replace("(", r"\(")):
        BudgetManager("app", "hosted", api_base, headers, guard=Guard(store="memory://"))


def test_nothing_is_asked_before_the_first_method(server: LiteLLMServer, theirs: BudgetManager) -> None:
    assert server.seen == []
    assert theirs.get_users() == []
    assert [request.target.partition("?")[0] for request in server.seen] == [
        "/v1/projects/app/balances",
        "/get_budget",
    ]
    theirs.get_users()
    assert [request.target for request in server.seen[2:]] == ["/get_budget"]


def test_a_service_that_is_away_is_a_store_error_and_asked_again_next_time(
    server: LiteLLMServer, elsewhere: Guard
) -> None:
    manager = BudgetManager("app", "hosted", f"{server.url}?timeout=1", guard=elsewhere)
    project = "/v1/projects/app/balances?limit=1"
    server.answer[project] = (503, b"{}")
    with pytest.raises(StoreError, match="cannot use its own store, or is starting"):
        manager.get_users()
    del server.answer[project]
    assert manager.get_users() == []


# At a service of ours


def test_users_are_made_charged_and_reset_at_the_service_and_nowhere_else(
    service: Service, elsewhere: Guard
) -> None:
    manager = BudgetManager("app", "hosted", service.url, guard=elsewhere)
    assert manager.create_budget(10, "1234", "weekly")["duration"] == 7
    assert manager.update_cost("1234", completion())["user"]["model_cost"] == {MODEL: COST}
    assert list(elsewhere.users()) == []
    store = service.open("app")
    balance = store.read("user:1234")
    assert balance is not None
    assert (balance.limit_nanos, balance.spent_nanos) == (10 * 10**9, COST_NANOS)
    store.close()
    assert BudgetManager("app", "hosted", service.url, guard=elsewhere).get_current_cost("1234") == COST
    assert manager.reset_cost("1234")["user"]["current_cost"] == 0
    with pytest.raises(UnknownUserError, match="'nobody' has no budget in project 'app'"):
        manager.update_cost("nobody", completion())
    assert manager.is_valid_user("nobody") is False
    assert manager.save_data() == {"status": "success"}


def test_prices_and_hooks_are_the_guards(service: Service, elsewhere: Guard) -> None:
    manager = BudgetManager("app", "hosted", service.url, guard=elsewhere)
    seen: list[object] = []
    elsewhere.on(seen.append, budgetguard.events.ThresholdCrossed)
    manager.create_budget(1, "1234")
    elsewhere.register_price("ours", input=1_000_000, output=0)
    assert manager.update_cost("1234", completion(1, 0, model="ours"))["user"]["current_cost"] == 1.0
    assert len(seen) == 3
    elsewhere.configure(unknown_model="allow")
    assert manager.update_cost("1234", completion(model="unheard-of"))["user"]["current_cost"] == 1.0


def test_headers_take_the_place_of_the_key(
    service: Service, elsewhere: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = service.key("app")
    monkeypatch.setenv("BUDGETGUARD_API_KEY", key)
    BudgetManager("app", "hosted", service.url, guard=elsewhere).create_budget(10, "1234")
    without = BudgetManager("app", "hosted", service.url, {"X-Team": "a"}, guard=elsewhere)
    with pytest.raises(StoreError, match="it wants a key that it knows"):
        without.get_users()
    monkeypatch.delenv("BUDGETGUARD_API_KEY")
    bearer = {"Authorization": f"Bearer {key}"}
    assert BudgetManager("app", "hosted", service.url, bearer, guard=elsewhere).get_users() == ["1234"]


@pytest.mark.parametrize("headers", [None, {"X-Team": "a"}])
def test_what_a_patched_client_has_charged_at_the_service_is_not_booked_again(
    service: Service, headers: dict[str, str] | None
) -> None:
    guard = Guard(store=f"{service.url}/?timeout=30", project="app")
    manager = BudgetManager("app", "hosted", service.url, headers, guard=guard)
    manager.create_budget(10, "1234")
    with OpenAIServer() as provider, OpenAI(base_url=provider.base_url, api_key="test") as plain:
        client = guard.wrap(plain)
        with budget_user("1234"):
            answer = client.chat.completions.create(model=MODEL, messages=MESSAGES)
        spent = manager.get_current_cost("1234")
        assert spent > 0
        manager.update_cost("1234", answer)
        assert manager.get_current_cost("1234") == spent
    guard.close()


def test_managers_in_threads_lose_no_update(service: Service) -> None:
    guards = [Guard(store="memory://", project="app") for _ in range(4)]
    managers = [BudgetManager("app", "hosted", service.url, guard=guard) for guard in guards]
    managers[0].create_budget(1_000, "1234")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: managers[n % 4].update_cost("1234", completion()), range(100)))
    assert managers[0].get_current_cost("1234") == pytest.approx(100 * COST)


# At a server of LiteLLM's protocol


def test_records_are_litellms_and_stored_as_it_stores_them(
    server: LiteLLMServer, theirs: BudgetManager, clock: FakeClock
) -> None:
    now = clock() / 1000
    expected = {
        "total_budget": 10.0,
        "duration": 28,
        "created_at": now,
        "last_updated_at": now,
        "current_cost": 0,
        "model_cost": {},
    }
    assert theirs.create_budget(10, "1234", "monthly") == expected
    assert server.stored == {"app": {"1234": expected}}
    assert theirs.update_cost("1234", completion())["user"] == {
        **expected,
        "current_cost": COST,
        "model_cost": {MODEL: COST},
    }
    assert server.stored["app"]["1234"]["current_cost"] == COST
    assert (theirs.get_total_budget("1234"), theirs.get_model_cost("1234")) == (10.0, {MODEL: COST})
    assert theirs.projected_cost(MODEL, MESSAGES, "1234") > COST
    assert theirs.reset_cost("1234")["user"]["current_cost"] == 0
    assert server.stored["app"]["1234"] == {**expected, "current_cost": 0, "model_cost": {}}


@pytest.mark.parametrize(
    ("duration", "days"),
    [("daily", 1), ("weekly", 7), ("monthly", 28), ("yearly", 365), ("7d", 7), ("2w", 14)],
)
def test_durations_are_whole_days_as_litellm_counts_them(
    server: LiteLLMServer, theirs: BudgetManager, clock: FakeClock, duration: str, days: int
) -> None:
    theirs.create_budget(10, "1234", duration)
    assert server.stored["app"]["1234"]["duration"] == days
    theirs.update_cost("1234", completion())
    clock.advance(days * DAY - 1)
    assert theirs.get_current_cost("1234") == COST
    clock.advance(1)
    assert theirs.get_current_cost("1234") == 0
    theirs.update_cost("1234", completion())
    stored = server.stored["app"]["1234"]
    assert (stored["current_cost"], stored["last_updated_at"]) == (COST, clock() / 1000)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"duration": "hourly"}, "'hourly' is shorter"),
        ({"duration": "2mo"}, "'2mo' is no number of them"),
        ({"duration": "daily", "timezone": "Europe/Berlin"}, "windows cannot follow Europe/Berlin"),
    ],
)
def test_what_the_protocol_cannot_keep_is_refused_and_changes_nothing(
    server: LiteLLMServer, theirs: BudgetManager, arguments: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{says}.*`budgetguard serve` keeps more"):
        theirs.create_budget(10, "1234", **arguments)  # type: ignore[arg-type]  # one of them is
    assert server.stored == {}


def test_there_are_no_holds_and_no_records_so_nothing_can_be_imported(
    theirs: BudgetManager, tmp_path: Path
) -> None:
    theirs.create_budget(10, "1234")
    path = tmp_path / "user_cost.json"
    path.write_text(json.dumps({"anna": {"total_budget": 10}}))
    with pytest.raises(ConfigurationError, match="which keeps no records of calls"):
        theirs.import_litellm(path)
    with pytest.raises(ConfigurationError, match="which keeps no holds, so no call can be guarded by it"):
        theirs._guard.store.reserve(None)  # type: ignore[arg-type]  # whatever it is


def test_a_user_made_again_keeps_spend_and_window(
    server: LiteLLMServer, theirs: BudgetManager, clock: FakeClock
) -> None:
    made = theirs.create_budget(10, "1234", "weekly")
    theirs.update_cost("1234", completion())
    clock.advance(DAY)
    again = theirs.create_budget(20, "1234", "weekly")
    assert again == {**made, "total_budget": 20.0, "current_cost": COST, "model_cost": {MODEL: COST}}
    assert theirs.create_budget(20, "1234", "daily")["last_updated_at"] == clock() / 1000
    assert "duration" not in theirs.create_budget(20, "1234")
    assert theirs.get_current_cost("1234") == COST


def test_what_other_clients_keep_beside_is_left_as_it_was(
    server: LiteLLMServer, theirs: BudgetManager
) -> None:
    anna = {"total_budget": "ten", "current_cost": -1, "extra": [1]}
    old = {"total_budget": 10, "current_cost": 0.5, "created_at": 1.5, "note": "x"}
    server.stored["app"] = {"anna": anna, "1234": dict(old)}
    theirs.update_cost("1234", completion())
    assert server.stored["app"]["anna"] == anna
    assert server.stored["app"]["1234"] == {
        **old,
        "current_cost": 0.5 + COST,
        "model_cost": {MODEL: COST},
    }
    with pytest.raises(StoreError, match=r"the record of 'user:anna' .* is not as LiteLLM writes it"):
        theirs.get_current_cost("anna")
    assert theirs.create_budget(1, "anna")["current_cost"] == 0


def test_each_change_starts_from_what_is_stored_and_not_from_what_was_read_once(
    server: LiteLLMServer, theirs: BudgetManager
) -> None:
    theirs.create_budget(10, "1234")
    theirs.create_budget(10, "5678")
    server.stored["app"]["1234"]["current_cost"] = 3.0  # another client
    theirs.update_cost("5678", completion())
    assert server.stored["app"]["1234"]["current_cost"] == 3.0
    assert theirs.update_cost("1234", completion())["user"]["current_cost"] == 3.0 + COST


def test_what_another_client_writes_between_read_and_write_is_lost_and_nothing_else(
    server: LiteLLMServer, theirs: BudgetManager
) -> None:
    """The protocol cannot say more: this is what it costs, at most."""
    theirs.create_budget(10, "1234")

    def meanwhile(path: str) -> None:
        if path == "/set_budget":
            server.before = lambda _: None
            server.stored["app"]["1234"]["current_cost"] += 1

    server.before = meanwhile
    theirs.update_cost("1234", completion())
    assert theirs.get_current_cost("1234") == COST
    server.stored["app"]["1234"]["current_cost"] += 1
    theirs.update_cost("1234", completion())
    assert theirs.get_current_cost("1234") == 1 + 2 * COST


def test_threads_of_one_manager_lose_no_update_all_the_same(theirs: BudgetManager) -> None:
    theirs.create_budget(10, "1234")
    gate = threading.Barrier(8)

    def work(_: int) -> None:
        gate.wait()
        for _ in range(10):
            theirs.update_cost("1234", completion())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert theirs.get_current_cost("1234") == pytest.approx(80 * COST)


def hang_up(server: LiteLLMServer) -> None:
    server.answer["/set_budget"] = (500, b"oops")


def say_no(server: LiteLLMServer) -> None:
    server.answer["/set_budget"] = (200, b'{"status": "error"}')


@pytest.mark.parametrize("fail", [hang_up, say_no])
def test_a_write_that_fails_is_sent_once_and_is_a_store_error(
    server: LiteLLMServer, theirs: BudgetManager, fail: Callable[[LiteLLMServer], None]
) -> None:
    theirs.create_budget(10, "1234")
    fail(server)
    before = len(server.seen)
    with pytest.raises(StoreError, match="cannot use the service at"):
        theirs.update_cost("1234", completion())
    assert [request.target for request in server.seen[before:]] == ["/get_budget", "/set_budget"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"status": "success"}', b'{"status": "success", "data": 3}']
)
def test_what_speaks_neither_protocol_is_told(
    server: LiteLLMServer, theirs: BudgetManager, body: bytes
) -> None:
    server.answer["/get_budget"] = (200, body)
    with pytest.raises(StoreError, match="does not speak LiteLLM's hosted protocol, nor budgetguard's own"):
        theirs.get_users()
