"""Jobs of RQ that make guarded calls, as the tests enqueue them."""

from __future__ import annotations

import asyncio
from typing import Any

from budgetguard import BudgetGuardError

from .calls import call


def ask(who: str = "") -> str | None:
    return call(who)


async def aask(who: str = "") -> str | None:
    return await asyncio.to_thread(call, who)


def asked(who: str = "") -> str:
    """Say how a call was refused, if it was."""
    try:
        return str(call(who))
    except BudgetGuardError as error:
        return type(error).__name__


def fails(who: str = "") -> None:
    call(who)
    raise ZeroDivisionError("on purpose")


def succeeded(job: Any, connection: Any, result: Any, *args: Any, **kwargs: Any) -> None:
    call(str(result))


def failed(job: Any, connection: Any, *args: Any, **kwargs: Any) -> None:
    call(job.kwargs["who"])
