"""Values of `core` as JSON, for files and networks; `wire_types` reads them back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

from budgetguard.core.holds import Booked, Denied, Granted, Outdated, UnknownAccount, Unlimited
from budgetguard.core.usage import Usage

ANSWER: Final = "answer"
"""The field that says which of a store's answers a JSON object is."""

_ANSWERS: Final[Mapping[type, str]] = {
    Granted: "granted",
    Denied: "refused",
    Booked: "settled",
    UnknownAccount: "unknown",
    Unlimited: "unlimited",
    Outdated: "outdated",
}


class _Fields(dict[type, Callable[[Any], dict[str, Any]]]):
    """By type, what makes a dict of a value of it; made when a type is first seen."""

    def __missing__(self, kind: Any) -> Callable[[Any], dict[str, Any]]:
        self[kind] = dict if issubclass(kind, Mapping) else _fields_of(kind)
        return self[kind]


def _fields_of(kind: Any) -> Callable[[Any], dict[str, Any]]:
    names = [field.name for field in dataclasses.fields(kind)]
    if kind in _ANSWERS:
        return lambda value: {ANSWER: _ANSWERS[kind], **{name: getattr(value, name) for name in names}}
    values = attrgetter(*names)  # twice as fast
    return lambda value: dict(zip(names, values(value)))  # noqa: B905  # both are as long


_FIELDS: Final = _Fields({Usage: lambda usage: dict(usage.units)})


def plain(value: object) -> dict[str, Any]:
    """Return a dataclass of `core` as a dict of its fields, and a mapping as a dict.

    Raises:
        TypeError: a value that is neither.
    """
    return _FIELDS[type(value)](value)


# Values are trees: to look for circles would take a fifth of the time.
to_json: Final = json.JSONEncoder(default=plain, check_circular=False, separators=(",", ":")).encode
"""Write values as JSON, in ASCII: names may hold what UTF-8 cannot."""
