"""RQ with a real worker on a real Valkey: who pays for jobs, also when they are tried again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from .conftest import Queues

pytest.importorskip("rq")

InProgram = Callable[..., Any]
on_redis = pytest.mark.parametrize("queues", ["redis"], indirect=True)
BEGIN = """
import json, os
from redis import Redis
from rq import Queue, Retry
from budgetguard import budget_tags, budget_user, default_guard
from budgetguard.integrations.rq import BudgetJob
from tests.beside.queues import jobs
connection = Redis.from_url(os.environ["BROKER"], socket_timeout=300)
queue = Queue("default", connection=connection, job_class=BudgetJob)

def result(job, timeout=240):
    found = job.latest_result(timeout=timeout)
    return found.return_value if found.type == found.Type.SUCCESSFUL else found.type.name

"""


def worker(queues: Queues, folder: Path, *options: str) -> AbstractContextManager[Any]:
    command = ["tests.beside.queues.rq_worker", "worker", "--url", queues.broker, *options]
    return queues.worker(*command, ready="Listening on default", folder=folder)


# ask and its callback 2, aask 1, three tries of fails and a callback each 6, what depends on ask 1, many 1
CALLS = 2 + 1 + 6 + 1 + 1
PAYING = ("--job-class", "budgetguard.integrations.rq.BudgetJob")


@pytest.mark.parametrize(
    ("queues", "kind"),
    [("redis", "Worker"), ("disk", "Worker"), ("redis", "SimpleWorker")],
    indirect=["queues"],
)
def test_jobs_and_what_follows_are_paid_by_who_enqueued_them(
    queues: Queues, kind: str, in_program: InProgram, tmp_path: Path
) -> None:
    text = """
found = {}
for user in ("alice", "bob"):
    with budget_user(user):
        sent = [
            queue.enqueue(jobs.ask, who=user, on_success=jobs.succeeded),
            queue.enqueue(jobs.aask, who=user),
            queue.enqueue(jobs.fails, who=user, retry=Retry(max=2), on_failure=jobs.failed),
        ]
        sent.append(queue.enqueue(jobs.ask, who=user, depends_on=sent[0]))
        sent += queue.enqueue_many([Queue.prepare_data(jobs.ask, kwargs={"who": user})])
    found[user] = [result(job) for job in sent]
print(json.dumps(found))
"""
    with worker(queues, tmp_path, *PAYING, "--worker-class", f"rq.worker.{kind}"):
        found = in_program(queues, BEGIN + text)
        for user in ("alice", "bob"):
            assert found[user][:2] + found[user][3:] == [user] * 4
            assert found[user][2] in ("FAILED", "RETRIED")
        # Each of three tries of what fails calls, and so does its callback.
        assert queues.provider.wait_count(2 * CALLS, timeout=240)
        assert queues.provider.wait_idle()
    assert queues.paid() == {"alice": CALLS, "bob": CALLS}


@on_redis
def test_runs_tags_and_unreadable_payers(queues: Queues, in_program: InProgram, tmp_path: Path) -> None:
    text = """
guard = default_guard()
with budget_user("alice"), budget_tags("nightly"), guard.budget(0.00002) as run:
    one = queue.enqueue(jobs.asked, who="alice")
    two = queue.enqueue(jobs.asked, who="alice")
    meta = connection.hgetall(one.key)
found = [sorted([result(one), result(two)]), one.meta["budgetguard"], run.spent > 0]
found.append(result(queue.enqueue(jobs.asked)))
for payer in ("alice", {"user": 5}):
    found.append(result(queue.enqueue(jobs.asked, who="alice", meta={"budgetguard": payer, "mine": 1})))
print(json.dumps(found))
"""
    queues.guard.set_budget(1)
    with worker(queues, tmp_path, *PAYING):
        both, payer, spent, nobody, *unreadable = in_program(queues, BEGIN + text)
    assert both == ["BudgetExceededError", "alice"]
    assert spent
    ((account, limit),) = payer.pop("runs")
    assert account.startswith("run:")
    assert limit == 20_000
    assert payer == {"user": "alice", "tags": ["nightly"]}
    assert nobody == "None"
    assert unreadable == ["MissingUserError"] * 2


@on_redis
def test_a_worker_of_another_class_does_the_job_as_nobody_s(
    queues: Queues, in_program: InProgram, tmp_path: Path
) -> None:
    text = """
with budget_user("alice"):
    job = queue.enqueue(jobs.asked, who="alice")
print(json.dumps(result(job)))
"""
    with worker(queues, tmp_path):
        assert in_program(queues, BEGIN + text) == "MissingUserError"
