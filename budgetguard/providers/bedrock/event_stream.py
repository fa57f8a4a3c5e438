"""Bedrock's streams: AWS' binary frames, each with one of the model's own events in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, Final

from budgetguard.core.usage import Reported
from budgetguard.providers.body import EventReader, UsageAccumulator
from budgetguard.providers.coding import Coding
from budgetguard.providers.json import field

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"


def is_frames(response: Any) -> bool:
    """Whether a response says that it is a stream of AWS' frames."""
    kind: str = response.headers.get("content-type", "")
    return kind.strip().lower().startswith(CONTENT_TYPE)


class FrameReader(EventReader):
    """A reader of such a stream. Botocore undoes the frames: who can read the stream at all has it.

    Args:
        accumulator: what the events say, added up.
        encoding: the response's `content-encoding`, or what undoes it.
        complete: completes what was reported with what no answer counts.

    Raises:
        ImportError: there is no botocore.
    """

    def __init__(
        self,
        accumulator: UsageAccumulator,
        *,
        encoding: str | Coding = "",
        complete: Callable[[Reported], Reported] = lambda said: said,
    ) -> None:
        from botocore.eventstream import EventStreamBuffer

        super().__init__(accumulator, hide_usage=False, encoding=encoding, complete=complete)
        self._frames = EventStreamBuffer()

    def end(self) -> bytes:
        self.over = True
        return b""

    def _events(self, data: bytes) -> bytes:
        self._frames.add_data(data)
        for frame in self._frames:
            self._frame(frame)
        return data

    def _frame(self, frame: Any) -> None:
        if frame.headers.get(":message-type") in ("exception", "error"):
            self._accumulator.failed = self.broken = True
            return
        event = _event_of(frame.payload)
        if event is not None:
            self._accumulator.feed(event)
            self.broken = self.broken or field(event, "type") == "error"


def _event_of(payload: bytes) -> dict[str, Any] | None:
    """Return the model's event in a frame; None if there is none."""
    try:
        inner = json.loads(base64.b64decode(json.loads(payload)["bytes"]))
    except (ValueError, TypeError, KeyError):
        return None
    return inner if isinstance(inner, dict) else None
