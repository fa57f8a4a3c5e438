"""Tasks of Celery that make guarded calls, as the tests send them; BROKER is a database of Valkey."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, chord, group

from budgetguard import BudgetExceededError, BudgetGuardError
from budgetguard.integrations.celery import carry_payers

from .calls import call

BROKER = os.environ["BROKER"]

app = Celery("jobs", broker=BROKER, backend=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    result_expires=600,
)
carry_payers()


@app.task
def ask(*_: Any, who: str = "") -> str | None:
    return call(who)


@app.task
def asked(who: str = "") -> str:
    """Say how a call was refused, if it was."""
    try:
        return str(call(who))
    except BudgetGuardError as error:
        return type(error).__name__


@app.task(bind=True, max_retries=2)
def again(self: Any, who: str = "") -> list[str | None]:
    """Call, and be tried again twice."""
    found = call(who)
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return [found]


@app.task(
    autoretry_for=(ZeroDivisionError,), max_retries=1, retry_backoff=False, default_retry_delay=0, bind=True
)
def fails_once(self: Any, who: str = "") -> str | None:
    found = call(who)
    if not self.request.retries:
        raise ZeroDivisionError
    return found


@app.task
def fails(who: str = "") -> None:
    call(who)
    raise ZeroDivisionError("on purpose")


@app.task
def fans_out(who: str = "") -> Any:
    """Send more tasks from a worker."""
    return chord(group(ask.s(who=who) for _ in range(3)), ask.s(who=who)).apply_async().id


@app.task
def many(who: str, calls: int) -> int:
    """Call until it is refused; return how often it was answered."""
    for made in range(calls):
        try:
            call(who)
        except BudgetExceededError:
            return made
    return calls


@app.task
def process() -> int:
    return os.getpid()
