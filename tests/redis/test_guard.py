"""Guarded calls on a server: the faces know nothing of which store they stand on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from budgetguard import BudgetExceededError, Guard
from budgetguard.cli.app import app
from budgetguard.errors import StoreError
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, nanos
from tests.servers.valkey import ValkeyServer, free_port

from .conftest import Start

COST = 120_000


def test_guards_on_one_server_share_what_a_user_has(server: ValkeyServer) -> None:
    first, second = make_guard(server.url), make_guard(f"valkey://127.0.0.1:{server.port}/0")

    @first.budgeted(user="u")
    def ask(messages: Any, model: str = MODEL) -> dict[str, Any]:
        assert nanos(second)[1] > 0
        return completion()

    ask(HELLO)
    assert nanos(first) == nanos(second) == (COST, 0)
    second.set_budget(0.00013, user="u")
    with pytest.raises(BudgetExceededError):
        ask(HELLO)
    assert [call.state for call in second.calls()] == ["settled"]


async def test_thirty_two_async_calls_at_once_get_what_the_budget_admits(server: ValkeyServer) -> None:
    guard = make_guard(server.url)

    @guard.budgeted(user="u", max_completion_tokens=10)
    async def ask(messages: Any, model: str = MODEL) -> dict[str, Any]:
        await asyncio.sleep(0.5)
        return completion()

    await ask(HELLO)
    projected = next(iter(guard.calls())).amount_nanos
    guard.set_budget((COST + 10 * projected) / 1e9, user="u")
    answers = await asyncio.gather(*(ask(HELLO) for _ in range(32)), return_exceptions=True)
    assert sum(isinstance(answer, BudgetExceededError) for answer in answers) == 22
    assert nanos(guard) == (11 * COST, 0)


def test_a_call_whose_server_dies_under_it_is_booked_once_when_the_server_is_back(
    start: Start, tmp_path: Path
) -> None:
    server = start("--appendonly", "yes", "--appendfsync", "always")
    guard = make_guard(f"{server.url}?timeout=0.5", spool=str(tmp_path / "spool"))

    @guard.budgeted(user="u")
    def ask(messages: Any, model: str = MODEL) -> dict[str, Any]:
        server.kill()
        return completion()

    assert ask(HELLO) == completion()
    server.start()
    give_up = time.monotonic() + 30
    while nanos(guard) != (COST, 0):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert [call.state for call in guard.calls()] == ["settled"]


@pytest.mark.parametrize("policy", ["block", "allow"])
def test_a_server_that_is_not_there_blocks_calls_or_lets_them_through_as_configured(
    policy: Any, tmp_path: Path
) -> None:
    url = f"redis://127.0.0.1:{free_port()}?timeout=0.2"
    guard = Guard(store=url, project="p", on_store_error=policy, spool=str(tmp_path / "spool"))
    guard.register_price(MODEL, input=1, output=2)
    made = []

    @guard.budgeted(user="u")
    def ask(messages: Any, model: str = MODEL) -> dict[str, Any]:
        made.append(1)
        return completion()

    if policy == "allow":
        assert ask(HELLO) == completion()
    else:
        with pytest.raises(StoreError, match="is it running"):
            ask(HELLO)
    assert len(made) == (policy == "allow")


def test_the_command_works_on_a_server_and_shows_no_password(start: Start) -> None:
    server = start("--requirepass", "hunter2")
    url = f"redis://:hunter2@127.0.0.1:{server.port}"
    run = CliRunner().invoke
    for words in (["create", "u", "10"], ["show", "u"], ["users"], ["delete", "u", "--yes"], ["users"]):
        done = run(app, ["--store", url, "--project", "p", *words])
        assert done.exit_code == 0, done.output
        assert "hunter2" not in done.output
    wrong = run(app, ["--store", url.replace("hunter2", "hunter3"), "users"])
    assert wrong.exit_code != 0
    assert "another user or password" in wrong.output
    assert "hunter3" not in wrong.output
