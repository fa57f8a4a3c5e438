"""Scopes of a project: which kinds of budgets there are, so that a call finds the accounts it is charged to.

A budget for user 1234 and models gpt-5* has an account whose name follows from a call's labels once it is
known that some budget is for *a user and gpt-5\\**. So the project keeps one shape for all such budgets,
however many there are. Budgets for each value of a label are kept whole: they make accounts on first use.

All of it is one document, which changes when a budget of a new kind is set. A hold says by which revision of
it the call was judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any, Final

from budgetguard.core.accounts import USD, USER, Budget, Unit, unit_of
from budgetguard.core.labels import Labels, Named, Scope, literal, matches, named_by, plain
from budgetguard.core.process import keep_newest
from budgetguard.errors import ConfigurationError

_EACH: Final = "*"
_LITERAL: Final = ""
"""Stands in a shape for any one value; no pattern is empty."""
_MANY: Final = "tag"
"""The label of which each value counts; of others that have several, the last does where each is meant."""
_MOST_REMEMBERED: Final = 4_096


@dataclass(frozen=True, slots=True, order=True)
class _Shape:
    """What budgets have in common whose accounts' names differ only in values of labels."""

    parts: tuple[tuple[str, str], ...]
    unit: Unit = USD
    rolling: str = ""
    name: str = ""

    def accounts(self, labels: Labels) -> Iterator[str]:
        """Yield the names of the accounts of a call with these labels."""
        found: list[list[tuple[str, str]]] = []
        for label, pattern in self.parts:
            values = labels.get(label, ())
            if pattern == _EACH:
                values = values if label == _MANY else values[-1:]
            if pattern in (_EACH, _LITERAL):
                found.append([(label, literal(value)) for value in values])
            elif any(matches(pattern, value) for value in values):
                found.append([(label, pattern)])
            else:
                return
        for parts in product(*found):
            yield Scope(parts).account(unit=self.unit, rolling=self.rolling, name=self.name)


@dataclass(frozen=True)
class Scopes:
    """The kinds of budgets of a project.

    Attributes:
        shapes: of budgets whose accounts exist.
        templates: the budgets for each value, by the names of their accounts, which do not exist.
    """

    shapes: frozenset[_Shape] = frozenset()
    templates: Mapping[str, Budget] = field(default_factory=dict)
    _found: dict[Any, tuple[tuple[str, Budget | None], ...]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def units(self) -> frozenset[Unit]:
        """The units that any of them count."""
        return frozenset(one.unit for one in self.shapes) | {unit_of(name) for name in self.templates}

    def accounts(self, labels: Labels) -> tuple[tuple[str, Budget | None], ...]:
        """Return the accounts that a call with these labels may be charged to.

        Returns:
            Name, and the budget that makes the account if it does not exist; None where nothing does.
        """
        key = tuple(sorted(labels.items()))
        found = self._found.get(key)
        if found is None:
            named: dict[str, Budget | None] = dict.fromkeys(
                name for shape in sorted(self.shapes) for name in shape.accounts(labels)
            )
            for template, budget in self.templates.items():
                for name in _shape_of_template(template).accounts(labels):
                    named[name] = budget
            found = self._found[key] = tuple(named.items())
            if len(self._found) > _MOST_REMEMBERED:
                keep_newest(self._found, _MOST_REMEMBERED)
        return found

    def having(self, named: Named, budget: Budget) -> Scopes:
        """Return the scopes with those of one more budget; the same where it needs none."""
        if named.scope.is_for_each:
            return replace(self, templates={**self.templates, named.account: budget}, _found={})
        shape = _shape(named)
        if shape in self.shapes or shape == _SHAPE_OF_USERS or not (shape.parts or named.is_marked):
            return self
        return replace(self, shapes=self.shapes | {shape}, _found={})

    def without(self, template: str) -> Scopes:
        """Return the scopes without a budget for each value."""
        kept = {name: budget for name, budget in self.templates.items() if name != template}
        return replace(self, templates=kept, _found={})

    @property
    def text(self) -> str:
        """The scopes as JSON text."""
        said = {
            "shapes": [
                {"labels": dict(one.parts), "unit": one.unit, "rolling": one.rolling, "name": one.name}
                for one in sorted(self.shapes)
            ],
            "templates": {name: asdict(budget) for name, budget in sorted(self.templates.items())},
        }
        return json.dumps(said, separators=(",", ":"))


def read_scopes(text: str) -> Scopes:
    """Return the scopes that a text says.

    Raises:
        ConfigurationError: it says what this version does not know.
    """
    if not text:
        return Scopes()
    try:
        said = json.loads(text)
        shapes = frozenset(_read_shapes(said["shapes"]))
        return Scopes(shapes, {name: Budget(**budget) for name, budget in said["templates"].items()})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            "the project has budgets of kinds that this budgetguard does not know, so no call is made: "
            "upgrade it"
        ) from error


def _read_shapes(said: Iterable[Mapping[str, Any]]) -> Iterator[_Shape]:
    for one in said:
        parts = tuple(sorted(one["labels"].items()))
        yield _Shape(parts, one["unit"], one["rolling"], one["name"])


def _shape(named: Named) -> _Shape:
    parts = tuple(
        (label, pattern if plain(pattern) is None else _LITERAL) for label, pattern in named.scope.parts
    )
    return _Shape(parts, named.unit, named.rolling, named.name)


def _shape_of_template(name: str) -> _Shape:
    named = named_by(name)
    assert named is not None
    return _Shape(named.scope.parts, named.unit, named.rolling, named.name)


_SHAPE_OF_USERS: Final = _Shape(((USER, _LITERAL),))
"""Every call of a user is charged to the user's account, whatever scopes there are."""
