"""How large a realtime conversation is, as far as its events have shown it: its text, sound and pictures.

Items have a few tokens beside those of what is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.providers.json import compact_json, count, field, items, mapping, text
from budgetguard.providers.openai.lengths import HEARD_A_SECOND, SPOKEN_A_SECOND
from budgetguard.providers.openai.realtime.config import SessionConfig
from budgetguard.tokens.images import image_tokens
from budgetguard.tokens.text import count_text, encoding_for

_ITEM: Final = 6
_SESSION: Final = 12
# 16-bit samples at 24 kHz; G.711 has one byte at 8 kHz. Formats as the beta and the present API name them.
_PCM_RATE: Final = 48_000
_G711_RATE: Final = 8_000
_G711: Final = frozenset({"audio/pcmu", "audio/pcma", "g711_ulaw", "g711_alaw"})
_TEXTS: Final = ("text", "transcript")


@dataclass(frozen=True, slots=True)
class Size:
    """The tokens of a part of a conversation, by what they are made of."""

    text: int = 0
    audio: int = 0
    image: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.text + other.text, self.audio + other.audio, self.image + other.image)

    @property
    def total(self) -> int:
        """All of its tokens."""
        return self.text + self.audio + self.image


def added_up(sizes: Iterable[Size]) -> Size:
    """Return the size of them all."""
    return sum(sizes, Size())


def audio_ms(base64_length: int, audio_format: str) -> int:
    """Return how long base64-encoded sound lasts, in milliseconds, rounded up.

    Args:
        base64_length: characters, padding included.
        audio_format: such as `audio/pcm` or `g711_ulaw`.
    """
    rate = _G711_RATE if audio_format in _G711 else _PCM_RATE
    return -(-base64_length * 3 * 1_000 // (4 * rate))


def heard_tokens(milliseconds: int) -> int:
    """Return the tokens of sound that the model hears."""
    return -(-max(0, milliseconds) * HEARD_A_SECOND // 1_000)


def spoken_tokens(milliseconds: int) -> int:
    """Return the tokens of sound that the model makes."""
    return -(-max(0, milliseconds) * SPOKEN_A_SECOND // 1_000)


def session_size(instructions: object, tools: object, model: str) -> Size:
    """Return the size of what every response reads first: the instructions and the tools."""
    encoding = encoding_for(model)
    told = count_text(instructions, encoding) if isinstance(instructions, str) else 0
    offered = sum(count_text(compact_json(tool), encoding) + _ITEM for tool in items(tools))
    return Size(told + offered + _SESSION)


def item_size(item: object, model: str, audio_format: str) -> Size:
    """Return the size of a conversation item as a client makes it.

    Args:
        item: a message, a function call, its output, or any other item.
        model: decides how text and pictures become tokens.
        audio_format: of the sound in it.
    """
    made = mapping(item)
    encoding = encoding_for(model)
    if field(made, "content") is None:
        # Calls, their outputs, approvals, lists of tools: all that they hold, whatever it is called.
        held = [value for key, value in made.items() if key not in _MARKS and value is not None]
        words = (value if isinstance(value, str) else compact_json(value) for value in held)
        return Size(sum(count_text(word, encoding) for word in words) + _ITEM)
    content = made["content"]
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else items(content)
    return added_up(_part_size(mapping(part), model, audio_format) for part in parts) + Size(_ITEM)


_MARKS: Final = frozenset({"id", "type", "object", "status", "role", "call_id"})


def _part_size(part: Mapping[str, Any], model: str, audio_format: str) -> Size:
    audio = field(part, "audio")
    if isinstance(audio, str):
        return Size(audio=heard_tokens(audio_ms(len(audio), audio_format)))
    if (url := field(part, "image_url")) is not None:
        return Size(image=image_tokens(url, field(part, "detail"), model))
    texts = (field(part, name) for name in _TEXTS)
    return Size(sum(count_text(said, encoding_for(model)) for said in texts if isinstance(said, str)))


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
