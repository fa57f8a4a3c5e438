"""Laws of records: budgets that change, listings, retention, projects, what is learned."""

from __future__ import annotations

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import VOID, Charge, Denied, Granted, Settlement, Unlimited
from budgetguard.core.usage import MOST_MODELS, Usage
from budgetguard.stores.base import Store
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
    settled,
    sweep,
)
from budgetguard.testing.clock import FakeClock

DAY = 86_400

# Ids that a URL, a pattern, a key or a quoting rule could trip over.
AWKWARD = [
    "🎈",
    "a:b",
    "100%",
    "%3A",
    "it's",
    '"q"',
    "a/b",
    "a b",
    "*",
    "a_b",
    "\\",
    "h:p:",
    "ünï",
    "{x}",
    "~",
]


class RecordLaws(ContractBase):
    """Budgets, listings and what is kept, and law 10 for text."""

    # Projects

    def test_projects_are_listed_in_order_and_only_if_they_have_an_account_or_just_this_one(
        self, store: Store, make_store: MakeStore, clock: FakeClock
    ) -> None:
        """Which others a store knows of is its own affair; of itself it always knows."""
        assert list(store.projects()) == []
        beside = make_store(clock, project="a") if self.shared else store
        budget(beside, 100)
        assert list(beside.projects(USER)) == [beside.project]
        assert list(store.projects("user:2")) == []
        budget(store, 100)
        listed = list(store.projects())
        assert store.project in listed
        assert listed == sorted({store.project, beside.project} & set(listed)) == list(store.projects(USER))
        beside.close()

    # Budgets that change

    def test_a_limit_that_changes_takes_effect_at_once_and_keeps_what_is_spent_and_held(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        settled(store, granted(store, hold(clock, 60)), 60)
        granted(store, hold(clock, 30))
        assert budget(other, 200).spent_nanos == 60
        granted(store, hold(clock, 110))
        budget(other, 50)
        assert money(store) == (50, 60, 140)
        assert isinstance(store.reserve(hold(clock, 1)), Denied)
        budget(other, None)
        granted(store, hold(clock, 1_000))

    def test_a_duration_that_changes_starts_a_window_now_and_keeps_the_spend(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100, duration="monthly")
        call = granted(store, hold(clock, 60, ttl=30 * DAY * 1000))
        clock.advance(3 * DAY)
        balance = budget(store, 100, duration="daily")
        assert (balance.starts_ms, balance.resets_ms) == (clock(), clock() + DAY * 1000)
        settled(store, call, 40)
        assert money(store) == (100, 40, 0)
        clock.advance(DAY)
        assert money(store) == (100, 0, 0)

    def test_a_budget_set_again_with_the_same_duration_keeps_its_window(
        self, store: Store, clock: FakeClock
    ) -> None:
        first = budget(store, 100, duration="daily")
        clock.advance(1_000)
        again = budget(store, 300, duration="daily")
        assert (again.starts_ms, again.resets_ms) == (first.starts_ms, first.resets_ms)

    def test_a_budget_may_start_at_an_instant_of_its_own(self, store: Store, clock: FakeClock) -> None:
        start = clock() - 10 * DAY * 1000 - 1
        balance = store.set_budget(USER, Budget(100, "daily", starts_at=start))
        assert balance.resets_ms == clock() + DAY * 1000 - 1

    def test_a_reset_forgets_what_is_spent_and_keeps_what_is_held(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        settled(store, granted(store, hold(clock, 60)), 60)
        call = granted(store, hold(clock, 30))
        balance = store.reset(USER)
        assert balance == now(store)
        assert money(store) == (100, 0, 30)
        settled(store, call, 20)
        assert money(store) == (100, 20, 0)
        assert store.reset("user:nobody") is None

    def test_a_deleted_account_is_gone_and_its_holds_end_charged_to_nobody(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        budget(store, 1_000, PROJECT)
        both = granted(store, hold(clock, 60, USER, PROJECT))
        alone = granted(store, hold(clock, 30))
        assert store.delete(USER) is True
        assert store.delete(USER) is False
        assert store.read(USER) is None
        assert store.reserve(hold(clock, 1, Charge(USER))) == Unlimited()
        settled(store, alone, 30)
        settled(store, both, 40)
        assert money(store, PROJECT) == (1_000, 40, 0)
        assert [b.account for b in store.list()] == [PROJECT]

    def test_an_account_made_again_owes_nothing_of_its_former_life(
        self, store: Store, clock: FakeClock
    ) -> None:
        made = clock()
        budget(store, 100)
        expired = granted(store, hold(clock, 20))
        clock.advance(TTL / 1000)
        now(store)
        held = granted(store, hold(clock, 60))
        store.delete(USER)
        clock.set(made)  # the very millisecond, so that no time can tell the two lives apart
        budget(store, 100)
        settled(store, held, 50)
        settled(store, expired, 5)
        assert money(store) == (100, 0, 0)

    def test_a_hold_without_an_account_left_is_listed_as_expired_once_it_is(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        granted(store, hold(clock, 60, on_expiry=25))
        store.delete(USER)
        assert [(c.state, c.accounts) for c in store.calls()] == [("held", ())]
        clock.advance(TTL / 1000)
        assert [(c.state, c.cost_nanos) for c in store.calls()] == [("expired", 25)]

    # Listings

    def test_accounts_are_listed_by_kind_in_order_of_their_names(self, store: Store) -> None:
        names = [
            "user:b",
            "user:a",
            "user:10",
            "user:9",
            "users:x",
            "run:1",
            "project:p",
            "user:ä",
            "user:🎈",
        ]
        for name in names:
            budget(store, 1, name)
        assert [b.account for b in store.list()] == sorted(names)
        assert [b.account for b in store.list("user")] == sorted(n for n in names if n.startswith("user:"))
        assert list(store.list("team")) == []

    def test_more_accounts_than_a_page_are_listed_once_each(self, store: Store) -> None:
        names = [f"user:{i:04d}" for i in range(1_203)]
        for name in names:
            budget(store, 1, name)
        assert [b.account for b in store.list("user")] == names

    def test_open_holds_are_listed_and_ended_ones_are_not(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        budget(store, 1_000, PROJECT)
        both = granted(store, hold(clock, 10, USER, PROJECT))
        alone = granted(store, hold(clock, 10, PROJECT))
        settled(store, granted(store, hold(clock, 10)), 1)
        store.settle(granted(store, hold(clock, 10)), VOID)
        assert sorted(h.id for h in store.holds()) == sorted([both.id, alone.id])
        assert [h.id for h in store.holds(USER)] == [both.id]
        assert list(store.holds("user:nobody")) == []
        clock.advance(TTL / 1000)
        assert list(store.holds()) == []

    def test_calls_are_reported_by_when_they_were_made_oldest_first(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 10_000)
        start = clock()
        made = []
        for _ in range(5):
            made.append(granted(store, hold(clock, 10)).id)
            clock.advance(1)
        assert [c.id for c in store.calls()] == made
        assert [c.id for c in store.calls(start + 1_000)] == made[1:]
        assert [c.id for c in store.calls(start + 1_000, start + 3_000)] == made[1:3]
        assert [c.id for c in store.calls(until=start)] == []
        assert [c.id for c in store.calls(start + 5_000)] == []

    def test_a_call_is_recorded_with_what_it_cost_and_why(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60, on_expiry=25))
        clock.advance(2)
        usage = Usage.of(input_tokens=12, output_tokens=3)
        store.settle(call, Settlement(40, usage=usage, request_id="req-1", outcome="abandoned"))
        (record,) = store.calls()
        assert (record.id, record.state, record.accounts) == (call.id, "settled", (USER,))
        assert (record.amount_nanos, record.on_expiry_nanos, record.cost_nanos) == (60, 25, 40)
        assert (record.created_ms, record.ended_ms, record.expires_ms) == (
            call.created,
            clock(),
            call.created + TTL,
        )
        assert (record.user, record.model, record.endpoint) == ("1", "gpt-4o", "chat")
        assert (record.outcome, record.request_id, record.usage) == ("abandoned", "req-1", usage)

    def test_the_states_of_calls_are_told_apart_and_expiries_need_no_other_verb(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        settled(store, granted(store, hold(clock, 10)), 1)
        store.settle(granted(store, hold(clock, 10)), VOID)
        granted(store, hold(clock, 10, on_expiry=3))
        assert sorted((c.state, c.cost_nanos) for c in store.calls()) == [
            ("held", 0),
            ("settled", 1),
            ("voided", 0),
        ]
        clock.advance(TTL / 1000)
        assert ("expired", 3) in {(c.state, c.cost_nanos) for c in store.calls()}

    def test_spend_is_kept_by_model(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        settled(store, granted(store, hold(clock, 10, model="a")), 5)
        settled(store, granted(store, hold(clock, 10, model="b")), 7)
        settled(store, granted(store, hold(clock, 10, model="a")), 1)
        lost = granted(store, hold(clock, 9, model="c"))
        clock.advance(TTL / 1000)
        assert now(store).models == {"a": 6, "b": 7, "c": 9}
        settled(store, lost, 0)
        assert now(store).models == {"a": 6, "b": 7}

    # Answers that come later

    def test_an_answer_leads_back_to_the_hold_that_waits_for_it(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        assert store.attached("batch_1") is None
        assert store.attach(call.id, "batch_1") is True
        found = attached(other, "batch_1")
        assert (found.id, found.state, found.request_id) == (call.id, "held", "batch_1")
        settled(other, call, 40)
        ended = attached(store, "batch_1")
        assert (ended.state, ended.cost_nanos, ended.request_id) == ("settled", 40, "batch_1")

    def test_what_was_attached_to_a_hold_that_expired_can_still_be_settled(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        store.attach(call.id, "batch_1")
        clock.advance(TTL / 1000)
        found = attached(store, "batch_1")
        assert (found.state, found.cost_nanos) == ("expired", 60)
        assert store.attach(call.id, "batch_2") is True
        assert settled(store, call, 40).late
        assert money(store) == (100, 40, 0)

    def test_nothing_is_attached_to_a_hold_that_ended_or_never_was(
        self, store: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        ended = granted(store, hold(clock, 60))
        settled(store, ended, 1)
        back = granted(store, hold(clock, 60))
        store.settle(back, VOID)
        for call in (ended, back, hold(clock, 1)):
            assert store.attach(call.id, "batch_1") is False
        assert store.attached("batch_1") is None

    def test_an_answer_attached_again_leads_to_the_newer_hold(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        first, second = granted(store, hold(clock, 10)), granted(store, hold(clock, 10))
        for call in (first, second):
            for _ in range(2):
                assert store.attach(call.id, "run_1") is True
        found = attached(store, "run_1")
        assert found.id == second.id

    def test_answers_may_be_called_anything(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        names = ["", "a:b", "\ud800", "m\x00n", "🎈", "'", "x" * 5_000, *AWKWARD]
        calls = {name: granted(store, hold(clock, 1)).id for name in names}
        for name, hold_id in calls.items():
            assert store.attach(hold_id, name)
        for name, hold_id in calls.items():
            found = attached(store, name)
            assert (found.id, found.request_id) == (hold_id, name)

    def test_answers_are_forgotten_with_their_holds(self, brief: Store, clock: FakeClock) -> None:
        budget(brief, 10**9)
        old = granted(brief, hold(clock, 10))
        waiting = granted(brief, hold(clock, 10, ttl=365 * DAY * 1000))
        brief.attach(old.id, "batch_old")
        brief.attach(waiting.id, "batch_waiting")
        settled(brief, old, 5)
        clock.advance(3 * DAY)
        sweep(brief, clock, cost=1)
        assert brief.attached("batch_old") is None
        found = attached(brief, "batch_waiting")
        assert found.id == waiting.id

    def test_a_call_keeps_its_tags(self, store: Store, other: Store, clock: FakeClock) -> None:
        budget(store, 100)
        tags = ("checkout", "tenant:7", "🎈", "\ud800")
        call = granted(store, hold(clock, 60, tags=tags))
        assert [h.tags for h in other.holds()] == [tags]
        settled(store, call, 40)
        assert [c.tags for c in other.calls()] == [tags]

    # Retention

    def test_old_records_and_idle_runs_are_swept_and_open_holds_and_users_never(
        self, brief: Store, clock: FakeClock
    ) -> None:
        budget(brief, 10**9)
        idle = Charge("run:idle", budget=Budget(100), ephemeral=True)
        busy = Charge("run:busy", budget=Budget(100), ephemeral=True)
        old = granted(brief, hold(clock, 10, USER, idle))
        settled(brief, old, 5)
        held = granted(brief, hold(clock, 10, USER, busy, ttl=365 * DAY * 1000))
        clock.advance(DAY + 1)
        sweep(brief, clock, cost=1)
        ids = {c.id for c in brief.calls()}
        assert old.id not in ids
        assert held.id in ids
        assert [h.id for h in brief.holds()] == [held.id]
        assert [b.account for b in brief.list()] == ["run:busy", USER]
        assert money(brief) == (10**9, 705, 10)
        settled(brief, held, 7)
        assert money(brief, "run:busy") == (100, 7, 0)

    def test_holds_without_an_account_left_are_swept_too_and_holds_that_ended_lately_are_kept(
        self, brief: Store, clock: FakeClock
    ) -> None:
        budget(brief, 10**9)
        budget(brief, 100, "user:gone")
        budget(brief, 100, "user:idle")
        orphan = granted(brief, hold(clock, 10, "user:gone"))
        granted(brief, hold(clock, 10, "user:idle"))
        late = granted(brief, hold(clock, 10, ttl=365 * DAY * 1000))
        brief.delete("user:gone")
        clock.advance(3 * DAY)
        settled(brief, late, 5)
        sweep(brief, clock, cost=1)
        # Nobody had looked at this account since its hold ran out: the expiry was still to be booked.
        assert money(brief, "user:idle") == (100, 10, 0)
        assert now(brief, "user:idle").expiries == 1
        ids = {c.id for c in brief.calls()}
        assert orphan.id not in ids
        assert late.id in ids
        assert settled(brief, late, 5).repeated

    def test_a_clock_that_jumps_ahead_and_back_has_no_call_booked_twice(
        self, brief: Store, clock: FakeClock
    ) -> None:
        budget(brief, 10**9)
        call = granted(brief, hold(clock, 10))
        settled(brief, call, 5)
        clock.advance(3 * DAY)
        sweep(brief, clock, cost=1)
        assert call.id not in {c.id for c in brief.calls()}
        clock.advance(-3 * DAY + 1)
        before = money(brief)
        assert settled(brief, call, 5).repeated
        assert money(brief) == before
        # One that was never reserved, and is not as old, is booked.
        assert not settled(brief, hold(clock, 10), 7).repeated
        assert money(brief)[1] == before[1] + 7

    # Projects share nothing

    def test_projects_share_nothing(self, make_store: MakeStore, clock: FakeClock) -> None:
        names = ["p", "p2", "P", *AWKWARD]
        stores = {name: make_store(clock, project=name) for name in names}
        calls = {}
        for i, (name, store) in enumerate(stores.items()):
            budget(store, 100 + i)
            calls[name] = granted(store, hold(clock, i)).id
        for i, (name, store) in enumerate(stores.items()):
            assert money(store) == (100 + i, 0, i), name
            assert [b.account for b in store.list()] == [USER]
            assert [c.id for c in store.calls()] == [calls[name]]
            assert [h.id for h in store.holds()] == [calls[name]]
        stores["p"].delete(USER)
        assert all(s.read(USER) is not None for name, s in stores.items() if name != "p")
        for store in stores.values():
            store.close()

    def test_no_users_name_reaches_into_a_project_of_a_longer_name(
        self, make_store: MakeStore, clock: FakeClock
    ) -> None:
        short, long = make_store(clock, project="p"), make_store(clock, project="p:user")
        budget(short, 100, "user:user:1")
        assert long.read("user:1") is None
        assert list(long.list()) == []
        budget(long, 7, "user:2")
        assert [b.account for b in short.list()] == ["user:user:1"]
        short.close()
        long.close()

    def test_ids_of_any_script_and_punctuation_are_told_apart(self, store: Store, clock: FakeClock) -> None:
        names = [f"user:{ident}" for ident in AWKWARD]
        for i, name in enumerate(names):
            budget(store, 100, name)
            settled(store, granted(store, hold(clock, 50, name, model=name)), i)
        assert [now(store, name).spent_nanos for name in names] == list(range(len(names)))
        assert [b.account for b in store.list("user")] == sorted(names)

    def test_a_models_name_may_hold_anything(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        for model in ("", "ft:gpt:a:b", "\ud800", "m\x00n", "🎈", '"'):
            call = granted(store, hold(clock, 1, model=model))
            store.settle(call, Settlement(1, observed=((model, 8),)))
            assert now(store).models[model] == 1
            assert store.observations(model) != {}

    # What is learned

    def test_observations_are_counted_per_model_and_once_per_settlement(
        self, store: Store, other: Store, clock: FakeClock
    ) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 1))
        settlement = Settlement(1, observed=(("a", 100), ("a", 100), ("b", 7)))
        store.settle(call, settlement)
        other.settle(call, settlement)
        assert sum(other.observations("a").values()) == 2
        assert sum(store.observations("b").values()) == 1
        assert store.observations("c") == {}

    def test_of_models_too_many_nothing_is_learned(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        names = [f"m{number}" for number in range(MOST_MODELS)]
        for start in range(0, MOST_MODELS, 1_000):
            seen = tuple((name, 8) for name in names[start : start + 1_000])
            store.settle(granted(store, hold(clock, 1)), Settlement(1, observed=seen))
        last = (("one more", 8), (names[0], 8))
        store.settle(granted(store, hold(clock, 1)), Settlement(1, observed=last))
        assert store.observations("one more") == {}
        assert sum(store.observations(names[0]).values()) == 2
        assert sum(store.observations(names[-1]).values()) == 1

    def test_a_store_works_again_after_it_is_closed(self, store: Store, clock: FakeClock) -> None:
        budget(store, 100)
        call = granted(store, hold(clock, 60))
        store.close()
        store.close()
        assert isinstance(store.reserve(call), Granted)
        settled(store, call, 40)
        assert money(store) == (100, 40, 0)
