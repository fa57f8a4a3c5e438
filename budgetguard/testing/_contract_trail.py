"""Laws of the audit trail: what people change is noted together with the change, once, and in order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from budgetguard.core.accounts import Budget, Document, Grant
from budgetguard.core.holds import Entry
from budgetguard.core.trail import change_of, entry_of, with_key
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    USER,
    ContractBase,
    MakeStore,
    budget,
    granted,
    hold,
    limit,
    raised,
    settled,
)
from budgetguard.testing.clock import FakeClock

SCOPES: Final = Document(7, '["customer=*"]')


def noted(clock: FakeClock, action: str = "set_budget", **details: str) -> Entry:
    """Make an entry of a change that is made now."""
    entry = entry_of(clock(), action, USER, by="ann \N{PARTY POPPER}", reason="more work", **details)
    return with_key(entry, "")


def trail(store: Store, since: int = 0) -> list[Entry]:
    """Return the trail as clients told it: without what a service adds, which is by which key they came.

    A service notes by itself what a client changes without an entry, as made by its key.
    """
    found = [(entry, change_of(entry)) for entry in store.trail(since)]
    return [with_key(entry, "") for entry, change in found if not change.key or change.key != change.by]


# What each verb does to an account that exists.
CHANGES: Final[dict[str, Callable[[Store, Entry], object]]] = {
    "set_budget": lambda store, entry: store.set_budget(USER, Budget(70), entry=entry),
    "grant": lambda store, entry: store.grant(USER, Grant("g", 5, None), entry=entry),
    "set_labels": lambda store, entry: store.set_labels(USER, '{"team":["a"]}', entry=entry),
    "reset": lambda store, entry: store.reset(USER, entry=entry),
    "delete": lambda store, entry: store.delete(USER, entry=entry),
    "save_scopes": lambda store, entry: store.save_scopes(SCOPES, store.scopes().revision, entry=entry),
}


class TrailLaws(ContractBase):
    """The trail of a project."""

    @pytest.mark.parametrize("verb", CHANGES)
    def test_a_change_is_noted_as_it_was_told(
        self, store: Store, other: Store, clock: FakeClock, verb: str
    ) -> None:
        budget(store, 100)
        entry = noted(clock, verb, limit="70")
        CHANGES[verb](store, entry)
        assert trail(other) == [entry]
        change = change_of(trail(store)[0])
        assert (change.by, change.action, change.details) == ("ann \N{PARTY POPPER}", verb, {"limit": "70"})

    @pytest.mark.parametrize("verb", CHANGES)
    def test_an_entry_counts_once_however_often_its_change_is_sent(
        self, store: Store, clock: FakeClock, verb: str
    ) -> None:
        budget(store, 100)
        entry = noted(clock)
        CHANGES[verb](store, entry)
        budget(store, 100)
        CHANGES[verb](store, Entry(entry.id, '{"by":"somebody else"}'))
        assert trail(store) == [entry]

    def test_a_budget_that_is_made_is_noted(self, store: Store, clock: FakeClock) -> None:
        entry = noted(clock)
        store.set_budget(USER, Budget(100), entry=entry)
        assert trail(store) == [entry]

    @pytest.mark.parametrize("verb", ["grant", "set_labels", "reset", "delete"])
    def test_nothing_is_noted_where_there_was_nothing_to_change(
        self, store: Store, clock: FakeClock, verb: str
    ) -> None:
        CHANGES[verb](store, noted(clock))
        assert trail(store) == []
        assert store.read(USER) is None

    def test_scopes_that_were_not_replaced_are_not_noted(self, store: Store, clock: FakeClock) -> None:
        assert not store.save_scopes(SCOPES, 3, entry=noted(clock))
        assert trail(store) == []

    def test_what_is_changed_without_an_entry_and_calls_are_not_noted(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        raised(store, 5, None)
        settled(store, granted(store, hold(clock, 10)), 5, (1,))
        store.mark(USER, 0)
        store.set_labels(USER, "{}")
        store.reset(USER)
        store.save_scopes(SCOPES, 0)
        store.delete(USER)
        assert trail(store) == []

    def test_entries_come_in_the_order_of_their_ids_from_any_time_on(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        entries = []
        for number in range(4):
            entries.append(noted(clock, number=str(number)))
            clock.advance(60)
        for one, entry in zip(
            (store, other, other, store), (entries[2], entries[0], entries[3], entries[1]), strict=True
        ):
            one.set_budget(USER, Budget(5), entry=entry)
        assert trail(store) == trail(other) == entries
        made = clock() - 4 * 60_000
        assert trail(store, made + 60_000) == entries[1:]
        assert trail(store, made + 60_001) == entries[2:]
        assert trail(store, clock()) == []

    def test_a_trail_may_be_longer_than_a_page(self, store: Store, clock: FakeClock) -> None:
        entries = []
        for number in range(1_100):
            entries.append(noted(clock, number=str(number)))
            store.set_budget(USER, Budget(number), entry=entries[-1])
            clock.advance(0.001)
        assert trail(store) == entries
        assert trail(store, clock() - 600) == entries[500:]

    def test_nobody_ever_sees_a_change_without_its_entry_or_an_entry_without_its_change(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        budget(store, 0)
        entries = [noted(clock, number=str(number)) for number in range(1, 101)]
        entries = [Entry(f"{number:032x}", entry.text) for number, entry in enumerate(entries, 1)]

        def change() -> None:
            for number, entry in enumerate(entries, 1):
                store.set_budget(USER, Budget(number), entry=entry)

        with ThreadPoolExecutor(1) as pool:
            changing = pool.submit(change)
            while True:
                ended = changing.done()
                before = limit(other) or 0
                told = len(trail(other))
                assert before <= told <= (limit(other) or 0)
                if ended:
                    break
            changing.result()
        assert trail(store) == entries

    def test_it_outlives_the_account_the_opening_and_the_records(
        self, make_store: MakeStore, brief: Store, clock: FakeClock
    ) -> None:
        entry, last = noted(clock), noted(clock, "delete")
        brief.set_budget(USER, Budget(10**6), entry=entry)
        brief.delete(USER, entry=last)
        budget(brief, 10**6)
        clock.advance(400 * 86_400)
        for _ in range(700):
            settled(brief, granted(brief, hold(clock, 1)), 1)
        brief.close()
        kept = trail(brief)
        assert (entry in kept, last in kept) == (True, True)
        if self.shared:
            later = make_store(clock)
            assert trail(later) == kept
            later.close()

    def test_each_project_has_its_own(self, store: Store, make_store: MakeStore, clock: FakeClock) -> None:
        neighbour = make_store(clock, project="neighbour")
        entry = noted(clock)
        store.set_budget(USER, Budget(100), entry=entry)
        neighbour.set_budget(USER, Budget(100), entry=Entry(entry.id, '{"by":"a neighbour"}'))
        assert trail(store) == [entry]
        assert [one.text for one in trail(neighbour)] == ['{"by":"a neighbour"}']
        neighbour.close()
