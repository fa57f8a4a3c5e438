"""Who pays is a list of rules: their order, and that a new kind of account is one rule and one row."""

from __future__ import annotations

import pytest

from budgetguard import BudgetExceededError, Guard, budget_tags
from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge
from budgetguard.engine import payers
from budgetguard.engine.payers import RULES, Books, CallFacts, PayerRule, charges_for
from tests.guarded_calls import MODEL, completion, make_guard


def ask(guard: Guard) -> None:
    with guard.call(model=MODEL, input_tokens=100, max_output_tokens=10, endpoint="chat") as call:
        call.settle(completion())


def test_accounts_are_asked_from_the_caller_outwards() -> None:
    guard = make_guard(runs=("started",), default_budget=5)
    guard.max_budget = 2
    inner = Charge("run:inner", budget=Budget(1), ephemeral=True)
    charges = charges_for(CallFacts("u", (inner,), MODEL, "chat"), guard.engine)
    kinds = [charge.account.partition(":")[0] for charge in charges]
    assert kinds == ["user", "run", "run", "process", "project"]
    assert charges[0] == Charge("user:u", required=True, budget=Budget(5 * 10**9))
    assert charges[1:3] == (inner, Charge("run:started", required=True))
    assert charges[3].pinned
    assert charges[3].budget == Budget(2 * 10**9)
    assert charges[4] == Charge("project:p")


def test_who_does_not_limit_is_not_charged() -> None:
    guard = make_guard()
    assert charges_for(CallFacts(), guard.engine) == (Charge("project:p"),)


def test_a_rule_sees_the_whole_call_and_its_account_refuses_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[CallFacts] = []

    def by_model(facts: CallFacts, books: Books) -> tuple[Charge, ...]:
        seen.append(facts)
        return (Charge(f"model:{facts.model}"),)

    monkeypatch.setattr(payers, "RULES", (*RULES, PayerRule("model", by_model, "model {}")))
    guard = make_guard(user="u")
    guard.store.set_budget(f"model:{MODEL}", Budget(200_000))
    with budget_tags("nightly"):
        ask(guard)
    assert seen == [CallFacts("u", (), MODEL, "chat", ("nightly",), provider="openai")]
    assert (balance := guard.store.read(f"model:{MODEL}")) is not None
    assert (balance.spent_nanos, balance.held_nanos) == (120_000, 0)
    with pytest.raises(BudgetExceededError, match=f"but model '{MODEL}' has \\$0.00008 left"):
        ask(guard)
    assert guard.balance("u").spent_nanos == 120_000
