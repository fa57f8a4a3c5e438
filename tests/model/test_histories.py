"""Random histories: the memory store, the disk store opened twice, and the naive model side by side.

The memory store is the ledger. What the disk store says and shows is compared with it in full: opened once,
so that it remembers its rows, and twice, so that it has to read them again.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import (
    VOID,
    Booked,
    Charge,
    Denied,
    Granted,
    Hold,
    Reservation,
    Settlement,
    UnknownAccount,
    Unlimited,
)
from budgetguard.core.money import MAX_NANOS
from budgetguard.core.usage import Usage
from budgetguard.stores import Store, open_store
from budgetguard.stores.base import Transfer
from budgetguard.stores.sqlite_rows import RowCache
from budgetguard.stores.verifying import verify
from budgetguard.testing.clock import FakeClock

from .naive import Model, Standing

ACCOUNTS = ["user:1", "user:2", "project:p", "run:r"]
SECOND = 1_000

limits = st.one_of(st.none(), st.integers(0, 40))
durations = st.sampled_from([None, "hourly", "daily"])
budgets = st.builds(
    Budget,
    limits,
    durations,
    starts_at=st.sampled_from([None, None, FakeClock()() - 5_000_000, FakeClock()() + 7_200_001]),
)
charges = st.builds(
    Charge,
    st.sampled_from(ACCOUNTS),
    required=st.booleans(),
    budget=st.one_of(st.none(), st.none(), st.builds(Budget, limits, durations)),
    pinned=st.booleans(),
    ephemeral=st.booleans(),
)
# Now and then as much as there may be: a history has too few of them for a sum to reach its bound. Not often,
# since the limits here refuse it, and then there is nothing to settle. (`one_of` would take either half
# of the time: it leaves out what is named twice.)
amounts = st.sampled_from([*range(16), MAX_NANOS, 2**52 + 1])


class Histories(RuleBasedStateMachine):
    in_full = False
    """Whether answers and what is shown are compared with the memory store's to the last field."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        url = f"disk://{self.folder.name}/store"
        self.disk = [open_store(url, project="p", clock=self.clock) for _ in range(2)]
        self.memory = open_store("memory://", project="p", clock=self.clock)
        self.begin_alike()

    def begin_alike(self) -> None:
        """Begin the model, and let every store begin with the same budgets."""
        self.told: dict[int, list[str]] = {0: [], 1: []}
        self.memory.on_expiry(lambda expiry: self.told[0].append(expiry.hold_id))
        for store in self.disk:
            store.on_expiry(lambda expiry: self.told[1].append(expiry.hold_id))
        self.model = Model()
        self.holds: list[Hold] = []
        for account in ("user:1", "project:p"):
            self._set_budget(account, Budget(30, "hourly"), 0)

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            for store in (*self.disk, self.memory):
                store.close()
            self.folder.cleanup()

    # Time. Nothing looks at the stores here: a verb must find out by itself what time has done.

    @rule(seconds=st.sampled_from([0.001, 1, 29, 30, 59.999, 60, 3_599, 3_600, 9_000, 86_400, 200_000]))
    def time_goes_on(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([0.001, 1, 60, 4_000, 90_000]))
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.clock.advance(-seconds)

    # Verbs

    @rule(account=st.sampled_from(ACCOUNTS), budget=budgets, by=st.integers(0, 1))
    def budget_is_set(self, account: str, budget: Budget, by: int) -> None:
        self._set_budget(account, budget, by)

    def _set_budget(self, account: str, budget: Budget, by: int) -> None:
        self.model.set_budget(account, budget, self.clock())
        for store in self._both(by):
            store.set_budget(account, budget)
        self.look()

    @rule(account=st.sampled_from(ACCOUNTS), by=st.integers(0, 1))
    def account_is_deleted(self, account: str, by: int) -> None:
        existed = self.model.delete(account, self.clock())
        assert [store.delete(account) for store in self._both(by)] == [existed] * 2
        self.look()

    @rule(account=st.sampled_from(ACCOUNTS), by=st.integers(0, 1))
    def account_is_reset(self, account: str, by: int) -> None:
        existed = self.model.reset(account, self.clock())
        assert [store.reset(account) is not None for store in self._both(by)] == [existed] * 2
        self.look()

    @rule(
        charges=st.lists(charges, min_size=1, max_size=3),
        amount=amounts,
        on_expiry=amounts,
        ttl=st.sampled_from([SECOND, 30 * SECOND, 60 * SECOND, 7_200 * SECOND, 172_800 * SECOND]),
        model=st.sampled_from(["a", "b"]),
        by=st.integers(0, 1),
    )
    def hold_is_reserved(
        self, charges: list[Charge], amount: int, on_expiry: int, ttl: int, model: str, by: int
    ) -> None:
        wanted = self._hold(charges, amount, on_expiry, ttl, model)
        self.holds.append(wanted)
        self._reserve(wanted, by)

    @rule(amount=amounts, by=st.integers(0, 1))
    def user_and_project_are_charged(self, amount: int, by: int) -> None:
        pays = [Charge("user:1", required=True), Charge("project:p")]
        wanted = self._hold(pays, amount, amount, 60 * SECOND, "a")
        self.holds.append(wanted)
        self._reserve(wanted, by)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), by=st.integers(0, 1))
    def reserve_is_repeated(self, data: st.DataObject, by: int) -> None:
        self._reserve(data.draw(st.sampled_from(self.holds)), by)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), cost=st.integers(0, 25), by=st.integers(0, 1), watch=st.booleans())
    def hold_is_settled(self, data: st.DataObject, cost: int, by: int, watch: bool) -> None:
        settlement = Settlement(cost, thresholds=(50, 100) if watch else ())
        self._settle(data.draw(st.sampled_from(self.holds)), settlement, by)

    @rule(amount=amounts, cost=st.integers(0, 25), model=st.sampled_from("abc"), by=st.integers(0, 3))
    def call_is_made(self, amount: int, cost: int, model: str, by: int) -> None:
        pays = [Charge("user:1", required=True), Charge("user:2"), Charge("project:p")]
        wanted = self._hold(pays, amount, amount, 60 * SECOND, model)
        self.holds.append(wanted)
        self._reserve(wanted, by % 2)
        usage = Usage.of(input_tokens=cost, output_tokens=amount)
        settlement = Settlement(
            cost, usage=usage, request_id=str(cost), thresholds=(80, 100), observed=((model, cost),)
        )
        self._settle(wanted, settlement, by // 2)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), request_id=st.sampled_from(["", "r1", "\ud800"]), by=st.integers(0, 1))
    def answer_is_attached(self, data: st.DataObject, request_id: str, by: int) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        known, said = zip(
            *[(s.attach(hold.id, request_id), s.attached(request_id)) for s in self._both(by)], strict=True
        )
        assert known[0] == known[1]
        assert said[0] == said[1]
        for number, store in enumerate(self._both(by)):
            assert store.attached(request_id) == said[number]
        self.look()

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), by=st.integers(0, 1))
    def hold_is_voided(self, data: st.DataObject, by: int) -> None:
        self._settle(data.draw(st.sampled_from(self.holds)), VOID, by)

    # What every verb comes down to

    @rule(by=st.integers(0, 1))
    def balances_are_added_up_again(self, by: int) -> None:
        for store in self._both(by):
            assert isinstance(store, Transfer)
            assert verify(store).differences == ()

    def _hold(self, charges: list[Charge], amount: int, on_expiry: int, ttl: int, model: str) -> Hold:
        unique = f"{self.clock():012x}{len(self.holds):020x}"
        return Hold(unique, tuple(charges), amount, on_expiry, ttl, self.clock(), "1", model, "chat")

    def _both(self, by: int) -> tuple[Store, Store]:
        return self.memory, self.disk[by]

    def _reserve(self, hold: Hold, by: int) -> None:
        expected = self.model.reserve(hold, self.clock())
        answers = [store.reserve(hold) for store in self._both(by)]
        if self.in_full:
            assert _comparable(answers[0]) == _comparable(answers[1])
        for number, answer in enumerate(answers):
            assert _say(answer) == expected
            self.told[number] += [expiry.hold_id for expiry in getattr(answer, "expired", ())]
        self.look()

    def _settle(self, hold: Hold, settlement: Settlement, by: int) -> None:
        expected, crossed = self.model.settle(hold, settlement, self.clock())
        answers = [store.settle(hold, settlement) for store in self._both(by)]
        if self.in_full:
            assert _comparable(answers[0]) == _comparable(answers[1])
        for number, answer in enumerate(answers):
            if isinstance(answer, UnknownAccount):
                assert f"unknown {answer.account}" == expected
                continue
            self.told[number] += [expiry.hold_id for expiry in answer.expired]
            assert _ended(answer) == expected
            assert answer.booked == (0 if answer.repeated else settlement.cost)
            assert {(c.account, c.threshold) for c in answer.crossings} == crossed
        self.look()

    def look(self) -> None:
        """Read everything everywhere, and compare."""
        self.model.look(self.clock())
        expected = {name: self.model.standing(name) for name in self.model.accounts()}
        records = {hold_id: self.model.record(hold_id) for hold_id in self.model.calls}
        shown = []
        for store in (self.memory, self.disk[1], self.disk[0]):
            listed = {balance.account: balance for balance in store.list()}
            calls = list(store.calls())
            shown.append((listed, calls, [store.observations(model) for model in "abc"]))
            assert {
                name: Standing(
                    limit=b.limit_nanos,
                    spent=b.spent_nanos,
                    held=b.held_nanos,
                    expired=b.expired_nanos,
                    expiries=b.expiries,
                    open_holds=b.open_holds,
                    models=tuple(sorted(b.models.items())),
                    start=b.starts_ms,
                    end=b.resets_ms,
                )
                for name, b in listed.items()
            } == expected
            assert {c.id: (c.state, c.cost_nanos, c.accounts) for c in calls} == records
            open_ids = {h.id for h in store.holds()}
            assert open_ids == {i for i, (state, _, on) in records.items() if state == "held" and on}
            assert all(store.read(name) == balance for name, balance in listed.items())
        if self.in_full:
            assert shown[0] == shown[1] == shown[2]
        for told in self.told.values():
            assert sorted(told) == sorted(self.model.expired_ever())


def _say(answer: Reservation) -> str:
    match answer:
        case Granted(repeated=True):
            return "repeated"
        case Granted():
            return "granted"
        case Denied():
            return f"refused {answer.balance.account}"
        case UnknownAccount():
            return f"unknown {answer.account}"
        case Unlimited():
            return "unlimited"


def _comparable(answer: Reservation | Booked | UnknownAccount) -> Any:
    """Return an answer with its expiries in order of their ids, since each store finds them in its own."""
    if not isinstance(answer, Granted | Denied | Booked):
        return answer
    return replace(answer, expired=tuple(sorted(answer.expired, key=lambda expiry: expiry.hold_id)))


def _ended(answer: Booked) -> str:
    if answer.repeated:
        return "repeated"
    return "late" if answer.late else "booked"


# BUDGETGUARD_TEST_HISTORIES=2000 searches further, and elsewhere each time.
_MORE = os.environ.get("BUDGETGUARD_TEST_HISTORIES")
_LEAST = 25


class DiskHistories(Histories):
    in_full = True


class TestHistories(DiskHistories.TestCase):  # type: ignore[misc]  # made by hypothesis
    settings = settings(
        max_examples=int(_MORE or 40),
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=_MORE is None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )

    @pytest.fixture(autouse=True)
    def _both_ways_are_taken(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Count the verbs of the disk store that found their rows remembered, and those that did not."""
        taken: Counter[bool] = Counter()
        real = RowCache.begin

        def begin(cache: RowCache, connection: Any) -> Any:
            execute = real(cache, connection)
            taken[bool(cache.accounts)] += 1
            return execute

        monkeypatch.setattr(RowCache, "begin", begin)
        yield
        assert min(taken[True], taken[False]) >= _LEAST, taken
