"""What the adapters of images, audio and video share: how a request's own measures are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from budgetguard.errors import ConfigurationError
from budgetguard.tokens.requests import given
from budgetguard.tokens.text import count_text, encoding_for


def whole(body: Mapping[str, Any], name: str, default: int, *, least: int, most: int) -> int:
    """Return a whole number of the request; text that spells one counts, as forms send it.

    Raises:
        ConfigurationError: it is none, or out of range.
    """
    value = given(body, name)
    if value is None:
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return value


def text(body: Mapping[str, Any], name: str) -> str:
    """Return a text of the request, empty if it is absent.

    Raises:
        ConfigurationError: it is no text.
    """
    value = given(body, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a text, not {type(value).__name__}")
    return value


def tokens(words: str, model: str) -> int:
    """Count the tokens of a text for a model."""
    return count_text(words, encoding_for(model)) if words else 0
