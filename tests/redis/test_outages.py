"""Servers that die, stall, fill up, or let nobody in: StoreError in time, nothing lost and nothing twice."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Granted
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores import open_store
from tests.servers.proxy import Proxy
from tests.servers.valkey import ValkeyServer, free_port

from .conftest import Start
from .helpers import USER, at_most, budget, granted, make_hold, money, now, settled

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


# Restarts


def test_a_store_goes_on_after_its_server_was_killed_and_restarted(start: Start) -> None:
    server = start(*DURABLE)
    store = open_store(server.url, project="p")
    budget(store, 100)
    call = granted(store, make_hold(60))
    server.kill()
    server.start()
    assert money(store) == (100, 0, 60)
    settled(store, call, 40)
    store.close()


def test_a_verb_waits_for_a_server_that_comes_back_within_its_time(start: Start) -> None:
    server = start(*DURABLE)
    store = open_store(f"{server.url}?timeout=30", project="p")
    budget(store, 100)
    call = granted(store, make_hold(60))
    server.kill()
    later = threading.Timer(0.5, server.start)
    later.start()
    assert settled(store, call, 40).booked == 40
    later.join()
    assert money(store) == (100, 40, 0)
    store.close()


@pytest.mark.full
def test_settles_sent_while_the_server_is_killed_again_and_again_count_once_each(start: Start) -> None:
    server = start(*DURABLE)
    store = open_store(f"{server.url}?timeout=60", project="p")
    budget(store, 10**9)
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            time.sleep(0.1)
            server.kill()
            server.start()

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        for _ in range(400):
            call = make_hold(5)
            assert isinstance(store.reserve(call), Granted)
            settled(store, call, 3)
            settled(store, call, 3)
    finally:
        done.set()
        disturbing.join()
    assert money(store) == (10**9, 1_200, 0)
    records = list(store.calls())
    assert (len(records), {record.state for record in records}) == (400, {"settled"})
    store.close()


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_settle_whose_answer_is_lost_is_sent_again_and_counts_once(
    server: ValkeyServer, proxy: Proxy, lost: int
) -> None:
    store = open_store(f"redis://127.0.0.1:{proxy.port}", project="p")
    budget(store, 100)
    call = granted(store, make_hold(60))
    proxy.answers_to_drop = lost
    settled(store, call, 40)
    assert money(store) == (100, 40, 0)
    proxy.answers_to_drop = lost
    granted(store, make_hold(60))
    assert money(store) == (100, 40, 60)
    store.close()


def test_connections_that_were_cut_while_idle_are_made_again_unnoticed(
    server: ValkeyServer, proxy: Proxy
) -> None:
    store = open_store(f"redis://127.0.0.1:{proxy.port}?timeout=2", project="p")
    budget(store, 100)
    for _ in range(5):
        proxy.cut()
        assert money(store) == (100, 0, 0)
    store.close()


# No answer


def test_a_server_that_is_not_there_is_a_store_error_within_the_stated_time() -> None:
    with at_most(0.5), pytest.raises(StoreError, match=r"is it running.*Connection") as caught:
        open_store(f"redis://127.0.0.1:{free_port()}?timeout=0.5", project="p")
    assert isinstance(caught.value.__cause__, redis.ConnectionError)


def test_a_server_that_stops_answering_is_a_store_error_within_the_stated_time(start: Start) -> None:
    server = start()
    store = open_store(f"{server.url}?timeout=0.5", project="p")
    budget(store, 100)
    server.pause()
    try:
        with at_most(0.5), pytest.raises(StoreError, match=r"did not answer within 0\.5 s") as caught:
            store.reserve(make_hold(10))
        assert isinstance(caught.value.__cause__, redis.TimeoutError)
        with at_most(0.5), pytest.raises(StoreError, match="did not answer"):
            store.read(USER)
        with at_most(0.5), pytest.raises(StoreError, match="did not answer"):
            open_store(f"{server.url}?timeout=0.5", project="p")
    finally:
        server.resume()
    held = now(store).held_nanos
    assert held in (0, 10)  # what was sent may have been done: it counts once, and expires
    store.close()


def test_a_slow_server_is_waited_for_and_no_longer_than_stated(start: Start) -> None:
    server = start("--enable-debug-command", "yes")
    patient = open_store(f"{server.url}?timeout=20", project="p")
    hasty = open_store(f"{server.url}?timeout=0.2", project="p")
    budget(patient, 100)
    money(hasty)

    def sleep() -> None:
        with server.client() as client:
            client.execute_command("DEBUG", "SLEEP", "1")

    sleeping = threading.Thread(target=sleep)
    sleeping.start()
    time.sleep(0.2)
    with at_most(0.2), pytest.raises(StoreError, match="did not answer"):
        hasty.read(USER)
    assert money(patient) == (100, 0, 0)
    sleeping.join()
    assert money(hasty) == (100, 0, 0)
    patient.close()
    hasty.close()


def test_an_answer_that_stops_on_its_way_is_a_store_error_in_time(server: ValkeyServer, proxy: Proxy) -> None:
    store = open_store(f"redis://127.0.0.1:{proxy.port}?timeout=0.5", project="p")
    budget(store, 100)
    proxy.flowing.clear()
    with at_most(0.5), pytest.raises(StoreError, match="did not answer"):
        store.read(USER)
    proxy.flowing.set()
    assert money(store) == (100, 0, 0)
    store.close()


# A server that says no


def test_a_full_server_refuses_reserves_unchanged_and_takes_settles(start: Start) -> None:
    server = start("--maxmemory-policy", "noeviction")
    store = open_store(server.url, project="p")
    budget(store, 100)
    call = granted(store, make_hold(60))
    with server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreError, match=r"the server is full \(maxmemory\).*nothing was changed"):
            store.reserve(make_hold(10))
        with pytest.raises(StoreError, match="the server is full"):
            budget(store, 10**9, "user:2")
        settled(store, call, 40)
        assert money(store) == (100, 40, 0)
        client.config_set("maxmemory", 0)
    assert [record.id for record in store.calls()] == [call.id]
    assert [balance.account for balance in store.list()] == [USER]
    store.close()


def test_a_server_that_cannot_write_to_its_disk_is_a_store_error(start: Start) -> None:
    server = start("--save", "3600 1")
    store = open_store(server.url, project="p")
    budget(store, 100)
    shutil.rmtree(server.folder)
    with server.client() as client:
        client.bgsave()
        while client.info("persistence")["rdb_bgsave_in_progress"]:
            time.sleep(0.01)
    with pytest.raises(StoreError, match="cannot write to its disk"):
        store.reserve(make_hold(10))
    assert money(store) == (100, 0, 0)
    store.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_would_evict_budgets_is_refused(start: Start, policy: str) -> None:
    server = start("--maxmemory", "100mb", "--maxmemory-policy", policy)
    with pytest.raises(ConfigurationError, match=rf"{policy}.*set maxmemory-policy noeviction"):
        open_store(server.url, project="p")
    with server.client() as client:
        client.config_set("maxmemory", 0)  # without a limit nothing is ever evicted
    open_store(server.url, project="p").close()


def test_a_replica_is_a_store_error_that_names_the_remedy(start: Start) -> None:
    primary = start()
    replica = start("--replicaof", "127.0.0.1", str(primary.port))
    store = open_store(f"{replica.url}?timeout=0.3", project="p")
    with at_most(0.3), pytest.raises(StoreError, match=r"it is a replica: .* redis\+sentinel://"):
        budget(store, 100)
    store.close()


def test_a_node_of_a_cluster_is_a_store_error_that_names_the_remedy(start: Start) -> None:
    server = start("--cluster-enabled", "yes")
    with at_most(0.3), pytest.raises(StoreError, match="cluster"):
        open_store(f"{server.url}?timeout=0.3", project="p")


@pytest.mark.parametrize("userinfo", ["", ":wrong@", "budget:wrong@", "wrong@"])
def test_a_wrong_password_is_a_store_error_without_the_password(start: Start, userinfo: str) -> None:
    server = start("--requirepass", "secret")
    url = f"redis://{userinfo}127.0.0.1:{server.port}"
    with at_most(2), pytest.raises(StoreError, match="another user or password") as caught:
        open_store(url, project="p")
    assert "wrong" not in str(caught.value).replace("WRONGPASS", "").replace(userinfo.partition(":")[0], "")


def test_a_user_with_just_the_rights_that_the_documentation_names_can_do_everything(start: Start) -> None:
    server = start()
    with server.client() as client:
        rights = ["~bg:*", "+@read", "+@write", "+@scripting", "+@connection", "+time"]
        client.execute_command("ACL", "SETUSER", "budget", "reset", "on", ">p/w d", *rights)
    store = open_store(f"redis://budget:p%2Fw%20d@127.0.0.1:{server.port}", project="p")
    budget(store, 100, duration="daily")
    call = granted(store, make_hold(60))
    store.attach(call.id, "answer")
    settled(store, call, 40)
    assert money(store) == (100, 40, 0)
    assert len(list(store.calls())) == len(list(store.list())) == 1
    assert store.reset(USER) is not None
    assert store.delete(USER)
    store.close()


def test_a_user_who_lacks_a_right_is_told_so(start: Start) -> None:
    server = start()
    with server.client() as client:
        client.acl_setuser("budget", enabled=True, passwords=["+pw"], keys=["other:*"], categories=["+@all"])
    store = open_store(f"redis://budget:pw@127.0.0.1:{server.port}", project="p")
    with pytest.raises(StoreError, match="keys that begin with bg:"):
        budget(store, 100)
    store.close()


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made), "-out", str(made)]
    parts = [tmp_path / "key.pem", tmp_path / "cert.pem"]
    command[command.index("-keyout") + 1], command[command.index("-out") + 1] = map(str, parts)
    subprocess.run(command, check=True, capture_output=True)
    made.write_text("".join(part.read_text() for part in parts))
    return made


@pytest.fixture
def tls_port(server: ValkeyServer, certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy = Proxy(server.port, context)
    yield proxy.port
    proxy.close()


def test_balances_are_kept_over_tls(tls_port: int, certificate: Path) -> None:
    for options in (f"ssl_ca_certs={certificate}", "ssl_verify=no"):
        for scheme in ("rediss", "valkeys"):
            store = open_store(f"{scheme}://127.0.0.1:{tls_port}?{options}", project="p")
            budget(store, 100)
            assert money(store) == (100, 0, 0)
            store.close()


def test_a_certificate_that_nobody_vouches_for_is_a_store_error(tls_port: int) -> None:
    with pytest.raises(StoreError, match=r"TLS failed.*ssl_ca_certs="):
        open_store(f"rediss://127.0.0.1:{tls_port}?timeout=0.5", project="p")


def test_tls_to_a_server_without_it_is_a_store_error(server: ValkeyServer) -> None:
    with at_most(0.5), pytest.raises(StoreError):
        open_store(f"rediss://127.0.0.1:{server.port}?timeout=0.5", project="p")


# Sockets


def test_a_socket_on_this_machine_will_do(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "of.sock"
    start("--unixsocket", str(path))
    store = open_store(f"redis+unix://{path}", project="p")
    store.set_budget(USER, Budget(100))
    assert money(store) == (100, 0, 0)
    store.close()
