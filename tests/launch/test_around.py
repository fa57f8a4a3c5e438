"""What goes around the guard in the Pythons of a run: told at its end, or refused under --strict-network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.provider.server import OpenAIServer
from tests.unguarded.server import CountingServer

from .programs import Launcher, environment

ENOUGH = ("--max-budget", "1")
STRICT = (*ENOUGH, "--strict-network")
JSON = ("--summary-json", "summary.json")
PYTHON = "python"
GET = """
import sys, urllib.request
def get():
    return urllib.request.urlopen(sys.argv[1], timeout=20).status
"""
CATCHES = """
try:
    print(get())
except Exception as error:
    print(type(error).__name__, error.status_code, error.address)
print(sorted(name for name in sys.modules if name.startswith("budgetguard")))
"""


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer() as running:
        yield running


@pytest.fixture
def known(server: CountingServer, monkeypatch: pytest.MonkeyPatch, launch: Launcher) -> dict[str, str]:
    launch.write("get.py", GET + CATCHES)
    return {"BUDGETGUARD_PROVIDER_HOSTS": server.host}


def test_an_address_that_was_called_around_is_told_at_the_end(
    launch: Launcher, server: CountingServer, known: dict[str, str]
) -> None:
    ended = launch.run(*ENOUGH, *JSON, "--", PYTHON, "get.py", server.url, **known)
    assert (ended.code, ended.out) == (0, "200\n[]\n")  # in a Python that never imports budgetguard
    warning, summary = ended.err.splitlines()
    assert warning.startswith(f"budgetguard: a connection to {server.host} is made outside of every guarded")
    assert summary == (
        f"budgetguard: no guarded call was made, $1.00 of $1.00 left, {server.host} was called outside of "
        "guarded calls: what is spent there is not counted"
    )
    told = launch.summary()
    assert (told["unguarded_addresses"], told["blocked_addresses"]) == ([server.host], [])
    assert server.requests == 1


def test_strict_network_refuses_it_before_a_byte_is_sent(
    launch: Launcher, server: CountingServer, known: dict[str, str]
) -> None:
    ended = launch.run(*STRICT, *JSON, "--", PYTHON, "get.py", server.url, **known)
    assert ended.out == f"UnguardedCall 422 {server.host}\n[]\n"
    assert ended.code == 3  # the program does not say that anything was refused
    assert f"unguarded calls of {server.host} were refused" in ended.err
    told = launch.summary()
    assert (told["unguarded_addresses"], told["blocked_addresses"]) == ([], [server.host])
    assert (server.connections, server.received) == (0, b"")


@pytest.mark.full
def test_a_program_that_fails_of_it_shows_why(
    launch: Launcher, server: CountingServer, known: dict[str, str]
) -> None:
    launch.write("fails.py", GET + "get()")
    ended = launch.run(*STRICT, "--", PYTHON, "fails.py", server.url, **known)
    assert ended.code == 1
    assert f"UnguardedCall: a connection to {server.host} was refused" in ended.err
    assert "guard.call" in ended.err


def test_all_pythons_below_are_strict(
    launch: Launcher, server: CountingServer, known: dict[str, str]
) -> None:
    program = """
import multiprocessing, subprocess, sys
from get import get
def child(url):
    sys.argv[1:] = [url]
    try:
        get()
    except Exception as error:
        return type(error).__name__
if __name__ == "__main__":
    for way in "fork", "spawn":
        with multiprocessing.get_context(way).Pool(1) as pool:
            print(pool.map(child, [sys.argv[1]]))
    print(subprocess.run(["sh", "-c", f"python get.py {sys.argv[1]}"], capture_output=True, text=True).stdout)
"""
    launch.write("get.py", GET + "if __name__ == '__main__':" + CATCHES.replace("\n", "\n    "))
    launch.write("parent.py", program)
    ended = launch.run(*STRICT, "--", PYTHON, "parent.py", server.url, **known)
    assert ended.out.splitlines()[:3] == [
        "['UnguardedCall']",
        "['UnguardedCall']",
        f"UnguardedCall 422 {server.host}",
    ]
    assert server.connections == 0


@pytest.mark.full
def test_a_python_without_budgetguard_is_strict(
    launch: Launcher, server: CountingServer, known: dict[str, str], tmp_path: Path
) -> None:
    bare = environment(tmp_path / "bare", leave_out=("budgetguard", "wrapt", "diskcache"))
    ended = launch.run(*STRICT, "--", str(bare), "get.py", server.url, **known)
    assert ended.out == f"UnguardedCall 422 {server.host}\n[]\n"
    assert server.connections == 0


@pytest.mark.full
def test_guarded_calls_of_a_strict_run_are_made(launch: Launcher, provider: OpenAIServer) -> None:
    """And what the same program sends there by another way is refused, with the error that it can import."""
    address = provider.base_url.removeprefix("http://").removesuffix("/v1")
    launch.agent()
    program = f"""
import asyncio, urllib.request
from agent import calls
from openai import AsyncOpenAI, OpenAI
import budgetguard
calls(1)
len(list(OpenAI().models.list()))
async def main():
    async with AsyncOpenAI() as client:
        await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{{"role": "user", "content": "hi"}}], max_completion_tokens=100
        )
asyncio.run(main())
try:
    urllib.request.urlopen("{provider.base_url}/models")
except budgetguard.UnguardedCallError as error:
    print(error.address)
budgetguard.configure(unguarded="allow")
print(urllib.request.urlopen("{provider.base_url}/models").status)
"""
    launch.write("program.py", program)
    hosts = {"BUDGETGUARD_PROVIDER_HOSTS": address}
    ended = launch.run(*STRICT, *JSON, "--", PYTHON, "program.py", **hosts)
    assert ended.out == f"made 1\n{address}\n200\n", ended.err
    told = launch.summary()
    assert (told["calls"], told["blocked_addresses"], told["unguarded_addresses"]) == (2, [address], [])
    assert ended.code == 3


@pytest.mark.parametrize("mode", ["block", "allow"])
def test_the_variable_says_it_for_all_runs(
    mode: str, launch: Launcher, server: CountingServer, known: dict[str, str]
) -> None:
    ended = launch.run(*ENOUGH, "--", PYTHON, "get.py", server.url, **known, BUDGETGUARD_UNGUARDED=mode)
    assert server.requests == (0 if mode == "block" else 1)
    assert ended.code == (3 if mode == "block" else 0)
    assert (server.host in ended.err) is (mode == "block")


@pytest.mark.full
def test_a_bad_word_is_refused_before_the_program_runs(launch: Launcher) -> None:
    ended = launch.run(*ENOUGH, "--", PYTHON, "-c", "print(1)", BUDGETGUARD_UNGUARDED="deny")
    assert (ended.code, ended.out) == (2, "")
    assert "unguarded must be one of 'warn', 'block', 'allow', not 'deny'" in ended.err


@pytest.mark.full
def test_auto_tells_as_well(launch: Launcher, server: CountingServer, known: dict[str, str]) -> None:
    program = f"""
import budgetguard.auto, subprocess, sys, urllib.request
urllib.request.urlopen({server.url!r})
print(budgetguard.auto.outcome().around)
"""
    ended = launch.python(program, BUDGETGUARD_MAX_BUDGET="1", **known)
    assert ended.out == f"('{server.host}',)\n", ended.err
    assert f"{server.host} was called outside of guarded calls" in ended.err.splitlines()[-1]


@pytest.mark.full
def test_a_program_that_connects_to_nobody_s_host_loads_nothing_more(
    launch: Launcher, server: CountingServer
) -> None:
    launch.write("get.py", GET + CATCHES)
    ended = launch.run(*STRICT, "--", PYTHON, "get.py", server.url)
    assert (ended.code, ended.out) == (0, "200\n[]\n")
    assert ended.err == "budgetguard: $0.00 spent on 0 calls, $1.00 of $1.00 left\n"
