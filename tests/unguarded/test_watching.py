"""When a process is watched, by whose word, and what counts as inside of a guarded call."""

from __future__ import annotations

import asyncio
import gc
import http.client
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from budgetguard import Guard, UnguardedCallError
from budgetguard.engine import unguarded
from budgetguard.engine.unguarded import watcher
from budgetguard.events import Unguarded, log_events

from .clients import SYNC
from .conftest import Watch
from .server import CountingServer

get = SYNC["urllib"]


# Who watches


def test_nobody_is_watched_who_guards_no_client(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host)

    @watching.guard.budgeted(model="gpt-4o-mini")
    def ask(prompt: str) -> str:
        return "answer"

    ask("hello")
    get(server.url)
    assert not watching.told


def test_a_patch_watches_until_it_is_taken_off(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host)
    watching.guard.patch_openai()
    get(server.url)
    assert watching.addresses == [server.host]
    watching.guard.unpatch_openai()
    watcher._told.clear()
    get(server.url)
    assert len(watching.told) == 1


def test_one_patch_of_two_goes_on(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host)
    watching.guard.patch_openai()
    watching.guard.patch_anthropic()
    watching.guard.unpatch_openai()
    get(server.url)
    assert watching.addresses == [server.host]


def test_a_wrapped_client_watches(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host)
    with watching.guard.wrap(openai.OpenAI(api_key="x")):
        get(server.url)
    assert watching.addresses == [server.host]


@pytest.mark.parametrize("given", [{"unguarded": "warn"}, {"variable": "warn"}])
def test_the_setting_watches_whatever_is_guarded(
    given: dict[str, str], watch: Watch, server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "variable" in given:
        monkeypatch.setenv("BUDGETGUARD_UNGUARDED", given.pop("variable"))
    watching = watch(server.host, **given)
    get(server.url)
    assert watching.addresses == [server.host]


def test_the_setting_can_be_changed_at_any_time(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host)
    watching.guard.patch_openai()
    watching.guard.configure(unguarded="allow")
    get(server.url)
    assert not watching.told
    watching.guard.configure(unguarded="block")
    with pytest.raises(UnguardedCallError):
        get(server.url)
    watching.guard.configure(unguarded=None)
    get(server.url)
    assert [event.refused for event in watching.told] == [True, False]


def test_the_strictest_guard_counts_that_knows_the_address(watch: Watch, server: CountingServer) -> None:
    lax = watch(server.host, unguarded="warn")
    watch("localhost:1", unguarded="block")  # which knows nothing of it
    get(server.url)
    assert len(lax.told) == 1
    strict = watch(server.host, unguarded="block")
    with pytest.raises(UnguardedCallError):
        get(server.url)
    assert (len(lax.told), len(strict.told)) == (2, 1)


def test_a_guard_that_is_gone_watches_no_more(server: CountingServer) -> None:
    guard = Guard(store="memory://", unguarded="block", provider_hosts=[server.host])
    with pytest.raises(UnguardedCallError):
        get(server.url)
    del guard
    gc.collect()
    get(server.url)


def test_a_call_of_any_guard_is_guarded(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="block")
    other = Guard(store="memory://", user="u", default_budget=1)
    with other.call(model="gpt-4o-mini", input="hello") as call:
        get(server.url)
        call.settle("answer")
    assert not watching.told


def test_a_server_that_costs_nothing_is_none_of_a_provider(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="block", free_base_urls=[f"http://localhost:{server.port}/v1"])
    get(server.url)
    assert not watching.told


# What is inside of a call


def test_what_a_thread_does_that_outlives_its_call(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="block")
    go, raised = threading.Event(), []

    def later() -> None:
        get(server.url)
        go.wait(10)
        try:
            get(server.url)
        except UnguardedCallError as error:
            raised.append(error)

    @watching.guard.budgeted(model="gpt-4o-mini", usage=lambda _: (1, 1))
    def ask(prompt: str) -> threading.Thread:
        thread = threading.Thread(target=later)
        thread.start()
        while not server.requests:
            pass
        return thread

    thread = ask("hello")
    go.set()
    thread.join()
    assert len(raised) == 1
    assert server.requests == 1


async def test_what_a_task_does_that_outlives_its_call(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="block")
    go = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def later() -> None:
        await asyncio.to_thread(get, server.url)
        go.set()
        while watching.guard.balance("u").held:
            await asyncio.sleep(0)
        with pytest.raises(UnguardedCallError):
            await asyncio.open_connection("localhost", server.port)

    @watching.guard.budgeted(model="gpt-4o-mini", usage=lambda _: (1, 1))
    async def ask(prompt: str) -> str:
        tasks.append(asyncio.create_task(later()))
        await go.wait()
        return "answer"

    await ask("hello")
    await tasks[0]
    assert server.requests == 1


def test_what_is_beside_a_call(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="block")
    inside, done = threading.Event(), threading.Event()

    @watching.guard.budgeted(model="gpt-4o-mini", usage=lambda _: (1, 1))
    def ask(prompt: str) -> str:
        inside.set()
        done.wait(10)
        return "answer"

    thread = threading.Thread(target=ask, args=("hello",))
    thread.start()
    inside.wait(10)
    with pytest.raises(UnguardedCallError):
        get(server.url)
    done.set()
    thread.join()


def test_what_a_generator_s_caller_does_between_two_steps(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="block")

    @watching.guard.budgeted(model="gpt-4o-mini")
    def ask(prompt: str) -> Iterator[str]:
        get(server.url)
        yield "one"
        get(server.url)
        yield "two"

    steps = ask("hello")
    assert next(steps) == "one"
    with pytest.raises(UnguardedCallError):
        get(server.url)
    assert list(steps) == ["two"]
    assert server.requests == 2


# Connections that were open, or found, before


def test_a_request_over_a_connection_that_a_guarded_call_has_opened(
    watch: Watch, server: CountingServer
) -> None:
    """Python's own HTTP client tells of each request; others do not."""
    requests = pytest.importorskip("requests")
    watching = watch(server.host, unguarded="block")
    with requests.Session() as session:
        with watching.guard.call(model="gpt-4o-mini", input="hello") as call:
            assert session.get(server.url).ok
            call.settle("answer")
        received = server.received
        with pytest.raises(UnguardedCallError):
            session.get(server.url)
    assert (server.connections, server.received) == (1, received)


def test_a_connection_by_the_number_that_a_guarded_call_has_looked_up(
    watch: Watch, server: CountingServer
) -> None:
    watching = watch(server.host, unguarded="block")
    with socket.create_connection(("127.0.0.1", server.port)):
        pass  # so far it is nobody's
    with watching.guard.call(model="gpt-4o-mini", input="hello") as call:
        numbers = {one[4][0] for one in socket.getaddrinfo("localhost", server.port)}
        call.settle("answer")
    assert "127.0.0.1" in numbers
    with pytest.raises(UnguardedCallError, match=server.host):
        socket.create_connection(("127.0.0.1", server.port))
    with CountingServer() as another, socket.create_connection(("127.0.0.1", another.port)):
        pass  # the host is known at one port only


def test_a_cache_of_look_ups(watch: Watch, server: CountingServer) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    watching = watch(server.host, unguarded="block")

    async def main() -> None:
        connector = aiohttp.TCPConnector(force_close=True, ttl_dns_cache=None)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with (
                watching.guard.call(model="gpt-4o-mini", input="hello") as call,
                session.get(server.url) as answer,
            ):
                assert answer.status == 200
                call.settle("answer")
            with pytest.raises(UnguardedCallError):
                await session.get(server.url)

    asyncio.run(main())
    assert server.requests == 1


def test_a_number_that_other_names_share_is_not_told(
    watch: Watch, server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a network that delivers for many, the same number is everybody's."""
    watching = watch("llm.example", unguarded="block")
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
    watcher._remember("llm.example", found)
    with pytest.raises(UnguardedCallError, match=r"llm\.example"):
        socket.create_connection(("127.0.0.1", server.port))
    watcher._remember("shop.example", found)
    with socket.create_connection(("127.0.0.1", server.port)):
        pass
    watcher._remember("llm.example", found)
    with socket.create_connection(("127.0.0.1", server.port)):
        pass
    assert len(watching.told) == 1


def test_what_is_remembered_of_look_ups_is_bounded(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unguarded, "_MOST_REMEMBERED", 8)
    watch("llm.example", unguarded="warn")
    for number in range(100):
        watcher._remember(f"host-{number}", [(0, 0, 0, "", (f"10.0.0.{number}", 443))])
    assert len(watcher._others) <= 8


# Proxies


def test_a_request_through_a_proxy_is_seen_where_python_s_own_client_makes_it(
    watch: Watch, server: CountingServer
) -> None:
    watching = watch(unguarded="block")
    connection = http.client.HTTPConnection("localhost", server.port)
    connection.set_tunnel("api.openai.com", 443)
    with pytest.raises(UnguardedCallError, match=r"api\.openai\.com"):
        connection.request("GET", "/v1/models")
    connection.close()
    requests = pytest.importorskip("requests")
    with pytest.raises(UnguardedCallError, match=r"api\.anthropic\.com"):
        requests.get(
            "https://api.anthropic.com/v1/models", proxies={"https": f"http://localhost:{server.port}"}
        )
    assert server.received == b""
    assert watching.addresses == ["api.openai.com", "api.anthropic.com"]


# Safe in the middle of other people's connections


def test_who_hears_of_it_may_connect(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="warn")
    watching.guard.on(lambda _: get(server.url), Unguarded)
    get(server.url)
    assert (len(watching.told), server.requests) == (1, 2)


class _Failing(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the log is full")


@pytest.mark.parametrize("mode", ["warn", "block"])
def test_who_fails_to_hear_of_it_changes_nothing(mode: str, watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded=mode)
    handler = _Failing()
    logging.getLogger("budgetguard").addHandler(handler)
    try:
        for _ in range(2):
            if mode == "block":
                with pytest.raises(UnguardedCallError):
                    get(server.url)
            else:
                get(server.url)
    finally:
        logging.getLogger("budgetguard").removeHandler(handler)
    assert server.requests == (0 if mode == "block" else 2)
    assert not watching.told


def test_what_fails_inside_never_reaches_the_program(
    watch: Watch, server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch(server.host, unguarded="block")

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(unguarded, "target_of", fail)
    get(server.url)


@pytest.mark.parametrize(
    "address",
    [
        "unix",
        ("", 0),
        ("localhost",),
        ("::1", 1, 0, 0),
        None,
        ("a" * 300, 80),
        (b"localhost", 1),
        ("\ud800", 1),
    ],
)
def test_odd_addresses_are_left_to_the_socket(address: Any, watch: Watch) -> None:
    watch("localhost:2", unguarded="block")
    kind = socket.AF_UNIX if address == "unix" else socket.AF_INET
    with socket.socket(kind) as one:
        one.settimeout(5)
        with pytest.raises((OSError, TypeError, UnicodeError)) as raised:
            one.connect("/nowhere" if address == "unix" else address)
    assert "guard" not in str(raised.value)


def test_many_threads_at_once_tell_once(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="warn")
    threads = [threading.Thread(target=get, args=(server.url,)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(watching.told) == 1
    assert server.requests == 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_is_watched_as_its_parent(watch: Watch, server: CountingServer) -> None:
    watch(server.host, unguarded="block")
    child = os.fork()
    if not child:
        try:
            get(server.url)
        except UnguardedCallError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert server.connections == 0


def test_the_look_up_of_the_socket_module_stays_what_it_was(watch: Watch) -> None:
    watch(unguarded="warn")
    assert pickle.loads(pickle.dumps(socket.getaddrinfo)) is socket.getaddrinfo
    assert socket.getaddrinfo.__name__ == "getaddrinfo"
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(host="127.0.0.1", port="no-such-service")
    with pytest.raises(TypeError):
        socket.getaddrinfo()  # type: ignore[call-arg]


def test_connections_while_the_interpreter_ends_raise_nothing() -> None:
    code = """
import socket
import budgetguard
budgetguard.configure(store="memory://", unguarded="block")
class Last:
    def __init__(self):
        self.socket = socket.socket()
    def __del__(self, refused=ConnectionRefusedError, fill=b"ended ", write=__import__("os").write):
        try:
            self.socket.connect(("127.0.0.1", 1))
        except refused:
            write(1, fill)
        self.socket.close()
import sys
sys.last = Last()
socket.last = Last()
budgetguard._last = Last()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "ended " * 3)


# How it is told


def test_the_event_says_who_connected(watch: Watch, server: CountingServer) -> None:
    watching = watch(server.host, unguarded="warn")
    watching.guard.on(log_events)
    with watching.guard.budget_user("u"):
        get(server.url)
    (event,) = watching.told
    assert event.caller is not None
    assert event.caller.startswith("tests.unguarded.clients:")
    assert (event.user, event.model, event.refused) == ("u", "", False)
    assert event.to_dict()["event"] == "Unguarded"
    assert [one.levelname for one in watching.records] == ["WARNING"] * 2  # the log's own, and log_events'


def test_the_error_can_be_answered_with_and_pickled() -> None:
    error = UnguardedCallError("refused", address="api.openai.com")
    assert error.to_dict() == {
        "error": "UnguardedCallError",
        "message": "refused",
        "address": "api.openai.com",
    }
    again = pickle.loads(pickle.dumps(error))
    assert (again.address, str(again), again.status_code) == ("api.openai.com", "refused", 422)
    assert not isinstance(error, OSError)


def test_an_sdk_whose_connections_nobody_sees_is_told_where_it_is_imported(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "xai_sdk.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    code = """
import logging, sys
import budgetguard
budgetguard.configure(store="memory://")
logging.basicConfig(format="%(message)s", stream=sys.stdout)
{}
import xai_sdk
"""
    for before, told in (("budgetguard.patch_openai()", 1), ("", 0)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(before)],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("xai_sdk is imported, and sends over gRPC") == told, done.stdout


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unguarded": "deny"}, "unguarded must be one of 'warn', 'block', 'allow', not 'deny'"),
        ({"unguarded": True}, "not True"),
        ({"provider_hosts": "api.example"}, "provider_hosts is a list of hosts"),
        ({"provider_hosts": ["https://api.example/v1"]}, r"llm.example.com.*https://api.example/v1"),
        ({"provider_hosts": ["u:secret@api.example"]}, "provider_hosts"),
        ({"provider_hosts": ["api.example:0"]}, "api.example:0"),
        ({"provider_hosts": [""]}, "not ''"),
        ({"provider_hosts": [5]}, "not 5"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    from budgetguard import ConfigurationError

    with pytest.raises(ConfigurationError, match=message):
        Guard(store="memory://", **settings)
