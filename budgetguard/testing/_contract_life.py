"""A life with everything in it that a project may have, and the verbs that would go on with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from budgetguard.core.accounts import Budget, Document, Grant
from budgetguard.core.holds import VOID, Charge, Entry, Hold, Settlement
from budgetguard.core.usage import Usage
from budgetguard.stores.base import Store
from budgetguard.testing._contract_base import (
    PROJECT,
    TTL,
    USER,
    budget,
    granted,
    hold,
    money,
    now,
    settled,
)
from budgetguard.testing.clock import FakeClock

AWKWARD: Final = "m\udcff\x00\x1a"
REQUESTS: Final = "labels:@unit=requests&user=1"
ROLLING: Final = "labels:@unit=tokens&@rolling=7d&user=1"
RULED: Final = "customer:\u00fc"


def live(store: Store, clock: FakeClock) -> None:
    """Make calls of every fate, over windows, resets, deletions and names that are hard to store."""
    live_by_units(store, clock)
    budget(store, 10_000, duration="hourly")
    budget(store, 100_000, PROJECT)
    budget(store, None, "user:gone")
    budget(store, 0, "user:🎈 a")
    for _ in range(3):
        call = granted(store, hold(clock, 10, USER, PROJECT, tags=("b", "ü,")))
        usage = Usage.of(input_tokens=5, output_tokens=6)
        seen = (("gpt-4o", 6), (AWKWARD, 9))
        store.settle(call, Settlement(12, usage=usage, request_id="r", thresholds=(1,), observed=seen))
    settled(store, granted(store, hold(clock, 9, model=AWKWARD)), 9)
    expired = [granted(store, hold(clock, 20, USER, PROJECT, on_expiry=15)) for _ in range(3)]
    store.reset(PROJECT)
    clock.advance(TTL / 1000)
    assert money(store)[2] == 0
    settled(store, expired[0], 4)
    store.reset(USER)
    settled(store, expired[1], 4)
    store.settle(granted(store, hold(clock, 30, USER, PROJECT)), VOID)
    clock.advance(3_600)
    granted(store, hold(clock, 30, USER, PROJECT, ttl=7_200_000))
    clock.advance(3_600)
    settled(store, hold(clock, 6, USER, PROJECT), 6)  # never reserved
    open_hold = granted(store, hold(clock, 3, USER, "user:gone", ttl=7_200_000))
    for answer in ("resp_a", "resp_b\udcff"):
        assert store.attach(open_hold.id, answer)
    run = Charge("run:1", budget=Budget(50), ephemeral=True)
    settled(store, granted(store, hold(clock, 3, run, model="z")), 2)
    granted(store, hold(clock, 1, PROJECT))
    alone = granted(store, hold(clock, 2, "user:gone"))
    store.delete("user:gone")
    budget(store, 5, "user:gone")
    assert alone.id in {record.id for record in store.calls()}


def live_by_units(store: Store, clock: FakeClock) -> None:
    """Give accounts units, grants, rolling windows, rules, labels and marks, and make calls on them."""
    store.set_budget(REQUESTS, Budget(6, "1d", rollover=100))
    store.set_budget(ROLLING, Budget(2_000, "7d", rolling=True))
    store.set_budget(RULED, Budget(1_000, rules='{"a":"\u00fc"}', rollover=5))
    store.set_labels(RULED, '{"team":["\\ud800"]}')
    units: Mapping[str, int | tuple[int, int]] = {"requests": 1, "tokens": (50, 20), "concurrent": (1, 0)}

    def call(*more: Charge, ttl: int = TTL) -> Hold:
        shadow = Charge(REQUESTS, shadow=True)
        wanted = hold(
            clock, 9, shadow, Charge(ROLLING), *more, units=units, labels={"customer": "\u00fc,"}, ttl=ttl
        )
        return granted(store, wanted)

    clock.advance(3 * 86_400)  # three days are skipped, and rolled over
    assert store.grant(ROLLING, Grant("for good", 70, None)) is not None
    for number in range(2):
        assert store.grant(REQUESTS, Grant(f"g{number}", 2, clock() + 30 * 86_400_000)) is not None
    assert store.mark(ROLLING, 0)
    for number in range(34):  # the last of them are let through in the shadow only
        if number % 17 == 0:
            clock.advance(3_600 * 3)
        settled(store, call(), 3, units={"tokens": number, "requests": 1}, thresholds=(10,))
    lost = [call() for _ in range(3)]
    clock.advance(TTL / 1000)
    now(store, ROLLING)
    assert settled(store, lost[1], 4).late
    revised = Charge(RULED, revision=now(store, RULED).document.revision)
    call(revised, ttl=90 * 86_400_000)
    for number in range(3):
        entry = Entry(f"{clock():012x}{number:020x}", f'{{"by":"\u00fc","number":{number}}}')
        store.set_budget(RULED, Budget(2_000, rules='{"a":2}'), entry=entry)


def writes(store: Store, clock: FakeClock, hold_id: str) -> list[Callable[[], object]]:
    """Return verbs that write, each of which would change something."""
    return [
        lambda: store.reserve(hold(clock, 1)),
        lambda: store.reserve(hold(clock, 1, Charge("user:new", budget=Budget(5)))),
        lambda: store.settle(hold(clock, 1), Settlement(1)),
        lambda: store.attach(hold_id, "resp_2"),
        lambda: store.set_budget("user:2", Budget(1)),
        lambda: store.set_budget(USER, Budget(1)),
        lambda: store.reset(USER),
        lambda: store.delete(USER),
        lambda: store.grant(USER, Grant("g", 5, None)),
        lambda: store.grant(USER, Grant("g", 5, clock() + 1_000)),
        lambda: store.set_labels(USER, "{}"),
        lambda: store.mark(USER, 0),
        lambda: store.save_scopes(Document(7, "{}"), 0),
        lambda: store.set_budget(USER, Budget(1), entry=Entry(f"{clock():032x}", "{}")),
    ]
