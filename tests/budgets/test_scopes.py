"""The scopes of a project: one shape for budgets of one kind, and the accounts of a call found by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetguard.core.accounts import Budget
from budgetguard.core.labels import Labels, Named, Scope, literal, matches, named_by
from budgetguard.core.scopes import Scopes, read_scopes
from budgetguard.errors import ConfigurationError

VALUES = st.text(st.sampled_from("ab*\\&=%:"), min_size=1, max_size=3)
NAMES = st.sampled_from(["user", "team", "model", "customer", "tag"])
PATTERNS = VALUES | VALUES.map(literal) | st.just("*")
NAMED = st.builds(
    Named,
    st.dictionaries(NAMES, PATTERNS, min_size=1, max_size=3).map(Scope.of),
    st.sampled_from(["usd", "requests"]),
    st.sampled_from(["", "1h"]),
    st.sampled_from(["", "n"]),
)
LABELS = st.dictionaries(NAMES, VALUES.map(lambda value: (value,)), max_size=4)


def scopes_of(*named: Named) -> Scopes:
    scopes = Scopes()
    for one in named:
        scopes = scopes.having(one, Budget(1))
    return scopes


def is_within(named: Named, labels: Labels) -> bool:
    """Whether a call with these labels is one that a budget is for, by the words of the module."""
    return all(
        any(pattern == "*" or matches(pattern, value) for value in labels.get(label, ()))
        for label, pattern in named.scope.parts
    )


@given(st.lists(NAMED, max_size=5), LABELS)
def test_a_call_finds_exactly_the_budgets_that_it_is_within(budgets: list[Named], labels: Labels) -> None:
    found = dict(read_scopes(scopes_of(*budgets).text).accounts(labels))
    for named in budgets:
        plain_user = named.account.startswith("user:")  # charged anyway
        if named.scope.is_for_each or plain_user:
            continue
        assert (named.account in found) == is_within(named, labels)
    for account in found:
        says = named_by(account)
        assert says is not None
        assert is_within(says, labels)


@given(NAMED, LABELS)
def test_a_budget_for_each_makes_one_of_the_call_s_own_value(named: Named, labels: Labels) -> None:
    if not named.scope.is_for_each:
        return
    found = scopes_of(named).accounts(labels)
    if not is_within(named, labels):
        assert found == ()
        return
    ((account, budget),) = found
    assert budget == Budget(1)
    says = named_by(account)
    assert says is not None
    assert (says.unit, says.rolling, says.name) == (named.unit, named.rolling, named.name)
    for label, pattern in named.scope.parts:
        wanted = literal(labels[label][0]) if pattern == "*" else pattern
        found_as = Scope.of({label: dict(says.scope.parts)[label]})
        assert found_as.account() == Scope.of({label: wanted}).account()


def test_budgets_that_differ_in_values_only_share_a_shape() -> None:
    one = scopes_of(Named(Scope.of({"team": "red"})))
    assert one.having(Named(Scope.of({"team": "blue"})), Budget(1)) is one
    assert one.having(Named(Scope.of({"user": "u"})), Budget(1)) is one, "users are charged anyway"
    assert one.having(Named(Scope.of({"team": "r*"})), Budget(1)) != one


def test_each_of_several_tags_counts_and_of_several_names_of_a_model_the_plainest() -> None:
    scopes = scopes_of(Named(Scope.of({"tag": "*"})), Named(Scope.of({"model": "*"})))
    labels = {"tag": ("a", "b"), "model": ("openai/gpt-5-2025-08-07", "gpt-5")}
    assert [name for name, _ in scopes.accounts(labels)] == ["tag:a", "tag:b", "model:gpt-5"]


@pytest.mark.parametrize("text", ["[]", "{", '{"shapes": []}', '{"shapes": [{}], "templates": {}}'])
def test_scopes_of_a_later_version_are_not_read_by_halves(text: str) -> None:
    with pytest.raises(ConfigurationError, match="upgrade"):
        read_scopes(text)
