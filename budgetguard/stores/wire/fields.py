"""Take the fields of JSON objects one by one, each checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from reprlib import Repr
from typing import Any, Final, TypeVar

from budgetguard.core.money import MAX_NANOS
from budgetguard.core.usage import Usage
from budgetguard.errors import ConfigurationError

T = TypeVar("T")

LATEST: Final = 253_402_300_799_999
"""The end of the year 9999 in milliseconds: what `datetime` can still show."""

LONGEST: Final = 10_000
"""Characters of a text, and items of a list, that are still taken."""


class Fields:
    """Take the fields of a JSON object one by one, each checked; what is left over is a mistake.

    Args:
        value: what should be an object.
        name: what it is, for errors' texts.

    Raises:
        ConfigurationError: here and in every method: what is wrong, by name.
    """

    def __init__(self, value: object, name: str) -> None:
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{name} must be a JSON object, not {shown(value)}")
        self._left = dict(value)
        self._name = name

    def take(self, key: str) -> Any:
        """Return a field as it is."""
        if key not in self._left:
            raise ConfigurationError(f"{self._name}.{key} is missing")
        return self._left.pop(key)

    def maybe(self, key: str, read: Callable[[str], T]) -> T | None:
        """Return None for null, else what `read` makes of the field."""
        if self._left.get(key, ...) is None:
            del self._left[key]
            return None
        return read(key)

    def text(self, key: str) -> str:
        """Return a text."""
        return read_text(self.take(key), f"{self._name}.{key}")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple(read_text(one, f"{self._name}.{key}") for one in self.list(key))

    def number(self, key: str, most: int) -> int:
        """Return a whole number from 0 to `most`."""
        return read_number(self.take(key), f"{self._name}.{key}", most)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self.take(key)
        if not isinstance(value, bool):
            raise ConfigurationError(f"{self._name}.{key} must be true or false, not {shown(value)}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        """Return one of some texts."""
        value = self.take(key)
        if value not in choices:
            known = ", ".join(map(repr, choices))
            raise ConfigurationError(f"{self._name}.{key} must be one of {known}, not {shown(value)}")
        return value

    def list(self, key: str) -> list[Any]:
        """Return a list."""
        value = self.take(key)
        if not isinstance(value, list) or len(value) > LONGEST:
            raise ConfigurationError(
                f"{self._name}.{key} must be a list of at most {LONGEST}, not {shown(value)}"
            )
        return value

    def usage(self, key: str) -> Usage:
        """Return counts of units."""
        value = self.take(key)
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{self._name}.{key} must be a JSON object, not {shown(value)}")
        return Usage({name: read_number(count, f"{key}.{name}", MAX_NANOS) for name, count in value.items()})

    def end(self) -> None:
        """Refuse what is left over."""
        if self._left:
            unknown = ", ".join(sorted(str(name)[:_SHOWN] for name in islice(self._left, _NAMED)))
            unknown += f" and {len(self._left) - _NAMED} more" if len(self._left) > _NAMED else ""
            raise ConfigurationError(f"{self._name} has unknown fields: {unknown}")


def read_text(value: object, name: str) -> str:
    """Return a value that is a text of bearable length; `name` is for the error's text."""
    if not isinstance(value, str) or len(value) > LONGEST:
        raise ConfigurationError(f"{name} must be text of at most {LONGEST} characters, not {shown(value)}")
    return value


def read_number(value: object, name: str, most: int) -> int:
    """Return a value that is a whole number from 0 to `most`; `name` is for the error's text."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ConfigurationError(f"{name} must be a whole number from 0 to {most}, not {shown(value)}")
    return value


def shown(value: object) -> str:
    """Write a wrong value for people, shortened."""
    # A part of it: to write all of a long list for an error would take longer than to refuse it.
    text = repr(value[: _SHOWN + 1]) if isinstance(value, str) else _BRIEF.repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_SHOWN: Final = 60
_NAMED: Final = 10
_BRIEF: Final = Repr()
_BRIEF.maxlevel = 3
_BRIEF.maxother = _BRIEF.maxlong = _BRIEF.maxstring = 2 * _SHOWN
