"""Read loose JSON: requests and answers, whether they are mappings or objects of somebody's SDK.

The one vocabulary for it. Only `whole`, `words` and `compact_json` raise: what they read is the
caller's to mend.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from budgetguard.errors import ConfigurationError

_MOST_DIGITS: Final = 15
# Looked up first, because nearly every value of every request is one of these.
_JSON_TYPES: Final = frozenset({str, int, float, bool, dict, list})
_PLAIN_TYPES: Final = _JSON_TYPES | {type(None)}


def parsed(answer: object) -> object:
    """Return an answer as it can be read: the JSON text of an object or a list parsed, all else as it is."""
    if not isinstance(answer, str | bytes | bytearray):
        return answer
    # Most of what is no JSON is long: recordings, pictures, transcripts.
    start = answer.lstrip()[:1]
    if start not in ("{", "[") if isinstance(start, str) else start not in (b"{", b"["):
        return answer
    try:
        return json.loads(answer)
    except ValueError:
        return answer


def is_absent(value: object) -> bool:
    """Whether a value stands for nothing: None, or an SDK's `NotGiven` or `Omit`."""
    kind = type(value)
    return value is None or (kind not in _JSON_TYPES and kind.__name__ in ("NotGiven", "Omit"))


def field(value: Any, name: str) -> Any:
    """Return a field of a mapping or an SDK object; None if it is absent, and of text, numbers and lists."""
    # A call asks a hundred times, mostly plain dicts; asking Mapping takes longer than all else.
    kind = type(value)
    if kind is dict:
        found = value.get(name)
    elif value is None or kind in _JSON_TYPES:
        return None
    else:
        try:
            found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        except Exception:  # noqa: BLE001 - a property of somebody's class
            return None
    kind = type(found)
    return None if kind not in _JSON_TYPES and kind.__name__ in ("NoneType", "NotGiven", "Omit") else found


def getter(value: Any) -> Callable[[str], Any]:
    """Return what looks up a field by its name, as `field` does: faster where many are asked for."""
    if type(value) is dict:
        return value.get
    more = None if value is None else getattr(value, "__pydantic_extra__", None)
    if type(more) is dict:
        return {**vars(value), **more}.get
    return partial(field, value)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return what should be a mapping as one, without fields that are absent.

    It is an SDK object dumped, and any other value as its `content`.
    """
    if isinstance(value, Mapping):
        for one in value.values():
            if type(one) not in _PLAIN_TYPES and is_absent(one):
                return {name: one for name, one in value.items() if not is_absent(one)}
        return value
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        dumped = dump(exclude_none=True)
        if isinstance(dumped, Mapping):
            return dumped
    return {} if is_absent(value) else {"content": str(value)}


def items(value: Any) -> Sequence[Any]:
    """Return the items of what should be a list; none of text, a mapping, or what is no sequence."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, str | bytes | bytearray | Mapping) or not isinstance(value, Sequence):
        return ()
    return value


def text(value: object) -> str | None:
    """Return a text that is not empty; None otherwise."""
    return value if isinstance(value, str) and value else None


def count(value: object) -> int | None:
    """Read a number, or text that spells one, rounded up; None if it is none or negative."""
    if isinstance(value, str):
        text = value.strip()
        plain = text.isascii() and text.replace(".", "", 1).isdigit() and len(text) <= _MOST_DIGITS
        value = (float(text) if "." in text else int(text)) if plain else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return math.ceil(value) if value >= 0 else None


def whole(body: Mapping[str, Any], name: str, *, least: int = 0, most: int | None = None) -> int | None:
    """Return a whole number that a request gives, None where it does not.

    Raises:
        ConfigurationError: it gives something else, or one out of range.
    """
    value = body.get(name)
    if value is None:
        return None
    if type(value) not in _JSON_TYPES and is_absent(value):
        return None
    if (
        most is not None
        and isinstance(value, str)
        and value.isascii()
        and value[: _MOST_DIGITS + 1].isdigit()
    ):
        value = int(value)  # as forms send it
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most or value) < value:
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{name} must be a whole number {span}, not {body[name]!r}")
    return value


def words(body: Mapping[str, Any], name: str) -> str:
    """Return a text that a request gives, empty where it does not.

    Raises:
        ConfigurationError: it gives something else.
    """
    value = field(body, name)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a text, not {type(value).__name__}")
    return value or ""


def compact_json(value: Any) -> str:
    """Return JSON without spaces; what JSON does not know is written as text.

    Raises:
        ConfigurationError: a value nested so deeply that no client can send it.
    """
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    except RecursionError:
        raise ConfigurationError(
            "a part of the request is nested too deeply to be sent; flatten its schema or content"
        ) from None
    except (TypeError, ValueError):
        return repr(value)
