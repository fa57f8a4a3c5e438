"""Grants, parts and scopes on a server: exact, found missing where they are lost, free for others."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import redis

from budgetguard.core.accounts import Budget, Document, Grant
from budgetguard.core.holds import Charge, Denied, Entry, Granted, Outdated, Settlement, new_hold
from budgetguard.core.money import MAX_NANOS
from budgetguard.errors import StoreError
from budgetguard.stores import Store, open_store
from budgetguard.stores import redis as redis_store
from budgetguard.stores.redis import RedisStore
from budgetguard.testing.clock import FakeClock
from tests.servers.valkey import ValkeyServer

from .helpers import USER, budget, granted, make_hold, money, now, settled

KEYS = "bg:2:{p}:"
ACCOUNT = f"{KEYS}a:{USER}"
TOKENS = "labels:@unit=tokens&user=1"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(server: ValkeyServer, clock: FakeClock) -> Store:
    return open_store(server.url, project="p", clock=clock)


def rolling(store: Store, clock: FakeClock, *costs: int) -> None:
    """Make a rolling account of a minute, and spend this in it, a second apart."""
    store.set_budget(USER, Budget(100, "60s", rolling=True))
    for cost in costs:
        settled(store, granted(store, make_hold(1, now=clock())), cost)
        clock.advance(1)


# Numbers


def test_the_last_nano_of_a_raised_limit_decides_beyond_what_a_double_holds(
    store: Store, clock: FakeClock
) -> None:
    budget(store, MAX_NANOS)
    for number in range(3):
        store.grant(USER, Grant(f"g{number}", MAX_NANOS, clock() + 60_000))
    assert now(store).limit_nanos == 4 * MAX_NANOS
    for less in (0, 1, 2, 2):
        granted(store, make_hold(MAX_NANOS - less, now=clock()))
    assert now(store).available_nanos == 5
    assert isinstance(store.reserve(make_hold(6, now=clock())), Denied)
    granted(store, make_hold(5, now=clock()))
    assert isinstance(store.reserve(make_hold(1, now=clock())), Denied)


def test_a_threshold_of_a_raised_limit_is_crossed_at_its_nano(store: Store, clock: FakeClock) -> None:
    budget(store, MAX_NANOS)
    store.grant(USER, Grant("g", MAX_NANOS - 1, clock() + 60_000))
    limit = 2 * MAX_NANOS - 1
    needed = -(-limit * 90 // 100)
    settled(store, make_hold(0, now=clock()), MAX_NANOS)
    assert settled(store, make_hold(0, now=clock()), needed - 1 - MAX_NANOS, (90,)).crossings == ()
    (crossing,) = settled(store, make_hold(0, now=clock()), 1, (90,)).crossings
    assert (crossing.balance.spent_nanos, crossing.balance.limit_nanos) == (needed, limit)


def test_what_is_rolled_over_is_exact_to_the_nano(store: Store, clock: FakeClock) -> None:
    store.set_budget(USER, Budget(MAX_NANOS, "daily", rollover=MAX_NANOS))
    settled(store, granted(store, make_hold(1, now=clock())), 3)
    clock.advance(86_400)
    assert now(store).limit_nanos == 2 * MAX_NANOS - 3
    settled(store, make_hold(0, now=clock()), MAX_NANOS)
    settled(store, make_hold(0, now=clock()), MAX_NANOS - 8)
    clock.advance(86_400)
    assert now(store).limit_nanos == MAX_NANOS + 5


def test_parts_of_a_rolling_window_are_added_up_to_the_nano(store: Store, clock: FakeClock) -> None:
    store.set_budget(USER, Budget(None, "60s", rolling=True))
    for cost in (1, MAX_NANOS, MAX_NANOS - 1, MAX_NANOS - 2):
        settled(store, make_hold(0, now=clock()), cost)
        clock.advance(1)
    assert money(store)[1] == 3 * MAX_NANOS - 2
    clock.advance(57)
    assert money(store)[1] == 3 * MAX_NANOS - 3
    assert now(store).models == {"m": 3 * MAX_NANOS - 3}
    clock.advance(1)
    assert money(store)[1] == 2 * MAX_NANOS - 3


# Damage and loss


@pytest.mark.parametrize("value", ["text", "1e3", None])
@pytest.mark.parametrize("field", ["spent", "expired", "expiries"])
def test_a_part_without_its_sum_is_damage_when_it_counts(
    store: Store, client: redis.Redis, clock: FakeClock, field: str, value: str | None
) -> None:
    rolling(store, clock, 30, 40)
    _, later = client.hget(ACCOUNT, "parts").decode().strip(",").split(",")[1:]
    key = f"{later.partition(':')[0]}.{field}"
    client.hdel(ACCOUNT, key) if value is None else client.hset(ACCOUNT, key, value)
    budget(store, 1, "user:2")

    def reads() -> None:
        for verb in (lambda: now(store), lambda: list(store.list())):
            with pytest.raises(
                StoreError, match=r"'user:1' of project 'p' .* is damaged: reset the account, or"
            ):
                verb()
        assert isinstance(store, RedisStore)
        with pytest.raises(StoreError, match="damaged"):
            list(store.export().rows)

    reads()
    settled(store, granted(store, make_hold(now=clock())), 0)
    clock.advance(59)
    with pytest.raises(StoreError, match=r"'user:1' of project 'p' .* is damaged: reset the account, or"):
        store.reserve(make_hold(now=clock()))
    reads()
    assert client.hget(ACCOUNT, "spent") == b"70"
    assert store.reset(USER) is not None
    assert money(store) == (100, 0, 0)
    assert not [name for name in client.hkeys(ACCOUNT) if name[:1].isdigit()]


@pytest.mark.parametrize(
    ("field", "value"),
    [("parts", "x"), ("parts", "60000"), ("grants", "x"), ("grants", '["g","1e3","5"]'), ("grants", "5")],
)
def test_what_is_no_list_is_damage_and_never_a_grant(
    store: Store, client: redis.Redis, clock: FakeClock, field: str, value: str
) -> None:
    rolling(store, clock)
    client.hset(ACCOUNT, field, value)
    for verb in (
        lambda: store.reserve(make_hold(now=clock())),
        lambda: store.read(USER),
        lambda: store.mark(USER, 0),
        lambda: store.grant(USER, Grant("g", 1, None)),
        lambda: list(store.list()),
    ):
        with pytest.raises(StoreError, match=r"'user:1' .* is damaged"):
            verb()
    assert store.delete(USER)
    assert store.read(USER) is None


def test_scopes_that_a_program_has_seen_are_lost_and_not_outdated(
    server: ValkeyServer, store: Store, client: redis.Redis, clock: FakeClock
) -> None:
    budget(store, 100)
    assert store.save_scopes(Document(7, "[]"), 0)
    other = open_store(server.url, project="p", clock=clock)
    assert other.scopes() == Document(7, "[]")
    fresh = open_store(server.url, project="p", clock=clock)
    call = new_hold(clock(), (Charge(USER, required=True),), amount=1, scopes=7)
    lost = r"what kinds of budgets there are of project 'p' .* is lost"
    client.delete(f"{KEYS}scopes.rules")
    with pytest.raises(StoreError, match=lost):
        fresh.reserve(replace(call, scopes=6))
    client.delete(f"{KEYS}scopes")
    for seen in (store, other):
        with pytest.raises(StoreError, match=lost):
            seen.reserve(call)
    assert fresh.reserve(call) == Outdated(Document())
    client.set(f"{KEYS}scopes.rules", "[]")
    for verb in (fresh.scopes, lambda: fresh.reserve(call)):
        with pytest.raises(StoreError, match=lost):
            verb()
    assert store.save_scopes(Document(8, "[]"), 0)
    assert isinstance(store.reserve(new_hold(clock(), (Charge(USER),), amount=1, scopes=8)), Granted)
    assert store.save_scopes(Document(), 8)  # none any more is not lost
    assert isinstance(store.reserve(new_hold(clock(), (Charge(USER),), amount=1)), Granted)


def test_an_entry_of_the_trail_that_is_lost_is_told(
    store: Store, client: redis.Redis, clock: FakeClock
) -> None:
    store.set_budget(USER, Budget(1), entry=Entry(f"{clock():012x}" + "0" * 20, "{}"))
    client.delete(f"{KEYS}entries")
    with pytest.raises(StoreError, match=r"entry 0[0-9a-f]* of the audit trail .* is lost"):
        list(store.trail())


def test_saving_scopes_again_after_a_lost_answer_has_saved_them_once(store: Store, clock: FakeClock) -> None:
    entry = Entry(f"{clock():012x}" + "0" * 20, "{}")
    assert store.save_scopes(Document(7, "[]"), 0, entry=entry)
    assert store.save_scopes(Document(7, "[]"), 0, entry=entry)
    assert not store.save_scopes(Document(8, "[]"), 0, entry=entry)
    assert list(store.trail()) == [entry]


# What is stored


def test_an_account_and_a_hold_have_only_the_fields_that_they_need(
    store: Store, client: redis.Redis, clock: FakeClock
) -> None:
    budget(store, 100)
    store.grant(USER, Grant("g", 5, clock() + 1_000))
    store.set_labels(USER, "{}")
    call = granted(store, new_hold(clock(), (Charge(USER, revision=now(store).document.revision),), ttl=9))
    plain = set(client.hkeys(ACCOUNT))
    store.set_labels(USER, "")
    clock.advance(1)
    budget(store, 100)
    left = set(client.hkeys(ACCOUNT))
    assert plain - left == {b"grants", b"rules", b"labels", b"revision"}
    assert len(left) == 16
    assert not {b"units", b"labels", b"shadowed"} & set(client.hkeys(f"{KEYS}h:{call.id}"))


def test_grants_and_shadows_are_kept_as_json_in_any_script(
    store: Store, client: redis.Redis, clock: FakeClock
) -> None:
    name = 'user:é/"\\'
    store.set_budget(name, Budget(1))
    store.grant(name, Grant('ü/"\\', 1, clock() + 1_000))
    assert json.loads(client.hget(f"{KEYS}a:{name}", "grants")) == ['ü/"\\', "1", str(clock() + 1_000)]
    answer = store.reserve(new_hold(clock(), (Charge(name, shadow=True),), amount=3))
    assert isinstance(answer, Granted)
    assert [(one.account, one.available_nanos) for one in answer.shadowed] == [(name, 2)]
    assert [call.shadowed for call in store.calls()] == [(name,)]


def test_a_rolling_run_that_is_idle_expires_by_the_servers_clock_with_all_of_its_parts(
    server: ValkeyServer, client: redis.Redis
) -> None:
    store = open_store(server.url, project="p", retention="2h")
    run = Charge("run:1", budget=Budget(100, "60s", rolling=True), ephemeral=True)
    hold = new_hold(1_767_225_600_000, (run,), amount=1, ttl=60_000, units={"tokens": (1, 1)})
    granted(store, hold)
    store.settle(hold, Settlement(5))
    expiring = {key.decode().removeprefix(KEYS) for key in client.scan_iter() if client.pttl(key) > 0}
    assert expiring == {"a:run:1", "m:run:1", f"h:{hold.id}"}
    store.close()


def test_a_plain_call_sends_and_runs_no_more_than_before_there_were_units(
    server: ValkeyServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "_SWEEP_EVERY", 10**12)
    store = open_store(server.url, project="p")
    budget(store, 10**6)
    settled(store, granted(store, make_hold()), 1)
    client.config_resetstat()
    settled(store, granted(store, make_hold()), 1, (50, 80))
    ran = {name.removeprefix("cmdstat_"): one["calls"] for name, one in client.info("commandstats").items()}
    mine = {"config", "config|resetstat", "info"}
    assert {name: calls for name, calls in ran.items() if name not in mine} == {
        "evalsha": 2,
        "time": 2,
        "mget": 2,  # of old a GET: whether the project is frozen, and of which revision its scopes are
        "hmget": 4,
        "zrangebyscore": 2,
        "hget": 2,
        "hset": 4,
        "hincrby": 4,
        "zadd": 4,
        "zrem": 2,
        "pexpireat": 1,
    }
    store.close()
