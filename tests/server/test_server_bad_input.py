"""Bad input: a 4xx that says what is wrong, and nothing changed."""

from __future__ import annotations

import copy
import http.client
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from budgetguard.stores.base import Store

from .requests_of import BY_NAME, Sample, samples
from .services import Service, running

SAMPLES = {one.route.name: one for one in samples()}
WITH_BODY = [one for one in SAMPLES.values() if one.body is not None]
with_body = pytest.mark.parametrize("sample", WITH_BODY, ids=lambda one: one.route.name)


@pytest.fixture
def client(service: Service) -> Iterator[httpx2.Client]:
    store = service.open()
    store.set_budget("user:1", Budget(1_000))
    store.close()
    with service.client(service.key()) as made:
        yield made


def state(service: Service) -> list[Any]:
    store = service.open()
    found: list[Any] = [*store.list(), *store.calls()]
    store.close()
    return found


def path(sample: Sample) -> str:
    return sample.route.path.replace("{project}", "p")


def send(
    client: httpx2.Client, sample: Sample, content: bytes | Iterator[bytes], headers: dict[str, str]
) -> httpx2.Response:
    return client.request(sample.route.method, path(sample), content=content, headers=headers)


def refused(response: httpx2.Response, *codes: int) -> str:
    assert response.status_code in codes, f"{response.status_code} {response.text[:300]}"
    said = response.json()
    assert said["error"]
    assert "Traceback" not in response.text
    assert len(response.content) < 2_000
    message: str = said["message"]
    return message


BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no JSON": (b"{'a': 1}", 400),
    "cut off": (b'{"a": ', 400),
    "two values": (b"{} {}", 400),
    "not UTF-8": (b'{"a": "\xff"}', 400),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), 400),
    "NaN": (b'{"a": NaN}', 400),
    "Infinity": (b'{"a": -Infinity}', 400),
    "deep": (b"[" * 100_000 + b"]" * 100_000, 400),
    "a number of 10 000 digits": (b'{"a": ' + b"9" * 10_000 + b"}", 400),
    "a list": (b"[]", 422),
    "a text": (b'"text"', 422),
    "null": (b"null", 422),
    "an empty object": (b"{}", 422),
    "an unknown field": (b'{"unknown_field": 1}', 422),
}


@with_body
def test_a_body_that_is_no_good_is_refused(service: Service, client: httpx2.Client, sample: Sample) -> None:
    before = state(service)
    for content, code in BODIES.values():
        refused(send(client, sample, content, {"Content-Type": "application/json"}), code)
    assert state(service) == before


@with_body
def test_other_content_types_are_refused(service: Service, client: httpx2.Client, sample: Sample) -> None:
    before = state(service)
    content = json.dumps(sample.body).encode()
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ):
        said = refused(
            client.request(sample.route.method, path(sample), content=content, headers=headers), 415
        )
        assert "JSON" in said or "Content-Encoding" in said
    assert state(service) == before
    fine = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.request(sample.route.method, path(sample), content=content, headers=fine).status_code == 200


@pytest.mark.full
@with_body
def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(
    service: Service, client: httpx2.Client, sample: Sample
) -> None:
    before = state(service)
    most = sample.route.most

    def parts() -> Iterator[bytes]:
        for _ in range(most // 65_536 + 2):
            yield b" " * 65_536

    headers = {"Content-Type": "application/json"}
    for content in (b" " * (most + 1), parts()):
        said = refused(
            client.request(sample.route.method, path(sample), content=content, headers=headers), 413
        )
        assert str(most) in said
    assert state(service) == before


def test_a_length_that_is_claimed_is_not_waited_for(service: Service) -> None:
    address = urlsplit(service.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    connection.putrequest("POST", "/v1/projects/p/reserve")
    for name, value in (
        ("Authorization", f"Bearer {service.key()}"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(10**15)),
    ):
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_what_is_no_http_is_answered_and_the_next_is_served(service: Service, client: httpx2.Client) -> None:
    address = urlsplit(service.url)
    for junk in (b"\x16\x03\x01\x02\x00junk\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 200_000):
        with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
            raw.sendall(junk)
            with suppress(OSError):  # the service may have answered and closed by now
                raw.shutdown(socket.SHUT_WR)
                assert b" 200 " not in raw.recv(100)
    assert client.get("/readyz").status_code == 200


WRONG: list[tuple[str, str, Any]] = [
    (name, field, value)
    for name, field, values in (
        ("reserve", "amount", [-1, 2**53, 1.5, "1", True, None, 1e300, 10**400, [], {}]),
        ("reserve", "on_expiry", [-1, 2**53, "0"]),
        ("reserve", "ttl", [-1, 10**30, 0.5]),
        ("reserve", "created", [-1, 10**30, "now"]),
        ("reserve", "id", ["", "x", 7, None, "0" * 11 + "g" + "0" * 20, "0" * 12 + "\n" * 8, "0" * 10_001]),
        ("reserve", "user", [7, "x" * 10_001, []]),
        ("reserve", "model", [None, 7]),
        ("reserve", "tags", ["x", [1], ["x"] * 101, {}]),
        ("reserve", "charges", [{}, [{}], [None], "user:1"]),
        ("reserve", "charges.0.account", ["", "1", ":1", "user:", "USER:1", "user:a\nb", "user:\ud800"]),
        ("reserve", "charges.0.account", ["user:" + "x" * 10_240, "user:" + "x" * 257, "view:1", None]),
        ("reserve", "charges.0.required", [1, "true", None]),
        ("reserve", "charges.0.budget", [{}, 7, {"limit": -1}]),
        ("settle", "hold.amount", [-1, 2**53]),
        ("settle", "settlement.cost", [-1, 2**53, 0.1, "5", None]),
        ("settle", "settlement.state", ["held", "", None, []]),
        ("settle", "settlement.outcome", ["fine", None]),
        ("settle", "settlement.usage", [{"input_tokens": -1}, {"input_tokens": 1.5}, [], "x"]),
        ("settle", "settlement.thresholds", [[-1], [1001], [0.5], 80]),
        ("settle", "settlement.observed", [[["m"]], [["m", -1]], [[7, 1]], ["m"]]),
        ("attach", "hold_id", ["", "x", None, "0" * 10_001]),
        ("attach", "request_id", [None, 7, "x" * 10_001]),
        ("set_budget", "account", ["", "user", "view:x", None, "user:" + "🎈" * 2_560]),
        ("set_budget", "budget.limit", [-1, 2**53, 0.1, "10", float("1e308")]),
        ("set_budget", "budget.duration", ["", "often", 7, "0d", "101y", "9" * 400 + "d"]),
        ("set_budget", "budget.timezone", ["", "Mars/Olympus", "../../etc/passwd", None, 7]),
        ("set_budget", "budget.starts_at", [-1, 10**30, "now"]),
        ("set_budget", "ephemeral", [None, "no", 0]),
        ("reset", "account", ["", "user", None, 7]),
        ("litellm_get_budget", "project_name", ["", None, 7, "x" * 257, "a\nb", "\ud800"]),
        ("litellm_set_budget", "project_name", ["", None, 7]),
        (
            "litellm_set_budget",
            "user_dict",
            [None, [], "u", {"u": None}, {"u": {}}, {"u": {"current_cost": 1}}],
        ),
        ("litellm_set_budget", "user_dict", [{"x" * 10_240: {"total_budget": 1}}, {"": {"total_budget": 1}}]),
        (
            "litellm_set_budget",
            "user_dict",
            [{"a\u0000": {"total_budget": 1}}, {"\ud800": {"total_budget": 1}}],
        ),
        ("litellm_set_budget", "user_dict.9.total_budget", ["10", None, True, 1e300, 10**400, 10**8, -1e300]),
        ("litellm_set_budget", "user_dict.9.current_cost", [-0.1, "1", None, True, 1e300, 10**400]),
        ("litellm_set_budget", "user_dict.9.model_cost", [[], "x", {"m": -1}, {"m": "1"}, {"m" * 10_001: 1}]),
        ("litellm_set_budget", "user_dict.9.duration", ["monthly", -1, 0, 1.5, True, 10**9, 10**400]),
        ("litellm_set_budget", "user_dict.9.created_at", ["now", -1, 1e300, True, 10**400]),
        ("litellm_set_budget", "user_dict.9.last_updated_at", ["now", -1, 1e300]),
        ("litellm_set_budget", "user_dict.9.view", ["x", [], {}, {"id": 7, "at": 0, "handed": {}}, 7]),
    )
    for value in values
]


def _with(body: Any, field: str, value: Any) -> Any:
    body = copy.deepcopy(body)
    *way, last = field.split(".")
    at = body
    for step in way:
        at = at[int(step) if isinstance(at, list) else step]
    at[last] = value
    return body


@pytest.mark.full
def test_a_value_that_is_no_good_is_refused_by_name(service: Service, client: httpx2.Client) -> None:
    headers = {"Content-Type": "application/json"}
    for name, field, value in WRONG:
        before = state(service)
        sample = SAMPLES[name]
        content = json.dumps(_with(sample.body, field, value)).encode()
        response = client.request(sample.route.method, path(sample), content=content, headers=headers)
        said = refused(response, 422)
        word = field.rpartition(".")[2]
        assert any(one in said for one in (word, "user", "budget", "charge", "time zone")), (
            field,
            value,
            said,
        )
        assert state(service) == before, (field, value)


def test_one_bad_record_among_good_ones_changes_none(service: Service, client: httpx2.Client) -> None:
    before = state(service)
    users: dict[str, Any] = {str(n): {"total_budget": 1, "current_cost": 0.5} for n in range(20)}
    users["19"]["current_cost"] = -1
    said = refused(client.post("/set_budget", json={"project_name": "p", "user_dict": users}), 422)
    assert "'19'" in said
    assert "nothing was changed" in said
    assert state(service) == before


QUERIES: list[tuple[str, dict[str, str]]] = [
    ("balance", {}),
    ("balance", {"account": ""}),
    ("balance", {"account": "user:" + "x" * 10_240}),
    ("balance", {"account": "user:1", "more": "1"}),
    ("attached", {}),
    ("delete", {"account": "nobody"}),
    *[("balances", {"limit": text}) for text in ("0", "-1", "5001", "x", "1e3", "٣", "9" * 5_000)],
    *[
        ("calls", {"since": text})
        for text in ("x", "-1", "2026-13-01", "9" * 30, "299912311000000", "1e5", "nan")
    ],
    ("calls", {"after": "x"}),
    ("calls", {"since": "2026-02-01", "until": "2026-01-01"}),
    ("report", {"by": "Moon"}),
    ("report", {"by": "unit"}),
    ("report", {"by": ",".join(f"a{n}" for n in range(9))}),
    ("report", {"by": "user,user"}),
    ("observations", {}),
    ("observations", {"model": "x" * 10_001}),
]


@pytest.mark.parametrize(("name", "query"), QUERIES)
def test_a_query_that_is_no_good_is_refused(client: httpx2.Client, name: str, query: dict[str, str]) -> None:
    route = BY_NAME[name]
    refused(client.request(route.method, route.path.replace("{project}", "p"), params=query), 422)


@pytest.mark.parametrize(
    ("query", "code"),
    [("limit=1&limit=2", 422), ("kind=%ff", 400), ("&".join(f"a{n}=1" for n in range(50)), 400)],
)
def test_a_query_that_is_no_query_is_refused(client: httpx2.Client, query: str, code: int) -> None:
    refused(client.get(f"/v1/projects/p/balances?{query}"), code)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=lambda one: one.route.name)
@pytest.mark.parametrize(
    "method",
    ["PATCH", "JUMP"]
    + [pytest.param(one, marks=pytest.mark.full) for one in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE")],
)
def test_other_methods_are_refused_and_the_right_ones_named(
    client: httpx2.Client, sample: Sample, method: str
) -> None:
    known = {one.route.method for one in SAMPLES.values() if one.route.path == sample.route.path}
    if method in known:
        return
    response = client.request(method, path(sample))
    refused(response, 405)
    assert set(response.headers["allow"].split(", ")) >= known


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/v1",
        "/v2/projects/p/balances",
        "/v1/projects/p",
        "/v1/projects//balances",
        "/v1/projects/a/b/balances",
    ],
)
def test_other_addresses_are_refused(client: httpx2.Client, address: str) -> None:
    refused(client.get(address), 404)


def test_a_project_s_name_that_is_no_name_is_refused(client: httpx2.Client) -> None:
    refused(client.get("/v1/projects/%ff/balances"), 400)
    refused(client.get("/v1/projects/%00/balances"), 422, 403)
    refused(client.get("/v1/projects/" + "x" * 300 + "/balances"), 422, 403)


@pytest.mark.parametrize("user", ["a/b", "🎈", "ü" * 256, "%2F", "a b", "h:p:", "'\"", "\\"])
def test_ids_with_slashes_and_balloons_are_fine(client: httpx2.Client, user: str) -> None:
    account = f"user:{user}"
    body = {
        "account": account,
        "budget": {"limit": 5, "duration": None, "timezone": "UTC", "starts_at": None},
        "ephemeral": False,
    }
    assert client.put("/v1/projects/p/budget", json=body).json()["balance"]["account"] == account
    found = client.get("/v1/projects/p/balance", params={"account": account}).json()["balance"]
    assert found["account"] == account
    assert user in client.post("/get_budget", json={"project_name": "p"}).json()["data"]
    assert client.delete("/v1/projects/p/budget", params={"account": account}).json() == {"deleted": True}


def test_a_store_that_fails_is_a_503_that_says_to_send_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "budgets"
    with running(f"disk://{folder}?timeout=0.2") as service, service.client(service.key()) as client:
        blocker: Store = open_store(f"disk://{folder}", project="p")
        assert client.get("/readyz").status_code == 200
        blocker.close()
        for file in folder.rglob("*"):
            if file.is_file():
                file.write_bytes(b"not a database" * 1_000)
        response = client.post("/get_budget", json={"project_name": "new"})
        said = refused(response, 503)
        assert response.json()["error"] == "StoreError"
        assert response.headers["retry-after"]
        assert str(tmp_path) not in said
        assert client.get("/healthz").status_code == 200
    assert any("the store failed" in one.getMessage() for one in caplog.records)
    assert logging.getLogger("budgetguard.server").name in {one.name for one in caplog.records}
