"""What a budget asks for beside its limit: kept with its account as JSON text, and applied by clients.

The ledger does not read rules. It grants a hold only if the call was judged by those that are in force, so
what is decided by them here is as exact as the limit itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias, get_args

from budgetguard.core.labels import matches
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import ConfigurationError

OnLimit: TypeAlias = Literal["refuse", "shadow", "wait"]
ON_LIMIT: Final[tuple[OnLimit, ...]] = get_args(OnLimit)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a budget asks for beside its limit.

    Attributes:
        on_limit: what happens to a call that the limit has no room for: it is refused; let through, and
            noted (`shadow`); or it waits until there is room.
        wait_ms: for how long it waits at most, in milliseconds; then it is refused.
        fallbacks: the models that are tried instead of one that there is no room for, in their order.
        allow: patterns of the models that may be called; empty is all.
        forbid: patterns of models that may not be called.
        max_call: Nanos that one call may cost at most, as it is projected; None for no cap.
        template: the account's name of the budget "for each" that the account was made from.
    """

    on_limit: OnLimit = "refuse"
    wait_ms: Milliseconds = 0
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    max_call: Nanos | None = None
    template: str = ""

    @property
    def text(self) -> str:
        """The rules as JSON text; empty if they ask for nothing."""
        said = {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}
        return json.dumps(said, separators=(",", ":"), sort_keys=True) if said else ""

    def forbids(self, models: tuple[str, ...]) -> bool:
        """Whether a model, by any of its names, may not be called."""
        if any(matches(pattern, name) for pattern in self.forbid for name in models):
            return True
        return bool(self.allow) and not any(matches(one, name) for one in self.allow for name in models)

    def instead_of(self, models: tuple[str, ...]) -> tuple[str, ...]:
        """Return the models to try instead of one, which has these names."""
        return next((self.fallbacks[name] for name in models if name in self.fallbacks), ())


_DEFAULTS: Final[Mapping[str, Any]] = asdict(Rules())
_NAMES: Final = frozenset(one.name for one in fields(Rules))


@lru_cache(maxsize=4_096)
def read_rules(text: str) -> Rules:
    """Return the rules that a text says.

    Raises:
        ConfigurationError: it says what this version does not know, so that it cannot be kept.
    """
    if not text:
        return Rules()
    try:
        said = json.loads(text)
        if not isinstance(said, dict) or not said.keys() <= _NAMES:
            raise ValueError(text)
        said["fallbacks"] = {model: tuple(others) for model, others in said.get("fallbacks", {}).items()}
        rules = Rules(**{**said, **{name: tuple(said.get(name, ())) for name in ("allow", "forbid")}})
        if rules.on_limit not in ON_LIMIT:
            raise ValueError(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"a budget has rules that this budgetguard does not know ({text[:200]!r}), so no call is made on "
            "it: upgrade, or set the budget anew"
        ) from error
    return rules


@lru_cache(maxsize=4_096)
def read_labels(text: str) -> Mapping[str, str]:
    """Return the labels that are kept with a user's account.

    Raises:
        ConfigurationError: they are none.
    """
    if not text:
        return {}
    try:
        said = json.loads(text)
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise ValueError(text)
    except ValueError as error:
        raise ConfigurationError(
            f"a user's labels cannot be read ({text[:200]!r}): upgrade, or set them anew"
        ) from error
    return said


def labels_text(labels: Mapping[str, str]) -> str:
    """Return labels as JSON text; empty if there are none."""
    return json.dumps(dict(labels), separators=(",", ":"), sort_keys=True) if labels else ""
