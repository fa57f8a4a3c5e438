"""The audit trail: who changed which budget, how, when and why; one entry a change, as JSON text."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any, Final

from budgetguard.core.holds import Entry
from budgetguard.core.windows import Milliseconds, to_datetime

_numbers = count()
_KNOWN: Final = ("by", "action", "account", "reason", "key")


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the audit trail, read.

    Attributes:
        id: the entry's.
        by: who made the change, as the program or the system's user that made it is called.
        action: `set_budget`, `grant`, `top_up`, `reset`, `delete`, or `set_member`.
        account: whose budget.
        reason: why, as the person who made it said; may be empty.
        key: the name of the service's key by which it was made; empty where it was made on the store itself.
        details: what was changed, such as `limit` and `duration`.
    """

    id: str
    by: str
    action: str
    account: str
    reason: str = ""
    key: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def at(self) -> datetime:
        """When it was made."""
        return to_datetime(int(self.id[:12], 16))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "at": self.at.isoformat(),
            **{name: getattr(self, name) for name in _KNOWN},
            "details": dict(self.details),
        }


def entry_of(
    now: Milliseconds, action: str, account: str, *, by: str, reason: str = "", key: str = "", **details: Any
) -> Entry:
    """Return the entry of a change; see `Change`. Details that are None are left out."""
    said = {"by": by, "action": action, "account": account, "reason": reason, "key": key, **details}
    kept = {name: value for name, value in said.items() if value not in (None, "")}
    # Those of one process are in the order in which they were made, also within a millisecond.
    ident = f"{now:012x}{next(_numbers):08x}{os.urandom(6).hex()}"
    return Entry(ident, json.dumps(kept, separators=(",", ":")))


def change_of(entry: Entry) -> Change:
    """Return what an entry says; one that is not budgetguard's has no more than its text."""
    try:
        said = json.loads(entry.text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return Change(entry.id, "", "", "", details={"text": entry.text})
    known = {name: str(said.pop(name, "")) for name in _KNOWN}
    return Change(entry.id, details=said, **known)


def with_key(entry: Entry, key: str) -> Entry:
    """Return an entry that says by which key of the service the change was made, whatever it said before."""
    change = change_of(entry)
    said = {name: getattr(change, name) for name in _KNOWN} | {"key": key} | dict(change.details)
    kept = {name: value for name, value in said.items() if value != ""}
    return Entry(entry.id, json.dumps(kept, separators=(",", ":")))
