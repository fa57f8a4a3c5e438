"""What the processes of one run tell whoever started it: a line for each call that was refused, for each
SDK that they imported and that is not guarded, and for each address that was called around the guard.

Balances are the store's, which keeps no refusals. They go to a small file of the starter's own, a line
each in one append, so that a process that is killed loses none that it had written.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from budgetguard.events import Event, Hooks, Refused, Unguarded

logger = logging.getLogger("budgetguard")

VARIABLE: Final = "BUDGETGUARD_RUN_LOG"
"""Names the files, of this run and of those around it, separated as in PATH."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused call as its run keeps it: which account refused, whose call, to which model."""

    account: str
    user: str | None
    model: str


@dataclass(frozen=True, slots=True)
class GoneAround:
    """A provider's address that was called around the guard, or would have been, had it not been refused."""

    address: str
    refused: bool


def follow(hooks: Hooks) -> None:
    """Write down refusals and what goes around the guard from here on, if this process belongs to a run."""
    names = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]

    def write(event: Event) -> None:
        told: object
        if isinstance(event, Unguarded):
            told = {"address": event.address, "refused": event.refused}
        else:
            assert isinstance(event, Refused)
            told = [event.account, event.user, event.model]
        line = json.dumps(told).encode() + b"\n"
        for name in names:
            _append(name, line)

    if names:
        hooks.add(write, (Refused, Unguarded), all=True)


def read(path: Path) -> Iterator[Refusal | GoneAround | str]:
    """Yield what processes have written: refusals, addresses, and names of SDKs that are not guarded.

    A line that was cut off, or is none of ours, is passed over.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    for line in text.split("\n")[:-1]:
        try:
            told = json.loads(line)
            if isinstance(told, dict):
                yield GoneAround(**told)
            else:
                yield told if isinstance(told, str) else Refusal(*told)
        except (ValueError, TypeError):
            logger.warning("budgetguard: a line of %s cannot be read: %r", path, line)


def _append(name: str, line: bytes) -> None:
    try:
        # Not created here: once the starter has removed it, nobody asks any more.
        file = os.open(name, os.O_WRONLY | os.O_APPEND)
    except OSError:
        return
    try:
        os.write(file, line)
    finally:
        os.close(file)
