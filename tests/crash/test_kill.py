"""SIGKILL at random moments, again and again: nothing that had returned is lost, nothing counts twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.process import system_clock
from budgetguard.stores import Store, open_store
from budgetguard.testing.clock import FakeClock

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

WORKERS = 4
PROGRAM = Path(__file__).with_name("_forker.py")


@pytest.mark.parametrize("rounds", [10, pytest.param(75, marks=pytest.mark.full)])
def test_every_settle_that_returned_is_booked_once_and_every_hold_of_the_dead_expires(
    rounds: int, tmp_path: Path
) -> None:
    url = f"disk://{tmp_path}/store"
    clock = FakeClock(system_clock())
    store = open_store(url, project="p", clock=clock)
    for account in ("user:1", "project:p"):
        store.set_budget(account, Budget(10**15))
    store.close()
    dice = random.Random(20_261_123)
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), url, str(WORKERS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as forker:
        for _ in range(rounds):
            said += _kill_a_round(forker, dice)
            _check(open_store(url, project="p", clock=clock), said)
        assert forker.stdin is not None
        forker.stdin.close()
    assert forker.returncode == 0
    store = open_store(url, project="p", clock=clock)
    left = [hold.id for hold in store.holds()]
    # Each of the dead had at most one call under way, and hardly all were killed between two calls.
    assert 0 < len(left) <= rounds * WORKERS
    before = store.read("user:1")
    assert before is not None
    clock.set(system_clock() + 1_000_000_001)
    for account in ("user:1", "project:p"):
        after = store.read(account)
        assert after is not None
        assert (after.expiries, after.expired_nanos) == (len(left), 5 * len(left))
        assert (after.spent_nanos, after.held_nanos) == (before.spent_nanos + 5 * len(left), 0)
    assert sorted(c.id for c in store.calls() if c.state == "expired") == sorted(left)
    store.close()


def _kill_a_round(forker: subprocess.Popen[bytes], dice: random.Random) -> list[str]:
    """Start workers, kill each after a random amount of work, and return what they said.

    By work done and not by the clock: a busy machine must not have them all killed while they start.
    Some are, since nothing said is an amount too.
    """
    assert forker.stdin is not None
    assert forker.stdout is not None
    forker.stdin.write(b"go\n")
    forker.stdin.flush()
    what, *pids = forker.stdout.readline().decode().split()
    assert what == "pids"
    said = []
    for pid in pids:
        for _ in range(dice.randrange(25)):
            said.append(forker.stdout.readline().decode().strip())
        os.kill(int(pid), signal.SIGKILL)
    while not (line := forker.stdout.readline().decode().strip()).startswith("ends"):
        assert line, "the forker is gone"
        said.append(line)
    assert line.split()[1:] == [str(-signal.SIGKILL)] * WORKERS
    return said


def _check(store: Store, said: list[str]) -> None:
    calls = {call.id: call for call in store.calls()}
    for line in said:
        what, _, hold_id = line.partition(" ")
        assert hold_id in calls, f"{line}: lost"
        if what == "settled":
            assert (calls[hold_id].state, calls[hold_id].cost_nanos) == ("settled", 3), f"{line}: not booked"
    settled = sum(call.state == "settled" for call in calls.values())
    held = sum(call.state == "held" for call in calls.values())
    for account in ("user:1", "project:p"):
        balance = store.read(account)
        assert balance is not None
        assert (balance.spent_nanos, balance.held_nanos) == (3 * settled, 7 * held)
        assert balance.open_holds == held
    store.close()
