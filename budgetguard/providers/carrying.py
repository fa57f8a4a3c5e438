"""Carry a refusal out of code that would retry it, or take it for an error of a provider.

Routers and gateways catch whatever a call raises: they map it to an error of their own, try again, or ask
another model. A refusal that is raised inside one is carried past them, as no `Exception`, to where the
program called it, and is raised there as what it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from budgetguard.engine.context import as_landing, lands
from budgetguard.errors import BudgetGuardError

T = TypeVar("T")


class Carried(BaseException):
    """A refusal on its way to where the program called.

    Attributes:
        refusal: what is raised there.
    """

    def __init__(self, refusal: BudgetGuardError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@contextmanager
def carrying() -> Iterator[None]:
    """Have refusals that are raised inside carried, if they land somewhere around us."""
    try:
        yield
    except BudgetGuardError as refusal:
        if lands():
            raise Carried(refusal) from None
        raise


@contextmanager
def landing() -> Iterator[None]:
    """Raise what is carried as the refusal that it is; not inside another landing, where it goes on."""
    outermost = not lands()
    try:
        with as_landing():
            yield
    except Carried as carried:
        if not outermost:
            raise
        raise carried.refusal from None


def land(call: Callable[..., T], args: Any, kwargs: Any) -> T:
    """Call something from which refusals land here."""
    with landing():
        return call(*args, **kwargs)


async def aland(call: Callable[..., Awaitable[T]], args: Any, kwargs: Any) -> T:
    """Await something from which refusals land here."""
    with landing():
        return await call(*args, **kwargs)
