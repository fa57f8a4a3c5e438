"""Count Claude's tokens with the package `ctok`, where it is installed; it needs Python 3.12.

It is a reconstruction of the tokenizer, and counts English and code exactly: https://pypi.org/project/ctok
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

# It counts about 100 000 characters a second. Of longer texts parts are counted, and the rest in proportion.
_MOST_COUNTED: Final = 12_000
_PARTS: Final = 4
_REMEMBERED: Final = 512

_lock = threading.RLock()


def counter(version: str) -> Callable[[str], int] | None:
    """Return what counts a text's tokens with `ctok`, None where that is not installed.

    Args:
        version: of Claude, as `ctok` names it.
    """
    return _counter(version)


def is_long(text: str) -> bool:
    """Whether a text is too long to be counted as a whole."""
    return len(text) > _MOST_COUNTED


def parts_of(text: str) -> list[str]:
    """Return parts from all over a long text, together as long as may be counted."""
    each = _MOST_COUNTED // _PARTS
    apart = (len(text) - each) // (_PARTS - 1)
    return [text[at * apart : at * apart + each] for at in range(_PARTS)]


@lru_cache(maxsize=8)
def _counter(version: str) -> Callable[[str], int] | None:
    if find_spec("ctok") is None:
        return None
    try:
        ctok: Any = import_module("ctok")
        with _lock:  # it loads its vocabulary with the first count
            frame = int(ctok.token_count("a", version)) - 1
    except Exception:  # noqa: BLE001 - another version of it than is known here: the multiples are good enough
        return None

    @lru_cache(maxsize=_REMEMBERED)
    def count(text: str) -> int:
        with _lock:  # its own caches are not made for threads
            return max(0, int(ctok.token_count(text, version)) - frame)

    return count


def _renew_lock() -> None:
    # A thread of the parent may have held the lock at the fork; in the child nobody would release it.
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
