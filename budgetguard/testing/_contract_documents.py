"""Laws of documents: no hold is granted that was judged by scopes, rules or labels that are not current."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from budgetguard.core.accounts import Budget, Document
from budgetguard.core.holds import Charge, Granted, Hold, Outdated, Unlimited
from budgetguard.core.money import Nanos
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    PROJECT,
    TTL,
    USER,
    ContractBase,
    MakeStore,
    budget,
    granted,
    hold,
    money,
    now,
    settled,
)
from budgetguard.testing.clock import FakeClock

RULES: Final = '{"models":["gpt-4o"],"note":"\u00fc \N{PARTY POPPER}"}'
OTHER_RULES: Final = '{"models":[]}'
LABELS: Final = '{"team":["search"]}'
SCOPES: Final = '{"scopes":["customer=*"]}'


def document(store: Store, account: str = USER) -> Document:
    """Return the rules and labels of an account that must exist."""
    return now(store, account).document


def judged(store: Store, account: str = USER) -> Charge:
    """Return a charge by an account's rules and labels as they are."""
    return Charge(account, required=True, revision=document(store, account).revision)


class DocumentLaws(ContractBase):
    """Rules and labels of accounts, and the project's scopes."""

    # Rules and labels are kept as they are, and numbered

    def test_an_account_without_rules_and_labels_has_revision_0(self, store: Store, clock: FakeClock) -> None:
        assert budget(store, 100).document == Document(0, "", "")
        granted(store, hold(clock, 10))

    def test_rules_and_labels_are_shown_as_they_were_given(self, store: Store, other: Store) -> None:
        with_rules = store.set_budget(USER, Budget(100, rules=RULES)).document
        assert (with_rules.rules, with_rules.labels) == (RULES, "")
        assert with_rules.revision > 0
        balance = store.set_labels(USER, LABELS)
        assert balance is not None
        assert (balance.document.rules, balance.document.labels) == (RULES, LABELS)
        assert balance.document.revision not in (0, with_rules.revision)
        assert document(other) == balance.document
        assert [one.document for one in other.list("user")] == [balance.document]

    def test_each_change_has_another_revision_and_what_changes_nothing_keeps_it(self, store: Store) -> None:
        seen = [store.set_budget(USER, Budget(100, rules=RULES)).document.revision]
        changes: tuple[Callable[[], object], ...] = (
            lambda: store.set_labels(USER, LABELS),
            lambda: store.set_budget(USER, Budget(100, rules=OTHER_RULES)),
            lambda: store.set_labels(USER, ""),
            lambda: store.set_budget(USER, Budget(100, rules=RULES)),
        )
        for change in changes:
            change()
            seen.append(document(store).revision)
        assert len(set(seen)) == len(seen)
        assert 0 not in seen
        store.set_budget(USER, Budget(5, "daily", rollover=3, rules=RULES))
        store.set_labels(USER, "")
        store.reset(USER)
        assert document(store).revision == seen[-1]
        store.set_budget(USER, Budget(5))
        assert document(store) == Document(0, "", "")

    def test_labels_stay_when_the_budget_is_set(self, store: Store) -> None:
        budget(store, 100)
        store.set_labels(USER, LABELS)
        assert budget(store, 50).document.labels == LABELS

    def test_labels_of_an_account_that_does_not_exist_are_stored_nowhere(self, store: Store) -> None:
        assert store.set_labels(USER, LABELS) is None
        assert store.read(USER) is None

    def test_an_account_made_again_shares_no_revision_with_its_former_life(self, store: Store) -> None:
        first = store.set_budget(USER, Budget(100, rules=RULES)).document
        store.delete(USER)
        again = store.set_budget(USER, Budget(100, rules=RULES)).document
        assert (again.rules, again.revision != first.revision) == (RULES, True)

    # Outdated accounts

    def test_a_hold_judged_by_the_present_document_is_granted(self, store: Store, clock: FakeClock) -> None:
        store.set_budget(USER, Budget(100, rules=RULES))
        granted(store, hold(clock, 10, judged(store)))
        store.set_labels(USER, LABELS)
        granted(store, hold(clock, 10, judged(store)))

    @pytest.mark.parametrize(
        "change",
        [
            lambda store: store.set_budget(USER, Budget(100, rules=OTHER_RULES)),
            lambda store: store.set_budget(USER, Budget(100)),
            lambda store: store.set_labels(USER, LABELS),
            lambda store: store.delete(USER),
            lambda store: (store.delete(USER), store.set_budget(USER, Budget(100, rules=RULES))),
            lambda store: (store.delete(USER), store.set_budget(USER, Budget(100))),
        ],
        ids=["rules", "no rules", "labels", "deleted", "made again", "made again without"],
    )
    def test_one_judged_by_another_is_answered_with_the_present_one_and_changes_nothing(
        self, store: Store, other: Store, clock: FakeClock, change: Callable[[Store], object]
    ) -> None:
        store.set_budget(USER, Budget(100, rules=RULES))
        budget(store, 100, PROJECT)
        wanted = hold(clock, 10, Charge(PROJECT), judged(store))
        change(other)
        left = store.read(USER)
        present = Document() if left is None else left.document
        assert store.reserve(wanted) == Outdated(None, {USER: present})
        assert (store.read(USER), money(store, PROJECT)) == (left, (100, 0, 0))
        assert list(store.calls()) == []

    def test_one_judged_by_nothing_is_outdated_where_there_is_a_document(
        self, store: Store, clock: FakeClock
    ) -> None:
        present = store.set_budget(USER, Budget(100, rules=RULES)).document
        assert store.reserve(hold(clock, 10)) == Outdated(None, {USER: present})

    def test_all_accounts_that_are_outdated_are_told_at_once(self, store: Store, clock: FakeClock) -> None:
        for name in (USER, "user:2", "user:3"):
            store.set_budget(name, Budget(100, rules=RULES))
        charges = (
            Charge(USER, revision=5),
            judged(store, "user:2"),
            Charge("user:3"),
            Charge("user:4", revision=9),
        )
        assert store.reserve(hold(clock, 10, *charges)) == Outdated(
            None, {USER: document(store), "user:3": document(store, "user:3"), "user:4": Document()}
        )

    def test_it_is_told_before_a_refusal_and_before_an_unknown_account(
        self, store: Store, clock: FakeClock
    ) -> None:
        present = store.set_budget(USER, Budget(5, rules=RULES)).document
        told = Outdated(None, {USER: present})
        assert store.reserve(hold(clock, 10)) == told
        assert store.reserve(hold(clock, 10, Charge(USER), Charge("user:2", required=True))) == told
        assert store.reserve(hold(clock, 10, Charge(USER, shadow=True))) == told

    def test_an_account_that_was_judged_by_a_document_and_is_gone_is_not_made_again(
        self, store: Store, clock: FakeClock
    ) -> None:
        charge = Charge("run:1", budget=Budget(50, rules=RULES), revision=7)
        assert store.reserve(hold(clock, 10, charge)) == Outdated(None, {"run:1": Document()})
        assert store.read("run:1") is None

    def test_an_account_that_a_hold_makes_has_the_rules_of_its_budget(
        self, store: Store, clock: FakeClock
    ) -> None:
        charge = Charge("run:1", budget=Budget(50, rules=RULES))
        granted(store, hold(clock, 10, charge))
        present = document(store, "run:1")
        assert (present.rules, present.revision > 0) == (RULES, True)
        assert store.reserve(hold(clock, 10, charge)) == Outdated(None, {"run:1": present})

    def test_what_was_granted_is_granted_again_and_settled_whatever_has_changed(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        under_way = granted(store, hold(clock, 10))
        store.set_labels(USER, LABELS)
        store.save_scopes(Document(7, SCOPES), 0)
        assert store.reserve(under_way) == Granted((USER,), repeated=True)
        settled(store, under_way, 4)
        settled(store, hold(clock, 5), 5)  # and so is what was never reserved
        assert money(store) == (100, 9, 0)

    def test_nothing_that_time_has_done_is_swallowed(self, store: Store, clock: FakeClock) -> None:
        told: list[str] = []
        store.on_expiry(lambda expiry: told.append(expiry.hold_id))
        budget(store, 100)
        lost = granted(store, hold(clock, 10))
        store.set_labels(USER, LABELS)
        clock.advance(TTL / 1000)
        assert isinstance(store.reserve(hold(clock, 1)), Outdated)
        now(store)
        assert told == [lost.id]

    # The project's scopes

    def test_scopes_are_replaced_if_they_are_those_that_were_seen(self, store: Store, other: Store) -> None:
        assert store.scopes() == Document(0, "", "")
        first, second = Document(7, SCOPES), Document(9, "{}")
        assert store.save_scopes(first, 0)
        assert (store.scopes(), other.scopes()) == (first, first)
        assert not other.save_scopes(second, 0)
        assert not other.save_scopes(second, 9)
        assert store.scopes() == first
        assert other.save_scopes(second, 7)
        assert store.scopes() == second

    def test_of_many_who_saw_the_same_scopes_one_replaces_them(self, store: Store, other: Store) -> None:
        def save(number: int) -> bool:
            return (store, other)[number % 2].save_scopes(Document(number, f'["{number}"]'), 0)

        with ThreadPoolExecutor(8) as pool:
            saved = [number for number, done in enumerate(pool.map(save, range(1, 17)), 1) if done]
        assert [store.scopes()] == [Document(number, f'["{number}"]') for number in saved]

    def test_scopes_are_in_force_for_the_next_reserve_of_everybody(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        def by(revision: int, amount: Nanos = 1) -> Hold:
            return hold(clock, amount, scopes=revision)

        budget(store, 100)
        granted(other, by(0))
        first = Document(7, SCOPES)
        assert store.save_scopes(first, 0)
        for one in (store, other):
            assert one.reserve(by(0)) == one.reserve(by(8)) == one.reserve(by(0, 1_000)) == Outdated(first)
            granted(one, by(7))
        assert other.save_scopes(Document(8, "{}"), 7)
        assert store.reserve(by(7)) == Outdated(Document(8, "{}"))
        assert money(store) == (100, 0, 3)

    def test_they_are_told_with_the_accounts_that_are_outdated_too(
        self, store: Store, clock: FakeClock
    ) -> None:
        scopes = Document(7, SCOPES)
        store.save_scopes(scopes, 0)
        present = store.set_budget(USER, Budget(100, rules=RULES)).document
        assert store.reserve(hold(clock, 1)) == Outdated(scopes, {USER: present})
        assert store.reserve(hold(clock, 1, scopes=7)) == Outdated(None, {USER: present})
        assert store.reserve(hold(clock, 1, judged(store))) == Outdated(scopes)

    def test_a_call_that_nothing_limits_is_judged_by_the_scopes_too(
        self, store: Store, clock: FakeClock
    ) -> None:
        nobody = Charge("user:nobody")
        assert store.reserve(hold(clock, 1, nobody)) == Unlimited()
        scopes = Document(7, SCOPES)
        store.save_scopes(scopes, 0)
        assert store.reserve(hold(clock, 1, nobody)) == Outdated(scopes)
        required = Charge("user:nobody", required=True)
        assert store.reserve(hold(clock, 1, required)) == Outdated(scopes)

    def test_each_project_has_its_own(self, store: Store, make_store: MakeStore, clock: FakeClock) -> None:
        neighbour = make_store(clock, project="neighbour")
        store.save_scopes(Document(7, SCOPES), 0)
        assert neighbour.scopes() == Document()
        budget(neighbour, 10)
        granted(neighbour, hold(clock, 10))
        neighbour.close()

    def test_they_survive(self, make_store: MakeStore, store: Store, clock: FakeClock) -> None:
        store.save_scopes(Document(7, SCOPES), 0)
        store.close()
        assert store.scopes() == Document(7, SCOPES)
        if self.shared:
            later = make_store(clock)
            assert later.scopes() == Document(7, SCOPES)
            later.close()
