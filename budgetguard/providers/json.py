"""Read fields of an answer, whatever it is made of and whatever is in them. Nothing here raises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from budgetguard.tokens.requests import is_absent

_MOST_DIGITS: Final = 15


def parsed(answer: object) -> object:
    """Return an answer as it can be read: JSON text parsed (None if it is none), all else as it is."""
    if isinstance(answer, str | bytes | bytearray):
        try:
            return json.loads(answer)
        except ValueError:
            return None
    return answer


def field(value: Any, name: str) -> Any:
    """Return a field of an SDK object or a mapping; None if it is absent."""
    if value is None:
        return None
    try:
        # A call asks a hundred times, mostly plain dicts; asking Mapping takes longer than all else.
        mapping = type(value) is dict or isinstance(value, Mapping)
        found = value.get(name) if mapping else getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a property of somebody's class
        return None
    return None if found is None or is_absent(found) else found


def count(value: object) -> int | None:
    """Read a number, or text that spells one, rounded up; None if it is none or negative."""
    if isinstance(value, str):
        text = value.strip()
        plain = text.isascii() and text.replace(".", "", 1).isdigit() and len(text) <= _MOST_DIGITS
        value = (float(text) if "." in text else int(text)) if plain else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return math.ceil(value) if value >= 0 else None


def text(value: object) -> str | None:
    """Return a text that is not empty; None otherwise."""
    return value if isinstance(value, str) and value else None


def items(value: object) -> Iterable[object]:
    """Return the items of a list; none if it is no list."""
    return value if isinstance(value, list | tuple) else ()
