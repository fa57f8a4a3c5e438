"""`import budgetguard.auto`: put this program, and all that it starts, under one budget.

It does from inside what `budgetguard run` does from outside: `BUDGETGUARD_MAX_BUDGET` (USD) is what the
program and its processes may spend together, `BUDGETGUARD_USER` is who pays, and all other
`BUDGETGUARD_*` variables count as well. At the end a line on standard error says what was spent.
In a process that belongs to a run already, it guards the SDKs and leaves the rest to that run.

Raises:
    ConfigurationError: on import: a bad variable, or nothing limits the program.
    UnknownUserError: on import: the user has no budget.
    StoreError: on import: the store failed.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys

import budgetguard
from budgetguard.config import max_budget_of_environment
from budgetguard.engine import runlog
from budgetguard.engine.background import background
from budgetguard.errors import StoreError
from budgetguard.launch.run import RunOutcome, SharedRun
from budgetguard.providers.sdks import patch

__all__ = ["outcome"]

logger = logging.getLogger("budgetguard")

_run: SharedRun | None = None
_pid = os.getpid()


def outcome() -> RunOutcome | None:
    """Return what has come of this program's run so far, or None if the run is another process's.

    `sys.exit(outcome().status())` ends with 3 where calls were refused: what Python calls at exit cannot
    change the status, except by cutting off whatever else is still to be done.

    Raises:
        StoreError: the store failed.
    """
    if _run is None or os.getpid() != _pid:
        return None
    background.end()
    budgetguard.default_guard().flush()
    return _run.outcome(one.sdk for one in budgetguard.check() if not one.guarded)


def _begin() -> SharedRun | None:
    guard = budgetguard.default_guard()
    patch(guard.engine)
    made = None
    if not (guard.settings.runs and os.environ.get(runlog.VARIABLE)):
        made = SharedRun(guard, max_budget_of_environment())
        os.environ.update(made.variables())
        guard.configure(runs=made.runs)
        runlog.follow(guard.engine.hooks)
    return made


def _end() -> None:
    if _run is None or os.getpid() != _pid:
        return  # a forked child of the program: its parent tells
    try:
        sys.stderr.write(f"{outcome()}\n")
    except (StoreError, OSError, ValueError, AttributeError) as error:  # standard error may be gone
        logger.warning("budgetguard: what was spent cannot be said: %s", error)
    finally:
        _run.close()


_run = _begin()
atexit.register(_end)
