"""What a client makes of a service's answers, and of none: in time, with a remedy, and never with its key."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Booked, Granted, Settlement, UnknownAccount, Unlimited
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores import Store, open_store
from tests.provider.connection import Connection, HTTPRequest
from tests.race._workers import make_hold
from tests.servers.valkey import free_port

from .hosted_script import Scripted, answer, raw
from .services import Service

KEY = "bg_0123456789ab_very-secret-key"
UNLIMITED = answer(200, {"answer": "unlimited"})
BALANCE = {
    "account": "user:1",
    "limit_nanos": 100,
    "spent_nanos": 0,
    "held_nanos": 0,
    "duration": None,
    "timezone": "UTC",
    "starts_ms": 0,
    "resets_ms": None,
    "created_ms": 0,
    "updated_ms": 0,
    "models": {},
    "expired_nanos": 0,
    "expiries": 0,
    "open_holds": 0,
}


def opened(url: str, timeout: float = 5) -> Store:
    place = url.replace("://", f"://{KEY}@")
    return open_store(f"{place}?timeout={timeout}", project="a/b c")


def failure(store: Store) -> str:
    with pytest.raises(StoreError) as caught:
        store.reserve(make_hold())
    text = str(caught.value)
    assert KEY not in text
    return text


# Which requests are sent


def test_a_verb_is_one_request_with_the_key_to_the_projects_own_path() -> None:
    with Scripted(UNLIMITED) as service:
        store = opened(f"{service.url}/team/one/")
        assert store.reserve(make_hold()) == Unlimited()
        store.close()
        (request,) = service.seen
        assert (request.method, request.target) == ("POST", "/team/one/v1/projects/a%2Fb%20c/reserve")
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("userinfo", ["", "in%2Durl@", ":in-url@", "anybody:in-url@"])
def test_the_key_is_the_urls_else_the_environments(monkeypatch: pytest.MonkeyPatch, userinfo: str) -> None:
    monkeypatch.setenv("BUDGETGUARD_API_KEY", " in-environment\n")
    with Scripted(UNLIMITED) as service:
        store = open_store(service.url.replace("://", f"://{userinfo}"), project="p")
        store.reserve(make_hold())
        store.close()
        expected = "in-url" if userinfo else "in-environment"
        assert service.seen[0].headers["authorization"] == f"Bearer {expected}"


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUDGETGUARD_API_KEY", raising=False)
    with Scripted(UNLIMITED) as service:
        store = open_store(service.url, project="p")
        store.reserve(make_hold())
        store.close()
        assert "authorization" not in service.seen[0].headers


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://", "is no address of a service"),
        ("http://host:99999", "is no address of a service"),
        ("https://host#part", "a # has no place in it"),
        ("https://secret/part@host", "a key with / or"),
        ("https://secret?part@host", "a key with / or"),
        ("https://host?key=secret", "unknown option 'key'.*before an @ or in BUDGETGUARD_API_KEY"),
        ("https://secret@host?timeout=0", "timeout must be a number of seconds, not '0'"),
        ("http://host?ssl_ca_certs=x", "ssl_ca_certs needs TLS"),
        ("https://secret@host?ssl_ca_certs=/no/such/file", "cannot be read as a file of certificates"),
        ("https://sec%0Aret@host", "the key for 'https://host' has characters that no key has"),
    ],
)
def test_a_bad_url_is_refused_at_once_and_shows_no_key(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_store(url, project="p")
    assert "secret" not in str(caught.value)


# What comes back


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (301, "it sends whoever asks to https://elsewhere/x: name that address itself"),
        (400, "see its log"),
        (401, "it wants a key that it knows: set BUDGETGUARD_API_KEY"),
        (403, "of another project, or its role is too low"),
        (404, "no such service is at that address"),
        (413, "no request of that size"),
        (422, "it does not take what was asked; nothing was changed"),
    ],
)
def test_a_refusal_is_told_at_once_with_what_to_do_and_what_the_service_said(status: int, says: str) -> None:
    said = {"error": "Refused", "message": "because\n  of this"}
    with Scripted(answer(status, said, location="https://elsewhere/x?secret=1")) as service:
        store = opened(service.url)
        text = failure(store)
        store.close()
        assert says in text
        assert f"HTTP {status}: because of this" in text
        assert len(service.seen) == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"answer": "maybe"},
        {"answer": "unlimited", "more": 1},
        {"answer": "unlimited", "told": 1},
    ],
)
def test_an_answer_that_is_none_of_this_version_is_a_store_error(value: Any) -> None:
    with Scripted(answer(200, value)) as service:
        store = opened(service.url)
        assert "its answer is not that of a budget service of this version" in failure(store)
        store.close()


def test_a_listing_that_does_not_go_on_ends() -> None:
    page = {"balances": [BALANCE], "next": "user:1"}
    with Scripted(answer(200, page)) as service:
        store = opened(service.url)
        assert [one.account for one in store.list()] == ["user:1", "user:1"]
        store.close()


# What is sent again


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_passes_is_waited_for(status: int) -> None:
    busy = answer(status, {"error": "Busy", "message": "wait"})
    with Scripted(busy, busy, UNLIMITED) as service:
        store = opened(service.url)
        assert store.reserve(make_hold()) == Unlimited()
        store.close()
        assert len(service.seen) == 3
        assert len({request.body for request in service.seen}) == 1


def test_a_service_is_asked_again_when_it_said_and_not_before() -> None:
    with Scripted(answer(429, None, retry_after="1"), UNLIMITED) as service:
        store = opened(service.url)
        began = time.monotonic()
        store.reserve(make_hold())
        assert time.monotonic() - began >= 1
        store.close()


def test_a_service_that_wants_more_patience_than_there_is_is_not_waited_for() -> None:
    with Scripted(answer(429, {"message": "slow down"}, retry_after="3600")) as service:
        store = opened(service.url, timeout=30)
        began = time.monotonic()
        assert "it has too much to do, or this key has" in failure(store)
        assert time.monotonic() - began < 20
        store.close()
        assert len(service.seen) == 1


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{", b"HTTP/1.1 200"])
def test_a_call_whose_answer_was_cut_off_is_sent_again(data: bytes) -> None:
    with Scripted(raw(data), UNLIMITED) as service:
        store = opened(service.url)
        assert store.reserve(make_hold()) == Unlimited()
        store.close()
        assert len(service.seen) == 2


@pytest.mark.parametrize("verb", ["reset", "delete"])
def test_what_must_not_happen_twice_is_not_sent_twice(verb: str) -> None:
    with Scripted(raw(b"")) as service:
        store = opened(service.url)
        with pytest.raises(StoreError, match="It may have been carried out all the same: look before"):
            getattr(store, verb)("user:1")
        store.close()
        assert len(service.seen) == 1


def test_what_must_not_happen_twice_is_sent_again_if_it_was_not_carried_out() -> None:
    with Scripted(answer(429), answer(200, {"balance": BALANCE})) as service:
        store = opened(service.url)
        assert store.reset("user:1") is not None
        store.close()
        assert len(service.seen) == 2


def test_what_must_not_happen_twice_never_goes_out_on_a_connection_that_may_be_dead() -> None:
    addresses: list[object] = []

    def act(connection: Connection, request: HTTPRequest) -> None:
        addresses.append(connection._socket.getpeername())
        if request.target.endswith("reserve"):
            UNLIMITED(connection, request)
        else:
            answer(200, {"balance": None})(connection, request)

    with Scripted(act) as service:
        store = opened(service.url)
        for _ in range(3):
            store.reserve(make_hold())
        store.reset("user:1")
        store.close()
        assert len(set(addresses[:3])) == 1
        assert addresses[3] != addresses[0]


def test_one_connection_serves_one_verb_after_another_whatever_its_number_is() -> None:
    resource = pytest.importorskip("resource")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1_400:
        pytest.skip("this shell lets nobody open so many files")
    addresses: set[object] = set()

    def act(connection: Connection, request: HTTPRequest) -> None:
        addresses.add(connection._socket.getpeername())
        UNLIMITED(connection, request)

    with Scripted(act) as service, ExitStack() as stack:
        for _ in range(1_100):
            stack.enter_context(Path(os.devnull).open("rb"))
        store = opened(service.url)
        for _ in range(3):
            store.reserve(make_hold())
        store.close()
    assert len(addresses) == 1


# In time


def test_a_service_that_never_answers_is_given_up_in_time() -> None:
    with Scripted(lambda connection, request: time.sleep(30)) as service:
        store = opened(service.url, timeout=0.5)
        began = time.monotonic()
        assert "it did not answer within 0.5 s: try again, or raise ?timeout=" in failure(store)
        assert time.monotonic() - began < 10
        store.close()


def test_an_answer_that_comes_in_drops_is_given_up_in_time() -> None:
    def drip(connection: Connection, _request: HTTPRequest) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n" + b" " * 24:
            connection._socket.sendall(bytes([byte]))
            time.sleep(0.2)

    with Scripted(drip) as service:
        store = opened(service.url, timeout=0.6)
        began = time.monotonic()
        assert "it did not answer within 0.6 s" in failure(store)
        assert time.monotonic() - began < 8
        store.close()


def test_nobody_there_is_told_in_time() -> None:
    store = opened(f"http://127.0.0.1:{free_port()}", timeout=0.3)
    assert "it could not be reached for 0.3 s: is it running, and at that address?" in failure(store)


def test_a_name_without_a_host_is_told() -> None:
    assert "there is no host of that name" in failure(opened("http://no-such-host.invalid", timeout=0.3))


def test_tls_where_there_is_none_is_told() -> None:
    with Scripted(UNLIMITED) as service:
        text = failure(opened(service.url.replace("http:", "https:"), timeout=0.3))
        assert "TLS failed: check https:// or http://, and the port" in text or "the connection broke" in text


@pytest.fixture
def silent() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_tls_that_does_not_begin_is_given_up_in_time(silent: int) -> None:
    began = time.monotonic()
    assert "it did not answer within 0.5 s" in failure(opened(f"https://127.0.0.1:{silent}", timeout=0.5))
    assert time.monotonic() - began < 10


# With a service of ours


def test_a_store_that_was_closed_opens_again_and_a_settle_sent_twice_counts_once(
    open_service: Service,
) -> None:
    store = open_store(open_service.url, project="a/b: ü🎈")
    store.set_budget("user:1", Budget(1_000))
    hold = make_hold()
    assert isinstance(store.reserve(hold), Granted)
    store.close()
    assert store.settle(hold, Settlement(60)) == Booked(60)
    assert store.settle(hold, Settlement(60)) == Booked(0, repeated=True)
    store.close()


def test_a_key_that_is_wrong_or_too_weak_or_anothers_is_told(service: Service) -> None:
    place = service.url.replace("://", "://{}@")
    spend, theirs = service.key("p", "spend"), service.key("q")
    for key, says in (("wrong-key", "wants a key that it knows"), (theirs, "of another project")):
        store = open_store(place.format(key), project="p")
        with pytest.raises(StoreError, match=says) as caught:
            store.reserve(make_hold())
        assert key not in str(caught.value)
        store.close()
    store = open_store(place.format(spend), project="p")
    assert store.reserve(make_hold()) == UnknownAccount("user:1")
    with pytest.raises(StoreError, match="its role is too low"):
        store.reset("user:1")
    store.close()
