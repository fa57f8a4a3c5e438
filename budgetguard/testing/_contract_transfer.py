"""Laws of transfer: rows that are exported and restored, frozen projects, and balances that add up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Protocol, cast

import pytest

from budgetguard.core.accounts import Balance, Budget, Document
from budgetguard.core.holds import VOID, Entry, Outdated, Settlement
from budgetguard.core.rows import (
    Stored,
    StoredAccount,
    StoredEntry,
    StoredHold,
    StoredObservations,
    StoredScopes,
    StoredSwept,
)
from budgetguard.errors import StoreError
from budgetguard.stores.base import Store, Transfer
from budgetguard.stores.verifying import verify
from budgetguard.testing._contract_base import (
    PROJECT,
    TTL,
    USER,
    ContractBase,
    MakeStore,
    attached,
    budget,
    granted,
    hold,
    money,
    now,
    raised,
    settled,
    sweep,
)
from budgetguard.testing._contract_life import AWKWARD, REQUESTS, ROLLING, RULED, live, writes
from budgetguard.testing.clock import FakeClock

DAY = 86_400
NOTE = "moved to postgresql://db.internal/budgets"


class MovableStore(Store, Transfer, Protocol):
    """A store whose projects can be moved."""


class TransferLaws(ContractBase):
    """Export, restore, freeze, and balances that can be added up again."""

    @pytest.fixture
    def copy(self, make_store: MakeStore, clock: FakeClock, store: MovableStore) -> Iterator[MovableStore]:
        """Open another project of the same store, empty and frozen, to copy to."""
        made = cast(MovableStore, make_store(clock, project="copy"))
        made.freeze("copy of another")
        yield made
        made.close()

    @pytest.fixture
    def lived(self, store: MovableStore, clock: FakeClock) -> MovableStore:
        """Return the store after a life with everything in it that a project may have."""
        live(store, clock)
        return store

    # Export and restore

    def test_what_was_exported_and_restored_is_the_same(
        self, lived: MovableStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        copy.restore(exported(lived))
        assert sorted_rows(exported(copy)) == sorted_rows(exported(lived))
        assert list(copy.list()) == list(lived.list())
        assert list(copy.calls()) == list(lived.calls())
        assert list(copy.holds()) == list(lived.holds())
        for model in ("gpt-4o", AWKWARD):
            assert copy.observations(model) == lived.observations(model) != {}

    def test_a_copy_books_nothing_again_of_which_the_first_has_swept_the_record(
        self, make_store: MakeStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        store = cast(MovableStore, make_store(clock, retention="7d"))
        budget(store, 10_000)
        call = granted(store, hold(clock, 10))
        settled(store, call, 10)
        clock.advance(8 * DAY)
        sweep(store, clock, cost=0)
        assert call.id not in {record.id for record in store.calls()}
        for _ in range(2):
            copy.restore(exported(store))
        copy.freeze(None)
        clock.advance(-8 * DAY)
        assert settled(copy, call, 10).repeated
        assert money(copy) == (10_000, 10, 0)
        clock.advance(8 * DAY)
        assert not settled(copy, hold(clock, 1), 1).repeated
        store.close()

    def test_a_copy_goes_on_as_the_first_would(
        self, lived: MovableStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        open_hold = granted(lived, hold(clock, 7, USER, PROJECT))
        expiring = granted(lived, hold(clock, 5, USER))
        assert lived.attach(expiring.id, "resp_late")
        copy.restore(exported(lived))
        copy.freeze(None)
        for store in (lived, copy):
            settled(store, open_hold, 3)
            assert settled(store, open_hold, 3).repeated
            record = attached(store, "resp_late")
            assert (record.id, record.state) == (expiring.id, "held")
        clock.advance(TTL / 1000)
        assert list(copy.list()) == list(lived.list())
        for store in (lived, copy):
            assert settled(store, expiring, 2).late
            clock.advance(0.001)
        assert [money(copy, name) for name in (USER, PROJECT)] == [
            money(lived, name) for name in (USER, PROJECT)
        ]
        clock.advance(40 * DAY)
        assert [b.spent_nanos for b in copy.list()] == [b.spent_nanos for b in lived.list()]

    def test_what_has_changed_meanwhile_is_the_same_again_once_it_is_restored_again(
        self, lived: MovableStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        granted(lived, hold(clock, 4, USER, "user:gone"))
        ended = granted(lived, hold(clock, 4, USER, PROJECT))
        rows = list(exported(lived))
        copy.restore(rows)
        copy.restore(rows)
        expired = [record.id for record in lived.calls() if record.state == "expired"]
        assert lived.attach(expired[0], "resp_of_expired")
        settled(lived, ended, 6)
        settled(lived, granted(lived, hold(clock, 9, model="another")), 9)
        lived.delete("user:gone")
        lived.reset(PROJECT)
        copy.restore([StoredAccount("user:gone", None)])
        copy.restore(exported(lived))
        assert sorted_rows(exported(copy)) == sorted_rows(exported(lived))
        assert list(copy.list()) == list(lived.list())
        assert verify(copy)
        copy.restore(rows)  # an older state, as of a store that was restored from its backup
        assert [one.state for one in copy.calls() if one.id == ended.id] == ["held"]

    def test_nothing_is_restored_over_a_project_that_is_in_use(
        self, lived: MovableStore, copy: MovableStore
    ) -> None:
        rows = list(exported(lived))
        copy.freeze(None)
        with pytest.raises(StoreError, match="is in use"):
            copy.restore(rows)
        assert list(exported(copy)) == []

    def test_an_export_goes_over_more_rows_than_a_page(
        self, store: MovableStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        names = [f"user:{number:04}" for number in range(1_100)]
        for name in names:
            budget(store, 100, name)
        for name in names:
            call = granted(store, hold(clock, 3, name))
            if name < "user:0600":
                settled(store, call, 2)
        copy.restore(exported(store))
        assert [balance.account for balance in copy.list()] == names
        assert sorted_rows(exported(copy)) == sorted_rows(exported(store))
        assert verify(copy)

    def test_projects_are_exported_apart(self, lived: MovableStore, copy: MovableStore) -> None:
        assert list(exported(copy)) == []

    def test_grants_windows_documents_and_marks_go_on_in_a_copy(
        self, lived: MovableStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        copy.restore(exported(lived))
        copy.freeze(None)
        for store in (lived, copy):
            assert raised(store, 70, None, "for good", ROLLING).limit_nanos == 2_070
            assert not store.mark(ROLLING, 0)
            assert isinstance(store.reserve(hold(clock, 1, RULED)), Outdated)
            assert now(store, REQUESTS).grants != ()
            assert len(list(store.trail())) == 3
        for days in (1, 5, 1, 1, 40):
            clock.advance(days * DAY)
            assert [strip(one) for one in copy.list()] == [strip(one) for one in lived.list()]
        assert [money(copy, name)[:2] for name in (REQUESTS, ROLLING)] == [(106, 0), (2_070, 0)]
        assert verify(copy)

    def test_scopes_are_moved_and_in_force_in_a_copy(
        self, store: MovableStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        budget(store, 100)
        scopes = Document(2**47 + 1, '["\u00fc=*"]')
        assert store.save_scopes(scopes, 0)
        copy.restore(exported(store))
        assert sorted_rows(exported(copy)) == sorted_rows(exported(store))
        copy.freeze(None)
        assert copy.reserve(hold(clock, 1)) == Outdated(scopes)
        granted(copy, hold(clock, 1, scopes=scopes.revision))

    def test_a_trail_is_moved_once_however_often_it_is_restored(
        self, store: MovableStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        entries = [Entry(f"{number:032x}", f'{{"number":{number}}}') for number in range(1_100)]
        for entry in entries:
            store.set_budget(USER, Budget(5), entry=entry)
        for _ in range(2):
            copy.restore(exported(store))
        assert list(copy.trail()) == entries

    # Freeze

    def test_a_frozen_project_takes_no_writes_and_says_why(
        self, store: MovableStore, other: MovableStore, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call, expiring = granted(store, hold(clock, 10)), granted(store, hold(clock, 20))
        before = list(exported(store))
        store.freeze(NOTE)
        for verb in writes(other, clock, call.id):
            with pytest.raises(StoreError, match=r"has moved from .* to postgresql://db\.internal/budgets"):
                verb()
        with pytest.raises(StoreError, match="moved"):
            other.settle(call, Settlement(10))
        with pytest.raises(StoreError, match="moved"):
            other.settle(expiring, VOID)
        assert list(exported(store)) == before
        assert other.frozen() == NOTE

    def test_a_frozen_project_stands_still_for_reads(
        self, store: MovableStore, other: MovableStore, clock: FakeClock
    ) -> None:
        budget(store, 100, duration="daily")
        settled(store, granted(store, hold(clock, 10)), 10)
        expiring = granted(store, hold(clock, 20))
        assert store.attach(expiring.id, "resp_1")
        other.freeze(NOTE)
        then = now(store)
        told: list[object] = []
        store.on_expiry(told.append)
        clock.advance(2 * DAY)
        assert now(store) == then
        assert list(store.list()) == [then]
        assert [record.id for record in store.holds()] == [expiring.id]
        assert [record.id for record in store.holds(USER)] == [expiring.id]
        assert sorted(record.state for record in store.calls()) == ["held", "settled"]
        waiting = attached(store, "resp_1")
        assert waiting.state == "held"
        assert told == []
        assert verify(store)

    def test_a_project_that_is_opened_again_goes_on_where_it_stood(
        self, store: MovableStore, other: MovableStore, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 10))
        store.freeze(NOTE)
        clock.advance(TTL / 1000)
        other.freeze(None)
        assert store.frozen() is None
        assert money(store) == (100, 10, 0)
        assert settled(store, call, 4).late
        granted(store, hold(clock, 96))

    def test_a_frozen_project_leaves_others_alone(
        self, store: MovableStore, make_store: MakeStore, clock: FakeClock
    ) -> None:
        neighbour = make_store(clock, project="neighbour")
        store.freeze(NOTE)
        budget(neighbour, 10)
        settled(neighbour, granted(neighbour, hold(clock, 10)), 10)
        neighbour.close()

    # Sums

    def test_every_balance_is_what_its_records_come_to(
        self, lived: MovableStore, make_store: MakeStore, clock: FakeClock
    ) -> None:
        found = verify(lived)
        assert found.differences == ()
        assert (found.accounts, found.partial) == (len(list(lived.list())), ())
        assert found.records == len(list(lived.calls()))
        clock.advance(3_600)
        list(lived.list())  # windows end, and holds expire
        assert verify(lived)

    def test_what_is_settled_after_another_process_has_reset_the_account_counts_from_there(
        self, store: MovableStore, other: MovableStore, clock: FakeClock
    ) -> None:
        budget(store, 1_000)
        settled(store, granted(store, hold(clock, 10)), 10)
        call = granted(store, hold(clock, 10))
        other.reset(USER)
        settled(store, call, 5)
        assert money(store) == (1_000, 5, 0)
        assert verify(store).differences == ()

    def test_a_balance_that_its_records_do_not_come_to_is_told(
        self, lived: MovableStore, copy: MovableStore, clock: FakeClock
    ) -> None:
        granted(lived, hold(clock, 5, USER))
        for name, number in product((USER, ROLLING), ("spent", "held", "expired", "expiries")):
            rows = list(exported(lived))
            for one in rows:
                if isinstance(one, StoredAccount) and one.name == name and one.row is not None:
                    one.row[number] += 1  # type: ignore[literal-required]  # one of four
            copy.restore(rows)
            (difference,) = verify(copy).differences
            assert (difference.account, difference.what) == (name, number)
            assert difference.stored == difference.records + 1

    def test_what_retention_has_removed_is_not_taken_for_a_difference(
        self, make_store: MakeStore, clock: FakeClock
    ) -> None:
        store = cast(MovableStore, make_store(clock, retention="7d"))
        budget(store, 10_000)
        budget(store, 10_000, PROJECT, duration="daily")
        for _ in range(3):
            settled(store, granted(store, hold(clock, 10, USER, PROJECT)), 10)
        clock.advance(8 * DAY)
        for _ in range(1_500):  # until the old ones are swept
            settled(store, granted(store, hold(clock, 1, USER, PROJECT)), 1)
        assert money(store) == (10_000, 1_530, 0)
        found = verify(store)
        assert found.records == 1_500
        assert found.differences == ()
        assert found.partial == (USER,)
        store.close()


def strip(balance: Balance) -> Balance:
    """Return a balance without when it was changed last, which a read that finds something notes."""
    return replace(balance, updated_ms=0)


def exported(store: MovableStore) -> Iterator[Stored]:
    """Return everything that a store exports."""
    return store.export().rows


def sorted_rows(rows: Iterator[Stored]) -> list[Stored]:
    """Return the last of each row, in an order of its own."""
    found: dict[tuple[str, str], Stored] = {}
    for one in rows:
        if isinstance(one, StoredHold):
            found["hold", one.id] = StoredHold(one.id, one.row, tuple(sorted(one.answers)))
        elif isinstance(one, StoredObservations):
            found["model", one.model] = one
        elif isinstance(one, StoredSwept | StoredScopes):
            found[type(one).__name__, ""] = one
        elif isinstance(one, StoredEntry):
            found["entry", one.entry.id] = one
        else:
            found["account", one.name] = one
    return [found[key] for key in sorted(found)]
