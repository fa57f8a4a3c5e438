"""A service that is killed, cut off, or behind TLS: nothing lost, nothing twice."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from budgetguard import Guard
from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Booked, Granted, Settlement
from budgetguard.errors import StoreError
from budgetguard.stores import Store, open_store
from tests.guarded_calls import HELLO, MODEL, completion, make_guard
from tests.race._workers import make_hold
from tests.servers.proxy import Proxy

from .hosted_process import ServeProcess
from .services import Service

COST = 120_000  # Nanos of one `completion()`


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServeProcess]:
    process = ServeProcess(f"disk://{tmp_path / 'budgets'}", tmp_path / "log")
    yield process
    process.kill()


@pytest.fixture
def proxy(open_service: Service) -> Iterator[Proxy]:
    proxy = Proxy(int(open_service.url.rpartition(":")[2]))
    yield proxy
    proxy.close()


def through(proxy: Proxy, timeout: float = 60) -> Store:
    store = open_store(f"http://127.0.0.1:{proxy.port}?timeout={timeout}", project="p")
    store.set_budget("user:1", Budget(1_000))
    return store


def money(store: Store) -> tuple[int, int]:
    balance = store.read("user:1")
    assert balance is not None
    return balance.spent_nanos, balance.held_nanos


@pytest.mark.full
def test_a_service_killed_again_and_again_under_load_loses_no_call_and_books_none_twice(
    process: ServeProcess, tmp_path: Path
) -> None:
    patient = make_guard(f"{process.url}?timeout=60")
    guard = Guard(store=f"{process.url}?timeout=0.4", project="p", spool=str(tmp_path / "spool"), user="u")
    guard.register_price(MODEL, input=1, output=2)
    made: list[None] = []
    spooled: list[int] = []
    done = threading.Event()

    @guard.budgeted
    def ask(messages: object, model: str = MODEL) -> object:
        made.append(None)
        time.sleep(0.01)
        return completion()

    def work() -> None:
        while not done.is_set():
            try:
                ask(HELLO)
            except StoreError:
                time.sleep(0.01)

    with ThreadPoolExecutor(6) as pool:
        working = [pool.submit(work) for _ in range(6)]
        for _ in range(4):
            begun = len(made)
            while len(made) < begun + 40:
                time.sleep(0.01)
            process.kill()
            time.sleep(1)  # longer than a verb waits
            spooled.append(len(list((tmp_path / "spool").glob("*/0*.json"))))
            process.start()
        done.set()
        for each in working:
            each.result()
    assert max(spooled) > 0, "no call ended while the service was away"
    while guard.engine._outbox.flush() is not None or guard.engine._outbox:
        time.sleep(0.05)
    balance = patient.balance("u")
    assert (balance.spent_nanos, balance.held_nanos, balance.expiries) == (len(made) * COST, 0, 0)
    assert sum(call.state == "settled" for call in patient.calls()) == len(made)
    assert list((tmp_path / "spool").glob("*/0*.json")) == []
    guard.close()
    patient.close()


@pytest.mark.full
def test_a_verb_waits_for_a_service_that_comes_back_within_its_time(process: ServeProcess) -> None:
    store = open_store(f"{process.url}?timeout=60", project="p")
    store.set_budget("user:1", Budget(1_000))
    hold = make_hold(60)
    assert isinstance(store.reserve(hold), Granted)
    process.kill()
    later = threading.Timer(0.3, process.start)
    later.start()
    assert store.settle(hold, Settlement(40)) == Booked(40)
    later.join()
    assert money(store) == (40, 0)
    store.close()


@pytest.mark.parametrize("lost", [1, 3])
def test_a_verb_whose_answer_is_lost_is_sent_again_and_counts_once(proxy: Proxy, lost: int) -> None:
    store = through(proxy)
    hold = make_hold(60)
    proxy.answers_to_drop = lost
    assert isinstance(store.reserve(hold), Granted)
    assert money(store) == (0, 60)
    proxy.answers_to_drop = lost
    assert isinstance(store.settle(hold, Settlement(40)), Booked)
    assert money(store) == (40, 0)
    store.close()


def test_connections_that_were_cut_while_idle_are_made_again_unnoticed(proxy: Proxy) -> None:
    store = through(proxy)
    for _ in range(5):
        proxy.cut()
        assert money(store) == (0, 0)
        assert store.reset("user:1") is not None
    store.close()


@pytest.mark.full
def test_a_call_is_not_made_while_the_service_is_away_and_the_error_says_so(
    process: ServeProcess, tmp_path: Path
) -> None:
    make_guard(process.url).close()
    guard = Guard(store=f"{process.url}?timeout=0.3", project="p", spool=str(tmp_path / "spool"), user="u")
    guard.register_price(MODEL, input=1, output=2)
    process.kill()

    @guard.budgeted
    def ask(messages: object, model: str = MODEL) -> object:
        raise AssertionError("the call was made")

    with pytest.raises(StoreError, match=r"could not be reached for 0\.3 s: is it running") as caught:
        ask(HELLO)
    assert caught.value.__cause__ is not None
    guard.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *name, "-keyout", made, "-out", made], check=True, capture_output=True)
    return made


@pytest.fixture
def tls_port(open_service: Service, certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    proxy = Proxy(int(open_service.url.rpartition(":")[2]), context)
    yield proxy.port
    proxy.close()


def test_balances_are_kept_over_tls(tls_port: int, certificate: Path) -> None:
    with_authority = Guard(store=f"https://127.0.0.1:{tls_port}?ssl_ca_certs={certificate}", project="p")
    with_authority.set_budget(10, user="1234")
    assert with_authority.balance("1234").limit == 10
    with_authority.close()


def test_a_certificate_that_nobody_vouches_for_is_told_at_once(tls_port: int) -> None:
    store = open_store(f"https://127.0.0.1:{tls_port}?timeout=60", project="p")
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"is not trusted: name its authority by \?ssl_ca_certs=FILE"):
        store.read("user:1")
    assert time.monotonic() - began < 30
    store.close()
