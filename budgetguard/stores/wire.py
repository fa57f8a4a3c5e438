"""Values of `core` as JSON, for files and networks; `wire_types` reads them back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from budgetguard.core.holds import Granted, Refused, Settled, UnknownAccount, Unlimited
from budgetguard.core.usage import Usage

ANSWER: Final = "answer"
"""The field that says which of a store's answers a JSON object is."""

_ANSWERS: Final[Mapping[type, str]] = {
    Granted: "granted",
    Refused: "refused",
    Settled: "settled",
    UnknownAccount: "unknown",
    Unlimited: "unlimited",
}


def plain(value: object) -> Any:
    """Return a dataclass of `core` as a dict of its fields: the `default` of `json.dumps`.

    Raises:
        TypeError: a value that is no dataclass.
    """
    if isinstance(value, Usage):
        return dict(value.units)
    if isinstance(value, Mapping):
        return dict(value)
    kind: Any = type(value)
    found = {name: getattr(value, name) for name in _names(kind)}
    return {ANSWER: _ANSWERS[kind], **found} if kind in _ANSWERS else found


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
