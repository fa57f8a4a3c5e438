"""Engines of stores: for each, a budgetguard store and the fastest way that its engine has for the same.

An engine is one module here with:

    NAME      what `--engine` calls it.
    FLOOR     one line: what the floor does, so that the ratio can be judged.
    opened    a context manager, given a number of users, that yields a `Pair` and cleans up after it;
              raises `Unavailable` where the machine has not what it needs, saying how to get it.

and one entry in `NAMES`. Modules are imported when they are asked for, with the drivers they need.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Protocol, cast

from budgetguard.stores import Store

NAMES: Final = ("disk", "redis", "postgres", "hosted")

PROJECT: Final = "p"
LIMIT: Final = 10**15
"""Nanos: what every user may spend, so that no call is ever refused."""
AMOUNT: Final = 1_000
COST: Final = 500


class Unavailable(Exception):
    """A server or a driver is missing on this machine; the text says how to get it."""


@dataclass(frozen=True)
class Pair:
    """What is measured side by side.

    Attributes:
        store: a store of project PROJECT with the accounts `user:0` to `user:{users - 1}`, limit LIMIT.
        floor: given a user's number, set AMOUNT aside if it is there, then book COST: two round trips or
            two commits with the durability that the store has, on raw rows that the engine keeps itself.
            It raises if a step changed nothing.
    """

    store: Store
    floor: Callable[[int], None]


class Engine(Protocol):
    """The function that each module of this package has."""

    NAME: str
    FLOOR: str

    def opened(self, users: int) -> AbstractContextManager[Pair]:
        """Make both sides with that many users."""


def engine(name: str) -> Engine:
    """Import an engine by its name."""
    return cast(Engine, import_module(f"engines.{name}"))
