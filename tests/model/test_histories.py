"""Random histories: the memory store, the disk store opened twice, and the naive model side by side.

The memory store is the ledger. What the disk store says and shows is compared with it in full: opened once,
so that it remembers its rows, and twice, so that it has to read them again.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from budgetguard.core.accounts import Budget, Document, Grant
from budgetguard.core.holds import (
    VOID,
    Charge,
    Entry,
    Hold,
    Outdated,
    Settlement,
    UnknownAccount,
)
from budgetguard.core.usage import Usage
from budgetguard.stores import Store, open_store
from budgetguard.stores.base import Transfer
from budgetguard.stores.sqlite_rows import RowCache
from budgetguard.stores.verifying import verify
from budgetguard.testing.clock import FakeClock

from .answers import ended, recorded, said, shown, trail_of
from .naive import Model
from .revisions import Revisions
from .strategies import (
    ACCOUNTS,
    CONCURRENT,
    REQUESTS,
    ROLLING,
    SECOND,
    TOKENS,
    amounts,
    budgets,
    charges,
    costs,
    durations,
    entries,
    judgements,
    units,
)


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
        self.revisions = [Revisions(), Revisions()]
        for account in ("user:1", "project:p"):
            self._set_budget(account, Budget(40, "hourly", rollover=20), 0)
        self._set_budget(REQUESTS, Budget(8, "hourly", rollover=10), 0)
        self._set_budget(CONCURRENT, Budget(3), 0)
        self._set_budget(TOKENS, Budget(40, "hourly", rolling=True), 0)
        self._set_budget(ROLLING, Budget(60, "daily", rolling=True), 0)

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            for store in (*self.disk, self.memory):
                store.close()
            self.folder.cleanup()

    # Time. Nothing looks at the stores here: a verb must find out by itself what time has done.

    @rule(
        seconds=st.sampled_from([0.001, 1, 29, 30, 59.999, 60, 1_440, 3_599, 3_600, 9_000, 86_400, 200_000])
    )
    def time_goes_on(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([0.001, 1, 60, 4_000, 90_000]))
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.clock.advance(-seconds)

    # Verbs

    @rule(account=st.sampled_from(ACCOUNTS), budget=budgets, by=st.integers(0, 1), entry=entries)
    def budget_is_set(self, account: str, budget: Budget, by: int, entry: int | None) -> None:
        self._set_budget(account, budget, by, entry)

    def _set_budget(self, account: str, budget: Budget, by: int, number: int | None = None) -> None:
        entry = _entry("set_budget", number)
        self.model.set_budget(account, budget, self.clock(), entry)
        for store in self._both(by):
            store.set_budget(account, budget, entry=entry and Entry(*entry))
        self.look()

    # Few rules of many verbs, since each rule is taken equally often, and calls are what matters.
    @rule(
        verb=st.sampled_from(["delete", "reset", "label", "scopes"]),
        account=st.sampled_from(ACCOUNTS),
        by=st.integers(0, 1),
        entry=entries,
        data=st.data(),
    )
    def something_is_administered(
        self, verb: str, account: str, by: int, entry: int | None, data: st.DataObject
    ) -> None:
        self._administer(verb, account, by, entry, data)

    @rule(
        verb=st.sampled_from(["mark", "raise", "raise"]),
        account=st.sampled_from(ACCOUNTS),
        by=st.integers(0, 1),
        entry=entries,
        data=st.data(),
    )
    def limit_is_raised_or_something_noted(
        self, verb: str, account: str, by: int, entry: int | None, data: st.DataObject
    ) -> None:
        self._administer(verb, account, by, entry, data)

    def _administer(self, verb: str, account: str, by: int, entry: int | None, data: st.DataObject) -> None:
        told = _entry(verb, entry)
        real = None if told is None else Entry(*told)
        change: Callable[[Store], object]
        if verb == "delete":
            expected = self.model.delete(account, self.clock(), told)
            change = lambda store: store.delete(account, entry=real)  # noqa: E731
        elif verb == "reset":
            expected = self.model.reset(account, self.clock(), told)
            change = lambda store: store.reset(account, entry=real) is not None  # noqa: E731
        elif verb == "label":
            labels = data.draw(st.sampled_from(["", '{"team":["a"]}']))
            expected = self.model.set_labels(account, labels, self.clock(), told)
            change = lambda store: store.set_labels(account, labels, entry=real) is not None  # noqa: E731
        elif verb == "scopes":
            seen = self.model.scopes[0] + data.draw(st.sampled_from([0, 0, 1]))
            scopes = (self.model.scopes[0] + 3, data.draw(st.sampled_from(["", '["a"]'])))
            expected = self.model.save_scopes(scopes, seen, told)
            change = lambda store: store.save_scopes(Document(*scopes), seen, entry=real)  # noqa: E731
        elif verb == "mark":
            mark = data.draw(st.sampled_from([0, -1]))
            expected = self.model.mark(account, mark, self.clock())
            change = lambda store: store.mark(account, mark)  # noqa: E731
        else:
            seconds = data.draw(st.sampled_from([None, -1, 0, 1, 60, 3_600, 90_000, "reset"]))
            until = None if seconds is None else self.clock()
            if seconds == "reset" and (balance := self.memory.read(account)) is not None:
                until = balance.resets_ms  # when its window ends, or something falls out
            elif isinstance(seconds, int):
                until = self.clock() + seconds * SECOND
            given = Grant(data.draw(st.sampled_from("gh")), data.draw(st.integers(0, 20)), until)
            expected = self.model.grant(account, given.id, given.amount, until, self.clock(), told)
            change = lambda store: store.grant(account, given, entry=real) is not None  # noqa: E731
        assert [change(store) for store in self._both(by)] == [expected] * 2
        self.look()

    @rule(
        charges=st.lists(charges, min_size=1, max_size=3),
        amount=amounts,
        on_expiry=amounts,
        ttl=st.sampled_from([SECOND, 30 * SECOND, 60 * SECOND, 7_200 * SECOND, 172_800 * SECOND]),
        model=st.sampled_from(["a", "b"]),
        by=st.integers(0, 1),
        units=units,
        judged=st.tuples(judgements, judgements),
    )
    def hold_is_reserved(
        self, charges: list[Charge], amount: int, on_expiry: int, ttl: int, model: str, by: int,
        units: dict[str, tuple[int, int]], judged: tuple[str, str],
    ) -> None:  # fmt: skip
        wanted = self._hold(charges, amount, on_expiry, ttl, model, units, *judged)
        self.holds.append(wanted)
        self._reserve(wanted, by)

    @rule(amount=amounts, by=st.integers(0, 1), ttl=st.sampled_from([60 * SECOND, 7_200 * SECOND]))
    def user_and_project_are_charged(self, amount: int, by: int, ttl: int) -> None:
        pays = [Charge("user:1", required=True), Charge("project:p"), Charge(ROLLING)]
        wanted = self._hold(pays, amount, amount, ttl, "a")
        self.holds.append(wanted)
        self._reserve(wanted, by)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), by=st.integers(0, 1))
    def reserve_is_repeated(self, data: st.DataObject, by: int) -> None:
        self._reserve(data.draw(st.sampled_from(self.holds)), by)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), cost=st.integers(0, 25), by=st.integers(0, 1), watch=st.booleans(), units=costs)
    def hold_is_settled(
        self, data: st.DataObject, cost: int, by: int, watch: bool, units: dict[str, int]
    ) -> None:
        settlement = Settlement(cost, thresholds=(50, 100) if watch else (), units=units)
        self._settle(self._draw(data), settlement, by)

    @rule(
        amount=amounts,
        cost=st.integers(0, 25),
        model=st.sampled_from("abc"),
        by=st.integers(0, 3),
        tokens=st.integers(0, 20),
        shadow=st.booleans(),
    )
    def call_is_made(self, amount: int, cost: int, model: str, by: int, tokens: int, shadow: bool) -> None:
        self._call(amount, cost, model, by, tokens, shadow)

    @rule(
        costs=st.lists(st.integers(0, 9), min_size=2, max_size=4),
        seconds=st.sampled_from([1, 60, 61, 1_440, 1_800, 3_600]),
        by=st.integers(0, 3),
    )
    def calls_follow_each_other(self, costs: list[int], seconds: int, by: int) -> None:
        for cost in costs:
            self._call(cost, cost, "a", by, cost, shadow=False)
            self.clock.advance(seconds)

    @rule(
        amount=st.integers(0, 9),
        cost=st.integers(0, 9),
        between=st.sampled_from(["", "reset", "reset", "windows", "calls", "budget"]),
        by=st.integers(0, 1),
    )
    def a_call_is_lost_and_settled_late(self, amount: int, cost: int, between: str, by: int) -> None:
        pays = [Charge(account) for account in ("user:1", "project:p", TOKENS, ROLLING)]
        lost = self._hold(pays, amount, amount, 60 * SECOND, "a", {"tokens": (amount, amount)})
        self.holds.append(lost)
        self._reserve(lost, by)
        self.clock.advance(60)
        self.look()
        if between == "reset":
            for account in ("user:1", ROLLING):
                existed = self.model.reset(account, self.clock())
                assert [store.reset(account) is not None for store in self._both(by)] == [existed] * 2
        elif between == "windows":
            self.clock.advance(3_660)
        elif between == "calls":
            self.clock.advance(1_440)
            self._call(cost, cost, "b", by, cost, shadow=False)
        elif between == "budget":
            self._set_budget("user:1", Budget(50, "daily", rollover=9), by)
        self._settle(lost, Settlement(cost, thresholds=(20, 80), units={"tokens": cost}), by)

    @rule(carries=st.integers(0, 30), duration=durations, by=st.integers(0, 1), seen=st.booleans())
    def windows_change_while_something_is_carried(
        self, carries: int, duration: str | None, by: int, seen: bool
    ) -> None:
        self._set_budget("user:1", Budget(20, "hourly", rollover=carries), by)
        self.clock.advance(3_600)
        self.look()
        self._set_budget("user:1", Budget(20, duration, rollover=40), by)
        if seen:
            self.clock.advance(3_600)
            self.look()
        self.clock.advance(86_400)
        self.look()

    @rule(first=st.integers(1, 5), then=st.integers(5, 12), raised=st.integers(0, 40), by=st.integers(0, 1))
    def a_raise_ends_as_something_falls_out(self, first: int, then: int, raised: int, by: int) -> None:
        self.model.reset(TOKENS, self.clock())
        for store in self._both(by):
            store.reset(TOKENS)
        self._call(0, 0, "a", by, first, shadow=True, used=first)
        self.clock.advance(1_800)
        self._call(0, 0, "a", by, then, shadow=True, used=then)
        balance = self.memory.read(TOKENS)
        if balance is None or balance.resets_ms is None:
            return
        until = balance.resets_ms
        self.model.grant(TOKENS, "ends", raised, until, self.clock())
        for store in self._both(by):
            store.grant(TOKENS, Grant("ends", raised, until))
        self.clock.set(max(until, self.clock()))
        self._call(0, 0, "a", by, 0, shadow=True, used=0)

    def _call(
        self, amount: int, cost: int, model: str, by: int, tokens: int, shadow: bool, used: int | None = None
    ) -> None:
        others = [Charge(account, shadow=shadow) for account in (REQUESTS, CONCURRENT, TOKENS, ROLLING)]
        pays = [Charge("user:1", required=True), Charge("user:2"), Charge("project:p"), *others]
        units = {"requests": (1, 1), "tokens": (tokens, tokens), "concurrent": (1, 0)}
        wanted = self._hold(pays, amount, amount, 60 * SECOND, model, units)
        self.holds.append(wanted)
        self._reserve(wanted, by % 2)
        usage = Usage.of(input_tokens=cost, output_tokens=amount)
        settlement = Settlement(
            cost, usage=usage, request_id=str(cost), thresholds=(20, 80, 100), observed=((model, cost),),
            units={"tokens": min(cost, tokens) if used is None else used},
        )  # fmt: skip
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
        self._settle(self._draw(data), VOID, by)

    # What every verb comes down to

    @rule(by=st.integers(0, 1))
    def balances_are_added_up_again(self, by: int) -> None:
        for store in self._both(by):
            assert isinstance(store, Transfer)
            assert verify(store).differences == ()

    def _draw(self, data: st.DataObject) -> Hold:
        """Draw one of the holds: if there are any, as a rule one that was neither settled nor voided."""
        calls = self.model.calls
        going = [hold for hold in self.holds if hold.id in calls and calls[hold.id].ended is None]
        found = going if going and data.draw(st.sampled_from([True, True, True, False])) else self.holds
        return data.draw(st.sampled_from(found))

    def _hold(
        self, charges: list[Charge], amount: int, on_expiry: int, ttl: int, model: str,
        units: Mapping[str, tuple[int, int]] = MappingProxyType({}),
        judged: str = "present", scoped: str = "present",
    ) -> Hold:  # fmt: skip
        """Make a hold; its charges have the model's numbers for revisions."""

        def revised(charge: Charge) -> Charge:
            present = self.model.text(charge.account).number
            revision = {"present": present, "none": 0, "former": present - 1 if present > 1 else 1}[judged]
            return replace(charge, revision=revision)

        unique = f"{self.clock():012x}{len(self.holds):020x}"
        return Hold(
            unique, tuple(map(revised, charges)), amount, on_expiry, ttl, self.clock(), "1", model, "chat",
            units=units, labels={"customer": model},
            scopes={"present": self.model.scopes[0], "none": 0, "former": 1}[scoped],
        )  # fmt: skip

    def _both(self, by: int) -> tuple[Store, Store]:
        return self.memory, self.disk[by]

    def _reserve(self, hold: Hold, by: int) -> None:
        expected = self.model.reserve(hold, self.clock())
        answers = [
            store.reserve(known.hold(hold))
            for known, store in zip(self.revisions, self._both(by), strict=True)
        ]
        if self.in_full:
            assert self.revisions[0].answer(answers[0]) == self.revisions[1].answer(answers[1])
        for number, answer in enumerate(answers):
            assert said(answer) == expected
            self.told[number] += [expiry.hold_id for expiry in getattr(answer, "expired", ())]
            if isinstance(answer, Outdated):
                for name, document in answer.accounts.items():
                    assert self.revisions[number].text(document) == self.model.text(name)
        self.look()

    def _settle(self, hold: Hold, settlement: Settlement, by: int) -> None:
        expected, crossed = self.model.settle(hold, settlement, self.clock())
        answers = [
            store.settle(known.hold(hold), settlement)
            for known, store in zip(self.revisions, self._both(by), strict=True)
        ]
        if self.in_full:
            assert self.revisions[0].answer(answers[0]) == self.revisions[1].answer(answers[1])
        for number, answer in enumerate(answers):
            if isinstance(answer, UnknownAccount):
                assert f"unknown {answer.account}" == expected
                continue
            self.told[number] += [expiry.hold_id for expiry in answer.expired]
            assert ended(answer) == expected
            assert answer.booked == (0 if answer.repeated else settlement.cost)
            assert {(c.account, c.threshold) for c in answer.crossings} == crossed
        self.look()

    def look(self) -> None:
        """Read everything everywhere, and compare."""
        self.model.look(self.clock())
        expected = {name: self.model.standing(name) for name in self.model.accounts()}
        records = {hold_id: self.model.record(hold_id) for hold_id in self.model.calls}
        seen = []
        ours, theirs = self.revisions
        for known, store in ((ours, self.memory), (theirs, self.disk[1]), (theirs, self.disk[0])):
            listed = {balance.account: balance for balance in store.list()}
            calls = list(store.calls())
            for name, balance in listed.items():
                known.learn(self.model.text(name), balance.document)
            assert {name: shown(balance, known.text) for name, balance in listed.items()} == expected
            assert {call.id: recorded(call) for call in calls} == records
            open_ids = {h.id for h in store.holds()}
            assert open_ids == {
                i for i, record in records.items() if record.state == "held" and record.accounts
            }
            assert all(store.read(name) == balance for name, balance in listed.items())
            assert store.scopes() == Document(*self.model.scopes)
            assert trail_of(store) == sorted(self.model.trail.items())
            neutral = [known.balance(balance) for balance in listed.values()]
            seen.append((neutral, calls, [store.observations(model) for model in "abc"]))
        if self.in_full:
            assert seen[0] == seen[1] == seen[2]
        for told in self.told.values():
            assert sorted(told) == sorted(self.model.expired_ever())


def _entry(verb: str, number: int | None) -> tuple[str, str] | None:
    """Return the id and the text of an entry of the trail; a number may come again."""
    return None if number is None else (f"{number:032x}", f'{{"by":"{verb}"}}')


# BUDGETGUARD_TEST_HISTORIES=2000 searches further, and elsewhere each time.
_MORE = os.environ.get("BUDGETGUARD_TEST_HISTORIES")
_LEAST = 25


class DiskHistories(Histories):
    in_full = True


class TestHistories(DiskHistories.TestCase):  # type: ignore[misc]  # made by hypothesis
    settings = settings(
        max_examples=int(_MORE or 12),
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


@pytest.mark.full
class TestManyHistories(TestHistories):
    settings = settings(TestHistories.settings, max_examples=int(_MORE or 150))
