"""Turn an estimate of input tokens into a bound, for those who may not spend a cent too much.

A token of a byte-level encoding is at least one byte long, so text never has more tokens than bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.providers.json import compact_json, field, is_absent, items, mapping
from budgetguard.tokens.models import is_counted_exactly

# What OpenAI renders for the model in ways that are not public, so that its tokens are only estimated.
_RENDERED: Final = ("tools", "functions", "response_format", "text", "tool_choice", "function_call")
_RENDERED_IN_MESSAGES: Final = ("tool_calls", "function_call")
# Pictures, sounds and files, which are no text and are not billed as such.
_MEDIA: Final = frozenset({"image_url", "input_audio", "file_data", "audio", "data"})


def input_reserve(body: Mapping[str, Any], model: str) -> int:
    """Return the input tokens to set aside on top of the estimate, so that text cannot be billed more.

    For OpenAI's models, whose encodings are public, one for each UTF-8 byte of what is rendered in ways
    that are not: tools, schemas, earlier calls of tools. For other models, one for each byte of all text.
    Pictures, sounds, files, hosted tools and what the provider keeps are not covered.

    Args:
        body: the request.
        model: the model's name.
    """
    if not is_counted_exactly(model):
        return _bytes(body)
    total = sum(_bytes(field(body, name)) for name in _RENDERED)
    for name in ("messages", "input"):
        for message in items(field(body, name)):
            if isinstance(message, str | int | bytes):
                continue
            plain = mapping(message)
            total += sum(_bytes(field(plain, inner)) for inner in _RENDERED_IN_MESSAGES)
            if str(field(plain, "type") or "message") != "message":
                total += _bytes(plain)  # an item of a response: a call, its output, reasoning
    return total


def _bytes(value: Any) -> int:
    """Return the UTF-8 bytes of all text in a value, names of fields included."""
    if is_absent(value):
        return 0
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        return _bytes(compact_json(value.model_json_schema()))
    if isinstance(value, Mapping) or hasattr(value, "model_dump"):
        plain = mapping(value)
        # Two for the marks around a field.
        return sum(
            _bytes(str(name)) + 2 + _bytes(inner) for name, inner in plain.items() if name not in _MEDIA
        )
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray):
        return sum(_bytes(one) + 1 for one in value)
    return len(str(value))
