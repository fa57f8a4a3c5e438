"""The end of the process: what is left is booked in every engine's store, however the process ends."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import TYPE_CHECKING

from budgetguard.engine.background import background

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

engines: weakref.WeakSet[Engine] = weakref.WeakSet()
"""Those that are finished at the end."""

_minded_in = 0


@atexit.register
def finish_at_exit() -> None:
    """Finish the calls that nobody goes on with, and send what is to be booked."""
    background.end()
    for engine in list(engines):
        engine.finish_left()
        engine.flush()


def mind_end() -> None:
    """Arrange that a process which ends without `atexit` is finished as well."""
    global _minded_in
    if _minded_in == os.getpid():
        return
    _minded_in = os.getpid()
    processes, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    billiard = sys.modules.get("billiard.process")  # Celery's multiprocessing, which shares the other's exits
    is_child = processes is not None and processes.parent_process() is not None
    if util is not None and (is_child or (billiard and billiard.current_process().name != "MainProcess")):
        util.Finalize(None, finish_at_exit, exitpriority=0)
    if (signals := sys.modules.get("celery.signals")) is not None:
        # The children of Celery's pool end without any exits.
        signals.worker_process_shutdown.connect(_finish_worker, weak=False)


def _finish_worker(**_: object) -> None:
    finish_at_exit()
