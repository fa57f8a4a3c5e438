"""What all answers of the test server share: server-sent events, the time, ids of tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.provider.reply import Draft


@dataclass(frozen=True, slots=True)
class Event:
    """Hold one server-sent event.

    Attributes:
        data: the payload.
        choice: whose content it carries, or None if it carries none.
    """

    data: bytes
    choice: int | None = None


def call_id(draft: Draft, choice: int, slot: int) -> str:
    """Return the id of a tool call."""
    return f"call_{draft.number:06d}_{choice}_{slot}"


def sse(payload: Mapping[str, Any], *, name: str | None = None, choice: int | None = None) -> Event:
    """Write an event."""
    data = json.dumps(payload, separators=(",", ":")).encode()
    prefix = f"event: {name}\n".encode() if name else b""
    return Event(prefix + b"data: " + data + b"\n\n", choice)
