"""What brings messages to one address: in order, again after longer and longer, until it is given up.

Each address has its own, so that one that is dead delays no other.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Final, Protocol

from budgetguard.alerts.wording import Message
from budgetguard.alerts.worker import Flush, Worker
from budgetguard.core.wording import count

MOST_WAITING: Final = 100
"""Messages that wait for one address; of more, the oldest are dropped."""
TRIES: Final = 8
RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 0.2

logger = logging.getLogger("budgetguard")


class Receiver(Protocol):
    """What takes messages: an `AlertAddress`."""

    @property
    def shown(self) -> str:
        """What it is called in the log, without secrets."""

    def send(self, message: Message) -> str:
        """Send a message; return why it was not taken, empty if it was."""


class Courier:
    """Brings messages to one address.

    Args:
        receiver: the address.
        retry: seconds until the first repetition; each further one waits twice as long.
        tries: how often a message is sent before it is given up, with all that wait behind it.
    """

    def __init__(self, receiver: Receiver, *, retry: float = RETRY_S, tries: int = TRIES) -> None:
        self.receiver = receiver
        self._retry = retry
        self._tries = tries
        self.begin()

    def begin(self) -> None:
        """Begin with nothing that waits, and no thread."""
        self._waiting: deque[tuple[str, Message]] = deque()
        self._failures = self._dropped = 0
        self._resumes = 0.0
        self._worker: Worker[tuple[str, Message]] = Worker("budgetguard-alert", self._work, self._wait)

    def put(self, about: str, message: Message) -> None:
        """Queue a message.

        Args:
            about: what it is about, for the log.
            message: what is sent.
        """
        self._worker.put((about, message))

    def hurry(self, patience: float, *, last: bool) -> Flush | None:
        """Have what waits sent at once; see `Worker.hurry`."""
        return self._worker.hurry(patience, last=last)

    @property
    def left(self) -> int:
        """How many messages wait."""
        return len(self._waiting) + self._worker.queued

    def _work(self, items: list[tuple[str, Message]], wish: Flush | None) -> None:
        for one in items:
            self._waiting.append(one)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
                self._dropped += 1
        self._send(at_once=wish is not None)
        while wish is not None and wish.last and self._waiting:
            if time.monotonic() + _LAST_RETRY_S >= wish.deadline:
                return
            time.sleep(_LAST_RETRY_S)
            self._send(at_once=True)

    def _send(self, *, at_once: bool) -> None:
        while self._waiting and (at_once or time.monotonic() >= self._resumes):
            about, message = self._waiting[0]
            problem = self.receiver.send(message)
            if not problem:
                self._waiting.popleft()
                self._failures = 0
                continue
            self._failures += 1
            self._resumes = time.monotonic() + self._retry * 2 ** (self._failures - 1)
            if self._failures >= self._tries:
                self._give_up(about, problem)
            return

    def _give_up(self, about: str, problem: str) -> None:
        others = len(self._waiting) - 1 + self._dropped
        logger.error(
            "budgetguard: an alert could not be sent to %s in %d tries and is given up: %s%s (%s)",
            self.receiver.shown,
            self._failures,
            about,
            f", and {count(others, 'other')}" if others else "",
            problem,
        )
        self._waiting.clear()
        self._failures = self._dropped = 0
        self._resumes = 0.0

    def _wait(self) -> float | None:
        return max(0.0, self._resumes - time.monotonic()) if self._waiting else None
