"""Stores that projects share list all of them."""

from __future__ import annotations

from pathlib import Path

from budgetguard.core.accounts import Budget
from budgetguard.testing._contract_records import AWKWARD
from tests.stores import SERVABLE, Row, on


@on(SERVABLE)
def test_all_projects_that_have_a_budget_are_listed_in_order_or_those_of_one_account(
    row: Row, tmp_path: Path
) -> None:
    with row.serve(tmp_path) as place:
        for project in ("p", *AWKWARD):
            store = place.open(project=project)
            store.set_budget(f"user:{project}", Budget(100))
            store.set_budget("user:a", Budget(100))
        store = place.open(project="another, which has none")
        names = sorted(["p", *AWKWARD])
        assert list(store.projects()) == names
        assert list(store.projects("user:a")) == names
        for name in names:
            assert list(store.projects(f"user:{name}")) == [name]
        assert list(store.projects("user:*b")) == []
