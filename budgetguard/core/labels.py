"""Labels: what is known of a call, and the accounts that are named by them.

A call carries values of labels: a user, a model, tags, and what the program adds. A scope says which calls
a budget is for: a pattern for each of one or several labels. In a pattern `*` stands for any text; alone it
stands for each value, each with an account of its own. `\\*` is a star itself.

    user=1234                   the account `user:1234`
    user=1234, model=gpt-5*     one account for all these models: `labels:model=gpt-5*&user=1234`
    customer=*                  an account for each customer, such as `customer:acme`

Names cannot be made to look like each other: what stands before the first colon is one label, or the word
`labels`, which is none; after it, the values of several labels are percent-encoded, and only a pattern's
star is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Final, TypeAlias
from urllib.parse import quote, unquote

from budgetguard.core.accounts import PROCESS, PROJECT, RUN, account_name, check_id
from budgetguard.errors import ConfigurationError

Labels: TypeAlias = Mapping[str, tuple[str, ...]]
"""The values of each label that a call carries; most have one, tags may have many."""

KNOWN: Final = ("user", "team", "model", "provider", "endpoint", "key", "tag")
"""The labels that budgetguard gives calls; all others are the program's own."""

SEVERAL: Final = "labels"
"""What the names of accounts of several labels, of patterns, and of budgets beside the first begin with."""

_NOT_LABELS: Final = frozenset({RUN, PROCESS, PROJECT, SEVERAL, "account", "budget", "name", "unit"})
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PIECES: Final = re.compile(r"\\([\\*])|(\*)|([^\\*]+|\\)", re.DOTALL)
_MOST_LABELS: Final = 8


def check_label(name: str) -> str:
    """Return a label's name unchanged if it can be one.

    Raises:
        ConfigurationError: not 1 to 32 of a-z, 0-9 and _, beginning with a letter; or a word that accounts
            already have.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"a label is 1 to 32 characters of a-z, 0-9 and _, beginning with a letter, and {name!r} is not: "
            "write customer, or feature_2"
        )
    if name in _NOT_LABELS:
        raise ConfigurationError(f"{name!r} cannot be a label, budgetguard has that word: take another")
    return name


@dataclass(frozen=True, slots=True, order=True)
class Scope:
    """Which calls a budget is for.

    Attributes:
        parts: label and pattern, in the order of the labels' names.
    """

    parts: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, patterns: Mapping[str, str]) -> Scope:
        """Return the scope of some labels' patterns.

        Raises:
            ConfigurationError: no label, too many, or what is no label or no value of one.
        """
        if not 1 <= len(patterns) <= _MOST_LABELS:
            raise ConfigurationError(f"a budget is for 1 to {_MOST_LABELS} labels, not {len(patterns)}")
        for label, pattern in patterns.items():
            check_id(pattern, name=check_label(label))
        return cls(tuple(sorted(patterns.items())))

    @property
    def is_for_each(self) -> bool:
        """Whether each value of a label has an account of its own."""
        return any(pattern == "*" for _, pattern in self.parts)

    def within(self, labels: Labels) -> Iterator[Scope]:
        """Yield what a call with these labels is charged to: this, or one for each value it stands for."""
        found: list[list[tuple[str, str]]] = []
        for label, pattern in self.parts:
            carried = labels.get(label, ())
            if pattern == "*":
                found.append([(label, literal(value)) for value in dict.fromkeys(carried)])
            elif any(_compiled(pattern).fullmatch(value) for value in carried):
                found.append([(label, pattern)])
            else:
                return
        for parts in product(*found):
            yield Scope(parts)

    def account(self, *, unit: str = "usd", name: str = "") -> str:
        """Return the name of the account, see the module.

        Args:
            unit: what its budget counts.
            name: tells several budgets for the same calls apart.
        """
        (label, pattern), *more = self.parts
        plain = _plain(pattern)
        if not more and plain is not None and unit == "usd" and not name:
            return account_name(label, plain)
        marks = [("@name", quote(name, safe=""))] if name else []
        if unit != "usd":
            marks.append(("@unit", unit))
        written = [*marks, *((label, _encoded(pattern)) for label, pattern in self.parts)]
        return account_name(SEVERAL, "&".join(f"{key}={value}" for key, value in written))


@dataclass(frozen=True, slots=True)
class Named:
    """What an account's name says."""

    scope: Scope
    unit: str = "usd"
    name: str = ""


def named_by(account: str) -> Named | None:
    """Return what an account's name says; None of a run, a process, a project, and of what is no name."""
    kind, _, rest = account.partition(":")
    if kind != SEVERAL:
        return None if kind in _NOT_LABELS or not rest else Named(Scope(((kind, literal(rest)),)))
    fields = dict(field.partition("=")[::2] for field in rest.split("&"))
    name, unit = unquote(fields.pop("@name", "")), fields.pop("@unit", "usd")
    if not fields:
        return None
    parts = ((label, _decoded(value)) for label, value in fields.items())
    return Named(Scope(tuple(sorted(parts))), unit, name)


def literal(value: str) -> str:
    """Return the pattern that a value alone matches."""
    return value.replace("\\", "\\\\").replace("*", "\\*")


def matches(pattern: str, value: str) -> bool:
    """Whether a pattern matches a value, all of it."""
    return _compiled(pattern).fullmatch(value) is not None


def _pieces(pattern: str) -> Iterator[tuple[bool, str]]:
    """Yield the pieces of a pattern: whether it is a star that stands for any text, and the text."""
    for found in _PIECES.finditer(pattern):
        yield bool(found[2]), found[1] or found[2] or found[3]


@lru_cache(maxsize=1_024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(
        "".join(".*" if star else re.escape(text) for star, text in _pieces(pattern)), re.DOTALL
    )


def _plain(pattern: str) -> str | None:
    """Return the value that a pattern alone matches; None if it matches others too."""
    pieces = tuple(_pieces(pattern))
    return None if any(star for star, _ in pieces) else "".join(text for _, text in pieces)


def _encoded(pattern: str) -> str:
    return "".join("*" if star else quote(text, safe="") for star, text in _pieces(pattern))


def _decoded(written: str) -> str:
    return "*".join(literal(unquote(text)) for text in written.split("*"))
