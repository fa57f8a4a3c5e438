"""What the scripts leave on the server, by whose clock they go, and windows that clients must work out."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import redis

from budgetguard.core import process, windows
from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Denied, Expiry, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.core.usage import FADE_AT, observe
from budgetguard.stores import open_store
from budgetguard.stores import redis as redis_store
from budgetguard.testing.clock import FakeClock
from tests.servers.valkey import ValkeyServer

from .helpers import USER, budget, granted, make_hold, money, now, settled

HOUR = 3_600_000


def test_every_key_begins_with_one_prefix_and_the_keys_of_a_project_share_a_hash_tag(
    server: ValkeyServer, client: redis.Redis
) -> None:
    for project in ("p", "{x}", "a}b{c"):
        store = open_store(server.url, project=project)
        budget(store, 100, duration="daily")
        call = granted(store, make_hold(10))
        store.attach(call.id, "answer")
        settled(store, call, 5)
        granted(store, make_hold(10))
        store.close()
    keys = {key.decode() for key in client.keys("*")}
    assert {key.split("}")[0] for key in keys} == {"bg:2:{p", "bg:2:{%7Bx%7D", "bg:2:{a%7Db%7Bc"}
    assert len(keys) == 3 * 11


def test_a_server_that_forgets_its_scripts_between_any_two_verbs_changes_nothing(
    server: ValkeyServer, client: redis.Redis
) -> None:
    store = open_store(server.url, project="p")
    budget(store, 100)
    for _ in range(3):
        client.script_flush()
        call = granted(store, make_hold(10))
        client.script_flush()
        settled(store, call, 7)
    client.script_flush()
    assert money(store) == (100, 21, 0)
    store.close()


def test_a_verb_is_one_round_trip(server: ValkeyServer, client: redis.Redis) -> None:
    store = open_store(server.url, project="p")
    budget(store, 10**6, duration="monthly")
    settled(store, granted(store, make_hold()), 1)
    store.read(USER)  # so that the server knows all three scripts
    client.config_resetstat()
    for _ in range(200):
        settled(store, granted(store, make_hold()), 1, (50, 80, 100))
        store.read(USER)
    stats = client.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 600
    assert "cmdstat_eval" not in stats
    store.close()


# Time


def test_clients_whose_clocks_are_an_hour_apart_agree_on_windows_and_expiries(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = process.time_ns
    shift = [0]
    monkeypatch.setattr(process, "time_ns", lambda: real() + shift[0] * HOUR * 1_000_000)
    early = open_store(server.url, project="p")
    late = open_store(server.url, project="p")
    made = budget(early, 100, duration="30m")
    call = granted(early, make_hold(60, ttl=HOUR // 2))
    shift[0] = 1
    assert money(late) == (100, 0, 60)
    assert now(late).starts_ms == made.starts_ms
    granted(late, make_hold(40, ttl=HOUR // 2))
    shift[0] = -1
    assert money(early) == (100, 0, 100)
    assert now(early).expiries == 0
    assert settled(early, call, 5).late is False
    assert [h.expires_ms - made.created_ms < HOUR for h in late.holds()] == [True]
    early.close()
    late.close()


def test_windows_of_calendars_and_time_zones_are_those_of_the_other_stores(server: ValkeyServer) -> None:
    clock = FakeClock()
    ours = open_store(server.url, project="p", clock=clock)
    theirs = open_store("memory://", project="p", clock=clock)
    budgets = {
        f"user:{duration} {timezone} {starts}": Budget(10**9, duration, timezone, starts)
        for duration in ("30s", "hourly", "36h", "daily", "weekly", "monthly", "yearly")
        for timezone in ("UTC", "Europe/Berlin", "Pacific/Apia")
        for starts in (None, windows.calendar_start("monthly", timezone, clock() + 86_400_000 * 40))
    }
    for account, given in budgets.items():
        assert ours.set_budget(account, given) == theirs.set_budget(account, given)
    dice = random.Random(4)
    for _ in range(25):
        clock.advance(dice.choice([29, 3_599, 3_601, 86_399, 86_400 * 7, 86_400 * 31, 86_400 * 300]))
        calls = [make_hold(5, account, now=clock()) for account in budgets]
        for call in calls:
            for store in (ours, theirs):
                settled(store, granted(store, call), 3)
        assert list(ours.list()) == list(theirs.list())
    assert list(ours.calls()) == list(theirs.calls())
    changed = Budget(5, "weekly", "Asia/Tokyo")
    for account in budgets:
        assert ours.set_budget(account, changed) == theirs.set_budget(account, changed)
    ours.close()


def test_a_window_that_ends_costs_one_more_round_trip_and_only_then(
    server: ValkeyServer, client: redis.Redis
) -> None:
    clock = FakeClock()
    store = open_store(server.url, project="p", clock=clock)
    budget(store, 100, duration="daily")

    def trips() -> int:
        client.config_resetstat()
        granted(store, make_hold(now=clock()))
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])

    trips()
    assert trips() == 1
    clock.advance(86_400)
    assert (trips(), trips()) == (2, 1)
    store.close()


def test_a_window_worked_out_for_a_budget_that_changed_meanwhile_is_not_used(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    store, other = (open_store(server.url, project="p", clock=clock) for _ in range(2))
    budget(store, 100, duration="daily")
    settled(store, granted(store, make_hold(100, now=clock())), 100)
    clock.advance(86_400)
    honest = redis_store.window_at

    def meanwhile(*given: Any) -> windows.Window:
        monkeypatch.setattr(redis_store, "window_at", honest)
        found = honest(*given)
        budget(other, 50, duration="hourly")
        clock.advance(2 * 3_600)  # past the new window's end, and within what has just been worked out
        return found

    monkeypatch.setattr(redis_store, "window_at", meanwhile)
    granted(store, make_hold(40, now=clock()))
    balance = now(store)
    assert (balance.duration, balance.limit_nanos, balance.spent_nanos) == ("hourly", 50, 0)
    assert (balance.starts_ms, balance.resets_ms) == (clock(), clock() + HOUR)
    store.close()
    other.close()


def test_a_budget_set_while_another_client_changes_it_is_set_on_what_that_one_left(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    store, other = (open_store(server.url, project="p", clock=clock) for _ in range(2))
    budget(store, 100, duration="daily")
    clock.advance(600)
    honest = redis_store.window_at

    def meanwhile(*given: Any) -> windows.Window:
        monkeypatch.setattr(redis_store, "window_at", honest)
        found = honest(*given)
        budget(other, 50, duration="weekly")
        return found

    monkeypatch.setattr(redis_store, "window_at", meanwhile)
    balance = budget(store, 70, duration="daily")
    # Weekly meanwhile, so daily is a change, whose window begins now.
    assert (balance.limit_nanos, balance.starts_ms) == (70, clock())
    assert now(other) == balance
    store.close()
    other.close()


# Expiries


def test_a_thousand_holds_expiry_in_one_verb_and_each_is_told_once(server: ValkeyServer) -> None:
    clock = FakeClock()
    store = open_store(server.url, project="p", clock=clock)
    told: list[Expiry] = []
    store.on_expiry(told.append)
    budget(store, 10**6)
    budget(store, 10**6, "project:p")
    lost = [granted(store, make_hold(3, USER, "project:p", ttl=1_000, now=clock())).id for _ in range(1_000)]
    clock.advance(1)
    assert money(store, "project:p") == (10**6, 3_000, 0)
    assert money(store) == (10**6, 3_000, 0)
    assert now(store).expiries == 1_000
    assert sorted(expiry.hold_id for expiry in told) == sorted(lost)
    store.close()


def test_a_refusal_tells_all_the_expiries_however_many_runs_of_the_script_they_took(
    server: ValkeyServer,
) -> None:
    clock = FakeClock()
    store = open_store(server.url, project="p", clock=clock)
    told: list[Expiry] = []
    store.on_expiry(told.append)
    budget(store, 10**6)
    for _ in range(300):
        granted(store, make_hold(3, ttl=1_000, now=clock()))
    clock.advance(1)
    refused = store.reserve(make_hold(10**7, now=clock()))
    assert isinstance(refused, Denied)
    assert len({expiry.hold_id for expiry in refused.expired}) == 300
    assert told == []
    store.close()


# What is kept


def test_records_and_idle_accounts_expire_by_the_servers_clock_and_open_holds_and_users_never(
    server: ValkeyServer, client: redis.Redis
) -> None:
    store = open_store(server.url, project="p", retention="2h")
    budget(store, 100)
    run = Charge("run:1", budget=Budget(100), ephemeral=True)
    made = system_clock()
    calls = [
        Hold(new_hold_id(made), (Charge(USER), run), 1, 1, 60_000, made, "1", "m", "chat") for _ in range(2)
    ]
    for call in calls:
        granted(store, call)
    settled(store, calls[0], 1)

    def left(key: str) -> float:
        return float(client.pttl("bg:2:{p}:" + key))

    assert 0 < left(f"h:{calls[0].id}") <= 2 * HOUR
    assert left(f"h:{calls[1].id}") == left("a:run:1") == left(f"a:{USER}") == left(f"m:{USER}") == -1
    settled(store, calls[1], 1)
    assert 0 < left("a:run:1") <= 2 * HOUR
    assert 0 < left("m:run:1") <= 2 * HOUR
    granted(store, Hold(new_hold_id(made), (run,), 1, 1, 60_000, made))
    assert left("a:run:1") == left("m:run:1") == -1
    store.close()


def test_an_account_that_expired_is_listed_nowhere_and_can_be_made_again(
    server: ValkeyServer, client: redis.Redis
) -> None:
    store = open_store(server.url, project="p")
    run = Charge("run:1", budget=Budget(100), ephemeral=True)
    call = granted(store, Hold(new_hold_id(1), (run,), 10, 10, 60_000, 1))
    settled(store, call, 10)
    client.delete("bg:2:{p}:a:run:1", "bg:2:{p}:m:run:1", f"bg:2:{{p}}:h:{call.id}")  # as expiry does
    assert list(store.list()) == []
    assert list(store.calls()) == []
    assert store.read("run:1") is None
    granted(store, Hold(new_hold_id(1), (run,), 100, 100, 60_000, 1))
    assert money(store, "run:1") == (100, 0, 100)
    store.close()


def test_a_budget_that_takes_the_name_of_a_run_that_expired_is_never_swept(
    server: ValkeyServer, client: redis.Redis
) -> None:
    clock = FakeClock()
    store = open_store(server.url, project="p", clock=clock, retention="1h")
    run = Charge("run:1", budget=Budget(100), ephemeral=True)
    settled(store, granted(store, Hold(new_hold_id(clock()), (run,), 10, 10, 60_000, clock())), 10)
    client.delete("bg:2:{p}:a:run:1", "bg:2:{p}:m:run:1")
    budget(store, 70, "run:1")
    budget(store, 10**6)
    clock.advance(2 * 3_600)
    for _ in range(200):
        settled(store, granted(store, make_hold(now=clock())), 1)
    assert money(store, "run:1") == (70, 0, 0)
    store.close()


def test_old_observations_fade_as_in_the_other_stores(server: ValkeyServer) -> None:
    store = open_store(server.url, project="p")
    budget(store, None)
    expected: dict[str, int] = {}
    seen = tuple(("m", 10 if number % 3 else 1_000) for number in range(FADE_AT + 50))
    seen = (("m", 1), *seen)
    for _, tokens in seen:
        expected = observe(expected, tokens)
    for some in (seen[:100], seen[100:2_000], seen[2_000:]):
        store.settle(make_hold(0), Settlement(0, observed=some))
    assert store.observations("m") == expected
    assert sum(expected.values()) < FADE_AT
    store.close()


# Listings


def test_pages_of_records_come_in_order_and_once_each(
    server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "_PAGE", b"7")
    store = open_store(server.url, project="p")
    budget(store, 10**6)
    budget(store, 10**6, "project:p")
    calls = [granted(store, make_hold(1, *([USER] if n % 2 else [USER, "project:p"]))) for n in range(50)]
    for call in calls[:20]:
        settled(store, call, 1)
    ids = sorted(call.id for call in calls)
    open_ids = sorted(call.id for call in calls[20:])
    assert [record.id for record in store.calls()] == ids
    assert [record.id for record in store.holds()] == open_ids
    assert len(list(store.holds("project:p"))) == 15
    assert all(a.created_ms <= b.created_ms for a, b in pairwise(store.calls()))
    store.close()
