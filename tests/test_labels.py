"""Labels name accounts: each set of values its own, and nothing passes for something else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgetguard.core.labels import Named, Scope, check_label, literal, matches, named_by
from budgetguard.errors import ConfigurationError

_ODD = st.sampled_from("*\\:&=@%+ ")
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | _ODD, min_size=1, max_size=12)
LABELS = st.sampled_from(["user", "team", "model", "tag", "customer", "feature_2"])
SCOPES = st.dictionaries(LABELS, VALUES, min_size=1, max_size=4).map(Scope.of)
UNITS = st.sampled_from(["usd", "tokens", "requests"])


@given(SCOPES, UNITS, VALUES | st.just(""), SCOPES, UNITS, VALUES | st.just(""))
def test_two_accounts_have_one_name_only_if_they_are_one(
    scope: Scope, unit: str, name: str, other: Scope, unit_2: str, name_2: str
) -> None:
    account = scope.account(unit=unit, name=name)
    same = (scope, unit, name) == (other, unit_2, name_2)
    if same or account != other.account(unit=unit_2, name=name_2):
        return
    # A star may be written in two ways only where both mean the same.
    assert (unit, name) == (unit_2, name_2)
    assert named_by(account) == named_by(other.account(unit=unit_2, name=name_2))


@given(SCOPES, UNITS, VALUES | st.just(""))
def test_an_account_s_name_says_what_it_is_for(scope: Scope, unit: str, name: str) -> None:
    account = scope.account(unit=unit, name=name)
    found = named_by(account)
    assert found is not None
    assert (found.unit, found.name) == (unit, name)
    assert found.scope.account(unit=unit, name=name) == account


@given(VALUES)
def test_a_value_is_matched_by_itself_and_every_value_by_a_star(value: str) -> None:
    assert matches(literal(value), value)
    assert matches("*", value)
    assert matches(literal(value[:3]) + "*", value)
    assert not matches(literal(value), value + "x")
    assert named_by(Scope.of({"user": literal(value)}).account()) == Named(Scope.of({"user": literal(value)}))
    assert Scope.of({"user": literal(value)}).account() == f"user:{value}"


@pytest.mark.parametrize(
    ("patterns", "account"),
    [
        ({"user": "1234"}, "user:1234"),
        ({"user": "a:b&c=d"}, "user:a:b&c=d"),
        ({"model": "gpt-5*"}, "labels:model=gpt-5*"),
        ({"user": "1234", "model": "gpt-5*"}, "labels:model=gpt-5*&user=1234"),
        ({"user": "a&team=red", "tag": "x"}, "labels:tag=x&user=a%26team%3Dred"),
        ({"user": r"a\*b", "tag": "x*"}, "labels:tag=x*&user=a%2Ab"),
    ],
)
def test_names(patterns: dict[str, str], account: str) -> None:
    assert Scope.of(patterns).account() == account


def test_more_budgets_for_the_same_calls_have_names_of_their_own() -> None:
    scope = Scope.of({"user": "1234"})
    assert scope.account(unit="requests") == "labels:@unit=requests&user=1234"
    assert scope.account(name="burst") == "labels:@name=burst&user=1234"
    assert scope.account(unit="tokens", name="a b") == "labels:@unit=tokens&@name=a%20b&user=1234"


@pytest.mark.parametrize(
    "name", ["", "User", "2nd", "a-b", "a b", "x" * 33, "run", "labels", "unit", "ü", None, 7]
)
def test_what_is_no_label_is_refused_by_name(name: object) -> None:
    with pytest.raises(ConfigurationError, match="label"):
        check_label(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("patterns", [{"user": ""}, {"user": "a\nb"}, {f"l{n}": "x" for n in range(9)}])
def test_what_is_no_scope_is_refused(patterns: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        Scope.of(patterns)
