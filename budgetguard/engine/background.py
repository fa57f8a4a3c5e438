"""One daemon thread for what may not happen where it was noticed: a finalizer's settlement, a retry.

Putting a job is safe inside a finalizer, where taking an ordinary lock could deadlock; the thread is
started beforehand, by whoever may need it. At exit the rest is done in the main thread, and what is left is
booked in every engine's store, however the process ends.

What is watched is mostly a stream, and a client's streams are reference cycles: one that a loop has left is
there until the garbage collector comes by, which in an idle program is never. So the thread also collects
garbage now and then, while something is watched for long and nothing else does.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextvars import Context
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TypeAlias

from budgetguard.core.process import inside

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

Job: TypeAlias = Callable[[], object]

logger = logging.getLogger("budgetguard")

_PATIENCE: Final = 10.0
_SHORT_PATIENCE: Final = 1.0
_LOOK_EVERY: Final = 5.0
_LOOK_AT_LEAST_EVERY: Final = 320.0
# Collecting garbage may take at most this part of the time: where a call waits for it, and where none does.
_SHARE: Final = 0.1
_IDLE_SHARE: Final = 0.02


class Dropped(weakref.ref[object]):
    """A job for a thing that has become garbage, as it stands in the queue.

    It is put there without Python code: a signal handler that raises inside a finalizer ends the finalizer
    and nothing else.

    Attributes:
        job: what is to be done then.
        key: under which it is watched, None if whoever made this keeps it.
    """

    __slots__ = ("job", "key")

    job: Job
    key: int | None


class Background:
    """Run jobs in order in a daemon thread of this process; a forked child begins with none.

    Attributes:
        queue: the jobs to run. What is put here runs soon.
    """

    def __init__(self) -> None:
        self.queue: SimpleQueue[Job | Dropped] = SimpleQueue()
        self._pid = 0
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._watched: dict[int, Dropped] = {}
        self._keys = count()
        self._looking = False
        # Keys below these were watched at the last look, and when garbage was collected last.
        self._known = self._surveyed = 0
        self._newest_collected = -1
        self._again_in = self._again_at = 0.0
        self._collections = 0
        self._collected_at = 0.0
        self._collecting_took = 0.0

    def start(self) -> None:
        """Start the thread if this process has none. Not for finalizers."""
        pid = os.getpid()
        if self._pid == pid:
            return
        with self._starting:
            if self._pid != pid:
                former, self._pid = self._pid, pid  # before it runs: a signal handler must not start another
                self._looking = False
                self._thread = threading.Thread(
                    target=self._work, args=(self.queue,), name="budgetguard", daemon=True
                )
                if not _start(self._thread):
                    self._pid = former

    def put(self, job: Job) -> None:
        """Queue a job to run soon; does nothing else, so finalizers may call it."""
        self.queue.put(job)

    def watch(self, thing: object, job: Job, key: int | None = None) -> Dropped:
        """Run a job once a thing is garbage, as long as what this returns is kept."""
        watching = Dropped(thing, self.queue.put)
        watching.job, watching.key = job, key
        return watching

    def when_dropped(self, thing: object, job: Job) -> Callable[[], bool]:
        """Run a job once a thing is garbage, or when the process ends.

        Returns a function that calls that off, and tells whether it was still to come.
        """
        self.start()
        key = next(self._keys)
        self._watched[key] = self.watch(thing, job, key)
        if not self._looking:
            self.put(_look_from_now_on)

        def call_off() -> bool:
            return self._watched.pop(key, None) is not None

        return call_off

    def after(self, seconds: float, job: Job) -> None:
        """Run a job in some seconds, if the process lives that long."""
        timer = threading.Timer(seconds, self.put, (job,))
        timer.daemon = True
        _start(timer)

    def collect(self) -> bool:
        """Collect garbage and run the jobs of what was watched; return whether it was done.

        Not again and again, while nothing new is watched: who is refused in a loop must not collect garbage
        all the time.
        """
        newest = max(list(self._watched), default=-1)
        again_at = self._collected_at + self._collecting_took / _SHARE
        if newest <= self._newest_collected and time.monotonic() < again_at:
            return False
        self._newest_collected = newest
        self._collect()
        self.finish(_SHORT_PATIENCE)
        return True

    def finish(self, patience: float = _PATIENCE) -> None:
        """Run what is still queued, and wait for the job under way, at most `patience` seconds."""
        if threading.current_thread() is self._thread or inside.store:
            return  # a job cannot wait for itself, nor a signal handler for one that needs what it interrupts
        if self._pid == os.getpid():
            done = threading.Event()
            self.put(done.set)
            done.wait(patience)
        while True:
            try:
                job = self.queue.get_nowait()
            except Empty:
                return
            self._run(job)

    def end(self) -> None:
        """Take what is watched for dropped, since the process ends, and finish."""
        for watching in list(self._watched.values()):
            self.queue.put(watching)
        self.finish()

    def _work(self, jobs: SimpleQueue[Job | Dropped]) -> None:
        while True:
            self._looking = False
            if self._watched:
                self._looking = True
            try:
                job = jobs.get(timeout=_LOOK_EVERY if self._looking else None)
            except Empty:
                self._look()
            else:
                self._run(job)
                del job  # it may keep what it was about

    def _run(self, job: Job | Dropped) -> None:
        if isinstance(job, Dropped):
            if job.key is not None and self._watched.pop(job.key, None) is None:
                return  # called off
            job = job.job
        try:
            job()
        except Exception:
            logger.exception("budgetguard: a job in the background failed")

    def _look(self) -> None:
        """Collect garbage if something is watched for long, and if nobody else has collected meanwhile."""
        watched, now = list(self._watched), time.monotonic()
        known, self._known = self._known, next(self._keys)
        collections = gc.get_stats()[-1]["collections"]
        idle, self._collections = collections == self._collections, collections
        fresh = any(self._surveyed <= key < known for key in watched)
        if not watched or not idle or not gc.isenabled() or not (fresh or now >= self._again_at):
            return
        if now < self._collected_at + self._collecting_took / _IDLE_SHARE:
            return
        self._collect()
        self._collections = gc.get_stats()[-1]["collections"]
        self._surveyed = known
        # What is still there is in use: it is looked at less and less often.
        self._again_in = _LOOK_EVERY if fresh else min(self._again_in * 2, _LOOK_AT_LEAST_EVERY)
        self._again_at = now + self._again_in

    def _collect(self) -> None:
        began = time.monotonic()
        gc.collect()
        self._collected_at = time.monotonic()
        self._collecting_took = self._collected_at - began


def _look_from_now_on() -> None:
    """Wake the thread up, so that it sees that something is watched."""


def _start(thread: threading.Thread) -> bool:
    # In a context of its own: whoever pays in the context that starts it does not pay in there.
    try:
        Context().run(thread.start)
    except RuntimeError:
        # The interpreter is shutting down and starts no more threads: what waits is done by `finish`.
        logger.debug("budgetguard: no thread could be started", exc_info=True)
        return False
    return True


background = Background()

# At exit `weakref` calls finalizers, those that close a store's files among them, from a hook that the
# first finalizer registers. Hooks run last in, first out: with a finalizer made here, ours runs before it.
weakref.finalize(background, logger.debug, "budgetguard: no background any more")
atexit.register(background.end)


def _renew() -> None:
    background._starting = threading.RLock()
    background.queue = SimpleQueue()
    background._looking = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


# The end of the process

engines: weakref.WeakSet[Engine] = weakref.WeakSet()
"""Those that are finished at the end."""

endings: list[Job] = []
"""What else is done at the end, after the engines."""

_minded_in = 0


@atexit.register
def finish_at_exit() -> None:
    """Finish the calls that nobody goes on with, and send what is to be booked."""
    background.end()
    for engine in list(engines):
        engine.finish_left()
        engine.flush()
    for job in endings:
        job()


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
