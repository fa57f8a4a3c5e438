"""Which budgets a call is charged to, by its labels; in other processes' sight at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from budgetguard import (
    EACH,
    BudgetExceededError,
    ConfigurationError,
    Guard,
    budget_labels,
    budget_tags,
    budget_user,
    current_labels,
    literal,
)
from budgetguard.engine.carrying import enter_packed, packed_payer
from tests.guarded_calls import HELLO, MODEL, completion, make_guard, record
from tests.stores import STORES, Row, on

COST = 40_000
Ask = Callable[..., Any]


@pytest.fixture
def guard() -> Guard:
    return make_guard()


def asker(guard: Guard) -> Ask:
    @guard.budgeted(max_completion_tokens=10)
    def ask(messages: Any, model: str = MODEL) -> Any:
        return completion(20, 10)

    return ask


def spent(guard: Guard, **which: Any) -> int:
    return guard.balance(**which).spent_nanos


def test_a_call_is_charged_to_every_budget_whose_labels_it_carries(guard: Guard) -> None:
    guard.set_budget(1, team="red")
    guard.set_budget(1, user="u", model="round-*")
    guard.set_budget(1, tag="nightly")
    guard.set_budget(1, customer="acme", team="red")
    guard.set_budget(1, endpoint="function")
    guard.set_budget(1, team="blue")
    guard.set_budget(1, customer="other", team="red")
    ask = asker(guard)
    with budget_user("u", team="red"), budget_labels(customer="acme"), budget_tags("nightly", "x"):
        ask(HELLO)
    with budget_user("u"):
        ask(HELLO)
    assert spent(guard, user="u") == 2 * COST
    assert spent(guard, user="u", model="round-*") == 2 * COST
    assert spent(guard, endpoint="function") == 2 * COST
    assert spent(guard, team="red") == COST
    assert spent(guard, tag="nightly") == COST
    assert spent(guard, customer="acme", team="red") == COST
    assert spent(guard, team="blue") == 0
    assert spent(guard, customer="other", team="red") == 0
    first, second = guard.calls()
    assert dict(first.labels) == {"team": "red", "customer": "acme", "provider": "openai"}
    assert dict(second.labels) == {"provider": "openai"}


def test_all_of_the_budgets_grant_or_none_holds_anything(guard: Guard) -> None:
    guard.set_budget(1, team="red")
    guard.set_budget(0.00005, customer="acme")
    with (
        budget_user("u", team="red"),
        budget_labels(customer="acme"),
        pytest.raises(BudgetExceededError, match=r"but customer 'acme' has \$0.00005 left") as refused,
    ):
        asker(guard)(HELLO)
    assert refused.value.account == "customer:acme"
    assert (refused.value.entity_type, refused.value.entity_id) == ("customer", "acme")
    for which in ({"user": "u"}, {"team": "red"}, {"customer": "acme"}):
        balance = guard.balance(**which)  # type: ignore[arg-type]
        assert (balance.spent_nanos, balance.held_nanos) == (0, 0)


def test_a_model_s_budget_is_the_same_however_the_model_is_spelled(guard: Guard) -> None:
    guard.set_budget(1, model="gpt-4o-mini")
    guard.set_budget(1, model=EACH)
    ask = asker(guard)
    with budget_user("u"):
        for name in ("gpt-4o-mini", "openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18", "GPT-4o-mini"):
            ask(HELLO, model=name)
    assert guard.balance(model="gpt-4o-mini").spent_nanos == guard.balance("u").spent_nanos > 0
    names = [one.account for one in guard.budgets() if one.account.startswith("model:")]
    assert names == ["model:gpt-4o-mini"]


def test_a_budget_for_each_value_is_made_on_first_use(guard: Guard) -> None:
    template = guard.set_budget(0.00012, customer="*", duration="daily")
    assert (template.account, template.spent_nanos, template.duration) == ("labels:customer=*", 0, "daily")
    ask = asker(guard)
    for customer in ("acme", "*", "a&b=c"):
        with budget_user("u"), budget_labels(customer=customer):
            ask(HELLO)
            ask(HELLO)
            with pytest.raises(BudgetExceededError):
                ask(HELLO)
        assert guard.balance(customer=literal(customer)).spent_nanos == 2 * COST
    names = [one.account for one in guard.budgets() if "customer" in one.account]
    assert names == ["labels:customer=*", "customer:*", "customer:a&b=c", "customer:acme"]
    guard.set_budget(0.0005, customer="*", duration="daily")
    guard.set_budget(7, customer="acme")
    assert guard.balance(customer=literal("*")).limit_nanos == 500_000
    guard.set_budget(0.001, customer="*", duration="daily")
    assert guard.balance(customer="acme").limit_nanos == 7_000_000_000, "it was set by itself"
    guard.delete(customer="*")
    assert [one.account for one in guard.budgets() if "customer" in one.account] == ["customer:acme"]


def test_each_user_may_have_a_budget_of_a_model(guard: Guard) -> None:
    guard.set_budget(1, user="v")
    guard.set_budget(0.0001, user=EACH, model="round-*")
    ask = asker(guard)
    for user in ("u", "v"):
        with budget_user(user):
            ask(HELLO)
            with pytest.raises(BudgetExceededError, match=f"model 'round-\\*' and user '{user}'"):
                ask(HELLO)
    with budget_user("u"):
        ask(HELLO, model="gpt-4o-mini")


def test_a_user_s_id_is_never_a_pattern(guard: Guard) -> None:
    guard.set_budget(0, user="*")
    with budget_user("u"):
        asker(guard)(HELLO)
    with budget_user("*"), pytest.raises(BudgetExceededError):
        asker(guard)(HELLO)


def test_labels_nest_and_an_outer_user_s_are_not_the_inner_one_s() -> None:
    with budget_labels(customer="a", feature="x"), budget_user("1", team="red"):
        assert current_labels() == {"customer": "a", "feature": "x", "team": "red"}
        with budget_labels(customer="b"):
            assert current_labels() == {"customer": "b", "feature": "x", "team": "red"}
            with budget_user("2"):
                assert current_labels() == {"customer": "b", "feature": "x"}
        assert current_labels()["customer"] == "a"
    assert current_labels() == {}


def test_labels_follow_into_threads_tasks_and_jobs(guard: Guard) -> None:
    with budget_user("1", team="red"), budget_labels(customer="a"):
        wanted = {"customer": "a", "team": "red"}
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(current_labels).result() == wanted
        seen: list[dict[str, str]] = []
        thread = threading.Thread(target=lambda: seen.append(current_labels()))
        thread.start()
        thread.join()
        assert seen == [wanted]

        async def inside() -> dict[str, str]:
            return await asyncio.create_task(asyncio.to_thread(current_labels))

        assert asyncio.run(inside()) == wanted
        packed = packed_payer(guard.engine)
    assert packed == {"user": "1", "labels": {"customer": "a", "team": "red"}}
    with enter_packed(packed, guard.engine):
        assert current_labels() == wanted

    @budget_labels(feature="y")
    def decorated() -> dict[str, str]:
        return current_labels()

    assert decorated() == {"feature": "y"}


def test_the_settings_have_labels_for_every_call() -> None:
    guard = make_guard(labels={"team": "red", "env": "prod"})
    guard.set_budget(1, team="red")
    ask = asker(guard)
    with budget_user("u"):
        ask(HELLO)
        with budget_labels(env="test"):
            ask(HELLO)
    assert guard.balance(team="red").spent_nanos == 2 * COST
    assert [record.labels["env"] for record in guard.calls()] == ["prod", "test"]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({}, "needs a label"),
        ({"model": "x"}, "what the call names"),
        ({"user": "x"}, "budget_user"),
        ({"tag": "x"}, "budget_tags"),
        ({"Team": "x"}, "a-z"),
        ({"unit": "x"}, "has that word"),
        ({"team": ""}, "must not be empty"),
        ({"team": 7}, "must be text"),
        ({"team": "a\nb"}, "control characters"),
    ],
)
def test_what_is_no_label_is_refused(labels: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        budget_labels(**labels)


def test_a_team_is_kept_with_its_member(guard: Guard) -> None:
    guard.set_budget(1, team="red")
    assert guard.set_member("u", team="red", office="Oslo") == {"team": "red", "office": "Oslo"}
    ask = asker(guard)
    with budget_user("u"):
        ask(HELLO)
    with budget_user("u", team="red"):
        ask(HELLO)
    with (
        budget_user("u", team="blue"),
        pytest.raises(ConfigurationError, match=r"is of team 'red' in the store.*set_member"),
    ):
        ask(HELLO)
    assert guard.balance(team="red").spent_nanos == 2 * COST
    guard.set_member("u", team="blue")
    assert guard.member("u") == {"team": "blue", "office": "Oslo"}
    with budget_user("u", team="blue"):
        ask(HELLO)
    assert guard.balance(team="red").spent_nanos == 2 * COST
    assert guard.set_member("u", team=None, office=None) == {}
    with budget_user("u"):
        ask(HELLO)
    assert [dict(record.labels).get("team") for record in guard.calls()] == ["red", "red", "blue", None]


def test_a_member_who_was_unknown_is_known_from_then_on(guard: Guard) -> None:
    guard.set_budget(0.0001, team="red")
    guard.set_member("new", team="red")
    assert guard.balance("new").limit is None
    with budget_user("new"):
        asker(guard)(HELLO)
        with pytest.raises(BudgetExceededError, match="team 'red'"):
            asker(guard)(HELLO)
    mine = make_guard(default_budget=3)
    mine.set_member("new", team="red")
    assert mine.balance("new").limit == 3


@on(STORES)
def test_what_one_program_sets_counts_for_the_next_call_of_another(row: Row, tmp_path: Path) -> None:
    """Budgets of new kinds, rules, members: all of them known to a guard that has made calls before."""
    with row.serve(tmp_path) as place:
        office = make_guard(place.open())
        program = make_guard(place.open() if row.shared else office.store)
        ask = asker(program)

        def refused(**labels: str) -> bool:
            with budget_user("u", **labels):
                try:
                    ask(HELLO)
                except (BudgetExceededError, ConfigurationError):
                    return True
            return False

        assert not refused(team="red")
        office.set_budget(0, team="red")
        assert refused(team="red")
        assert not refused()
        office.set_member("u", team="red")
        assert refused()
        office.set_member("u", team=None)
        assert not refused()
        office.set_budget(1, team="red", forbid="round-*")
        assert refused(team="red")
        office.set_budget(1, team="red")
        assert not refused(team="red")
        office.set_budget(0, team="red", on_limit="shadow")
        assert not refused(team="red")
        office.set_budget(0, team="red")
        assert refused(team="red")
        office.delete(team="red")
        assert not refused(team="red")
        office.set_budget(0, team="red", unit="requests")
        assert refused(team="red")
        office.set_budget(1, team="red", unit="requests")
        assert not refused(team="red")
        assert refused(team="red")
        office.set_budget(None, customer="*")
        assert not refused(customer="new")
        assert office.balance(customer="new").spent_nanos == COST
        program.close()
        office.close()


def test_a_refusal_by_rules_that_are_old_is_looked_up_before_it_is_told(guard: Guard) -> None:
    """The rules were loosened by somebody else; nothing tells this guard before it asks."""
    ask = asker(guard)
    other = make_guard(guard.store)
    other.set_budget(1, user="u", forbid="round-*")
    with budget_user("u"), pytest.raises(BudgetExceededError, match="does not allow round-model"):
        ask(HELLO)
    other.set_budget(1, user="u")
    with budget_user("u"):
        ask(HELLO)


def test_what_costs_nothing_runs_on_empty_budgets_but_is_a_request(guard: Guard) -> None:
    guard.register_price("free-model", input=0, output=0)
    guard.set_budget(0, team="red")
    guard.set_budget(0, user="u")
    guard.set_budget(1, team="red", unit="requests")
    ask = asker(guard)
    with budget_user("u", team="red"):
        ask(HELLO, model="free-model")
        with pytest.raises(BudgetExceededError) as refused:
            ask(HELLO, model="free-model")
    assert refused.value.unit == "requests"


def test_a_call_without_a_user_is_limited_by_its_labels_alone(guard: Guard) -> None:
    guard.set_budget(0.0001, team="red")
    ask = asker(guard)
    with budget_labels(team="red"):
        ask(HELLO)
        with pytest.raises(BudgetExceededError):
            ask(HELLO)


def test_what_a_manager_books_by_hand_is_charged_to_labels_too(guard: Guard) -> None:
    guard.set_budget(1, team="red")
    guard.set_budget(5, team="red", unit="requests")
    guard.set_budget(5_000, team="red", unit="tokens")
    with budget_labels(team="red"):
        guard.manager().update_cost("u", completion(20, 10))
    assert guard.balance(team="red").spent_nanos == COST
    assert guard.balance(team="red", unit="requests").spent_nanos == 1
    assert guard.balance(team="red", unit="tokens").spent_nanos == 30


def test_no_event_is_told_twice_though_a_call_is_judged_again(guard: Guard) -> None:
    make_guard(guard.store).set_budget(1, team="red")
    events = record(guard)
    with budget_user("u", team="red"):
        asker(guard)(HELLO)
    assert [type(one).__name__ for one in events] == ["Projected", "Held", "Settled"]
