"""How many tokens a realtime conversation is: its text, its sound, its pictures.

Items have a few tokens beside those of what is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.providers.json import compact_json, field, items, mapping
from budgetguard.providers.openai.lengths import HEARD_A_SECOND, SPOKEN_A_SECOND
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
    text = count_text(instructions, encoding) if isinstance(instructions, str) else 0
    offered = sum(count_text(compact_json(tool), encoding) + _ITEM for tool in items(tools))
    return Size(text + offered + _SESSION)


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
        return Size(sum(count_text(text, encoding) for text in words) + _ITEM)
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
    return Size(sum(count_text(text, encoding_for(model)) for text in texts if isinstance(text, str)))
