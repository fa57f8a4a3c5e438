"""How large the conversation of a realtime session is, as far as its events have shown it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from budgetguard.providers.json import count, field, items, text
from budgetguard.providers.openai.realtime.config import SessionConfig
from budgetguard.providers.openai.realtime.sizes import Size, added_up, heard_tokens, item_size, session_size


@dataclass(eq=False, slots=True)
class _Item:
    """An item that came after what the last usage counted.

    Attributes:
        id: None until the server has named it.
        kind: its type and role, by which the server's echo is told from that of another.
        size: its tokens.
    """

    id: str | None
    kind: tuple[str | None, str | None]
    size: Size


class Conversation:
    """The size of a conversation: what the last response was billed for, and what was added since.

    A response reads everything, and its usage counts everything; so what is counted here is only what came
    after the last one, and no error lasts for longer than a turn.

    Args:
        model: decides how text becomes tokens.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self._base = Size()
        self._base_session = Size()
        self._items: list[_Item] = []
        self._marks: dict[str, list[_Item]] = {}
        self._appended_ms = 0
        self._taken_ms = 0
        self._speech: list[int | None] = [None, None]

    @property
    def waiting_ms(self) -> int:
        """The sound in the input buffer, in milliseconds."""
        return self._appended_ms - self._taken_ms

    def appended(self, milliseconds: int) -> None:
        """Add sound that was sent to the input buffer."""
        self._appended_ms += milliseconds

    def cleared(self) -> None:
        """Empty the input buffer."""
        self._taken_ms = self._appended_ms

    def heard(self, event: Mapping[str, Any]) -> None:
        """Record when speech begins or ends in what was sent."""
        for at, name in enumerate(("audio_start_ms", "audio_end_ms")):
            if (milliseconds := count(event.get(name))) is not None:
                self._speech[at] = milliseconds

    def committed(self, item_id: str | None) -> int:
        """Turn the sound in the buffer into an item, and return how much it is, in milliseconds."""
        start, end = self._speech
        self._speech = [None, None]
        if start is not None and end is not None and self._taken_ms <= end <= self._appended_ms:
            length, self._taken_ms = min(end - start, end - self._taken_ms), end
        else:
            length = self.waiting_ms
            self.cleared()
        length = max(0, length)
        self._items.append(_Item(item_id, ("message", "user"), Size(audio=heard_tokens(length))))
        return length

    def sent(self, item: object, config: SessionConfig) -> None:
        """Add an item of the client's."""
        size = item_size(item, self.model, config.audio_in)
        self._items.append(_Item(text(field(item, "id")), _kind(item), size))

    def confirmed(self, item: object) -> None:
        """Name an item by the server's echo of it."""
        ident = text(field(item, "id"))
        if ident is None or any(one.id == ident for one in self._items):
            return
        for one in self._items:
            if one.id is None and one.kind == _kind(item):
                one.id = ident
                return

    def deleted(self, item_id: object) -> None:
        """Remove an item."""
        self._items = [one for one in self._items if one.id is None or one.id != item_id]

    def began(self, response_id: str) -> None:
        """Record what a response reads: all that the server has spoken of so far."""
        self._marks[response_id] = [one for one in self._items if one.id is not None]

    def ended(self, response_id: str, left: Size, config: SessionConfig) -> None:
        """Record the end of a response that read the conversation and added to it.

        Args:
            response_id: which.
            left: all that it read and made.
            config: the session's.
        """
        read = self._marks.pop(response_id, [])
        self._base, self._base_session = left, self._session(config)
        self._items = [one for one in self._items if one not in read]

    def ended_apart(self, response_id: str, made: Size) -> None:
        """Record the end of a response that read something else, and what it added to the conversation."""
        self._marks.pop(response_id, None)
        self._items.append(_Item(response_id, ("response", None), made))

    def size(self, config: SessionConfig, response: Mapping[str, Any], more_ms: int = 0) -> Size:
        """Return what a response will read.

        Args:
            config: the session's.
            response: what is asked of it, as in `response.create`.
            more_ms: sound that will be in the conversation by then, beyond what is.
        """
        told = session_size(
            response.get("instructions", config.instructions), response.get("tools", config.tools), self.model
        )
        given = response.get("input")
        shown = [item_size(one, self.model, config.audio_in) for one in items(given)]
        if isinstance(given, list | tuple) and not any(
            field(one, "type") == "item_reference" for one in given
        ):
            return told + added_up(shown)
        kept = added_up([self._base, *shown, *(one.size for one in self._items)])
        # What the base was told is in it: only what is more than that is new.
        more = max(0, told.text - self._base_session.text)
        return kept + Size(more, heard_tokens(more_ms))

    def _session(self, config: SessionConfig) -> Size:
        return session_size(config.instructions, config.tools, self.model)


def _kind(item: object) -> tuple[str | None, str | None]:
    return text(field(item, "type")), text(field(item, "role"))
