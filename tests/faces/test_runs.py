"""`with budget(0.50) as run`, `max_budget` and `current_cost()`."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import budgetguard
from budgetguard import BudgetExceededError, ConfigurationError, Guard, MissingUserError, budget_user
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, nanos

COST = Decimal("0.00012")


@pytest.fixture
def guard() -> Guard:
    return make_guard()


def asker(guard: Guard, answer: Any = None) -> Any:
    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion() if answer is None else answer()

    return ask


def test_a_run_limits_what_is_called_inside_and_says_how_it_stands(guard: Guard) -> None:
    held = []
    ask = asker(guard, lambda: [held.append((run.held, run.available)), completion()][1])
    with guard.budget(0.0003) as run:
        assert (run.limit, run.spent, run.held, run.available) == (Decimal("0.0003"), 0, 0, run.limit)
        ask(HELLO)
        assert (run.spent, run.held, run.available) == (COST, 0, run.limit - COST)
        ask(HELLO)
        with pytest.raises(BudgetExceededError, match="this run has") as refused:
            ask([{"role": "user", "content": "many words " * 100}])
    assert refused.value.account == run.account
    assert refused.value.user is None
    assert run.spent == 2 * COST
    assert held[0][0] > 0
    assert held[0][0] + held[0][1] == run.limit


def test_a_run_comes_on_top_of_the_users_budget_and_refuses_for_either(guard: Guard) -> None:
    ask = asker(guard)
    with budget_user("u"), guard.budget(1) as run:
        ask(HELLO)
        guard.set_budget(0, user="u")
        with pytest.raises(BudgetExceededError) as refused:
            ask(HELLO)
        assert refused.value.account == "user:u"
    assert run.spent == COST
    assert (run.held, nanos(guard)) == (0, (120_000, 0)), "a refusal by one holds nothing on the other"


def test_runs_nest_and_a_call_counts_in_both(guard: Guard) -> None:
    ask = asker(guard)
    with guard.budget(1) as outer:
        ask(HELLO)
        with guard.budget(1) as inner:
            ask(HELLO)
        ask(HELLO)
    assert (outer.spent, inner.spent) == (3 * COST, COST)


def test_a_run_entered_inside_itself_counts_a_call_once(guard: Guard) -> None:
    run = guard.budget(1)
    with run, run:
        asker(guard)(HELLO)
    assert run.spent == COST


def test_an_exhausted_run_ends_with_its_with(guard: Guard) -> None:
    ask = asker(guard)
    with guard.budget(0), pytest.raises(BudgetExceededError):
        ask(HELLO)
    with budget_user("u"):
        ask(HELLO)


async def test_threads_and_tasks_started_inside_belong_to_the_run(guard: Guard) -> None:
    ask = asker(guard)

    async def later() -> None:
        await asyncio.sleep(0)
        ask(HELLO)

    async with guard.budget(1) as run:
        await asyncio.gather(later(), later(), asyncio.to_thread(ask, HELLO))
        thread = threading.Thread(target=ask, args=(HELLO,))
        thread.start()
        thread.join(30)
        with ThreadPoolExecutor() as pool:
            pool.submit(ask, HELLO).result(30)
    assert run.spent == 5 * COST


def test_as_a_decorator_each_call_is_a_run_of_its_own(guard: Guard) -> None:
    ask = asker(guard)

    @guard.budget(0.0002)
    def work(calls: int) -> str:
        for _ in range(calls):
            ask(HELLO)
        return "done"

    assert [work(1), work(1), work(1)] == ["done"] * 3
    with pytest.raises(BudgetExceededError):
        work(3)
    assert work(1) == "done"


def test_a_run_of_another_guard_does_not_limit_this_one(guard: Guard) -> None:
    with make_guard().budget(1) as run, pytest.raises(MissingUserError):
        asker(guard)(HELLO)
    assert run.spent == 0


@pytest.mark.parametrize("limit", [-1, float("nan"), float("inf"), "0.5", True, None])
def test_a_limit_that_is_no_amount_is_refused(guard: Guard, limit: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^budget must"):
        guard.budget(limit)


# max_budget


def test_max_budget_limits_the_process_with_no_user_set(guard: Guard) -> None:
    ask = asker(guard)
    guard.max_budget = 0.0003
    ask(HELLO)
    ask(HELLO)
    assert guard.current_cost() == 0.00024
    with pytest.raises(BudgetExceededError, match=r"this process \(max_budget\) has") as refused:
        ask([{"role": "user", "content": "many words " * 100}])
    error = refused.value
    assert (error.current_cost, error.max_budget) == (Decimal("0.00024"), Decimal("0.0003"))
    assert error.available == Decimal("0.00006")


def test_max_budget_set_after_spending_counts_what_was_spent_before(guard: Guard) -> None:
    ask = asker(guard)
    with budget_user("u"):
        ask(HELLO)
        ask(HELLO)
    guard.max_budget = 0.0003
    with pytest.raises(BudgetExceededError) as refused:
        ask(HELLO * 20)
    assert (refused.value.current_cost, refused.value.max_budget) == (Decimal("0.00024"), Decimal("0.0003"))


def test_max_budget_can_be_raised_lowered_and_switched_off(guard: Guard) -> None:
    ask = asker(guard)
    guard.max_budget = 0.0001
    ask(HELLO)
    with pytest.raises(BudgetExceededError):
        ask(HELLO)
    guard.max_budget = 1
    ask(HELLO)
    guard.max_budget = 0.0002
    with pytest.raises(BudgetExceededError):
        ask(HELLO)
    guard.max_budget = 0
    with budget_user("u"):
        ask(HELLO)
    guard.max_budget = 0.0004
    with pytest.raises(BudgetExceededError) as refused:
        ask(HELLO)
    assert refused.value.current_cost == 3 * COST, "what was spent while it was off counts too"
    assert guard.current_cost() == 0.00036
    assert guard.max_budget == Decimal("0.0004")


def test_max_budget_holds_beside_many_threads(guard: Guard) -> None:
    together = threading.Barrier(8, timeout=30)

    def answer() -> Any:
        return completion(40, 10)  # 60 000 Nanos, of 63 000 held

    ask = asker(guard, answer)
    guard.max_budget = 0.0004

    def one() -> int:
        together.wait()
        try:
            ask(HELLO)
        except BudgetExceededError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        made = sum(future.result(30) for future in [pool.submit(one) for _ in range(8)])
    assert made == 6, "however many are held and however many booked: the sixth fits, the seventh does not"
    assert guard.current_cost() == 0.00036


def test_max_budget_spans_the_projects_of_a_process(guard: Guard) -> None:
    other = guard.in_project("other")
    guard.max_budget = 0.0002
    asker(guard)(HELLO)
    asker(other)(HELLO)
    assert other.max_budget == guard.max_budget
    for one in (guard, other):
        with pytest.raises(BudgetExceededError):
            asker(one)(HELLO)
    assert guard.current_cost() == other.current_cost() == 0.00024


def test_max_budget_survives_a_change_of_store(guard: Guard, tmp_path: Path) -> None:
    guard.max_budget = 0.0002
    asker(guard)(HELLO)
    guard.configure(store=f"disk://{tmp_path}")
    asker(guard)(HELLO)
    with pytest.raises(BudgetExceededError) as refused:
        asker(guard)(HELLO)
    assert refused.value.current_cost == 2 * COST
    guard.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_counts_from_zero() -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from guarded_calls import *
from budgetguard import BudgetExceededError
guard = make_guard()
ask = guard.budgeted(lambda messages, model=MODEL, max_completion_tokens=10: completion())
guard.max_budget = 0.0002
ask(HELLO); ask(HELLO)
child = os.fork()
if not child:
    try:
        assert guard.current_cost() == 0
        ask(HELLO)
        assert guard.current_cost() == 0.00012
        ask(HELLO)
        try:
            ask(HELLO)
        except BudgetExceededError:
            os._exit(7)
    finally:
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert guard.current_cost() == 0.00024
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


@pytest.fixture
def module() -> Iterator[Any]:
    """The module's own guard, put back to how it was."""
    before = budgetguard._guard
    budgetguard._guard = make_guard()
    yield budgetguard
    budgetguard._guard = before


def test_the_modules_max_budget_is_checked_and_read_back(module: Any) -> None:
    assert module.max_budget == 0
    module.max_budget = 0.5
    assert module.max_budget == Decimal("0.5")
    for bad in ("0.5", -1, float("nan"), None):
        with pytest.raises(ConfigurationError, match=r"^max_budget must"):
            module.max_budget = bad
    assert module.max_budget == Decimal("0.5")
    assert module.default_guard().max_budget == Decimal("0.5")


def test_the_modules_functions_are_those_of_its_guard(module: Any) -> None:
    @module.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    with module.budget(1) as run, module.budget_user("u"):
        ask(HELLO)
    assert run.spent == COST
    assert module.current_cost() == 0.00012


def test_a_function_may_be_decorated_before_the_module_is_configured(module: Any, tmp_path: Path) -> None:
    @module.budgeted
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion()

    module.configure(store=f"disk://{tmp_path}", user="u", default_budget=1)
    ask(HELLO)
    assert module.default_guard().balance("u").spent == COST
    module.default_guard().close()
