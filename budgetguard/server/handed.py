"""What /get_budget has handed out, for clients that drop the view they were given.

Remembered as long as there is room for it: by bytes, as a record may have many models; for each project
apart, so that one that reads much does not make others forget.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any, Final

_EACH: Final = 8 * 2**20
"""Bytes of one project's records."""

_TOTAL: Final = 64 * 2**20
_OVERHEAD: Final = 500


class Handed:
    """Remember records by project, user and when they say they were updated."""

    def __init__(self, each: int = _EACH, total: int = _TOTAL) -> None:
        self._each = each
        self._total = total
        self._lock = threading.Lock()
        self._size = 0
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._projects: dict[str, OrderedDict[tuple[str, object], bytes]] = {}

    def get(self, project: str, user: str, updated: object) -> dict[str, Any] | None:
        """Return a record, if it is remembered."""
        with self._lock:
            here = self._projects.get(project)
            found = None if here is None else here.get((user, updated))
        record: dict[str, Any] | None = None if found is None else json.loads(found)
        return record

    def put(self, project: str, user: str, updated: object, record: dict[str, Any]) -> None:
        """Remember a record, and forget the oldest of the project's, and the project read longest ago."""
        text = json.dumps(record, separators=(",", ":")).encode()
        with self._lock:
            here = self._projects.setdefault(project, OrderedDict())
            before = here.pop((user, updated), None)
            self._grow(project, len(text) + _OVERHEAD if before is None else len(text) - len(before))
            here[user, updated] = text
            while self._sizes[project] > self._each:
                _, gone = here.popitem(last=False)
                self._grow(project, -len(gone) - _OVERHEAD)
            while self._size > self._total:
                longest_ago, size = self._sizes.popitem(last=False)
                del self._projects[longest_ago]
                self._size -= size

    def _grow(self, project: str, size: int) -> None:
        self._sizes[project] = self._sizes.get(project, 0) + size
        self._sizes.move_to_end(project)
        self._size += size
