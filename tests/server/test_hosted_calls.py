"""Patched clients whose budgets are at a service: ten calls' budget lets ten out, whoever asks at once."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from budgetguard.errors import BudgetExceededError
from budgetguard.guard import Guard
from tests.race import test_calls as race

from .services import Service


@pytest.mark.full
@pytest.mark.parametrize("crowd", race.CROWDS)
def test_of_thirty_two_calls_at_once_ten_go_out(open_service: Service, crowd: str, tmp_path: Path) -> None:
    url = f"{open_service.url}?timeout=60"
    race.test_of_thirty_two_calls_at_once_ten_go_out(url, crowd, race.EXACT, tmp_path)


@pytest.mark.full
def test_of_four_processes_with_eight_threads_ten_calls_go_out(open_service: Service, tmp_path: Path) -> None:
    race.processes_let_ten_out(f"{open_service.url}?timeout=60", race.EXACT, tmp_path)


def test_a_caller_s_price_file_counts_with_budgets_at_a_service(
    open_service: Service, tmp_path: Path
) -> None:
    # Prices are looked up where a call is made; the service only keeps the money.
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\nmodel = "ours"\ninput = 1\noutput = 1000\n')
    guard = Guard(store=open_service.url, prices=str(prices))
    guard.set_budget(1, user="alice")

    @guard.budgeted(model="ours")
    def ask(prompt: str, max_tokens: int = 20) -> dict[str, Any]:
        return {"model": "ours", "usage": {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}}

    with guard.budget_user("alice"):
        ask("Hello")
        prices.write_text('[[price]]\nmodel = "ours"\ninput = 1\noutput = 100000\n')
        with pytest.raises(BudgetExceededError):
            ask("Hello")
    assert guard.balance("alice").spent == Decimal("0.01001")
    guard.close()
