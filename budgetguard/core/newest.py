"""Keep the newest entries of a dictionary, whatever a signal handler does with it meanwhile."""

from __future__ import annotations

from typing import Any


def keep_newest(entries: dict[Any, Any], most: int) -> None:
    """Take out the oldest entries until there are `most`.

    The lock around the dictionary is re-entrant for signal handlers' sake, so one may change it between any
    two of these steps.
    """
    while len(entries) > most:
        try:
            del entries[next(iter(entries))]
        except (KeyError, RuntimeError, StopIteration):  # it was changed: look again
            continue
