"""The demo runs the real client against a real server, and its books equal the bills."""

from __future__ import annotations

import os
import pty
import subprocess
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from budgetguard.guard import Guard
from tests.provider.server import OpenAIServer, Reply

from .helpers import COMMAND, Command, clean_environment, run


def test_demo_tells_each_step_and_ends_with_equal_books() -> None:
    done = run("demo", "--fast", COLUMNS="100")
    assert done.code == 0
    for word in ("projected", "held", "settled", "REFUSED", "bob was refused", "The books equal"):
        assert word in done.out
    assert "\x1b" not in done.out, "what is no terminal gets no escape sequences"
    assert done.err == ""


def test_demo_in_json_holds_every_event_and_a_summary(command: Command) -> None:
    *events, summary = command("demo", "--fast", "--json").objects
    kinds = Counter(event["event"] for event in events)
    assert kinds["Held"] == kinds["Settled"] == sum(user["calls"] for user in summary["users"])
    assert kinds["Projected"] == kinds["Held"] + kinds["Refused"]
    assert kinds["Refused"] == 1
    assert summary["books_equal_bills"] is True
    alice, bob = summary["users"]
    assert (alice["refused"], bob["refused"]) == (False, True)
    assert bob["resets_at"] is not None
    for user in (alice, bob):
        settled = [
            Decimal(e["cost"]) for e in events if e["event"] == "Settled" and e["user"] == user["user"]
        ]
        assert Decimal(user["spent"]) == Decimal(user["billed"]) == sum(settled) > 0


def test_alice_has_several_calls_under_way_at_once(command: Command) -> None:
    held, most = 0, 0
    for event in command("demo", "--fast", "--json").objects:
        if event.get("user") == "alice":
            held += {"Held": 1, "Settled": -1}.get(event["event"], 0)
            most = max(most, held)
    assert held == 0
    assert most >= 2


def test_demo_keeps_its_books_where_it_is_told_and_touches_no_others(command: Command, guard: Guard) -> None:
    guard.set_budget(7, user="alice")
    store = str(guard.settings.store)
    for _ in range(2):
        assert command("demo", "--fast", "--store", store).code == 0
    kept = command("users", "--project", "budgetguard-demo", "--json").objects
    assert [one["user"] for one in kept] == ["alice", "bob"]
    assert all(Decimal(one["spent"]) > 0 for one in kept)
    assert guard.balance("alice").limit == 7
    assert guard.balance("alice").spent == 0


@pytest.mark.full
def test_demo_without_a_store_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    done = run("demo", "--fast", HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "temporary"))
    assert done.code == 0
    assert not list((tmp_path / "temporary").glob("budgetguard*"))
    assert not (tmp_path / "home" / ".budgetguard").exists()


@pytest.mark.full
def test_demo_goes_straight_to_loopback_whatever_proxy_is_set() -> None:
    nowhere = "http://127.0.0.1:9"
    assert run("demo", "--fast", HTTP_PROXY=nowhere, http_proxy=nowhere, ALL_PROXY=nowhere).code == 0


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [40, pytest.param(80, marks=pytest.mark.full)])
def test_demo_at_a_terminal_redraws_its_table(columns: int) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "demo", "--fast"],
        env={**clean_environment(), "COLUMNS": str(columns), "LINES": "40", "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    out = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        out += part
    os.close(ours)
    assert process.wait(60) == 0
    text = out.decode()
    assert "\x1b[2K" in text, "lines are erased and drawn anew"
    assert text.rstrip().endswith("\x1b[0m")
    assert "\x1b[?25h" in text, "the cursor is shown again"
    assert "Traceback" not in text


def test_live_needs_a_key(command: Command) -> None:
    done = command("demo", "--live", "--yes")
    assert done.code == 2
    assert "OPENAI_API_KEY" in done.err


def test_live_asks_before_it_spends(command: Command) -> None:
    with OpenAIServer() as server:
        done = command("demo", "--live", OPENAI_API_KEY="k", OPENAI_BASE_URL=server.base_url)
        assert done.code == 2
        assert "--yes" in done.err
        assert server.count() == 0


def test_live_books_the_usage_that_the_api_reports(command: Command) -> None:
    with OpenAIServer(reply=Reply(completion_tokens=60, cached_tokens=4)) as server:
        environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": server.base_url}
        *events, summary = command("demo", "--live", "--yes", "--json", **environ).objects
        assert summary["books_equal_bills"] is True
        assert sum(user["calls"] for user in summary["users"]) == server.count() == len(server.billed)
        assert sum(Decimal(user["spent"]) for user in summary["users"]) <= Decimal("0.01")
        assert [event["user"] for event in events if event["event"] == "Refused"] == ["bob"]


def test_live_says_in_one_line_what_the_api_said(command: Command) -> None:
    with OpenAIServer(reply=Reply(status=401, text="Incorrect API key provided")) as server:
        done = command("demo", "--live", "--yes", OPENAI_API_KEY="k", OPENAI_BASE_URL=server.base_url)
        assert done.code == 1
        assert len(done.err.splitlines()) == 1
        assert "Incorrect API key provided" in done.err
