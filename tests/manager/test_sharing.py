"""Managers, threads, processes and guarded clients of one project see one state, and lose nothing of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from budgetguard import BudgetExceededError, BudgetManager, Guard, budget_user
from tests.manager.answers import COST_NANOS, MESSAGES, MODEL, completion
from tests.provider.server import OpenAIServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Guard]:
    guard = Guard(store=f"disk://{tmp_path}", project="app")
    yield guard
    guard.close()


def update_in_processes(folder: Path, user: str, *, processes: int, threads: int, updates: int) -> None:
    command = [sys.executable, "-m", "tests.manager._worker", str(folder), user, str(threads), str(updates)]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(processes)
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    assert [process.returncode for process in running] == [0] * processes


@pytest.mark.full
def test_four_processes_that_update_one_user_500_times_each_book_2000(tmp_path: Path, shared: Guard) -> None:
    manager = shared.manager()
    manager.create_budget(10, "1234", "monthly")
    update_in_processes(tmp_path, "1234", processes=4, threads=1, updates=500)
    balance = shared.balance("1234")
    assert (balance.spent_nanos, dict(balance.models)) == (2_000 * COST_NANOS, {MODEL: 2_000 * COST_NANOS})
    assert manager.get_current_cost("1234") == 2_000 * COST_NANOS / 1e9


def test_two_processes_of_four_threads_and_we_ourselves_book_every_update(
    tmp_path: Path, shared: Guard
) -> None:
    shared.manager().create_budget(10, "1234")
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(update_in_processes, tmp_path, "1234", processes=2, threads=4, updates=100)
        for _ in range(50):
            shared.manager().update_cost("1234", completion())
        others.result()
    assert shared.balance("1234").spent_nanos == 250 * COST_NANOS


def test_managers_see_each_others_changes_at_once(tmp_path: Path, shared: Guard) -> None:
    first = BudgetManager("app", guard=shared)
    other_guard = Guard(store=f"disk://{tmp_path}", project="app")
    second = BudgetManager("app", guard=other_guard)
    first.create_budget(10, "1234", "monthly")
    assert second.is_valid_user("1234")
    second.update_cost("1234", completion())
    second.create_budget(20, "1234", "monthly")
    assert first.get_total_budget("1234") == 20.0
    assert first.get_current_cost("1234") == second.get_current_cost("1234") == COST_NANOS / 1e9
    first.reset_cost("1234")
    assert second.get_current_cost("1234") == 0.0
    other_guard.close()


def test_users_made_by_many_threads_at_once_are_all_there(shared: Guard) -> None:
    users = [f"user-{number:03}" for number in range(100)]
    manager = shared.manager()
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda user: manager.create_budget(1, user), users))) == 100
    assert manager.get_users() == users


def test_a_budget_of_ten_calls_lets_ten_through_a_guarded_client(shared: Guard) -> None:
    manager = shared.manager()
    with OpenAIServer() as server, OpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client:
        shared.wrap(client)
        manager.create_budget(1, "probe")
        one = manager.projected_cost(MODEL, MESSAGES, "probe", max_completion_tokens=5)
        manager.create_budget(10 * one, "1234")

        def call(_: int) -> Any:
            # A program of LiteLLM's that checks, calls and updates; the guard decides.
            if manager.get_current_cost("1234") > manager.get_total_budget("1234"):
                return None
            with budget_user("1234"):
                try:
                    answer = client.chat.completions.create(
                        model=MODEL, messages=MESSAGES, max_completion_tokens=5
                    )
                except BudgetExceededError:
                    return None
            manager.update_cost("1234", answer)
            return answer

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(call, range(40)))
    assert manager.get_current_cost("1234") <= manager.get_total_budget("1234")
    billed = sum(
        round(entry["prompt_tokens"] * 150 + entry["completion_tokens"] * 600) for entry in server.billed
    )
    assert shared.balance("1234").spent_nanos == billed > 0
