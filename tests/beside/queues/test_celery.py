"""Celery with real workers on a real broker: who pays for tasks, wherever and however they are done."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.provider.server import Reply

from .conftest import Queues

pytest.importorskip("celery")

InProgram = Callable[..., Any]
on_redis = pytest.mark.parametrize("queues", ["redis"], indirect=True)
BEGIN = """
import json
from budgetguard import budget_tags, budget_user, default_guard
from celery import chain, chord, group
from tests.beside.queues import tasks
from tests.beside.queues.tasks import *
"""


def worker(queues: Queues, folder: Path, *options: str, **environ: str) -> AbstractContextManager[Any]:
    command = ("celery", "-A", "tests.beside.queues.tasks", "worker", "--loglevel", "info", *options)
    return queues.worker(*command, ready=" ready.", folder=folder, **environ)


EVERY_KIND = """
found = {}
for user in ("alice", "bob"):
    with budget_user(user):
        sent = [
            ask.delay(who=user),
            again.delay(who=user),
            fails_once.delay(who=user),
            chain(ask.s(who=user), ask.s(who=user), again.si(who=user)).apply_async(),
            group(ask.s(who=user) for _ in range(3)).apply_async(),
            chord([ask.s(who=user), ask.s(who=user)], ask.s(who=user)).apply_async(),
            ask.apply_async(kwargs={"who": user}, countdown=0.1),
        ]
        inner = fans_out.delay(who=user)
        failed = fails.apply_async(kwargs={"who": user}, link_error=ask.s(who=user))
        follows = ask.apply_async(kwargs={"who": user}, link=ask.s(who=user))
    found[user] = [one.get(timeout=240) for one in sent]
    found[user].append(app.AsyncResult(inner.get(timeout=240)).get(timeout=240))
    found[user].append(follows.get(timeout=240))
    try:
        failed.get(timeout=240)
    except ZeroDivisionError as error:
        found[user].append(str(error))
print(json.dumps(found))
"""
# ask 1, again 3, fails_once 2, chain 1 + 1 + 3, group 3, chord 3, later 1, inside 4, failed and its callback
# 2, one and what follows it 2
CALLS = 1 + 3 + 2 + 5 + 3 + 3 + 1 + 4 + 2 + 2


@pytest.mark.parametrize(
    ("queues", "pool"),
    [("redis", "prefork"), ("disk", "prefork"), ("redis", "threads"), ("redis", "solo")],
    indirect=["queues"],
)
def test_tasks_and_all_that_follows_are_paid_by_who_sent_them(
    queues: Queues, pool: str, in_program: InProgram, tmp_path: Path
) -> None:
    with worker(queues, tmp_path, "-P", pool, "-c", "2"):
        found = in_program(queues, BEGIN + EVERY_KIND)
        for user in ("alice", "bob"):
            a = user
            assert found[user] == [a, [a], a, [a], [a, a, a], a, a, a, a, "on purpose"]
        # Callbacks have no results to wait for.
        assert queues.provider.wait_count(2 * CALLS, timeout=240)
        assert queues.provider.wait_idle()
    assert queues.paid() == {"alice": CALLS, "bob": CALLS}


@on_redis
def test_a_task_that_nobody_sent_is_nobody_s_and_one_with_a_bad_header_is_refused(
    queues: Queues, in_program: InProgram, tmp_path: Path
) -> None:
    text = """
with budget_user("alice"):
    first = asked.delay(who="alice").get(timeout=240)
found = [first, asked.delay().get(timeout=240)]
for header in ("alice", {"user": 5}, {"user": "alice", "runs": [["user:bob", 1]]}, {"usr": "alice"}):
    found.append(asked.apply_async(headers={"budgetguard": header}).get(timeout=240))
of_bob = asked.apply_async(kwargs={"who": "bob"}, headers={"budgetguard": {"user": "bob"}})
found.append(of_bob.get(timeout=240))
print(json.dumps(found))
"""
    with worker(queues, tmp_path, "-c", "1"):
        missing = "MissingUserError"
        assert in_program(queues, BEGIN + text) == ["alice", missing, *[missing] * 4, "bob"]
        # What is nobody's the project may pay, and not that whose payer cannot be read.
        queues.guard.set_budget(1)
        assert in_program(queues, BEGIN + text) == ["alice", "None", *[missing] * 4, "bob"]
    log = (tmp_path / "worker.log").read_text()
    assert "a job's payer is an object of lost, runs, tags, user, not 'alice'" in log
    assert "user must be text, not 5" in log


@on_redis
def test_a_run_is_held_to_its_limit_by_workers_too_and_tags_travel(
    queues: Queues, in_program: InProgram, tmp_path: Path
) -> None:
    text = """
guard = default_guard()
with budget_user("alice"), budget_tags("nightly"), guard.budget(0.0001) as run:
    sent = [many.delay("alice", 10) for _ in range(3)]
    made = [one.get(timeout=240) for one in sent]
with budget_user("alice"):
    free = many.delay("alice", 10).get(timeout=240)
print(json.dumps([sum(made), float(run.spent), free]))
"""
    with worker(queues, tmp_path, "-c", "3"):
        made, spent, free = in_program(queues, BEGIN + text)
    assert 0 < made < 30
    assert spent <= 0.0001
    assert free == 10
    records = [one for one in queues.guard.calls() if one.state == "settled"]
    assert len(records) == made + free
    assert sum("nightly" in one.tags for one in records) == made


@pytest.mark.parametrize(
    "options", [("-c", "3"), ("-c", "3", "--max-tasks-per-child", "2")], ids=["kept", "renewed"]
)
def test_forked_workers_hold_and_settle_to_the_nano(
    queues: Queues, options: Any, in_program: InProgram, tmp_path: Path
) -> None:
    """The store was open before the pool forked, and children that end have settled all."""
    text = """
with budget_user("bob"):
    sent = [many.delay("bob", 3) for _ in range(12)]
print(json.dumps([sum(one.get(timeout=240) for one in sent), process.delay().get(timeout=240)]))
"""
    with worker(queues, tmp_path, *options) as parent:
        made, child = in_program(queues, BEGIN + text)
        assert child != parent.pid
    assert made == 36
    assert queues.paid() == {"bob": 36}
    balance = queues.guard.balance("bob")
    each = 10 * 150 + 3 * 600  # Nanos: $0.15 and $0.60 a million tokens
    assert (balance.spent_nanos, balance.held_nanos) == (36 * each, 0)


@on_redis
def test_a_child_that_is_killed_in_a_call_leaves_its_hold_to_who_sent_it(
    queues: Queues, in_program: InProgram, tmp_path: Path
) -> None:
    queues.provider._reply = Reply(hang=True)
    text = """
with budget_user("alice"):
    sent = ask.delay(who="alice")
print(json.dumps(process.delay().get(timeout=240)))
"""
    with worker(queues, tmp_path, "-c", "2") as parent:
        child = in_program(queues, BEGIN + text)
        assert queues.provider.wait_count(1)
        (hold,) = queues.guard.holds("alice")
        log = (tmp_path / "worker.log").read_text()
        assert "ForkPoolWorker" in log
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True, check=True
        )
        for pid in set(map(int, listed.stdout.split())) - {child}:
            os.kill(pid, signal.SIGKILL)
        give_up = time.monotonic() + 30
        while "WorkerLostError" not in log and time.monotonic() < give_up:
            time.sleep(0.05)
            log = (tmp_path / "worker.log").read_text()
        assert "WorkerLostError" in log
        assert [one.id for one in queues.guard.holds("alice")] == [hold.id]
        assert queues.guard.balance("alice").held > 0


@on_redis
def test_children_of_a_worker_that_was_started_inside_a_block_charge_nobody_by_accident(
    queues: Queues, in_program: InProgram, tmp_path: Path
) -> None:
    (tmp_path / "boot.py").write_text(
        """
import sys
from budgetguard import budget_user
from tests.beside.queues.tasks import app
with budget_user("bob"):
    app.worker_main(sys.argv[1:])
"""
    )
    text = """
with budget_user("alice"):
    mine = asked.delay(who="alice").get(timeout=240)
print(json.dumps([mine, asked.delay().get(timeout=240)]))
"""
    path = f"{tmp_path}{os.pathsep}{queues.environ['PYTHONPATH']}"
    queues.guard.set_budget(1)
    command = ("boot", "worker", "-c", "2", "--loglevel", "info")
    with queues.worker(*command, ready=" ready.", folder=tmp_path, PYTHONPATH=path):
        assert in_program(queues, BEGIN + text) == ["alice", "MissingUserError"]


@on_redis
def test_a_message_has_the_payer_and_no_secret(queues: Queues, in_program: InProgram) -> None:
    text = """
with budget_user("alice"), budget_tags("a", "b"), default_guard().budget(0.5):
    ask.delay(who="alice")
with app.connection() as connection:
    raw = connection.default_channel.client.lrange("celery", 0, -1)[0]
print(json.dumps(json.loads(raw)["headers"]["budgetguard"]))
"""
    payer = in_program(queues, BEGIN + text)
    ((account, limit),) = payer.pop("runs")
    assert account.startswith("run:")
    assert limit == 500_000_000
    assert payer == {"user": "alice", "tags": ["a", "b"]}


@on_redis
def test_what_is_done_in_this_process_is_paid_by_who_is_current(
    queues: Queues, in_program: InProgram
) -> None:
    text = """
from budgetguard import current_user
from budgetguard.integrations.celery import carry_payers
with budget_user("alice"):
    found = [ask.apply(kwargs={"who": "alice"}).get(), ask(who="alice")]
    app.conf.task_always_eager = True
    found.append(ask.delay(who="alice").get())
    with budget_user("bob"):
        found.append(ask.delay(who="bob").get())
    found.append(current_user())
found.append(current_user())
end = carry_payers()
end(); end()
try:
    other = __import__("budgetguard").Guard(store="memory://")
    carry_payers(other)
    carry_payers()
except ValueError as error:
    found.append(str(error).split(":")[0])
print(json.dumps(found))
"""
    found = in_program(queues, BEGIN + text)
    assert found[:-1] == ["alice", "alice", "alice", "bob", "alice", None]
    assert found[-1].startswith("payers are carried for <Guard")
