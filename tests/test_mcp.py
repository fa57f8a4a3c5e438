"""`budgetguard mcp`, asked by a real client over stdio: what is left, what calls cost, what was spent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp.server.mcpserver")

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from budgetguard import ConfigurationError, Guard
from budgetguard.integrations.mcp import mcp_server

COMMAND = [sys.executable, "-W", "error", "-c", "from budgetguard.cli import main; main()", "mcp"]
# What a call of 1 000 tokens in and 500 out costs at $0.15 and $0.60 a million.
COST = "0.00045"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"disk://{tmp_path}/budgets"


@pytest.fixture
def guard(store: str) -> Iterator[Guard]:
    made = Guard(store=store, project="p", spool=None)
    made.set_budget(0.001, user="alice", duration="monthly")
    made.set_budget(5, user="bob")
    for user in ("alice", "bob"):
        with made.call(
            model="gpt-4o-mini", input_tokens=1_000, max_output_tokens=500, user=user, tags="nightly"
        ) as call:
            call.settle((1_000, 500))
    yield made
    made.close()


def environment(store: str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUDGETGUARD_")}
    return {
        **kept,
        "BUDGETGUARD_STORE": store,
        "BUDGETGUARD_PROJECT": "p",
        "BUDGETGUARD_SPOOL": "none",
        **more,
    }


@asynccontextmanager
async def asking(store: str, *options: str, **environ: str) -> AsyncIterator[Client]:
    """Start the command as an agent's program does, and yield a client of it."""
    command, *arguments = [*COMMAND, *options]
    parameters = StdioServerParameters(command=command, args=arguments, env=environment(store, **environ))
    async with Client(stdio_client(parameters)) as client:
        yield client


@asynccontextmanager
async def asking_here(store: str, user: str | None = None, **settings: Any) -> AsyncIterator[Client]:
    """Ask a server in this process, on a guard of its own."""
    guard = Guard(store=store, project="p", spool=None, **settings)
    async with Client(mcp_server(guard, user)) as client:
        yield client
    guard.close()


async def ask(client: Client, tool: str, **arguments: Any) -> Any:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return answer.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    return "".join(part.text for part in answer.content)


@pytest.mark.full
async def test_an_agent_asks_what_is_left_what_a_call_costs_and_what_was_spent(
    guard: Guard, store: str
) -> None:
    before = guard.balance("alice"), guard.balance("bob")
    async with asking(store, "--user", "alice") as client:
        left = await ask(client, "balance")
        assert left == {
            "user": "alice",
            "project": "p",
            "available": "0.00055",
            "accounts": [
                {
                    "account": "user:alice",
                    "limit": "0.001",
                    "spent": COST,
                    "held": "0.00",
                    "available": "0.00055",
                    "resets_at": before[0].resets_at and before[0].resets_at.isoformat(),
                }
            ],
        }
        fits = {"model": "gpt-4o-mini", "input_tokens": 1_000, "max_output_tokens": 500}
        found = await ask(client, "project_cost", **fits)
        assert found == {
            "model": "gpt-4o-mini",
            "projected": COST,
            "input_tokens": 1_000,
            "output_tokens": 500,
            "cap_assumed": False,
            "available": "0.00055",
            "affordable": True,
        }
        dear = await ask(client, "project_cost", **{**fits, "max_output_tokens": 5_000})
        assert dear["affordable"] is False
        counted = await ask(client, "project_cost", model="gpt-4o-mini", text="word " * 400)
        assert 400 <= counted["input_tokens"] < 600
        assert counted["cap_assumed"] is True
        assert counted["output_tokens"] == 1_024
        spent = await ask(client, "spending", since="1d", by=["model", "tag"])
        row = {"calls": 1, "open": 0, "voided": 0, "expiries": 0, "input_tokens": 1_000, "output_tokens": 500}
        row |= {"spent": COST, "held": "0.00"}
        assert spent["rows"] == [{"model": "gpt-4o-mini", "tag": "nightly", **row}]
        assert spent["total"] == row
        assert spent["rows_left_out"] == 0
    assert (guard.balance("alice"), guard.balance("bob")) == before
    assert not list(guard.holds())


@pytest.mark.full
async def test_the_tools_say_that_they_only_read_and_describe_their_arguments(
    guard: Guard, store: str
) -> None:
    async with asking(store, BUDGETGUARD_USER="bob") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"balance", "project_cost", "spending"}
        for tool in tools.values():
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint is True
            assert tool.annotations.destructive_hint is False
            assert tool.description
            assert tool.output_schema is not None
            for argument in tool.input_schema.get("properties", {}).values():
                assert argument["description"]
        assert "user" not in str(tools["balance"].input_schema)
        assert (await ask(client, "balance"))["user"] == "bob"


async def test_all_accounts_that_pay_are_told_and_the_one_with_the_least_counts(
    guard: Guard, store: str
) -> None:
    guard.set_budget(0.0003)
    async with asking_here(store, "bob") as client:
        left = await ask(client, "balance")
        assert [one["account"] for one in left["accounts"]] == ["user:bob", "project:p"]
        assert left["available"] == "0.0003"
        with guard.call(model="gpt-4o-mini", input_tokens=1_000, max_output_tokens=250, user="bob"):
            assert (await ask(client, "balance"))["available"] == "0.00"
            assert (await ask(client, "balance"))["accounts"][1]["held"] == "0.0003"
    async with asking_here(store) as client:
        left = await ask(client, "balance")
        assert left["user"] is None
        assert [one["account"] for one in left["accounts"]] == ["project:p"]
        spent = await ask(client, "spending", by=["user"])
        assert {row["user"]: row["calls"] for row in spent["rows"]} == {"alice": 1, "bob": 2}
        with_day = await ask(client, "spending", by=["day", "user"], since=None)
        assert with_day["since"] is None


async def test_who_has_no_budget_yet_gets_the_default_or_is_told_so(guard: Guard, store: str) -> None:
    async with asking_here(store, "carol") as client:
        told = await refused(client, "balance")
        assert "user 'carol' has no budget in project 'p'" in told
    async with asking_here(store, "carol", default_budget=2) as client:
        assert (await ask(client, "balance"))["available"] == "2.00"
        assert "carol" not in list(guard.users())


async def test_questions_that_make_no_sense_are_answered_with_the_remedy(guard: Guard, store: str) -> None:
    async with asking_here(store, "alice") as client:
        for arguments, text in (
            ({}, "one of text and input_tokens"),
            ({"text": "a", "input_tokens": 1}, "one of text and input_tokens"),
            ({"input_tokens": -1}, "greater than or equal to 0"),
            ({"input_tokens": 1, "model": "no-such-model"}, "no-such-model"),
            ({"input_tokens": 1, "provider": "nobody"}, "nobody"),
        ):
            assert text in await refused(client, "project_cost", **{"model": "gpt-4o-mini", **arguments})
        for arguments, text in (
            ({"by": ["Colour"]}, "a report is by user, model, day, month, endpoint, tag, provider, or a label"),
            ({"since": "soon"}, "since must be a span before now such as 7d"),
            ({"since": "2026-01-02", "until": "2026-01-01"}, "is not before"),
        ):
            assert text in await refused(client, "spending", **arguments)
        # It goes on answering.
        assert (await ask(client, "balance"))["user"] == "alice"


@pytest.mark.full
def test_a_server_that_cannot_answer_says_why_on_standard_error(tmp_path: Path) -> None:
    for options, text in (
        ((), "there is no store in"),
        (("--user", ""), "user must not be empty"),
        (("--store", "memory://"), "is empty when a command begins"),
    ):
        place = tmp_path if "--user" in options else tmp_path / "none"
        done = subprocess.run(
            [*COMMAND, *options],
            env=environment(f"disk://{place}"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert text in " ".join(done.stderr.split())


async def test_many_rows_are_cut_and_said_to_be(guard: Guard) -> None:
    for number in range(120):
        with guard.call(
            model="gpt-4o-mini", input_tokens=number, max_output_tokens=0, user="bob", tags=f"t{number}"
        ) as call:
            call.settle((number, 0))
    async with Client(mcp_server(guard, "bob")) as client:
        spent = await ask(client, "spending", by=["tag"])
    assert len(spent["rows"]) == 100
    assert spent["rows_left_out"] == 21
    assert spent["rows"][0]["tag"] == "nightly"
    with pytest.raises(ConfigurationError, match="user must be text, not 5"):
        mcp_server(guard, 5)  # type: ignore[arg-type]
