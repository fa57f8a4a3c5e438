"""Labels: what is known of a call, and the accounts that are named by them.

A call carries values of labels: a user, a model, tags, and what the program adds. A scope says which calls
a budget is for: a pattern for each of one or several labels. In a pattern `*` stands for any text; alone it
stands for each value, each with an account of its own. `\\*` is a star itself.

    user=1234                   the account `user:1234`
    user=1234, model=gpt-5*     one account for all these models: `labels:model=gpt-5*&user=1234`
    customer=*                  an account for each customer, such as `customer:acme`

Several budgets may be for the same calls: they differ in what they count (`@unit`), in a span over which
they roll (`@rolling`), or in a name of their own (`@name`), and so do the names of their accounts:

    60 requests a minute        `labels:@unit=requests&user=1234`
    of all calls                `labels:@unit=requests`

Names cannot be made to look like each other: what stands before the first colon is one label, or the word
`labels`, which is none; after it, the values of several labels are percent-encoded, and only a pattern's
star is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import quote, unquote

from budgetguard.core.accounts import (
    COUNTING,
    PROCESS,
    PROJECT,
    ROLLING,
    RUN,
    SEVERAL,
    USD,
    Unit,
    account_name,
    check_id,
    unit_of,
)
from budgetguard.errors import ConfigurationError

Labels: TypeAlias = Mapping[str, tuple[str, ...]]
"""The values of each label that a call carries; most have one, tags may have many."""

KNOWN: Final = ("user", "team", "model", "provider", "endpoint", "key", "tag")
"""The labels that budgetguard gives calls; all others are the program's own."""

_OF_EVERY_CALL: Final = {
    "user": 'use budget_user("1234")',
    "model": "it is what the call names",
    "provider": "it follows from where the call goes",
    "endpoint": "it follows from what is called",
    "tag": 'use budget_tags("checkout")',
}
# Accounts of other kinds, and what verbs that take labels are told beside them.
_NOT_LABELS: Final = frozenset(
    (
        *(RUN, PROCESS, PROJECT, SEVERAL, "account", "budget", "view"),
        *("align", "allow", "amount", "by", "duration", "expires", "fallbacks", "forbid", "limit"),
        *("max_call_cost", "name", "on_limit", "reason", "rolling", "rollover", "starts_at", "timezone"),
        *("unit", "wait"),
    )
)
_NAMED: Final = "@name"
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


def check_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return the labels that a program gives its calls unchanged, if they can be.

    Raises:
        ConfigurationError: a bad name or value; or a label that every call has of itself.
    """
    for name, value in labels.items():
        if check_label(name) in _OF_EVERY_CALL:
            raise ConfigurationError(
                f"{name!r} is known of every call and cannot be said: {_OF_EVERY_CALL[name]}"
            )
        check_id(value, name=name)
    return labels


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
            ConfigurationError: too many labels, or what is no label or no value of one.
        """
        if len(patterns) > _MOST_LABELS:
            raise ConfigurationError(f"a budget is for at most {_MOST_LABELS} labels, not {len(patterns)}")
        for label, pattern in patterns.items():
            check_id(pattern, name=check_label(label))
        return cls(tuple(sorted(patterns.items())))

    @property
    def is_for_each(self) -> bool:
        """Whether each value of a label has an account of its own."""
        return any(pattern == "*" for _, pattern in self.parts)

    def account(self, *, unit: Unit = USD, rolling: str = "", name: str = "") -> str:
        """Return the name of the account, see the module.

        Args:
            unit: what its budget counts.
            rolling: the duration over which it rolls; empty for windows of the calendar.
            name: tells several budgets for the same calls apart.

        Raises:
            ConfigurationError: no label, and nothing else that names it.
        """
        marks: list[tuple[str, str]] = [(COUNTING, unit)] if unit != USD else []
        if rolling:
            marks.append((ROLLING, rolling))
        if name:
            marks.append((_NAMED, quote(name, safe="")))
        if not marks and len(self.parts) == 1:
            ((label, pattern),) = self.parts
            value = plain(pattern)
            if value is not None:
                return account_name(label, value)
        written = [*marks, *((label, _encoded(pattern)) for label, pattern in self.parts)]
        if not written:
            raise ConfigurationError("a budget of all calls is the project's: name the project")
        return account_name(SEVERAL, "&".join(f"{key}={value}" for key, value in written))


@dataclass(frozen=True, slots=True)
class Named:
    """What an account's name says."""

    scope: Scope
    unit: Unit = USD
    rolling: str = ""
    name: str = ""

    @property
    def is_marked(self) -> bool:
        """Whether more than labels tells its account from others."""
        return bool(self.unit != USD or self.rolling or self.name)

    @property
    def in_words(self) -> str:
        """The account as errors and alerts name it: `team 'red'`, or `model 'gpt-5*' and user '1234'`."""
        said = " and ".join(
            f"{label} {pattern!r}" if plain(pattern) is None else f"{label} {plain(pattern)!r}"
            for label, pattern in self.scope.parts
        )
        return (said or "the project") + (f" ({self.name})" if self.name else "")

    @property
    def account(self) -> str:
        """The name."""
        return self.scope.account(unit=self.unit, rolling=self.rolling, name=self.name)


def named_by(account: str) -> Named | None:
    """Return what an account's name says; None of a run, a process, a project, and of what is no name."""
    kind, _, rest = account.partition(":")
    if kind != SEVERAL:
        return None if kind in _NOT_LABELS or not rest else Named(Scope(((kind, literal(rest)),)))
    fields = dict(field.partition("=")[::2] for field in rest.split("&"))
    fields.pop(COUNTING, None)
    rolling, name = fields.pop(ROLLING, ""), unquote(fields.pop(_NAMED, ""))
    parts = ((label, _decoded(value)) for label, value in fields.items())
    return Named(Scope(tuple(sorted(parts))), unit_of(account), rolling, name)


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


def plain(pattern: str) -> str | None:
    """Return the value that a pattern alone matches; None if it matches others too."""
    pieces = tuple(_pieces(pattern))
    return None if any(star for star, _ in pieces) else "".join(text for _, text in pieces)


def _encoded(pattern: str) -> str:
    return "".join("*" if star else quote(text, safe="") for star, text in _pieces(pattern))


def _decoded(written: str) -> str:
    return "*".join(literal(unquote(text)) for text in written.split("*"))
