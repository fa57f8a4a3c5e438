"""RQ: who pays travels with a job, from where it is enqueued to the worker that does it.

    queue = Queue(connection=redis, job_class=BudgetJob)
    $ rq worker --job-class budgetguard.integrations.rq.BudgetJob

The user, tags and runs around `enqueue` and the like are put into the job's `meta`, and are current while a
worker does the job: also when it is tried again, and in its callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import budgetguard
from budgetguard.engine.carrying import KEY, enter_packed, packed_payer
from budgetguard.engine.engine import Engine

try:
    from rq.job import Job
except ImportError as error:
    raise ImportError("budgetguard.integrations.rq needs RQ: pip install rq") from error


class BudgetJob(Job):
    """A job that is paid by who enqueued it; calls are those of the default guard.

    Queues and workers need it as their `job_class`. A worker without it does the job as nobody's.
    """

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> BudgetJob:
        """Make a job, and note who pays for it."""
        job: BudgetJob = super().create(*args, **kwargs)
        packed = packed_payer(_engine())
        if packed is not None:
            job.meta = {**job.meta, KEY: packed}
        return job

    def perform(self) -> Any:
        """Do the job; who enqueued it pays."""
        return self._paid(super().perform)()

    @property
    def success_callback(self) -> Any:
        """What is called when the job is done."""
        return self._paid(super().success_callback)

    @property
    def failure_callback(self) -> Any:
        """What is called when the job has failed."""
        return self._paid(super().failure_callback)

    @property
    def stopped_callback(self) -> Any:
        """What is called when the job was stopped."""
        return self._paid(super().stopped_callback)

    def _paid(self, function: Callable[..., Any] | None) -> Any:
        packed = self.meta.get(KEY)
        if function is None or packed is None:
            return function

        def paid(*args: Any, **kwargs: Any) -> Any:
            with closing(enter_packed(packed, _engine())):
                return function(*args, **kwargs)

        return paid


def _engine() -> Engine:
    return budgetguard.default_guard().engine
