"""Who may: on every route there is, and without exception."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
from starlette.applications import Starlette

from budgetguard.core.accounts import Budget
from budgetguard.errors import ConfigurationError
from budgetguard.server.app import ROUTES
from budgetguard.server.app import Service as Application
from budgetguard.server.keys import KEYS_PROJECT, ROLES, Role, create_key, given_key, list_keys
from budgetguard.server.options import Options
from budgetguard.stores import open_store

from .requests_of import Sample, samples
from .services import Service, running

SAMPLES = samples()
every_route = pytest.mark.parametrize("sample", SAMPLES, ids=lambda one: one.route.name)
OPEN_TO_ALL = {"/healthz", "/readyz", "/v1/openapi.json"}


def state(service: Service, project: str = "p") -> list[Any]:
    store = service.open(project)
    found = [*store.list(), *store.holds(), *store.calls()]
    store.close()
    return found


def refused(response: httpx2.Response, status: int, error: str) -> None:
    assert response.status_code == status, response.text
    said = response.json()
    assert said["error"] == error
    assert said["message"]
    assert "Traceback" not in response.text


@pytest.fixture
def filled(service: Service) -> Service:
    store = service.open()
    store.set_budget("user:1", Budget(1_000))
    store.close()
    return service


@pytest.mark.full
def test_there_is_no_route_beside_the_table_but_those_that_tell_nothing(tmp_path: Path) -> None:
    app: Any = Application(Options(store=f"disk://{tmp_path}/budgets")).app
    inner = app._app
    assert isinstance(inner, Starlette)
    found = {route.path for route in inner.routes}  # type: ignore[attr-defined]
    assert found == {route.path for route in ROUTES} | OPEN_TO_ALL | {"/metrics"}
    assert all(route.role in get_args(Role) for route in ROUTES)


@every_route
def test_nobody_is_let_in_without_a_key_that_is_known(filled: Service, sample: Sample) -> None:
    good = filled.key()
    before = state(filled)
    headers: list[dict[str, str | bytes]] = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {good}"},
        {"Authorization": f"Bearer {good}x"},
        {"Authorization": f"Bearer {good[:-1]}"},
        {"Authorization": f"Bearer {good.rpartition('_')[0]}_"},
        {"Authorization": "Bearer bg_" + "0" * 12 + "_" + "A" * 43},
        {"Authorization": b"Bearer \xe9\xff"},
        {"X-Api-Key": good},
    ]
    for one in headers:
        with httpx2.Client(base_url=filled.url, headers=one) as client:
            response = sample.send(client)
            refused(response, 401, "Unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
    assert state(filled) == before


@every_route
def test_a_revoked_key_is_refused(filled: Service, sample: Sample) -> None:
    key, other = filled.key(), filled.key()
    with filled.client(key) as client, filled.client(other) as still:
        assert sample.send(client).status_code == 200
        filled.revoke(key)
        before = state(filled)
        refused(sample.send(client), 401, "Unauthorized")
        assert state(filled) == before
        assert sample.send(still).status_code == 200


@every_route
def test_a_key_of_another_project_is_refused(filled: Service, sample: Sample) -> None:
    before = state(filled)
    with filled.client(filled.key("other")) as client:
        for project in ("p", KEYS_PROJECT):
            refused(sample.send(client, project), 403, "Forbidden")
        assert sample.send(client, "other").status_code == 200
    assert state(filled) == before


@every_route
def test_each_role_may_what_it_may_and_no_more(filled: Service, sample: Sample) -> None:
    for role in ROLES:
        before = state(filled)
        with filled.client(filled.key("p", role)) as client:
            response = sample.send(client)
        if ROLES.index(role) >= ROLES.index(sample.route.role):
            assert response.status_code == 200, response.text
        else:
            refused(response, 403, "Forbidden")
            assert state(filled) == before


@every_route
def test_not_even_the_operator_s_key_opens_where_the_keys_are(tmp_path: Path, sample: Sample) -> None:
    secret = "an-operator-s-key-of-32-characters"
    with running(f"disk://{tmp_path}/b", given=given_key(secret, None)) as service:
        with service.client(secret) as client:
            assert sample.send(client, "any project").status_code == 200
            refused(sample.send(client, KEYS_PROJECT), 403, "Forbidden")
        with service.client(secret + "x") as client:
            refused(sample.send(client), 401, "Unauthorized")


def test_a_key_from_the_environment_may_be_for_one_project(tmp_path: Path) -> None:
    secret = "an-operator-s-key-of-32-characters"
    url = f"disk://{tmp_path}/b"
    with running(url, given=given_key(secret, "p")) as service, service.client(secret) as client:
        assert client.get("/v1/projects/p/balances").status_code == 200
        refused(client.get("/v1/projects/q/balances"), 403, "Forbidden")


@pytest.mark.parametrize("secret", ["", "short", "with a space in the middle", "ключ-ключ-ключ-ключ"])
def test_a_key_that_can_be_guessed_is_no_key(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="BUDGETGUARD_API_KEY"):
        given_key(secret, None)


def test_figures_need_a_key_of_any_role_and_have_no_ids(filled: Service) -> None:
    with filled.client() as nobody:
        refused(nobody.get("/metrics"), 401, "Unauthorized")
    with filled.client(filled.key("p", "read")) as client:
        client.get("/v1/projects/p/balance", params={"account": "user:1234567"})
        text = client.get("/metrics").text
    assert 'budgetguard_request_seconds_count{method="GET",route="/v1/projects/{project}/balance"' in text
    assert "1234567" not in text


def test_probes_and_the_document_need_no_key(service: Service) -> None:
    with service.client() as nobody:
        assert nobody.get("/healthz").json() == {"status": "ok"}
        assert nobody.head("/healthz").status_code == 200
        assert nobody.get("/readyz").json() == {"status": "ok"}
        assert nobody.get("/v1/openapi.json").json()["openapi"].startswith("3.1")


def test_the_last_key_revoked_does_not_open_the_service(service: Service) -> None:
    key = service.key()
    store = service.open(KEYS_PROJECT)
    for one in list_keys(store):
        store.delete(f"key:{one.id}:{one.role}:{one.digest}:{one.project}")
    assert list_keys(store) == []
    store.close()
    for client in (service.client(), service.client(key)):
        with client:
            refused(client.get("/v1/projects/p/balances"), 401, "Unauthorized")


def test_the_first_key_closes_an_open_service_at_once(open_service: Service) -> None:
    with open_service.client() as nobody:
        assert nobody.get("/v1/projects/p/balances").status_code == 200
        key = open_service.key("p", "read")
        refused(nobody.get("/v1/projects/p/balances"), 401, "Unauthorized")
    with open_service.client(key) as client:
        assert client.get("/v1/projects/p/balances").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8642"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_without_keys_pages_of_other_sites_are_kept_out(
    open_service: Service, headers: dict[str, str]
) -> None:
    with open_service.client() as client:
        refused(client.get("/v1/projects/p/balances", headers=headers), 403, "Forbidden")
        assert client.get("/v1/projects/p/balances").status_code == 200


def test_a_service_that_others_can_reach_lets_nobody_in_without_a_key(tmp_path: Path) -> None:
    with running(f"disk://{tmp_path}/b", host="0.0.0.0") as service, service.client() as nobody:
        refused(nobody.get("/v1/projects/p/balances"), 401, "Unauthorized")


def test_a_key_that_asks_too_often_is_told_to_wait_and_others_are_not(tmp_path: Path) -> None:
    with running(f"disk://{tmp_path}/b", rate="20/hour") as service:
        hasty, calm = service.key(), service.key()
        with service.client(hasty) as client:
            answers = [client.get("/v1/projects/p/balances") for _ in range(21)]
            assert [one.status_code for one in answers] == [200] * 20 + [429]
            refused(answers[-1], 429, "TooManyRequests")
            assert answers[-1].headers["retry-after"]
        with service.client() as nobody:
            codes = [nobody.get("/v1/projects/p/balances").status_code for _ in range(3)]
            assert codes == [401, 401, 429]
        with service.client(calm) as client:
            assert client.get("/v1/projects/p/balances").status_code == 200


def test_what_is_kept_and_logged_of_a_key_is_not_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with running(f"disk://{tmp_path}/budgets") as service:
        key = service.key()
        with service.client(key) as client:
            client.get("/v1/projects/p/balances")
            client.get("/v1/projects/q/balances")
    secret = key.split("_", 2)[2]
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert secret not in json.dumps(ours)
    for file in (tmp_path / "budgets").rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()


def test_keys_are_seen_by_every_server_on_the_store(tmp_path: Path) -> None:
    url = f"disk://{tmp_path}/budgets"
    with running(url) as first, running(url) as second:
        key = first.key()
        for server in (first, second):
            with server.client(key) as client:
                assert client.get("/v1/projects/p/balances").status_code == 200
        first.revoke(key)
        for server in (first, second):
            with server.client(key) as client:
                refused(client.get("/v1/projects/p/balances"), 401, "Unauthorized")


@pytest.mark.parametrize("project", ["", "x" * 257, "a\nb", ".", "..", KEYS_PROJECT])
def test_no_key_is_made_for_what_is_no_project(tmp_path: Path, project: str) -> None:
    store = open_store(f"disk://{tmp_path}/b", project=KEYS_PROJECT)
    with pytest.raises(ConfigurationError):
        create_key(store, project, "spend")
    with pytest.raises(ConfigurationError, match="role"):
        create_key(store, "p", "root")
    assert list_keys(store) == []
    store.close()


@pytest.mark.parametrize("project", ["p", "a/b", "🎈", "p q%2F", "a:b:c", "...", "?x=1#y"])
def test_keys_and_paths_of_awkward_projects(service: Service, project: str) -> None:
    with service.client(service.key(project)) as client:
        for sample in SAMPLES:
            assert sample.send(client, project).status_code == 200, sample.route.name
        refused(SAMPLES[5].send(client, project + "x"), 403, "Forbidden")
    assert {one.account for one in state(service, project)[:2]}
