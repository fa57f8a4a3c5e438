"""One daemon thread for what may not happen where it was noticed: a finalizer's settlement, a retry.

Putting a job is safe inside a finalizer, where taking an ordinary lock could deadlock; the thread is
started beforehand, by whoever may need it. At exit the rest is done in the main thread.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from contextvars import Context
from itertools import count
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

Job: TypeAlias = Callable[[], object]

logger = logging.getLogger("budgetguard")

_PATIENCE: Final = 10.0


class Background:
    """Run jobs in order in a daemon thread of this process; a forked child begins with none."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._pid = 0
        self._starting = threading.Lock()
        self._watched: dict[int, weakref.finalize[..., object]] = {}
        self._keys = count()

    def start(self) -> None:
        """Start the thread if this process has none. Not for finalizers."""
        if self._pid == os.getpid():
            return
        with self._starting:
            if self._pid != os.getpid():
                thread = threading.Thread(
                    target=self._work, args=(self._jobs,), name="budgetguard", daemon=True
                )
                if _start(thread):
                    self._pid = os.getpid()

    def put(self, job: Job) -> None:
        """Have a job run soon; does nothing but put it in a queue."""
        self._jobs.put(job)

    def when_dropped(self, thing: object, job: Job) -> Callable[[], bool]:
        """Have a job run when a thing is garbage, or when the process ends.

        Returns a function that calls that off, and tells whether it was still to come.
        """
        self.start()
        key = next(self._keys)
        finalizer = weakref.finalize(thing, self._dropped, key, job)
        finalizer.atexit = False  # `end` sees to it, while stores are still open
        self._watched[key] = finalizer

        def call_off() -> bool:
            self._watched.pop(key, None)
            return finalizer.detach() is not None

        return call_off

    def _dropped(self, key: int, job: Job) -> None:
        self._watched.pop(key, None)
        self._jobs.put(job)

    def after(self, seconds: float, job: Job) -> None:
        """Have a job run in some seconds, if the process lives that long."""
        timer = threading.Timer(seconds, self.put, (job,))
        timer.daemon = True
        _start(timer)

    def finish(self) -> None:
        """Do what is still waiting, and wait for the job under way, at most some seconds."""
        if self._pid == os.getpid():
            done = threading.Event()
            self.put(done.set)
            done.wait(_PATIENCE)
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            _run(job)

    def end(self) -> None:
        """Take what is watched for dropped, since the process ends, and finish."""
        for finalizer in list(self._watched.values()):
            finalizer()
        self.finish()

    @staticmethod
    def _work(jobs: SimpleQueue[Job]) -> None:
        while True:
            _run(jobs.get())


def _start(thread: threading.Thread) -> bool:
    # In a context of its own: whoever pays in the context that starts it does not pay in there.
    try:
        Context().run(thread.start)
    except RuntimeError:
        # The interpreter is shutting down and starts no more threads: what waits is done by `finish`.
        logger.debug("budgetguard: no thread could be started", exc_info=True)
        return False
    return True


def _run(job: Job) -> None:
    try:
        job()
    except Exception:
        logger.exception("budgetguard: a job in the background failed")


background = Background()

# At exit `weakref` calls finalizers, those that close a store's files among them, from a hook that the
# first finalizer registers. Hooks run last in, first out: with a finalizer made here, ours runs before it.
weakref.finalize(background, logger.debug, "budgetguard: no background any more")
atexit.register(background.end)


def _renew() -> None:
    background._starting = threading.Lock()
    background._jobs = SimpleQueue()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
