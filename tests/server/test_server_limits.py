"""Against people who mean harm: what a key that spends cannot take away, nor one caller use up."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import VOID, Charge, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.core.windows import to_datetime
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.server import gates, quotas, webhooks
from budgetguard.server.bodies import MOST_VALUES, parse
from budgetguard.server.connections import Connections
from budgetguard.server.gates import Circuits, TurnGate
from budgetguard.server.problems import (
    BadRequest,
    ContentTooLarge,
    Problem,
    StoreUnavailable,
    TooManyRequests,
)
from budgetguard.server.views import Handed
from budgetguard.server.webhooks import Webhook
from budgetguard.stores.wire_reading import shown
from budgetguard.stores.wire_types import LATEST, read_hold

from .requests_of import hold, to_json
from .services import Service, running
from .test_server_process import free_port, serving

P = "/v1/projects/p"
_DAY = 86_400_000


@pytest.fixture
def spender(service: Service) -> Iterator[httpx2.Client]:
    """A key that spends; `user:1` has spent 40 of 100 this month, `user:2` for good, `user:3` holds 40."""
    store = service.open()
    for account, duration in (("user:1", "monthly"), ("user:2", None), ("user:3", None)):
        store.set_budget(account, Budget(100, duration))
        if account == "user:3":
            store.reserve(hold(40, account))
        else:
            store.settle(hold(40, account), Settlement(40))
    store.close()
    with service.client(service.key("p", "spend")) as client:
        yield client


def balance(client: httpx2.Client, account: str = "user:1") -> Any:
    return client.get(f"{P}/balance", params={"account": account}).json()["balance"]


def put(client: httpx2.Client, account: str = "user:1", **terms: Any) -> httpx2.Response:
    budget = {"limit": 100, "duration": "monthly", "timezone": "UTC", "starts_at": None, **terms}
    return client.put(f"{P}/budget", json={"account": account, "budget": budget, "ephemeral": False})


# What a key that spends cannot take away


@pytest.mark.parametrize(
    ("account", "terms"),
    [
        ("user:1", {"duration": "1s"}),
        ("user:1", {"duration": "yearly"}),
        ("user:1", {"duration": None}),
        ("user:1", {"timezone": "Asia/Tokyo"}),
        ("user:1", {"starts_at": system_clock() - 29 * _DAY}),
        ("user:1", {"starts_at": system_clock() + 1000}),
        ("user:1", {"duration": "1s", "starts_at": 0}),
        ("user:2", {"duration": "1s"}),
        ("user:2", {"duration": "7d"}),
        ("user:3", {"duration": "1s"}),
        ("user:3", {"duration": "7d"}),
        ("user:2", {"duration": "7d", "starts_at": system_clock() - 7 * _DAY + 1000}),
    ],
)
def test_a_key_that_spends_ends_no_window_early(
    service: Service, spender: httpx2.Client, account: str, terms: dict[str, Any]
) -> None:
    before = balance(spender, account)
    refused = put(spender, account, **terms)
    assert (refused.status_code, refused.json()["error"]) == (403, "Forbidden")
    assert balance(spender, account) == before
    with service.client(service.key("p", "admin")) as admin:
        assert put(admin, account, **terms).status_code == 200


def test_a_key_that_spends_makes_budgets_and_repeats_and_limits_them(spender: httpx2.Client) -> None:
    started = balance(spender)["starts_ms"]
    assert put(spender, limit=200).status_code == 403, "only who administers raises a budget"
    for terms in ({}, {"starts_at": started}, {"limit": 50}):
        answer = put(spender, **terms)
        assert answer.status_code == 200, answer.text
        assert answer.json()["balance"]["spent_nanos"] == 40
    assert put(spender, "user:new", duration="1s").status_code == 200
    for terms in ({"limit": 50, "duration": None}, {"limit": 50, "duration": None, "timezone": "Asia/Tokyo"}):
        assert put(spender, "user:2", **terms).json()["balance"]["spent_nanos"] == 40
    # One that has nothing booked may be given its first window, of a day at least.
    put(spender, "user:4", duration=None)
    assert put(spender, "user:4", duration="1h").status_code == 403
    assert put(spender, "user:4", duration="7d").json()["balance"]["duration"] == "7d"
    assert put(spender, "user:4", duration="8d").status_code == 403


@pytest.mark.parametrize(
    ("role", "settlement", "left"),
    [
        ("spend", VOID, 60),
        ("spend", Settlement(0), 60),
        ("spend", Settlement(25), 25),
        ("admin", VOID, 0),
    ],
)
def test_what_an_expiry_has_booked_stays_until_it_is_known_what_was_spent(
    service: Service, role: str, settlement: Settlement, left: int
) -> None:
    one = replace(hold(60), ttl=1)
    with service.client(service.key("p", role)) as client:
        put(client)
        client.post(f"{P}/reserve", json=to_json(one))
        while not balance(client)["expiries"]:
            time.sleep(0.01)
        body = {"hold": to_json(one), "settlement": to_json(settlement)}
        answer = client.post(f"{P}/settle", json=body)
        assert answer.json()["answer"] == "settled"
        assert balance(client)["spent_nanos"] == left
        # What comes later still counts, once.
        body["settlement"] = to_json(Settlement(30))
        client.post(f"{P}/settle", json=body)
        assert balance(client)["spent_nanos"] == (30 if left == 60 else left)


def test_a_key_that_spends_gives_back_a_hold_that_is_open(spender: httpx2.Client) -> None:
    one = hold(60)
    spender.post(f"{P}/reserve", json=to_json(one))
    assert balance(spender)["held_nanos"] == 60
    spender.post(f"{P}/settle", json={"hold": to_json(one), "settlement": to_json(VOID)})
    assert (balance(spender)["held_nanos"], balance(spender)["spent_nanos"]) == (0, 40)


@pytest.mark.parametrize("days", [1, 30, None])
def test_litellm_s_protocol_ends_no_window_early(spender: httpx2.Client, days: int | None) -> None:
    before = balance(spender)
    created = time.time() - 86_400 * (days or 1) + 2
    record = {"total_budget": 1.0, "duration": days, "created_at": created, "current_cost": 0.0}
    body = {"project_name": "p", "user_dict": {"1": record}}
    assert spender.post("/set_budget", json=body).status_code == 200
    after = balance(spender)
    assert after["limit_nanos"] == 10**9  # that it may say
    for name in ("spent_nanos", "duration", "starts_ms", "resets_ms"):
        assert after[name] == before[name]


# Without keys


@pytest.mark.parametrize("site", ["cross-site", "same-site", "whatever"])
def test_without_keys_a_browser_asks_for_no_other_site(open_service: Service, site: str) -> None:
    with open_service.client() as client:
        for method, path in (("GET", f"{P}/balances"), ("POST", "/get_budget"), ("GET", "/metrics")):
            answer = client.request(method, path, headers={"Sec-Fetch-Site": site})
            assert (answer.status_code, answer.json()["error"]) == (403, "Forbidden")
        for own in ("same-origin", "none"):
            assert client.get(f"{P}/balances", headers={"Sec-Fetch-Site": own}).status_code == 200


def test_what_only_reads_leaves_nothing_behind(tmp_path: Path) -> None:
    def rows() -> list[Any]:
        with closing(sqlite3.connect(tmp_path / "b" / "cache.db")) as con:
            return [con.execute(f"SELECT name FROM {table}").fetchall() for table in ("project", "accounts")]

    with running(f"disk://{tmp_path}/b", refresh=3600) as service, service.client() as client:
        put(client)
        time.sleep(0.2)
        before = rows()
        for query in (
            "balances",
            "balance?account=user:1",
            "holds",
            "calls",
            "report",
            "observations?model=m",
            "attached?request_id=r",
        ):
            assert client.get(f"/v1/projects/new/{query}").status_code == 200
        assert client.post("/get_budget", json={"project_name": "new"}).json()["data"] == {}
        assert rows() == before


@pytest.mark.parametrize("path", ["/healthz/", f"{P}/balances/", "//evil.example/"])
def test_nobody_is_sent_to_whatever_host_says(open_service: Service, path: str) -> None:
    with open_service.client() as client:
        answer = client.request("GET", f"{open_service.url}{path}", headers={"Host": "localhost"})
        assert (answer.status_code, answer.headers.get("location")) == (404, None)


# Gates


def test_one_project_has_its_share_and_others_theirs() -> None:
    async def main() -> None:
        gate = TurnGate(total=3, each=2, waiting=1, longest=60)
        inside, go_on = [], anyio.Event()

        async def ask(project: str) -> None:
            async with gate.enter(project, anyio.sleep_forever):
                inside.append(project)
                await go_on.wait()

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, "greedy")
            await anyio.wait_all_tasks_blocked()
            assert inside == ["greedy"] * 2
            with pytest.raises(TooManyRequests):
                await ask("greedy")
            group.start_soon(ask, "other")
            await anyio.wait_all_tasks_blocked()
            assert inside[2:] == ["other"]
            go_on.set()
        assert inside[3:] == ["greedy"]
        await ask("greedy")  # all places are free again

    anyio.run(main)


@pytest.mark.parametrize(("longest", "kind"), [(60, BadRequest), (0, TooManyRequests)])
def test_who_leaves_or_waits_too_long_is_not_let_in(longest: float, kind: type[Problem]) -> None:
    async def main() -> None:
        gate = TurnGate(total=1, each=1, waiting=5, longest=longest)

        async def gone() -> None:
            if not longest:
                await anyio.sleep_forever()

        async def ask() -> None:
            with pytest.raises(kind):
                async with gate.enter("p", gone):
                    raise AssertionError("let in")

        async with gate.enter("p", anyio.sleep_forever), anyio.create_task_group() as group:
            group.start_soon(ask)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.1)
        async with gate.enter("p", anyio.sleep_forever):
            pass

    anyio.run(main)


def test_a_store_that_hangs_is_not_asked_by_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    circuits = Circuits()

    def fail() -> None:
        raise StoreError("no answer")

    with pytest.raises(StoreError):
        circuits.run("p", fail)
    circuits.check("p")  # it said so at once
    monkeypatch.setattr(gates, "_HUNG_S", 0.0)
    with pytest.raises(StoreError):
        circuits.run("p", fail)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            circuits.run("p", lambda: None)
    with pytest.raises(StoreUnavailable):
        circuits.check("p")
    assert circuits.run("q", lambda: 1) == 1
    monkeypatch.setattr(gates, "_PAUSE_S", 0.0)
    circuits = Circuits()
    with pytest.raises(StoreError):
        circuits.run("p", fail)

    def other_waits() -> int:
        with pytest.raises(StoreUnavailable):
            circuits.check("p")
        return 1

    assert circuits.run("p", other_waits) == 1
    circuits.check("p")


# Bodies


@pytest.mark.parametrize("item", [b"[],", b"{},", b"0,", b'"",'])
def test_a_body_of_very_many_values_is_refused_before_they_are_made(item: bytes) -> None:
    with pytest.raises(ContentTooLarge, match="values"):
        parse(b"[" + item * (MOST_VALUES + 1) + b"0]")


def test_errors_show_a_little_of_a_wrong_value() -> None:
    wrong: list[Any] = [
        [[]] * 1_000_000,
        [["x" * 1_000_000]],
        "x" * 1_000_000,
        {"k" * 10_000: list(range(10_000))},
    ]
    for value in wrong:
        assert len(shown(value)) <= 61
    assert [shown(one) for one in (12, "abc", [1, 2], None)] == ["12", "'abc'", "[1, 2]", "None"]
    with pytest.raises(ConfigurationError, match="and 99990 more") as caught:
        read_hold({f"{n:01000}": 0 for n in range(100_000)})
    assert len(str(caught.value)) < 1_000


def test_a_dense_body_is_answered_in_a_few_words(open_service: Service) -> None:
    body = b'{"project_name":"p","user_dict":[' + b"[]," * 300_000 + b"[]]}"
    with open_service.client() as client:
        answer = client.post("/set_budget", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.text) < 500


# What is kept


@pytest.mark.parametrize(
    "change",
    [
        {"ttl": 8_000 * 366 * _DAY},
        {"tags": ["x" * 10_000] * 100},
    ],
)
def test_a_hold_is_bounded_in_time_and_length(open_service: Service, change: dict[str, Any]) -> None:
    with open_service.client() as client:
        answer = client.post(f"{P}/reserve", json={**to_json(hold()), **change})
    assert answer.status_code == 422
    assert len(answer.text) < 500


def test_a_time_after_the_year_9999_is_shown_all_the_same() -> None:
    assert to_datetime(LATEST + system_clock()).year == 9999


@pytest.mark.parametrize(
    "brought",
    [{"observed": tuple((f"m{n}", 5) for n in range(1_001))}, {"thresholds": tuple(range(101))}],
    ids=["observed", "thresholds"],
)
def test_a_settlement_brings_so_much_and_no_more(open_service: Service, brought: dict[str, Any]) -> None:
    body = {"hold": to_json(hold()), "settlement": to_json(Settlement(0, **brought))}
    with open_service.client() as client:
        assert client.post(f"{P}/settle", json=body).status_code == 422


def test_a_threshold_is_told_once_however_often_it_is_named(open_service: Service) -> None:
    body = {
        "hold": to_json(hold()),
        "settlement": to_json(Settlement(90, thresholds=(50,) * 9)),
    }
    with open_service.client() as client:
        put(client)
        assert len(client.post(f"{P}/settle", json=body).json()["crossings"]) == 1


def test_an_account_names_so_many_models_and_the_rest_is_booked_as_unknown(
    open_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "MOST_MODELS", 3)
    with open_service.client() as client:
        put(client, limit=10**12)
        for number in range(6):
            one = replace(hold(1), model=f"m{number}")
            if number % 2:
                client.post(f"{P}/reserve", json=to_json(one))
            body = {"hold": to_json(one), "settlement": to_json(Settlement(1))}
            assert client.post(f"{P}/settle", json=body).status_code == 200
        assert balance(client)["models"] == {"m0": 1, "m1": 1, "m2": 1, "unknown": 3}
        costs = {"m1": 1.0, "m8": 2.0, "m9": 4.0}
        record = {"total_budget": 1000, "current_cost": 7.0, "model_cost": costs}
        body = {"project_name": "p", "user_dict": {"1": record}}
        assert client.post("/set_budget", json=body).status_code == 200
        assert balance(client)["models"] == {"m0": 1, "m1": 10**9 + 1, "m2": 1, "unknown": 6 * 10**9 + 3}
        assert client.post(f"{P}/reserve", json=to_json(replace(hold(), model="m" * 501))).status_code == 422


def test_a_hold_of_years_to_come_is_refused_and_one_that_is_open_is_settled(tmp_path: Path) -> None:
    now = system_clock()
    ahead = 2 * _DAY
    with running(f"disk://{tmp_path}/b", clock=lambda: now + ahead) as service, service.client() as client:
        put(client)
        ids = [new_hold_id(now + days * _DAY) for days in (366, 367, 371)]
        one, other, early = (replace(hold(5), id=ident) for ident in ids)
        for made in (one, other):
            assert client.post(f"{P}/reserve", json=to_json(made)).json()["answer"] == "granted"
        settled = {"settlement": to_json(Settlement(3))}
        for path, body in (
            ("reserve", to_json(early)),
            ("settle", {"hold": to_json(early), **settled}),
        ):
            refused = client.post(f"{P}/{path}", json=body)
            assert (refused.status_code, "set the clock" in refused.text) == (422, True)
        ahead = 0  # as if the service's own clock had been wrong
        assert client.post(f"{P}/settle", json={"hold": to_json(other), **settled}).status_code == 200
        assert balance(client)["spent_nanos"] == 3


def test_a_project_keeps_as_many_accounts_as_it_may(tmp_path: Path) -> None:
    with running(f"disk://{tmp_path}/b", accounts=3) as service, service.client() as client:
        assert [put(client, f"user:{n}").status_code for n in range(4)] == [200, 200, 200, 409]
        assert put(client, "user:1", limit=50).status_code == 200
        now = system_clock()
        made = replace(hold(0), charges=(Charge("run:x", budget=Budget(5)),), id=new_hold_id(now))
        refused = client.post(f"{P}/reserve", json=to_json(made))
        assert (refused.status_code, refused.json()["error"]) == (409, "QuotaExceeded")
        body = {"hold": to_json(made), "settlement": to_json(Settlement(1))}
        assert client.post(f"{P}/settle", json=body).status_code == 409
        users = {"project_name": "p", "user_dict": {"new": {"total_budget": 1}}}
        assert client.post("/set_budget", json=users).status_code == 409
        assert client.get(f"{P}/balance", params={"account": "user:new"}).json() == {"balance": None}
        client.delete(f"{P}/budget", params={"account": "user:0"})
        assert put(client, "user:9").status_code == 200
        assert put(client, "user:1").status_code == 200
        assert client.put(
            "/v1/projects/q/budget",
            json={
                "account": "user:1",
                "budget": {"limit": 1, "duration": None, "timezone": "UTC", "starts_at": None},
                "ephemeral": False,
            },
        ).is_success


def test_a_project_has_as_many_open_holds_as_it_may(tmp_path: Path) -> None:
    with running(f"disk://{tmp_path}/b", holds=2) as service, service.client() as client:
        put(client, limit=1_000)
        holds = [hold(1) for _ in range(3)]
        codes = [client.post(f"{P}/reserve", json=to_json(one)).status_code for one in holds]
        assert codes == [200, 200, 409]
        settled = {"hold": to_json(holds[0]), "settlement": to_json(Settlement(1))}
        assert client.post(f"{P}/settle", json=settled).status_code == 200
        assert client.post(f"{P}/reserve", json=to_json(holds[2])).json()["answer"] == "granted"
        # To settle what was never granted, or is over, makes no room.
        for strange in (replace(hold(1), charges=(Charge("user:1"),) * 2), holds[0]):
            body = {"hold": to_json(strange), "settlement": to_json(Settlement(1))}
            assert client.post(f"{P}/settle", json=body).status_code == 200
        assert client.post(f"{P}/reserve", json=to_json(hold(1))).status_code == 409


def test_what_was_handed_out_is_remembered_in_bounds() -> None:
    handed = Handed(each=3_000, total=6_000)
    for project in ("a", "b", "c"):
        for number in range(50):
            handed.put(project, "u", number, {"models": "m" * 300})
    kept = {p: [n for n in range(50) if handed.get(p, "u", n)] for p in ("a", "b", "c")}
    assert kept == {"a": [], "b": [47, 48, 49], "c": [47, 48, 49]}
    handed.put("d", "u", 1, {"models": "m" * 10_000})
    assert handed.get("d", "u", 1) is None


# Connections


class _Connection:
    def __init__(self, all_of_them: Connections, address: str) -> None:
        self.all, self.address, self.dropped = all_of_them, address, False

    def drop(self) -> None:
        self.dropped = True
        self.all.remove(self, self.address)


def test_a_newcomer_gets_the_place_of_who_is_silent_and_never_of_who_works() -> None:
    places = Connections(4)
    worker, resting = _Connection(places, "good"), _Connection(places, "good")
    mute = [_Connection(places, "bad") for _ in range(2)]
    for one in (worker, resting, *mute):
        assert places.add(one, one.address)
        if one in (worker, resting):
            places.note(one, one.address, "busy")
    places.note(resting, "good", "idle")
    for _ in range(2):
        new = _Connection(places, "bad")
        assert places.add(new, "bad")
        mute.append(new)
    assert [one.dropped for one in mute] == [True, True, False, False]
    assert not resting.dropped
    places.note(mute[2], "bad", "busy")
    places.note(mute[3], "bad", "slow")
    assert places.add(_Connection(places, "new"), "new")
    assert resting.dropped
    assert not mute[3].dropped
    places.note(worker, "good", "busy")
    for _ in range(2):
        new = _Connection(places, "new")
        assert places.add(new, "new")
        places.note(new, "new", "busy")
    assert [mute[2].dropped, mute[3].dropped, worker.dropped] == [False, True, False]
    places = Connections(1)
    assert places.add(worker, "good")
    places.note(worker, "good", "busy")
    assert not places.add(_Connection(places, "new"), "new")


@pytest.mark.full
def test_silent_connections_shut_nobody_out(tmp_path: Path) -> None:
    port = free_port()
    with serving(f"disk://{tmp_path}/b", "--max-connections", "10", port=port) as process:
        silent = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(60)]
        for one in silent[::2]:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        url = f"http://127.0.0.1:{port}{P}/balances"
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: httpx2.get(url, timeout=30).status_code, range(40)))
        assert answers == [200] * 40
        for one in silent:
            one.close()
        process.terminate()
        assert process.stdout is not None
        said = process.stdout.read()
        assert said.count("silent ones are closed") == 1, said


_SLOW = (
    f"POST {P}/reserve HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode(),
    f"POST {P}/reserve HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n".encode(),
    b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000,  # of which no answer is read
)


@pytest.mark.full
@pytest.mark.parametrize("sent", _SLOW, ids=["body", "chunks", "answer"])
def test_who_sends_no_body_or_takes_no_answer_shuts_nobody_out(tmp_path: Path, sent: bytes) -> None:
    port = free_port()
    with serving(f"disk://{tmp_path}/b", "--max-connections", "10", port=port):
        slow = []
        for _ in range(30):
            slow.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            slow[-1].setblocking(False)
            slow[-1].send(sent)
        url = f"http://127.0.0.1:{port}{P}/balances"
        served, deadline = 0, time.monotonic() + 40
        while served < 10:
            assert time.monotonic() < deadline, "shut out"
            try:
                assert httpx2.get(url, timeout=30).status_code == 200
            except httpx2.TransportError:
                continue  # as long as all the others are answered, and their answers fit into buffers
            served += 1
        for one in slow:
            one.close()


@pytest.mark.full
def test_forwarded_addresses_are_believed_of_proxies_that_are_named_alone(tmp_path: Path) -> None:
    key = {"BUDGETGUARD_API_KEY": "k" * 20}

    def strangers(*options: str, forwarded: Any) -> list[int]:
        port = free_port()
        rate = ("--rate", "10/hour")
        with serving(f"disk://{tmp_path}/b", *rate, *options, port=port, **key):
            url = f"http://127.0.0.1:{port}/metrics"
            headers = [{"X-Forwarded-For": forwarded(number)} for number in range(3)]
            return [httpx2.get(url, headers=one, timeout=30).status_code for one in headers]

    assert strangers(forwarded=lambda n: f"10.0.0.{n}") == [401, 429, 429]
    proxy = ("--trust-proxy", "127.0.0.1")
    assert strangers(*proxy, forwarded=lambda n: f"10.0.0.{n}") == [401, 401, 401]
    # What a stranger writes stands to the left of what the proxy has seen.
    assert strangers(*proxy, forwarded=lambda n: f"10.0.0.{n}, 10.9.9.9") == [401, 429, 429]


# Webhooks


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_receiver_that_drips_is_left(monkeypatch: pytest.MonkeyPatch, begin: bytes) -> None:
    monkeypatch.setattr(webhooks, "_TIMEOUT_S", 0.5)
    ended = threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(begin)
            while not ended.wait(0.1):
                try:
                    connection.sendall(b"a")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        receiver = threading.Thread(target=drip, args=(listening,))
        receiver.start()
        webhook = Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/", "s" * 16)
        try:
            with pytest.raises(TimeoutError):
                webhook.post("1", json.dumps({}).encode(), 0)
        finally:
            ended.set()
            receiver.join()
